# SPDX-License-Identifier: MIT
"""Restoring with --backend uffd: pages go past QEMU into its memory."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import killer
from e2e import (
    CANCELLED, FILE, REFUSED, VMM, Rouse, copy_of, flip_bytes, front_bytes, has_ended, kill, limit,
    need_userfaultfd, note, processes_of_this_test, rouse, seeded, slow, wait_until, work)
from tiny_guest import TinyGuest

UFFD = ('--backend', 'uffd')
HITS_UNTIL_IT_RUNS = 1200  # stops of the first thread, of those that killer.py counts


def tiny_image(program='guest', **more):
    image = work(f'{program}.rouse')
    if not image.exists():
        with TinyGuest(program=program, **more) as guest:
            guest.wait_works()
            rouse('save', '--qmp', guest.qmp, image).expect(0)
    return image


def remains(pid):
    """What lies in a QEMU that belongs to a restore."""
    found = []
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            link = os.readlink(f'/proc/{pid}/fd/{fd}')
        except FileNotFoundError:
            continue
        # Not /dev/userfaultfd, which newer QEMUs keep open for themselves.
        if link == 'anon_inode:[userfaultfd]' or 'memfd:rouse-restore' in link:
            found.append(link)
    return found


def restore_and_check(image, *options):
    with TinyGuest(incoming='defer') as guest:
        report = rouse('restore', *UFFD, '--json', *options, '--qmp', guest.qmp, image) \
            .expect(0).json
        assert report['backend'] == 'uffd'
        guest.check()
        assert guest.monitor.status() == 'running'
        assert not remains(guest.process.pid), 'something was left in QEMU'
    return report


def test_lazy():
    need_userfaultfd()
    report = restore_and_check(tiny_image(), '--policy', 'lazy')
    note(f'{report["faults"]} faults, {report["fault_us"]}')
    assert report['faults'] > 0
    assert report['prefetched_pages'] == 0


@limit(240)
def test_faults_are_told_apart_by_the_thread_that_waited():
    """Four vCPUs, one of which runs; what a save reads stalls none of them."""
    need_userfaultfd()
    image, four = work('four.rouse'), ['-smp', '4']
    with TinyGuest(extra=four) as guest:
        guest.wait_works()
        rouse('save', '--qmp', guest.qmp, image).expect(0)
    with TinyGuest(extra=four, incoming='defer') as guest, \
            Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--json', '--qmp',
                  guest.qmp, image) as run:
        guest.check()
        rouse('save', '--keep-running', '--qmp', guest.folder / 'monitor', work('x.rouse')) \
            .expect(0)
        report = run.end().expect(0).json
        guest.check()
    note(f'{report["faults"]} faults, {report["device_faults"]} of them of QEMU itself; stalled '
         f'{report["stalled_ms"]} ms')
    assert report['stall_method'] == 'threads'
    # What the guest fills, and some pages of its code, stack and firmware.
    own = (64 + 4) * 256
    assert own <= report['faults'] - report['device_faults'] <= own + 64


def stalls_for_each_fault(image, accel):
    """Of a VM with four vCPUs that is restored with this accelerator."""
    log, monitor = work('stalls'), work('monitor')
    with TinyGuest(extra=['-smp', '4'], start=False) as guest:
        command = [accel if word == 'tcg' else word for word in guest.command]
        try:
            report = rouse('restore', *UFFD, '--policy', 'lazy', '--json', '--stall-log', log,
                           '--monitor', monitor, image, '--', *command).expect(0).json
            guest.check()
        finally:
            end_qemus()
            monitor.unlink(missing_ok=True)
    assert report['stall_method'] == 'threads' and report['vcpus'] == 4
    # Two lines of what it is, and the start, which stalls all.
    stalls = len(log.read_text(encoding='utf-8').splitlines()) - 2 - 4
    note(f'{accel}: {stalls} stalls by {report["faults"]} faults')
    return stalls / (report['faults'] - report['device_faults'])


@limit(240)
def test_vcpus_that_share_a_thread_are_stalled_together():
    need_userfaultfd()
    image = work('four.rouse')
    with TinyGuest(extra=['-smp', '4']) as guest:
        guest.wait_works()
        rouse('save', '--qmp', guest.qmp, image).expect(0)
    assert stalls_for_each_fault(image, 'tcg') <= 1
    assert stalls_for_each_fault(image, 'tcg,thread=single') > 3


def test_eager():
    need_userfaultfd()
    report = restore_and_check(tiny_image(), '--policy', 'eager')
    assert report['faults'] == 0


def packed_image():
    image, wset, packed = tiny_image(), work('w.wset'), work('packed.rouse')
    with TinyGuest(incoming='defer') as guest:
        rouse('restore', *UFFD, '--policy', 'lazy', '--record', f'{wset}:0.5', '--qmp', guest.qmp,
              image).expect(0)
        guest.check()
    rouse('pack', image, '-w', wset, packed).expect(0)
    return packed


@limit(240)
def test_ws_and_paced_by_a_set_that_was_recorded():
    need_userfaultfd()
    packed = packed_image()
    report = restore_and_check(packed, '--policy', 'ws')
    assert report['prefetched_pages'] > 0
    report = restore_and_check(packed, '--policy', 'paced', '--throttle', '40MB,2000')
    assert report['policy'] == 'paced'


def test_slow_disk_and_slow_background():
    need_userfaultfd()
    restore_and_check(tiny_image(), '--policy', 'lazy', '--throttle', '60MB,1000', '--background',
                      '64MiB')


def test_paused_vm_does_not_run():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        rouse('restore', *UFFD, '--policy', 'lazy', '--paused', '--qmp', guest.qmp, tiny_image()) \
            .expect(0)
        assert guest.monitor.status() == 'paused'
        assert not guest.letters(), 'it ran'
        guest.monitor('cont')
        guest.check()


def end_qemus():
    for pid in processes_of_this_test('qemu-system'):
        kill(pid)
    wait_until(lambda: not processes_of_this_test('qemu-system'), 'QEMU to end')


@limit(120)
def test_qemu_that_rouse_starts_and_takes_over():
    need_userfaultfd()
    image = tiny_image()
    with TinyGuest(start=False) as guest:
        monitor = work('monitor')
        try:
            with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--monitor',
                       monitor, image, '--', *guest.command) as run:
                kill_when_it_serves(run, 0.05)
            rouse('restore', '--resume', '--qmp', monitor, image).expect(0)
            guest.check()
            pid, = processes_of_this_test('qemu-system')
            assert not remains(pid)
        finally:
            end_qemus()
            monitor.unlink(missing_ok=True)


# ---- memory that is given back ----------------------------------------------------------------

BALLOON = {'program': 'balloon', 'extra': ['-device', 'virtio-balloon-pci']}


def balloon_goes_on(guest):
    """It gives 4 MiB back before each look at its memory, while the restore is under way."""
    guest.wait_letters('bbb..kk')


@limit(240)
def test_a_balloon_grows_while_pages_come():
    """What is given back is zero from then on, had it come before or not; nobody waits for ever."""
    need_userfaultfd()
    image = tiny_image(**BALLOON)
    for background in ('off', '16MiB', 'max'):
        with TinyGuest(incoming='defer', **BALLOON) as guest, \
                Rouse('restore', *UFFD, '--policy', 'lazy', '--background', background, '--json',
                      '--qmp', guest.qmp, image) as run:
            wait_until(lambda: serves(run) or not run.running(), 'the VM to run')
            guest.wait_letters('b')
            # With a background it may be over before, on a busy machine.
            assert run.running() or background != 'off', 'it was over before the balloon grew'
            balloon_goes_on(guest)
            if background == 'off':
                run.signal(signal.SIGINT)
                run.end(20).expect(CANCELLED)
                rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
            else:
                run.end().expect(0)
            balloon_goes_on(guest)
            assert not remains(guest.process.pid)


@limit(240)
def test_killed_while_a_balloon_grows():
    """QEMU's main loop waits until its message is read: by the Rouse that takes over."""
    need_userfaultfd()
    image = tiny_image(**BALLOON)
    for attempt in range(6):
        with TinyGuest(incoming='defer', **BALLOON) as guest:
            with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', '16MiB', '--qmp',
                       guest.qmp, image) as run:
                kill_when_it_serves(run, 0.02 * attempt)
            rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
            balloon_goes_on(guest)
            assert not remains(guest.process.pid)


