# SPDX-License-Identifier: MIT
"""The rouse command as a process: its descriptors, children, and outputs that are no
ordinary files."""
import json
import os
import pathlib
import signal
import subprocess

import report_samples as samples
from e2e import (
    BUILD, ROOT, ROUSE, Rouse, Skip, USAGE, catches, kill, limit, need_userfaultfd,
    processes_of_this_test, rouse, wait_until, work)
from tiny_guest import TinyGuest

IMAGE = pathlib.Path(ROOT, 'tests/golden/good/lz4.rouse')


def need_tool():
    if not ROUSE.exists():
        raise Skip('the tool is not built')


# ---- descriptors -----------------------------------------------------------------------------

def closed(closing, *arguments):
    """Runs the tool with some of its first three descriptors closed: its exit code."""
    return subprocess.run(['sh', '-c', f'exec "$0" "$@" {closing}', ROUSE, *arguments],
                          timeout=60, check=False).returncode


def test_closed_standard_descriptors_are_not_written_into_the_image():
    need_tool()
    for closing in ('0<&- 1>&- 2>&-', '1>&-', '2>&-', '0<&- 2>&-'):
        out = work('packed.rouse')
        assert closed(closing, 'pack', IMAGE, out) == 0, closing
        rouse('verify', out).expect(0)


def test_closed_standard_descriptors_do_not_become_what_cancels():
    """A message would go there, and cancel the job."""
    need_tool()
    path = work('long')
    path.touch()
    os.truncate(path, 1 << 29)
    with Rouse('cat', '--throttle', '1MB', path,
               preexec_fn=lambda: [os.close(fd) for fd in (0, 1, 2)]) as run:
        wait_until(lambda: not run.running() or catches(run.pid, signal.SIGINT), 'it to listen')
        for fd in (0, 1, 2):
            assert os.readlink(f'/proc/{run.pid}/fd/{fd}') == os.devnull


# ---- outputs that are no ordinary files ------------------------------------------------------

def link_to_output(name='link'):
    link = work(name)
    link.symlink_to('/proc/self/fd/1')
    return link


def run_into(path, *arguments):
    with open(path, 'w', encoding='ascii') as out:
        return subprocess.run([ROUSE, *arguments], stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.PIPE, text=True, timeout=60, check=False)


def test_image_does_not_replace_the_link_to_standard_output():
    need_tool()
    link = link_to_output()
    done = run_into(work('out'), 'pack', IMAGE, link)
    assert link.is_symlink()
    assert done.returncode == USAGE and 'standard output' in done.stderr, done.stderr


def test_working_set_does_not_replace_the_link_to_standard_output():
    need_tool()
    text, wset, link = work('text'), work('vm.wset'), link_to_output()
    text.write_text('block 1048576 pc.ram\n3 10\n', encoding='ascii')
    rouse('wset', 'convert', text, wset).expect(0)
    done = run_into(work('out'), 'wset', 'merge', '-o', link, wset)
    assert link.is_symlink()
    assert done.returncode == USAGE and 'standard output' in done.stderr, done.stderr


def test_page_does_not_replace_the_link_to_standard_output():
    need_tool()
    if not (BUILD / 'report/report.html').exists():
        raise Skip('the page was not made')
    link, page = link_to_output(), work('ws.json')
    page.write_text(json.dumps(samples.restore()), encoding='utf-8')
    done = run_into(work('out'), 'report', '-o', link, page)
    assert link.is_symlink()
    assert done.returncode == 1 and 'standard output' in done.stderr, done.stderr


@limit(120)
def test_an_output_that_cannot_be_written_takes_no_other_along():
    need_userfaultfd()
    image, wset, learned, told = work('tiny.rouse'), work('t.wset'), work('l.wset'), work('r.json')
    with TinyGuest(8, 8) as guest:
        guest.wait_works()
        rouse('save', '-q', '--qmp', guest.qmp, image).expect(0)
    with TinyGuest(8, 8, incoming='defer') as guest:
        done = rouse('restore', '--policy', 'lazy', '--record', wset, '--learn', f'{learned}:10ms',
                     '--stall-log', '/nonexistent/stalls', '--report', told, '--json', '--qmp',
                     guest.qmp, image).expect(1, '/nonexistent/stalls')
        guest.check()
    assert wset.exists() and learned.exists()
    assert done.json['complete_ms'] > 0 and json.loads(told.read_text()) == done.json
    assert sorted(path.name for path in told.parent.glob('r.json*')) == ['r.json']


# ---- children --------------------------------------------------------------------------------

def test_interrupted_doctor_leaves_no_probe_behind():
    need_tool()
    script = work('qemu')
    script.write_text('#!/bin/sh\nexec sleep 987654\n')
    script.chmod(0o755)
    with Rouse('doctor', '--qemu', script) as run:
        wait_until(lambda: processes_of_this_test('987654'), 'the probe to run')
        run.signal(signal.SIGTERM)
        run.end().expect(-signal.SIGTERM)
        try:
            wait_until(lambda: not processes_of_this_test('987654'), 'the probe to end', 10)
        finally:
            for pid in processes_of_this_test('987654'):
                kill(pid)


# ---- what is printed -------------------------------------------------------------------------

def test_names_in_messages_send_no_escapes_to_the_terminal():
    need_tool()
    said = rouse('inspect', '/nonexistent/\033[31m\u009b31m\n\x7f').expect(1).err
    assert '\033' not in said and '\u009b' not in said and '\x7f' not in said, repr(said)
    assert '?[31m?31m??' in said and len(said.splitlines()) == 1, repr(said)


def test_verify_that_cannot_print_its_json_fails():
    need_tool()
    image = work('image')
    image = os.path.join(os.fsencode(image.parent), b'\xff.rouse')
    with open(image, 'wb') as file:
        file.write(IMAGE.read_bytes())
    try:
        done = subprocess.run([ROUSE, 'verify', '--json', image], capture_output=True, timeout=60,
                              check=False)
    finally:
        os.unlink(image)
    assert done.returncode == 1 and b'cannot write' in done.stderr, done
