#!/usr/bin/env bash
# Makes the image that the labs' nodes run from where no registry can be reached: one
# Debian with routers, servers and tools, by mmdebstrap from Debian's packages. Prints
# the variables of the .clab.yml files that stand for it, as NAME=IMAGE:
#
#   export $(lab/containerlab/images.sh)
#
# An image that is there already is not made again. Needs Docker, and to make one
# root on Debian.
set -euo pipefail

suite=bookworm
packages=bash,ca-certificates,curl,ethtool,frr,haproxy,iproute2,iputils-ping,libnginx-mod-stream,nftables,nginx-light,openssl,procps,python3-minimal,socat,tcpdump
image=weir-lab:$suite-$(sha256sum "$0" | cut -c 1-12) # another recipe is another image

fail() {
	printf '%s\n' "$1" >&2
	exit 1
}

docker version >/dev/null || fail "Docker does not answer; lab/containerlab/setup.sh docker sees to it"
if ! docker image inspect "$image" >/dev/null 2>&1; then
	[ "$(id -u)" -eq 0 ] || fail "making $image needs root: run this with sudo"
	if ! command -v mmdebstrap >/dev/null; then
		command -v apt-get >/dev/null || fail "missing: mmdebstrap; install it, or run this on Debian"
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap; } >&2
	fi
	# By a file: what comes out of a pipe, Docker takes for whole, however it ended.
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mmdebstrap --quiet --variant=minbase --include="$packages" \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
		"$suite" "$work/tree.tar" >&2
	docker import "$work/tree.tar" "$image" >&2
fi
printf '%s=%s\n' FRR_IMAGE "$image" NGINX_IMAGE "$image" HAPROXY_IMAGE "$image" HOST_IMAGE "$image"
