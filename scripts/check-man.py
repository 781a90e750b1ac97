#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that the manual pages and the tool say the same: check-man.py ROUSE MAN_DIRECTORY

- every command of `rouse --help` has a page and stands in rouse(1), and the other way round;
- every option that `rouse CMD --help` prints stands in the page, with the same letter, and the
  other way round;
- every option in a page's examples is one of that command.
"""
import pathlib
import re
import subprocess
import sys

SECTIONS = ('NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'EXAMPLES', 'SEE ALSO')


def help_of(rouse, *command):
    return subprocess.run([rouse, *command, '--help'], check=True, capture_output=True,
                          text=True).stdout


def options_of_help(text):
    """{'--codec': '', '--json': '-j', ...}"""
    text = text.split('\nOptions:\n')[-1]
    found = re.findall(r'^  (?:(-\w), |    )(--[a-z-]+)', text, re.MULTILINE)
    return {name: letter for letter, name in found}


def sections_of(page):
    parts = re.split(r'^# (.+)$', page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def terms_of(section):
    """The lines that begin a definition, without their bold and underlined marks."""
    return [re.sub(r'[*_]', '', line) for line in section.splitlines() if line.startswith('*')]


def options_of_page(sections):
    """As options_of_help(). One definition may be of several options."""
    return {name: letter for term in terms_of(sections.get('OPTIONS', ''))
            for letter, name in re.findall(r'(?:(?<!\S)(-\w), )?(?<!\S)(--[a-z-]+)', term)}


def example_options(page):
    """(command, option) of each use of rouse in a literal block."""
    for block in re.findall(r'^```\n(.*?)^```', page, re.DOTALL | re.MULTILINE):
        for command, words in re.findall(r'\brouse ([a-z]+)([^\n&>"]*)', block):
            for option in re.findall(r'(?<=\s)--[a-z-]+|(?<=\s)-[a-z]\b', words.split(' -- ')[0]):
                yield command, option


def compare(what, tool, page):
    for name in sorted(tool.keys() - page.keys()):
        yield f'{what}: the tool has {name}, the page has not'
    for name in sorted(page.keys() - tool.keys()):
        yield f'{what}: the page has {name}, the tool has not'
    for name in sorted(tool.keys() & page.keys()):
        if tool[name] != page[name]:
            yield f'{what}: {name} is "{tool[name]}" in the tool, "{page[name]}" in the page'


def check_examples(what, page, known):
    for command, option in example_options(page):
        options = known.get(command, {})
        if option not in options and option not in options.values():
            yield f'{what}: an example has {option}, which rouse {command} has not'


def check_main(rouse, page, commands):
    sections = sections_of(page)
    listed = re.findall(r'^\*rouse-([a-z]+)\*\(1\)$', sections.get('COMMANDS', ''), re.MULTILINE)
    options = re.findall(r'(?<=[\s\'])--[a-z]+', help_of(rouse))
    yield from compare('rouse.1', dict.fromkeys(commands), dict.fromkeys(listed))
    yield from compare('rouse.1', dict.fromkeys(options),
                       dict.fromkeys(options_of_page(sections)))


def main():
    rouse, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    commands = re.findall(r'^  ([a-z]+) +\S', help_of(rouse), re.MULTILINE)
    known = {command: options_of_help(help_of(rouse, command)) for command in commands}
    pages = {path.name: path.read_text() for path in directory.glob('*.1.scd')}
    expected = {'rouse.1.scd', *(f'rouse-{command}.1.scd' for command in commands)}
    wrong = [f'{name}: is missing' for name in sorted(expected - pages.keys())]
    wrong += [f'{name}: is of no command' for name in sorted(pages.keys() - expected)]
    if not commands or not all(known.values()):
        wrong.append('the help could not be understood')
    for name, page in sorted(pages.items()):
        wrong += [f'{name}: has no section {section}' for section in SECTIONS
                  if section not in sections_of(page)]
        wrong += check_examples(name, page, known)
    for command in commands:
        page = pages.get(f'rouse-{command}.1.scd', '')
        wrong += compare(f'rouse-{command}.1', known[command], options_of_page(sections_of(page)))
    wrong += check_main(rouse, pages.get('rouse.1.scd', ''), commands)
    print('\n'.join(wrong) or 'the manual pages and the tool say the same')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
