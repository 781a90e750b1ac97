# SPDX-License-Identifier: MIT
"""Tracing the memory of a running VM: what it finds, and that the VM loses nothing by it."""
import contextlib
import ctypes
import mmap
import os
import pathlib
import re
import signal
import subprocess
import sys

from e2e import (
    BUILD, FILE, REFUSED, USAGE, VMM, Rouse, Skip, busy_guest, check_memory, limit, machine, need_userfaultfd, note,
    rouse, seeded, wait_until, work)
from tiny_guest import BASE, TinyGuest

PAGE = 4096
FIXED_MB, MOVING_MB = 24, 4
RAM_MB = FIXED_MB + MOVING_MB + 28
MEMFD = ('-object', f'memory-backend-memfd,id=mem0,size={RAM_MB}M,share=on',
         '-machine', 'memory-backend=mem0')
DELETED = ('-object', f'memory-backend-file,id=mem0,size={RAM_MB}M,share=on,mem-path=/dev/shm',
           '-machine', 'memory-backend=mem0')


# ---- helpers ---------------------------------------------------------------------------------

def need_trace():
    """What a trace needs of the machine."""
    need_userfaultfd()
    system = os.uname()
    if system.machine != 'x86_64':
        raise Skip('memory is traced on x86-64 only')
    if tuple(int(each) for each in re.findall(r'\d+', system.release)[:2]) < (6, 8):
        raise Skip(f'the kernel is {system.release}: UFFDIO_MOVE came with 6.8')


@contextlib.contextmanager
def working_guest(extra=(), **more):
    need_trace()
    with TinyGuest(fixed_mb=FIXED_MB, moving_mb=MOVING_MB, extra=extra, **more) as guest:
        guest.wait_works()
        yield guest


def wset_pages(path):
    """The page numbers in a working-set file, in order, by the library itself."""
    library = ctypes.CDLL(str(BUILD / 'lib/librouse.so'))
    wset = ctypes.c_void_p()
    assert library.rouse_wset_open(str(path).encode(), ctypes.byref(wset), None) == 0
    pages, page, time_us = [], ctypes.c_uint64(), ctypes.c_uint64()
    while library.rouse_wset_get_page(wset, ctypes.c_uint64(len(pages)), ctypes.byref(page),
                                      ctypes.byref(time_us)) == 0:
        pages.append(page.value)
    library.rouse_wset_close(wset)
    return pages


def worked_pages():
    """What the guest reads or writes in each of its rounds; its RAM is the first block."""
    first = BASE // PAGE
    return range(first, first + ((FIXED_MB + MOVING_MB) << 20) // PAGE)


def has_agent_thread(pid):
    """Whether a thread of a trace is in the process. Other threads come and go meanwhile."""
    for thread in pathlib.Path(f'/proc/{pid}/task').iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (thread / 'comm').read_text() == 'rouse-trace\n':
                return True
    return False


def agent_is_in(pid):
    """Whether anything of a trace is in the process: a mapping or a thread."""
    return 'rouse-trace' in pathlib.Path(f'/proc/{pid}/maps').read_text() or has_agent_thread(pid)


def wait_armed(run, pid):
    """Waits until the agent is at work."""
    def there():
        assert run.running(), f'the trace has ended; it said: {run.said()}'
        return has_agent_thread(pid)
    wait_until(there, 'the agent')


def disarm(guest):
    rouse('trace', '--disarm', '--pid', guest.process.pid).expect(0)
    assert not agent_is_in(guest.process.pid), 'something of the trace is left'


def trace_rounds(guest, wset, *options):
    """Traces the guest until it has worked through all its memory. The report."""
    with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100, '-o', wset, '--json',
               *options) as run:
        wait_armed(run, guest.process.pid)
        guest.check()
        disarm(guest)
        return run.end().expect(0).json


def code_page():
    """Of the guest: it holds nothing but code, which QEMU translated long ago."""
    return (1 << 20) // PAGE + 1


def pages_worked_on(wset):
    """The pages of a working set, which must be all that the guest works on, and few others."""
    pages = wset_pages(wset)
    note(f'{len(pages)} pages')
    missed = set(worked_pages()) - set(pages)
    assert not missed, f'{len(missed)} of {len(worked_pages())} pages were missed'
    # Beside its memory the guest has code, a stack, and what QEMU's devices touch.
    assert len(pages) - len(worked_pages()) < 100, f'{len(pages)} pages are too many'
    return pages


