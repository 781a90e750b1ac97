#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Puts the figures of a benchmark into the README: a table, and a picture beside it.

    scripts/update-readme.py                after make bench: the README's part, and docs/ttr.svg
    scripts/update-readme.py --check        only says whether both are those of the report

The part is what stands between the two marks (<!-- bench --> and <!-- end of bench -->). Table and
picture are made of the report alone; they name its commit. The picture is drawn by Observable Plot,
which npm fetches into the build directory (report/chart/); --check needs neither npm nor node.
"""
import argparse
import hashlib
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / 'report'))
from make_template import Failure, fetch  # noqa: E402

MARKS = '<!-- bench -->', '<!-- end of bench -->'
CHART = ROOT / 'report/chart'
GROUPS = {
    'Rouse': ('#1f6feb', ('auto', 'ws', 'paced')),
    'all or nothing first': ('#8b949e', ('eager', 'lazy')),
    'as others do': ('#bc4c00', ('reap', 'faasnap', 'lazy-background')),
    'QEMU itself': ('#8250df', ('qemu', 'qemu10-mapped-ram')),
}
POLICIES = [policy for _, policies in GROUPS.values() for policy in policies]
DISKS = {'disk': 'the disk as it is', 'slow': '100 MB/s, 100 random reads/s',
         'mid': '500 MB/s, 1 ms', 'net': '125 MB/s, 20 ms'}


def different(runs, field):
    return list(dict.fromkeys(run[field] for run in runs))


def cells(report, storages):
    """The rows of the picture, in the order in which the table has them too."""
    runs = report['runs']
    rows = []
    for workload in different(runs, 'workload'):
        for storage in (each for each in storages if each in different(runs, 'storage')):
            for name, (_, policies) in GROUPS.items():
                for policy in policies:
                    key = (workload, storage, policy)
                    found = [run['ttr_ms'] for run in runs
                             if (run['workload'], run['storage'], run['policy']) == key
                             and not run.get('integrity_errors')]
                    if found:
                        rows.append({'workload': workload, 'storage': storage, 'policy': policy,
                                     'group': name, 'median': statistics.median(found),
                                     'min': min(found), 'max': max(found),
                                     'rounds': len(found)})
    return rows


def limits(report, rows):
    """The limit of each place that the rows are of."""
    places = {(row['workload'], row['storage']): None for row in rows}
    for run in report['runs']:
        if (run['workload'], run['storage']) in places and run.get('limit_ms') is not None:
            places[run['workload'], run['storage']] = run['limit_ms']
    return [{'workload': workload, 'storage': storage, 'ms': ms}
            for (workload, storage), ms in places.items() if ms is not None]


def measured(rows):
    """The policies of the rows, from the first to the last."""
    return [policy for policy in POLICIES if policy in different(rows, 'policy')]


def commit_of(report):
    facts = report['environment']
    if not facts.get('commit'):
        raise Failure('the report does not say of which commit it is')
    return facts['commit'][:12] + (' with changes' if facts.get('dirty') else '')


def origin(report, rows):
    """A sentence: of what, where and when."""
    facts = report['environment']
    least, most = (extreme(row['rounds'] for row in rows) for extreme in (min, max))
    rounds = f'{least} to {most} rounds' if least < most else \
        f'{most} round{"s" if most > 1 else ""}'
    where = (f'{facts["cpus"]} processors, Linux {facts["kernel"]}, {facts["qemu"]} under '
             f'{facts["accel"].upper()}, guests of {facts["ram_mb"]} MiB and {facts["vcpus"]} '
             'vCPUs')
    return (f'Commit {commit_of(report)}, {facts["date"][:10]}; medians of {rounds}; {where}.')


def failures(report):
    """A line about the restores that failed or had a wrong page, if there are some: the table is of
    the others."""
    bad = report.get('failed', []) + [run for run in report['runs'] if run.get('integrity_errors')]
    # Those of rouse bench have a name only.
    names = dict.fromkeys(f'{run["workload"]} {run["storage"]} {run["policy"]}'
                          if 'workload' in run else run['name'] for run in bad)
    count = '1 restore' if len(bad) == 1 else f'{len(bad)} restores'
    return [f'**{count} failed or had a wrong page**: {", ".join(names)}.'] if bad else []


def table(rows, bounds):
    """Lines of Markdown; the least of a line is bold."""
    policies = measured(rows)
    lines = ['| TTR, ms | ' + ' | '.join(policies) + ' | limit |',
             '|---|' + '---:|' * (len(policies) + 1)]
    for workload, storage in dict.fromkeys((row['workload'], row['storage']) for row in rows):
        found = {row['policy']: round(row['median']) for row in rows
                 if (row['workload'], row['storage']) == (workload, storage)}
        least = min(found.values())
        texts = [f'**{found[policy]}**' if found.get(policy) == least else
                 str(found.get(policy, '')) for policy in policies]
        bound = next((f'{each["ms"]:.0f}' for each in bounds
                      if (each['workload'], each['storage']) == (workload, storage)), '')
        lines.append(f'| `{workload}`, {storage} | ' + ' | '.join([*texts, bound]) + ' |')
    return lines


def digest(rows, bounds):
    return hashlib.sha256(json.dumps([rows, bounds], sort_keys=True).encode()).hexdigest()[:16]


def part(report, rows, bounds, picture):
    """What stands between the marks."""
    targets = report.get('targets', [])
    met = sum(each['met'] is True for each in targets)
    storages = different(rows, 'storage')
    lines = [f'![Time to responsiveness by policy, workload and disk]({picture})', '',
             *table(rows, bounds), '',
             origin(report, rows) + ' ' + '; '.join(f'"{each}": {DISKS.get(each, each)}'
                                              for each in storages) + '.']
    if targets:
        lines.append(f'{met} of {len(targets)} targets met.')
    lines += failures(report)
    lines += [f'Not measured: {each["name"]}: {each["reason"]}.' for each in
              report.get('skipped', [])]
    return '\n'.join([*lines, 'What each is, and what is missed and why: '
                      '[docs/performance.md](docs/performance.md).'])


def replace_part(text, new):
    """The README with another part."""
    if any(text.count(mark) != 1 for mark in MARKS) or text.index(MARKS[0]) > text.index(MARKS[1]):
        raise Failure(f'the README must have {MARKS[0]} and then {MARKS[1]}, each once')
    before, rest = text.split(MARKS[0])
    return f'{before}{MARKS[0]}\n{new}\n{MARKS[1]}{rest.split(MARKS[1])[1]}'


def draw(report, rows, bounds, work):
    """The picture, as a text."""
    npm, node = shutil.which('npm'), shutil.which('node')
    if not npm or not node:
        raise Failure('npm and node draw the picture: they are not there')
    modules = fetch(npm, CHART, work)
    # node looks for modules beside the script.
    script = pathlib.Path(shutil.copy(CHART / 'chart.mjs', modules.parent))
    data = {'title': 'Time to responsiveness, TTR(90 %, 100 ms), on a logarithmic axis',
            'description': f'{origin(report, rows)} Data: {digest(rows, bounds)}.',
            'policies': measured(rows),
            'groups': [{'name': name, 'colour': colour} for name, (colour, _) in GROUPS.items()
                       if name in different(rows, 'group')],
            'rows': rows, 'limits': bounds}
    done = subprocess.run([node, script], input=json.dumps(data), capture_output=True, text=True,
                          check=False, timeout=120)
    if done.returncode != 0:
        raise Failure(f'the picture was not drawn: {done.stderr.strip()}')
    return done.stdout


def differences(readme, wanted, picture, rows, bounds):
    """Sentences: what is not as the report says."""
    if readme.read_text(encoding='utf-8') != wanted:
        yield f'{readme}: the part between {MARKS[0]} and {MARKS[1]} is not of this report'
    drawn = re.search(r'Data: ([0-9a-f]+)\.', picture.read_text(encoding='utf-8')) \
        if picture.exists() else None
    if not drawn or drawn.group(1) != digest(rows, bounds):
        yield f'{picture}: not of this report'


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n', maxsplit=1)[0])
    parser.add_argument('--report', type=pathlib.Path, default=ROOT / 'build/bench/report.json')
    parser.add_argument('--readme', type=pathlib.Path, default=ROOT / 'README.md')
    parser.add_argument('--picture', default='docs/ttr.svg', help='as seen from the README')
    parser.add_argument('--storages', default='disk,slow', help='(default: disk,slow)')
    parser.add_argument('--work', type=pathlib.Path, default=ROOT / 'build/readme-chart',
                        help='where npm puts what it fetches')
    parser.add_argument('--check', action='store_true', help='write nothing; 1 if it would')
    return parser.parse_args()


def update(args):
    report = json.loads(args.report.read_text(encoding='utf-8'))
    rows = cells(report, args.storages.split(','))
    if not rows:
        raise Failure(f'{args.report}: no runs from {args.storages}')
    bounds = limits(report, rows)
    picture = args.readme.parent / args.picture
    wanted = replace_part(args.readme.read_text(encoding='utf-8'),
                          part(report, rows, bounds, args.picture))
    if args.check:
        found = list(differences(args.readme, wanted, picture, rows, bounds))
        print('\n'.join(found) or f'{args.readme} agrees with {args.report}')
        return 1 if found else 0
    drawn = draw(report, rows, bounds, args.work)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(drawn, encoding='utf-8')
    args.readme.write_text(wanted, encoding='utf-8')
    return 0


def main():
    try:
        return update(parse_arguments())
    except (Failure, OSError, ValueError, KeyError) as err:
        print(f'update-readme: {err}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
