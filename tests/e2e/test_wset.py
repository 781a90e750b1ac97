# SPDX-License-Identifier: MIT
"""rouse wset: working sets shown, merged, compared, converted. No guest is needed."""
import fcntl
import os
import shutil
import subprocess

from e2e import FILE, ROOT, ROUSE, Skip, USAGE, rouse, seeded, work

BLOCKS = 'block 16777216 pc.ram\n'


def need_tool():
    if not ROUSE.exists():
        raise Skip('the tool is not built')


def make_wset(name, pages, head=BLOCKS + 'complete\n'):
    """A working set of these pages, touched every 10 us."""
    text, wset = work(f'{name}.txt'), work(name)
    text.write_text(head + ''.join(f'{page} {10 * i}\n' for i, page in enumerate(pages)))
    rouse('wset', 'convert', text, wset).expect(0)
    return wset


def show(wset, *options):
    return rouse('wset', 'show', '--json', *options, wset).expect(0).json


def test_show_describes_a_set():
    need_tool()
    wset = make_wset('a.wset', [7, 3, 4095])
    info = show(wset, '--pages')
    assert info['pages'] == 3 and info['bytes'] == 12288 and info['runs'] == 1
    assert info['complete'] is True and info['span_ms'] == 0.02
    assert info['blocks'] == [{'name': 'pc.ram', 'used_bytes': 16777216, 'first_page': 0}]
    assert [page['page'] for page in info['page_list']] == [7, 3, 4095]
    assert info['page_list'][1] == {'page': 3, 'time_us': 10, 'vcpu': None, 'count': 1,
                                    'looks': 1, 'last': 1, 'weight': 1, 'waiting': False}
    out = rouse('wset', 'show', '--pages', wset).expect(0).out
    assert 'pages         3, 12.0 KiB' in out and '\n3 10 - 1 1 1 1.00\n' in out


def test_merge_keeps_an_odd_set_out():
    need_tool()
    stable = [make_wset(f'{i}.wset', range(100, 300)) for i in range(3)]
    odd, out = make_wset('odd.wset', range(1000, 4000)), work('merged.wset')
    rouse('wset', 'merge', *stable, odd, '-o', out).expect(0, r'200 pages \(.*\) of 4 restores')
    info = show(out)
    assert info['version'] == 2 and info['pages'] == 200 and info['waiting'] <= 3000
    diff = rouse('wset', 'diff', '--json', stable[0], out).expect(0).json
    assert diff['recall'] == 1 and diff['precision'] == 1 and diff['kendall_tau'] == 1


def test_merge_has_a_budget_and_a_union():
    need_tool()
    a, b, out = make_wset('a', range(100)), make_wset('b', range(50, 150)), work('out')
    info = rouse('wset', 'merge', '--json', '--confirm', '1', '-o', out, a, b).expect(0).json
    assert info['pages'] == 150
    info = rouse('wset', 'merge', '--json', '--budget', '40K', '-o', out, a, b).expect(0).json
    assert info['pages'] == 10
    # Into one of its inputs.
    rouse('wset', 'merge', '-o', a, a, b).expect(0)
    assert show(a)['runs'] == 2


