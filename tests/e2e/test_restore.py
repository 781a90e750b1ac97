# SPDX-License-Identifier: MIT
"""Restoring: every policy, every way to die, every image that must be refused."""
import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

import killer
from e2e import (
    CANCELLED, FILE, REFUSED, USAGE, VMM, VERSION_AT, Rouse, Skip, become_nobody, check_memory,
    copy_of, flip_bytes, front_bytes, has_ended, kill, limit, machine, may_use_userfaultfd,
    need_io_uring, need_userfaultfd, note, packed_image, processes_of_this_test, record_wset,
    restored, rouse, runtime_dir, saved_image, seeded, slow, wait_running, wait_until,
    waiting_qemu, work)
from tiny_guest import TinyGuest


# ---- policies --------------------------------------------------------------------------------

def restore_and_check(image, policy, *options):
    """Restores, verifies the guest's memory while it is being delivered, and again afterwards."""
    with restored(image, '--policy', policy, '--json', *options) as (guest, run):
        wait_running(guest, run)
        check_memory(guest)
        report = run.end().expect(0).json
        check_memory(guest)
        assert guest.monitor.status() == 'running'
        assert guest.monitor.migration() in ('none', 'completed')
    return report


def test_eager():
    report = restore_and_check(saved_image(), 'eager')
    assert report['policy'] == 'eager'
    assert report['faults'] == 0


def test_lazy():
    need_userfaultfd()
    report = restore_and_check(saved_image(), 'lazy')
    assert report['policy'] == 'lazy'
    assert report['faults'] > 0
    assert report['prefetched_pages'] == 0


def test_ws():
    need_userfaultfd()
    report = restore_and_check(packed_image(), 'ws')
    assert report['policy'] == 'ws'
    assert report['prefetched_pages'] > 0


def test_paced():
    """From a disk so slow that the VM runs while its set is still on the way."""
    need_userfaultfd()
    report = restore_and_check(packed_image(), 'paced', '--throttle', '20MB,1000')
    assert report['policy'] == 'paced'
    note(f'{report["prefetched_pages"]} pages before the start')
    assert report['prefetched_pages'] > 0


def restored_as_others_do(policy, image):
    """They show no touches, deliver what is left after 10 s, and lose nothing."""
    need_userfaultfd()
    report = restore_and_check(image, policy)
    assert report['policy'] == policy
    assert report['around_pages'] == 0 or policy == 'faasnap', report
    assert report['complete_ms'] > 10000 or policy == 'lazy-background', report
    rouse('restore', '--policy', policy, '--record', work('w.wset'), image) \
        .expect(USAGE, 'compared', 'lazy')
    return report


def test_as_reap_does():
    report = restored_as_others_do('reap', packed_image())
    assert report['prefetched_pages'] > 0, report


def test_as_faasnap_does():
    report = restored_as_others_do('faasnap', packed_image())
    assert report['prefetched_pages'] == 0, report


def test_as_handlers_without_a_set_do():
    report = restored_as_others_do('lazy-background', saved_image())
    assert report['prefetched_pages'] == 0, report


def test_auto_says_what_it_chose_and_why():
    need_userfaultfd()
    report = restore_and_check(packed_image(), 'auto')
    assert report['policy'] in ('ws', 'paced'), report['policy']
    assert 'MB/s' in report['policy_reason'], report['policy_reason']
    predicted = report['predicted_ttr_ms']
    assert set(predicted) == {'eager', 'lazy', 'ws', 'paced'}, predicted


def test_auto_without_a_set_reads_a_disk_that_seeks_eagerly():
    need_userfaultfd()
    report = restore_and_check(saved_image(), 'auto', '--throttle', '100MB,20')
    assert report['policy'] == 'eager', report
    assert report['predicted_ttr_ms']['eager'] < report['predicted_ttr_ms']['lazy']


def test_auto_records_what_lazy_shows():
    need_userfaultfd()
    report = restore_and_check(saved_image(), 'auto', '--record', work('auto.wset'),
                               '--throttle', '100MB,100')
    assert report['policy'] == 'lazy'
    assert 'recorded' in report['policy_reason'], report['policy_reason']


def test_reading_through_the_page_cache():
    need_userfaultfd()
    report = restore_and_check(saved_image(), 'lazy', '--io', 'cached')
    assert report['io'] == 'cached' and not report['io_uring']


def test_reading_past_the_page_cache():
    need_userfaultfd()
    image = cold_copy(saved_image())
    report = restore_and_check(image, 'lazy', '--io', 'direct')
    if report['io'] != 'direct':
        raise Skip('the file system refuses direct I/O')
    note(f'io_uring: {report["io_uring"]}, {report["reads"]} reads')
    assert report['faults'] > 0


def test_reading_past_the_page_cache_with_a_working_set_and_a_throttle():
    need_userfaultfd()
    report = restore_and_check(packed_image(), 'ws', '--io', 'direct', '--throttle', '100MB,0,1ms')
    assert report['prefetched_pages'] > 0


def test_a_cold_image_is_read_past_the_page_cache_and_a_warm_one_through_it():
    image = cold_copy(saved_image())
    cold = restore_and_check(image, 'eager')
    if cold['io'] != 'direct':
        raise Skip('the file system refuses direct I/O, or the page cache cannot be emptied')
    with open(image, 'rb') as file:
        while file.read(1 << 20):
            pass
    assert restore_and_check(image, 'eager')['io'] == 'cached'


def cold_copy(image):
    """A copy of which nothing is in the page cache."""
    copy = copy_of(image, 'cold.rouse')
    with open(copy, 'rb+') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return copy