# ---- dying -----------------------------------------------------------------------------------

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


@limit(120)
def test_killed_and_taken_over():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   tiny_image()) as run:
            kill_when_it_serves(run, 0.02)
        assert remains(guest.process.pid), 'missing pages would be zeros now'
        report = rouse('restore', '--resume', '--json', '--qmp', guest.qmp, tiny_image()) \
            .expect(0).json
        assert report['backend'] == 'uffd'
        guest.check()
        assert not remains(guest.process.pid)


def test_a_takeover_without_the_right_to_it_says_what_is_missing():
    need_userfaultfd()
    if os.geteuid() != 0:
        raise Skip('only root can be somebody else')
    with TinyGuest(incoming='defer') as guest:
        image = work('vm.rouse')
        shutil.copy(tiny_image(), image)
        with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            kill_when_it_serves(run, 0.02)
        os.chmod(image, 0o644)
        os.chmod(guest.qmp, 0o777)
        for folder in {pathlib.Path(guest.qmp).parent, image.parent, work('.')}:
            os.chmod(folder, 0o755)
        rouse('restore', '--resume', '--qmp', guest.qmp, image, user=65534, group=65534,
              extra_groups=[]).expect(REFUSED, 'backend uffd', 'cannot be seen')
        rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        guest.check()


