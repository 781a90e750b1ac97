# SPDX-License-Identifier: MIT
"""Which pages of a RAM block are not zero, by QEMU's migration file of the VM.

    file     = "QEVM" version(4) section* ...          (big endian)
    section  = 07 length(4) bytes                      configuration
             | 01 id(4) length(1) name instance(4) version(4) records     the first of "ram"
             | 02 id(4) records | 03 id(4) records     further ones
             | 7e id(4)                                the end of each
    records  = record* ending with a word that has EOS
    record   = word(8): address | flags, then by the flags a list of blocks, or
               [length(1) name, unless CONTINUE] and 1 byte (ZERO) or a page (PAGE)

The format is docs/devel/migration.rst and migration/ram.c of QEMU; what `rouse convert` writes has
no other records than these.
"""

import mmap
import struct

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
PAGE_BYTES = 4096


class _Reader:
    """Takes numbers and names off the front of bytes."""

    def __init__(self, data, at):
        self.data, self.at = data, at

    def number(self, form):
        (value,) = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def name(self):
        length = self.number("B")
        self.at += length
        return bytes(self.data[self.at - length:self.at])


def _records(reader, block, pages):
    current = None
    while True:
        word = reader.number("Q")
        address, flags = word & -PAGE_BYTES, word & (PAGE_BYTES - 1)
        if flags & EOS:
            return
        if flags & MEM_SIZE:
            while address > 0:
                reader.name()
                address -= reader.number("Q")
            continue
        if not flags & (ZERO | PAGE):
            raise RuntimeError(f"a record with flags {flags:#x} is not known")
        if not flags & CONTINUE:
            current = reader.name()
        reader.at += 1 if flags & ZERO else PAGE_BYTES
        if flags & PAGE and current == block:
            pages.add(address // PAGE_BYTES)


def stored_pages(path, block="pc.ram"):
    """The set of their numbers in the block."""
    pages = set()
    with open(path, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data, 8)
        while True:
            kind = reader.number("B")
            if kind == 0x07:
                length = reader.number("I")
                reader.at += length
            elif kind == 0x7e:
                reader.at += 4
            elif kind in (1, 2, 3):
                reader.at += 4
                if kind == 1:
                    name = reader.name()
                    reader.at += 8
                    if name != b"ram":
                        return pages
                _records(reader, block.encode(), pages)
            else:
                return pages
