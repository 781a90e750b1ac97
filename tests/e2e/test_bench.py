# SPDX-License-Identifier: MIT
"""What the benchmarks conclude with: pairs, medians and their intervals, processor time."""
import mmap
import os
import subprocess
import sys
import threading

from e2e import Skip, busy_guest, machine, seeded, work
from harness import cputime, drop_from_cache, paired


def test_pairs_are_neighbours_with_b_behind():
    of_b = paired.abba(2)
    assert paired.pair_up('abBAcdDC', of_b) == [('a', 'b'), ('A', 'B'), ('c', 'd'), ('C', 'D')]
    assert paired.control_pairs('abBAcdDC', of_b) == [('A', 'c')]


def test_pair_with_a_failed_span_is_left_out():
    of_b = paired.abba(2)
    spans = ['a', None, 'B', 'A', 'c', 'd', 'D', 'C']
    assert paired.pair_up(spans, of_b) == [('A', 'B'), ('c', 'd'), ('C', 'D')]
    assert paired.control_pairs(['a', 'b', 'B', None, 'c', 'd', 'D', 'C'], of_b) == []


def test_interval_is_that_of_the_sign_test():
    # P(fewer than 2 heads of 10, or fewer than 2 tails) = 22 / 1024; with 3 it is 112 / 1024.
    assert paired.median_interval(range(10)) == (4.5, 1, 8, 10)
    assert paired.median_interval(range(6)) == (2.5, 0, 5, 6)
    assert paired.median_interval([3, 1, 2, 9, 5]) == (3, None, None, 5)


def test_interval_covers_the_median_as_often_as_it_says():
    random = seeded()
    missed = 0
    for _ in range(1000):
        found = paired.median_interval([random.lognormvariate(0, 2) for _ in range(10)])
        missed += not found.low <= 1 <= found.high
    assert missed <= 50, f'{missed} of 1000 intervals of 95 % do not hold the median'


def test_target_inside_of_the_interval_is_neither_met_nor_missed():
    assert paired.at_most(-0.01, 0.02, 0.03) is True
    assert paired.at_most(-0.01, 0.03, 0.03) is True
    assert paired.at_most(0.04, 0.06, 0.03) is False
    assert paired.at_most(-0.6, 0.9, 0.03) is None
    assert paired.at_most(None, None, 0.03) is None


def test_drift_does_not_look_like_a_difference():
    of_b = paired.abba(5)
    spans = [100 * 0.98 ** number for number in range(len(of_b))]  # slower and slower
    ratios = [b / a - 1 for a, b in paired.pair_up(spans, of_b)]
    found = paired.median_interval(ratios)
    assert found.low < 0 < found.high and abs(found.value) < 0.001


def test_faults_of_a_thread_are_counted_and_take_microseconds():
    pages = 1000
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        before = cputime.thread_faults(os.getpid(), [threading.get_native_id()])
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        after = cputime.thread_faults(os.getpid(), [threading.get_native_id()])
    assert pages <= after - before < 2 * pages, after - before
    assert 0 < cputime.fault_s(1000, 3) < 0.001


def test_processor_time_of_a_child_is_what_it_used():
    child = subprocess.Popen([sys.executable, '-c', 'import time\n'
                              'while time.process_time() < 0.5: pass'])
    used = cputime.wait_child(child)
    assert child.returncode == 0 and 0.5 <= used.cpu_s < 2, used


def test_bytes_that_a_child_read_are_those_from_the_disk():
    path = work('file')
    path.write_bytes(os.urandom(1 << 20))
    read = ['cat', path]
    try:
        drop_from_cache(path)
    except RuntimeError as err:
        raise Skip(str(err)) from err
    for expected in (1 << 20, 0):
        child = subprocess.Popen(read, stdout=subprocess.DEVNULL)
        used = cputime.wait_child(child)
        # The program itself may come from the disk, too.
        assert expected <= used.read_bytes <= expected + (1 << 19), used


def test_processor_time_of_vcpus_is_a_part_of_that_of_qemu():
    with busy_guest(machine()) as guest:
        pid = guest.run.qemu_pid()
        vcpus = cputime.vcpu_threads(guest.qmp)
        assert len(vcpus) == 2
        before = cputime.threads_s(pid, vcpus)
        guest.verify()
        of_vcpus = cputime.threads_s(pid, vcpus)
        assert before < of_vcpus <= cputime.process_s(pid) + 0.05


def test_guest_counts_requests_that_it_does_not_record():
    with busy_guest(machine()) as guest:
        guest.set_quiet(True)
        first = guest.served()
        guest.set_period(1)
        while guest.served().requests < first.requests + 1000:
            pass
        seen = len(guest.link.records)
        last = guest.served()
        assert last.requests > first.requests + 1000 and last.us > first.us
        assert len(guest.link.records) - seen < 10
        assert guest.verify().errors == 0
