#!/bin/bash
# What clients in the labs do; the nodes have it as /client.sh.
#
#   requests FILE SECONDS CURL-ARGUMENTS...
#                                     asks again and again until FILE is there, and
#                                     prints for each request when it began, when it
#                                     ended, ok or failed, and the answer; it fails
#                                     after SECONDS without a connection, or twice
#                                     as long without an answer
#   downloads N PORT CURL-ARGUMENTS...
#                                     asks N times at once, from ports PORT and up;
#                                     for each it prints port, status, size, and
#                                     when it ended
#   fetch CURL-ARGUMENTS...           asks once; prints the header X-Backend and the
#                                     SHA-256 of the answer
#   put FILE CURL-ARGUMENTS...        sends a file; prints the header X-Backend
#   udp ADDRESS PORT                  sends a datagram and prints what comes back
#   owners INTERFACE ADDRESS...       asks who has the addresses, one after the other,
#                                     by ARP or NDP; prints for each the MAC address
#                                     of everyone who says it is his
set -euo pipefail

requests() {
	local file=$1 patience=$2 began answer status
	shift 2
	while [ ! -e "$file" ]; do
		began=$EPOCHREALTIME
		if answer=$(curl --silent --show-error --fail --connect-timeout "$patience" --max-time $((2 * patience)) "$@" 2>&1); then status=ok; else status=failed; fi
		printf '%s %s %s %s\n' "$began" "$EPOCHREALTIME" "$status" "${answer//$'\n'/ }"
		sleep 0.05
	done
}

download() {
	local seen
	seen=$(curl --silent --output /dev/null --max-time 120 --write-out '%{local_port} %{http_code} %{size_download}' --local-port "$@") || true
	printf '%s %s\n' "$seen" "$EPOCHREALTIME"
}

downloads() {
	local n=$1 port=$2 i
	shift 2
	for ((i = 0; i < n; i++)); do
		download $((port + i)) "$@" &
	done
	wait
}

# x_backend FILE: who has answered, by the headers in the file.
x_backend() { tr -d '\r' <"$1" | awk 'tolower($1) == "x-backend:" { print $2 }'; }

fetch() {
	local headers sum
	headers=$(mktemp)
	sum=$(curl --silent --show-error --fail --max-time 100 --dump-header "$headers" "$@" | sha256sum)
	printf '%s %s\n' "$(x_backend "$headers")" "${sum%% *}"
	rm "$headers"
}

put() {
	local file=$1 headers
	shift
	headers=$(mktemp)
	curl --silent --show-error --fail --max-time 100 --output /dev/null --dump-header "$headers" --upload-file "$file" "$@"
	x_backend "$headers"
	rm "$headers"
}

udp() {
	exec 3<>"/dev/udp/$1/$2"
	printf 'hello' >&3
	timeout 2 head -n 1 <&3
}

# A datagram has the kernel ask. The next question follows on an answer to the one
# before: whoever answers it has seen that one as well.
owners() {
	local interface=$1 address answers dump tries
	shift
	answers=$(mktemp)
	tcpdump --immediate-mode -Q in -i "$interface" -enlt 'arp[6:2] = 2 or ip6[40] = 136' >"$answers" 2>"$answers.log" &
	dump=$!
	until grep -q '^listening' "$answers.log"; do kill -0 "$dump"; sleep 0.1; done
	for address; do
		ip neigh flush to "$address" dev "$interface"
		for ((tries = 0; tries < 50; tries++)); do
			[ $((tries % 10)) -gt 0 ] || echo >"/dev/udp/$address/9"
			! grep -qE "(Reply|tgt is) $address[ ,]" "$answers" || break
			sleep 0.1
		done
	done
	kill "$dump"
	for address; do
		awk -v a="$address" '
			/ Reply / { for (i = 1; i < NF; i++) if ($i == "Reply" && $(i + 1) == a) print a, $(i + 3) }
			/ tgt is / { for (i = 1; i < NF; i++) if ($i == "is" && $(i + 1) == a ",") print a, $1 }' "$answers" |
			tr -d , | sort -u
	done
	rm "$answers" "$answers.log"
}

"$@"
