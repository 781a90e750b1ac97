# SPDX-License-Identifier: MIT
"""Learning the working set, restore by restore; the memory is verified inside the guest each time."""
import resource
import signal

from e2e import (
    FILE, USAGE, check_memory, copy_of, flip_bytes, limit, need_userfaultfd, note, restored, rouse,
    saved_image, wait_running, work)

SECONDS = 4


def learn(image, wset, *options, odd=False):
    """One restore that learns into `wset`. An odd one hashes all of its memory meanwhile."""
    with restored(image, '--learn', f'{wset}:{SECONDS}', '--json', *options) as (guest, run):
        wait_running(guest, run)
        if odd:
            check_memory(guest)
        report = run.end(120).expect(0).json
        check_memory(guest)
    learned = report['learn']
    note(f'{report["policy"]}: {report["faults"]} faults; learned {learned}')
    return report


@limit(300)
def test_learned_set_converges_and_an_odd_run_does_not_blow_it_up():
    need_userfaultfd()
    image, wset = saved_image(), work('learned.wset')
    reports = [learn(image, wset) for _ in range(3)]
    first, last = reports[0], reports[-1]
    assert first['policy'] == 'lazy' and first['learn']['runs'] == 1
    assert all(report['policy'] == 'ws' for report in reports[1:])
    assert last['learn']['runs'] == 3
    # It converges: what was learned is prefetched and used, and hardly anything is missed.
    assert last['learn']['missed'] < first['learn']['pages'] / 4
    assert last['faults'] < first['faults'] / 2
    assert last['learn']['hit_low'] <= last['learn']['hit_rate'] <= last['learn']['hit_high']
    before = rouse('wset', 'show', '--json', wset).expect(0).json
    odd = learn(image, wset, odd=True)
    after = rouse('wset', 'show', '--json', wset).expect(0).json
    assert odd['learn']['missed'] > 2 * before['pages'], 'the odd run was not odd'
    assert after['waiting'] > before['pages']
    assert after['pages'] < 1.3 * before['pages'], f'{before["pages"]} became {after["pages"]}'
    again = learn(image, wset)
    assert again['prefetched_pages'] < 1.3 * before['pages']


@limit(240)
def test_two_learners_at_once_are_both_counted():
    need_userfaultfd()
    image, wset = saved_image(), work('learned.wset')
    learn(image, wset)
    with restored(image, '--learn', f'{wset}:{SECONDS}', '--json') as (one, run_one), \
            restored(image, '--learn', f'{wset}:{SECONDS}', '--json') as (two, run_two):
        wait_running(one, run_one)
        wait_running(two, run_two)
        ends = [run.end(120).expect(0).json['learn']['runs'] for run in (run_one, run_two)]
        check_memory(one)
        check_memory(two)
    assert sorted(ends) == [2, 3], ends
    assert rouse('wset', 'show', '--json', wset).expect(0).json['runs'] == 3


def forbid_long_files():
    """A file cannot grow beyond 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))


def test_a_set_that_cannot_be_written_leaves_the_old_one():
    need_userfaultfd()
    from e2e import Rouse, waiting_qemu
    image, wset = saved_image(), work('learned.wset')
    temporary = work('learned.wset.learn.tmp')
    learn(image, wset)
    old = wset.read_bytes()
    assert len(old) < 64 << 10, 'the set is too large for this test'
    with waiting_qemu() as guest, \
            Rouse('restore', '--learn', f'{wset}:{SECONDS}', '--qmp', guest.run.qmp, image,
                  preexec_fn=forbid_long_files) as run:
        wait_running(guest, run)
        check_memory(guest)
        run.end(120).expect(1, 'learned.wset')
        check_memory(guest)
        assert guest.monitor.status() == 'running'
    assert not temporary.exists(), 'the half-written file is still there'
    assert wset.read_bytes() == old
    learn(image, wset)
    assert rouse('wset', 'show', '--json', wset).expect(0).json['runs'] == 2


def test_learning_begins_with_the_set_of_the_image():
    need_userfaultfd()
    from e2e import packed_image
    image, wset = packed_image(), work('learned.wset')
    pages = rouse('inspect', '--json', image).expect(0).json['wset_pages']
    report = learn(image, wset)
    assert report['policy'] == 'ws'
    assert report['learn']['prefetched'] == pages
    assert report['learn']['runs'] == 2
    assert report['prefetched_pages'] == pages - report['learn']['left_out']
    assert report['learn']['pages'] + report['learn']['waiting'] >= pages * 0.9


def test_learning_and_recording_at_once():
    need_userfaultfd()
    image, wset, trace = saved_image(), work('learned.wset'), work('trace.wset')
    learn(image, wset)
    report = learn(image, wset, '--record', trace)
    recorded = rouse('wset', 'show', '--json', trace).expect(0).json
    # Each page once, although some were left out and then asked for.
    learned = report['learn']
    assert recorded['pages'] >= report['prefetched_pages'] + learned['missed'] + learned['used']
    assert recorded['pages'] <= learned['prefetched'] + report['faults']


def test_short_run_teaches_nothing():
    need_userfaultfd()
    image, wset = saved_image(), work('learned.wset')
    with restored(image, '--learn', f'{wset}:600') as (guest, run):
        wait_running(guest, run)
        run.signal(signal.SIGTERM)
        run.end().expect(130, 'nothing was learned')
    assert not wset.exists()


def test_set_that_cannot_be_used_is_refused_before_anything():
    need_userfaultfd()
    image = saved_image()
    from e2e import packed_image, waiting_qemu
    broken = copy_of(packed_image().with_name('guest.wset'), 'broken.wset')
    flip_bytes(broken, 40)
    foreign, text = work('foreign.wset'), work('foreign.txt')
    text.write_text('block 4096 pc.ram\n0 0\n')
    rouse('wset', 'convert', text, foreign).expect(0)
    with waiting_qemu() as guest:
        for wset, what in ((broken, 'checksum'), (foreign, 'another VM')):
            rouse('restore', '--learn', wset, '--qmp', guest.run.qmp, image).expect(FILE, what)
        rouse('restore', '--learn', '/nonexistent/set', '--qmp', guest.run.qmp, image).expect(
            1, '/nonexistent/set, because of its directory')
        assert guest.monitor.status() == 'inmigrate'


def test_mistakes_of_learning_are_named():
    image = saved_image()
    rouse('restore', '--learn', 'x:0', image).expect(USAGE, '--learn')
    rouse('restore', '--learn-sample', '0', image).expect(USAGE, '--learn-sample')
    rouse('restore', '--learn-decay', '2', image).expect(USAGE, '--learn-decay')
    rouse('restore', '--learn-stale', '101', image).expect(USAGE, '--learn-stale')
    rouse('restore', '--learn', 'x', '--policy', 'eager', image).expect(USAGE, 'eager')
    rouse('restore', '--learn', 'x', '--paused', image).expect(USAGE, 'paused')
    rouse('restore', '--learn', 'x', '--resume', '--qmp', 'y', image).expect(USAGE, 'taken over')
