#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks which room includes which: the table in HACKING.md, as a test.

A room is a folder of lib/. Inside lib/ a header of ours is included as "room/name.h" (so that the
room is visible in every include), libraries as <name.h>. tool/ knows <rouse.h> only.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

MAY_USE = {
    'base': set(),
    'source': {'base'},
    'image': {'base', 'source'},  # the reader reads through a source
    'target': {'base'},
    'wset': {'base', 'target'},
    'ttr': {'base'},
    'sink': {'base'},
    # QEMU's sinks speak its wire format: they live here. One looks into QEMU's process.
    'vmm': {'base', 'sink', 'target'},
    'engine': {'base', 'image', 'source', 'wset', 'sink'},
    'api': {'base', 'source', 'image', 'wset', 'ttr', 'sink', 'vmm', 'engine',
            'target'},
}

# Where a library may be met; libc and the kernel's headers may be anywhere.
LIBRARIES = {
    'liburing.h': {'source', 'vmm', 'api'},  # api: rouse_doctor() probes for it
    'lz4.h': {'image'},
    'lz4hc.h': {'image'},
    'zstd.h': {'image'},
    'xxhash.h': {'image', 'wset', 'api'},  # api: verify checks what readers never read
    'jansson.h': {'vmm', 'api'},
}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def check_lib(path, room):
    for kind, name in INCLUDE.findall(path.read_text()):
        if kind == '<':
            rooms = LIBRARIES.get(name)
            if rooms is not None and room not in rooms:
                yield f'<{name}> belongs to {", ".join(sorted(rooms))}'
            continue
        used = name.split('/')[0]
        if '/' not in name or '..' in name or used not in MAY_USE:
            yield f'"{name}": write a header of ours as "room/name.h"'
        elif used != room and used not in MAY_USE[room]:
            yield f'"{name}": {room} may use {", ".join(sorted(MAY_USE[room])) or "nothing"}'


def check_tool(path):
    for kind, name in INCLUDE.findall(path.read_text()):
        if kind == '"' and not (path.parent / name).exists():
            yield f'"{name}": the tool uses <rouse.h> and its own headers only'
        if kind == '<' and (name in LIBRARIES and name != 'jansson.h' or
                            (ROOT / 'lib' / name).exists()):
            yield f'<{name}>: the tool uses <rouse.h> only'


def check_header(path):
    for kind, name in INCLUDE.findall(path.read_text()):
        if kind == '"' or name not in ('stdbool.h', 'stddef.h', 'stdint.h'):
            yield f'{name}: the public header needs C\'s own types only'


def main():
    wrong = []
    for path in sorted((ROOT / 'lib').rglob('*.[ch]')):
        room = path.relative_to(ROOT / 'lib').parts[0]
        found = check_lib(path, room) if room in MAY_USE else [f'no room is called {room}']
        wrong += [f'{path.relative_to(ROOT)}: {what}' for what in found]
    for path in sorted((ROOT / 'tool').rglob('*.[ch]')):
        wrong += [f'{path.relative_to(ROOT)}: {what}' for what in check_tool(path)]
    for path in sorted((ROOT / 'include').rglob('*.h')):
        wrong += [f'{path.relative_to(ROOT)}: {what}' for what in check_header(path)]
    if re.search(r'\binternal_dep\b', (ROOT / 'tool/meson.build').read_text()):
        wrong.append('tool/meson.build: the tool links the public library only')
    print('\n'.join(wrong) or 'every room keeps to its neighbours')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
