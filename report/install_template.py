#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs the page of `rouse report`, if it could be made: install_template.py TEMPLATE FOLDER

For meson, which sets MESON_INSTALL_DESTDIR_PREFIX. FOLDER is relative to the prefix.
"""
import os
import pathlib
import shutil
import sys


def main():
    template = pathlib.Path(sys.argv[1])
    folder = pathlib.Path(os.environ['MESON_INSTALL_DESTDIR_PREFIX'], sys.argv[2])
    if not template.exists():
        print('the page of rouse report was not made: it is not installed', file=sys.stderr)
        return 0
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(template, folder / 'report.html')
    (folder / 'report.html').chmod(0o644)
    print(f'Installing {template} to {folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
