# SPDX-License-Identifier: MIT
"""Progress: a bar that is redrawn on a terminal, plain lines when the output is piped."""

import os
import shutil
import sys
import time

BAR_CELLS = 24
LINE_SECONDS = 5  # in a pipe, progress is told this seldom


class Terminal:
    """Prints lines, and below them the progress of what is being done."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stdout
        self.is_terminal = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._last = 0.0

    def _clear(self):
        if self._drawn:
            self._stream.write("\r\033[K")
            self._drawn = False

    def line(self, text=""):
        """A line that stays."""
        self._clear()
        self._stream.write(text + "\n")
        self._stream.flush()
        self._last = time.monotonic()

    def bold(self, text):
        self.line(f"\033[1m{text}\033[0m" if self.is_terminal else text)

    def progress(self, text, done, total):
        """How far it is: a bar, or now and then a line."""
        share = min(1.0, done / total) if total else 0.0
        if self.is_terminal:
            full = int(share * BAR_CELLS)
            bar = "#" * full + "-" * (BAR_CELLS - full)
            width = shutil.get_terminal_size().columns
            self._clear()
            self._stream.write(f"[{bar}] {share:4.0%}  {text}"[:width - 1])
            self._drawn = True
        elif time.monotonic() - self._last > LINE_SECONDS:
            self._last = time.monotonic()
            self._stream.write(f"  {share:4.0%}  {text}\n")
        self._stream.flush()
