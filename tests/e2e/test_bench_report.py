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
    found = [each for each in verdicts.judge(runs) if words in each[1]]
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
    assert met is False and line.endswith('; kv, disk, ws: 900 of 30 ms'), line


def test_mapped_ram_is_judged_with_the_largest_ram_and_not_on_the_fastest_disk():
    runs = [run_of('idle', storage, policy, ttr_ms, ram_gib=ram_gib)
            for storage in ('disk', 'slow') for ram_gib, times in ((1, 1), (8, 5))
            for policy, ttr_ms in (('ws', 40), ('qemu10-mapped-ram', 40 * times))]
    (met, line), = verdicts.judge_growth(runs)
    assert met is True and '8 GiB, slow' in line, line
    runs[-1]['ttr_ms'] = 199
    assert [met for met, _ in verdicts.judge_growth(runs)] == [False]


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
    assert 'medians of 1 round;' in update.origin(report, rows)
    assert not update.failures(report)
    report['runs'].append(run_of('idle', 'disk', 'ws', 1, integrity_errors=2))
    report['failed'] = [failed_of('kv', 'slow', 'ws')]
    assert update.cells(report, ['disk', 'slow']) == rows
    assert update.failures(report) == [
        '**2 restores failed or had a wrong page**: kv slow ws, idle disk ws.']
    report['runs'].append(run_of('idle', 'disk', 'ws', 37))
    assert 'medians of 1 to 2 rounds;' in update.origin(report, update.cells(report, ['disk']))
