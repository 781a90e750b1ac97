# SPDX-License-Identifier: MIT
"""The truth: which pages a guest touches, all of them, as bench/truth_plugin.c sees it inside QEMU.

    truth = Truth(path, ram_mb)                       # before QEMU starts
    QEMU with *truth.options("build")
    truth.learn_map(qmp)                              # once; again if memory was plugged
    truth.arm()                                       # while the VM is stopped
    ...
    truth.disarm()
    for touch in truth.touches(): ...                 # or, of a VM that is stopped:
    for touch in truth.all_touches(qmp, pid): ...     # with the page tables that were walked

bench/truth_plugin.c has the layout of the file that both map, and says what it can't see.
"""

import contextlib
import mmap
import os
import re
import struct
import subprocess
import threading
from typing import NamedTuple

from .link import now_us
from .page_tables import GuestMemory, PageTables, Section, descriptor_tables, roots
from .qmp import QmpClient, QmpError

READ, WRITTEN, EXECUTED = 1, 2, 4  # by the guest
WALKED = 8  # by QEMU for it: page tables, descriptor tables

_PAGE = 4096
_HEADER = struct.Struct("=8sIIQIIQQIIQ")
_RANGE = struct.Struct("=IIQQQ")
_ENTRY = struct.Struct("=QIHH")
_PAIR = struct.Struct("=QQ")
_ENABLED_AT, _TOUCHED_AT, _LOST_AT, _RANGES_AT = 12, 28, 56, 64
_MAX_RANGES = 126
_ROOM_MB = 64  # beside the RAM: firmware, option ROMs, video memory
_DATA, _HOST = 0, 1
# Since then QEMU tells plugins guest-physical addresses of data.
_PHYSICAL_SINCE = (8, 2)


class TruthError(Exception):
    """There is no truth to be had; the text says why."""


class Touch(NamedTuple):
    """A page that was touched."""
    block: str   # the RAM block's name in QEMU
    page: int    # number of the page in it
    ns: int      # of CLOCK_MONOTONIC
    order: int   # 0 is the first
    vcpu: int
    kinds: int   # READ | WRITTEN | EXECUTED | WALKED, until now

    @property
    def us(self):
        return self.ns // 1000


class _Block(NamedTuple):
    name: str
    place: int   # in QEMU's own numbering of all RAM
    bytes: int


def plugin_path(build_dir):
    return os.path.join(os.path.abspath(build_dir), "bench", "truth-plugin.so")


def why_not(build_dir, qemu):
    """Why there can be no truth with this QEMU; None if there can."""
    if not os.path.exists(plugin_path(build_dir)):
        return "bench/truth-plugin.so is not built"
    said = subprocess.run([*qemu, "-machine", "none", "-display", "none", "-accel", "tcg",
                           "-plugin", "/nonexistent"], capture_output=True, text=True, timeout=30,
                          check=False, stdin=subprocess.DEVNULL).stderr
    if "nonexistent" in said and "invalid option" not in said.lower():
        return None
    return "this QEMU has no TCG plugins"


def _human(qmp, line):
    return qmp.execute("human-monitor-command", command_line=line)


def _blocks(qmp):
    """QEMU's RAM blocks, as `info ramblock` lists them."""
    found = []
    for line in _human(qmp, "info ramblock").splitlines():
        match = re.match(r"\s*(\S+)\s+\d+ \S+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x", line)
        if match:
            found.append(_Block(match[1], int(match[2], 16), int(match[3], 16)))
    return found


def _sections(qmp, blocks):
    """What of the guest's address space is memory, as `info mtree -f` draws it."""
    found = []
    here = False
    for line in _human(qmp, "info mtree -f").splitlines():
        if line.startswith("FlatView"):
            here = False
        elif line.startswith(' AS "memory"'):
            here = True
        match = re.match(r"  ([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, (?:ram|rom|romd|nv-ram)\): "
                         r"(\S+)(?: @([0-9a-f]+))?", line)
        if not here or not match:
            continue
        names = [block.name for block in blocks
                 if block.name == match[3] or block.name.endswith("/" + match[3])]
        if len(names) == 1:
            start = int(match[1], 16)
            found.append(Section(start, int(match[2], 16) + 1 - start, names[0],
                                  int(match[4] or "0", 16)))
    return found


