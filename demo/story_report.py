# SPDX-License-Identifier: MIT
"""The demo's results: report.json, and tables for people."""

import json
import os
import platform
import statistics
import subprocess
import time

POLICIES = ("eager", "lazy", "ws", "qemu")
# Those that are measured if asked for.
FURTHER_POLICIES = ("paced", "auto")
# What others do, beside which the benchmarks put ours: bench/peers.py.
PEERS = ("reap", "faasnap", "lazy-background", "qemu10-mapped-ram")
NO_FAULTS = {"p50": 0, "p90": 0, "p99": 0, "max": 0}


def _first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True,
                              timeout=20).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def _source():
    """The commit that is measured, and whether files differ from it ("dirty"); None: no git."""
    git = ["git", "-C", os.path.dirname(os.path.abspath(__file__))]
    commit = _first_line(git + ["rev-parse", "HEAD"])
    changed = _first_line(git + ["status", "--porcelain", "--untracked-files=no"]) is not None
    return {"commit": commit, "dirty": changed if commit else None}


def _mount_of(path):
    """Filesystem type and device of the folder that images are in."""
    best = ("", "unknown", "unknown")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, right = line.split(" - ")
            point = left.split()[4]
            inside = os.path.join(point, "")
            if os.path.join(path, "").startswith(inside) and len(point) >= len(best[0]):
                best = (point, *right.split()[:2])
    return {"filesystem": best[1], "device": best[2]}


def _rotational(device):
    name = os.path.basename(os.path.realpath(device))
    try:
        with open(f"/sys/class/block/{name}/queue/rotational", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return None


def told(run):
    """What is said of a run when it has ended."""
    return (f"first instruction {run['start_ms']:.0f} ms, TTR {run['ttr_ms']:.0f} ms, the guest "
            f"says {run['guest_ttr_ms']:.0f} ms, {run['faults']} faults, "
            f"{run['integrity_errors']} errors")


def read_rate(path):
    """Bytes/s of one sequential read of a file that is not in the page cache."""
    began = time.monotonic()
    size = 0
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while count := file.readinto(buffer):
            size += count
    return size / (time.monotonic() - began)


def environment(machine, folder):
    """Where the figures come from."""
    disk = _mount_of(folder)
    disk["rotational"] = _rotational(disk["device"])
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "qemu": _first_line([machine.qemu, "--version"]),
        "accel": machine.accel,
        "ram_mb": machine.ram_mb,
        "vcpus": machine.vcpus,
        "disk": disk,
        **_source(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Report:
    """All runs so far; written to its file after each, so that an interrupted demo leaves one."""

    def __init__(self, path, facts):
        self.path = path
        self.content = {"format": 1, "environment": facts, "runs": [], "failed": []}
        self._extra = []  # of each run: what the tables show beyond report.json

    def add(self, run, prefetched_bytes=0):
        self.content["runs"].append(run)
        self._extra.append(prefetched_bytes)
        self.write()

    def add_failed(self, name, cell, reason):
        """A restore that failed; cell: what tells its runs from others, as in "runs"."""
        self.content["failed"].append({"name": name, "reason": reason, **cell})
        self.write()

    def write(self):
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.content, file, indent=1)
            file.write("\n")
        os.replace(self.path + ".new", self.path)

    def errors(self):
        return sum(run["integrity_errors"] for run in self.content["runs"])

    def _of(self, workload, storage, policy):
        return [(run, extra) for run, extra in zip(self.content["runs"], self._extra)
                if (run["workload"], run["storage"], run["policy"]) == (workload, storage, policy)]

    def rounds(self, workload, storage):
        """How many rounds there are of a workload from a storage."""
        return max((run["round"] for run in self.content["runs"]
                    if (run["workload"], run["storage"]) == (workload, storage)), default=0)

    def median(self, workload, storage, policy, field):
        """The median of a field over the rounds; None if there are none."""
        values = [run[field] for run, _ in self._of(workload, storage, policy)]
        return statistics.median(values) if values else None

    def table(self, workload, storages):
        """Lines of the table of one workload: medians over the rounds."""
        lines = [f"{'storage':8}{'policy':8}{'first':>10}{'TTR(90%,':>11}{'TTR(99%,':>11}"
                 f"{'the guest':>11}{'':>9}{'-- before the start --':>24}{'read':>9}{'wrong':>7}",
                 f"{'':16}{'instr.':>10}{'100 ms)':>11}{'100 ms)':>11}{'itself':>11}"
                 f"{'faults':>9}{'pages':>13}{'MB':>11}{'MB':>9}{'pages':>7}"]
        for storage in storages:
            for policy in POLICIES + FURTHER_POLICIES:
                runs = self._of(workload, storage, policy)
                if runs:
                    lines.append(self._row(storage, policy, runs))
        return lines

    @staticmethod
    def _row(storage, policy, runs):
        def middle(value):
            return statistics.median(value(run, extra) for run, extra in runs)

        def ttr_99(run):
            return next(row["ttr_ms"] for row in run["ttr_table"]
                        if abs(row["utilization"] - 0.99) < 1e-6 and row["window_ms"] == 100)
        return (f"{storage:8}{policy:8}"
                f"{middle(lambda run, _: run['start_ms']):7.0f} ms"
                f"{middle(lambda run, _: run['ttr_ms']):8.0f} ms"
                f"{middle(lambda run, _: ttr_99(run)):8.0f} ms"
                f"{middle(lambda run, _: run['guest_ttr_ms']):8.0f} ms"
                f"{middle(lambda run, _: run['faults']):9.0f}"
                f"{middle(lambda run, _: run['prefetched_pages']):13.0f}"
                f"{middle(lambda _, extra: extra) / 1e6:11.1f}"
                f"{middle(lambda run, _: run['read_bytes']) / 1e6:9.0f}"
                f"{sum(run['integrity_errors'] for run, _ in runs):7d}")

    def conclusions(self, workload, storages):
        """A sentence for each storage: how much sooner the working set makes the VM responsive."""
        lines = []
        for storage in storages:
            ws, eager, lazy, qemu = (self.median(workload, storage, policy, "ttr_ms")
                                     for policy in ("ws", "eager", "lazy", "qemu"))
            if not ws:
                continue
            parts = []
            if eager and lazy:
                parts.append(f"{ws / min(eager, lazy):.2f} of the better of eager and lazy")
            if qemu:
                parts.append(f"{qemu / ws:.1f} times sooner than QEMU itself")
            if parts:
                lines.append(f"{workload}, {storage}: working set first is responsive after "
                             f"{ws:.0f} ms: " + ", ".join(parts))
        return lines
