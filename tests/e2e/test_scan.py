# SPDX-License-Identifier: MIT
"""Scanning the memory of a running VM: what it finds, and that the VM loses nothing by it."""
import contextlib
import mmap
import pathlib
import re
import signal

from e2e import FILE, REFUSED, USAGE, Rouse, Skip, limit, note, rouse, seeded, wait_until, work
from test_trace import (
    FIXED_MB, MEMFD, MOVING_MB, RAM_MB, holder, image_info, is_complete, need_trace,
    pages_worked_on, save, worked_pages, working_guest, wset_pages)
from tiny_guest import TinyGuest


# ---- helpers ---------------------------------------------------------------------------------

def scan(guest, wset, *options):
    return rouse('scan', '--qmp', guest.qmp, '--json', *options, '-o', wset)


def scan_rounds(guest, wset, *options):
    """Scans until the guest has certainly worked through all its memory: doubles the count."""
    for count in (4, 8, 16, 32, 64):
        begin = len(guest.letters())
        report = scan(guest, wset, '--period', 500, '--count', count, *options).expect(0).json
        if guest.letters()[begin:].count('.') >= 2 and guest.letters()[begin:].count('k') >= 2:
            return report
    raise AssertionError('the guest is too slow')


def descriptors(pid):
    """What a scan could leave in the process."""
    links = []
    for link in pathlib.Path(f'/proc/{pid}/fd').iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(re.sub(r'\d+', '', str(link.readlink())))
    return sorted(links)


def wait_nothing_left(pid, before):
    """QEMU closes its end of a connection that was ended when it comes to it."""
    wait_until(lambda: descriptors(pid) == before, 'nothing to be left in QEMU')


def source_bytes(report, name):
    return sum(each['bytes'] for each in report['sources'] if each['source'] == name)


def pack_and_restore(guest, wset, extra):
    """The set must be one that an image of the VM can be laid out for."""
    image, packed = work('vm.rouse'), work('packed.rouse')
    save(guest, image).expect(0)
    rouse('pack', '-w', wset, image, packed).expect(0)
    assert image_info(packed)['wset_pages'] == len(wset_pages(wset))
    with TinyGuest(fixed_mb=FIXED_MB, moving_mb=MOVING_MB, incoming='defer', extra=extra) as new:
        rouse('restore', '--policy', 'ws', '--qmp', new.qmp, packed).expect(0)
        new.check()


# ---- what is found ---------------------------------------------------------------------------

def test_every_page_that_a_vm_works_on_is_found_in_a_memfd():
    wset = work('vm.wset')
    with working_guest(MEMFD) as guest:
        report = scan_rounds(guest, wset)
        guest.check()
        note(f'{report["scan_ms_per_gib"]} ms per GiB')
        pages = pages_worked_on(wset)
        assert report['pages'] == report['seen_pages'] == len(pages)
        assert source_bytes(report, 'presence') >= RAM_MB << 20
        pack_and_restore(guest, wset, MEMFD)


