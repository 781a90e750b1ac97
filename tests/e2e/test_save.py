# SPDX-License-Identifier: MIT
"""Saving: every way of it, everything that can go wrong, and what must be true afterwards."""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import threading
import time

from e2e import (
    CANCELLED, FILE, REFUSED, USAGE, VMM, Rouse, Skip, become_nobody, busy_guest, check_memory,
    has_ended, kill, limit, machine, may_use_userfaultfd, need_userfaultfd, note, rouse, seeded,
    temp_dir, wait_running, wait_until, waiting_qemu, work)
from test_trace import has_agent_thread
from tiny_guest import TinyGuest, build_tiny_guest

SYSTEM = 1  # exit code: a system call failed


# ---- helpers ---------------------------------------------------------------------------------

@contextlib.contextmanager
def working_guest(**more):
    with TinyGuest(**more) as guest:
        guest.wait_works()
        yield guest


def save(guest, image, *options, **more):
    return rouse('save', '--qmp', guest.qmp, *options, image, **more)


def settings(guest):
    """What a save must put back."""
    parameters = guest.monitor('query-migrate-parameters')
    return ({key: parameters[key] for key in ('max-bandwidth', 'downtime-limit', 'tls-creds')},
            sorted(each['capability'] for each in guest.monitor('query-migrate-capabilities')
                   if each['state']))


def expect_untouched(guest, image, before):
    """After a save that failed: no file, the VM works, its settings are as before."""
    assert not image.exists(), 'there is an image'
    assert not list(image.parent.glob(f'.{image.name}*')), 'there is a temporary file'
    assert guest.monitor.status() == 'running'
    assert settings(guest) == before
    guest.check()


def restore_and_check(image, *options, **more):
    """Restores with everything delivered before the start, and lets the guest check its memory."""
    with TinyGuest(incoming='defer', **more) as guest:
        rouse('restore', '--policy', 'eager', '--qmp', guest.qmp, *options, image).expect(0)
        guest.check()


def set_capability(guest, name, state):
    guest.monitor('migrate-set-capabilities',
                  capabilities=[{'capability': name, 'state': state}])


def metadata(image):
    info = rouse('inspect', '--json', image).expect(0).json
    return info['metadata']


# ---- the ways --------------------------------------------------------------------------------

def test_suspend_saves_and_ends_qemu():
    image = work('vm.rouse')
    with working_guest() as guest:
        report = save(guest, image, '--json').expect(0).json
        assert guest.process.wait(5) == 0
    rouse('verify', image).expect(0)
    assert not report['background_snapshot']
    assert report['downtime_ms'] > 0
    restore_and_check(image)


def test_the_image_says_what_the_vm_was():
    image = work('vm.rouse')
    with working_guest() as guest:
        save(guest, image).expect(0)
        about = metadata(image)
        assert about['vmm'] == 'qemu'
        assert re.fullmatch(r'\d+\.\d+\.\d+', about['qemu_version'])
        assert about['machine'].startswith('pc-i440fx-')
        assert about['vcpus'] == 1
        assert about['was_running'] and not about['kept_running']
        assert about['memory_bytes'] == 96 << 20
        assert [str(word) for word in guest.process.args] == about['command_line']
        assert about['cwd'] == os.getcwd()


def test_keep_running_by_background_snapshot():
    if not may_use_userfaultfd():
        raise Skip('QEMU may not use userfaultfd here')
    image = work('vm.rouse')
    with working_guest() as guest:
        before = settings(guest)
        report = save(guest, image, '--keep-running', '--json').expect(0).json
        assert report['background_snapshot']
        assert report['downtime_ms'] > 0
        assert guest.monitor.status() == 'running'
        assert settings(guest) == before
        guest.check()
    restore_and_check(image)


def test_keep_running_without_background_snapshot():
    image = work('vm.rouse')
    with working_guest() as guest:
        before = settings(guest)
        report = save(guest, image, '--keep-running', '--no-background-snapshot',
                      '--json').expect(0).json
        assert not report['background_snapshot']
        assert report['downtime_ms'] > 0
        assert guest.monitor.status() == 'running'
        assert settings(guest) == before
        guest.check()
    restore_and_check(image)


def test_keep_running_twice_gives_two_good_images():
    first, second = work('1.rouse'), work('2.rouse')
    with working_guest() as guest:
        save(guest, first, '--keep-running').expect(0)
        save(guest, second, '--keep-running').expect(0)
        guest.check()
    restore_and_check(first)
    restore_and_check(second)