def _host_bases(qmp, sections):
    """{block: where it begins in QEMU's memory}, as `gpa2hva` tells."""
    bases = {}
    for section in sections:
        if section.block in bases:
            continue
        answer = re.search(r" is 0x([0-9a-f]+)", _human(qmp, f"gpa2hva {section.start:#x}"))
        if answer:
            bases[section.block] = int(answer[1], 16) - section.offset
    return bases


def _region_addresses(qmp):
    """{name of a memory region: its address}, as `info mtree` draws them: the first of each."""
    found = {}
    for match in re.finditer(r"^\s+([0-9a-f]+)-[0-9a-f]+ \(prio -?\d+, \S+\): (\S+)",
                             _human(qmp, "info mtree"), re.MULTILINE):
        found.setdefault(match[2], int(match[1], 16))
    return found


class Truth:
    """The notes of one QEMU. Use it with `with`: its file is removed at the end."""

    def __init__(self, path, ram_mb):
        self.path = path
        self.pages = (ram_mb + _ROOM_MB) << 8
        self._names = []  # (first page, block) of each block that has room in the file
        self._sections, self._bases = [], {}
        self.unresolved = 0
        pair_bits = self.pages.bit_length() + 1
        self._pairs_at = _PAGE + self.pages * _ENTRY.size
        size = self._pairs_at + (_PAIR.size << pair_bits)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.truncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        _HEADER.pack_into(self._map, 0, b"ROUSETRU", 1, 0, self.pages, 0, 0, 0, 0, 0,
                          pair_bits, 0)

    def options(self, build_dir):
        """QEMU's arguments for it."""
        plugin, path = (name.replace(",", ",,") for name in (plugin_path(build_dir), self.path))
        return ["-plugin", f"{plugin},truth={path}"]

    def _header(self):
        return _HEADER.unpack_from(self._map, 0)

    @property
    def loaded(self):
        """Whether a QEMU has taken the file."""
        return self._header()[8] != 0

    @property
    def touched(self):
        """How many pages have been noted."""
        return self._header()[5]

    @property
    def lost(self):
        """How many pairs of a virtual page and a page found no room: then all_touches() lacks some."""
        return self._header()[10]

    @property
    def stray(self):
        """(how many touches were in no range of the map, where the last of them was)"""
        return self._header()[6:8]

    def learn_map(self, qmp):
        """Learns where the guest's memory is; needed before the first arm()."""
        if not self.loaded:
            raise TruthError("QEMU has not loaded the plugin")
        version = qmp.execute("query-version")["qemu"]
        physical = (version["major"], version["minor"]) >= _PHYSICAL_SINCE
        blocks = _blocks(qmp)
        self._sections = sections = _sections(qmp, blocks)
        self._bases = bases = _host_bases(qmp, sections)
        regions = _region_addresses(qmp)
        ranges, self._names, first = [], [], 0
        for block in blocks:
            count = -(-block.bytes // _PAGE)
            if block.name not in bases or first + count > self.pages:
                continue
            self._names.append((first, block.name))
            ranges.append((_HOST, 0, bases[block.name], block.bytes, first))
            if physical:
                ranges += [(_DATA, 0, section.start, section.bytes,
                            first + section.offset // _PAGE)
                           for section in sections if section.block == block.name]
            else:
                at = block.place + regions.get(block.name.rsplit("/", 1)[-1], 0)
                ranges.append((_DATA, 0, at, block.bytes, first))
            first += count
        if not ranges or len(ranges) > _MAX_RANGES:
            raise TruthError(f"QEMU's memory has {len(ranges)} parts")
        for index, each in enumerate(ranges):
            _RANGE.pack_into(self._map, _RANGES_AT + index * _RANGE.size, *each)
        header = list(self._header())
        header[4] = len(ranges)
        _HEADER.pack_into(self._map, 0, *header)

    def arm(self):
        """Forgets everything and begins to note. The VM must be stopped."""
        if not self._names:
            raise TruthError("the map of the memory is not known yet")
        self.disarm()
        self._map[_TOUCHED_AT:_TOUCHED_AT + 20] = bytes(20)  # touched, stray and where
        self._map[_LOST_AT:_LOST_AT + 8] = bytes(8)
        self._map[_PAGE:] = bytes(len(self._map) - _PAGE)
        struct.pack_into("=I", self._map, _ENABLED_AT, 1)

    def disarm(self):
        """Ends the notes; what there is can be read."""
        struct.pack_into("=I", self._map, _ENABLED_AT, 0)

    def _parts(self):
        """(first page in the file, one behind the last, block) of each block."""
        ends = [first for first, _ in self._names[1:]] + [self.pages]
        return [(first, end, name) for (first, name), end in zip(self._names, ends)]

    def touches(self):
        """List of Touch, in the order of first touch."""
        found = []
        for first, end, name in self._parts():
            notes = memoryview(self._map)[_PAGE + first * _ENTRY.size:_PAGE + end * _ENTRY.size]
            for page, (ns, order, vcpu, kinds) in enumerate(_ENTRY.iter_unpack(notes)):
                if ns:
                    found.append(Touch(name, page, ns, order, vcpu, kinds))
            notes.release()
        return sorted(found, key=lambda touch: touch.order)

    def _pairs(self):
        """[(virtual page, block, page in it, ns)]: what was mapped where when it was touched."""
        parts = self._parts()
        with memoryview(self._map)[self._pairs_at:] as notes:
            for key, ns in _PAIR.iter_unpack(notes):
                if key:
                    number = (key - 1) & ((1 << 28) - 1)
                    first, _, name = next(part for part in parts if part[0] <= number < part[1])
                    yield (key - 1) >> 28, name, number - first, ns

    def all_touches(self, qmp, pid):
        """touches(), and what QEMU itself had to read for them: page tables, and the descriptor
        tables for interrupts.

        They are found in the guest's memory as it is now: it must be stopped, and the truth
        disarmed. Of guests without 4-level paging there are none. `unresolved` tells afterwards
        how many pages are not mapped any more where they were touched.
        """
        self.unresolved = 0
        touches = self.touches()
        registers = _human(qmp, "info registers -a")
        found = roots(registers)
        if not found or not touches:
            return touches
        with GuestMemory(pid, self._sections, self._bases) as memory:
            tables = PageTables(memory, found)
            # Within seconds there is an interrupt; when was the first one is not known.
            for_interrupts = list(tables.resolve(descriptor_tables(registers), touches[0].ns))
            walked, self.unresolved = tables.walked([*self._pairs(), *for_interrupts])
        walked.update({pair[1:3]: pair[3] for pair in for_interrupts})
        known = {(touch.block, touch.page): touch for touch in touches}
        for (block, page), ns in walked.items():
            seen = known.get((block, page), Touch(block, page, ns, 0, 0xffff, 0))
            # A table is read just before the page that it leads to.
            known[block, page] = seen._replace(ns=min(seen.ns, ns), kinds=seen.kinds | WALKED)
        ordered = sorted(known.values(),
                         key=lambda touch: (touch.ns, not touch.kinds & WALKED, touch.order))
        return [touch._replace(order=order) for order, touch in enumerate(ordered)]

    def close(self):
        self._map.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WatchStop:
    """Waits for QEMU to say that the VM has stopped, arms a truth then, and knows when it goes on.

    For checkpoints that another process makes: its stop lasts longer than arming. Needs a QMP socket
    of its own. Use it with `with`: it ends watching.

    armed_us     when the VM had stopped and the truth was armed, of CLOCK_MONOTONIC; None: not yet
    resumed_us   when the VM went on after that; None: not yet
    """

    def __init__(self, qmp_path, truth=None):
        self.armed_us = self.resumed_us = None
        self._truth = truth
        self._qmp = QmpClient(qmp_path)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def _watch(self):
        with contextlib.suppress(QmpError, TimeoutError, OSError, ValueError):
            self._qmp.wait_event("STOP", 3600)
            if self._truth:
                self._truth.arm()
            self.armed_us = now_us()
            event = self._qmp.wait_event("RESUME", 3600)
            with self._changed:
                self.resumed_us = event["arrival_us"]
                self._changed.notify_all()

    def wait_resumed(self, timeout=60):
        """Waits until the VM went on after its stop; returns when that was."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.resumed_us, timeout):
                raise TruthError("the VM has not stopped and gone on")
        return self.resumed_us

    def close(self):
        self._qmp.shutdown()
        self._thread.join(10)
        self._qmp.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
