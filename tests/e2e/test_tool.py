# SPDX-License-Identifier: MIT
"""The rouse command as a command: help, mistakes, exit codes, output. No guest is needed."""
import fcntl
import os
import pathlib
import re
import signal
import struct
import subprocess
import termios

from e2e import (
    CANCELLED, FILE, ROUSE, ROOT, Rouse, Skip, USAGE, catches, rouse, wait_until, work)

COMMANDS = ['save', 'restore', 'inspect', 'verify', 'pack', 'convert', 'wset', 'trace', 'scan',
            'cat', 'ttr', 'bench', 'report', 'doctor']
GOOD = sorted(pathlib.Path(ROOT, 'tests/golden/good').glob('*.rouse'))
BAD = sorted(pathlib.Path(ROOT, 'tests/golden/bad').glob('*.rouse'))
# The example of docs/ttr.md.
STALLS = 'rouse-stalls 1\nvcpus 2\n0 60000\n0 60000\n70000 80000\n75000 95000\n300000 312000\n'


def need_tool():
    if not ROUSE.exists():
        raise Skip('the tool is not built')


def stalls(text=STALLS):
    path = work('stalls')
    path.write_text(text)
    return path


# ---- help and mistakes ---------------------------------------------------------------------

def test_help_lists_every_command():
    need_tool()
    out = rouse('--help').expect(0).out
    for name in COMMANDS:
        assert f'\n  {name} ' in out, f'{name} is not in the help'
    assert rouse('help').expect(0).out == out


def test_every_command_has_help():
    need_tool()
    for name in COMMANDS:
        out = rouse(name, '--help').expect(0).out
        assert out.startswith(f'Usage: rouse {name}')
        assert '--help' in out
        assert rouse('help', name).expect(0).out == out
        assert max(map(len, out.splitlines())) <= 100, f'{name}: a line is too long'


def test_every_option_is_in_the_manual():
    need_tool()
    for name in COMMANDS:
        manual = pathlib.Path(ROOT, f'man/rouse-{name}.1.scd')
        options = re.findall(r'--[a-z][a-z-]+', rouse(name, '--help').out)
        text = manual.read_text().replace('\\', '')
        for option in options:
            assert option in text, f'{manual.name} lacks {option}'


def test_version():
    need_tool()
    assert rouse('--version').expect(0).out.startswith('rouse 0.')


def test_no_command_is_a_mistake():
    need_tool()
    rouse().expect(USAGE, 'Usage: rouse')


def test_unknown_command_is_a_mistake():
    need_tool()
    rouse('revive').expect(USAGE, "no command 'revive'")
    rouse('help', 'revive').expect(USAGE, "no command 'revive'")


def test_mistakes_in_options_name_the_option():
    need_tool()
    rouse('save', 'image').expect(USAGE, '^rouse save: .*--qmp')
    rouse('restore').expect(USAGE, 'missing: rouse restore')
    rouse('restore', '--frobnicate', 'image').expect(USAGE, "'--frobnicate'")
    rouse('restore', '--policy', 'fast', 'image').expect(USAGE, "'fast' is not one of auto")
    rouse('restore', '--throttle', '10Q', 'image').expect(USAGE, "--throttle: '10Q'")
    rouse('restore', '--background', 'some', 'image').expect(USAGE, "--background: 'some'")
    rouse('restore', '--ttr', '90', 'image').expect(USAGE, "--ttr: '90'")
    rouse('restore', '--ttr', '101,1s', 'image').expect(USAGE, "--ttr: '101,1s'")
    for option in ('--record', '--learn'):
        for value in ('f:', 'f:10x', 'f:1.2.3', 'f:2000000', 'f:600min1', ':5'):
            rouse('restore', option, value, 'image').expect(USAGE, f"{option}: '{value}'")
    rouse('restore', '--resume', 'image').expect(USAGE, '--resume needs --qmp')
    rouse('restore', '--log', 'x', 'image').expect(USAGE, '--log is for --detach')
    rouse('restore', '--qmp', 'x', 'image', '--', 'qemu').expect(USAGE, '--qmp takes')
    rouse('restore', 'image', '--').expect(USAGE, 'no command behind --')
    rouse('pack', 'image').expect(USAGE, 'missing')
    rouse('pack', 'a', 'b', 'c').expect(USAGE, "'c' is too much")
    rouse('pack', '--threads', '-1', 'a', 'b').expect(USAGE, '--threads')


