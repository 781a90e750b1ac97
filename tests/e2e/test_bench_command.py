# SPDX-License-Identifier: MIT
"""rouse bench: what it measures, what it tells, and that it leaves nothing behind."""
import contextlib
import json
import mmap
import os
import signal
import subprocess

from e2e import (
    BUILD, CANCELLED, REFUSED, ROOT, ROUSE, USAGE, Rouse, Skip, kill, limit, need_userfaultfd,
    processes_of_this_test, rouse, runtime_dir, wait_until, work)
from tiny_guest import TinyGuest

# Without a working set. No QEMU is needed for what fails before it would run.
GOLDEN = ROOT / 'tests/golden/good/lz4.rouse'
SLEEPER = ('--', '/bin/sh', '-c', 'sleep 300')


def need_tool():
    if not ROUSE.exists():
        raise Skip('the tool is not built')


@contextlib.contextmanager
def tiny_image(extra=()):
    """(an image of a guest without a working set, the command that its VM may be started with)"""
    image = work('tiny.rouse')
    with TinyGuest(8, 8, extra=extra) as guest:
        guest.wait_works()
        rouse('save', '-q', '--qmp', guest.qmp, image).expect(0)
    with TinyGuest(8, 8, extra=extra, start=False) as guest:
        yield image, guest.command


def qemus():
    """Those that were started, and not whoever has QEMU's command on its own command line."""
    return processes_of_this_test('socket,id=rouse-control')


def sleepers():
    """What SLEEPER starts, and not those that have it on their command line."""
    return processes_of_this_test('sleep\x0030')


def expect_nothing_left():
    """Here and now: what is left at the end of the test the runner would find, too."""
    assert not qemus(), 'QEMU is left'
    assert not processes_of_this_test('restore'), 'a restore is left'
    left = [path for path in runtime_dir().rglob('*') if path.name != 'rouse']
    assert not left, left


# ---- Measuring -----------------------------------------------------------------------------------

@limit(120)
def test_lazy_and_eager_are_measured_in_turns_and_make_a_page():
    need_userfaultfd()
    out = work('bench.json')
    with tiny_image() as (image, command):
        said = rouse('bench', '--policies', 'lazy,eager', '--rounds', '2', '--name', 'tiny', '-o',
                     out, image, '--', *command, timeout=100) \
            .expect(0, r'disk +lazy', r'disk +eager', 'is responsive soonest').out
        expect_nothing_left()
    report = json.loads(out.read_text())
    assert [(run['policy'], run['round']) for run in report['runs']] == \
        [('lazy', 1), ('eager', 1), ('eager', 2), ('lazy', 2)]
    for run in report['runs']:
        assert run['workload'] == 'tiny' and run['chosen_policy'] == run['policy']
        assert run['ttr_ms'] > 0 and run['read_bytes'] > 0
        assert run['faults'] == 0 or run['policy'] == 'lazy'
    assert report['environment']['accel'] == 'tcg'
    assert report['environment']['qemu'].count('.') == 2, report['environment']
    assert 'failed' not in said and 'skipped' not in said
    if (BUILD / 'report/report.html').exists():
        page = work('page.html')
        rouse('report', '-o', page, out).expect(0)
        assert 'tiny' in page.read_text(encoding='utf-8')


@limit(120)
def test_auto_tells_what_it_chose_and_a_slow_storage_is_slow():
    need_userfaultfd()
    with tiny_image() as (image, command):
        report = rouse('bench', '--policies', 'auto', '--quick', '--storages', 'disk', '--throttle',
                       'far=1GB,0,50ms', '--json', image, '--', *command).expect(0).json
        expect_nothing_left()
    assert [run['storage'] for run in report['runs']] == ['disk', 'far']
    assert all(run['chosen_policy'] in ('eager', 'lazy') for run in report['runs'])
    # A model of a disk, not a clock: a start needs one read at least.
    assert report['runs'][1]['start_ms'] >= 50
    assert report['environment']['storages'] == {'disk': 'as it is', 'far': '1GB,0,50ms'}


