# SPDX-License-Identifier: MIT
"""Processor time: of a process, of its threads, of a child that has ended."""

import os
import subprocess
import time

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def process_s(pid):
    """Seconds of a process, user's and system's, threads that have ended included; to a hundredth.
    OSError if it has gone."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        # The name, in parentheses, may hold anything; state is the first field behind it.
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def thread_s(pid, tid):
    """Seconds of one thread, to the nanosecond where the kernel tells that (schedstat)."""
    try:
        with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9
    except FileNotFoundError:
        return process_s(f"{pid}/task/{tid}")


def threads_s(pid, tids):
    """Seconds of some threads together."""
    return sum(thread_s(pid, tid) for tid in tids)


def vcpu_threads(qmp):
    """The threads of a QEMU that run the guest."""
    return [cpu["thread-id"] for cpu in qmp.execute("query-cpus-fast")]


def wait_child(process, timeout=600):
    """Waits for a subprocess.Popen to end; its seconds, those of its own children that it has
    waited for included. subprocess.TimeoutExpired if it does not end."""
    deadline = time.monotonic() + timeout
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, timeout)
        time.sleep(0.002)
