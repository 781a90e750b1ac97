# SPDX-License-Identifier: MIT
"""Processor time: of a process, of its threads, of a child that has ended."""

import mmap
import os
import statistics
import subprocess
import time
from typing import NamedTuple

from .qmp import QmpClient

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Used(NamedTuple):
    """What a child has used. None if somebody else has waited for it."""
    cpu_s: float
    read_bytes: int  # from disks: what was in the page cache already does not count


def _stat(pid):
    """What /proc/PID/stat says behind the name, which may hold anything: from the state on."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def process_s(pid, children=False):
    """Seconds of a process, user's and system's, threads that have ended included; to a hundredth.
    With those of the children that it has waited for, if asked. OSError if it has gone."""
    return sum(map(int, _stat(pid)[11:15 if children else 13])) * _TICK_S


def thread_faults(pid, tids):
    """Page faults that needed no reading, of some threads together."""
    return sum(int(_stat(f"{pid}/task/{tid}")[7]) for tid in tids)


def fault_s(pages=8192, rounds=7):
    """What a page fault on memory that is there but not mapped takes this process: seconds of
    processor time, so that other work on the machine does not count.

    Shared memory, unmapped and written to again, page by page; less the same without faults. The
    median of some rounds."""
    def touch():
        begun = time.thread_time_ns()
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        return time.thread_time_ns() - begun

    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        touch()
        took = []
        for _ in range(rounds):
            memory.madvise(mmap.MADV_DONTNEED)
            took.append(touch() - touch())
    return statistics.median(took) / pages / 1e9


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


def qemu_other_s(pid, monitor):
    """Seconds of a QEMU's threads that do not run the guest, and of its children that have ended.
    `monitor` is a QMP socket of it that nobody else uses now."""
    with QmpClient(monitor) as qmp:
        return process_s(pid, children=True) - threads_s(pid, vcpu_threads(qmp))


def wait_child(process, timeout=600):
    """Waits for a subprocess.Popen to end; Used, its own children that it has waited for included.
    subprocess.TimeoutExpired if it does not end."""
    deadline = time.monotonic() + timeout
    while True:
        if process.returncode is not None:
            return Used(None, None)
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Used(usage.ru_utime + usage.ru_stime, usage.ru_inblock * 512)
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, timeout)
        time.sleep(0.002)
