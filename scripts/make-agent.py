#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds code that is put into another process: one piece that runs at any address, as a C array.

    make-agent.py OUT.h NAME INCLUDE_DIR SCRIPT.ld SOURCE.c... -- COMPILER...

The linker script refuses data, the linker refuses what is not in the sources: nothing of a C
library, of a sanitizer or of the library around it can get in.
"""
import pathlib
import subprocess
import sys
import tempfile

FLAGS = ['-std=gnu17', '-O2', '-ffreestanding', '-fPIE', '-fno-stack-protector', '-fvisibility=hidden',
         '-fno-asynchronous-unwind-tables', '-fno-strict-aliasing', '-mgeneral-regs-only',
         '-fno-builtin', '-fcf-protection=none', '-fno-sanitize=all', '-Wall', '-Wextra', '-Werror',
         '-Wno-unused-command-line-argument']
LINK = ['-nostdlib', '-static', '-no-pie', '-Wl,--build-id=none', '-Wl,--oformat=binary',
        '-Wl,-e,0', '-Wl,-z,noexecstack']


def main():
    end = sys.argv.index('--')
    out, name, include, script, *sources = sys.argv[1:end]
    compiler = sys.argv[end + 1:]
    with tempfile.TemporaryDirectory() as directory:
        blob = pathlib.Path(directory) / 'blob'
        subprocess.run([*compiler, *FLAGS, *LINK, f'-Wl,-T,{script}', f'-I{include}', *sources,
                        '-o', blob],
                       check=True)
        code = blob.read_bytes()
    lines = [', '.join(f'0x{byte:02x}' for byte in code[i:i + 16]) for i in range(0, len(code), 16)]
    body = ',\n\t'.join(lines)
    pathlib.Path(out).write_text(
        f'/* Made by make-agent.py. */\nstatic const unsigned char {name}[{len(code)}] = {{\n\t{body}}};\n')


if __name__ == '__main__':
    main()
