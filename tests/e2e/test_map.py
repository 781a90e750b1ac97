# SPDX-License-Identifier: MIT
"""VMs whose memory is a flat file that QEMU maps privately: --backend map."""
import contextlib
import hashlib
import os
import shutil
import signal

from e2e import (FILE, REFUSED, USAGE, Rouse, Skip, copy_of, flip_bytes, limit,
                 processes_of_this_test, rouse, seeded, wait_until, work)
from tiny_guest import TinyGuest



def image_and_flat(**more):
    """A tiny guest at work, saved, and its memory as a flat file."""
    image, flat = work('guest.rouse'), work('guest.flat')
    with TinyGuest(**more) as guest:
        guest.wait_works()
        rouse('save', '--qmp', guest.qmp, image).expect(0)
    report = rouse('convert', '--flat', '--json', image, flat).expect(0).json
    assert report['zero_pages'] > 0
    # What is zero takes no place, where the file system has holes.
    if shutil.disk_usage(flat).total > 0 and os.stat(flat).st_blocks * 512 < os.stat(flat).st_size:
        assert os.stat(flat).st_blocks * 512 < report['stored_bytes'] + (4 << 20)
    return image, flat


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def end_qemus():
    for pid in processes_of_this_test('qemu-system'):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_of_this_test('qemu-system'), 'QEMU to end')


@contextlib.contextmanager
def clone(image, flat, *options, **more):
    """A guest that is prepared, and a restore of it from the flat file: (guest, run)."""
    with TinyGuest(start=False, **more) as guest:
        monitor = guest.folder / 'rouse-monitor'
        try:
            with Rouse('restore', '--backend', 'map', '--flat', flat, '--json', *options,
                       '--monitor', monitor, image, '--', *guest.command) as run:
                yield guest, run
        finally:
            end_qemus()