@limit(120)
def test_killed_while_a_device_waits_for_a_page():
    """QEMU's main loop stands still then: nothing of taking over may need its answer."""
    need_userfaultfd()
    image = tiny_image('dma')
    for attempt in range(8):
        with TinyGuest(program='dma', incoming='defer') as guest:
            with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp',
                       guest.qmp, image) as run:
                kill_when_it_serves(run, 0.01 * attempt)
            stood_still = False
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not guest.answers(), 'the main loop to stand still', 3)
                stood_still = True
            result = rouse('restore', '--resume', '--qmp', guest.qmp, image)
            assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
            result.expect(0)
            guest.wait_letters('kk')
        if stood_still:
            return
    raise AssertionError('no device waited in any attempt: this tests nothing')


def connect(client, path):
    """False: so many wait already to be accepted that this one may not."""
    client.setblocking(False)
    try:
        client.connect(str(path))
    except BlockingIOError:
        return False
    return True


@limit(120)
def test_taken_over_although_the_monitor_takes_no_more_connections():
    """It serves one at a time, and few may wait."""
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   tiny_image()) as run:
            kill_when_it_serves(run, 0.02)
        with contextlib.ExitStack() as clients:
            def is_full():
                return not connect(clients.enter_context(socket.socket(socket.AF_UNIX)), guest.qmp)
            wait_until(is_full, 'the monitor to be full')
            time.sleep(0.3)
            assert is_full()
            rouse('restore', '--resume', '--qmp', guest.qmp, tiny_image()).expect(0)
            guest.check()
            assert not remains(guest.process.pid)


def kill_again_and_again(generator, program, image):
    """One VM: its restore is killed, and so are those that take over. Returns how many were."""
    kills = 0
    with TinyGuest(program=program, incoming='defer') as guest:
        arguments = [*UFFD, '--policy', 'lazy']
        for _ in range(8):
            serves = kills == 0 or generator.random() < 0.5
            after_s = generator.uniform(0, 0.04)
            print(f'--- SIGKILL {after_s:.4f} s after the {"start" if serves else "exec"}')
            with Rouse('restore', *arguments, '--background', generator.choice(['off', '16MiB']),
                       '--qmp', guest.qmp, image) as run:
                (kill_when_it_serves if serves else kill_after)(run, after_s)
            assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
            # The one before may have been killed once it was done: there is nothing to resume.
            if run.process.returncode == 0 or kills > 0 and 'no restore that broke' in run.said():
                break
            assert run.process.returncode == -signal.SIGKILL, run.said()
            kills += 1
            arguments = ['--resume']
        else:
            last = rouse('restore', '--resume', '--qmp', guest.qmp, image)
            assert last.code == 0 or 'no restore that broke' in last.err, last.err
        guest.wait_letters('kk')
        assert not remains(guest.process.pid)
    return kills