def test_merge_holds_the_lock_from_reading_on():
    need_tool()
    a, b, pipe = make_wset('a', range(100)), make_wset('b', range(100)), work('pipe')
    os.mkfifo(pipe)
    with subprocess.Popen([ROUSE, 'wset', 'merge', '-o', a, a, pipe]) as merge:
        with open(pipe, 'wb') as out:
            # It waits for the second set, and has read the first one.
            directory = os.open(a.parent, os.O_RDONLY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = False
            except BlockingIOError:
                locked = True
            os.close(directory)
            out.write(b.read_bytes())
    assert merge.returncode == 0 and locked
    assert show(a)['runs'] == 2


def test_another_file_is_not_replaced_by_a_working_set():
    need_tool()
    image, wset = work('vm.rouse'), make_wset('a', [1])
    shutil.copy(ROOT / 'tests/golden/good/lz4_wset.rouse', image)
    before = image.read_bytes()
    rouse('wset', 'merge', '-o', image, wset).expect(USAGE, 'vm.rouse', 'not a working set')
    rouse('restore', '--policy', 'lazy', '--record', f'{image}:10', image, '--', 'true').expect(
        USAGE, 'vm.rouse', 'not a working set')
    # Before they look for the VM.
    for command in ('trace', 'scan'):
        rouse(command, '--qmp', work('no-socket'), '-o', image).expect(USAGE, 'not a working set')
    assert image.read_bytes() == before


def test_what_a_restore_writes_takes_the_place_of_nothing_that_it_reads():
    need_tool()
    image, wset = work('vm.rouse'), make_wset('a.wset', [7, 3])
    shutil.copy(ROOT / 'tests/golden/good/lz4_wset.rouse', image)
    link = work('link')
    link.symlink_to(image)
    before = image.read_bytes(), wset.read_bytes()
    for option, words in ((('--stall-log',), 'the stall log would take'),
                          (('--report',), 'the report would take'),
                          (('--detach', '--log'), 'the log would be appended to')):
        for path in (image, link, wset):
            rouse('restore', '--policy', 'ws', '-w', wset, *option, path, image, '--',
                  'true').expect(USAGE, words)
    rouse('restore', '--stall-log', 'x', '--report', 'x', image, '--', 'true').expect(USAGE, 'x')
    for option in ('--stall-log', '--report'):
        rouse('restore', '--detach', '--log', 'x', option, 'x', image, '--', 'true').expect(
            USAGE, 'x: name another file')
    assert (image.read_bytes(), wset.read_bytes()) == before and link.is_symlink()


def test_two_outputs_with_one_new_name_are_refused():
    need_tool()
    image = ROOT / 'tests/golden/good/lz4_wset.rouse'
    new, link = work('new'), work('link')
    link.symlink_to('new')
    for other in (new, f'{new.parent}/./new', link):
        for option in ('--record', '--learn'):
            rouse('restore', '--policy', 'lazy', option, new, '--stall-log', other, image, '--',
                  'true').expect(USAGE, 'the stall log would take')
        rouse('restore', '--policy', 'lazy', '--record', new, '--learn', other, image, '--',
              'true').expect(USAGE, 'two files')
    assert not new.exists()


def test_a_stall_log_replaces_nothing_but_a_stall_log():
    need_tool()
    image, disk = ROOT / 'tests/golden/good/lz4_wset.rouse', work('disk.qcow2')
    disk.write_bytes(b'QFI\xfb, the disk of the VM')
    before = disk.read_bytes()
    rouse('restore', '--stall-log', disk, image, '--', 'true').expect(USAGE, 'disk.qcow2',
                                                                      'is no stall log')
    assert disk.read_bytes() == before


def test_a_report_or_a_page_replaces_a_text_only():
    need_tool()
    image, disk, runs = ROOT / 'tests/golden/good/lz4_wset.rouse', work('disk.raw'), work('runs')
    disk.write_bytes(bytes(10000))
    runs.write_text('{"format": 1, "runs": []}')
    for command in (('restore', '--report', disk, image, '--', 'true'),
                    ('bench', '-o', disk, image, '--', 'true'), ('report', '-o', disk, runs)):
        rouse(*command).expect(USAGE, 'disk.raw', 'is no text')
    assert disk.read_bytes() == bytes(10000)


def test_record_does_not_destroy_what_was_learned():
    need_tool()
    image = ROOT / 'tests/golden/good/lz4_wset.rouse'
    text, learned, link = work('text'), work('learned.wset'), work('link')
    text.write_text('1 50 0\n')
    rouse('wset', 'convert', '--like', image, text, learned).expect(0)
    link.symlink_to(learned)
    before = learned.read_bytes()
    for record in (learned, link):
        rouse('restore', '--policy', 'lazy', '--record', record, '--learn', learned, image, '--',
              'true').expect(USAGE, 'two files')
    assert learned.read_bytes() == before and link.is_symlink()


def test_diff_says_what_only_one_has():
    need_tool()
    a, b = make_wset('a', [1, 2, 3, 4]), make_wset('b', [4, 3, 2, 9, 10])
    diff = rouse('wset', 'diff', '--json', '--pages', a, b).expect(0).json
    assert diff == {'pages_a': 4, 'pages_b': 5, 'common': 3, 'only_a': 1, 'only_b': 2,
                    'recall': 0.75, 'precision': 0.6, 'kendall_tau': -1,
                    'page_list_a': [1], 'page_list_b': [9, 10]}
    out = rouse('wset', 'diff', '--pages', a, b).expect(0).out
    assert out.startswith('A 1\nB 9\nB 10\n') and 'recall 0.750, precision 0.600' in out


def test_convert_goes_there_and_back():
    need_tool()
    wset, text, again = make_wset('a', [7, 3, 9]), work('text'), work('again')
    rouse('wset', 'convert', wset, text).expect(0)
    rouse('wset', 'convert', text, again).expect(0)
    assert again.read_bytes() == wset.read_bytes()
    out = rouse('wset', 'convert', wset, '-').expect(0).out
    assert out == text.read_text() and out.endswith('\n7 0\n3 10\n9 20\n')


def test_convert_to_text_replaces_nothing_but_texts():
    need_tool()
    wset, text, image = make_wset('a.wset', [7, 3]), work('out.txt'), work('vm.rouse')
    shutil.copy(ROOT / 'tests/golden/good/lz4_wset.rouse', image)
    before = image.read_bytes()
    rouse('wset', 'convert', wset, image).expect(USAGE, 'is no text')
    rouse('wset', 'convert', wset, wset).expect(USAGE, 'is no text')
    assert image.read_bytes() == before and show(wset)['pages'] == 2
    text.write_text('something else\n')
    rouse('wset', 'convert', wset, text).expect(0)
    assert text.read_text().startswith('block 16777216 pc.ram')
    assert not [each for each in text.parent.iterdir() if each.name.startswith('out.txt.')]


def test_what_a_link_leads_to_is_replaced():
    need_tool()
    folder = work('elsewhere')
    folder.mkdir()
    a, b = make_wset('a.wset', [7, 3]), make_wset('b.wset', [8])
    for name, words in (('sum.wset', ('merge', '--confirm', '1', '-o')), ('text', ('convert',))):
        target, link = folder / name, work(f'link-{name}')
        shutil.copy(b if name == 'sum.wset' else work('b.wset.txt'), target)
        link.symlink_to(target)
        rouse('wset', *words, *((link, b, a) if name == 'sum.wset' else (a, link))).expect(0)
        assert link.is_symlink()
    assert show(folder / 'sum.wset')['pages'] == 3
    assert '\n7 0' in (folder / 'text').read_text()


def test_a_link_to_a_file_that_is_not_there_makes_that_file():
    need_tool()
    folder = work('elsewhere')
    folder.mkdir()
    a, b = make_wset('a.wset', [7, 3]), make_wset('b.wset', [8])
    for name, words in (('sum.wset', ('merge', '--confirm', '1', '-o')), ('text', ('convert',))):
        link = work(f'link-{name}')
        link.symlink_to(os.path.relpath(folder / name, link.parent))
        rouse('wset', *words, *((link, b, a) if name == 'sum.wset' else (a, link))).expect(0)
        assert link.is_symlink()
    assert show(folder / 'sum.wset')['pages'] == 3
    assert '\n7 0' in (folder / 'text').read_text()


def test_convert_writes_over_all_of_an_open_file():
    need_tool()
    wset, text = make_wset('a.wset', [7, 3]), work('long.txt')
    text.write_text('1 2\n' * 1000)
    mode = 0o640
    text.chmod(mode)
    with open(text, 'r+', encoding='ascii') as file:
        rouse('wset', 'convert', wset, f'/dev/fd/{file.fileno()}', pass_fds=(file.fileno(),)
              ).expect(0)
    assert '\n3 10' in text.read_text() and '1 2\n' not in text.read_text()
    rouse('wset', 'convert', wset, text).expect(0)
    assert text.stat().st_mode & 0o777 == mode


def test_convert_takes_blocks_from_an_image():
    need_tool()
    image = ROOT / 'tests/golden/good/lz4_wset.rouse'
    text, wset = work('text'), work('wset')
    text.write_text('3 100\n1 50 0\n')
    rouse('wset', 'convert', text, wset).expect(USAGE, '--like')
    rouse('wset', 'convert', '--like', image, text, wset).expect(0)
    blocks = rouse('inspect', '--json', image).expect(0).json['blocks']
    assert show(wset)['blocks'] == blocks
    # And it can be used for that image.
    rouse('pack', '-w', wset, image, work('packed.rouse')).expect(0)
    assert rouse('inspect', '--json', work('packed.rouse')).json['wset_pages'] == 2


def test_pages_that_wait_are_not_packed():
    need_tool()
    image = ROOT / 'tests/golden/good/lz4_wset.rouse'
    sets = []
    for i, pages in enumerate(((3, 1), (3, 1), (7, 6, 5, 3, 1))):
        text = work(f'{i}.txt')
        text.write_text('complete\n' + ''.join(f'{page} 5\n' for page in pages))
        sets.append(work(f'{i}.wset'))
        rouse('wset', 'convert', '--like', image, text, sets[-1]).expect(0)
    learned, packed = work('learned.wset'), work('packed.rouse')
    info = rouse('wset', 'merge', '--json', '-o', learned, *sets).expect(0).json
    assert info['version'] == 2 and info['pages'] == 2 and info['waiting'] == 3
    rouse('verify', learned).expect(0, 'whole')
    for pages in ((), ('--pages',)):
        told = rouse('inspect', '--json', *pages, learned).expect(0).json
        assert told == rouse('wset', 'show', '--json', *pages, learned).expect(0).json
        assert told['pages'] == 2 and ('page_list' in told) == bool(pages), told
    rouse('pack', '-w', learned, image, packed).expect(0)
    assert rouse('inspect', '--json', packed).expect(0).json['wset_pages'] == 2


def test_convert_names_the_broken_line():
    need_tool()
    text = work('text')
    text.write_text(BLOCKS + '1 2\n\n1 x\n')
    rouse('wset', 'convert', text, work('wset')).expect(FILE, f'{text}: line 4: the time')
    assert not work('wset').exists()


def test_mistakes_are_named():
    need_tool()
    wset = make_wset('a', [1])
    other = make_wset('b', [1], 'block 4096 ram\n'.replace('4096', '8192'))
    rouse('wset').expect(USAGE, 'missing')
    rouse('wset', 'improve', wset).expect(USAGE, "no verb 'improve'")
    rouse('wset', 'show').expect(USAGE, 'missing: rouse wset show')
    rouse('wset', 'show', '--budget', '1M', wset).expect(USAGE, 'budget')
    rouse('wset', 'merge', wset).expect(USAGE, '-o FILE')
    rouse('wset', 'merge', '--decay', '0', '-o', 'x', wset).expect(USAGE, '--decay')
    rouse('wset', 'diff', wset).expect(USAGE, 'missing')
    rouse('wset', 'diff', wset, other).expect(FILE, 'different VMs')
    rouse('wset', 'merge', wset, other, '-o', work('out')).expect(FILE, 'different VMs')
    rouse('wset', 'show', ROUSE).expect(FILE, 'not a working-set file')
    rouse('wset', 'show', '/nonexistent/set').expect(1, '/nonexistent/set')


def test_every_verb_has_help():
    need_tool()
    for verb in ('show', 'merge', 'diff', 'convert'):
        out = rouse('wset', verb, '--help').expect(0).out
        assert out.startswith(f'Usage: rouse wset {verb} ')
        for line in out.splitlines():
            assert len(line) <= 100


def test_killed_at_random_moments_leaves_a_whole_file():
    need_tool()
    choice = seeded()
    out, temporary = work('out.wset'), work('out.wset.learn.tmp')
    sets = [make_wset('a', range(0, 4096)), make_wset('b', range(0, 4096, 2))]
    rouse('wset', 'merge', '-o', out, *sets).expect(0)
    for _ in range(40):
        process = subprocess.Popen([ROUSE, 'wset', 'merge', '-o', out, out, *sets * 4],
                                   stdout=subprocess.DEVNULL)
        try:
            process.wait(choice.uniform(0, 0.03))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert show(out)['pages'] in range(2048, 4097)
    rouse('wset', 'merge', '-o', out, *sets).expect(0)
    assert not temporary.exists()
