# SPDX-License-Identifier: MIT
"""QEMU's own way to save to and restore from a file in parallel: mapped-ram with multifd.

Every page has a fixed place in the file, so that several threads can write and read it at once,
with direct I/O where the file system has that. QEMU 9.1 or later.
"""

import time

from .guest import Guest, GuestError, last_line
from .qmp import QmpError
from .saving import loaded_by_qemu

CHANNELS = 4  # requests of 1 MiB in flight: more gain nothing from the disks that are used here


def _prepare(qmp, direct):
    """Sets what saving and loading must agree about."""
    qmp.execute("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": True} for name in ("mapped-ram", "multifd")])
    qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40, multifd_channels=CHANNELS,
                direct_io=direct)


def save(guest, path):
    """Stops the guest and saves it; returns the seconds it took. QmpError if its QEMU is older."""
    began = time.monotonic()
    guest.qmp.execute("stop")
    _prepare(guest.qmp, False)
    guest.qmp.execute("migrate", uri=f"file:{path}")
    answer = guest.qmp.wait_migration(600)
    if answer["status"] != "completed":
        raise GuestError(f"migrate to {path}: {answer}")
    return time.monotonic() - began


def restored(machine, path, direct=True, before=None):
    """A new QEMU loads what save() wrote: a context manager that yields a saving.Restored.

    direct         whether it reads past the page cache
    before(guest)  called before anything is read
    """
    def prepare(guest):
        if before:
            before(guest)
        _prepare(guest.qmp, direct)
    return loaded_by_qemu(machine, f"file:{path}", prepare)


def can(machine):
    """Why a QEMU cannot be measured so, in one line; None if it can."""
    name = machine.qemu
    try:
        with Guest.load(machine, "defer") as guest:
            version = guest.qmp.execute("query-version")["qemu"]
            name = f"QEMU {version['major']}.{version['minor']}"
            _prepare(guest.qmp, False)
    except QmpError as err:
        return (f"{name} has no mapped-ram with multifd and direct-io (9.1 and later have): "
                f"{last_line(err)}")
    except (GuestError, OSError, TimeoutError) as err:
        return f"{name} does not start: {last_line(err)}"
    return None
