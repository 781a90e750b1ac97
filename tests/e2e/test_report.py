# SPDX-License-Identifier: MIT
"""rouse report: the page, opened in a real browser; and what must be refused."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import types

import report_samples as samples
from browser import Browser
from e2e import (BUILD, FILE, REFUSED, ROOT, ROUSE, USAGE, Skip, limit, need_userfaultfd, note,
                 rouse, work)
from harness.saving import Tool, ToolError
from tiny_guest import TinyGuest

sys.path[:0] = [str(ROOT / 'demo')]
from story_page import Page  # noqa: E402

DRAWN = '''
const rooms = [...document.querySelectorAll('.chart > [role=img]')];
return document.querySelector('main section') !== null && rooms.every((room) => room.querySelector('svg'));
'''
FIGURES = '''
return [...document.querySelectorAll('figure')].map((figure) => ({
  title: figure.querySelector('figcaption h3').textContent,
  sentence: figure.querySelector('figcaption p').textContent,
  charts: figure.querySelectorAll('.chart svg').length,
  labels: [...figure.querySelectorAll('[role=img]')].map((room) => room.getAttribute('aria-label')),
  marks: figure.querySelectorAll('.chart svg :is(rect, path, line, circle)').length,
  caption: figure.querySelector('table caption')?.textContent,
  rows: figure.querySelectorAll('table tbody tr').length,
}));
'''


def need_page():
    if not ROUSE.exists():
        raise Skip('the tool is not built')
    if not (BUILD / 'report/report.html').exists():
        raise Skip('the page was not made: npm is not there, or could not fetch what it draws with')


def file_of(name, content):
    path = work(name)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    return path


def page_of(*arguments):
    need_page()
    out = work('page.html')
    rouse('report', '-o', out, *arguments).expect(0)
    return out


def stall_options():
    logs = {'ws': (50, 34, 10_000, 80_000), 'lazy': (54, 431, 10_000, 8_000), 'eager': (2530, 0, 1, 1)}
    return [f'--stalls={name}={file_of(f"{name}.log", samples.stalls(*how))}'
            for name, how in logs.items()]


def wset_of(name, runs):
    path = work(f'{name}.wset')
    rouse('wset', 'convert', file_of(f'{name}.txt', samples.wset_text(runs)), path).expect(0)
    return path


def check_page(browser, page):
    """Opens a page; what its figures are, each with charts, sentences and a table."""
    browser.open(page)
    browser.wait(DRAWN, 'all charts')
    figures = browser.run(FIGURES)
    for figure in figures:
        assert figure['charts'] > 0 and figure['marks'] > 3, figure
        assert figure['sentence'] and all(figure['labels']), figure
        assert figure['caption'] and figure['rows'] > 0, figure
        for text in (figure['sentence'], *figure['labels']):
            assert not re.search(r'undefined|NaN|null|\[object', text), text
    words = browser.run('return document.body.innerText')
    assert not re.search(r'undefined|NaN|\[object', words), words
    assert browser.complaints() == []
    asked = [url for url in browser.requests() if not url.startswith('data:')]
    assert asked == [page.as_uri()], asked
    return figures


# ---- the page in a browser --------------------------------------------------------------------

@limit(400)
def test_a_page_of_everything_has_all_figures():
    page = page_of(file_of('report.json', samples.bench()),
                   file_of('estimators.json', samples.estimators()), *stall_options(),
                   '-w', wset_of('prefetched', samples.PREFETCHED),
                   '--touched', wset_of('touched', samples.TOUCHED), '--title', 'All of it')
    with Browser() as browser:
        for width, scheme in ((1280, 'light'), (390, 'dark'), (360, 'light')):
            browser.look(width, scheme)
            titles = [figure['title'] for figure in check_page(browser, page)]
            assert len(titles) == 14, titles
            for begin in ('Time to responsiveness: idle', 'Bounded mutator utilization: kv',
                          'Latency of faults: kv', 'Utilization over time',
                          'Bounded mutator utilization by window', 'Distribution of the stalls',
                          'Map of the guest', 'What estimators find: idle, memfd',
                          'What their sets are worth: idle, anon'):
                assert any(title.startswith(begin) for title in titles), begin
            assert browser.run('return document.title') == 'All of it'
            wide = browser.run('return document.documentElement.scrollWidth')
            assert wide <= width, f'{wide} pixels at {width}'
            assert browser.run('return document.querySelector("#missing")') is None
        words = browser.run('return document.body.innerText')
        assert samples.SAMPLE in words and 'qemu10-mapped-ram: QEMU 10 is not installed' in words


@limit(300)
def test_what_is_not_there_is_said():
    page = page_of(file_of('ws.json', samples.restore()))
    with Browser() as browser:
        browser.look(390)
        figures = check_page(browser, page)
        assert len(figures) == 3, figures
        missing = browser.run('return document.getElementById("missing").innerText')
    for option in ('--stalls', '--stall-log', '--working-set', '--touched', 'estimators.json'):
        assert option in missing, missing


@limit(300)
def test_faults_that_nobody_timed_have_no_latency():
    """Those of a flat file that is mapped: "fault_us" is 0, however many there are."""
    ws = file_of('ws.json', samples.restore())
    lazy = file_of('map.json', samples.restore('lazy', faults=12)
                   | {'backend': 'map', 'fault_us': samples.fault_us(0, 0)})
    with Browser() as browser:
        browser.look(390)
        both = check_page(browser, page_of(ws, lazy))
        alone = check_page(browser, page_of(lazy))
    latency = [figure for figure in both if figure['title'].startswith('Latency')]
    assert len(latency) == 1 and len(alone) == 2, (latency, alone)
    assert 'ws: half' in latency[0]['sentence'] and 'lazy' not in latency[0]['sentence'], latency
    assert not any('lazy' in label for label in latency[0]['labels']), latency


@limit(300)
def test_texts_from_reports_stay_texts():
    name = '</script><img src=x onerror="document.title=1"><script>document.title=2</script>\u2028'
    content = samples.bench(1)
    for run in content['runs']:
        run['workload'] = run['policy'] = run['storage'] = name
    content['environment'] = {name: name}
    content['skipped'] = [{'name': name, 'reason': name}]
    page = page_of(file_of('report.json', content), '--title', name)
    assert page.read_text(encoding='utf-8').count('<script') == 4
    with Browser() as browser:
        browser.look(1280)
        browser.open(page)
        browser.wait(DRAWN, 'all charts')
        assert browser.run('return document.title').startswith('</script><img')
        assert browser.run('return document.querySelectorAll("img").length') == 0
        assert browser.complaints() == []


@limit(300)
def test_names_that_objects_inherit_are_names():
    content = samples.bench(1)
    names = ('constructor', 'toString', '__proto__')
    for index, run in enumerate(content['runs']):
        run['workload'] = run['policy'] = run['storage'] = names[index % len(names)]
    page = page_of(file_of('report.json', content))
    with Browser() as browser:
        browser.look(1280)
        check_page(browser, page)
        assert 'native code' not in browser.run('return document.documentElement.outerHTML')


@limit(300)
def test_tables_are_within_reach_of_the_keyboard():
    page = page_of(file_of('ws.json', samples.restore()))
    with Browser() as browser:
        browser.look(360)
        browser.open(page)
        browser.wait(DRAWN, 'all charts')
        for event in ('keyDown', 'keyUp'):
            browser.command('Input.dispatchKeyEvent', type=event, key='Tab', code='Tab',
                            windowsVirtualKeyCode=9)
        assert browser.run('return document.activeElement.className') == 'skip'
        browser.run('document.querySelector("summary").focus()')
        for event in ('keyDown', 'keyUp'):
            browser.command('Input.dispatchKeyEvent', type=event, key='Enter', code='Enter',
                            windowsVirtualKeyCode=13, text='\r' if event == 'keyDown' else '')
        assert browser.run('return document.querySelector("details").open') is True
        assert browser.run('return document.querySelector("details .table").tabIndex') == 0


@limit(300)
def test_a_page_of_a_real_restore():
    """What rouse restore writes of a real guest is what the page wants."""
    need_page()
    need_userfaultfd()
    image, wset, log = work('tiny.rouse'), work('touched.wset'), work('lazy.stalls')
    with TinyGuest(8, 8) as guest:
        guest.wait_works()
        rouse('save', '-q', '--qmp', guest.qmp, image).expect(0)
    with TinyGuest(8, 8, incoming='defer') as guest:
        report = rouse('restore', '--policy', 'lazy', '--record', f'{wset}:2', '--stall-log', log,
                       '--json', '--qmp', guest.qmp, image).expect(0).json
        guest.check()
    page = page_of('--stalls', log, '-w', wset, '--touched', wset,
                   f'tiny={file_of("lazy.json", report)}')
    with Browser() as browser:
        browser.look(390, 'dark')
        figures = check_page(browser, page)
    note(f'{report["faults"]} faults, {len(figures)} figures')
    assert len(figures) == 3 + 3 + 1, figures


# ---- the page of a demo or a benchmark ----------------------------------------------------------

def story_of(workloads):
    """As much of a Story as its page wants; `said` has what it says."""
    said = []
    return types.SimpleNamespace(
        args=types.SimpleNamespace(workloads=workloads, policies=['ws', 'lazy', 'qemu']), said=said,
        file=lambda name: str(work(name)), folder='build/demo', say=said.append, tool=Tool(BUILD),
        terminal=types.SimpleNamespace(progress=lambda *_: None),
        report=types.SimpleNamespace(path=str(file_of('report.json', samples.bench(1)))))


def keep_all(page, kept):
    """Runs of (workload, storage, policy), that began after so many ms."""
    for number, (workload, storage, policy, start_ms) in enumerate(kept, 1):
        run = {'workload': workload, 'storage': storage, 'policy': policy, 'round': number}
        page.keep_stalls(run, [(0, start_ms * 1000), (0, start_ms * 1000)], 2)


@limit(300)
def test_page_of_a_run_shows_one_guest_over_time_and_in_memory():
    need_page()
    work('page.html').write_text('of an earlier run')
    story = story_of(['kv', 'idle'])
    wset_of('idle', samples.PREFETCHED)
    page = Page(story, (ToolError, OSError))
    keep_all(page, (('kv', 'slow', 'ws', 77), ('idle', 'disk', 'ws', 60),
                    ('idle', 'slow', 'lazy', 54), ('idle', 'slow', 'qemu', 9000),
                    ('idle', 'slow', 'lazy', 66)))
    recorded = []
    for workload in ('kv', 'idle'):
        page.keep_memory(types.SimpleNamespace(workload=workload, image='image'),
                         lambda *how: recorded.append(how[1]) or shutil.copy(
                             wset_of('touched', samples.TOUCHED), how[3]))
    page.write()
    assert recorded == ['idle'], recorded
    assert len(story.said) == 1 and 'the page: ' in story.said[0], story.said
    with Browser() as browser:
        browser.look(390)
        figures = {each['title']: each for each in check_page(browser, pathlib.Path(page.path))}
        assert 'idle, slow' in browser.run('return document.title')
    assert len(figures) == 6 + 2 + 1, list(figures)  # without a distribution: these only start
    told = figures['Utilization over time']['sentence']
    assert told.startswith('lazy: runs after 54 ms') and 'qemu: runs after 9,000 ms' in told, told
    assert 'in vain' in figures['Map of the guest’s memory']['sentence']


def test_page_that_cannot_be_made_is_told_in_a_line():
    def fail(*_):
        raise ToolError('rouse report: first\nthe reason')
    story = story_of(['idle'])
    story.tool = types.SimpleNamespace(run=fail)
    page = Page(story, (ToolError, OSError))
    page.keep_memory(types.SimpleNamespace(workload='idle', image='image'), fail)
    shutil.rmtree(page.folder)
    keep_all(page, [('idle', 'slow', 'ws', 60)])
    page.write()
    assert len(story.said) == 3 and all('page' in line for line in story.said), story.said
    assert story.said[-1] == 'no page: the reason' and not pathlib.Path(page.path).exists()


# ---- the command --------------------------------------------------------------------------------

def test_page_is_replaced_whole():
    page = page_of(file_of('ws.json', samples.restore()))
    first = page.read_text(encoding='utf-8')
    bad = file_of('bad.json', '{"runs": [{}]}')
    rouse('report', '-o', page, bad).expect(FILE, r'bad\.json: runs\[0\]: "workload" is missing')
    assert page.read_text(encoding='utf-8') == first
    rouse('report', '-o', page, '--title', 'Other', work('ws.json')).expect(0)
    assert 'Other' in page.read_text(encoding='utf-8')
    assert sorted(path.name for path in page.parent.glob('page.html*')) == ['page.html']


def test_what_is_no_report_makes_no_page():
    need_page()
    out = work('none.html')
    for text in ('', '{', '[]', '{"elapsed_ms": 3}', '[' * 5000, '{"policy": "ws", "ttr_ms": -1}'):
        said = rouse('report', '-o', out, file_of('x.json', text)).expect(FILE, r'x\.json').err
        assert len(said.splitlines()) == 1, said
    rouse('report', '-o', out, '/nonexistent/x.json').expect(1, '/nonexistent/x.json')
    rouse('report', '-o', out, '--stalls', file_of('s', 'rouse-stalls 1\n')).expect(FILE)
    rouse('report', '-o', out, '-w', file_of('w', 'x')).expect(FILE)
    assert not out.exists()
    rouse('report', '-o', '/dev/null', file_of('ws.json', samples.restore())) \
        .expect(1, 'not a regular file')


def test_sets_of_different_vms_make_no_map():
    need_page()
    small = work('small.wset')
    rouse('wset', 'convert', file_of('small.txt', samples.wset_text([(0, 5, 1)], 256)), small).expect(0)
    rouse('report', '-o', work('none.html'), '-w', wset_of('big', samples.PREFETCHED), '--touched',
          small).expect(FILE)


def test_mistakes_are_named():
    rouse('report', 'x.json').expect(USAGE, '--output')
    rouse('report', '-o', 'x.html').expect(USAGE, 'nothing to show')
    rouse('report', '-o', 'x.html', *['--stalls=a'] * 17).expect(USAGE, '--stalls')


def test_without_the_page_it_says_how_to_get_it():
    """A rouse that lies where no page is."""
    if not ROUSE.exists():
        raise Skip('the tool is not built')
    folder = work('elsewhere')
    folder.mkdir()
    alone = pathlib.Path(shutil.copy(ROUSE, folder / 'rouse'))
    done = subprocess.run([alone, 'report', '-o', folder / 'x.html',
                           file_of('ws.json', samples.restore())], capture_output=True, text=True,
                          check=False)
    if done.returncode == 0:
        raise Skip('a page of Rouse is installed on this machine')
    assert done.returncode == REFUSED and 'npm' in done.stderr, done.stderr
    assert not (folder / 'x.html').exists()