def test_keep_running_falls_back_where_background_snapshots_are_refused():
    """By memory that is shared with a file, which QEMU's background-snapshot does not take."""
    image = work('vm.rouse')
    extra = ['-object', f'memory-backend-file,id=ram,size=96M,mem-path={work("ram")},share=on',
             '-machine', 'memory-backend=ram']
    with working_guest(extra=extra) as guest:
        result = save(guest, image, '--keep-running', '--json').expect(0, 'no background snapshot')
        assert not result.json['background_snapshot']
        assert guest.monitor.status() == 'running'
        guest.check()
    restore_and_check(image, extra=extra)


def test_an_ordinary_user_saves_too():
    build_tiny_guest('guest')
    become_nobody()
    image = work('vm.rouse')
    with working_guest() as guest:
        report = save(guest, image, '--keep-running', '--json').expect(0).json
        assert report['background_snapshot'] == may_use_userfaultfd()
        guest.check()
    restore_and_check(image)


def test_a_paused_vm_stays_paused():
    image = work('vm.rouse')
    with working_guest() as guest:
        guest.monitor('stop')

        def registers():
            return guest.monitor('human-monitor-command', **{'command-line': 'info registers'})
        before = registers()
        save(guest, image, '--keep-running').expect(0)
        assert registers() == before, 'the guest ran'
        assert guest.monitor.status() in ('paused', 'postmigrate')
        guest.monitor('cont')
        guest.check()
    assert not metadata(image)['was_running']


def test_q35():
    image = work('vm.rouse')
    with working_guest(machine='q35') as guest:
        save(guest, image).expect(0)
    assert metadata(image)['machine'].startswith('pc-q35-')
    restore_and_check(image, machine='q35')


def test_microvm():
    image = work('vm.rouse')
    with working_guest(machine='microvm') as guest:
        save(guest, image).expect(0)
    assert metadata(image)['machine'].startswith('microvm')
    restore_and_check(image, machine='microvm')


def test_codecs():
    with working_guest() as guest:
        for codec in ('none', 'lz4', 'zstd'):
            image = work(f'{codec}.rouse')
            save(guest, image, '--keep-running', '--codec', codec).expect(0)
            rouse('verify', image).expect(0)
            restore_and_check(image)
        guest.check()


def test_capabilities_that_change_the_stream_are_put_back():
    image = work('vm.rouse')
    with working_guest() as guest:
        guest.monitor('migrate-set-parameters', **{'max-bandwidth': 12345678,
                                                   'downtime-limit': 77})
        for name in ('xbzrle', 'release-ram', 'events'):
            set_capability(guest, name, True)
        before = settings(guest)
        save(guest, image, '--keep-running').expect(0)
        assert settings(guest) == before
        assert 'release-ram' in before[1] and before[0]['max-bandwidth'] == 12345678
        guest.check()
    restore_and_check(image)


def test_a_good_image_is_replaced_only_by_a_good_one():
    image = work('vm.rouse')
    with working_guest() as guest:
        save(guest, image, '--keep-running').expect(0)
        old = image.read_bytes()
        save(guest, image, '--keep-running', '--working-set', '/dev/null').expect(FILE)
        assert image.read_bytes() == old
        save(guest, image, '--keep-running').expect(0)
        assert image.read_bytes() != old
        guest.check()


@limit(300)
def test_a_real_guest_at_work():
    image = work('vm.rouse')
    with busy_guest(machine()) as guest:
        report = rouse('save', '--qmp', guest.run.qmp, '--keep-running', '--json', image,
                       timeout=120).expect(0).json
        note(f'downtime {report["downtime_ms"]} ms')
        guest.wait_requests()
        check_memory(guest)
    with waiting_qemu() as guest, Rouse('restore', '--policy', 'eager', '--qmp', guest.run.qmp,
                                        image) as run:
        wait_running(guest, run)
        check_memory(guest)


# ---- what is refused -------------------------------------------------------------------------

def test_no_such_socket():
    image = work('vm.rouse')
    rouse('save', '--qmp', temp_dir() / 'absent', image).expect(VMM, 'absent')
    assert not image.exists()


def test_a_socket_that_another_client_holds():
    with working_guest() as guest:
        guest.monitor.status()
        rouse('save', '--qmp', guest.folder / 'monitor', work('vm.rouse')).expect(
            VMM, 'another client')


def test_a_migration_under_way_is_left_alone():
    image = work('vm.rouse')
    with working_guest() as guest:
        guest.monitor('migrate-set-parameters', **{'max-bandwidth': 1 << 16})
        guest.monitor('migrate', uri='exec:cat > /dev/null')
        wait_until(lambda: guest.monitor.migration() == 'active', 'the migration to begin')
        save(guest, image).expect(REFUSED, 'under way')
        assert guest.monitor.migration() == 'active'
        guest.monitor('migrate_cancel')
        wait_until(lambda: guest.monitor.migration() == 'cancelled', 'the migration to end')
        guest.check()
    assert not image.exists()


