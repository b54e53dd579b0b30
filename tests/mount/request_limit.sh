#!/usr/bin/env bash
# request_limit.sh - where the kernel has a limit for requests, a wait ends before it and the mount lives on.
#
# The sysctl itself belongs to the whole machine, so it stays as it is: the test runs in a mount
# namespace of its own, where the daemons read another number. The kernel's part is not tested.

LIMIT_S=15 # the least that the kernel takes
SYSCTL=/proc/sys/fs/fuse/max_request_timeout

if [ "$(id -u)" = 0 ] && [ -e $SYSCTL ] && [ -z "${COORDFS_OWN_NAMESPACE:-}" ]; then
	COORDFS_OWN_NAMESPACE=1 exec unshare --mount --propagation private -- "$0" "$@"
fi

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

[ -n "${COORDFS_OWN_NAMESPACE:-}" ] || skip_all "needs root and a kernel with $SYSCTL"
echo $LIMIT_S >"$work/limit"
mount --bind "$work/limit" $SYSCTL
cluster_up 3
umount $SYSCTL # it was read when they mounted

# gives_up NODE LOCK: flock fails with ETIMEDOUT, after most of the limit and before its end.
gives_up() {
	local begin took rc=0 error=$work/error.$BASHPID
	begin=$(now_ms)
	LC_ALL=C flock "$(lock "$1" "$2")" true 2>"$error" || rc=$?
	took=$(($(now_ms) - begin))
	[ "$rc" != 0 ] || fail "got the lock"
	grep -q 'timed out' "$error" || fail "said $(cat "$error")"
	[ "$took" -ge $((LIMIT_S * 600)) ] || fail "gave up after $took ms"
	[ "$took" -lt $((LIMIT_S * 1000)) ] || fail "gave up only after $took ms"
}

waits_end_before_the_limit_and_leave_nothing() {
	local node pid
	local -a waits=()
	hold a 1 limited
	for node in 2 3 2; do
		gives_up "$node" limited &
		waits+=($!)
		wait_until 5 waiters_are 1 limited ${#waits[@]}
	done
	for pid in "${waits[@]}"; do
		wait "$pid"
	done
	wait_until 5 waiters_are 1 limited 0
	expect_status 1 flock -n "$(lock 2 limited)" true
	drop a
	within 2000 flock -w 2 "$(lock 2 limited)" true
}

a_reader_of_events_gets_a_line_before_the_limit() {
	within $((LIMIT_S * 1000)) head -n1 "$(mnt 3)/status/events" >"$work/line"
	expect_equal events.idle "$(jq -r .event "$work/line")" "the line"
}

run_cases \
	waits_end_before_the_limit_and_leave_nothing \
	a_reader_of_events_gets_a_line_before_the_limit