def test_time_of_a_record_may_have_a_unit():
    need_tool()
    for value in ('f:10', 'f:0.5', 'f:10s', 'f:500ms', 'f:1min', 'a:b', 'a:1/f', 'f'):
        for option in ('--record', '--learn'):
            rouse('restore', option, value, '/nonexistent/file').expect(1, '/nonexistent/file')


def test_missing_file_is_named():
    need_tool()
    for name in ('inspect', 'verify', 'ttr', 'cat', 'restore'):
        rouse(name, '/nonexistent/file').expect(1, f'^rouse {name}: .*/nonexistent/file')


def test_full_output_is_a_failure():
    need_tool()
    with open('/dev/full', 'w', encoding='ascii') as full:
        command = subprocess.run([ROUSE, '--help'], stdout=full, stderr=subprocess.PIPE,
                                 text=True, check=False)
    assert command.returncode == 1 and 'cannot write' in command.stderr


# ---- ttr -------------------------------------------------------------------------------------

def test_ttr_of_the_documented_example():
    need_tool()
    out = rouse('ttr', stalls()).expect(0).out
    assert out.startswith('TTR(90 %, 100.0 ms) 77.5 ms\n'), out
    report = rouse('ttr', '--json', '--ttr', '99%,100ms', stalls()).expect(0).json
    assert report['ttr_ms'] == 310
    assert report['ttr'] == {'utilization': 0.99, 'window_ms': 100}
    assert {'utilization': 0.5, 'window_ms': 10, 'ttr_ms': 80} in report['ttr_table']
    assert len(report['ttr_table']) == 15


def test_durations_have_units():
    need_tool()
    for text, value in (('50,1500us', 1.5), ('50,0.5s', 500), ('50,1min', 60000)):
        report = rouse('ttr', '--json', '--ttr', text, stalls()).expect(0).json
        assert report['ttr']['window_ms'] == value


def test_ttr_names_a_broken_line():
    need_tool()
    rouse('ttr', stalls(STALLS + '9 8\n')).expect(FILE, 'line 8')


# ---- inspect and verify ---------------------------------------------------------------------

def test_good_images_are_described():
    need_tool()
    for image in GOOD:
        info = rouse('inspect', '--json', image).expect(0).json
        assert info['type'] == 'image' and info['version'] == 1
        assert info['file_bytes'] == image.stat().st_size
        assert (info['wset_pages'] > 0) == ('wset' in image.name)
        assert sum(block['used_bytes'] for block in info['blocks']) == info['ram_bytes']
        assert 'Rouse image' in rouse('inspect', image).expect(0).out


def test_good_images_are_whole():
    need_tool()
    for image in GOOD:
        assert rouse('verify', image).expect(0).out == f'{image}: whole\n'
        assert rouse('verify', '--json', image).expect(0).json['ok'] is True


def test_bad_images_are_reported():
    need_tool()
    for image in BAD:
        wanted = image.with_suffix('.error').read_text().strip()
        result = rouse('verify', image).expect(FILE)
        assert wanted in result.out + result.err, \
            f'{image.name}: {wanted!r} is not in {result.out + result.err!r}'


def test_damage_is_listed_as_json():
    need_tool()
    image = ROOT / 'tests/golden/bad/chunk_checksum.rouse'
    report = rouse('verify', '--json', image).expect(FILE).json
    assert report['ok'] is False
    assert report['damage'] and report['damage'][0]['length'] > 0


def test_inspect_says_what_else_a_file_is():
    need_tool()
    rouse('inspect', stalls()).expect(FILE, 'rouse ttr')
    migration = work('migration')
    migration.write_bytes(b'QEVM\0\0\0\3')
    rouse('inspect', migration).expect(FILE, 'rouse convert')
    rouse('inspect', ROUSE).expect(FILE, 'not a Rouse image')


def test_pipe_is_no_image_and_nobody_waits_for_its_writer():
    need_tool()
    pipe = work('pipe')
    os.mkfifo(pipe)
    for command in ('inspect', 'verify'):
        rouse(command, pipe, timeout=20).expect(USAGE, 'neither a regular file')


def test_policy_without_a_use_for_a_working_set_is_not_given_one():
    need_tool()
    for policy in ('eager', 'lazy', 'lazy-background'):
        rouse('restore', '--policy', policy, '-w', 'no-such-set', GOOD[0]) \
            .expect(USAGE, 'no use for a working set: take auto, ws or paced')
    for policy in ('auto', 'ws', 'paced', 'reap', 'faasnap'):
        rouse('restore', '--policy', policy, '-w', 'no-such-set', GOOD[0]).expect(1, 'no-such-set')