def test_a_vm_that_was_migrated_away_is_refused():
    with working_guest() as guest:
        guest.monitor('stop')
        guest.monitor('migrate', uri='exec:cat > /dev/null')
        wait_until(lambda: guest.monitor.status() == 'postmigrate', 'postmigrate')
        save(guest, work('vm.rouse')).expect(REFUSED, 'postmigrate')


def test_a_vm_that_waits_for_its_state_is_refused():
    with TinyGuest(incoming='defer') as guest:
        save(guest, work('vm.rouse')).expect(REFUSED, 'being restored')


def test_a_device_that_cannot_be_saved():
    image = work('vm.rouse')
    with working_guest(extra=['-device', 'ivshmem-plain,memdev=m,master=off', '-object',
                              'memory-backend-ram,id=m,size=1M,share=on']) as guest:
        before = settings(guest)
        save(guest, image).expect(VMM, 'refused .migrate.')
        expect_untouched(guest, image, before)


def test_a_directory_that_cannot_be_written():
    with working_guest() as guest:
        before = settings(guest)
        save(guest, temp_dir() / 'absent/vm.rouse').expect(SYSTEM)
        assert guest.monitor.status() == 'running' and settings(guest) == before


# ---- what goes wrong meanwhile ---------------------------------------------------------------

@contextlib.contextmanager
def small_disk(megabytes):
    """A tmpfs, mounted."""
    folder = work('tmpfs')
    folder.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', folder],
                      stderr=subprocess.DEVNULL, check=False).returncode != 0:
        raise Skip('a tmpfs cannot be mounted (not root)')
    try:
        yield folder
    finally:
        subprocess.run(['umount', folder], check=True)


def test_a_full_disk():
    with small_disk(16) as folder, working_guest() as guest:
        before = settings(guest)
        for options in ([], ['--keep-running'], ['--keep-running', '--no-background-snapshot']):
            image = folder / 'vm.rouse'
            save(guest, image, *options).expect(SYSTEM, 'space')
            expect_untouched(guest, image, before)


PUNCH = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


@contextlib.contextmanager
def emptied_again_and_again(path, megabytes):
    """A disk whose contents are thrown away for ever: whoever writes to it needs new room."""
    libc, ended = ctypes.CDLL(None, use_errno=True), threading.Event()
    with open(path, 'r+b') as file:
        def empty():
            while not ended.wait(0.002):
                libc.fallocate(file.fileno(), PUNCH, ctypes.c_long(0),
                               ctypes.c_long(megabytes << 20))
        thread = threading.Thread(target=empty)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def stays_running(guest, seconds=3):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = guest.monitor.status()
        assert status == 'running', f'the VM is in run state {status}'
        time.sleep(0.02)


@limit(240)
def test_a_vm_whose_disk_is_on_the_full_file_system_goes_on():
    """It needs room for what it writes: before it goes on, Rouse's file must be gone."""
    with small_disk(24) as folder:
        path, image = folder / 'disk.raw', folder / 'vm.rouse'
        with open(path, 'wb') as file:
            file.truncate(8 << 20)
        extra = ['-drive', f'file={path},format=raw,if=none,id=hd', '-device', 'ide-hd,drive=hd,bus=ide.0']
        with working_guest(program='disk', extra=extra) as guest, emptied_again_and_again(path, 8):
            before = settings(guest)
            for options in ([], ['--keep-running', '--disks=ignore'],
                            ['--keep-running', '--disks=ignore', '--no-background-snapshot']):
                save(guest, image, *options).expect(SYSTEM, 'space')
                stays_running(guest)
                expect_untouched(guest, image, before)


def test_a_file_that_may_not_grow():
    """As a full disk, but met only when the image is nearly whole."""
    image = work('vm.rouse')

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60 << 20, 60 << 20))
    with working_guest() as guest:
        before = settings(guest)
        save(guest, image, preexec_fn=small_files).expect(SYSTEM)
        expect_untouched(guest, image, before)


KEEP = ['--keep-running']
KEEP_PLAIN = ['--keep-running', '--no-background-snapshot']


def interrupt(guest, image, options, after, number):
    """Starts a save and sends a signal to it. Its exit code and what it said; None if it was
    killed."""
    with Rouse('save', '--qmp', guest.qmp, *options, image) as run:
        time.sleep(after)
        running = run.running()
        run.signal(number)
        if number == signal.SIGKILL:
            run.process.wait()
            return None if running else run.process.returncode, ''
        result = run.end()
        return result.code, result.err