def check_trace(extra):
    wset = work('vm.wset')
    with working_guest(extra) as guest:
        report = trace_rounds(guest, wset)
        guest.check()
    note(f'{report["arm_ms"]} ms to arm')
    pages = pages_worked_on(wset)
    assert report['pages'] == len(pages)
    assert report['lost_pages'] == 0


def save(guest, image, *options):
    return rouse('save', '--qmp', guest.qmp, '--json', *options, image, timeout=120)


def restore_and_check(image, *options):
    with TinyGuest(fixed_mb=FIXED_MB, moving_mb=MOVING_MB, incoming='defer') as guest:
        report = rouse('restore', '--json', '--qmp', guest.qmp, *options, image).expect(0).json
        guest.check()
    return report


def image_info(image):
    rouse('verify', image).expect(0)
    return rouse('inspect', '--json', image).expect(0).json


HOLDER = '''
import ctypes, mmap, os, sys
areas = [mmap.mmap(-1, 32 << 20, int(sys.argv[1])) for _ in range(2)]
for area in areas:
    area.madvise(mmap.MADV_DONTFORK)
    for at in range(0, len(area), 4096):
        area[at] = 1
if sys.argv[2] == 'lock':
    libc = ctypes.CDLL(None)
    at = ctypes.addressof(ctypes.c_char.from_buffer(areas[0]))
    assert libc.mlock(ctypes.c_void_p(at), ctypes.c_size_t(32 << 20)) == 0
print('ready', flush=True)
sys.stdin.read()
'''


@contextlib.contextmanager
def holder(flags=mmap.MAP_SHARED, lock=False):
    """A process with two mappings of 32 MiB, the first one locked if told so. Its pid."""
    with subprocess.Popen([sys.executable, '-c', HOLDER, str(flags), 'lock' if lock else 'no'],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout.readline() != b'ready\n':
                raise Skip('a process may not lock 32 MiB here')
            yield process.pid
        finally:
            process.stdin.close()


def is_complete(wset):
    return rouse('wset', 'show', '--json', wset).expect(0).json['complete']


# ---- tracing ---------------------------------------------------------------------------------

def test_every_page_that_a_vm_works_on_is_traced():
    check_trace(())


def test_every_page_is_traced_in_a_memfd():
    check_trace(MEMFD)


def test_every_page_is_traced_in_a_file_that_qemu_has_unlinked():
    system = os.statvfs('/dev/shm') if os.path.ismount('/dev/shm') else None
    if system is None or system.f_bavail * system.f_frsize < (RAM_MB + 8) << 20:
        raise Skip(f'there are no {RAM_MB} MiB in /dev/shm')
    check_trace(DELETED)


def test_memory_that_is_not_of_the_vm_has_no_page_numbers():
    unused = ('-object', 'memory-backend-ram,id=unused,size=16M')
    check_trace(unused)


def trace_holder(**how):
    wset = work('process.wset')
    with holder(**how) as pid:
        report = rouse('trace', '--pid', pid, '--min-size', '32M', '--seconds', 0.1, '-o', wset,
                       '--json').expect(0).json
    return report, is_complete(wset)


def test_a_trace_of_all_memory_is_complete():
    need_trace()
    report, complete = trace_holder()
    assert report['untraced_bytes'] == 0 and report['skipped_pages'] == 0
    assert complete


def test_a_trace_that_leaves_memory_out_is_not_complete():
    need_trace()
    report, complete = trace_holder(lock=True)
    assert report['untraced_bytes'] == 32 << 20
    assert not complete
    for command in (('wset', 'show'), ('inspect',)):
        assert 'touches of some pages may be missing' in rouse(*command, work('process.wset')).out


def test_a_trace_of_a_vm_with_a_rom_that_is_not_found_is_not_complete():
    wset = work('vm.wset')
    with working_guest() as guest:
        report = rouse('trace', '--qmp', guest.qmp, '--seconds', 0.2, '-o', wset,
                       '--json').expect(0).json
    left_out = report['untraced_bytes'] + report['skipped_pages'] + report['lost_pages']
    note(f'{report["untraced_bytes"]} bytes are not traced')
    assert is_complete(wset) == (left_out == 0)


def test_a_qemu_that_awaits_its_vm_is_not_watched():
    """It could not register its memory any more, and the VM would be lost on its way."""
    with TinyGuest(incoming='defer') as guest:
        wait_until(guest.qmp.exists, 'QEMU to listen')
        for command in ('trace', 'scan'):
            rouse(command, '--qmp', guest.qmp, '-o', work('w.wset')).expect(REFUSED, 'no VM yet')
        assert guest.monitor.status() == 'inmigrate'


def test_a_trace_ends_by_itself_and_leaves_nothing():
    with working_guest() as guest:
        report = rouse('trace', '--qmp', guest.qmp, '--seconds', 0.2, '--json').expect(0).json
        assert not agent_is_in(guest.process.pid)
        assert report['traced_bytes'] >= RAM_MB << 20
        guest.check()


def test_an_interrupted_trace_leaves_nothing_and_no_file():
    wset = work('vm.wset')
    with working_guest() as guest:
        with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100, '-o', wset) as run:
            wait_armed(run, guest.process.pid)
            run.signal(signal.SIGINT)
            run.end().expect(130)
        assert not agent_is_in(guest.process.pid)
        assert not wset.exists()
        guest.check()


