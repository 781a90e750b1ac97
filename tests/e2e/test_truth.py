# SPDX-License-Identifier: MIT
"""The truth that estimators are judged by: the plugin that notes a guest's touches inside QEMU."""
import contextlib
import socket
import struct
import threading

from e2e import BUILD, ROOT, Skip, need_qemu, rouse, seeded, wait_until, work
from tiny_guest import BASE, QEMU, TinyGuest

FIXED_MB, MOVING_MB = 32, 4
RAM_MB = FIXED_MB + MOVING_MB + 28
FIRST = BASE // 4096
CODE, TABLE, STACK = 0x100, 0x101, 0x7f
MEMFD = ('-object', f'memory-backend-memfd,id=ram,size={RAM_MB}M,share=on',
         '-machine', 'memory-backend=ram')


def a_table(random, end_mb=FIXED_MB + MOVING_MB):
    """A table of touches for the guest, and what the truth must be: [(page, kinds)] in order."""
    from harness.truth import EXECUTED, READ, WRITTEN
    pages = random.sample(range(FIRST, FIRST + end_mb * 256 - 1, 2), 300)
    entries, expected = [], []
    for page in pages:
        kind = random.choice((READ, WRITTEN, EXECUTED))
        # A word that lies across the end of its page is in two pages.
        across = kind != EXECUTED and random.random() < 0.1
        entries.append((page * 4096 + (4094 if across else 0), kind))
        expected.append((page, kind))
        if across:
            expected.append((page + 1, kind))
    return b''.join(struct.pack('<II', *entry) for entry in entries) + bytes(4), expected


@contextlib.contextmanager
def touching_guest(table, extra=(), program='touch'):
    """A guest that goes through its table, and its truth, whose map is known."""
    from harness.truth import Truth, why_not
    need_qemu()
    reason = why_not(BUILD, QEMU)
    if reason:
        raise Skip(reason)
    with Truth(str(work('truth')), RAM_MB) as truth, \
            TinyGuest(FIXED_MB, MOVING_MB, program=program, table=table,
                      extra=(*truth.options(BUILD), *extra)) as guest:
        wait_until(lambda: 'k' in guest.letters() or guest.process.poll() is not None,
                   'the tiny guest to go through its table')
        truth.learn_map(guest.monitor)
        yield guest, truth


def passes(guest, truth):
    """The touches of some passes through the whole table, which begin anywhere in it."""
    guest.monitor('stop')
    truth.arm()
    guest.monitor('cont')
    guest.wait_letters('kk')
    guest.monitor('stop')
    truth.disarm()
    assert truth.stray[0] == 0, f'{truth.stray} touches outside of the map'
    return truth.touches()


def expect_exactly(touches, expected, block):
    from harness.truth import EXECUTED, READ, WRITTEN
    of_itself = {CODE: EXECUTED, TABLE: READ, STACK: READ | WRITTEN}
    assert {touch.block for touch in touches} == {block}
    found = {touch.page: touch.kinds for touch in touches}
    wanted = {**dict(expected), **of_itself}
    missed = {page: kind for page, kind in wanted.items() if page not in found}
    added = {page: kind for page, kind in found.items() if page not in wanted}
    assert not missed and not added, f'missed: {missed}, touched by nobody: {added}'
    assert found == wanted, 'the kinds are wrong'
    assert [touch.order for touch in touches] == list(range(len(touches)))
    assert all(a.us <= b.us for a, b in zip(touches, touches[1:]))
    in_order = [touch.page for touch in touches if touch.page not in of_itself]
    begin = [page for page, _ in expected].index(in_order[0])
    rotated = [page for page, _ in expected[begin:] + expected[:begin]]
    assert in_order == rotated, 'the order of first touch is wrong'


def exactly_the_pages(block, extra=()):
    table, expected = a_table(seeded())
    with touching_guest(table, extra) as (guest, truth):
        assert truth.touched == 0, 'it notes before it is armed'
        for _ in range(2):
            expect_exactly(passes(guest, truth), expected, block)
        before = truth.touched
        guest.monitor('cont')
        guest.wait_letters('kk')
        assert truth.touched == before, 'it notes after it was disarmed'


def test_the_truth_is_exactly_what_a_guest_touches():
    exactly_the_pages('pc.ram')


def test_the_truth_of_memory_that_is_shared_is_exact_too():
    exactly_the_pages('ram', MEMFD)


