# SPDX-License-Identifier: MIT
"""What becomes of a benchmark's figures: targets, skipped competitors, the README's part."""
import importlib.util
import json
import subprocess
import sys
import types
from xml.etree import ElementTree

import report_samples
from e2e import BUILD, ROOT, Skip, busy_guest, check_memory, limit, machine, work
from harness import mapped_ram

sys.path[:0] = [str(ROOT / 'bench')]
import bench_save  # noqa: E402
import common  # noqa: E402
import peers  # noqa: E402
import run_demo  # noqa: E402
import verdicts  # noqa: E402
from story_report import FURTHER_POLICIES, PEERS, POLICIES, Report  # noqa: E402


def run_of(workload, storage, policy, ttr_ms, **more):
    """A made-up run of a report."""
    return {'workload': workload, 'storage': storage, 'policy': policy, 'round': 1,
            'ttr_ms': ttr_ms, 'guest_ttr_ms': ttr_ms, 'ram_gib': 1, **more}


def failed_of(workload, storage, policy, **more):
    """A made-up restore that failed."""
    return {'name': 'a restore', 'reason': 'made up', 'workload': workload, 'storage': storage,
            'policy': policy, 'round': 1, **more}


def judged(runs, words, failed=()):
    """(met, line) of the only target whose line has these words."""
    found = [each for each in verdicts.judge(runs, failed) if words in each[1]]
    assert len(found) == 1, f'{words}: {found}'
    return found[0]


def test_rival_must_be_twice_as_late_once_and_sooner_never():
    runs = [run_of('idle', 'slow', 'auto', 40), run_of('idle', 'slow', 'reap', 90),
            run_of('kv', 'slow', 'auto', 100), run_of('kv', 'slow', 'reap', 96)]
    assert judged(runs, 'where we gain most, idle, slow')[0] is True
    assert judged(runs, 'where we gain least, kv, slow')[0] is True  # within 1.05
    runs[-1]['ttr_ms'] = 94
    assert judged(runs, 'where we gain least, kv, slow')[0] is False
    runs[1]['ttr_ms'] = 79
    assert judged(runs, 'where we gain most')[0] is False


def test_auto_and_the_policy_that_it_took_each_time_are_one_way():
    """Their restores are the same, so that by half of them each only chance parts them."""
    runs = [run_of('idle', 'mid', 'auto', ttr, chosen_policy='paced') for ttr in (80, 90)] + \
        [run_of('idle', 'mid', 'paced', ttr) for ttr in (60, 70)]
    met, line = judged(runs, 'the best fixed one')
    assert met is True and 'auto (85 ms; it took paced each time, 65 ms: one way, 75 ms)' in line
    # It chose badly.
    runs.append(run_of('idle', 'mid', 'ws', 71))
    met, line = judged(runs, 'the best fixed one')
    assert met is False and '(ws, 71 ms)' in line and '1.06' in line, line
    # It did not always take it: the two are two.
    runs[0]['chosen_policy'] = 'ws'
    assert 'auto (85 ms) of the best' in judged(runs, 'the best fixed one')[1]


def test_default_policy_is_what_is_compared_and_ws_without_it():
    runs = [run_of('sql', 'slow', 'qemu', 1000), run_of('sql', 'slow', 'ws', 100)]
    assert judged(runs, "QEMU's own restore")[0] is True
    runs.append(run_of('sql', 'slow', 'auto', 101))
    met, line = judged(runs, "QEMU's own restore")
    assert met is False and 'auto (101 ms)' in line, line


def test_share_of_the_paper_must_be_had_on_two_workloads():
    runs = [run_of(workload, 'slow', policy, ttr_ms) for workload, ws in (('idle', 10), ('kv', 110))
            for policy, ttr_ms in (('eager', 1000), ('lazy', 5000), ('ws', ws))]
    assert judged(runs, "the paper's")[0] is True
    runs[-1]['ttr_ms'] = 111
    met, line = judged(runs, "the paper's")
    assert met is False and '(idle 0.010, kv 0.111)' in line, line