@slow
@limit(400)
def test_killed_at_random_moments_and_taken_over():
    need_userfaultfd()
    generator = seeded()
    kills = 0
    for program in ('dma', 'guest') * 4:
        kills += kill_again_and_again(generator, program, tiny_image(program))
    note(f'{kills} kills')
    assert kills > 8, 'hardly any kill hit: the moments are wrong'


@slow
@limit(400)
def test_killed_at_random_moments_from_the_beginning_on():
    """Before the VM is there QEMU ends, or can be restored into again; afterwards it waits."""
    need_userfaultfd()
    generator, image = seeded(), tiny_image()
    fates = {}
    for _ in range(8):
        after_s = generator.uniform(0.0, 2.5)
        with TinyGuest(incoming='defer') as guest:
            wait_until(guest.qmp.exists, 'QEMU to listen')
            with Rouse('restore', *UFFD, '--policy', 'lazy', '--throttle', '40MB', '--qmp',
                       guest.qmp, image) as run:
                kill_after(run, after_s)
            fates_of_one(guest, image, fates)
    note(', '.join(f'{fate}: {count}' for fate, count in sorted(fates.items())))


def fates_of_one(guest, image, fates):
    result = rouse('restore', '--resume', '--qmp', guest.qmp, image)
    if result.code == 0:
        fate = 'resumed'
        guest.check()
    else:
        again = rouse('restore', *UFFD, '--policy', 'lazy', '--qmp', guest.qmp, image)
        if again.code == 0:
            fate = 'restored afresh'
            guest.check()
        elif 'running' in again.err:
            fate = 'complete'
            guest.check()
        else:
            fate = 'ended'
            wait_until(lambda: has_ended(guest.process), 'QEMU to end')
    assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
    print(f'--- {fate}')
    fates[fate] = fates.get(fate, 0) + 1


@slow
@limit(300)
def test_what_a_restore_leaves_that_is_killed_at_any_system_call_catches_no_other():
    """One by postcopy is refused, or works; it must not make QEMU wait for who has died."""
    need_userfaultfd()
    generator, image = seeded(), tiny_image()
    fates = {}
    for _ in range(16):
        stop = generator.randrange(HITS_UNTIL_IT_RUNS)
        with TinyGuest(incoming='defer') as guest:
            with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp',
                       guest.qmp, image, preexec_fn=killer.trace_me) as run:
                where = killer.signal_at(run.pid, killer.PIDFD_GETFD, stop)
                run.process.wait()
            print(f'--- SIGKILL {where} (stop {stop})')
            result = rouse('restore', '--policy', 'lazy', '--qmp', guest.qmp, image)
            if result.code == 0:
                guest.check()
                fates['by postcopy'] = fates.get('by postcopy', 0) + 1
            else:
                fates_of_one(guest, image, fates)
    note(', '.join(f'{fate}: {count}' for fate, count in sorted(fates.items())))


def test_resume_of_a_vm_that_is_served_is_refused():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest, \
            Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                  tiny_image()) as run:
        wait_until(lambda: serves(run), 'the VM to run')
        rouse('restore', '--resume', '--qmp', guest.folder / 'monitor', tiny_image()) \
            .expect(REFUSED, f'process number {run.pid} ')
        assert run.running()
        run.signal(signal.SIGKILL)
        run.process.wait()
        rouse('restore', '--resume', '--qmp', guest.qmp, tiny_image()).expect(0)
        guest.check()


def test_resume_by_the_image_of_another_checkpoint_is_refused():
    need_userfaultfd()
    image, other = tiny_image(), work('other.rouse')
    with TinyGuest() as guest:
        guest.wait_works()
        rouse('save', '--qmp', guest.qmp, other).expect(0)
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   image) as run:
            kill_when_it_serves(run)
        rouse('restore', '--resume', '--qmp', guest.qmp, other).expect(FILE, 'another checkpoint')
        rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        guest.check()