@limit(300)
def test_interrupted_at_random_moments():
    image, chance, early = work('vm.rouse'), seeded(), 0
    with working_guest(fixed_mb=128) as guest:
        before = settings(guest)
        for options in [KEEP, KEEP_PLAIN] * 5 + [[]] * 5:
            code, said = interrupt(guest, image, options, chance.uniform(0, 0.4), signal.SIGINT)
            if code == -signal.SIGINT:
                continue  # before it listened to signals
            assert code in (0, CANCELLED), f'exit code {code}: {said}'
            early += code == CANCELLED
            if code == CANCELLED:
                expect_untouched(guest, image, before)
            image.unlink(missing_ok=True)
            if code == 0 and not options:
                break  # it was saved before, and QEMU has quit
    note(f'{early} interrupted before the end')
    assert early > 0


@limit(300)
def test_killed_at_random_moments():
    """By SIGKILL, so that nothing can be tidied up: QEMU goes on by itself."""
    image, chance, early = work('vm.rouse'), seeded(), 0
    with working_guest(fixed_mb=128) as guest:
        for options in [KEEP, KEEP_PLAIN] * 5 + [[]] * 5:
            code, _ = interrupt(guest, image, options, chance.uniform(0, 0.4), signal.SIGKILL)
            early += code is None
            wait_until(lambda: has_ended(guest.process) or guest.monitor.migration() not in (
                'active', 'setup', 'device', 'cancelling'), 'the migration to end')
            if has_ended(guest.process):
                break  # saved before
            if guest.monitor.status() == 'postmigrate':
                # After QEMU's last byte: it waits, nothing is lost (docs/saving.md).
                guest.monitor('cont')
            wait_until(lambda: guest.monitor.status() == 'running', 'the VM to run')
            guest.check()
            image.unlink(missing_ok=True)
    note(f'{early} killed before the end')
    assert early > 0


def told_commands(said):
    """The QMP commands that it says would put QEMU's settings back."""
    return [json.loads(line) for line in re.findall(r'{"execute":.*}', said)]


@limit(240)
def test_interrupted_while_qemu_is_stopped_the_vm_goes_on_later():
    """As a background snapshot, which QEMU 7.2 must bring to its end: or the guest hangs."""
    image = work('vm.rouse')
    with working_guest(fixed_mb=128) as guest:
        before = settings(guest)
        with Rouse('save', '--qmp', guest.qmp, *KEEP, '--codec', 'zstd', image) as run:
            while guest.monitor.migration() != 'active' and run.running():
                pass
            os.kill(guest.process.pid, signal.SIGSTOP)
            try:
                if not run.running():
                    raise Skip('the save was quicker')
                run.signal(signal.SIGINT)
                # A wait for the first answer, and little for each of the others.
                said = run.end(70).expect(CANCELLED, f'kill -CONT {guest.process.pid}').err
            finally:
                os.kill(guest.process.pid, signal.SIGCONT)
        guest.check()
        wait_until(lambda: guest.monitor.migration() not in ('active', 'setup', 'device'),
                   'the migration to end')
        for command in told_commands(said):
            guest.monitor(command['execute'], **command['arguments'])
        expect_untouched(guest, image, before)


def test_qemu_dies():
    image, chance = work('vm.rouse'), seeded()
    for turn in range(4):
        with working_guest(fixed_mb=128) as guest, \
                Rouse('save', '--qmp', guest.qmp, *(['--keep-running'] if turn % 2 else []),
                      image) as run:
            time.sleep(chance.uniform(0.01, 0.15))
            guest.process.kill()
            result = run.end()
        if result.code == 0:
            rouse('verify', image).expect(0)  # it had all of it already
            image.unlink()
        else:
            assert result.code == VMM, f'exit code {result.code}: {result.err}'
            assert not image.exists()


def test_the_migration_is_cancelled_by_another():
    image = work('vm.rouse')
    with working_guest(fixed_mb=256) as guest:
        before = settings(guest)
        with Rouse('save', '--qmp', guest.qmp, '--codec', 'zstd', image) as run:
            wait_until(lambda: guest.monitor.migration() == 'active' or not run.running(),
                       'the migration to begin', pause=0.001)
            guest.monitor('migrate_cancel')
            result = run.end()
        if result.code == 0:
            raise Skip('the save was quicker')
        result.expect(VMM, 'cancelled')
        expect_untouched(guest, image, before)


def run_again(*commands):
    """Saves a VM slowly, and lets another monitor run it after QEMU's last byte."""
    image = work('vm.rouse')
    with working_guest() as guest:
        before = settings(guest)
        guest.monitor.status()
        with Rouse('save', '--qmp', guest.qmp, '--codec', 'zstd', '--level', 9, '--threads', 1,
                   image) as run:
            wait_until(lambda: guest.monitor.status() == 'postmigrate' or not run.running(),
                       'the end of the stream', pause=0.001)
            for command in commands:
                guest.monitor(command)
            run.end(120).expect(REFUSED, 'runs again')
        # It may have caught the VM stopped, and let it run.
        expect_untouched(guest, image, before)


