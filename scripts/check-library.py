#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks what the library's objects say about it (invariant 8), in a build directory:

- it calls nothing that prints, ends the process or changes the process for others;
- it has no mutable globals, static ones included;
- its public library exports what <rouse.h> declares, all of it, and nothing else.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# _exit is not here: a child between fork and exec has nothing else to end with.
FORBIDDEN = {
    'prints': {'printf', 'vprintf', 'puts', 'putchar', 'putc', 'perror', 'psignal', 'syslog',
               'stdout', 'stderr', 'warn', 'warnx', '__printf_chk', '__vprintf_chk'},
    'ends the process': {'exit', 'quick_exit', 'abort', 'err', 'errx', '__assert_fail'},
    'changes the whole process': {'signal', 'sigaction', 'chdir', 'fchdir', 'umask', 'setenv',
                                  'putenv', 'unsetenv', 'clearenv', 'setlocale', 'atexit',
                                  'setrlimit', 'srand', 'rand', 'strtok'},
}
MUTABLE = ('.data', '.bss', '.tdata', '.tbss', '*COM*')


def output_of(*command):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True,
                          text=True).stdout


def check_objects(archive):
    name = ''
    for line in output_of('objdump', '-t', archive).splitlines():
        if line.endswith('file format elf64-x86-64'):
            name = line.split(':')[0].replace('.c.o', '.c').replace('_', '/', 1)
            continue
        # value, seven flag characters, section, size, [visibility,] symbol
        match = re.match(r'^[0-9a-f]{16} (.{7}) (\S+)\s+[0-9a-f]{16}(?: \.hidden)? (\S+)$', line)
        if not match:
            continue
        flags, section, symbol = match.groups()
        if section == '*UND*':
            for why, symbols in FORBIDDEN.items():
                if symbol in symbols:
                    yield f'{name}: {symbol}: the library never {why}'
        elif 'O' in flags and (section in MUTABLE or
                               section.startswith(tuple(s + '.' for s in MUTABLE)) and
                               not section.startswith('.data.rel.ro')):
            yield f'{name}: {symbol}: a mutable global'


def check_exports(library):
    text = (ROOT / 'include/rouse.h').read_text()
    text = re.sub(r'/\*.*?\*/', '', text, flags=re.DOTALL)
    declared = set(re.findall(r'^ROUSE_PUBLIC[^;]*?\b(rouse_\w+)(?:\(|\[|;)', text, re.MULTILINE))
    exported = {line.split()[-1].split('@')[0]
                for line in output_of('nm', '-D', '--defined-only', library).splitlines()}
    for symbol in sorted(exported - declared):
        yield f'{library.name} exports {symbol}, which <rouse.h> does not declare'
    for symbol in sorted(declared - exported):
        yield f'<rouse.h> declares {symbol}, which {library.name} does not export'


def main():
    build = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'build')
    archive = build / 'lib/librouse-internal.a'
    wrong = [*check_objects(archive), *check_exports(build / 'lib/librouse.so')]
    print('\n'.join(wrong) or 'the library keeps to itself')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
