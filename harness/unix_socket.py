# SPDX-License-Identifier: MIT
"""Connecting to a socket that a program makes when it has started."""

import socket
import time


def connect(path, timeout, still_there=None):
    """A connection to the socket at `path`, for which it waits up to `timeout` seconds, and no longer
    than `still_there`, if given, returns true: whether who should make it still runs. OSError."""
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if time.monotonic() > deadline or (still_there and not still_there()):
                raise
            time.sleep(0.002)
        except BaseException:
            sock.close()
            raise