@limit(240)
def test_a_vm_that_another_lets_run_again_is_neither_saved_nor_ended():
    run_again('cont')


@limit(240)
def test_a_vm_that_ran_again_and_was_stopped_is_neither_saved_nor_ended():
    run_again('cont', 'stop')


@contextlib.contextmanager
def held_in_its_stream(guest, image, *options):
    """A save that is stopped while QEMU sends, until the block has ended. The run."""
    with Rouse('save', '--qmp', guest.qmp, *options, image) as run:
        while guest.monitor.migration() != 'active' and run.running():
            pass
        run.signal(signal.SIGSTOP)
        try:
            if not run.running() or guest.monitor.migration() != 'active':
                raise Skip('the save was quicker')
            yield run
        finally:
            run.signal(signal.SIGCONT)


def test_a_vm_that_another_stops_in_a_background_snapshot_stays_so():
    need_userfaultfd()
    image = work('vm.rouse')
    with working_guest(fixed_mb=256) as guest:
        with held_in_its_stream(guest, image, *KEEP) as run:
            wait_until(lambda: guest.monitor.status() == 'running', 'QEMU to let the VM run')
            # QEMU answers when the guest's processor stands; it may wait for a page of the stream.
            stop = threading.Thread(target=guest.monitor, args=('stop',))
            stop.start()
            run.signal(signal.SIGCONT)
            run.end().expect(0, 'another monitor has stopped the VM')
            stop.join()
        assert guest.monitor.status() == 'paused'
        guest.monitor('cont')
        guest.check()
    assert metadata(image)['was_running']


PIDFD_GETFD = 438


def close_connection(guest):
    """Ends the one that Rouse has to QEMU, at QEMU's end: QEMU lives, and listens."""
    pid = guest.process.pid
    with open('/proc/net/unix', encoding='ascii', errors='replace') as file:
        inodes = {f'socket:[{line.split()[6]}]' for line in file
                  if line.rstrip().endswith(f' {guest.qmp}') and line.split()[5] == '03'}
    number = next(int(each.name) for each in pathlib.Path(f'/proc/{pid}/fd').iterdir()
                  if os.readlink(each) in inodes)
    process = os.pidfd_open(pid)
    copy = ctypes.CDLL(None).syscall(PIDFD_GETFD, process, number, 0)
    os.close(process)
    if copy < 0:
        raise Skip('the descriptors of QEMU cannot be got here')
    with socket.socket(fileno=copy) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def test_a_vm_goes_on_though_its_connection_closes():
    image = work('vm.rouse')
    with working_guest(fixed_mb=256) as guest:
        before = settings(guest)
        for options in ([], KEEP, KEEP_PLAIN):
            with held_in_its_stream(guest, image, *options) as run:
                close_connection(guest)
                run.signal(signal.SIGCONT)
                run.end().expect(VMM, 'lives')
            wait_until(lambda: guest.monitor.status() == 'running', 'the VM to run')
            expect_untouched(guest, image, before)


@limit(240)
def test_a_vm_is_not_ended_if_its_connection_closes_while_it_is_packed():
    """Another monitor may have let it run meanwhile, and Rouse would not know."""
    image = work('vm.rouse')
    with working_guest() as guest:
        before = settings(guest)
        with Rouse('save', '--qmp', guest.qmp, '--codec', 'zstd', '--level', 9, '--threads', 1,
                   image) as run:
            wait_until(lambda: guest.monitor.status() == 'postmigrate' or not run.running(),
                       'the end of the stream', pause=0.001)
            close_connection(guest)
            run.end(120).expect(VMM, 'lives')
        expect_untouched(guest, image, before)


# ---- what changes while a VM is watched before its checkpoint --------------------------------

@contextlib.contextmanager
def watched_before(guest, image, *options):
    """A save that traces the VM at first, and does so now."""
    with Rouse('save', '--qmp', guest.qmp, '--estimate', 'trace-before:3', *options,
               image) as run:
        # It has looked at the VM by then.
        wait_until(lambda: has_agent_thread(guest.process.pid) or not run.running(), 'the agent')
        if not run.running():
            raise Skip(f'it cannot be traced: {run.said()}')
        yield run


def test_a_vm_that_is_paused_while_it_is_watched_stays_paused():
    image = work('vm.rouse')
    with working_guest() as guest:
        with watched_before(guest, image, *KEEP) as run:
            guest.monitor('stop')
            run.end().expect(0)
        assert guest.monitor.status() in ('paused', 'postmigrate')
        guest.monitor('cont')
        guest.check()
    assert not metadata(image)['was_running']


