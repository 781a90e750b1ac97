# SPDX-License-Identifier: MIT
"""Saving VMs that Rouse cannot save: they are refused, and go on."""
from e2e import FILE, rouse, work
from tiny_guest import TinyGuest


def expect_refused(guest, image, *options):
    """The save is refused early and says why; nothing of it is left, and the VM works."""
    rouse('save', '--qmp', guest.qmp, *options, image).expect(FILE, 'section footers')
    assert not image.exists(), 'there is an image'
    assert not list(image.parent.glob(f'.{image.name}*')), 'there is a temporary file'
    assert guest.monitor.status() == 'running'
    guest.check()


def test_a_vm_whose_stream_has_no_section_footers_is_refused_and_goes_on():
    """As of machine types up to 2.3: neither a restore nor a conversion could tell it to QEMU."""
    image = work('vm.rouse')
    with TinyGuest(extra=['-global', 'migration.send-section-footer=off']) as guest:
        guest.wait_works()
        expect_refused(guest, image)
        expect_refused(guest, image, '--keep-running')
        expect_refused(guest, image, '--keep-running', '--no-background-snapshot')
