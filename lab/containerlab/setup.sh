#!/usr/bin/env bash
# Makes Docker and containerlab usable where they are not, and does nothing where they
# are. Says which ones there are then.
#
#   setup.sh                both of:
#   setup.sh docker         Docker from Debian's packages, and a daemon where no init
#                           system runs one
#   setup.sh containerlab   containerlab from its Go module into bin/containerlab
#   setup.sh down           ends the daemon that it has started, with the labs that run in
#                           it; images and bin/containerlab stay for the next time
#
# Docker needs root and Debian, containerlab needs Go.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin

version=0.60.0
module=github.com/srl-labs/containerlab
state=$PWD/bin/containerlab # binaries, and the daemon's pid file and log
mkdir -p "$state"
PATH=$state:$PATH

engine_answers() { docker version >/dev/null 2>&1; }

# The daemon's process id, if it is one that this script has started and that runs.
own_daemon() {
	local pid
	pid=$(cat "$state/dockerd.pid" 2>/dev/null) || return 1
	[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && echo "$pid"
}

# Installs a package. Without an init system its services are started by nobody, not by
# invoke-rc.d either: policy-rc.d is what that asks, and 101 is its "no".
install_package() {
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		echo "missing: $1; install it, or run this as root on Debian" >&2
		exit 1
	fi
	local policy=/usr/sbin/policy-rc.d
	if [ ! -d /run/systemd/system ] && [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >"$state/apt.log" 2>&1 ||
		{ cat "$state/apt.log" >&2; exit 1; }
}

# Whether this host has capabilities withheld from it, which a privileged container asks for.
lacks_capabilities() {
	local bounding
	bounding=$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)
	[ $((16#$bounding)) -ne $(((1 << ($(cat /proc/sys/kernel/cap_last_cap) + 1)) - 1)) ]
}

# Starts a daemon for the labs and nothing else: links between nodes are containerlab's,
# and the management network is to reach this host only, so nothing of this host's
# packet filter, forwarding or links is changed for it. Which storage driver works, it
# finds out itself: overlay2, else vfs.
start_daemon() {
	local flags=(--pidfile "$state/dockerd.pid" --bridge none --iptables=false --ip-masq=false --ip-forward=false --userland-proxy=false)
	if lacks_capabilities; then
		CGO_ENABLED=0 go build -trimpath -o "$state/ociruntime" ./lab/containerlab/ociruntime
		flags+=(--add-runtime "weir-lab=$state/ociruntime" --default-runtime weir-lab)
	fi
	setsid dockerd "${flags[@]}" </dev/null >"$state/dockerd.log" 2>&1 &
	local pid=$! deadline=$((SECONDS + 120))
	until engine_answers; do
		if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -gt $deadline ]; then
			echo "dockerd does not answer; $state/dockerd.log ends with:" >&2
			tail -n 20 "$state/dockerd.log" >&2
			exit 1
		fi
		sleep 0.2
	done
}

docker_up() {
	if ! command -v docker >/dev/null || ! engine_answers; then
		command -v dockerd >/dev/null || install_package docker.io
		command -v docker >/dev/null || install_package docker-cli # a package of its own since Debian 13
		if [ -d /run/systemd/system ]; then
			systemctl start docker
		else
			start_daemon
		fi
	fi
	echo "Docker $(docker version --format '{{.Server.Version}}'), storage driver $(docker info --format '{{.Driver}}')"
}

# The version that a containerlab says it is; fails if it says none.
version_of() { "$1" version | awk '$1 == "version:" { print $2; seen = 1 } END { exit !seen }'; }

# One that was here before serves, whatever its version, unless one of ours is there.
containerlab_up() {
	local found seen
	if [ -x "$state/containerlab" ]; then
		[ "$(version_of "$state/containerlab" 2>/dev/null)" = "$version" ] || build_containerlab
	elif ! command -v containerlab >/dev/null; then
		build_containerlab
	fi
	found=$(command -v containerlab)
	seen=$(version_of "$found") || { echo "$found is no containerlab that runs" >&2; exit 1; }
	echo "containerlab $seen, $found"
}

# Builds containerlab from a copy of its module, with two differences: inet.af/netaddr,
# which cannot be had everywhere, is ours, with what is used of it; and on a kernel
# without modules the list of those that are loaded is an empty one instead of an error.
build_containerlab() {
	local replacement=$PWD/lab/containerlab/inetaf build
	build=$(mktemp -d)
	(
		trap 'rm -rf "$build"' EXIT
		cd "$build"
		dir=$(go mod download -json "$module@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
		cp -r "$dir" source
		chmod -R u+w source
		cd source
		go mod edit -replace "inet.af/netaddr=$replacement"
		if [ ! -e /proc/modules ]; then
			grep -q '"/proc/modules"' utils/kernel_module.go ||
				{ echo "containerlab $version does not read /proc/modules where this script would change that" >&2; exit 1; }
			sed -i 's|"/proc/modules"|"/dev/null"|' utils/kernel_module.go
		fi
		# Most of the time goes into packages that no lab uses; so nothing is optimized but
		# the standard library, which weir's own build has left compiled.
		CGO_ENABLED=0 go build -trimpath -gcflags 'all=-N -l' -gcflags 'std=' \
			-ldflags "-s -w -X $module/cmd.version=$version" -o "$state/containerlab" .
	)
}

down() {
	local pid
	pid=$(own_daemon) || return 0
	# Of a run that was interrupted.
	if [ -n "$(docker ps --all --quiet --filter label=containerlab)" ] && command -v containerlab >/dev/null; then
		containerlab destroy --all --cleanup >/dev/null 2>&1 || true
	fi
	docker ps --all --quiet --filter label=containerlab | xargs --no-run-if-empty docker rm --force >/dev/null
	# Docker loses count of what is in a network when several containers go at once. It
	# counts anew when it starts, and labs use a network that is there.
	docker network ls --quiet --filter label=containerlab | xargs --no-run-if-empty docker network rm >/dev/null ||
		echo "the labs' network stays: no container is in it, but Docker has lost count; the next lab uses it, and down takes it away" >&2
	kill "$pid"
	while [ -e "/proc/$pid" ]; do sleep 0.1; done # and its containerd before it
}

case ${1:-both} in
both)
	docker_up
	containerlab_up
	;;
docker) docker_up ;;
containerlab) containerlab_up ;;
down) down ;;
*)
	echo "usage: $0 [docker|containerlab|down]" >&2
	exit 2
	;;
esac
