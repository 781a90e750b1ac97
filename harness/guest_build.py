# SPDX-License-Identifier: MIT
"""Makes the demo's guest: a kernel and an initramfs.

The kernel is taken out of Debian's cloud kernel package, which is not installed. The initramfs is
made of Debian's busybox-static and redis, downloaded and unpacked but not installed, and of the
project's guest driver. What was downloaded stays in BUILD/guest/debs; BUILD/guest/{vmlinuz,
initramfs.cpio} are made anew only when one of their inputs has changed.

    python3 -c 'import harness; print(harness.build_guest("build"))'
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
from typing import NamedTuple

SOURCE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = ["busybox-static", "redis-server", "redis-tools"]
DRIVER = "demo/guest/guest-driver"  # in the build directory
LIBRARY_DIRS = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"]


class GuestFiles(NamedTuple):
    """What QEMU boots."""
    kernel: str
    initramfs: str


def _run(command, cwd=None):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _depends(packages):
    """What packages depend on: {package: [names]}. Of alternatives, all that are real packages."""
    found = {}
    for line in _run(["apt-cache", "depends", "--important", *packages]).splitlines():
        depends = re.match(r"^ [ |](?:Pre)?Depends: ([^<>\s]+)", line)
        if depends:
            found[package].append(depends.group(1))
        elif re.match(r"^\S", line):
            package = line.strip()
            found[package] = []
    return found


def _kernel_package():
    for name in _depends([KERNEL_PACKAGE]).get(KERNEL_PACKAGE, []):
        if name.startswith("linux-image-"):
            return name
    raise RuntimeError(f"{KERNEL_PACKAGE} leads to no kernel; run apt-get update?")


def _with_libraries(packages):
    """The packages and, again and again, the libraries that they depend on."""
    found = []
    todo = list(packages)
    while todo:
        found += todo
        names = {name for depends in _depends(todo).values() for name in depends}
        todo = sorted(name for name in names if name.startswith("lib") and name not in found)
    return found


def _download_packages(folder):
    names = [_kernel_package()] + _with_libraries(PACKAGES)
    _run(["apt-get", "-o", "APT::Sandbox::User=root", "download"] + names, cwd=folder)
    return names


def _download(debs):
    """Fills the folder `debs`, unless that was done before."""
    done = os.path.join(debs, "complete")
    if os.path.exists(done):
        return
    shutil.rmtree(debs, ignore_errors=True)
    os.makedirs(debs)
    try:
        names = _download_packages(debs)
    except RuntimeError:
        # apt's lists are absent, or so old that their files are gone.
        _run([os.path.join(SOURCE_ROOT, "scripts/install-deps.sh"), "--refresh"])
        names = _download_packages(debs)
    with open(done, "w", encoding="ascii") as file:
        file.write("\n".join(names) + "\n")


def _unpack(debs, root):
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    for deb in sorted(glob.glob(os.path.join(debs, "*.deb"))):
        if os.path.basename(deb).startswith("linux-image-"):
            continue
        _run(["dpkg-deb", "-x", deb, root])


def _unpack_kernel(debs, out):
    deb = glob.glob(os.path.join(debs, "linux-image-*.deb"))[0]
    folder = os.path.join(os.path.dirname(out), "kernel")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    dump = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", folder, "--wildcards", "./boot/vmlinuz*"],
                   stdin=dump.stdout, check=True)
    dump.stdout.close()
    if dump.wait() != 0:
        raise RuntimeError(f"{deb}: cannot be unpacked")
    os.replace(glob.glob(os.path.join(folder, "boot", "vmlinuz*"))[0], out)
    shutil.rmtree(folder)


def _needed(path):
    """The libraries and the loader that an ELF file names."""
    dynamic = _run(["readelf", "-d", "-W", path])
    headers = _run(["readelf", "-l", "-W", path])
    names = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    return names + re.findall(r"interpreter: .*/([^/\]]+)\]", headers)


def _find_library(root, name):
    for folder in LIBRARY_DIRS:
        path = os.path.join(root, folder, name)
        if os.path.exists(path):
            return path
    raise RuntimeError(f"the guest lacks the library {name}")


def _libraries(root, program):
    """All libraries of a program, those of its libraries included: name -> path."""
    found = {}
    todo = _needed(program)
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = os.path.realpath(_find_library(root, name))
            todo += _needed(found[name])
    return found


class _Cpio:
    """Writes an archive in the "newc" format, in which the kernel takes an initramfs."""

    def __init__(self, file):
        self._file = file
        self._inode = 0

    def _entry(self, name, mode, data=b"", device=(0, 0)):
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = [self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1],
                  len(encoded), 0]
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._file.write(header + b"\0" * (-len(header) % 4))
        self._file.write(data + b"\0" * (-len(data) % 4))

    def folder(self, name):
        self._entry(name, 0o040755)

    def link(self, name, target):
        self._entry(name, 0o120777, target.encode())

    def character_device(self, name, major, minor):
        self._entry(name, 0o020600, device=(major, minor))

    def copy(self, name, path, mode=0o755):
        with open(path, "rb") as file:
            self._entry(name, 0o100000 | mode, file.read())

    def finish(self):
        self._inode = -1
        self._entry("TRAILER!!!", 0)


def _write_initramfs(root, driver, out):
    redis = os.path.realpath(os.path.join(root, "usr/bin/redis-check-rdb"))
    busybox = next(path for path in (os.path.join(root, "bin/busybox"),
                                     os.path.join(root, "usr/bin/busybox")) if os.path.exists(path))
    stripped = os.path.join(root, "driver")
    _run(["strip", "-o", stripped, driver])
    with open(out + ".new", "wb") as file:
        cpio = _Cpio(file)
        for name in ("bin", "data", "dev", "etc", "lib", "lib64", "proc", "sys", "tmp", "usr",
                     "usr/bin"):
            cpio.folder(name)
        cpio.character_device("dev/console", 5, 1)
        cpio.copy("init", os.path.join(SOURCE_ROOT, "demo/guest/init"))
        cpio.copy("bin/busybox", busybox)
        cpio.link("bin/sh", "busybox")
        cpio.copy("bin/driver", stripped)
        cpio.copy("usr/bin/redis-server", redis)
        cpio.copy("etc/redis.conf", os.path.join(SOURCE_ROOT, "demo/guest/redis.conf"), 0o644)
        for name, path in sorted(_libraries(root, redis).items()):
            cpio.copy(f"lib64/{name}" if name.startswith("ld-") else f"lib/{name}", path)
        cpio.finish()
    os.replace(out + ".new", out)


def _digest(paths):
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def _built_driver(build_dir):
    driver = os.path.join(build_dir, DRIVER)
    if not os.path.exists(driver):
        _run(["ninja", "-C", build_dir, DRIVER])
    return driver


def build_guest(build_dir="build"):
    """Makes the guest if that is needed; returns its GuestFiles. Takes seconds the first time.

    May be called by several processes at once: the first makes it, the others wait.
    """
    folder = os.path.join(os.path.abspath(build_dir), "guest")
    os.makedirs(folder, exist_ok=True)
    files = GuestFiles(os.path.join(folder, "vmlinuz"), os.path.join(folder, "initramfs.cpio"))
    if not os.access(folder, os.W_OK) and all(map(os.path.exists, files)):
        return files  # another user made it
    with open(os.path.join(folder, "lock"), "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(folder, files, _built_driver(build_dir))


def _build(folder, files, driver):
    debs = os.path.join(folder, "debs")
    stamp = os.path.join(folder, "digest")
    _download(debs)
    digest = _digest([driver, os.path.abspath(__file__), os.path.join(debs, "complete"),
                      os.path.join(SOURCE_ROOT, "demo/guest/init"),
                      os.path.join(SOURCE_ROOT, "demo/guest/redis.conf")])
    if os.path.exists(stamp) and all(map(os.path.exists, files)):
        with open(stamp, encoding="ascii") as file:
            if file.read() == digest:
                return files
    root = os.path.join(folder, "root")
    _unpack(debs, root)
    _unpack_kernel(debs, files.kernel)
    _write_initramfs(root, driver, files.initramfs)
    shutil.rmtree(root)
    with open(stamp, "w", encoding="ascii") as file:
        file.write(digest)
    return files