def test_view_of_the_guest_may_be_apart_by_a_tenth_or_by_20_ms():
    runs = [run_of('idle', 'disk', 'ws', 30, guest_ttr_ms=49),
            run_of('idle', 'slow', 'eager', 1000, guest_ttr_ms=1099)]
    assert judged(runs, "the guest's own view")[0] is True
    runs.append(run_of('kv', 'disk', 'ws', 30, guest_ttr_ms=900))
    met, line = judged(runs, "the guest's own view")
    assert met is False and '; kv, disk, ws: 900 of 30 ms' in line, line


def test_view_that_ends_after_the_last_page_is_told_apart():
    runs = [run_of('kv', 'disk', 'auto', 60, guest_ttr_ms=1300, complete_ms=2000),
            run_of('kv', 'mid', 'auto', 60, guest_ttr_ms=2300, complete_ms=2000),
            run_of('kv', 'disk', 'eager', 2000, guest_ttr_ms=2060, complete_ms=1990)]
    _, line = judged(runs, "the guest's own view")
    assert 'kv, disk, auto: 1300 of 60 ms;' in line, line
    assert 'kv, mid, auto: 2300 of 60 ms (after the last page);' in line, line
    assert 'where all pages are there at the start it is later by 60 ms (kv)' in line, line


def test_mapped_ram_is_judged_with_the_largest_ram_and_not_on_the_fastest_disk():
    runs = [run_of('idle', storage, policy, ttr_ms, ram_gib=ram_gib)
            for storage in ('disk', 'slow') for ram_gib, times in ((1, 1), (8, 5))
            for policy, ttr_ms in (('ws', 40), ('qemu10-mapped-ram', 40 * times))]
    def judged_mapped():
        return [each for each in verdicts.judge_growth(runs) if 'mapped-ram' in each[1]]
    (met, line), = judged_mapped()
    assert met is True and '8 GiB, slow' in line, line
    runs[-1]['ttr_ms'] = 199
    assert [met for met, _ in judged_mapped()] == [False]


def test_growth_is_judged_from_the_least_ram_to_the_largest():
    runs = [run_of('idle', 'disk', 'ws', ttr_ms, ram_gib=ram_gib)
            for ram_gib, ttr_ms in ((1, 100), (4, 500), (8, 110))]
    (met, line), = verdicts.judge_growth(runs)
    assert met is True and 'ws: TTR with 8 GiB, of that with 1 GiB: 1.10' in line, line
    (met, _), = verdicts.judge_growth(runs[:2], [failed_of('idle', 'disk', 'ws', ram_gib=8)])
    assert met is False


def test_failed_restore_of_ours_misses_its_targets_and_ws_does_not_stand_in():
    runs = [run_of('idle', 'slow', policy, ttr_ms) for policy, ttr_ms in
            (('qemu', 1000), ('ws', 10), ('eager', 900), ('lazy', 5000), ('reap', 500))]
    failed = [failed_of('idle', 'slow', 'auto')]
    assert judged(runs, "QEMU's own restore")[0] is True
    met, line = judged(runs, "QEMU's own restore", failed)
    assert met is False and 'auto (inf ms)' in line, line
    assert [met for met, line in verdicts.judge(runs, failed) if 'reap' in line] == [False, False]
    met, line = judged(runs, 'restores by Rouse that failed', failed)
    assert met is False and '(idle slow auto): 1' in line, line
    assert not [line for _, line in verdicts.judge(runs) if 'failed' in line]


def test_restore_with_a_wrong_page_is_a_failed_one():
    runs = [run_of('sql', 'slow', 'qemu', 1000), run_of('sql', 'slow', 'auto', 10),
            run_of('sql', 'slow', 'auto', 10, integrity_errors=1)]
    assert judged(runs, "QEMU's own restore")[0] is False


def test_competitor_whose_restores_all_failed_is_not_compared_with():
    runs = [run_of('idle', 'slow', 'auto', 40)]
    failed = [failed_of('idle', 'slow', 'reap'), failed_of('idle', 'slow', 'qemu')]
    assert not [line for _, line in verdicts.judge(runs, failed) if 'where we gain' in line
                or "QEMU's own" in line]
    runs.append(run_of('idle', 'slow', 'reap', 100))  # one of two did not fail
    assert judged(runs, 'where we gain most', failed)[0] is True