def test_a_second_trace_is_refused():
    with working_guest() as guest:
        with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100) as run:
            wait_armed(run, guest.process.pid)
            rouse('trace', '--pid', guest.process.pid, '--seconds', 1).expect(REFUSED, '--disarm')
            disarm(guest)
            run.end().expect(0)
        guest.check()


def check_kills(extra):
    random = seeded()
    with working_guest(extra) as guest:
        pid = guest.process.pid
        for _ in range(20):
            with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100) as run:
                if random.random() < 0.5:
                    wait_armed(run, pid)
                with contextlib.suppress(Exception):
                    run.process.wait(random.random() * 0.1)
                run.signal(signal.SIGKILL)
                run.process.wait()
            if random.random() < 0.5:
                guest.wait_letters('..')
            disarm(guest)
            guest.wait_letters('.')
        guest.check()


@limit(300)
def test_a_tracer_killed_at_20_random_moments_costs_the_vm_nothing():
    check_kills(())


@limit(300)
def test_a_tracer_of_a_memfd_killed_at_20_random_moments_costs_the_vm_nothing():
    check_kills(MEMFD)


def test_without_its_tracer_the_vm_puts_everything_back_alone():
    with working_guest() as guest:
        pid = guest.process.pid
        with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100) as run:
            wait_armed(run, pid)
            run.signal(signal.SIGKILL)
            run.process.wait()
        wait_until(lambda: not has_agent_thread(pid), 'the agent to end')
        guest.check()
        disarm(guest)


def test_qemu_killed_while_it_is_traced_is_an_error():
    with working_guest() as guest:
        with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100) as run:
            wait_armed(run, guest.process.pid)
            guest.process.kill()
            run.end().expect(1, 'has ended')


def check_stopped(moment):
    with working_guest() as guest:
        pid = guest.process.pid
        # Without its monitor, which would not answer either: that is waited for first.
        with Rouse('trace', '--pid', pid, '--seconds', 10) as run:
            moment(run, pid)
            os.kill(pid, signal.SIGSTOP)
            try:
                run.end().expect(REFUSED, 'stopped')
                rouse('trace', '--disarm', '--pid', pid).expect(REFUSED, 'stopped')
            finally:
                os.kill(pid, signal.SIGCONT)
        disarm(guest)
        guest.check()


def test_qemu_stopped_while_the_trace_is_armed_goes_on_later():
    """As soon as the agent's thread can be seen."""
    check_stopped(wait_armed)


def test_qemu_stopped_while_it_is_traced_goes_on_later():
    check_stopped(lambda run, _: wait_until(lambda: 'tracing' in run.said(), 'the trace'))


@limit(120)
def test_qemu_stopped_while_it_is_traced_is_waited_for_once_and_what_is_left_is_told():
    with working_guest() as guest:
        with Rouse('trace', '--qmp', guest.qmp, '--seconds', 5) as run:
            wait_until(lambda: 'tracing' in run.said(), 'the trace')
            os.kill(guest.process.pid, signal.SIGSTOP)
            try:
                run.end(30).expect(REFUSED, 'stopped', 'log none', 'kill -CONT')
                rouse('trace', '--qmp', guest.qmp).expect(VMM, 'kill -CONT')
            finally:
                os.kill(guest.process.pid, signal.SIGCONT)
        disarm(guest)
        guest.check()