def test_a_disk_that_is_plugged_while_the_vm_is_watched_counts():
    image, path = work('vm.rouse'), disk('disk.qcow2')
    with working_guest() as guest:
        before = settings(guest)
        with watched_before(guest, image, *KEEP) as run:
            guest.monitor('blockdev-add', driver='qcow2', **{
                'node-name': 'late', 'file': {'driver': 'file', 'filename': str(path)}})
            guest.monitor('device_add', driver='virtio-blk-pci', drive='late')
            run.end().expect(REFUSED, 'disk.qcow2')
        expect_untouched(guest, image, before)


# ---- disks -----------------------------------------------------------------------------------

def disk(name, megabytes=8):
    path = work(name)
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', path, f'{megabytes}M'], check=True)
    return path


def drive(path, name):
    return ['-drive', f'file={path},format=qcow2,if=none,id={name}', '-device',
            f'virtio-blk-pci,drive={name}']


def test_writable_disks_of_a_vm_that_goes_on_are_refused():
    image, path = work('vm.rouse'), disk('disk.qcow2')
    with working_guest(extra=drive(path, 'hd')) as guest:
        before = settings(guest)
        save(guest, image, '--keep-running').expect(REFUSED, 'disk.qcow2', '--disks')
        expect_untouched(guest, image, before)


def test_disks_that_cannot_be_written_do_not_matter():
    path = disk('disk.qcow2')
    with working_guest(extra=['-drive', f'file={path},if=none,id=hd,readonly=on', '-device',
                              'virtio-blk-pci,drive=hd']) as guest:
        save(guest, work('vm.rouse'), '--keep-running').expect(0)


def test_a_suspended_vm_may_have_disks():
    image, path = work('vm.rouse'), disk('disk.qcow2')
    with working_guest(extra=drive(path, 'hd')) as guest:
        save(guest, image).expect(0)
    assert metadata(image)['disks'][0]['file'] == str(path)
    restore_and_check(image, extra=drive(path, 'hd'))


def test_a_disk_that_another_qemu_lets_go_of_late_is_waited_for():
    need_userfaultfd()
    image, path = work('vm.rouse'), disk('disk.qcow2')
    with working_guest(extra=drive(path, 'hd')) as guest:
        save(guest, image).expect(0)
    with subprocess.Popen(['qemu-system-x86_64', '-display', 'none', '-nodefaults', '-S',
                           *drive(path, 'hd')], stdin=subprocess.DEVNULL) as holder:
        wait_until(lambda: subprocess.run(['qemu-img', 'info', path], capture_output=True,
                                          check=False).returncode != 0, 'the disk to be in use')
        let_go = threading.Timer(2, holder.kill)
        let_go.start()
        try:
            with TinyGuest(incoming='defer', extra=drive(path, 'hd')) as guest:
                report = rouse('restore', '--policy', 'lazy', '--json', '--qmp', guest.qmp,
                               image).expect(0).json
                guest.check()
        finally:
            let_go.cancel()
            holder.kill()
    assert report['start_ms'] > 1000, 'nothing was waited for: this tests nothing'


def test_disks_can_be_ignored():
    path = disk('disk.qcow2')
    with working_guest(extra=drive(path, 'hd')) as guest:
        save(guest, work('vm.rouse'), '--keep-running', '--disks=ignore').expect(0)
        guest.check()
    assert not list(path.parent.glob('*.rouse-*'))


def loop_device(path):
    """A block device over the file. Detach it."""
    made = subprocess.run(['losetup', '-f', '--show', path], capture_output=True, text=True,
                          check=False)
    if made.returncode != 0:
        raise Skip(f'no loop devices here: {made.stderr.strip()}')
    return made.stdout.strip()


def overlays(path):
    found = sorted(path.parent.glob(f'{path.name}.rouse-*.qcow2'))
    for each in found:
        work(each.name)  # so that it is removed
    return found


def files_in_use(guest):
    return {each['inserted']['file'] for each in guest.monitor('query-block') if 'inserted' in each}


def snapshot_disks(*options):
    image, first, second = work('vm.rouse'), disk('a.qcow2'), disk('b.qcow2')
    with working_guest(extra=drive(first, 'a') + drive(second, 'b')) as guest:
        result = save(guest, image, '--keep-running', '--disks=snapshot', *options).expect(0)
        made = overlays(first) + overlays(second)
        assert len(made) == 2
        assert files_in_use(guest) == {str(path) for path in made}
        assert guest.monitor.status() == 'running'
        guest.check()
        about = metadata(image)['disks']
        assert {each['overlay'] for each in about} == {str(path) for path in made}
        assert {each['file'] for each in about} == {str(first), str(second)}
    restore_and_check(image, extra=drive(first, 'a') + drive(second, 'b'))
    return result


