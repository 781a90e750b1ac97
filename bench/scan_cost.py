# SPDX-License-Identifier: MIT
"""What it costs a running guest to be scanned or traced: spans without and with it, in turns.

One guest, spans of some seconds in the order A B B A (harness/paired.py). During A nothing happens,
during B the tool watches. The guest counts its requests all the time; what is asked is how many
it serves in a second when it never rests ("busy"), or how long one takes when one begins every few
milliseconds ("paced": the demo's pace).
"""

import statistics
import subprocess
import time
from typing import NamedTuple

from harness import cputime
from harness.paired import abba, control_pairs, median_interval, pair_up
from harness.qmp import QmpClient
from harness.saving import ToolError

PACED_US, BUSY_US = 5000, 1
LOADS = {"busy": BUSY_US, "paced": PACED_US}
BETWEEN_S = 0.4      # between two spans: what a watch leaves behind comes back (entries of tables)
STEADY_AFTER_S = 1   # a QEMU without KVM has translated its guest's code again by then

# {seconds} is the length of a span. A scan has its default period of a second.
WAYS = {
    "nothing": None,
    "scan": ("scan", "--count", "{seconds}"),
    "trace": ("trace", "--seconds", "{seconds}"),
}


class Sample(NamedTuple):
    """Counters at one moment. guest_us: of the guest's clock; seconds: of processor time; faults:
    of the threads that run the guest."""
    guest_us: int
    requests: int
    wall_s: float
    qemu_s: float
    vcpus_s: float
    faults: int


class Span(NamedTuple):
    """What one span gave.

    work, steady_work  requests a second (busy), or microseconds of one (paced); the second one
                       only of the time after STEADY_AFTER_S
    per_cpu_s          requests in a second of processor time of the threads that run the guest
    tool, vcpus, qemu  processor time of the tool, of the threads that run the guest, and of QEMU's
                       others: seconds of it in each second
    faults             page faults a second of the threads that run the guest
    """
    work: float
    steady_work: float
    per_cpu_s: float
    seconds: float
    tool: float
    vcpus: float
    qemu: float
    faults: float


