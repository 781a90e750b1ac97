# SPDX-License-Identifier: MIT
"""A small client of QEMU's machine protocol (QMP)."""

import contextlib
import json
import socket
import time

from .unix_socket import connect


class QmpError(Exception):
    """QEMU answered with an error, or went away."""


class QmpClient:
    """One connection. Events are kept, in order, in `events` (each a dict, with "arrival_us")."""

    def __init__(self, path, timeout=30.0):
        """Connects to the socket at `path`; waits up to `timeout` seconds for it to be there."""
        self.events = []
        self._buffer = b""
        try:
            self._socket = connect(path, timeout)
        except (FileNotFoundError, ConnectionRefusedError) as err:
            raise QmpError(f"no QMP at {path}: {err}") from err
        self._next_message(timeout)  # the greeting
        self.execute("qmp_capabilities")

    def _next_message(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("QMP: no message in time")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except socket.timeout as err:
                raise TimeoutError("QMP: no message in time") from err
            except ConnectionError as err:
                raise QmpError(f"QMP: {err}") from err
            if not data:
                raise QmpError("QMP: QEMU has gone")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message = json.loads(line)
        if "event" in message:
            message["arrival_us"] = time.monotonic_ns() // 1000
            self.events.append(message)
        return message

    def execute(self, command, timeout=60.0, **arguments):
        """Runs a command; its arguments' names are given with _ for -. Returns what it returns."""
        request = {"execute": command}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value
                                    for key, value in arguments.items()}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as err:
            raise QmpError(f"{command}: {err}") from err
        while True:
            message = self._next_message(timeout)
            if "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def wait_event(self, name, timeout=60.0):
        """Waits for an event, one that came earlier included; returns it and forgets it."""
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(index)
            self._next_message(max(0.0, deadline - time.monotonic()))

    def wait_migration(self, timeout=120.0):
        """Waits for the end of a migration, in or out; returns query-migrate's answer."""
        deadline = time.monotonic() + timeout
        while True:
            # A QEMU that loads a file answers when it has: 8 GiB of a slow disk take 73 s.
            answer = self.execute("query-migrate", timeout=max(60, deadline - time.monotonic()))
            if answer.get("status") in ("completed", "failed", "cancelled"):
                return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"migration: still {answer.get('status')}")
            time.sleep(0.01)

    def shutdown(self):
        """Ends the connection; another thread that waits for a message is told that QEMU went."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
