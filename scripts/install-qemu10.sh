#!/bin/sh
# SPDX-License-Identifier: MIT
# Puts a QEMU of Debian's backports (10, of Debian 12) beside the stock one, for the benchmark that
# compares with QEMU's own restore from a file (mapped-ram and multifd, which 7.2 does not have).
#
#   scripts/install-qemu10.sh [BUILD]     makes BUILD/qemu10/qemu-system-x86_64 (BUILD: build)
#
# Packages are downloaded and unpacked, not installed; apt's own lists and sources stay as they are.
# Does nothing if it is there. If it cannot be had, the last line says why, and the exit code is 1.
set -eu

build=${1-build}
mkdir -p "$build/qemu10"
top=$(cd "$build/qemu10" && pwd)
program=$top/qemu-system-x86_64
[ ! -x "$program" ] || exit 0

fail() {
	echo "no QEMU 10: $*" >&2
	exit 1
}

command -v apt-get >/dev/null || fail "this is not a Debian system"
# shellcheck disable=SC1091
. /etc/os-release
codename=${VERSION_CODENAME-}
if [ "${ID-}" != debian ] || [ -z "$codename" ]; then
	fail "this is not a Debian system"
fi

# The mirror that this machine has for the release itself.
# shellcheck disable=SC2016  # apt's own fields
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $codename" 'Created-By: Packages' 2>/dev/null |
	head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}

mkdir -p "$top/lists/partial" "$top/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
for suite in "$codename" "$codename-backports"; do
	echo "deb [signed-by=$keys] $mirror $suite main"
done >"$top/sources.list"

# apt with lists, sources and a cache of its own; what is installed it learns from the machine.
apt() {
	apt-get -q -o "Dir::Etc::SourceList=$top/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o "Dir::State::Lists=$top/lists" -o "Dir::Cache=$top/cache" \
		-o APT::Sandbox::User= -o Debug::NoLocking=1 "$@" >"$top/log" 2>&1
}

apt update || fail "the lists of $codename-backports cannot be fetched"
# What an installation would bring, with the libraries that are not here: but only downloaded.
apt -t "$codename-backports" --download-only --no-install-recommends --yes \
	install qemu-system-x86 || fail "$(grep '^E:' "$top/log" | tail -n 1)"
[ -n "$(find "$top/cache/archives" -name 'qemu-system-x86_*.deb')" ] ||
	fail "$codename-backports has none that is newer than the one installed"

rm -rf "$top/unpacked"
mkdir "$top/unpacked"
for package in "$top"/cache/archives/*.deb; do
	dpkg-deb -x "$package" "$top/unpacked"
done
rm -rf "$top/cache" "$top/lists"

# It must be told of its own libraries, modules and firmware: others of the stock one are here.
share=$top/unpacked/usr/share
libraries=$top/unpacked/usr/lib/x86_64-linux-gnu:$top/unpacked/lib/x86_64-linux-gnu
real=$top/unpacked/usr/bin/qemu-system-x86_64
missing=$(LD_LIBRARY_PATH=$libraries ldd "$real" | grep 'not found' || true)
[ -z "$missing" ] || fail "a library is missing: $missing"
cat >"$program.new" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$libraries' QEMU_MODULE_DIR='$top/unpacked/usr/lib/x86_64-linux-gnu/qemu'
exec '$real' -L '$share/qemu' -L '$share/seabios' "\$@"
END
chmod +x "$program.new"
mv "$program.new" "$program"