def test_paced_is_not_recorded():
    rouse('restore', '--policy', 'paced', '--record', work('w.wset'), packed_image()) \
        .expect(USAGE, 'paced', 'lazy')


def test_ws_takes_a_working_set_file_for_an_image_without_one():
    need_userfaultfd()
    packed = packed_image()
    report = restore_and_check(saved_image(), 'ws', '-w', packed.with_name('guest.wset'))
    assert report['prefetched_pages'] > 0


def test_nothing_of_a_recorded_and_packed_set_faults():
    """What the restore records is the set and what was asked for: no page may be both."""
    need_userfaultfd()
    wset, packed, again = work('w.wset'), work('packed.rouse'), work('again.wset')
    record_wset(saved_image(), wset)
    rouse('pack', saved_image(), '-w', wset, packed).expect(0)
    with restored(packed, '--policy', 'ws', '--background', '32MiB', '--record', again,
                  '--json') as (guest, run):
        report = run.end().expect(0).json
        check_memory(guest)
    note(f'{report["prefetched_pages"]} pages before the start, {report["faults"]} faults')
    assert report['prefetched_pages'] == pages_of(wset) > 0
    assert pages_of(again) == report['prefetched_pages'] + report['faults']


def pages_of(wset):
    return rouse('wset', 'show', '--json', wset).expect(0).json['pages']


def check_paused(policy):
    with restored(saved_image(), '--policy', policy, '--paused') as (guest, run):
        run.end().expect(0, 'paused')
        assert guest.monitor.status() == 'paused'
        assert not guest.link.records, 'it ran'
        guest.monitor('cont')
        guest.wait_requests(20)
        check_memory(guest)


def test_a_vm_that_is_to_stay_paused_does_not_run_for_a_moment():
    need_userfaultfd()
    check_paused('lazy')


def test_a_vm_that_is_to_stay_paused_does_not_run_after_an_eager_restore():
    check_paused('eager')


def test_the_report_is_of_this_restore():
    need_userfaultfd()
    report = restore_and_check(saved_image(), 'lazy')
    assert report['image_bytes'] == saved_image().stat().st_size
    assert report['ram_bytes'] >= 256 << 20
    # A window of 100 ms may hold 10 ms of the time before the start; after the last fault, whose
    # way back counts, there are no stalls.
    assert 0 < report['start_ms'] < report['ttr_ms'] + 10.1, report
    assert report['ttr_ms'] <= report['complete_ms'] + report['transport_us'] / 1000 + 0.1, report


def test_background_off_delivers_only_what_is_asked_for():
    need_userfaultfd()
    with restored(saved_image(), '--policy', 'lazy', '--background', 'off') as (guest, run):
        wait_running(guest, run)
        check_memory(guest)
        assert run.running(), 'it ended, although pages are still missing'
        assert guest.monitor.migration() == 'postcopy-active'
        run.signal(signal.SIGKILL)
        run.process.wait()
        resume_and_check(guest, saved_image())


def test_background_rate_is_not_exceeded():
    need_userfaultfd()
    rate = 16 << 20
    report = restore_and_check(packed_image(), 'ws', '--background', '16MiB')
    delivered = report['background_pages'] * 4096
    seconds = report['complete_ms'] / 1000
    note(f'{delivered >> 20} MiB in {seconds:.1f} s')
    assert delivered > 0
    # A burst of a fifth of a second is allowed.
    assert delivered <= rate * (seconds + 0.2), f'{delivered} bytes in {seconds} s'


def test_background_auto_delivers_all_and_tells_what_the_guest_waited():
    need_userfaultfd()
    report = restore_and_check(packed_image(), 'ws', '--background', 'auto')
    assert report['background_pages'] > 0
    assert report['background_rate'] > 0
    if not os.path.exists('/proc/self/schedstat'):
        raise Skip('this kernel does not count how long threads wait')
    note(f'{report["background_rate"] / 1e6:.0f} MB/s, vCPUs waited {report["vcpu_wait_ms"]} ms')
    # More than nothing, and not more than both of them could.
    assert 0 < report['vcpu_wait_ms'] < report['complete_ms'] * report['vcpus']


@limit(240)
def test_two_restores_of_one_image_at_once():
    need_userfaultfd()
    image = packed_image()
    with restored(image, '--policy', 'lazy') as (one, run_one), \
            restored(image, '--policy', 'ws') as (two, run_two):
        wait_running(one, run_one)
        wait_running(two, run_two)
        check_memory(one)
        check_memory(two)
        run_one.end().expect(0)
        run_two.end().expect(0)
        check_memory(one)
        check_memory(two)


# ---- starting QEMU ---------------------------------------------------------------------------

def test_the_stored_command_starts_qemu_again():
    need_userfaultfd()
    from harness import Guest
    from harness.guest import RunDir
    kind = machine()
    image = work('own.rouse')
    with RunDir() as run:
        command = kind.command(run)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            guest = Guest(kind, run, process)
            try:
                guest.link.wait('hello', 90)
                guest.start('idle', 120)
                guest.stamp()
                rouse('save', '--qmp', run.qmp, image, timeout=120).expect(0)
            finally:
                guest.link.close()
                if process.poll() is None:
                    process.kill()
        with Rouse('restore', '--policy', 'lazy', image) as restore:
            guest = Guest(kind, run)
            try:
                wait_running(guest, restore)
                check_memory(guest)
                restore.end().expect(0)
                check_memory(guest)
            finally:
                guest.link.close()
                for pid in processes_of_this_test('qemu-system'):
                    kill(pid)
                wait_until(lambda: not processes_of_this_test('qemu-system'), 'QEMU to end')
    remove_monitors()


