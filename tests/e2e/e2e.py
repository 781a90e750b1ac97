#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What end-to-end tests lean on. tests/run runs each test function in a process of its own:

    tests/e2e/e2e.py FILE FUNCTION

A test is a function test_NAME() without arguments. It passes by returning, fails by raising, and is
skipped by `raise Skip(reason)`. It may leave nothing behind: no process, no socket, no file, except
what it made with work().

    @limit(300)          seconds that it may take (180 otherwise)
    @slow                left out by tests/run --fast

Guests are those of harness/; the small one that most tests use is saved once by `rouse save` for
the whole run of tests: saved_image().
"""
import contextlib
import fcntl
import importlib.util
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

BUILD = pathlib.Path(os.environ.get('ROUSE_BUILD', ROOT / 'build')).resolve()
ROUSE = BUILD / 'tool/rouse'
GUEST_MB = 256
GUEST_FILL_MB = 120

# Exit codes of the tool.
USAGE, FILE, REFUSED, VMM, CANCELLED = 2, 3, 4, 5, 130


class Skip(Exception):
    """The test needs something that is absent; the text says what."""


def limit(_seconds):
    """States how long a test may take; tests/run reads it from the source."""
    return lambda function: function


def slow(function):
    return function


def note(text):
    """Says something that stands under the test's name when it has passed."""
    print(f'note: {text}', flush=True)


# ---- files -----------------------------------------------------------------------------------

_made = []


def work(name):
    """A path for a file of this test. It is removed at the end; anything else must not be left."""
    path = pathlib.Path(os.environ['ROUSE_TEST_DIR'], name)
    _made.append(path)
    return path


def temp_dir():
    """Where programs put their temporary files during this test."""
    return pathlib.Path(os.environ['TMPDIR'])


def runtime_dir():
    """Where programs put their sockets during this test."""
    return pathlib.Path(os.environ['XDG_RUNTIME_DIR'])


def _remove_made():
    for path in _made:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def seeded():
    """Random numbers that ROUSE_TEST_SEED repeats."""
    seed = int(os.environ.get('ROUSE_TEST_SEED') or random.SystemRandom().randrange(1 << 32))
    note(f'seed {seed} (ROUSE_TEST_SEED={seed} repeats it)')
    return random.Random(seed)


def wait_until(condition, what, timeout=30, pause=0.02):
    """Waits for condition() to be true and returns what it gave."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f'waited {timeout} s for: {what}')
        time.sleep(pause)


def catches(pid, number):
    """Whether a process has a handler for a signal: before that, the signal would end it."""
    with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as file:
        caught = next(line.split()[1] for line in file if line.startswith('SigCgt:'))
    return int(caught, 16) >> (number - 1) & 1 == 1


# ---- the tool --------------------------------------------------------------------------------

class Result:
    """How a run of the tool ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def expect(self, code, *patterns):
        """Fails unless it ended with this exit code and each pattern is in what it said."""
        assert self.code == code, f'exit code {self.code}, not {code}: {self.err or self.out}'
        for pattern in patterns:
            assert re.search(pattern, self.err + self.out, re.IGNORECASE), \
                f'{pattern!r} is not in: {self.err}{self.out}'
        return self


class Rouse:
    """A run of the tool. `with Rouse(...)` kills it at the end if it still runs."""

    def __init__(self, *arguments, **options):
        command = [str(word) for word in (ROUSE, *arguments)]
        print(f'+ rouse {" ".join(command[1:])}', flush=True)
        # Files, not pipes: what is detached or started keeps them open.
        self._out = open(work(f'.out{id(self)}'), 'w+', encoding='utf-8')
        self._err = open(work(f'.err{id(self)}'), 'w+', encoding='utf-8')
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._out,
                                        stderr=self._err, **options)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.running():
            self.process.send_signal(number)

    def said(self):
        """What it has written to stderr so far."""
        with open(self._err.name, encoding='utf-8', errors='replace') as file:
            return file.read()

    def end(self, timeout=60):
        """Waits for it to end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f'rouse did not end in {timeout} s; it said: {self.said()}') \
                from None
        with open(self._out.name, encoding='utf-8', errors='replace') as file:
            result = Result(code, file.read(), self.said())
        for line in result.err.splitlines():
            print(f'  {line}')
        print(f'  exit code {code}', flush=True)
        return result

    def close(self):
        if self.running():
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def rouse(*arguments, timeout=60, **options):
    """Runs the tool to its end."""
    with Rouse(*arguments, **options) as run:
        return run.end(timeout)


# ---- guests ----------------------------------------------------------------------------------

def need_qemu():
    if shutil.which('qemu-system-x86_64') is None:
        raise Skip('qemu-system-x86_64 is not installed')
    if not ROUSE.exists():
        raise Skip('the tool is not built')


def may_use_userfaultfd():
    """Whether this user's QEMU may register memory: root, or everybody by a sysctl."""
    sysctl = pathlib.Path('/proc/sys/vm/unprivileged_userfaultfd')
    if not sysctl.exists():
        return False
    return os.geteuid() == 0 or sysctl.read_text().strip() == '1'