@limit(120)
def test_restore_that_was_not_cold_is_told():
    need_userfaultfd()
    with tiny_image() as (image, command), open(image, 'rb') as file, \
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0:1]
        report = rouse('bench', '--policies', 'eager', '--quick', '--json', image, '--',
                       *command).expect(0, 'NOT COLD').json
    assert report['runs'][0]['cached_bytes'] >= mmap.PAGESIZE


@limit(120)
def test_script_around_qemu_and_its_helper_are_ended_too():
    need_userfaultfd()
    with tiny_image() as (image, command):
        rouse('bench', '--policies', 'lazy', '--quick', image, '--', '/bin/sh', '-c',
              'sleep 300 & "$0" "$@"; sleep 301', *command).expect(0, r'disk +lazy')
        expect_nothing_left()
        assert not sleepers()


# ---- Failing -------------------------------------------------------------------------------------

def test_restore_that_fails_is_told_with_its_reason_and_the_others_go_on():
    need_tool()
    result = rouse('bench', '--policies', 'eager,auto', '--rounds', '2', '--json', GOLDEN, '--',
                   '/nonexistent/qemu').expect(1, 'FAILED')
    failed = result.json['failed']
    assert [each['name'] for each in failed] == [
        'disk, eager, round 1', 'disk, auto, round 1', 'disk, auto, round 2', 'disk, eager, round 2']
    assert all('/nonexistent/qemu' in each['reason'] for each in failed), failed
    assert result.json['runs'] == []


def test_policy_that_needs_a_set_is_skipped_by_name():
    need_tool()
    report = rouse('bench', '--policies', 'ws,eager', '--quick', '--json', GOLDEN, '--',
                   '/bin/false').expect(1).json
    assert [each['name'] for each in report['skipped']] == ['ws']
    assert 'no working set' in report['skipped'][0]['reason']
    assert [each['name'] for each in report['failed']] == ['disk, eager, round 1']
    rouse('bench', '--policies', 'ws', GOLDEN, '--', '/bin/false') \
        .expect(1, 'nothing is left to be measured', 'skipped: ws: ')


def test_pipe_gets_one_report():
    need_tool()
    pipe, out = work('pipe'), work('out.json')
    os.mkfifo(pipe)
    with open(out, 'wb') as file, subprocess.Popen(['cat', pipe], stdout=file) as reader:
        rouse('bench', '--policies', 'eager', '--rounds', '2', '-o', pipe, GOLDEN, '--',
              '/bin/false').expect(1)
        reader.wait(20)
    assert len(json.loads(out.read_text())['failed']) == 2


@limit(60)
def test_restore_that_takes_too_long_has_failed():
    need_tool()
    report = rouse('bench', '--policies', 'eager', '--quick', '--watch', '1', '--json', GOLDEN,
                   *SLEEPER).expect(1).json
    assert '--watch' in report['failed'][0]['reason'], report['failed']
    assert not sleepers()
    expect_nothing_left()


@limit(60)
def test_restore_that_is_killed_does_not_end_the_others():
    need_tool()
    killed = set()
    with Rouse('bench', '--policies', 'eager,auto', '--quick', '--json', GOLDEN, *SLEEPER) as run:
        for _ in range(2):
            wait_until(sleepers, 'what is started as QEMU')
            found = wait_until(lambda: set(processes_of_this_test('restore')) - killed, 'a restore')
            for pid in found:
                kill(pid)
            killed |= found
        failed = run.end().expect(1).json['failed']
    assert len(failed) == 2 and all('signal 9' in each['reason'] for each in failed), failed
    assert not sleepers()
    expect_nothing_left()


# ---- Ending --------------------------------------------------------------------------------------

