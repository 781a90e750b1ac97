#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Saving, measured: Rouse beside QEMU's own means, in the same run, rounds interleaved.

    bench/bench_save.py [--build DIR] [--dir DIR] [--rounds N] [--mb N] [--codec CODEC] [--quick]

1. A stopped VM into a file on the same disk, fsync included:
       rouse save    against    migrate exec:cat > FILE
2. A VM that goes on: its downtime, and how long its requests take while the snapshot streams:
       rouse save --keep-running    against    a background-snapshot into /dev/null

Prints medians and ratios; fails if the guest finds a wrong page afterwards. Run it on a machine
that does nothing else.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import common
from harness import Guest, Machine, build_guest
from harness.link import now_us

PERIOD_US = 2000
QUIET_S = 3


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


class Bench:
    """One guest that is saved again and again."""

    def __init__(self, guest, options):
        self.guest, self.options = guest, options
        self.rouse = str(pathlib.Path(options.build, 'tool/rouse').resolve())

    def save(self, image, *more):
        """Runs rouse save; the seconds that it took, and its report."""
        self.guest.qmp.close()
        self.guest._qmp = None  # the tool needs the only monitor
        began = time.monotonic()
        out = subprocess.run([self.rouse, 'save', '--qmp', self.guest.run.qmp, '--keep-running',
                              '--json', '--codec', self.options.codec, *more, image],
                             check=True, capture_output=True, text=True).stdout
        return time.monotonic() - began, json.loads(out)

    def migrate(self, uri):
        qmp = self.guest.qmp
        qmp.execute('migrate-set-parameters', **{'max-bandwidth': 1 << 40})
        qmp.execute('migrate', uri=uri)
        return qmp.wait_migration()

    def background(self, state):
        self.guest.qmp.execute('migrate-set-capabilities', capabilities=[
            {'capability': 'background-snapshot', 'state': state}])

    def stopped_by_rouse(self, path):
        seconds, _ = self.save(path, '--no-background-snapshot')
        return seconds

    def stopped_by_qemu(self, path):
        began = time.monotonic()
        self.migrate(f'exec:cat > {path}')
        fsync(path)
        return time.monotonic() - began

    def stopped(self, folder):
        """A stopped VM: seconds by QEMU and by Rouse, in turn."""
        times = {'qemu': [], 'rouse': []}
        for turn in range(self.options.rounds):
            ways = [('qemu', self.stopped_by_qemu), ('rouse', self.stopped_by_rouse)]
            for name, way in ways if turn % 2 == 0 else reversed(ways):
                path = folder / f'{name}.bench'
                self.guest.qmp.execute('cont')
                self.guest.qmp.execute('stop')
                times[name].append(way(path))
                size = path.stat().st_size
                path.unlink()
                os.sync()
                print(f'  stopped, {name}: {times[name][-1]:.2f} s, {size >> 20} MiB', flush=True)
        self.guest.qmp.execute('cont')
        return times

    def request_us(self, begin_us, end_us):
        """How long a request took on average, of those that came in that time."""
        return statistics.mean(record.end_us - record.start_us
                               for record in list(self.guest.link.records)
                               if begin_us <= record.arrival_us < end_us)

    def slowdown(self, snapshot):
        """Downtime in ms; how long a request took while it streamed, in us; seconds of it."""
        time.sleep(QUIET_S)
        begin_us = now_us()
        downtime, seconds = snapshot()
        time.sleep(0.2)
        return downtime, self.request_us(begin_us, begin_us + int(seconds * 1e6)), seconds

    def snapshot_by_qemu(self):
        self.background(True)
        began = time.monotonic()
        answer = self.migrate('exec:cat > /dev/null')
        seconds = time.monotonic() - began
        self.background(False)
        events = {event['event']: event['timestamp'] for event in self.guest.qmp.events
                  if event['event'] in ('STOP', 'RESUME')}
        self.guest.qmp.events.clear()
        if len(events) < 2:
            return answer['downtime'], seconds
        stop, resume = ((each['seconds'] * 1e6 + each['microseconds']) / 1e3
                        for each in (events['STOP'], events['RESUME']))
        return resume - stop, seconds

    def snapshot_by_rouse(self, path):
        _, report = self.save(path)
        assert report['background_snapshot']
        return report['downtime_ms'], report['stream_ms'] / 1000

    def running(self, folder):
        """A VM that goes on: the three figures of slowdown(), by each, in turn."""
        figures = [{'qemu': [], 'rouse': []} for _ in range(3)]
        path = folder / 'rouse.bench'
        ways = [('qemu', self.snapshot_by_qemu), ('rouse', lambda: self.snapshot_by_rouse(path))]
        for turn in range(self.options.rounds):
            for name, way in ways if turn % 2 == 0 else reversed(ways):
                values = self.slowdown(way)
                for figure, value in zip(figures, values):
                    figure[name].append(value)
                print('  running, {}: downtime {:.1f} ms, a request {:.0f} us, '
                      'streamed in {:.2f} s'.format(name, *values), flush=True)
        path.unlink(missing_ok=True)
        return figures


def show(what, values, unit, target):
    middle = {name: statistics.median(each) for name, each in values.items()}
    print(f'{what}: Rouse {middle["rouse"]:.2f}{unit}, QEMU {middle["qemu"]:.2f}{unit}, ratio '
          f'{middle["rouse"] / middle["qemu"]:.2f} (to reach: {target})')


def check(guest):
    """The guest looks at its memory; the exit code."""
    verified = guest.verify()
    print(f'the guest verified {verified.pages} pages, {verified.errors} errors')
    return 1 if verified.errors else 0


def run():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--build', default='build')
    parser.add_argument('--dir', default='.', help='where the files are written')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--mb', type=int, default=800, help='MiB of the 1 GiB to fill')
    parser.add_argument('--codec', default='lz4')
    parser.add_argument('--quick', action='store_true', help='one round, to see that it works')
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    print(f'load before: {os.getloadavg()[0]:.2f}')
    with Guest.boot(Machine(build_guest(options.build), ram_mb=1024, vcpus=2)) as guest:
        guest.start('idle', options.mb, period_us=PERIOD_US)
        bench = Bench(guest, options)
        folder = pathlib.Path(options.dir)
        show('a stopped VM', bench.stopped(folder), ' s', 1.5)
        downs, slows, seconds = bench.running(folder)
        show('downtime', downs, ' ms', 1.2)
        show('a request meanwhile', slows, ' us', 1.2)
        show('streaming', seconds, ' s', 'none stated')
        code = check(guest)
    print(f'load after: {os.getloadavg()[0]:.2f}')
    return code


if __name__ == '__main__':
    sys.exit(common.main(run))