def need_userfaultfd():
    if not may_use_userfaultfd():
        raise Skip('QEMU may not use userfaultfd here (not root, vm.unprivileged_userfaultfd=0)')


def need_io_uring():
    findings = rouse('doctor', '--json').json['findings']
    found = next(finding for finding in findings if finding['name'] == 'io_uring')
    if not found['available']:
        raise Skip(f'no io_uring: {found["detail"]}')


def machine(ram_mb=GUEST_MB, extra=(), **more):
    """The small guest's machine: TCG, so that the tests say the same everywhere."""
    need_qemu()
    from harness import Machine, build_guest
    return Machine(build_guest(str(BUILD)), ram_mb=ram_mb, vcpus=2, extra=tuple(extra), **more)


def busy_guest(kind):
    """Boots the machine and gives it stamped memory and work: a guest worth saving."""
    from harness import Guest
    guest = Guest.boot(kind)
    try:
        guest.start('idle', GUEST_FILL_MB)
        guest.stamp()
        guest.wait_requests()
        check_memory(guest)
        return guest
    except BaseException:
        guest.close()
        raise


def check_memory(guest):
    """The guest re-hashes all of its stamped memory, while it works: none of it may be wrong."""
    verified = guest.verify()
    print(f'  verified {verified.pages} pages, {verified.errors} errors', flush=True)
    assert verified.errors == 0, f'{verified.errors} of {verified.pages} pages are WRONG'
    assert verified.pages >= GUEST_FILL_MB * 200, f'only {verified.pages} pages were verified'


@contextlib.contextmanager
def _once(name):
    """Yields the path of a shared file, and whether it is still to be made by the caller."""
    cache = pathlib.Path(os.environ['ROUSE_TEST_CACHE'])
    path, failed = cache / name, cache / f'{name}.failed'
    with open(cache / f'{name}.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            raise AssertionError(f'what several tests need could not be made: '
                                 f'{failed.read_text()}')
        try:
            yield path, not path.exists()
        except BaseException as problem:
            if not path.exists():
                failed.write_text(f'{name}: {problem}')
            raise


def saved_image():
    """The small guest, at work, saved by `rouse save`: the same file for all tests. Read-only."""
    with _once('guest.rouse') as (image, missing):
        if missing:
            with busy_guest(machine()) as guest:
                rouse('save', '--qmp', guest.run.qmp, image, timeout=120).expect(0)
            rouse('verify', image).expect(0)
    return image


def packed_image():
    """The same image, laid out for the working set of a recorded lazy restore."""
    image = saved_image()
    with _once('packed.rouse') as (packed, missing):
        if missing:
            wset = packed.with_name('guest.wset')
            record_wset(image, wset)
            rouse('pack', image, '-w', wset, packed).expect(0)
            rouse('verify', packed).expect(0)
    return packed


def record_wset(image, wset):
    """Restores lazily, lets the guest work a moment and writes what it touched. The report."""
    with waiting_qemu() as guest, Rouse('restore', '--policy', 'lazy', '--record', wset, '--json',
                                        '--qmp', guest.run.qmp, image) as run:
        guest.wait_requests(100)
        report = run.end().expect(0).json
        check_memory(guest)
    assert wset.exists(), '--record wrote no file'
    return report


