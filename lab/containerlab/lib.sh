# What the check of every lab has in common; each sets LAB, the lab's name, and
# then sources this.
#
# A lab runs in one of two ways. With containerlab its nodes are containers, and
# are reached by docker. In the namespaces of `weirlab topology` they are reached
# by programs in the folder WEIRLAB_NODES, one for each node. No check knows which
# of the two it is.
#
# Each assertion prints one line. The first that does not hold ends the check.

# Where background jobs write to. It goes with the check.
scratch=$(mktemp -d)

# What clients look for to stop asking; its name is that of this run.
stop=/tmp/stop-$$

trap end EXIT

# on NODE COMMAND...: runs a command in a node.
on() {
	local node=$1
	shift
	if [ -n "${WEIRLAB_NODES:-}" ]; then
		"$WEIRLAB_NODES/$node" "$@" </dev/null
	else
		docker exec "clab-$LAB-$node" "$@" </dev/null
	fi
}

# weir NODE ARGUMENTS...: runs weir's command line in a node where weir runs.
weir() { on "$1" /weir "${@:2}"; }

# kill_node NODE: kills the node's main process with SIGKILL. Links and addresses
# of a node whose namespace is another's stay.
kill_node() {
	if [ -n "${WEIRLAB_NODES:-}" ]; then
		"$WEIRLAB_NODES/.kill" "$1" >/dev/null
	else
		docker kill "clab-$LAB-$1" >/dev/null
	fi
}

# start_node NODE: starts a node again that was killed.
start_node() {
	if [ -n "${WEIRLAB_NODES:-}" ]; then
		"$WEIRLAB_NODES/.start" "$1" >/dev/null
	else
		docker start "clab-$LAB-$1" >/dev/null
	fi
}

# eventually SECONDS COMMAND...: tries a command until it succeeds. It prints what
# the last try printed.
eventually() {
	local deadline=$((SECONDS + $1)) seen
	shift
	while true; do
		if seen=$("$@" 2>&1); then
			[ -z "$seen" ] || printf '%s\n' "$seen"
			return 0
		fi
		if [ "$SECONDS" -ge "$deadline" ]; then
			[ -z "$seen" ] || printf '%s\n' "$seen"
			return 1
		fi
		sleep 0.2
	done
}

ok() { printf 'ok: %s\n' "$1"; }

failed() { # TEXT SEEN
	printf 'FAILED: %s (%s)\n' "$1" "${2:-nothing was seen}"
	return 1
}

# want TEXT COMMAND...: an assertion, which holds if the command succeeds.
want() {
	local text=$1 seen
	shift
	if seen=$("$@" 2>&1); then
		ok "$text"
	else
		seen=$(tail -n 5 <<<"$seen" | tr '\n' ' ')
		failed "$text" "${seen% }"
	fi
}

# same A B: both texts are equal, and not empty.
same() {
	[ -n "$1" ] && [ "$1" = "$2" ] || { printf '"%s", not "%s"\n' "$1" "$2"; return 1; }
}

# atmost A B: A is a number that is not larger than B.
atmost() {
	awk -v a="$1" -v b="$2" 'BEGIN { exit !(a "" != "" && a + 0 <= b + 0) }' || { printf '%s, which is more than %s\n' "$1" "$2"; return 1; }
}

# has_line PATTERN COMMAND...: the command succeeds and prints a line that matches, a
# regular expression. lacks_line: it succeeds and prints others only.
has_line() {
	local seen
	seen=$("${@:2}") || { printf '%s\n' "$seen"; return 1; }
	printf '%s\n' "$seen"
	grep -qE -- "$1" <<<"$seen"
}
lacks_line() {
	local seen
	seen=$("${@:2}") || { printf '%s\n' "$seen"; return 1; }
	[ -n "$seen" ] && ! grep -E -- "$1" <<<"$seen"
}

# now: the time, in seconds. All nodes have the same clock.
now() { printf '%s\n' "$EPOCHREALTIME"; }

# What weir says ------------------------------------------------------------

# announced NODE ADDRESS: this weir announces the address.
announced() {
	weir "$1" show announcements | awk -v a="$2" '
		$1 == a { state = $4; there = there || $4 == "announced" }
		END { print a, state; exit !there }'
}

# backend NODE SERVICE ADDRESS STATUS: this weir has that backend in that state.
backend() {
	weir "$1" show backends | awk -v s="$2" -v a="$3" -v want="$4" '
		$1 == s && $2 == a { state = $3 }
		END { print a, state; exit state != want }'
}

# stands_by NODE ADDRESS: this weir leaves the address to another.
stands_by() {
	weir "$1" show announcements | awk -v a="$2" '
		$1 == a { rows++; state = $4; standby += $4 == "standby" }
		END { print a, state; exit !(rows && standby == rows) }'
}

# all_up NODE NUMBER: that many backends have passed their check, and none has not.
all_up() {
	weir "$1" show backends -o json | awk -v want="$2" '
		/"state": "up"/ { up++ }
		/"state": "(down|unknown)"/ { other++ }
		END { print up + 0, "up,", other + 0, "not"; exit !(up == want && !other) }'
}

# ports N: the first of N ports for a client's downloads. They are others in each run:
# for a minute after the last one the client has its connections still (TIME_WAIT).
ports() { echo $((10000 + RANDOM % (20000 / $1) * $1)); }

