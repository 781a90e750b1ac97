# SPDX-License-Identifier: MIT
"""The kernel's own io limits: a cgroup (v1 blkio.throttle or v2 io.max) with one of them.

Needs root and a cgroup controller for io. The kernel counts every request as an operation, where
the tool's throttle counts reads that do not go on where the last one ended: so one limit at a time,
of bytes or of operations.
"""

import contextlib
import os
import time

CGROUP_V1 = "/sys/fs/cgroup/blkio"
CGROUP_V2 = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


class Absent(Exception):
    """There are no cgroup io limits here, or they are refused."""


def whole_disk(path):
    """"major:minor" of the disk that a file is on; limits are for disks, not for partitions."""
    device = os.stat(path).st_dev
    folder = os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not os.path.isdir(folder):
        raise Absent("the file is not on a disk of its own (overlay, tmpfs)")
    if os.path.exists(os.path.join(folder, "partition")):
        folder = os.path.dirname(folder)
    with open(os.path.join(folder, "dev"), encoding="ascii") as file:
        return file.read().strip()


def _write_file(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _limit_files(folder, disk):
    """What to write to limit ("sequential" or "random") a group: {kind: (file, text)}."""
    if folder.startswith(CGROUP_V1 + "/"):
        return {"sequential": ("blkio.throttle.read_bps_device", f"{disk} {{rate}}"),
                "random": ("blkio.throttle.read_iops_device", f"{disk} {{rate}}")}
    return {"sequential": ("io.max", f"{disk} rbps={{rate}}"),
            "random": ("io.max", f"{disk} riops={{rate}}")}


def _parent():
    """The folder to make a group in."""
    parents = [CGROUP_V1] if os.path.exists(CGROUP_V1 + "/cgroup.procs") else []
    for folder in CGROUP_V2:
        with contextlib.suppress(OSError):
            with open(folder + "/cgroup.subtree_control", encoding="ascii") as file:
                if "io" in file.read().split():
                    parents.append(folder)
    if not parents:
        raise Absent("no cgroup controller for io is mounted and delegated")
    return parents[0]


def _remove(group):
    """It is busy until the processes in it have been waited for."""
    for _ in range(100):
        try:
            os.rmdir(group)
            return
        except OSError:
            time.sleep(0.05)


@contextlib.contextmanager
def limited_group(disk, kind, rate):
    """A cgroup with one limit; yields its folder, and removes it."""
    group = os.path.join(_parent(), f"rouse-bench-{os.getpid()}")
    try:
        os.mkdir(group)
    except OSError as err:
        raise Absent(f"no cgroup may be made: {err}") from err
    try:
        name, text = _limit_files(group, disk)[kind]
        try:
            _write_file(os.path.join(group, name), text.format(rate=rate))
        except OSError as err:
            raise Absent(f"{name}: {err}") from err
        yield group
    finally:
        _remove(group)


def enter(group, pid):
    """Moves a process with all its threads into a group; its later children are in it, too."""
    _write_file(os.path.join(group, "cgroup.procs"), str(pid))