@contextlib.contextmanager
def holding_cont(qmp, until):
    """A QMP socket that leads to another, but lets `cont` through only once until() is true.

    However busy the machine is, the VM cannot go on before its watcher has seen that it stopped.
    """
    def pass_on(source, to, held):
        with contextlib.suppress(OSError, AssertionError):
            while True:
                data, fds, *_ = socket.recv_fds(source, 65536, 4)
                if not data:
                    break
                if held and b'"cont"' in data:
                    wait_until(until, 'the watcher to see the stop')
                socket.send_fds(to, [data], fds)
                for fd in fds:
                    socket.close(fd)
        for end in (source, to):  # ends the other direction too
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    path = work('held-qmp')
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as qemu:
        listener.bind(str(path))
        listener.listen(1)
        qemu.connect(str(qmp))

        def serve():
            client, _ = listener.accept()
            with client:
                back = threading.Thread(target=pass_on, args=(qemu, client, False), daemon=True)
                back.start()
                pass_on(client, qemu, True)
                back.join()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield path
        server.join(10)


def test_the_truth_begins_at_the_checkpoint_of_a_save():
    from harness.truth import WatchStop
    table, expected = a_table(seeded())
    with touching_guest(table) as (guest, truth):
        guest.monitor.close()  # another needs its socket
        with WatchStop(str(guest.monitor.path), truth) as watched, \
                holding_cont(guest.qmp, lambda: watched.armed_us) as held:
            rouse('save', '--qmp', held, '--keep-running', '--no-background-snapshot',
                  work('vm.rouse')).expect(0)
            watched.wait_resumed()
        guest.wait_letters('kk')
        truth.disarm()
        touches = truth.touches()
    expect_exactly(touches, expected, 'pc.ram')
    assert touches[0].us >= watched.armed_us


def test_the_truth_has_the_page_tables_that_were_walked_and_no_others():
    """tiny/paged.S says where they are."""
    from harness.truth import EXECUTED, READ, WALKED, WRITTEN
    table, expected = a_table(seeded(), end_mb=28)
    with touching_guest(table, program='paged') as (guest, truth):
        passes(guest, truth)
        touches = truth.all_touches(guest.monitor, guest.process.pid)
        assert (truth.unresolved, truth.lost) == (0, 0)
    wanted = dict(expected)
    wanted |= {CODE: EXECUTED, TABLE: READ, STACK: READ | WRITTEN, 0x2005: READ, 0x2207: READ}
    # Level 1 of all pages but the two behind large ones.
    walked = {0x13 + (page >> 9) for page in [*wanted, 0x40, 0] if page not in (0x2005, 0x2207)}
    walked |= {0x10, 0x11, 0x12, 0x34, 0x35, 0x36, 0x37, 0x38}
    walked |= {CODE, 0x40, 0}  # what holds the GDT, the IDT and the (absent) task state
    for page in walked:
        wanted[page] = wanted.get(page, 0) | WALKED
    found = {touch.page: touch.kinds for touch in touches}
    wrong = {hex(page): (found.get(page), wanted.get(page)) for page in found.keys() | wanted.keys()
             if found.get(page) != wanted.get(page)}
    assert not wrong, f'page: (found, wanted): {wrong}'
    places = {touch.page: place for place, touch in enumerate(touches)}
    for page, _ in expected:
        assert places[0x13 + (page >> 9)] < places[page], 'a page comes before its table'


def test_a_file_that_is_none_is_refused():
    import subprocess
    from harness.truth import plugin_path, why_not
    need_qemu()
    reason = why_not(BUILD, QEMU)
    if reason:
        raise Skip(reason)
    path = work('truth')
    path.write_bytes(bytes(8192))
    for option, words in ((f',truth={path}', 'is not a file for it'), ('', 'give truth=FILE'),
                          (f',truth={path}-none', 'cannot be opened')):
        done = subprocess.run([*QEMU, '-machine', 'none', '-accel', 'tcg', '-display', 'none',
                               '-plugin', plugin_path(BUILD) + option], capture_output=True,
                              text=True, timeout=30, check=False, cwd=ROOT)
        assert done.returncode != 0 and words in done.stderr, done.stderr


def test_sets_are_judged_by_what_they_share_with_the_truth_and_by_their_order():
    from harness.judge import judge
    truth = [5, 9, 2, 7]
    assert judge([5, 9, 2, 7], truth) == (1.0, 1.0, 1.0)
    assert judge([7, 2, 9, 5], truth) == (1.0, 1.0, -1.0)
    assert judge([9, 1, 5, 3], truth) == (0.5, 0.5, -1.0)
    assert judge([5, 100, 200, 300], truth) == (0.25, 0.25, None)
    assert judge([2, 5, 9, 7], truth).order_correlation == 1 - 6 * 6 / (4 * 15)
    assert judge([], truth) == (None, 0.0, None)
    assert judge([1], []) == (0.0, None, None)