def test_qemu_in_a_sandbox_is_refused():
    with working_guest(('-sandbox', 'on')) as guest:
        rouse('trace', '--qmp', guest.qmp, '--seconds', 1).expect(REFUSED, 'seccomp')
        guest.check()


def test_a_trace_of_nothing_is_wrong_usage():
    rouse('trace', '--seconds', 1).expect(USAGE, '--pid')
    rouse('trace', '--qmp', 'a', '--pid', 1).expect(USAGE, '--pid')
    rouse('trace', '--qmp', 'a', '--disarm').expect(USAGE, '--disarm')


def test_a_process_without_memory_that_can_be_traced_is_of_the_wrong_kind():
    with holder() as pid:
        run = rouse('trace', '--pid', pid, '--min-size', '1T', '--seconds', 0.1).expect(FILE)
    assert 'no memory that can be traced' in run.err


def test_a_trace_of_no_process_is_an_error():
    rouse('trace', '--pid', 0x3fffffff, '--seconds', 1).expect(1, 'no process')


@limit(300)
def test_a_linux_guest_keeps_its_memory_while_it_is_traced():
    need_trace()
    with busy_guest(machine()) as guest:
        pid = guest.run.qemu_pid()
        for _ in range(3):
            with Rouse('trace', '--qmp', guest.run.qmp, '--seconds', 100, '--json') as run:
                wait_armed(run, pid)
                check_memory(guest)
                rouse('trace', '--disarm', '--pid', pid).expect(0)
                report = run.end().expect(0).json
            assert not agent_is_in(pid)
            assert report['pages'] > 1000
            note(f'armed in {report["arm_ms"]} ms, at most {report["arm_pause_ms"]} ms for a touch; '
                 f'{report["faults"]} touches of {report["service_us"]:.1f} us, '
                 f'disarmed in {report["disarm_ms"]} ms')
        guest.wait_requests()
        check_memory(guest)


# ---- estimates -------------------------------------------------------------------------------

def check_estimate_trace(extra):
    image = work('vm.rouse')
    with working_guest(extra) as guest:
        report = save(guest, image, '--keep-running', '--estimate', 'trace:2').expect(0).json
        assert not agent_is_in(guest.process.pid)
        guest.check()
    info = image_info(image)
    assert report['estimate'] == 'trace'
    assert report['wset_pages'] == report['trace']['pages'] > (MOVING_MB << 20) // PAGE
    assert info['wset_pages'] == report['wset_pages']
    return image, report


def set_of(image, wset):
    """An image's own set as a file: what a restore records of a VM that touches nothing."""
    with TinyGuest(fixed_mb=FIXED_MB, moving_mb=MOVING_MB, incoming='defer') as guest:
        rouse('restore', '--qmp', guest.qmp, '--policy', 'ws', '--paused', '--record', wset,
              image).expect(0)


def test_estimate_trace_lays_the_image_out_for_what_is_touched_after_the_checkpoint():
    image, saved = check_estimate_trace(())
    traced, touched = work('traced.wset'), work('touched.wset')
    set_of(image, traced)
    # A recording brings no neighbours and, for a quarter of a second, nothing unasked. A guest that
    # waits for each page does not come further in that time than it did in two seconds of tracing.
    restore_and_check(image, '--policy', 'lazy', '--record', f'{touched}:0.25')
    report = restore_and_check(image, '--policy', 'ws')
    assert report['prefetched_pages'] == saved['wset_pages']
    diff = rouse('wset', 'diff', '--json', traced, touched).expect(0).json
    note(f'{diff["common"]} of {diff["pages_b"]} touched pages are of the traced set of '
         f'{diff["pages_a"]}, Kendall\'s tau {diff["kendall_tau"]:.2f}')
    assert diff['pages_b'] > 50
    assert diff['precision'] >= 0.95 and diff['kendall_tau'] >= 0.9


def test_rouse_killed_while_it_estimates_leaves_the_vm_running_and_no_image():
    image = work('vm.rouse')
    with working_guest() as guest:
        with Rouse('save', '--qmp', guest.qmp, '--keep-running', '--estimate', 'trace:100',
                   image) as run:
            wait_armed(run, guest.process.pid)
            guest.wait_letters('.')
            run.signal(signal.SIGKILL)
            run.process.wait()
        guest.check()
        assert guest.monitor.status() == 'running'
        assert not image.exists()
        disarm(guest)
        for left in image.parent.glob(f'.{image.name}*'):
            left.unlink()  # the temporary file of a save that was killed