# flows NODE PORT N: the backends that this weir's flow table has for the N flows
# of clients from ports PORT and up, a line for each; fails if one is not there.
flows() {
	weir "$1" show flows --limit 100000 | awk -v from="$2" -v n="$3" '
		{ match($2, /[0-9]+$/); port = substr($2, RSTART) + 0 }
		$1 == "tcp" && port >= from && port < from + n { at[port] = $5 }
		END { for (p = from; p < from + n; p++) if (p in at) { print p, at[p]; seen++ }; exit seen != n }'
}

# same_flows NODE PORT N FLOWS: they are those.
same_flows() {
	local seen
	seen=$(flows "$1" "$2" "$3") || { printf 'not all are there: %s\n' "$seen"; return 1; }
	same "$seen" "$4"
}

# downloaded FILE N SIZE SINCE: the file has N downloads, all complete, of which
# none had ended by then.
downloaded() {
	awk -v n="$2" -v size="$3" -v since="$4" '
		{ print $2, $3, "bytes"; if ($2 == 200 && $3 == size && $4 > since) good++ }
		END { exit good != n || NR != n }' "$1"
}

# Large transfers -----------------------------------------------------------

# sum NODE FILE: its SHA-256.
sum() { on "$1" sha256sum "$2" | cut -d ' ' -f 1; }

# download NODE URL: what the node gets from there is what the backend has that
# answered.
download() {
	local seen
	seen=$(on "$1" bash /client.sh fetch "$2/large") || { echo "$seen"; return 1; }
	same "${seen#* }" "$(sum "${seen%% *}" /tmp/large)"
}

# upload NODE URL: what the node sends there is what the backend gets.
upload() {
	local backend name=$RANDOM$RANDOM
	backend=$(on "$1" bash /client.sh put /tmp/sent "$2/upload/$name") || { echo "$backend"; return 1; }
	same "$(sum "$backend" "/tmp/upload/$name")" "$(sum "$1" /tmp/sent)"
}

# Requests that go on while something happens -------------------------------

# requests NAME NODE SECONDS CURL-ARGUMENTS...: has a node ask for a page again and
# again, in the background, until the end of this check or `stop_requests`. One that
# has no connection after SECONDS has failed. All that it saw is in $scratch/NAME, as
# client.sh prints it. Where none may fail, SECONDS is large: a slow machine is no
# reason.
jobs_running=()
requests() {
	local name=$1 node=$2 seconds=$3
	shift 3
	on "$node" bash /client.sh requests "$stop" "$seconds" "$@" >"$scratch/$name" &
	jobs_running+=("$node:$!")
}

stop_requests() {
	local job
	for job in "${jobs_running[@]}"; do
		on "${job%%:*}" touch "$stop" || true
	done
	for job in "${jobs_running[@]}"; do
		wait "${job##*:}" || true
	done
	for job in "${jobs_running[@]}"; do
		on "${job%%:*}" rm -f "$stop" || true
	done
	jobs_running=()
}

# answered NAME NUMBER: so many requests of those have been answered.
answered() {
	local n
	n=$(awk '$3 == "ok"' "$scratch/$1" | wc -l)
	echo "$n answered"
	[ "$n" -ge "$2" ]
}

# recovered NAME TIME: a request that began after that time was answered.
recovered() {
	awk -v since="$2" '$1 > since && $3 == "ok" { good = 1 } END { print NR, "requests"; exit !good }' "$scratch/$1"
}

# count NAME: how many requests there were.
count() { wc -l <"$scratch/$1" | tr -d ' '; }

# failures NAME [SINCE]: how many of them failed, or of those that began since then.
failures() { awk -v since="${2:-0}" '$1 > since && $3 != "ok" { n++ } END { print n + 0 }' "$scratch/$1"; }

# outage NAME: for how many seconds none succeeded, at the worst: from the end of
# the last one that did to the end of the next.
outage() {
	awk '$3 == "ok" { if (failing && $2 - last > worst) worst = $2 - last; last = $2; failing = 0; next }
		{ failing = 1 }
		END { printf "%.2f\n", worst }' "$scratch/$1"
}

# failing NAME: for how many seconds requests failed now and then: from the begin
# of the first that did to the end of the last.
failing() {
	awk '$3 != "ok" { if (!n++) first = $1; last = $2 } END { printf "%.2f\n", last - first }' "$scratch/$1"
}

# saw NAME TEXT [SINCE]: how many of the answers, or of those to requests that
# began since then, have that word in them.
saw() {
	awk -v word="$2" -v since="${3:-0}" '
		$1 > since && $3 == "ok" { for (i = 4; i <= NF; i++) if ($i == word) { n++; break } }
		END { print n + 0 }' "$scratch/$1"
}

# saw_some NAME TEXT [SINCE]: there was one at least.
saw_some() { [ "$(saw "$@")" -gt 0 ]; }

# report NAME WHAT: says how requests have fared.
report() {
	local failed
	failed=$(failures "$1")
	if [ "$failed" = 0 ]; then
		printf '    %s: %s requests, none failed\n' "$2" "$(count "$1")"
	else
		printf '    %s: %s requests, %s failed, the longest time without one that succeeded: %s s\n' "$2" "$(count "$1")" "$failed" "$(outage "$1")"
	fi
}

end() {
	local status=$? node
	trap - EXIT
	[ ${#jobs_running[@]} -eq 0 ] || stop_requests
	if [ "$status" -ne 0 ]; then
		for node in ${WEIRS:-}; do
			printf '\n%s:\n' "$node"
			weir "$node" show backends || true
			weir "$node" show announcements || true
			weir "$node" show drops || true
		done
	fi
	rm -rf "$scratch"
	exit "$status"
}