def test_verdict_of_few_rounds_says_so():
    runs = [run_of('sql', 'slow', 'qemu', 1000)] * 3 + [run_of('sql', 'slow', 'auto', 10)] * 2
    assert judged(runs, "QEMU's own restore")[1].endswith(' [of 2 rounds only]')
    runs.append(runs[-1])
    assert judged(runs, "QEMU's own restore")[1].endswith(')')
    assert common.of_few(1) == ' [of 1 round only]' and common.of_few(3) == ''


def test_round_begins_with_another_one_and_none_is_always_behind_the_same():
    for count in (2, 3, 4, 7, 40):
        rounds = [common.rotated(range(count), number) for number in range(4)]
        assert all(sorted(each) == list(range(count)) for each in rounds), rounds
        for one, two in (rounds[:2], rounds[2:]):
            assert one == two[::-1] != two, rounds
        for each in rounds[0]:
            before = {order[order.index(each) - 1] for order in rounds if order[0] != each}
            assert len(before) > 1 or count == 2, (each, rounds)
        assert rounds[0] != rounds[2] or count == 2, rounds
    assert common.rotated([], 3) == []


def test_attempt_that_fails_is_noted_and_makes_the_benchmark_fail():
    said = []
    story = run_demo.Story(types.SimpleNamespace(build=str(BUILD)))
    story.say, story.report = said.append, Report(str(work('report.json')), {})

    def fails():
        raise RuntimeError('no luck')
    cell = {'workload': 'idle', 'round': 1, 'policy': 'ws'}
    assert story.attempt(cell, lambda: run_of('idle', 'disk', 'ws', 3), lambda run: 'well') is True
    assert said == ['idle, round 1, ws: well'] and story.finish() == 0
    assert story.attempt(cell, fails) is False
    assert said[-1] == 'idle, round 1, ws: FAILED: no luck' and story.finish() == 1
    assert json.loads(work('report.json').read_text())['failed'] == [
        {'name': 'idle, round 1, ws', 'reason': 'no luck', **cell}]


def test_policy_that_the_tool_does_not_have_is_skipped_by_name():
    skipped = []
    tool = types.SimpleNamespace(run=lambda *_: '-p, --policy auto|eager|\n   reap|faasnap')
    bench = types.SimpleNamespace(tool=tool, skip=lambda *each: skipped.append(each))
    known = peers.known_policies(bench, ['eager', 'reap', 'lazy-background', 'faasnap', 'qemu'])
    assert known == ['eager', 'reap', 'faasnap', 'qemu']
    assert skipped == [('lazy-background', 'rouse restore --policy has no lazy-background')]


def test_every_policy_says_how_it_is_set():
    assert set(peers.SETTINGS) == set(POLICIES + FURTHER_POLICIES + PEERS)


def test_old_qemu_says_that_it_has_no_mapped_ram():
    kind = machine()
    why = mapped_ram.can(kind)
    if why is None:
        raise Skip('this QEMU has mapped-ram')
    assert why.startswith('QEMU ') and 'has no mapped-ram' in why and '\n' not in why, why


def test_qemu_that_is_not_there_says_that_it_does_not_start():
    why = mapped_ram.can(machine(qemu='/nowhere/qemu'))
    assert 'does not start' in why and '/nowhere/qemu' in why, why


def test_guest_saved_by_mapped_ram_is_restored_whole():
    newer = BUILD / 'qemu10/qemu-system-x86_64'
    kind = machine(qemu=str(newer)) if newer.exists() else machine()
    why = mapped_ram.can(kind)
    if why:
        raise Skip(f'no QEMU with mapped-ram (scripts/install-qemu10.sh): {why}')
    path = work('state.mapped')
    with busy_guest(kind) as guest:
        mapped_ram.save(guest, path)
    entered = []
    direct = peers.can_read_direct(path)
    with mapped_ram.restored(kind, path, direct, entered.append) as restored:
        check_memory(restored.guest)
        assert entered == [restored.guest] and restored.stalls[0][1] > 0, restored


