# SPDX-License-Identifier: MIT
"""Which of a guest's page tables lead to given pages: x86's 4-level paging, as Linux uses it.

    CR3 -> 512 entries (level 4) -> 512 (3) -> 512 (2) -> 512 (1) -> page

An entry is a physical address and flags: bit 0 present, bit 7 (levels 3 and 2) a large page. The
tables of processes that are not running now are found by the half that all of a Linux's top tables
share: the kernel's.
"""

import re
import struct
from typing import NamedTuple

_PAGE = 4096
_HALF = _PAGE // 2
_ADDRESS = 0x000f_ffff_ffff_f000
_PRESENT, _SET_BY_CPU, _LARGE = 1, 0x60, 0x80
_SCAN_BYTES = 4 << 20


class Section(NamedTuple):
    """A part of the guest's address space that is memory."""
    start: int
    bytes: int
    block: str
    offset: int  # in the block


def roots(registers):
    """The top tables' addresses in `info registers -a`; none if a CPU does not page with 4 levels."""
    found = set()
    for cpu in registers.split("CPU#")[1:]:
        values = {name: int(value, 16)
                  for name, value in re.findall(r"\b(CR0|CR3|CR4|EFER)=\s*([0-9a-f]+)", cpu)}
        long_mode = values.get("EFER", 0) & 0x400
        if not values.get("CR0", 0) >> 31 or not long_mode or values["CR4"] & 0x1000:
            return set()
        found.add(values["CR3"] & _ADDRESS)
    return found


def descriptor_tables(registers):
    """The virtual pages, in `info registers -a`, of what a CPU reads for each interrupt: IDT, GDT and
    task state."""
    return {int(base, 16) >> 12 & (1 << 36) - 1
            for base in re.findall(r"^(?:GDT|IDT|TR )=\s*(?:[0-9a-f]{4} )?([0-9a-f]{8,16})\b",
                                   registers, re.MULTILINE)}


class GuestMemory:
    """The memory of a guest, read from outside its QEMU. Use it with `with`."""

    def __init__(self, pid, sections, bases):
        """bases: {block: where it begins in QEMU's memory}"""
        self._file = open(f"/proc/{pid}/mem", "rb", buffering=0)
        self.sections, self._bases = sections, bases

    def place(self, address):
        """(block, page in it) of a physical address; None if it is no memory."""
        for section in self.sections:
            offset = address - section.start
            if 0 <= offset < section.bytes:
                return section.block, (section.offset + offset) // _PAGE
        return None

    def read(self, address, size=_PAGE):
        """Bytes at a physical address; b"" if it is no memory."""
        for section in self.sections:
            offset = address - section.start
            if 0 <= offset < section.bytes and section.block in self._bases:
                self._file.seek(self._bases[section.block] + section.offset + offset)
                return self._file.read(min(size, section.bytes - offset))
        return b""

    def pages(self):
        """(address, content) of all pages."""
        for section in self.sections:
            for at in range(section.start, section.start + section.bytes, _SCAN_BYTES):
                chunk = self.read(at, _SCAN_BYTES)
                for offset in range(0, len(chunk), _PAGE):
                    yield at + offset, chunk[offset:offset + _PAGE]

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class PageTables:
    """All page tables of a guest that is stopped."""

    def __init__(self, memory, found):
        """found: the addresses of the top tables that its CPUs use now."""
        self._memory = memory
        self._tables = {}
        self._paths = {}
        halves = {self._upper_half(memory.read(root)) for root in found}
        # The place of an entry in use, and its bytes but for the first, which has the flags.
        marks = {(place, half[place + 1:place + 8]) for half in halves
                 for place in [next((i for i in range(0, _HALF, 8) if any(half[i:i + 8])), None)]
                 if place is not None}
        self.roots = sorted({*found, *(
            address for address, page in memory.pages()
            if any(page[_HALF + place + 1:_HALF + place + 8] == mark for place, mark in marks)
            and self._upper_half(page) in halves)})

    @staticmethod
    def _upper_half(table):
        """The upper half's entries, without the bits that the processor sets."""
        return b"".join(struct.pack("<Q", entry & ~_SET_BY_CPU)
                        for (entry,) in struct.iter_unpack("<Q", table[_HALF:]))

    def _entries(self, table):
        if table not in self._tables:
            content = self._memory.read(table)
            self._tables[table] = struct.unpack("<512Q", content) if len(content) == _PAGE else ()
        return self._tables[table]

    def _path(self, root, region):
        """The tables that lead to a region of 2 MiB, and the entry for it, or for all of it."""
        key = root, region
        if key not in self._paths:
            table, path, entry = root, [], 0
            for shift in (18, 9, 0):
                entries = self._entries(table)
                entry = entries[region >> shift & 511] if entries else 0
                path.append(table)
                if not entry & _PRESENT or (entry & _LARGE and shift < 18):
                    break
                table = entry & _ADDRESS
            self._paths[key] = path, entry, len(path)
        return self._paths[key]

    def walk(self, root, virtual_page):
        """(addresses of the tables that are read, address of the page); None: not mapped."""
        path, entry, level = self._path(root, virtual_page >> 9)
        if not entry & _PRESENT:
            return None
        if level == 3 and not entry & _LARGE:
            last = entry & _ADDRESS
            entries = self._entries(last)
            entry = entries[virtual_page & 511] if entries else 0
            return (path + [last], entry & _ADDRESS) if entry & _PRESENT else None
        pages = 1 << 9 * (4 - level)
        return path, (entry & _ADDRESS & -pages * _PAGE) + virtual_page % pages * _PAGE

    def resolve(self, virtual_pages, ns):
        """Pairs for walked(), of pages of the kernel's."""
        for virtual_page in virtual_pages:
            way = self.walk(self.roots[0], virtual_page)
            place = way and self._memory.place(way[1])
            if place:
                yield virtual_page, *place, ns

    def walked(self, pairs):
        """({(block, page) of a table: ns when it was first needed}, how many pairs led nowhere).

        pairs: (virtual page, block, page, ns) of pages that were touched there
        """
        found, unresolved = {}, 0
        for virtual_page, block, page, ns in pairs:
            # The kernel's half is the same in all of them.
            kernel = virtual_page >> 35
            for root in self.roots:
                way = self.walk(root, virtual_page)
                if way and self._memory.place(way[1]) == (block, page):
                    for table in way[0][1:] if kernel else way[0]:
                        place = self._memory.place(table)
                        found[place] = min(found.get(place, ns), ns)
                    break
            else:
                unresolved += 1
        return found, unresolved