def test_interrupted_vm_waits_and_is_taken_over():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   tiny_image()) as run:
            wait_until(lambda: serves(run), 'the VM to run')
            run.signal(signal.SIGINT)
            run.end(20).expect(CANCELLED)
        rouse('restore', '--resume', '--qmp', guest.qmp, tiny_image()).expect(0)
        guest.check()


def test_interrupted_before_the_start_leaves_nothing_behind():
    need_userfaultfd()
    with TinyGuest(start=False) as guest:
        with Rouse('restore', *UFFD, '--policy', 'eager', '--throttle', '2MB', tiny_image(), '--',
                   *guest.command) as run:
            # QEMU's command stands in Rouse's own, too.
            wait_until(lambda: set(processes_of_this_test('qemu-system')) - {run.pid},
                       'QEMU to be started')
            run.signal(signal.SIGINT)
            run.end(20).expect(CANCELLED)
        wait_until(lambda: not processes_of_this_test('qemu-system'), 'QEMU to end', 10)


def test_qemu_killed_while_it_is_served():
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest, \
            Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                  tiny_image()) as run:
        wait_until(lambda: serves(run), 'the VM to run')
        kill(guest.process.pid)
        run.end(20).expect(VMM, 'qemu')


def test_damaged_chunk_stops_the_vm_and_a_good_copy_completes_it():
    need_userfaultfd()
    image = tiny_image()
    broken = copy_of(image, 'broken.rouse')
    front, size = front_bytes(broken), broken.stat().st_size
    flip_bytes(broken, front + (size - front) // 2)
    with TinyGuest(incoming='defer') as guest:
        rouse('restore', *UFFD, '--policy', 'lazy', '--qmp', guest.qmp, broken) \
            .expect(FILE, 'damaged')
        assert 'X' not in guest.letters(), 'memory is WRONG inside the guest'
        result = rouse('restore', '--resume', '--qmp', guest.qmp, image).expect(0)
        if guest.monitor.status() == 'paused':
            assert "QMP's cont" in result.err, result.err
            guest.monitor('cont')
        guest.check()


# ---- what cannot be ---------------------------------------------------------------------------

def test_shared_memory_is_refused_and_qemu_goes_on_waiting():
    need_userfaultfd()
    image = work('shared.rouse')
    shared = ['-object', 'memory-backend-memfd,id=mem,share=on,size=96M']
    with TinyGuest(extra=shared, machine='pc,memory-backend=mem') as guest:
        guest.wait_works()
        rouse('save', '--qmp', guest.qmp, image).expect(0)
    with TinyGuest(extra=shared, machine='pc,memory-backend=mem', incoming='defer') as guest:
        rouse('restore', *UFFD, '--policy', 'lazy', '--qmp', guest.qmp, image) \
            .expect(REFUSED, 'shared memory', '--backend postcopy')
        rouse('restore', '--policy', 'lazy', '--qmp', guest.qmp, image).expect(0)
        guest.check()


def test_qemu_in_a_sandbox_is_refused_and_goes_on_waiting():
    need_userfaultfd()
    with TinyGuest(incoming='defer', extra=['-sandbox', 'on']) as guest:
        rouse('restore', *UFFD, '--policy', 'lazy', '--qmp', guest.qmp, tiny_image()) \
            .expect(REFUSED, 'seccomp')
        rouse('restore', '--policy', 'eager', '--qmp', guest.qmp, tiny_image()).expect(0)
        guest.check()


def test_background_off_ends_when_all_has_been_touched():
    """The save reads all of the VM's memory, which so comes page by page."""
    need_userfaultfd()
    again = work('again.rouse')
    with TinyGuest(incoming='defer') as guest, \
            Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--json', '--qmp',
                  guest.qmp, tiny_image()) as run:
        guest.check()
        assert run.running(), 'it ended, although pages are still missing'
        rouse('save', '--keep-running', '--qmp', guest.folder / 'monitor', again).expect(0)
        report = run.end().expect(0).json
        assert report['background_pages'] == 0
        assert not remains(guest.process.pid)
    rouse('verify', again).expect(0)
    restore_and_check(again, '--policy', 'lazy')


