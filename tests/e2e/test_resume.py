# SPDX-License-Identifier: MIT
"""Taking over a restore whose Rouse was killed or interrupted: the VM loses nothing."""
import contextlib
import os
import signal
import subprocess
import time

import killer
from e2e import (
    CANCELLED, FILE, REFUSED, USAGE, Rouse, Skip, check_memory, has_ended, kill, limit,
    need_io_uring, need_userfaultfd, note, packed_image, processes_of_this_test, restored, rouse,
    saved_image, seeded, slow, wait_running, wait_until, waiting_qemu, work)
from tiny_guest import TinyGuest


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