# ---- cat, progress, signals ------------------------------------------------------------------

def test_cat_copies():
    need_tool()
    image = GOOD[0]
    copy = subprocess.run([ROUSE, 'cat', image], stdout=subprocess.PIPE, check=True)
    assert copy.stdout == image.read_bytes()


def big_file():
    path = work('big')
    path.write_bytes(os.urandom(1 << 20))
    return path


def long_file():
    """At 1 MB/s it takes longer than any test may."""
    path = work('long')
    path.touch()
    os.truncate(path, 1 << 29)
    return path


def test_throttle_slows_down():
    """What is not throttled and began later has ended, when the other one is not half through."""
    need_tool()
    path = long_file()
    with open(os.devnull, 'wb') as nowhere, \
            subprocess.Popen([ROUSE, 'cat', '--throttle', '1MB', path], stdout=nowhere) as slow:
        subprocess.run([ROUSE, 'cat', path], stdout=nowhere, check=True)
        written = pathlib.Path(f'/proc/{slow.pid}/io').read_text(encoding='ascii')
        slow.kill()
    written = int(re.search(r'^wchar: (\d+)', written, re.MULTILINE).group(1))
    assert written < os.path.getsize(path) / 2, f'{written} bytes'


def unread(pipe):
    """Bytes that wait in a pipe."""
    return struct.unpack('i', fcntl.ioctl(pipe, termios.FIONREAD, b'    '))[0]


def test_interrupt_cancels():
    need_tool()
    with Rouse('cat', '--throttle', '1MB', long_file()) as run:
        wait_until(lambda: catches(run.pid, signal.SIGINT), 'it to listen to signals')
        run.signal(signal.SIGINT)
        run.end().expect(CANCELLED)


def test_interrupt_cancels_although_nobody_reads():
    """Also where a write finds no room at all, and so is begun again after a signal."""
    need_tool()
    room = 256 << 10
    with subprocess.Popen([ROUSE, 'cat', big_file()], stdout=subprocess.PIPE,
                          pipesize=room) as copy:
        wait_until(lambda: unread(copy.stdout) == room, 'the pipe to be full')
        copy.send_signal(signal.SIGTERM)
        try:
            assert copy.wait(20) == CANCELLED
        finally:
            copy.kill()


def test_ignored_hangup_stays_ignored():
    """While it copies into a pipe that nobody reads yet, which is smaller than the file."""
    need_tool()
    path = big_file()
    with subprocess.Popen([ROUSE, 'cat', path], stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as copy:
        first = copy.stdout.read(1)
        assert catches(copy.pid, signal.SIGINT) and not catches(copy.pid, signal.SIGHUP)
        copy.send_signal(signal.SIGHUP)
        assert first + copy.stdout.read() == path.read_bytes()
    assert copy.returncode == 0, copy.returncode


def test_no_colours_or_bars_in_a_pipe():
    need_tool()
    result = rouse('verify', GOOD[0]).expect(0)
    assert '\033' not in result.err + result.out and '\r' not in result.err


def test_a_reader_that_goes_away_is_an_error():
    need_tool()
    read, write = os.pipe()
    os.close(read)
    command = subprocess.run([ROUSE, 'cat', big_file()], stdout=write, stderr=subprocess.PIPE,
                             text=True, check=False)
    os.close(write)
    assert command.returncode == 1 and 'rouse cat:' in command.stderr


# ---- doctor ----------------------------------------------------------------------------------

def test_doctor_says_what_each_lack_costs():
    need_tool()
    findings = rouse('doctor', '--json', timeout=60).expect(0).json['findings']
    names = [finding['name'] for finding in findings]
    for name in ('userfaultfd', 'backend-uffd', 'trace', 'scan', 'kvm', 'io_uring', 'page_idle',
                 'schedstat', 'pagemap', 'qemu'):
        assert name in names, f'nothing about {name}'
    for finding in findings:
        assert finding['detail'], finding
        assert (finding['cost'] is None) == finding['available'], finding


def test_doctor_without_qemu():
    need_tool()
    findings = rouse('doctor', '--json', '--qemu', '/nonexistent/qemu').expect(0).json['findings']
    qemu = next(finding for finding in findings if finding['name'] == 'qemu')
    assert not qemu['available'] and 'No such file' in qemu['detail']


def test_doctor_needs_the_kernel_that_is_named():
    need_tool()
    rouse('doctor', '--kernel', '/nonexistent/vmlinuz').expect(1, '/nonexistent/vmlinuz')