def make_cold(path):
    """Out of the page cache, as far as the kernel likes."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def wset_of(image, flat):
    """A working set out of a text: pages of the memory that the guest checks."""
    text, wset = work('set.txt'), work('set.wset')
    text.write_text(''.join(f'{page} {page}\n' for page in range(2048, 8192, 3)), encoding='ascii')
    rouse('wset', 'convert', '--like', image, text, wset).expect(0)
    return wset


@limit(240)
def test_every_policy_gives_the_right_memory():
    image, flat = image_and_flat()
    before = digest(flat)
    wset = wset_of(image, flat)
    for policy, options in (('lazy', []), ('eager', []), ('ws', ['--working-set', wset])):
        make_cold(flat)
        with clone(image, flat, '--policy', policy, *options) as (guest, run):
            report = run.end().expect(0).json
            guest.wait_letters('..kk')
        assert report['backend'] == 'map' and report['policy'] == policy
        assert report['stall_method'] == 'samples' and report['stall_resolution_us'] == 1000
        assert (report['prefetched_pages'] > 0) == (policy != 'lazy')
        assert report['complete_ms'] >= report['start_ms'] > 0
        print(f'  {policy}: {report["faults"]} major faults, {report["stalled_ms"]} ms stalled')
        assert digest(flat) == before, 'the guest wrote to the flat file'


@limit(120)
def test_auto_takes_the_set_that_is_given():
    image, flat = image_and_flat()
    with clone(image, flat, '--working-set', wset_of(image, flat)) as (guest, run):
        report = run.end().expect(0).json
        guest.wait_letters('..kk')
    assert report['policy'] == 'ws' and report['background_pages'] > 0


@limit(120)
def test_memory_objects_are_replaced():
    """A VM that was started with an object for its memory, and on the other machines."""
    size = 64 + 4 + 28
    for machine, extra in (
            ('q35', []),
            ('microvm', []),
            ('pc,memory-backend=m0', ['-object', f'memory-backend-memfd,id=m0,size={size}M'])):
        image, flat = image_and_flat(machine=machine, extra=extra)
        with clone(image, flat, machine=machine, extra=extra) as (guest, run):
            run.end().expect(0)
            guest.wait_letters('..kk')


@limit(120)
def test_two_clones_of_one_file_at_once():
    image, flat = image_and_flat()
    before = digest(flat)
    with clone(image, flat, '--policy', 'lazy') as (one, first), \
            clone(image, flat, '--policy', 'lazy') as (other, second):
        first.end().expect(0)
        second.end().expect(0)
        one.wait_letters('..kk')
        other.wait_letters('..kk')
        assert digest(flat) == before


@limit(180)
def test_a_saved_clone_restored_without_its_file_leaves_the_file_alone():
    """Its command line names the file. Given that as memory QEMU would punch holes into it, and the
    other clones would read zeros."""
    image, flat = image_and_flat()
    before = digest(flat)
    saved = work('clone.rouse')
    with clone(image, flat, '--policy', 'lazy') as (one, first), \
            clone(image, flat, '--policy', 'lazy') as (other, second):
        first.end().expect(0)
        second.end().expect(0)
        one.check()
        rouse('save', '--qmp', one.folder / 'rouse-monitor', saved).expect(0)
        with Rouse('restore', '--policy', 'lazy', '--monitor', one.folder / 'rouse-monitor',
                   saved) as run:
            run.end().expect(0, 'not mapped from a file any more')
            one.check()
        assert digest(flat) == before
        other.check()


@limit(120)
def test_a_waiting_qemu_whose_memory_is_a_private_file_is_refused():
    image, flat = image_and_flat()
    before = digest(flat)
    extra = ['-object', f'memory-backend-file,id=pc.ram,size=96M,share=off,mem-path={flat},'
             'x-use-canonical-path-for-ramblock-id=off', '-machine', 'memory-backend=pc.ram']
    with TinyGuest(incoming='defer', extra=extra) as guest:
        rouse('restore', '--policy', 'lazy', '--qmp', guest.qmp, image).expect(
            FILE, 'private mapping', 'guest.flat')
        assert digest(flat) == before
        rouse('restore', '--policy', 'eager', '--qmp', guest.qmp, image).expect(0)
        guest.check()
    assert digest(flat) == before


@limit(120)
def test_a_shared_file_that_runs_another_vm_is_refused():
    """--keep-running: the VM goes on with the file as its memory."""
    image = work('shared.rouse')
    extra = ['-object', f'memory-backend-file,id=ram,size=96M,mem-path={work("ram")},share=on',
             '-machine', 'memory-backend=ram']
    with TinyGuest(extra=extra) as guest:
        guest.wait_works()
        rouse('save', '--keep-running', '--qmp', guest.qmp, image).expect(0)
        rouse('restore', image).expect(REFUSED, 'another process has open')
        guest.check()
    with TinyGuest(start=False, extra=extra) as guest, \
            Rouse('restore', '--monitor', guest.folder / 'rouse-monitor', image, '--',
                  *guest.command) as run:
        try:
            run.end().expect(0)
            guest.check()
        finally:
            end_qemus()


@limit(180)
def test_killed_at_random_moments():
    """Before the start nothing is left; afterwards the VM has all its memory, and nobody cares."""
    image, flat = image_and_flat()
    generator, before, ran = seeded(), digest(flat), 0
    for attempt in range(8):
        make_cold(flat)
        with clone(image, flat, '--policy', generator.choice(['lazy', 'eager']),
                   '--background', '32MiB') as (guest, run):
            if attempt % 2 == 0:
                wait_until(lambda: 'the VM runs' in run.said() or not run.running(), 'the VM to run')
            with contextlib.suppress(Exception):
                run.process.wait(generator.uniform(0, 0.6))
            run.signal(signal.SIGKILL)
            run.process.wait()
            if 'the VM runs' in run.said():
                guest.wait_letters('..kk')
                ran += 1
            else:
                # QEMU may have had all it needed; then it runs, and runs right.
                wait_until(lambda: not processes_of_this_test('qemu-system') or
                           'kk' in guest.letters(), 'QEMU to end or to run')
                assert 'X' not in guest.letters()
        assert digest(flat) == before
    assert ran >= 4


@limit(120)
def test_damaged_page_stops_the_vm():
    image, flat = image_and_flat()
    status = os.stat(flat)
    flip_bytes(flat, 50 << 20)
    # As a disk would do it: nothing tells of it.
    os.utime(flat, ns=(status.st_atime_ns, status.st_mtime_ns))
    with clone(image, flat, '--policy', 'eager') as (guest, run):
        run.end().expect(FILE, 'page 12800 of the flat file is not what was written')
        assert not guest.letters()
    with clone(image, flat, '--policy', 'lazy') as (guest, run):
        run.end().expect(FILE, 'was stopped', 'page 12800')
        guest.monitor.path = guest.folder / 'rouse-monitor'
        assert guest.monitor.status() == 'paused'


@limit(120)
def test_verify_and_inspect_know_a_flat_file():
    image, flat = image_and_flat()
    rouse('verify', flat).expect(0, 'whole')
    told = rouse('inspect', '--json', flat).expect(0).json
    made_of = rouse('inspect', '--json', image).expect(0).json
    assert told['type'] == 'flat' and told['unchanged'], told
    assert (told['id'], told['pages']) == (made_of['id'], made_of['pages']), told
    flip_bytes(flat, 50 << 20)
    flip_bytes(flat, (60 << 20) + 4080)
    damage = rouse('verify', '--json', flat).expect(FILE).json['damage']
    assert [(each['what'], each['offset']) for each in damage] == [
        ('page 12800 is not what was written', 50 << 20),
        ('page 15360 is not what was written', 60 << 20)], damage
    rouse('inspect', flat).expect(0, 'a restore checks')


def test_verify_names_the_damaged_end_of_a_flat_file():
    _, flat = image_and_flat()
    flip_bytes(flat, os.stat(flat).st_size - 3 * 4096)
    rouse('verify', flat).expect(FILE, 'table')
    flip_bytes(flat, os.stat(flat).st_size - 100)
    rouse('verify', flat).expect(FILE, 'damaged')


def test_changed_file_is_checked_before_the_start():
    image, flat = image_and_flat()
    flip_bytes(flat, 50 << 20)
    with clone(image, flat, '--policy', 'lazy') as (guest, run):
        run.end().expect(FILE, 'page 12800', 'copied or changed')
        assert not guest.letters()
    flip_bytes(flat, 50 << 20)
    with clone(image, flat, '--policy', 'lazy') as (guest, run):
        report = run.end().expect(0, 'copied or changed')
        guest.wait_letters('..kk')


def test_a_byte_where_zeros_belong_is_found_before_the_start():
    image, flat = image_and_flat()
    times = os.stat(flat)
    with open(flat, 'r+b') as file:
        page = os.lseek(file.fileno(), 0, os.SEEK_HOLE) // 4096
        if (page + 1) * 4096 >= times.st_size:
            raise Skip('the file system has no holes')
        file.seek(page * 4096 + 100)
        file.write(b'x')
    with clone(image, flat, '--policy', 'lazy') as (guest, run):
        run.end().expect(FILE, f'page {page} ', 'copied or changed')
        assert not guest.letters()
    os.utime(flat, ns=(times.st_atime_ns, times.st_mtime_ns))
    with clone(image, flat, '--policy', 'eager') as (guest, run):
        run.end().expect(FILE, f'page {page} ')
        assert not guest.letters()


@limit(120)
def test_file_of_another_vm_is_refused():
    image, flat = image_and_flat()
    other = copy_of(image, 'other.rouse')
    with TinyGuest() as guest:
        guest.wait_works()
        rouse('save', '--qmp', guest.qmp, other).expect(0)
    rouse('restore', '--backend', 'map', '--flat', flat, other).expect(FILE, 'another checkpoint')
    packed = work('packed.rouse')
    rouse('pack', image, packed).expect(0)
    with clone(packed, flat) as (guest, run):
        run.end().expect(0)
        guest.wait_letters('..kk')


@limit(120)
def test_what_cannot_be_mapped_is_refused():
    balloon = ['-device', 'virtio-balloon-pci']
    image, flat = image_and_flat(extra=balloon)
    with clone(image, flat, extra=balloon) as (_, run):
        run.end().expect(FILE, 'balloon', 'holes')
    for options, words in (([], '--flat'),
                           (['--flat', flat, '--qmp', '/nowhere'], 'only a QEMU that Rouse starts'),
                           (['--flat', flat, '--record', work('x.wset')], 'nobody sees'),
                           (['--flat', flat, '--throttle', '1MB'], 'throttle'),
                           (['--flat', flat, '--policy', 'paced'], 'paced'),
                           (['--flat', flat, '--policy', 'reap'], 'how others restore'),
                           (['--flat', flat, '--policy', 'faasnap'], 'how others restore'),
                           (['--flat', flat, '--policy', 'lazy-background'], 'how others')):
        rouse('restore', '--backend', 'map', *options, image).expect(USAGE, words)
    rouse('restore', '--backend', 'postcopy', '--flat', flat, image).expect(USAGE, 'flat')


@limit(60)
def test_cancelled_while_it_warms_leaves_the_vm_running():
    image, flat = image_and_flat()
    with clone(image, flat, '--policy', 'lazy', '--background', '64KiB') as (guest, run):
        wait_until(lambda: 'the VM runs' in run.said() or not run.running(), 'the VM to run')
        run.signal(signal.SIGINT)
        run.end().expect(130, 'runs on')
        guest.wait_letters('..kk')