@contextlib.contextmanager
def waiting_qemu(ram_mb=GUEST_MB, **more):
    """A QEMU that waits for the small guest, with a second monitor: `guest.monitor`."""
    from harness import Guest
    second = temp_dir() / f'monitor{time.monotonic_ns()}'
    kind = machine(ram_mb, extra=['-qmp', f'unix:{second},server=on,wait=off'], **more)
    with Guest.load(kind, 'defer') as guest:
        guest.monitor = Monitor(second)
        try:
            yield guest
        finally:
            guest.monitor.close()
            second.unlink(missing_ok=True)


class Monitor:
    """A second QMP connection to a guest's QEMU, connected when first used."""

    def __init__(self, path):
        self.path = path
        self._client = None

    def __call__(self, command, **arguments):
        from harness import QmpClient
        if self._client is None:
            self._client = QmpClient(str(self.path))
        return self._client.execute(command, **arguments)

    execute = __call__

    def status(self):
        """The run state: running, paused, inmigrate, ..."""
        return self('query-status')['status']

    def migration(self):
        """The state of the incoming migration, or 'none'."""
        return self('query-migrate').get('status', 'none')

    def close(self):
        if self._client:
            self._client.close()
            self._client = None


def has_ended(process):
    return process.poll() is not None


@contextlib.contextmanager
def restored(image, *options, **more):
    """A guest that is being restored, and the tool that does it: (guest, run)."""
    with waiting_qemu(**more) as guest, Rouse('restore', *options, '--qmp', guest.run.qmp,
                                              image) as run:
        yield guest, run


def wait_running(guest, run, timeout=60):
    """Waits until the guest works again; the tool must not have failed meanwhile."""
    def works():
        if not run.running() and run.process.returncode != 0:
            run.end().expect(0)
        return len(guest.link.records) > 0
    wait_until(works, 'a request inside the restored guest', timeout)


# ---- images, to break them -------------------------------------------------------------------

FRONT_BYTES_AT = 56  # of the superblock; docs/format.md
VERSION_AT = 8


def front_bytes(image):
    with open(image, 'rb') as file:
        file.seek(FRONT_BYTES_AT)
        return struct.unpack('<Q', file.read(8))[0]


def copy_of(image, name):
    """A copy to break, mode 0600."""
    copy = work(name)
    shutil.copyfile(image, copy)
    copy.chmod(0o600)
    return copy


def flip_bytes(path, offset, count=16):
    with open(path, 'r+b') as file:
        file.seek(offset)
        old = file.read(count)
        file.seek(offset)
        file.write(bytes(byte ^ 0x5a for byte in old))


# ---- running one test ------------------------------------------------------------------------

def become_nobody():
    """Makes this test's process, and all it starts, an ordinary user. For good."""
    if os.geteuid() != 0:
        return
    nobody = 65534
    for name in ('ROUSE_TEST_DIR', 'TMPDIR', 'XDG_RUNTIME_DIR', 'ROUSE_TEST_CACHE'):
        os.chown(os.environ[name], nobody, nobody)
    os.setgroups([])
    os.setgid(nobody)
    os.setuid(nobody)
    os.environ['HOME'] = os.environ['TMPDIR']


def processes_of_this_test(word):
    """Pids of this test's processes, started by whomever, with `word` in the command line."""
    mark = f'ROUSE_TEST_MARK={os.environ["ROUSE_TEST_MARK"]}'.encode()
    found = []
    for entry in pathlib.Path('/proc').iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / 'environ').read_bytes() and \
                    word.encode() in (entry / 'cmdline').read_bytes():
                found.append(int(entry.name))
    return found


def kill(pid, number=signal.SIGKILL):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main():
    path, function = sys.argv[1:3]
    sys.path.insert(0, str(pathlib.Path(path).parent))
    sys.modules['e2e'] = sys.modules['__main__']
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        getattr(module, function)()
        return 0
    except Skip as reason:
        print(reason)
        return 77
    except Exception:  # whatever it is: the test failed
        traceback.print_exc(file=sys.stdout)
        return 1
    finally:
        _remove_made()


if __name__ == '__main__':
    sys.exit(main())