def remove_monitors():
    """Removes the monitor sockets of QEMUs that Rouse started and we killed: they stay with QEMU."""
    for path in runtime_dir().rglob('*'):
        if path.is_socket():
            path.unlink()


def started_by_rouse(run_dir, image, *options):
    """Starts a restore that starts QEMU itself, with this test's command line."""
    return Rouse('restore', *options, image, '--', *machine().command(run_dir, qmp=False))


def test_detach_returns_while_pages_are_still_delivered():
    need_userfaultfd()
    from harness import Guest
    from harness.guest import RunDir
    with RunDir() as run:
        with started_by_rouse(run, saved_image(), '--policy', 'lazy', '--background', '16MiB',
                              '--detach') as restore:
            restore.end(30).expect(0)
        serving = processes_of_this_test('restore')
        assert serving, 'nobody delivers the rest'
        guest = Guest(machine(), run)
        try:
            guest.wait_requests()
            check_memory(guest)
            wait_until(lambda: not processes_of_this_test('tool/rouse'), 'the rest to be delivered',
                       60)
            check_memory(guest)
        finally:
            guest.link.close()
    remove_monitors()


def test_interrupt_before_the_start_leaves_nothing_behind():
    from harness.guest import RunDir
    with RunDir() as run:
        with started_by_rouse(run, saved_image(), '--policy', 'eager', '--throttle',
                              '2MB') as restore:
            wait_until(lambda: run.qemu_pid(), 'QEMU to be started')
            restore.signal(signal.SIGINT)
            restore.end(20).expect(CANCELLED)
        wait_until(lambda: not processes_of_this_test('qemu-system'), 'QEMU to end', 10)


@contextlib.contextmanager
def standing_still(guest):
    """QEMU stopped by a signal: it reads nothing and answers nobody."""
    stat = pathlib.Path(f'/proc/{guest.process.pid}/stat')
    os.kill(guest.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: stat.read_text().rpartition(')')[2].split()[0] == 'T', 'QEMU to stop')
        yield
    finally:
        os.kill(guest.process.pid, signal.SIGCONT)


def wait_until_held_up(run):
    """Until the tool's main thread waits without a limit: else it wakes up every 200 ms or so."""
    status = pathlib.Path(f'/proc/{run.pid}/task/{run.pid}/status')

    def is_held_up():
        seen = set()
        for _ in range(10):
            seen.add(status.read_text().partition('voluntary_ctxt_switches:')[2])
            time.sleep(0.06)
        return len(seen) == 1

    wait_until(is_held_up, 'the tool to wait for QEMU')


def test_interrupted_while_qemu_stands_still_the_vm_waits_for_the_next_one():
    need_userfaultfd()
    with restored(saved_image(), '--policy', 'lazy', '--background', '8MB') as (guest, run):
        wait_running(guest, run)
        with standing_still(guest):
            wait_until_held_up(run)
            run.signal(signal.SIGINT)
            run.end(15).expect(CANCELLED, '--resume')
        resume_and_check(guest, saved_image())
    assert not deposits()


def test_interrupted_while_qemu_stands_still_before_the_start():
    with restored(saved_image(), '--policy', 'eager', '--throttle', '20MB') as (guest, run):
        wait_until(lambda: guest.monitor.migration() in ('active', 'setup'), 'the restore to begin')
        with standing_still(guest):
            wait_until_held_up(run)
            run.signal(signal.SIGINT)
            run.end(15).expect(CANCELLED, 'before the VM ran')
        # It got a part of the VM.
        wait_until(lambda: has_ended(guest.process), 'QEMU to end')


def test_a_trace_that_is_lost_when_the_user_interrupts_is_told():
    need_userfaultfd()
    folder = work('folder')
    folder.mkdir()
    with restored(saved_image(), '--policy', 'lazy', '--background', 'off', '--record',
                  folder / 'w.wset') as (guest, run):
        wait_running(guest, run)
        folder.rmdir()
        run.signal(signal.SIGINT)
        run.end(20).expect(CANCELLED, 'recorded until then is lost')
        resume_and_check(guest, saved_image())


def test_qemu_that_cannot_start_is_an_error():
    from harness.guest import RunDir
    with RunDir() as run:
        command = machine().command(run, qmp=False)
        rouse('restore', '--policy', 'eager', saved_image(), '--', *command, '-no-such-option') \
            .expect(VMM, 'no-such-option')
        rouse('restore', '--policy', 'eager', saved_image(), '--', '/nonexistent/qemu',
              *command[1:]).expect(1, '/nonexistent/qemu')


def expect_capabilities_refused(guest, *names):
    """Refused with these on; then they are off again."""
    def switch(state):
        guest.monitor('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': state} for name in names])
    switch(True)
    for policy in ('eager', 'lazy'):
        rouse('restore', '--policy', policy, '--qmp', guest.run.qmp, saved_image(), timeout=20) \
            .expect(REFUSED, f'{names[-1]} off', 'migrate-set-capabilities')
    switch(False)


def test_a_qemu_that_would_wait_for_more_connections_is_refused():
    with waiting_qemu() as guest:
        expect_capabilities_refused(guest, 'multifd')
        if may_use_userfaultfd():
            expect_capabilities_refused(guest, 'postcopy-ram', 'postcopy-preempt')
        # It still waits for a VM.
        rouse('restore', '--policy', 'eager', '--qmp', guest.run.qmp, saved_image()).expect(0)
        guest.wait_requests()
        check_memory(guest)


