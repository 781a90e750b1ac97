# SPDX-License-Identifier: MIT
"""A guest that boots in no time and checks its own memory for ever (tiny/guest.S), with its QEMU.

ROUSE_TEST_QEMU is the command of another QEMU to test with, options for its firmware included.
"""
import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time

from e2e import Monitor, Skip, need_qemu, temp_dir, wait_until

SOURCES = pathlib.Path(__file__).resolve().parent / 'tiny'
BASE = 2 << 20
PARAMETERS_AT = 32
TABLE_AT = 4096  # of a program that has one
QEMU = tuple(os.environ.get('ROUSE_TEST_QEMU', 'qemu-system-x86_64').split())


def build_tiny_guest(name):
    """Assembles tiny/NAME.S once for the whole run of tests."""
    if shutil.which('as') is None or shutil.which('ld') is None:
        raise Skip('as and ld (binutils) are not installed')
    cache = pathlib.Path(os.environ['ROUSE_TEST_CACHE'])
    program = cache / f'tiny-{name}.bin'
    if program.exists():
        return program
    with open(cache / 'tiny.lock', 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            subprocess.run(['as', '--32', SOURCES / f'{name}.S', '-o', cache / 'tiny.o'], check=True)
            subprocess.run(['ld', '-m', 'elf_i386', '-Ttext', '0x100000', '--oformat', 'binary',
                            '-e', '_start', cache / 'tiny.o', '-o', cache / 'tiny.new'], check=True)
            (cache / 'tiny.new').chmod(0o644)
            (cache / 'tiny.new').rename(program)
    return program


class TinyGuest:
    """Its QEMU. Use it with `with`. `monitor` is a second QMP connection; `qmp` a free socket.

    With `start` false it is only prepared: `command` starts it."""

    def __init__(self, fixed_mb=64, moving_mb=4, incoming=None, extra=(), machine='pc',
                 qemu=QEMU, paused=False, program='guest', start=True, table=b''):
        need_qemu()
        self.folder = temp_dir() / f'tiny{time.monotonic_ns()}'
        self.folder.mkdir()
        self.qmp = self.folder / 'qmp'
        self.serial = self.folder / 'serial'
        self.monitor = Monitor(self.folder / 'monitor')
        kernel = self.folder / 'kernel'
        code = bytearray(build_tiny_guest(program).read_bytes())
        struct.pack_into('<III', code, PARAMETERS_AT, BASE, fixed_mb << 18, moving_mb << 18)
        code[TABLE_AT:TABLE_AT + len(table)] = table
        kernel.write_bytes(code)
        command = [*qemu, '-machine', machine, '-accel', 'tcg', '-m', str(fixed_mb + moving_mb + 28),
                   '-nodefaults', '-display', 'none', '-no-reboot', '-kernel', kernel,
                   '-serial', f'file:{self.serial}',
                   '-qmp', f'unix:{self.qmp},server=on,wait=off',
                   '-qmp', f'unix:{self.folder}/monitor,server=on,wait=off', *extra]
        if incoming:
            command += ['-incoming', incoming]
        if paused:
            command.append('-S')
        self.command = [str(word) for word in command]
        self.process = None
        if start:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)

    def answers(self):
        """Whether QEMU's main loop runs: a new monitor connection can be negotiated at once."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.folder / 'monitor'))
                client.sendall(b'{"execute": "qmp_capabilities"}\n')
                said = b''
                while b'"return"' not in said:
                    said += client.recv(4096) or b'"return"'
            except OSError:
                return False
            return True

    def letters(self):
        """What it has written so far."""
        return self.serial.read_text(encoding='utf-8') if self.serial.exists() else ''

    def wait_letters(self, wanted, timeout=60):
        """Waits for all of these letters to come from now on."""
        begin = len(self.letters())

        def there():
            letters = self.letters()
            assert 'X' not in letters, 'memory is WRONG inside the guest'
            assert self.process is None or self.process.poll() is None, 'QEMU has ended'
            return all(letters.count(each, begin) >= wanted.count(each) for each in set(wanted))
        wait_until(there, f'{wanted!r} from the tiny guest', timeout)

    def wait_works(self):
        """Waits until it has filled its memory and checked all of it."""
        wait_until(lambda: 'k' in self.letters() or self.process.poll() is not None,
                   'the tiny guest to check its memory', 60)
        assert self.process.poll() is None, 'QEMU has ended'

    def check(self):
        """Waits for a check of all its memory that began after now."""
        self.wait_letters('..kk')

    def close(self):
        self.monitor.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
