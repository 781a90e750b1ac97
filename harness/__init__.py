# SPDX-License-Identifier: MIT
"""The harness: boots guests, speaks QMP, measures. Shared by demo/, bench/ and tests/e2e/.

Python 3, standard library only. How to read it:

  guest_build  the guest's kernel and initramfs, made from Debian packages and the guest driver
  guest        Machine (what to boot), Guest (one that runs); QEMU always ends, by its pid
  link         the line to the driver inside the guest: commands, and a record of every request
  qmp          a client of QEMU's QMP
  unix_socket  waiting for a socket, for both
  cache        drops a file from the page cache, and checks that it is gone
  records      the guest's own view: from the records of its requests to stalls
  ttr          time-to-responsiveness of stalls, written independently of the C library
  saving       QEMU's own ways to save and to load, and Rouse's, as calls
  mapped_ram   QEMU's own file of fixed places for pages, which newer ones save to and load from
  truth        which pages a guest touches, all of them: by a plugin inside QEMU (TCG only)
  paired       two states compared in turns: medians of pairs, and their intervals
  cputime      processor time of processes and threads
  judge        how good a working set is, beside the truth
  terminal     progress on a terminal, plain lines in a pipe

A first guest, from the top of the source tree (build/ is meson's build directory):

    from harness import Guest, Machine, build_guest

    machine = Machine(build_guest("build"), ram_mb=256, vcpus=2)
    with Guest.boot(machine) as guest:
        guest.start("idle")              # fills memory; returns when requests run
        guest.stamp()
        print(guest.qmp.execute("query-status"))
        assert guest.verify().errors == 0

Times are microseconds of CLOCK_MONOTONIC (the host's, unless a name says guest), sizes bytes unless
a name says otherwise.
"""

from .cache import drop_from_cache, resident_pages
from .guest import Guest, GuestError, Machine, choose_accel
from .guest_build import GuestFiles, build_guest
from .link import Link, Record, Verified, now_us
from .qmp import QmpClient, QmpError

__all__ = [
    "Guest", "GuestError", "GuestFiles", "Link", "Machine", "QmpClient", "QmpError", "Record",
    "Verified", "build_guest", "choose_accel", "drop_from_cache", "now_us", "resident_pages",
]