def test_no_vm_at_the_socket_is_an_error():
    rouse('restore', '--policy', 'eager', '--qmp', work('nobody-here'), saved_image()) \
        .expect(VMM, 'nobody-here')


# ---- dying -----------------------------------------------------------------------------------

def resume_and_check(guest, image):
    """Takes over a restore whose Rouse died; the guest must not have lost anything."""
    with Rouse('restore', '--resume', '--qmp', guest.run.qmp, image) as run:
        before = len(guest.link.records)
        wait_until(lambda: len(guest.link.records) > before or not run.running(),
                   'the guest to work again')
        check_memory(guest)
        run.end().expect(0)
        check_memory(guest)
        assert guest.monitor.status() == 'running'


def kill_once(image, policy, after_s):
    """Kills the restore `after_s` after its start. Returns what had happened by then."""
    with restored(image, '--policy', policy, '--throttle', '60MB') as (guest, run):
        try:
            run.process.wait(after_s)
        except Exception:  # it still runs: that is the point
            run.signal(signal.SIGKILL)
        if run.process.wait() == 0:
            check_memory(guest)
            return 'complete'
        ran = wait_until(lambda: fate_of(guest), 'QEMU to notice', 20)
        if ran == 'runs':
            resume_and_check(guest, image)
            return 'resumed'
    with restored(image, '--policy', policy) as (guest, run):
        wait_running(guest, run)
        check_memory(guest)
        run.end().expect(0)
    return 'restored afresh'


def fate_of(guest):
    """'ended', 'waits' (for a first restore) or 'runs' (pages are missing); None: not clear yet."""
    from harness import QmpError
    if has_ended(guest.process):
        return 'ended'
    try:
        migration = guest.monitor.migration()
    except (QmpError, OSError):
        return None
    if migration in ('postcopy-paused', 'postcopy-recover'):
        return 'runs'
    if migration == 'none':
        return 'waits'
    return 'ended' if migration == 'failed' else None


@slow
@limit(420)
def test_killed_at_20_random_moments_loses_nothing():
    need_userfaultfd()
    generator = seeded()
    image = packed_image()
    fates = {}
    for number in range(20):
        policy = generator.choice(['lazy', 'ws', 'paced', 'eager'])
        after_s = generator.uniform(0, 1.5)
        print(f'--- {number}: {policy}, SIGKILL after {after_s:.3f} s', flush=True)
        fate = kill_once(image, policy, after_s)
        print(f'--- {number}: {fate}', flush=True)
        fates[fate] = fates.get(fate, 0) + 1
    note(', '.join(f'{fate}: {count}' for fate, count in sorted(fates.items())))
    assert fates.get('resumed', 0) > 0, 'no kill hit a running guest: the moments are wrong'


def test_killed_twice_is_resumed_twice():
    need_userfaultfd()
    image = saved_image()
    with restored(image, '--policy', 'lazy', '--background', 'off') as (guest, run):
        wait_running(guest, run)
        run.signal(signal.SIGKILL)
        run.process.wait()
        with Rouse('restore', '--resume', '--background', 'off', '--qmp', guest.run.qmp,
                   image) as again:
            guest.wait_requests()
            again.signal(signal.SIGKILL)
            again.process.wait()
        resume_and_check(guest, image)


def tiny_image(program, **more):
    """With program dma a device touches all of the guest's memory: QEMU's main loop waits."""
    image = work(f'{program}.rouse')
    if not image.exists():
        with TinyGuest(program=program, **more) as guest:
            guest.wait_works()
            rouse('save', '--qmp', guest.qmp, image).expect(0)
    return image


def deposits():
    """The monitor connections that lie in QEMUs of this test, or in a Rouse that serves one."""
    qemus = {str(pid) for pid in processes_of_this_test('qemu-system')}
    with open('/proc/net/unix', encoding='utf-8') as file:
        return [line for line in file
                if '@rouse-monitor/' in line and line.rsplit('/', 1)[1].strip() in qemus]


def files_of(process):
    return len(os.listdir(f'/proc/{process.pid}/fd'))


def serves(run):
    return 'the VM runs' in run.said() or 'gets its pages again' in run.said()


def kill_when_it_serves(run, after_s=0.0):
    wait_until(lambda: serves(run) or not run.running(), 'the VM to run')
    kill_after(run, after_s)


def kill_after(run, after_s):
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(after_s)
    run.signal(signal.SIGKILL)
    run.process.wait()


def stands_still(guest):
    """Whether QEMU's main loop does, a moment after a kill. If not, a vCPU waits, and no device."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not guest.answers(), 'the main loop to stand still', 3)
        return True
    return False


@limit(120)
def test_killed_while_a_device_waits_for_a_page():
    """QEMU's main loop stands still then: it waits for its lock, and the device for its page."""
    need_userfaultfd()
    image = tiny_image('dma')
    for attempt in range(8):
        with TinyGuest(program='dma', incoming='defer') as guest:
            with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                       image) as run:
                kill_when_it_serves(run, 0.01 * attempt)
            stood_still = stands_still(guest)
            result = rouse('restore', '--resume', '--qmp', guest.qmp, image)
            assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
            result.expect(0)
            guest.wait_letters('kk')
        if stood_still:
            return
    raise AssertionError('no device waited in any attempt: this tests nothing')