@limit(120)
def test_background_off_ends_after_a_takeover():
    need_userfaultfd()
    off = ('--background', 'off')
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', *off, '--qmp', guest.qmp,
                   tiny_image()) as run:
            kill_when_it_serves(run, 0.1)
        with Rouse('restore', '--resume', *off, '--qmp', guest.qmp, tiny_image()) as run:
            guest.check()
            assert run.running(), 'it ended, although pages are still missing'
            rouse('save', '--keep-running', '--qmp', guest.folder / 'monitor',
                  work('again.rouse')).expect(0)
            run.end().expect(0)
        assert not remains(guest.process.pid)


def record_of(pid):
    """The record in a QEMU: lib/vmm/uffd_record.h."""
    for fd in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(FileNotFoundError):  # QEMU has just closed it
            if 'memfd:rouse-restore' in os.readlink(f'/proc/{pid}/fd/{fd}'):
                return f'/proc/{pid}/fd/{fd}'
    raise AssertionError('there is no record in QEMU')


def state_of(pid):
    with open(record_of(pid), 'rb', buffering=0) as record:
        record.seek(12)
        return int.from_bytes(record.read(4), 'little')


def forget_marks(pid, count):
    """Takes marks out of the record in a QEMU, as if its Rouse had been killed after placing these
    pages and before marking them."""
    with open(record_of(pid), 'r+b', buffering=0) as record:
        record.seek(4096)
        marks = bytearray(record.read())
        marked = [at for at, bits in enumerate(marks) if bits]
        assert len(marked) >= count, 'too few pages came before the kill'
        for at in marked[:count]:
            marks[at] = 0
        record.seek(4096)
        record.write(marks)


def test_vm_that_its_user_pauses_during_a_takeover_stays_paused():
    """Also if the Rouse before had not come to see it run: whether to let it run is looked at when
    the takeover begins, not at its end."""
    need_userfaultfd()
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', '--background', 'off', '--qmp', guest.qmp,
                   tiny_image()) as run:
            kill_when_it_serves(run, 0.02)
        sent = 1
        with open(record_of(guest.process.pid), 'r+b', buffering=0) as record:
            record.seek(12)
            record.write(sent.to_bytes(4, 'little'))
        with Rouse('restore', '--resume', '--background', '16MiB', '--qmp', guest.qmp,
                   tiny_image()) as run:
            wait_until(lambda: state_of(guest.process.pid) != sent, 'the start to be settled')
            guest.monitor('stop')
            run.end().expect(0)
        assert guest.monitor.status() == 'paused'
        guest.monitor('cont')
        guest.check()


def test_page_that_was_placed_and_not_marked_is_found_by_who_takes_over():
    """Nobody asks for it, so that without the background nobody would ever mark it."""
    need_userfaultfd()
    off = ('--background', 'off')
    with TinyGuest(incoming='defer') as guest:
        with Rouse('restore', *UFFD, '--policy', 'lazy', *off, '--qmp', guest.qmp,
                   tiny_image()) as run:
            kill_when_it_serves(run, 0.3)
        forget_marks(guest.process.pid, 3)
        with Rouse('restore', '--resume', *off, '--qmp', guest.qmp, tiny_image()) as run:
            guest.check()
            rouse('save', '--keep-running', '--qmp', guest.folder / 'monitor',
                  work('again.rouse')).expect(0)
            run.end().expect(0)
        assert not remains(guest.process.pid)


def test_vm_can_be_saved_while_pages_are_missing():
    """QEMU knows of no restore: it reads all of its memory, and waits for it."""
    need_userfaultfd()
    again = work('again.rouse')
    with TinyGuest(incoming='defer') as guest, \
            Rouse('restore', *UFFD, '--policy', 'lazy', '--background', '8MiB', '--qmp', guest.qmp,
                  tiny_image()) as run:
        wait_until(lambda: serves(run), 'the VM to run')
        rouse('save', '--qmp', guest.folder / 'monitor', again).expect(0)
        run.end().expect(0)
    rouse('verify', again).expect(0)
    restore_and_check(again, '--policy', 'lazy')