class Watched:
    """A guest that is measured."""

    def __init__(self, tool, guest):
        self.tool, self.guest = tool, guest
        self.pid = guest.run.qemu_pid()
        with QmpClient(guest.run.qmp) as qmp:  # and no longer: the tool needs the socket
            self.vcpu_threads = cputime.vcpu_threads(qmp)
        self.load = None

    def set_load(self, load):
        self.load = load
        self.guest.set_quiet(load == "busy")
        self.guest.set_period(LOADS[load])

    def sample(self):
        served = self.guest.served()
        vcpus_s = cputime.threads_s(self.pid, self.vcpu_threads)
        return Sample(served.us, served.requests, time.monotonic(),
                      cputime.process_s(self.pid) - vcpus_s, vcpus_s,
                      cputime.thread_faults(self.pid, self.vcpu_threads))

    def work(self, begin, end):
        """Between two samples; see Span."""
        if self.load == "busy":
            return (end.requests - begin.requests) / (end.guest_us - begin.guest_us) * 1e6
        lengths = [record.end_us - record.start_us for record in list(self.guest.link.records)
                   if begin.guest_us <= record.start_us and record.end_us <= end.guest_us]
        return statistics.mean(lengths) if lengths else 0

    def _begin(self, command):
        if command is None:
            return None
        return subprocess.Popen([self.tool.path, *command, "--qmp", self.guest.run.qmp, "-q"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    @staticmethod
    def _end(process, until):
        """Waits for the end of a span; the tool's processor time."""
        if process is None:
            time.sleep(max(0, until - time.monotonic()))
            return 0
        try:
            used_s = cputime.wait_child(process, 120).cpu_s
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        if process.returncode:
            raise ToolError(f"rouse {process.args[1]}: {process.stderr.read().strip()}")
        return used_s

    def span(self, command, seconds):
        """One span, with a command of the tool (None: without)."""
        begin = self.sample()
        process = self._begin(command)
        time.sleep(STEADY_AFTER_S)
        steady = self.sample()
        tool_s = self._end(process, begin.wall_s + seconds)
        end = self.sample()
        took_s = end.wall_s - begin.wall_s
        work, steady_work = self.work(begin, end), self.work(steady, end)
        if not work or not steady_work:
            raise ToolError("the guest made no requests")
        vcpus_s = end.vcpus_s - begin.vcpus_s
        return Span(work, steady_work, (end.requests - begin.requests) / vcpus_s, took_s,
                    tool_s / took_s, vcpus_s / took_s, (end.qemu_s - begin.qemu_s) / took_s,
                    (end.faults - begin.faults) / took_s)


def slowdown_of(load, pairs, field="work"):
    """harness.paired.Median of how much slower B is than A: 0.01 is 1 %."""
    values = [(getattr(a, field), getattr(b, field)) for a, b in pairs]
    is_rate = load == "busy" or field == "per_cpu_s"
    return median_interval([a / b - 1 if is_rate else b / a - 1 for a, b in values])


def _more(pairs, field):
    """Processor time that B takes beyond A, in percent of one core."""
    return median_interval([(getattr(b, field) - getattr(a, field)) * 100
                            for a, b in pairs])._asdict()


def faults_of(pairs, fault_s, vcpus):
    """What the page faults that B adds cost the guest: exact where its speed is too noisy to tell.

    {more faults a second (a Median), microseconds of one, share of the vCPUs' time}"""
    more = median_interval([b.faults - a.faults for a, b in pairs])
    return {"more": more._asdict(), "fault_us": fault_s * 1e6,
            "slowdown": max(0, more.value) * fault_s / vcpus}


def conclude(load, spans, of_b, fault_s=0, vcpus=1):
    """What spans in the order of abba() say; None stands for one that failed. None if too many did.
    """
    pairs, control = pair_up(spans, of_b), control_pairs(spans, of_b)
    if not pairs:
        return None
    slowdown = slowdown_of(load, pairs)
    return {
        "pairs": len(pairs), "slowdown": slowdown.value, "slowdown_low": slowdown.low,
        "slowdown_high": slowdown.high,
        "slowdown_steady": slowdown_of(load, pairs, "steady_work")._asdict(),
        "slowdown_control": slowdown_of(load, control)._asdict() if control else None,
        "slowdown_cpu_control":
            slowdown_of(load, control, "per_cpu_s")._asdict() if control else None,
        "cpu_percent": {name: _more(pairs, name) for name in ("tool", "vcpus", "qemu")},
        "slowdown_cpu": slowdown_of(load, pairs, "per_cpu_s")._asdict(),
        "faults": faults_of(pairs, fault_s, vcpus),
        "spans": [span and span._asdict() for span in spans],
    }


def measure(bench, guest, what, way, load, blocks, seconds):
    """Spans of a guest with and without a way of watching it; what conclude() says of them.

    what    for messages; way: a key of WAYS; load: a key of LOADS; blocks: of ABBA, two pairs each
    seconds of a span, in whole ones, more than STEADY_AFTER_S
    """
    command = WAYS[way] and [word.format(seconds=seconds) for word in WAYS[way]]
    watched = Watched(bench.tool, guest)
    of_b = abba(blocks)
    spans = []
    watched.set_load(load)
    try:
        for number, is_b in enumerate(of_b):
            bench.terminal.progress(f"{what}: {way}, {load}", number, len(of_b))
            time.sleep(BETWEEN_S)
            try:
                spans.append(watched.span(command if is_b else None, seconds))
            except (ToolError, OSError, subprocess.TimeoutExpired) as err:
                bench.say(f"{what}, {way}, span {number + 1}: FAILED: {err}")
                spans.append(None)
    finally:
        watched.set_load("paced")
    return conclude(load, spans, of_b, cputime.fault_s(), len(watched.vcpu_threads))