@limit(120)
def test_killed_while_a_device_waits_in_a_qemu_that_rouse_started():
    need_userfaultfd()
    image = tiny_image('dma')
    with TinyGuest(program='dma', start=False) as guest:
        monitor = work('monitor')
        try:
            with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--monitor', monitor,
                       image, '--', *guest.command) as run:
                kill_when_it_serves(run)
            rouse('restore', '--resume', '--qmp', monitor, image).expect(0)
            guest.wait_letters('kk')
            wait_until(lambda: not deposits(), 'the connection to be closed')
        finally:
            for pid in processes_of_this_test('qemu-system'):
                kill(pid)
            wait_until(lambda: not processes_of_this_test('qemu-system'), 'QEMU to end')
            monitor.unlink(missing_ok=True)


RING = {'program': 'ring', 'extra': ('-device', 'virtio-balloon-pci')}


@limit(120)
def test_killed_while_a_device_is_loaded_qemu_ends_and_the_vm_can_be_restored_afresh():
    """A takeover trusts in that: what can be taken over has its devices. If a QEMU waited here for
    somebody to take over, a page that a device still needs could come too late."""
    need_userfaultfd()
    image = tiny_image(**RING)
    with TinyGuest(incoming='defer', **RING) as guest:
        wait_until(guest.answers, 'QEMU to be there')
        # The page of a device takes seconds to come from the disk.
        with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--throttle', '0,0,4s',
                   '--qmp', guest.qmp, image) as run:
            wait_until(lambda: deposits() or not run.running(), 'the image to be opened', 60)
            wait_until(lambda: not guest.answers() or not run.running(), 'QEMU to stand still')
            kill_after(run, 0)
            assert 'the VM' not in run.said(), f'it was loaded already: {run.said()}'
        wait_until(lambda: has_ended(guest.process), 'QEMU to end')
        assert not guest.letters(), 'it ran'
    with TinyGuest(incoming='defer', **RING) as guest:
        rouse('restore', '--policy', 'lazy', '--qmp', guest.qmp, image).expect(0)
        guest.check()


def kill_once_loaded(guest, image, *options):
    """Before the VM runs, or just after: QEMU has loaded the devices, and Rouse may not know yet."""
    with Rouse('restore', '--policy', 'lazy', '--background', 'off', *options, '--qmp', guest.qmp,
               image) as run:
        wait_until(lambda: guest.monitor.status() != 'inmigrate' or not run.running(),
                   'the devices to be loaded', pause=0.001)
        kill_after(run, 0)


def test_killed_before_it_let_a_vm_run_that_was_started_with_S_it_runs_after_a_takeover():
    """Who takes over cannot know whether somebody has paused it, or nobody has let it run."""
    need_userfaultfd()
    image = tiny_image('guest')
    with TinyGuest(incoming='defer', paused=True) as guest:
        kill_once_loaded(guest, image)
        result = rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        assert guest.monitor.status() == 'running', result.err
        assert "QMP's cont" not in result.err, result.err
        guest.check()


def test_a_record_of_a_vm_that_is_left_paused_is_not_complete():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        report = rouse('restore', '--json', '--policy', 'lazy', '--paused', '--record',
                       f'{work("w.wset")}:1', '--qmp', guest.qmp, tiny_image('guest')) \
            .expect(0).json
    assert report['record_incomplete']


def test_a_takeover_that_is_to_pause_the_vm_is_refused():
    """It would run on all the same."""
    rouse('restore', '--resume', '--paused', '--qmp', work('nothing'), tiny_image('guest')) \
        .expect(USAGE, "QMP's stop")


def test_a_vm_that_is_to_stay_paused_stays_so_after_a_takeover():
    need_userfaultfd()
    image = tiny_image('guest')
    for started_with_s in (False, True):
        with TinyGuest(incoming='defer', paused=started_with_s) as guest:
            kill_once_loaded(guest, image, '--paused')
            rouse('restore', '--resume', '--qmp', guest.qmp, image) \
                .expect(0, "paused.*QMP's cont")
            assert guest.monitor.status() == 'paused'
            assert not guest.letters(), 'it ran'
            guest.monitor('cont')
            guest.check()


def test_a_vm_that_its_user_paused_stays_paused_after_a_takeover():
    need_userfaultfd()
    image = tiny_image('guest')
    with TinyGuest(incoming='defer', paused=True) as guest:
        with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            guest.wait_letters('.')
            guest.monitor('stop')
            kill_after(run, 0)
        rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0, "paused.*QMP's cont")
        assert guest.monitor.status() == 'paused'
        guest.monitor('cont')
        guest.check()


ENDING = (signal.SIGINT, signal.SIGTERM)
# Stops of the first thread, of those that killer.py counts.
HITS_UNTIL_LOADED, HITS_UNTIL_IT_RUNS = 90, 260


def kill_again_and_again(generator, program, image):
    """One VM: its restore is killed, and so are those that take over. Returns how many were."""
    kills = 0
    with TinyGuest(program=program, incoming='defer') as guest:
        arguments = ['--policy', 'lazy']
        for _ in range(8):
            # Later ones from their very beginning: taking over must not break anything, either.
            serves = kills == 0 or generator.random() < 0.5
            after_s = generator.uniform(0, 0.04)
            print(f'--- SIGKILL {after_s:.4f} s after the {"start" if serves else "exec"}')
            with Rouse('restore', *arguments, '--background', generator.choice(['off', '16MiB']),
                       '--qmp', guest.qmp, image) as run:
                if serves:
                    kill_when_it_serves(run, after_s)
                else:
                    kill_after(run, after_s)
            assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
            # The one before may have been killed once it was done: there is nothing to resume.
            if run.process.returncode == 0 or kills > 0 and '"completed"' in run.said():
                break
            assert run.process.returncode == -signal.SIGKILL, run.said()
            kills += 1
            arguments = ['--resume']
        else:
            # The last one may have been killed once it was done, too.
            last = rouse('restore', '--resume', '--qmp', guest.qmp, image)
            assert last.code == 0 or '"completed"' in last.err, last.err
        guest.wait_letters('kk')
        assert not deposits()
        assert not list(guest.folder.glob('rouse-*'))
    return kills