@limit(240)
def test_a_vm_that_another_lets_run_while_its_disks_are_frozen_is_not_saved():
    """Its memory would be newer than the disks below the overlays."""
    image, first = work('vm.rouse'), disk('a.qcow2')
    with working_guest(extra=drive(first, 'a')) as guest:
        guest.monitor.status()
        with Rouse('save', '--qmp', guest.qmp, '--codec', 'zstd', '--level', 9, '--threads', 1,
                   '--keep-running', '--disks=snapshot', '--no-background-snapshot',
                   image) as run:
            wait_until(lambda: guest.monitor.status() == 'paused' or not run.running(),
                       'the VM to be stopped', pause=0.001)
            guest.monitor('cont')
            run.end(120).expect(REFUSED, 'disks were frozen')
        assert not image.exists()
        wait_until(lambda: guest.monitor.status() == 'running', 'the VM to run')
        assert files_in_use(guest) == {str(first)}
        guest.check()


def test_disks_get_overlays_with_a_background_snapshot():
    snapshot_disks()


def test_disks_get_overlays_without_a_background_snapshot():
    snapshot_disks('--no-background-snapshot')


def test_disks_of_blockdev_get_overlays_too():
    path = disk('a.qcow2')
    extra = ['-blockdev', f'driver=file,filename={path},node-name=f', '-blockdev',
             'driver=qcow2,file=f,node-name=q', '-device', 'virtio-blk-pci,drive=q']
    with working_guest(extra=extra) as guest:
        save(guest, work('vm.rouse'), '--keep-running', '--disks=snapshot').expect(0)
        assert len(overlays(path)) == 1
        guest.check()


def test_overlays_are_taken_back_if_the_save_fails():
    first, second = disk('a.qcow2'), disk('b.qcow2')
    with small_disk(16) as folder, \
            working_guest(extra=drive(first, 'a') + drive(second, 'b')) as guest:
        before = settings(guest)
        image = folder / 'vm.rouse'
        for options in ([], ['--no-background-snapshot']):
            save(guest, image, '--keep-running', '--disks=snapshot', *options).expect(SYSTEM)
            assert files_in_use(guest) == {str(first), str(second)}
            assert not overlays(first) and not overlays(second)
            expect_untouched(guest, image, before)


@limit(300)
def test_overlays_are_taken_back_at_random_interrupts():
    """A disk in an overlay that is taken away, or a guest left in one unsaid, would lose data."""
    image, first, chance, early = work('vm.rouse'), disk('a.qcow2'), seeded(), 0
    with working_guest(fixed_mb=128, extra=drive(first, 'a')) as guest:
        before = settings(guest)
        for options in [KEEP, KEEP_PLAIN] * 5:
            code, said = interrupt(guest, image, [*options, '--disks=snapshot'],
                                   chance.uniform(0, 0.3), signal.SIGINT)
            if code == -signal.SIGINT:
                continue  # before it listened to signals
            assert code in (0, CANCELLED), f'exit code {code}: {said}'
            if code == 0:
                assert files_in_use(guest) == {str(each) for each in overlays(first)}
                break  # saved before
            early += 1
            assert files_in_use(guest) == {str(first)} and not overlays(first)
            expect_untouched(guest, image, before)
    note(f'{early} interrupted before the end')


def test_a_vm_in_an_overlay_is_not_restored_with_the_disk_below_it():
    """Its command line names the disk of an earlier checkpoint."""
    first, second, path = work('1.rouse'), work('2.rouse'), disk('a.qcow2')
    with working_guest(extra=drive(path, 'hd')) as guest:
        save(guest, first, '--keep-running', '--disks=snapshot').expect(0)
        overlay = str(overlays(path)[0])
        save(guest, second).expect(0, overlay, 'needs QEMU')
    before = path.read_bytes()
    rouse('restore', second).expect(REFUSED, overlay, 'after --')
    assert path.read_bytes() == before
    restore_and_check(second, extra=drive(overlay, 'hd'))


def test_a_vm_whose_disc_was_changed_is_not_restored_with_the_first_one():
    """Its guest has read, and may keep, what is on the second."""
    image, first, second = work('vm.rouse'), work('1.iso'), work('2.iso')
    for path in (first, second):
        path.write_bytes(path.name.encode() * 4096)
    disc = ['-drive', f'if=ide,media=cdrom,id=cd,format=raw,file={first}']
    with working_guest(extra=disc) as guest:
        save(guest, image, '--keep-running').expect(0)
        assert not metadata(image)['disks'] and metadata(image)['media'][0]['file'] == str(first)
        guest.monitor('blockdev-change-medium', device='cd', filename=str(second), format='raw')
        save(guest, image).expect(0, str(second), 'needs QEMU')
    rouse('restore', image).expect(REFUSED, str(second), 'after --')
    restore_and_check(image, extra=[disc[0], disc[1].replace(str(first), str(second))])