def readme_of(report):
    """A README and a report; the options of scripts/update-readme.py for them."""
    folder = work('readme')
    folder.mkdir()
    (folder / 'README.md').write_text(
        '# Before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n')
    (folder / 'report.json').write_text(json.dumps(report))
    return folder, ['--report', folder / 'report.json', '--readme', folder / 'README.md',
                    '--picture', 'ttr.svg', '--work', folder / 'npm']


def update_readme(*options):
    done = subprocess.run([sys.executable, ROOT / 'scripts/update-readme.py', *options],
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def sample_of(commit, **facts):
    report = report_samples.bench()
    report['environment'].update(commit=commit, **facts)
    return report


@limit(300)
def test_readme_has_the_table_and_the_picture_of_the_report():
    folder, options = readme_of(sample_of('0123456789abcdef', dirty=False))
    assert update_readme('--check', *options)[0] == 1
    code, said = update_readme(*options)
    if code == 2 and 'npm' in said:
        raise Skip(said.strip())
    assert code == 0, said
    readme, picture = (folder / 'README.md').read_text(), (folder / 'ttr.svg').read_text()
    assert readme.startswith('# Before\n<!-- bench -->\n![') and 'old' not in readme
    assert readme.endswith('\n<!-- end of bench -->\nafter\n')
    assert 'Commit 0123456789ab,' in readme and 'qemu10-mapped-ram: QEMU 10' in readme
    texts = [each.text for each in ElementTree.fromstring(picture).iter() if each.text]
    assert 'reap' in texts and 'slow' in texts and 'kv' in texts, texts
    assert update_readme('--check', *options)[0] == 0
    (folder / 'report.json').write_text(json.dumps(sample_of('fedcba9876543210', dirty=True)))
    code, said = update_readme('--check', *options)
    assert code == 1 and 'README.md' in said and 'ttr.svg' not in said, said


def test_readme_names_the_least_and_changes_since_the_commit():
    module = importlib.util.spec_from_file_location('update_readme',
                                                    ROOT / 'scripts/update-readme.py')
    update = importlib.util.module_from_spec(module)
    module.loader.exec_module(update)
    report = sample_of('0123456789abcdef', dirty=True)
    report['runs'] = [run_of('idle', 'disk', 'eager', 682.4, limit_ms=30),
                      run_of('idle', 'disk', 'ws', 35.2, limit_ms=30)]
    rows = update.cells(report, ['disk', 'slow'])
    assert update.table(rows, update.limits(report, rows)) == [
        '| TTR, ms | ws | eager | limit |', '|---|---:|---:|---:|',
        '| `idle`, disk | **35** | 682 | 30 |']
    assert update.commit_of(report) == '0123456789ab with changes'
    assert 'medians of 1 round;' in update.origin(report, rows)
    assert not update.failures(report)
    report['runs'].append(run_of('idle', 'disk', 'ws', 1, integrity_errors=2))
    report['failed'] = [failed_of('kv', 'slow', 'ws')]
    assert update.cells(report, ['disk', 'slow']) == rows
    assert update.failures(report) == [
        '**2 restores failed or had a wrong page**: kv slow ws, idle disk ws.']
    report['runs'].append(run_of('idle', 'disk', 'ws', 37))
    assert 'medians of 1 to 2 rounds;' in update.origin(report, update.cells(report, ['disk']))
    try:
        update.commit_of(sample_of(None))
    except update.Failure:
        return
    raise AssertionError('a report without a commit is taken')


def test_readme_without_marks_is_left_as_it_is():
    folder, options = readme_of(sample_of('0123456789abcdef'))
    (folder / 'README.md').write_text('no marks\n')
    code, said = update_readme(*options)
    assert code == 2 and 'must have' in said, said
    assert (folder / 'README.md').read_text() == 'no marks\n'


def test_benchmark_of_saving_fails_if_a_page_is_wrong():
    for errors, code in ((0, 0), (1, 1)):
        verified = types.SimpleNamespace(pages=9, errors=errors)
        assert bench_save.check(types.SimpleNamespace(verify=lambda of=verified: of)) == code