def test_a_takeover_with_the_eager_policy_delivers_the_rest():
    """Its pages come before the start, and a takeover has no before."""
    need_userfaultfd()
    image = tiny_image('guest')
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            kill_when_it_serves(run)
        rouse('restore', '--resume', '--policy', 'eager', '--qmp', guest.qmp, image).expect(0)
        guest.check()


@slow
@limit(300)
def test_killed_at_random_moments_while_a_device_waits():
    need_userfaultfd()
    generator = seeded()
    kills = sum(kill_again_and_again(generator, 'dma', tiny_image('dma')) for _ in range(6))
    note(f'{kills} kills')
    assert kills > 6, 'hardly any kill hit: the moments are wrong'


@slow
@limit(300)
def test_killed_at_random_moments_of_taking_over():
    need_userfaultfd()
    generator = seeded()
    kills = sum(kill_again_and_again(generator, 'guest', tiny_image('guest')) for _ in range(6))
    note(f'{kills} kills')
    assert kills > 6, 'hardly any kill hit: the moments are wrong'


@limit(180)
def test_killed_at_each_system_call_of_taking_over():
    """From finding the VM on: none leaves it in a state from which the next one cannot."""
    need_userfaultfd()
    need_io_uring()
    image = tiny_image('guest')
    with TinyGuest(program='guest', incoming='defer') as guest:
        with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            kill_when_it_serves(run, 0.02)
        for stop in range(600):
            with Rouse('restore', '--resume', '--background', 'off', '--qmp', guest.qmp, image,
                       preexec_fn=killer.trace_me) as run:
                where = killer.signal_at(run.pid, killer.PIDFD_GETFD, stop)
                code, said = run.process.wait(), run.said()
            print(f'--- SIGKILL {where}')
            assert where and code == -signal.SIGKILL, f'stop {stop}: exit code {code}: {said}'
            if serves(run):
                break
        note(f'{stop} stops')
        assert stop > 20, 'it hit nothing'
        rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        guest.wait_letters('kk')


def hit_a_restore(image, number, stop):
    """A signal at a system call, from when QEMU has the connection on. Whether the VM has run."""
    with TinyGuest(program='guest', incoming='defer') as guest:
        with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp, image,
                   preexec_fn=killer.trace_me) as run:
            where = killer.signal_at(run.pid, killer.PIDFD_GETFD, stop, number)
            print(f'--- {number.name} {where} (stop {stop})')
            code = run.end(20).code
        assert where and code in (-signal.SIGKILL, CANCELLED), f'exit code {code}'
        again = rouse('restore', '--resume', '--qmp', guest.qmp, image)
        if again.code == 0:
            guest.check()
            return True
        # It may have the disks of a VM that has run: so it must not have, and cannot any more.
        wait_until(lambda: has_ended(guest.process), 'QEMU to end')
        assert not guest.letters(), 'the VM has run'
        assert 'before the VM ran' in run.said() or code != CANCELLED, run.said()
        return False


@slow
@limit(180)
def test_a_signal_at_any_system_call_leaves_the_vm_whole_or_never_run():
    need_userfaultfd()
    generator, image = seeded(), tiny_image('guest')
    outcomes = [hit_a_restore(image, generator.choice((signal.SIGKILL, *ENDING)),
                              generator.randrange(generator.choice((HITS_UNTIL_LOADED,
                                                                    HITS_UNTIL_IT_RUNS))))
                for _ in range(24)]
    note(f'{outcomes.count(True)} of {len(outcomes)} VMs ran')
    assert len(set(outcomes)) == 2, 'the moments are all of one kind'