def test_a_disc_below_a_temporary_overlay_is_restored_by_the_command_line():
    """With snapshot=on QEMU puts an overlay without a name over what is only read, too."""
    image, path = work('vm.rouse'), work('1.iso')
    path.write_bytes(b'disc' * 4096)
    disc = ['-drive', f'if=ide,media=cdrom,id=cd,format=raw,file={path},snapshot=on']
    with working_guest(extra=disc) as guest:
        save(guest, image).expect(0)
    assert metadata(image)['media'][0]['file'] == str(path)
    restore_and_check(image, extra=disc)


def test_a_vm_whose_disk_ends_with_qemu_is_refused():
    image, path = work('vm.rouse'), disk('a.qcow2')
    temporary = drive(path, 'hd')
    temporary[1] += ',snapshot=on'
    with working_guest(extra=temporary) as guest:
        before = settings(guest)
        save(guest, image).expect(REFUSED, 'snapshot=on')
        expect_untouched(guest, image, before)
        save(guest, image, '--keep-running', '--disks=snapshot').expect(REFUSED, 'snapshot=on')
        expect_untouched(guest, image, before)
        save(guest, image, '--disks=ignore').expect(0)


def test_a_device_as_disk_gets_no_overlay_beside_it():
    """It would lie in /dev, which is memory."""
    image, loop = work('vm.rouse'), loop_device(disk('a.raw'))
    try:
        with working_guest(extra=['-drive', f'file={loop},format=raw,if=none,id=hd', '-device',
                                  'virtio-blk-pci,drive=hd']) as guest:
            before = settings(guest)
            save(guest, image, '--keep-running', '--disks=snapshot').expect(
                REFUSED, 'no regular file', loop)
            expect_untouched(guest, image, before)
            assert not list(pathlib.Path('/dev').glob('*.rouse-*'))
    finally:
        subprocess.run(['losetup', '-d', loop], check=True)


def test_a_disk_without_a_place_for_an_overlay():
    with working_guest(extra=['-drive', 'file=null-co://,if=none,id=n,format=raw', '-device',
                              'virtio-blk-pci,drive=n']) as guest:
        image = work('vm.rouse')
        before = settings(guest)
        save(guest, image, '--keep-running', '--disks=snapshot').expect(REFUSED, 'overlay')
        expect_untouched(guest, image, before)


# ---- convert ---------------------------------------------------------------------------------

def migrate_to_file(guest, path):
    guest.monitor('migrate-set-parameters', **{'max-bandwidth': 1 << 40})
    guest.monitor('migrate', uri=f'exec:cat > {path}')
    wait_until(lambda: guest.monitor.migration() == 'completed', 'the migration to end')


def test_a_migration_file_of_qemu_becomes_an_image():
    stream, image = work('vm.stream'), work('vm.rouse')
    with working_guest() as guest:
        migrate_to_file(guest, stream)
    rouse('convert', stream, image).expect(0)
    rouse('verify', image).expect(0)
    restore_and_check(image)


def test_an_image_becomes_a_migration_file_for_qemu():
    stream, image = work('vm.stream'), work('vm.rouse')
    with working_guest() as guest:
        save(guest, image).expect(0)
    rouse('convert', image, stream).expect(0)
    with TinyGuest(incoming=f'exec:cat {stream}') as guest:
        guest.check()


def test_a_cut_off_migration_file_is_refused():
    stream, image = work('vm.stream'), work('vm.rouse')
    with working_guest() as guest:
        migrate_to_file(guest, stream)
    size = stream.stat().st_size
    chance = seeded()
    for _ in range(10):
        os.truncate(stream, size := chance.randrange(size - size // 10, size))
        rouse('convert', stream, image).expect(FILE, 'too early')
        assert not image.exists()


def test_what_is_no_migration_file_is_refused():
    rouse('convert', __file__, work('vm.rouse')).expect(FILE, 'not a QEMU migration stream')
    rouse('convert', '-w', '/dev/null', '/bin/sh', work('vm.rouse')).expect(FILE)


def test_an_image_is_not_converted_onto_itself():
    """Its devices, and what it says of its VM, would be lost."""
    image, link = work('vm.rouse'), work('link.rouse')
    with working_guest() as guest:
        save(guest, image).expect(0)
    before = image.read_bytes()
    link.symlink_to(image)
    for out in (image, link):
        rouse('convert', '--flat', image, out).expect(USAGE, 'another name')
        rouse('convert', image, out).expect(USAGE, 'another name')
    assert image.read_bytes() == before
    rouse('save', '--qmp', 'x').expect(USAGE)