@limit(120)
def test_interrupted_it_shows_what_was_measured_and_leaves_no_qemu():
    need_userfaultfd()
    for number in (signal.SIGINT, signal.SIGTERM):
        with tiny_image() as (image, command), \
                Rouse('bench', '--policies', 'lazy', '--quick', '--throttle', 'crawl=100KB', '--json',
                      image, '--', *command) as run:
            wait_until(lambda said=run.said: '1 of 2' in said(), 'the first restore')
            wait_until(qemus, 'the second one')
            run.signal(number)
            report = run.end(20).expect(CANCELLED, 'interrupted').json
            expect_nothing_left()
        assert [run['storage'] for run in report['runs']] == ['disk']
        assert report['failed'] == []


@limit(60)
def test_interrupt_ends_what_was_started_and_does_not_answer():
    need_tool()
    with Rouse('bench', '--policies', 'eager', GOLDEN, *SLEEPER) as run:
        wait_until(sleepers, 'what is started as QEMU')
        run.signal(signal.SIGINT)
        result = run.end(20).expect(CANCELLED)
    assert 'failed' not in (result.out + result.err).lower(), 'an interrupted restore has not failed'
    assert not sleepers()
    expect_nothing_left()


def wait_nothing_left():
    for word in ('bench', 'restore', 'socket,id=rouse-control', 'sleep\x0030'):
        wait_until(lambda word=word: not processes_of_this_test(word), f'{word} to end', 20)
    expect_nothing_left()


@limit(120)
def test_killed_it_leaves_no_restore_and_no_qemu():
    need_userfaultfd()
    with tiny_image() as (image, command), \
            Rouse('bench', '--policies', 'lazy', '--quick', '--storages', 'disk', '--throttle',
                  'crawl=100KB', image, '--', *command) as run:
        wait_until(lambda: '1 of 2' in run.said(), 'the first restore')
        wait_until(qemus, 'the second one')
        run.signal(signal.SIGKILL)
        run.process.wait()
        wait_nothing_left()


@limit(60)
def test_killed_with_its_group_it_leaves_no_script_and_no_helper():
    need_tool()
    with Rouse('bench', '--policies', 'eager', GOLDEN, '--', '/bin/sh', '-c',
               'sleep 300 & sleep 301', start_new_session=True) as run:
        wait_until(lambda: len(sleepers()) >= 2, 'what is started as QEMU')
        os.killpg(run.pid, signal.SIGKILL)
        run.process.wait()
        wait_nothing_left()


# ---- What must not be done -------------------------------------------------------------------------

def content_of(path):
    return path.read_bytes()


@limit(120)
def test_vm_with_a_writable_disk_is_refused_unless_that_is_wanted():
    need_userfaultfd()
    disk = work('disk.raw')
    disk.write_bytes(os.urandom(1 << 20))
    before = content_of(disk)
    drive = f'file={disk},format=raw,if=virtio'
    with tiny_image(['-drive', drive]) as (image, command):
        rouse('bench', '--policies', 'lazy', '--quick', image) \
            .expect(REFUSED, 'disk.raw', 'power cut', '--writable-disks')
        assert not qemus()
        rouse('bench', '--policies', 'lazy', '--quick', '--writable-disks', image, '--',
              *(f'{word},snapshot=on' if word == drive else word for word in command)) \
            .expect(0, r'disk +lazy')
        expect_nothing_left()
    assert content_of(disk) == before


def test_mistakes_are_named():
    need_tool()
    for options, said in ((['--policies', 'eager,wss'], "'wss' is not a policy"),
                          (['--storages', 'disk,tape'], "'tape' is neither"),
                          (['--throttle', 'slow=1MB'], 'slow=1MB'),
                          (['--throttle', 'a=1MB', '--throttle', 'a=2MB'], 'a=2MB'),
                          (['--rounds', '0'], '--rounds'), (['--watch', '0'], '--watch')):
        rouse('bench', *options, GOLDEN).expect(USAGE, said)
    rouse('bench', GOLDEN, '--').expect(USAGE, 'no command')
    rouse('bench', '-o', '/nonexistent/report.json', GOLDEN, '--', '/bin/false') \
        .expect(1, '/nonexistent/report.json')