def interrupt_again_and_again(generator, program, image, *backend):
    """One VM whose restore was killed: those that take over are interrupted. How many were."""
    interrupts = 0
    with TinyGuest(program=program, incoming='defer') as guest:
        with Rouse('restore', *backend, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            kill_when_it_serves(run, generator.uniform(0, 0.04))
        for _ in range(8):
            after_s, number = generator.uniform(0, 0.05), generator.choice(ENDING)
            print(f'--- {number.name} {after_s:.4f} s after the exec')
            with Rouse('restore', '--resume', '--background', 'off', '--qmp', guest.qmp,
                       image) as run:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(after_s)
                run.signal(number)
                began = time.monotonic()
                code = run.end(20).code
            assert code in (CANCELLED, -number), f'exit code {code}: {run.said()}'
            took_s = time.monotonic() - began
            assert took_s < 10, f'it took {took_s:.1f} s to end'
            assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
            interrupts += code == CANCELLED
        rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        guest.wait_letters('kk')
        assert not deposits()
        assert not list(guest.folder.glob('rouse-*'))
    return interrupts


@limit(180)
def test_interrupted_while_taking_over_the_vm_waits_for_the_next_one():
    need_userfaultfd()
    generator = seeded()
    interrupts = sum(interrupt_again_and_again(generator, program, tiny_image(program))
                     for program in ('guest', 'dma', 'dma'))
    note(f'{interrupts} interrupts')
    assert interrupts > 6, 'hardly any interrupt hit: the moments are wrong'


@limit(120)
def test_restore_leaves_no_descriptor_in_qemu():
    need_userfaultfd()
    image = tiny_image('dma')
    for ends in ('complete', 'taken over'):
        with TinyGuest(program='dma', incoming='defer') as guest:
            wait_until(guest.answers, 'QEMU to be there')
            before = files_of(guest.process)
            with Rouse('restore', '--policy', 'lazy', '--background',
                       'max' if ends == 'complete' else 'off', '--qmp', guest.qmp, image) as run:
                if ends == 'complete':
                    run.end().expect(0)
                else:
                    kill_when_it_serves(run)
                    assert deposits(), 'there was nothing to take over with'
                    rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
            wait_until(lambda: not deposits(), 'the connection to be closed')
            # Device models open nothing here; QEMU's own userfaultfd and sockets are closed a
            # little later.
            wait_until(lambda: files_of(guest.process) <= before, 'QEMU to close what was left')
            assert not list(guest.folder.glob('rouse-*'))


def test_resume_of_a_vm_that_is_served_is_refused():
    need_userfaultfd()
    with restored(saved_image(), '--policy', 'lazy', '--background', 'off') as (guest, run):
        wait_running(guest, run)
        rouse('restore', '--resume', '--qmp', guest.run.qmp, saved_image()) \
            .expect(REFUSED, f'process number {run.pid} ')
        check_memory(guest)
        assert run.running()
        run.signal(signal.SIGKILL)
        run.process.wait()
        resume_and_check(guest, saved_image())


def unprivileged():
    """Options for a Rouse that may use a monitor, but not look into QEMU's process."""
    if os.geteuid() != 0:
        raise Skip('needs root, to have a QEMU that another user may not look into')
    return {'user': 65534, 'group': 65534, 'extra_groups': []}


def open_to_all(guest, image):
    for path in (guest.folder, guest.folder.parent):
        path.chmod(0o755)
    wait_until(guest.qmp.exists, 'QEMU to listen')
    guest.qmp.chmod(0o777)
    image.chmod(0o644)


@limit(120)
def test_without_the_right_to_look_into_qemu_takeover_works_as_long_as_no_device_waits():
    need_userfaultfd()
    nobody = unprivileged()
    image = tiny_image('guest')
    with TinyGuest(incoming='defer') as guest:
        open_to_all(guest, image)
        with Rouse('restore', '-v', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image, **nobody) as run:
            wait_until(lambda: 'the VM runs' in run.said(), 'the VM to run')
            assert 'nobody will be able to take over' in run.said(), run.said()
            run.signal(signal.SIGKILL)
            run.process.wait()
        rouse('restore', '--resume', '--qmp', guest.qmp, image, **nobody).expect(0)
        guest.check()


@limit(120)
def test_takeover_that_needs_the_right_to_look_into_qemu_says_so():
    need_userfaultfd()
    nobody = unprivileged()
    image = tiny_image('dma')
    with TinyGuest(program='dma', incoming='defer') as guest:
        open_to_all(guest, image)
        with Rouse('restore', '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            kill_when_it_serves(run)
        for _ in range(3):
            rouse('restore', '--resume', '--qmp', guest.qmp, image, **nobody) \
                .expect(REFUSED, 'root')
        rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        guest.wait_letters('kk')


def test_resume_of_a_vm_that_lacks_nothing_is_refused():
    with restored(saved_image(), '--policy', 'eager') as (guest, run):
        wait_running(guest, run)
        run.end().expect(0)
        rouse('restore', '--resume', '--qmp', guest.run.qmp, saved_image()).expect(REFUSED)
        check_memory(guest)


def test_resume_by_the_image_of_another_vm_is_refused():
    """Another VM's pages would be wrong memory: the image must say whose it is."""
    need_userfaultfd()
    other = work('other.rouse')
    with waiting_qemu() as guest, Rouse('restore', '--policy', 'eager', '--qmp', guest.run.qmp,
                                        saved_image()) as run:
        wait_running(guest, run)
        run.end().expect(0)
        guest.stamp()
        rouse('save', '--qmp', guest.run.qmp, other, timeout=120).expect(0)
    with restored(saved_image(), '--policy', 'lazy', '--background', 'off') as (guest, run):
        wait_running(guest, run)
        run.signal(signal.SIGKILL)
        run.process.wait()
        result = rouse('restore', '--resume', '--qmp', guest.run.qmp, other)
        if result.code == 0:
            raise AssertionError('a VM was completed with the pages of another image')
        result.expect(FILE)
        resume_and_check(guest, saved_image())


def test_qemu_killed_while_it_is_served():
    need_userfaultfd()
    with restored(saved_image(), '--policy', 'lazy', '--background', 'off') as (guest, run):
        wait_running(guest, run)
        kill(guest.process.pid)
        run.end(20).expect(VMM, 'qemu')


def test_qemu_killed_before_the_guest_runs():
    with restored(saved_image(), '--policy', 'eager', '--throttle', '2MB') as (guest, run):
        wait_until(lambda: guest.monitor.migration() in ('active', 'setup'), 'the restore to begin')
        kill(guest.process.pid)
        run.end(20).expect(VMM, 'qemu')


# ---- images that must be refused or stop the VM ----------------------------------------------

def damage_a_chunk(image):
    """A copy with one chunk broken that is not in the front; the tables stay as they are."""
    broken = copy_of(image, 'broken.rouse')
    front = front_bytes(broken)
    size = broken.stat().st_size
    # Chunks are all but the last few per mille of what follows the front.
    flip_bytes(broken, front + (size - front) // 2)
    rouse('verify', broken).expect(FILE, 'chunk')
    return broken


def test_damaged_chunk_stops_the_vm():
    need_userfaultfd()
    with restored(damage_a_chunk(saved_image()), '--policy', 'lazy') as (guest, run):
        run.end().expect(FILE, 'chunk')
        # Either the VM was stopped, or a vCPU stands at the damaged page and its source is gone.
        wait_until(lambda: guest.monitor.migration() == 'postcopy-paused', 'QEMU to notice')
        note(f'the VM is {guest.monitor.status()}, its migration {guest.monitor.migration()}, '
             f'{len(guest.link.records)} requests before it')


def test_damaged_chunk_stops_an_eager_restore_before_the_start():
    with restored(damage_a_chunk(saved_image()), '--policy', 'eager') as (guest, run):
        run.end().expect(FILE, 'chunk')
        wait_until(lambda: fate_of(guest) in ('ended', 'waits'), 'QEMU to notice')
        assert not guest.link.records, 'the guest ran'


def test_vm_stopped_by_a_damaged_chunk_is_resumed_with_a_good_copy():
    need_userfaultfd()
    with restored(damage_a_chunk(saved_image()), '--policy', 'lazy') as (guest, run):
        run.end().expect(FILE)
        with Rouse('restore', '--resume', '--qmp', guest.run.qmp, saved_image()) as again:
            again.end().expect(0)
        if guest.monitor.status() != 'running':
            guest.monitor('cont')
        check_memory(guest)


def expect_refused_before_anything(image, *patterns, code=FILE, **more):
    """Both ways: a QEMU that waits goes on waiting, and no QEMU is started."""
    with restored(image, '--policy', 'eager', **more) as (guest, run):
        run.end().expect(code, *patterns)
        assert guest.monitor.status() == 'inmigrate', guest.monitor.status()
        assert guest.monitor.migration() == 'none', guest.monitor.migration()


def test_truncated_image_is_refused():
    image = saved_image()
    size = image.stat().st_size
    for keep in (0, 100, 4095, 4096, front_bytes(image) - 1, size // 2, size - 1):
        broken = copy_of(image, f'cut{keep}.rouse')
        os.truncate(broken, keep)
        rouse('verify', broken).expect(FILE)
        rouse('restore', '--policy', 'eager', broken, '--', '/bin/false').expect(FILE)
    expect_refused_before_anything(broken, 'truncated|shorter|end')


def test_newer_format_is_refused():
    newer = copy_of(saved_image(), 'newer.rouse')
    with open(newer, 'r+b') as file:
        file.seek(VERSION_AT)
        file.write(struct.pack('<I', 99))
    expect_refused_before_anything(newer, 'newer|version', '99')


def test_something_else_is_refused():
    other = work('other')
    other.write_bytes(b'not an image' * 1000)
    expect_refused_before_anything(other, 'not (a|an) rouse image|no rouse image|magic')


def test_damaged_front_is_refused():
    broken = copy_of(saved_image(), 'broken.rouse')
    flip_bytes(broken, front_bytes(broken) // 2)
    expect_refused_before_anything(broken)


def test_another_machine_type_is_refused():
    expect_refused_before_anything(saved_image(), 'pc', 'q35', machine='q35')


def test_another_ram_size_is_refused():
    expect_refused_before_anything(saved_image(), '256', '512', ram_mb=512)


def test_ws_without_a_working_set_says_how_to_get_one():
    with restored(saved_image(), '--policy', 'ws') as (guest, run):
        result = run.end()
        assert result.code in (1, USAGE, FILE), result.code
        result.expect(result.code, '--record', 'pack|-w')
        assert guest.monitor.migration() == 'none'


def test_working_set_of_another_vm_is_refused():
    need_userfaultfd()
    packed_image()
    wset = saved_image().with_name('guest.wset')
    broken = copy_of(wset, 'other.wset')
    flip_bytes(broken, 60, 4)
    with restored(saved_image(), '--policy', 'ws', '-w', broken) as (guest, run):
        run.end().expect(FILE)
        assert guest.monitor.migration() == 'none'


# ---- rights ----------------------------------------------------------------------------------

def as_nobody():
    """Turns this test into user nobody's, with an image that it may read."""
    source = saved_image()
    files = machine().files
    if os.geteuid() != 0 and may_use_userfaultfd():
        raise Skip('vm.unprivileged_userfaultfd=1: everybody may use it here')
    image = work('nobodys.rouse')
    shutil.copyfile(source, image)
    image.chmod(0o644)
    become_nobody()
    if may_use_userfaultfd():
        raise Skip('vm.unprivileged_userfaultfd=1: everybody may use it here')
    for path in (*files, image):
        if not os.access(path, os.R_OK):
            raise Skip(f'user nobody cannot read {path}')
    return image


def test_eager_works_without_the_right_to_userfaultfd():
    image = as_nobody()
    with restored(image, '--policy', 'eager') as (guest, run):
        wait_running(guest, run)
        run.end().expect(0)
        check_memory(guest)


def test_lazy_without_the_right_to_userfaultfd_says_what_would_allow_it():
    image = as_nobody()
    with restored(image, '--policy', 'lazy') as (guest, run):
        run.end().expect(REFUSED, 'userfaultfd', 'vm.unprivileged_userfaultfd', 'eager')
        assert not guest.link.records
