#!/usr/bin/env bash
# leader_kill.sh - the leader is killed again and again under load: no lock is ever granted twice, none is
# lost, and service is back soon.
#
#   COORDFS_KILLS  how often (default 5)
#
# Workers on all mounts contend for one lock (see tests/mount/contend.c). On each mount another worker has
# a lock to itself: after a kill, the first grant that it asked for afterwards on a surviving node
# says when service is back. The lock that all contend for may take the session's TTL, if the killed
# node held it. Times are printed; only generous limits are asserted, for the machine may be busy.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

KILLS=${COORDFS_KILLS:-5}
BACK_LIMIT_MS=1500 # the contract; a busy machine gets SLOW times as much
cluster_up 3 --ttl 2s

# CLOCK_BOOTTIME; /proc/uptime counts in hundredths, rounded down.
boot_ms() { awk '{ printf "%d\n", $1 * 1000 + 10 }' /proc/uptime; }

start_workers() {
	local i
	mkdir -p "$work/state"
	for i in 1 2 3; do
		"$TOOLS/mount_contend" "$(lock "$i" shared)" "$work/state" "$work/shared$i" 2000 >"$work/said$i" 2>&1 &
		process[shared$i]=$!
		mkdir -p "$work/own$i.state"
		"$TOOLS/mount_contend" "$(lock "$i" "own$i")" "$work/own$i.state" "$work/own$i" 2000 >"$work/saidown$i" 2>&1 &
		process[own$i]=$!
	done
}

# first_after MS FILE...: when the first lock was granted that was asked for after MS.
first_after() {
	local since=$1
	shift
	awk -v since="$since" '$1 > since && (!first || $2 < first) { first = $2 } END { print first }' "$@"
}

granted_since() { [ -n "$(first_after "$@")" ]; }

leader_is_known() { [ "$(leader "$1" 2>/dev/null || echo 0)" -gt 0 ] 2>/dev/null; }

stop_workers() {
	local who
	for who in shared1 shared2 shared3 own1 own2 own3; do
		kill -INT "${process[$who]}"
	done
	for who in shared1 shared2 shared3 own1 own2 own3; do
		wait "${process[$who]}" || fail "$who: $(cat "$work"/said*)"
	done
}

no_double_grant_and_no_lost_lock_whoever_is_killed() {
	local i dead pid since own others back=()
	start_workers
	wait_until 10 granted_since 0 "$work/shared1"
	for ((i = 1; i <= KILLS; i++)); do
		wait_until 10 leader_is_known 1
		dead=$(leader 1)
		others=()
		for own in 1 2 3; do
			[ "$own" = "$dead" ] || others+=("$work/own$own")
		done
		pid=$(node_pid "$dead")
		kill -KILL "$pid"
		wait_until 5 is_gone "$pid"
		since=$(boot_ms)
		wait_until 10 granted_since "$since" "${others[@]}"
		back+=($(($(first_after "$since" "${others[@]}") - since)))
		wait_until 15 granted_since "$since" "$work"/shared*
		mc start "$dead"
		since=$(boot_ms)
		for own in 1 2 3; do
			wait_until 15 granted_since "$since" "$work/shared$own"
			wait_until 15 granted_since "$since" "$work/own$own"
		done
	done
	stop_workers
	note "service is back after ${back[*]} ms"
	every_grant_counts
	for i in "${back[@]}"; do
		[ "$i" -le $((BACK_LIMIT_MS * SLOW)) ] || fail "back only after $i ms"
	done
}

# The counter has exactly what the workers say they did, and no token came twice; that tokens rise,
# each worker has seen under the lock.
every_grant_counts() {
	local sum counted
	sum=$(cat "$work"/said[123] | awk '$1 == "grants" { sum += $2 } END { print sum }')
	counted=$(cut -d ' ' -f 1 "$work/state/counter")
	expect_equal "$sum" "$counted" "critical sections"
	expect_equal "" "$(cut -d ' ' -f 3 "$work"/shared[123] | sort -n | uniq -d)" "tokens granted twice"
}

run_cases no_double_grant_and_no_lost_lock_whoever_is_killed
