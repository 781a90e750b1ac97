#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages that are missing to build, test and demonstrate Rouse. As root or as
# a user with sudo. Says nothing, and needs no rights, when nothing is missing.
#
#   scripts/install-deps.sh             installs what is missing
#   scripts/install-deps.sh --list      prints all packages, one a line
#   scripts/install-deps.sh --refresh   renews apt's lists (after a download failed)
set -eu

# compiler and build; libraries; QEMU; the guest (it is made of packages that are only unpacked)
packages="
gcc libc6-dev binutils make meson ninja-build pkgconf
liburing-dev liblz4-dev libzstd-dev libxxhash-dev libjansson-dev libcmocka-dev
qemu-system-x86 qemu-utils
libsqlite3-dev zlib1g-dev
python3 scdoc git tar
"
# for the page of rouse report: without it all else works
optional=npm

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "install-deps: not root, and there is no sudo; as root, run: $*" >&2
		exit 1
	fi
}

# apt's lists may be absent (a fresh container) or old.
refresh() {
	as_root apt-get -q update
}

is_installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

case "${1-}" in
--list)
	printf '%s\n' $packages $optional
	exit 0
	;;
--refresh)
	refresh
	exit 0
	;;
esac

if ! command -v apt-get >/dev/null; then
	echo "install-deps: this is not a Debian system; what is needed:" $packages >&2
	exit 1
fi

missing=
for package in $packages; do
	is_installed "$package" || missing="$missing $package"
done
# The guest's kernel is downloaded later, by name: apt must know it.
apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || refresh

install() {
	echo "installing: $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
}
[ -z "$missing" ] || install $missing || {
	refresh
	install $missing
}
# It may be there from elsewhere, as a part of another package.
command -v npm >/dev/null || (install $optional) ||
	echo "install-deps: no npm: Rouse is built without the page of rouse report" >&2
