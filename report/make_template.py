#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the page of `rouse report` without data: one HTML file with all styles and scripts in it.

    make_template.py --npm NPM --work DIRECTORY [--required] SOURCE_DIRECTORY OUT

npm fetches what package-lock.json names, checks it against the hashes there, and runs none of its
scripts. Where that fails, OUT is not made and, without --required, that is only told: the rest of
Rouse needs no page. ninja tries again the next time.
"""
import argparse
import base64
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys

LIBRARIES = ('d3/dist/d3.min.js', '@observablehq/plot/dist/plot.umd.min.js')
SCRIPTS = ('data.js', 'dom.js', 'runs.js', 'stalls.js', 'memory.js', 'estimators.js', 'page.js')
# Dependencies of a command line tool within d3-dsv, which is no part of what d3 bundles.
NOT_BUNDLED = {'commander', 'iconv-lite', 'rw', 'safer-buffer'}
LIMIT_S = 180


class Failure(Exception):
    """A sentence for people."""


def fetch(npm, source, work):
    """node_modules, as the lock file says."""
    work.mkdir(parents=True, exist_ok=True)
    done_for = work / 'fetched.json'  # the lock file that node_modules is of
    if done_for.exists() and done_for.read_bytes() == (source / 'package-lock.json').read_bytes():
        return work / 'node_modules'
    for name in ('package.json', 'package-lock.json'):
        shutil.copyfile(source / name, work / name)
    command = [npm, 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier',
               '--loglevel=error', '--fetch-retries=2', '--fetch-retry-mintimeout=1000',
               '--fetch-timeout=30000', f'--cache={work / "cache"}']
    try:
        done = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise Failure(f'npm: {err}') from None
    finally:
        shutil.rmtree(work / 'cache', ignore_errors=True)
    if done.returncode != 0:
        raise Failure('npm: ' + (' '.join(done.stderr.split()) or 'failed')[:400])
    shutil.copyfile(source / 'package-lock.json', done_for)
    return work / 'node_modules'


def licences(modules):
    """Copyright and terms of all that is bundled, equal terms once."""
    terms = {}
    for path in sorted(modules.glob('*/LICENSE*')) + sorted(modules.glob('@*/*/LICENSE*')):
        name = str(path.parent.relative_to(modules))
        if name in NOT_BUNDLED:
            continue
        lines = path.read_text(encoding='utf-8').splitlines()
        owners = [line.strip() for line in lines if line.startswith('Copyright')]
        text = '\n'.join(line for line in lines if not line.startswith('Copyright')).strip()
        terms.setdefault(text, []).append(f'{name}: {"; ".join(owners)}')
    if not terms:
        raise Failure(f'{modules} has no licences')
    return '\n\n'.join('\n'.join(names) + '\n\n' + text for text, names in terms.items())


def script(text):
    """A script element, and the hash by which the page's policy allows it."""
    if re.search(r'</script|<!--', text, re.IGNORECASE):
        raise Failure('a script cannot stand within a page')
    # Browsers hash what stands between the tags.
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f'<script>{text}</script>', f"'sha256-{digest}'"


def make(source, modules):
    comment = '/*\n' + licences(modules).replace('*/', '* /') + '\n*/\n'
    texts = [(modules / name).read_text(encoding='utf-8') for name in LIBRARIES]
    texts[0] = comment + texts[0]
    texts.append('\n'.join((source / name).read_text(encoding='utf-8') for name in SCRIPTS))
    elements, hashes = zip(*map(script, texts))
    page = (source / 'page.html').read_text(encoding='utf-8')
    parts = {
        '@POLICY@': f"default-src 'none'; script-src {' '.join(hashes)}; "
                    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        '@STYLE@': (source / 'page.css').read_text(encoding='utf-8'),
        '@SCRIPTS@': '\n'.join(elements),
    }
    for mark, text in parts.items():
        if page.count(mark) != 1:
            raise Failure(f'page.html must have {mark} once')
        page = page.replace(mark, text)
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n', maxsplit=1)[0])
    parser.add_argument('--npm', required=True)
    parser.add_argument('--work', required=True, type=pathlib.Path)
    parser.add_argument('--required', action='store_true')
    parser.add_argument('source', type=pathlib.Path)
    parser.add_argument('out', type=pathlib.Path)
    args = parser.parse_args()
    try:
        page = make(args.source, fetch(args.npm, args.source.resolve(), args.work.resolve()))
    except (Failure, OSError) as err:
        args.out.unlink(missing_ok=True)
        print(f'the page of rouse report was not made: {err}', file=sys.stderr)
        return 1 if args.required else 0
    new = args.out.with_suffix('.new')
    new.write_text(page, encoding='utf-8')
    new.replace(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
