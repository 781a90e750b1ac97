# SPDX-License-Identifier: MIT
"""The line to the driver inside the guest. demo/guest/main.c has the commands and answers."""

import collections
import queue
import socket
import threading
import time
from typing import NamedTuple

from .unix_socket import connect


def now_us():
    """Microseconds of CLOCK_MONOTONIC: the clock of everything that is measured on the host."""
    return time.monotonic_ns() // 1000


class Record(NamedTuple):
    """One request inside the guest. Start and end are of its clock, arrival of the host's."""
    cpu: int
    seq: int
    start_us: int
    end_us: int
    arrival_us: int


Verified = collections.namedtuple("Verified", "pages errors")
Served = collections.namedtuple("Served", "us requests")


class LinkError(Exception):
    """The guest answered with an error, or not in time."""


class Link:
    """Connects to QEMU's socket and collects what the guest says, in a thread of its own.

    records         list of Record, in the order of arrival; only ever appended to
    dropped         how many records the guest could not send
    """

    def __init__(self, path, timeout=30.0, still_there=None):
        """Waits up to `timeout` seconds for the socket at `path` to be there, and no longer than
        `still_there`, if given, returns true: whether who should make it still runs."""
        self.records = []
        self.dropped = 0
        self._answers = queue.Queue()
        self._closing = False
        try:
            self._socket = connect(path, timeout, still_there)
        except (FileNotFoundError, ConnectionRefusedError):
            raise LinkError(f"no guest at {path}") from None
        self._thread = threading.Thread(target=self._read, name="link", daemon=True)
        self._thread.start()

    def _read(self):
        rest = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._answers.put(None)
                return
            arrival = now_us()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line.decode("ascii", "replace").strip(), arrival)

    def _take(self, line, arrival):
        words = line.split()
        if words and words[0] in ("r", "dropped"):
            # A line that was cut when a connection began or ended is not a record.
            try:
                if words[0] == "dropped":
                    self.dropped += int(words[2])
                elif len(words) == 5:
                    self.records.append(Record(*map(int, words[1:]), arrival))
            except (ValueError, IndexError):
                pass
        elif words:
            self._answers.put(line)

    def send(self, line):
        """Sends a command and does not wait."""
        try:
            self._socket.sendall(line.encode() + b"\n")
        except OSError as err:
            raise LinkError(f"{line}: {err}") from err

    def wait(self, word, timeout=60.0, on_line=None):
        """Waits for an answer that begins with `word`; returns its words. Other lines go to
        `on_line`; an answer that begins with "error" is raised."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise LinkError(f"the guest did not say {word!r} within {timeout:.0f} s") from None
            if line is None:
                self._answers.put(None)
                raise LinkError(f"the line to the guest ended while waiting for {word!r}")
            words = line.split()
            if words[0] == word:
                return words
            if words[0] == "error":
                raise LinkError(line)
            if on_line:
                on_line(words)

    def command(self, line, word, timeout=60.0, on_line=None):
        """Sends a command and waits for the answer that begins with `word`."""
        self.send(line)
        return self.wait(word, timeout, on_line)

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
        self._thread.join(5)
