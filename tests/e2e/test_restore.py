# SPDX-License-Identifier: MIT
"""Restoring: every policy, every way to start a VM, every image that must be refused."""
import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

from e2e import (
    CANCELLED, FILE, REFUSED, USAGE, VERSION_AT, VMM, Rouse, Skip, become_nobody, check_memory,
    copy_of, flip_bytes, front_bytes, has_ended, kill, limit, machine, may_use_userfaultfd,
    need_userfaultfd, note, packed_image, processes_of_this_test, record_wset, restored, rouse,
    runtime_dir, saved_image, wait_running, wait_until, waiting_qemu, work)
from test_resume import deposits, fate_of, resume_and_check, tiny_image
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


def test_a_record_of_a_vm_that_is_left_paused_is_not_complete():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        report = rouse('restore', '--json', '--policy', 'lazy', '--paused', '--record',
                       f'{work("w.wset")}:1', '--qmp', guest.qmp, tiny_image('guest')) \
            .expect(0).json
    assert report['record_incomplete']


def test_a_record_of_a_vm_that_waits_most_of_the_time_is_said_to_be_short():
    """Each page takes 20 ms, and the guest touches more than 100 as soon as it runs."""
    need_userfaultfd()
    with restored(saved_image(), '--policy', 'lazy', '--throttle', '1GB,0,20ms', '--record',
                  f'{work("w.wset")}:2', '--json') as (guest, run):
        report = run.end(60).expect(0, 'record for longer').json
        check_memory(guest)
    assert report['record_waited_ms'] > 1000, report
    assert not report['record_incomplete']


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


# ---- QEMU dies -------------------------------------------------------------------------------

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
