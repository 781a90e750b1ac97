# SPDX-License-Identifier: MIT
"""The truth: which pages a guest touches, all of them, as bench/truth_plugin.c sees it inside QEMU.

    truth = Truth(path, ram_mb)                       # before QEMU starts
    QEMU with *truth.options("build")
    truth.learn_map(qmp)                              # once; again if memory was plugged
    truth.arm()                                       # while the VM is stopped
    ...
    truth.disarm()
    for touch in truth.touches(): ...

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
from .qmp import QmpClient, QmpError

READ, WRITTEN, EXECUTED = 1, 2, 4

_PAGE = 4096
_HEADER = struct.Struct("=8sIIQIIQQI")
_RANGE = struct.Struct("=IIQQQ")
_ENTRY = struct.Struct("=QIHH")
_ENABLED_AT, _TOUCHED_AT, _RANGES_AT = 12, 28, 64
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
    us: int      # of CLOCK_MONOTONIC
    order: int   # 0 is the first
    vcpu: int
    kinds: int   # READ | WRITTEN | EXECUTED, until now


class _Section(NamedTuple):
    """A part of the guest's address space that is memory."""
    start: int
    bytes: int
    block: str
    offset: int  # in the block


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
            found.append(_Section(start, int(match[2], 16) + 1 - start, names[0],
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
        size = _PAGE + self.pages * _ENTRY.size
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.truncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        _HEADER.pack_into(self._map, 0, b"ROUSETRU", 1, 0, self.pages, 0, 0, 0, 0, 0)

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
        sections = _sections(qmp, blocks)
        bases = _host_bases(qmp, sections)
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
        self._map[_PAGE:] = bytes(len(self._map) - _PAGE)
        struct.pack_into("=I", self._map, _ENABLED_AT, 1)

    def disarm(self):
        """Ends the notes; what there is can be read."""
        struct.pack_into("=I", self._map, _ENABLED_AT, 0)

    def touches(self):
        """List of Touch, in the order of first touch."""
        found = []
        block_ends = [first for first, _ in self._names[1:]] + [self.pages]
        for (first, name), end in zip(self._names, block_ends):
            notes = memoryview(self._map)[_PAGE + first * _ENTRY.size:_PAGE + end * _ENTRY.size]
            for page, (ns, order, vcpu, kinds) in enumerate(_ENTRY.iter_unpack(notes)):
                if ns:
                    found.append(Touch(name, page, ns // 1000, order, vcpu, kinds))
            notes.release()
        return sorted(found, key=lambda touch: touch.order)

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