def test_of_anonymous_ram_the_pages_that_a_vm_writes_are_found():
    wset = work('vm.wset')
    with working_guest() as guest:
        report = scan_rounds(guest, wset, '--source', 'writes')
        guest.check()
        pages = set(wset_pages(wset))
        # The moving part is written in every round, the fixed part only read.
        written = worked_pages()[(FIXED_MB << 20) // 4096:]
        assert not set(written) - pages, 'pages that are written were missed'
        assert len(pages) < len(written) + 100, f'{len(pages)} pages are too many'
        assert source_bytes(report, 'write-protection') >= RAM_MB << 20
        assert source_bytes(report, 'presence') == 0
        pack_and_restore(guest, wset, ())


def scan_holder(*options, **how):
    need_trace()
    wset = work('process.wset')
    with holder(**how) as pid:
        report = rouse('scan', '--pid', pid, '--min-size', '32M', '--period', 50, '--count', 2,
                       *options, '-o', wset, '--json').expect(0).json
    return report, is_complete(wset)


def test_a_scan_of_all_memory_is_complete():
    report, complete = scan_holder()
    assert report['unscanned_bytes'] == 0
    assert complete


def test_a_scan_that_leaves_memory_out_is_not_complete():
    report, complete = scan_holder(lock=True)
    assert report['unscanned_bytes'] == 32 << 20
    assert not complete


def test_a_scan_that_sees_writes_only_is_not_complete():
    report, complete = scan_holder('--source', 'writes', flags=mmap.MAP_PRIVATE)
    assert report['unscanned_bytes'] == 0
    assert not complete


def test_a_scan_says_what_it_did_not_see_and_what_it_cost():
    with working_guest() as guest:
        result = rouse('scan', '--pid', guest.process.pid, '--period', 50, '--count', 2,
                       '--source', 'writes').expect(0)
    assert 'writes only' in result.out
    assert 'a scan of 1 GiB took' in result.out
    assert 'stops of one thread' in result.out


def check_estimate(extra, kind, *options):
    image = work('vm.rouse')
    with working_guest(extra) as guest:
        report = save(guest, image, '--estimate', f'{kind}:200,10', *options).expect(0).json
        if options:
            guest.check()
    assert report['estimate'] == kind
    assert report['scan']['scans'] == 10
    assert report['wset_pages'] == report['scan']['pages'] > (MOVING_MB << 20) // 4096
    assert image_info(image)['wset_pages'] == report['wset_pages']
    with TinyGuest(fixed_mb=FIXED_MB, moving_mb=MOVING_MB, incoming='defer', extra=extra) as new:
        rouse('restore', '--policy', 'ws', '--qmp', new.qmp, image).expect(0)
        new.check()
    return report


def test_estimate_scan_lays_the_image_out_for_what_is_accessed_after_the_checkpoint():
    report = check_estimate(MEMFD, 'scan', '--keep-running')
    assert not report['background_snapshot'], 'the VM went on before it was watched'
    assert report['scan']['retranslated']


def test_estimate_scan_of_anonymous_ram_finds_what_is_written():
    check_estimate((), 'scan', '--keep-running')


def test_estimate_scan_needs_a_vm_that_goes_on():
    rouse('save', '--qmp', 'x', '--estimate', 'scan', work('vm.rouse')).expect(
        USAGE, 'scan-before')


def test_estimate_scan_before_lays_the_image_of_a_suspended_vm_out():
    check_estimate(MEMFD, 'scan-before')


def test_estimate_scan_before_is_out_of_the_way_of_a_background_snapshot():
    assert check_estimate((), 'scan-before', '--keep-running')['background_snapshot']


def test_an_interrupted_scan_after_the_checkpoint_leaves_the_vm_as_it_was():
    image = work('vm.rouse')
    with working_guest(MEMFD) as guest:
        before = descriptors(guest.process.pid)
        with Rouse('save', '--qmp', guest.qmp, '--keep-running', '--estimate', 'scan:100,1000',
                   image) as run:
            wait_until(lambda: 'scanning' in run.said(), 'the scan')
            guest.wait_letters('..')
            run.signal(signal.SIGINT)
            run.end().expect(130)
        assert not image.exists()
        wait_nothing_left(guest.process.pid, before)
        guest.check()


# ---- page_idle -------------------------------------------------------------------------------

def has_page_idle():
    findings = rouse('doctor', '--json').expect(0).json['findings']
    return next(each for each in findings if each['name'] == 'page_idle')


def need_page_idle():
    finding = has_page_idle()
    if not finding['available']:
        raise Skip(f'no page_idle: {finding["detail"]}')


def check_page_idle(extra):
    need_page_idle()
    wset = work('vm.wset')
    with working_guest(extra) as guest:
        before = descriptors(guest.process.pid)
        report = scan_rounds(guest, wset, '--source', 'page-idle')
        guest.check()
        wait_nothing_left(guest.process.pid, before)
        pages = set(wset_pages(wset))
        missed = set(worked_pages()) - pages
        note(f'{len(pages)} pages, {report["scan_ms_per_gib"]} ms per GiB, {report["sources"]}')
        assert not missed, f'{len(missed)} of {len(worked_pages())} pages were missed'
        assert source_bytes(report, 'page-idle') >= RAM_MB << 20
        assert report['stops'] == 0
        pack_and_restore(guest, wset, extra)


def test_page_idle_finds_every_page_that_a_vm_works_on_in_anonymous_ram():
    check_page_idle(())


def test_page_idle_finds_every_page_that_a_vm_works_on_in_a_memfd():
    check_page_idle(MEMFD)


def test_page_idle_scans_qemu_in_a_sandbox():
    need_page_idle()
    with working_guest(('-sandbox', 'on')) as guest:
        report = scan(guest, work('vm.wset'), '--count', 2).expect(0).json
        guest.check()
    assert source_bytes(report, 'page-idle') >= RAM_MB << 20


def test_page_idle_that_the_kernel_lacks_is_refused_if_it_is_asked_for():
    finding = has_page_idle()
    if finding['available']:
        raise Skip('this kernel has page_idle')
    with working_guest() as guest:
        rouse('scan', '--qmp', guest.qmp, '--source', 'page-idle').expect(
            REFUSED, re.escape(finding['detail']))
        guest.check()


def test_an_estimate_by_a_source_that_is_not_there_costs_the_image_only_its_set():
    finding = has_page_idle()
    if finding['available']:
        raise Skip('this kernel has page_idle')
    image = work('vm.rouse')
    with working_guest() as guest:
        result = save(guest, image, '--estimate', 'scan-before:50,2,page-idle').expect(0)
    assert finding['detail'] in result.err
    assert image_info(image)['wset_pages'] == 0


# ---- that nothing is lost or left ------------------------------------------------------------

def check_nothing_left(extra):
    with working_guest(extra) as guest:
        before = descriptors(guest.process.pid)
        scan(guest, work('vm.wset'), '--period', 20, '--count', 20).expect(0)
        wait_nothing_left(guest.process.pid, before)
        guest.check()
        rouse('trace', '--qmp', guest.qmp, '--seconds', 0.2).expect(0)
        guest.check()


def test_after_a_scan_nothing_is_left_in_qemu():
    check_nothing_left(())


def test_after_a_scan_of_a_memfd_nothing_is_left_in_qemu():
    check_nothing_left(MEMFD)


def check_kills(extra):
    random = seeded()
    with working_guest(extra) as guest:
        before = descriptors(guest.process.pid)
        for _ in range(30):
            with Rouse('scan', '--pid', guest.process.pid, '--period', 3, '--count', 1000) as run:
                with contextlib.suppress(Exception):
                    run.process.wait(random.random() * 0.1)
                run.signal(signal.SIGKILL)
                run.process.wait()
            guest.wait_letters('.')
        scan(guest, work('vm.wset'), '--period', 20, '--count', 3).expect(0)
        wait_nothing_left(guest.process.pid, before)
        guest.check()


@limit(300)
def test_a_scanner_killed_at_30_random_moments_costs_the_vm_nothing():
    check_kills(())


@limit(300)
def test_a_scanner_of_a_memfd_killed_at_30_random_moments_costs_the_vm_nothing():
    check_kills(MEMFD)


def test_an_interrupted_scan_leaves_nothing_and_no_file():
    wset = work('vm.wset')
    with working_guest() as guest:
        before = descriptors(guest.process.pid)
        with Rouse('scan', '--qmp', guest.qmp, '-o', wset, '--count', 1000) as run:
            wait_until(lambda: 'scanning' in run.said(), 'the scan')
            run.signal(signal.SIGINT)
            run.end().expect(130)
        assert not wset.exists()
        wait_nothing_left(guest.process.pid, before)
        guest.check()


def test_qemu_killed_while_it_is_scanned_is_an_error():
    with working_guest() as guest:
        with Rouse('scan', '--qmp', guest.qmp, '--count', 1000) as run:
            wait_until(lambda: 'scanning' in run.said(), 'the scan')
            guest.process.kill()
            run.end().expect(1, 'has ended')


def test_qemu_in_a_sandbox_cannot_be_scanned():
    with working_guest(('-sandbox', 'on')) as guest:
        rouse('scan', '--qmp', guest.qmp, '--source', 'writes').expect(REFUSED, 'seccomp')
        guest.check()


def test_scans_that_make_no_sense_are_wrong_usage():
    rouse('scan', '--count', 1).expect(USAGE, '--pid')
    rouse('scan', '--qmp', 'a', '--pid', 1).expect(USAGE, '--pid')
    rouse('scan', '--pid', 1, '--period', 0).expect(USAGE)
    rouse('scan', '--pid', 1, '--count', 0).expect(USAGE)
    rouse('scan', '--pid', 1, '--last', 33).expect(USAGE)
    rouse('scan', '--pid', 1, '--decay', 2).expect(USAGE)
    rouse('scan', '--pid', 1, '--source', 'x').expect(USAGE, 'page-idle')
    for estimate in ('scan:1', 'scan:1,1,', 'scan:1,1,x', 'scan:1,1,writes,', 'scan:,1', 'scan:0,1',
                     'scan:1,0', 'scan:1,65536', 'scan:x,1'):
        rouse('save', '--qmp', 'a', '--estimate', estimate, work('vm.rouse')).expect(USAGE)


def test_a_process_without_memory_that_can_be_scanned_is_of_the_wrong_kind():
    with holder() as pid:
        rouse('scan', '--pid', pid, '--min-size', '1T', '--count', 1).expect(FILE)


def test_a_scan_of_no_process_is_an_error():
    rouse('scan', '--pid', 0x3fffffff).expect(1, 'no process')