def test_estimate_trace_works_on_a_memfd():
    image, _ = check_estimate_trace(MEMFD)
    with TinyGuest(fixed_mb=FIXED_MB, moving_mb=MOVING_MB, incoming='defer',
                   extra=MEMFD) as guest:
        rouse('restore', '--policy', 'ws', '--qmp', guest.qmp, image).expect(0)
        guest.check()


def test_estimate_trace_before_is_for_a_vm_that_is_suspended():
    image = work('vm.rouse')
    with working_guest() as guest:
        report = save(guest, image, '--estimate', 'trace-before:2').expect(0).json
        assert guest.process.wait(5) == 0
    assert image_info(image)['wset_pages'] == report['wset_pages'] == report['trace']['pages'] > 0
    restore_and_check(image, '--policy', 'ws')


def test_code_that_qemu_has_translated_is_read_again():
    wset, second = work('vm.wset'), work('second.wset')
    with working_guest() as guest:
        report = trace_rounds(guest, wset)
        assert report['retranslated']
        assert code_page() in wset_pages(wset)
        # What it does once in QEMU's life. This is how the first was no chance.
        trace_rounds(guest, second)
        assert code_page() not in wset_pages(second)


def test_where_qemu_logs_its_settings_stay():
    log, wset = work('qemu.log'), work('vm.wset')
    with working_guest(('-d', 'guest_errors', '-D', str(log))) as guest:
        with Rouse('trace', '--qmp', guest.qmp, '--seconds', 100, '-o', wset, '--json') as run:
            wait_armed(run, guest.process.pid)
            guest.check()
            disarm(guest)
            report = run.end().expect(0, r'it logs \(-d\)').json
    assert not report['retranslated']
    assert code_page() not in wset_pages(wset)


def test_estimate_snapshot_order_finds_what_is_written_meanwhile():
    image = work('vm.rouse')
    with working_guest() as guest:
        # Where processors are scarce the guest may write nothing before the stream is out.
        for _ in range(20):
            image.unlink(missing_ok=True)
            report = save(guest, image, '--keep-running', '--estimate',
                          'snapshot-order').expect(0).json
            assert report['background_snapshot']
            if report['wset_pages'] > 0:
                break
        guest.check()
    assert image_info(image)['wset_pages'] == report['wset_pages'] > 0
    restore_and_check(image, '--policy', 'ws')


def test_an_estimate_that_fails_does_not_cost_the_image():
    image = work('vm.rouse')
    with working_guest(('-sandbox', 'on')) as guest:
        result = save(guest, image, '--keep-running', '--estimate', 'trace:1').expect(
            0, 'no working set.*seccomp')
        guest.check()
    assert result.json['wset_pages'] == 0
    assert image_info(image)['wset_pages'] == 0
    restore_and_check(image, '--policy', 'lazy')


def test_an_interrupted_estimate_leaves_the_vm_as_it_was():
    image = work('vm.rouse')
    with working_guest() as guest:
        with Rouse('save', '--qmp', guest.qmp, '--keep-running', '--estimate', 'trace:100',
                   image) as run:
            wait_armed(run, guest.process.pid)
            guest.wait_letters('..')
            run.signal(signal.SIGINT)
            run.end().expect(130)
        assert not image.exists()
        assert not agent_is_in(guest.process.pid)
        guest.check()


def test_a_vm_that_ends_while_an_estimate_traces_it_costs_the_image_only_its_set():
    """Its last byte had come: by a guest that powers off, or a QEMU that is killed."""
    for end in (lambda guest: guest.process.kill(), lambda guest: guest.monitor('quit')):
        image = work('vm.rouse')
        with working_guest() as guest, \
                Rouse('save', '--qmp', guest.qmp, '--keep-running', '--estimate', 'trace:30', '--json',
                      image) as run:
            wait_until(lambda: 'tracing' in run.said(), 'the trace')
            end(guest)
            result = run.end().expect(0, 'no working set', 'the image is complete')
        assert result.json['wset_pages'] == 0
        assert 'log nochain' not in result.err
        rouse('verify', image).expect(0)
        restore_and_check(image, '--policy', 'lazy')
        image.unlink()


def test_estimate_trace_needs_a_vm_that_goes_on():
    rouse('save', '--qmp', 'x', '--estimate', 'trace', work('vm.rouse')).expect(
        USAGE, 'trace-before')
