#!/usr/bin/env bash
# many_waiters.sh - ten thousand blocked waiters on one node cost memory, and nothing else: everything
# else answers, all get the lock in the order in which they asked, and their death leaves nothing.
#
#   COORDFS_WAITERS  how many (default 10000)

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

COUNT=${COORDFS_WAITERS:-10000}

cluster_up 3

said() { grep -q "^$1" "$work/waiters.out"; }

# block LOCK COUNT: that many threads wait for LOCK, which somebody else holds.
block() {
	local begin
	begin=$(now_ms)
	rm -f "$work/waiters.out"
	env --default-signal=INT "$TOOLS/mount_waiters" "$(lock 1 "$1")" "$2" >"$work/waiters.out" 2>&1 &
	process[waiters]=$!
	wait_until 120 said_or_ended blocked
	if ! said blocked; then
		wait "${process[waiters]}" || [ $? != 77 ] || skip "$(cat "$work/waiters.out")"
		fail "the waiters ended: $(cat "$work/waiters.out")"
	fi
	wait_until 60 waiters_are 1 "$1" "$2"
	note "$2 wait after $(($(now_ms) - begin)) ms"
}

said_or_ended() { said "$1" || is_gone "${process[waiters]}"; }

everything_answers() {
	within 1000 ls "$(mnt 1)" "$(mnt 1)/status"
	within 1000 df "$(mnt 1)"
	within 1000 stat "$(mnt 1)/locks"
	within 1000 cat "$(mnt 1)/status/raft"
	within 1000 flock -n "$(lock 1 another)" true
	within 1000 flock -n "$(lock 2 yet_another)" true
	expect_status 1 timeout 2 flock -n "$(lock 2 crowded)" true
	expect_status 1 timeout 2 flock -n "$(lock 1 crowded)" true
}

all_get_the_lock_in_order_and_everything_else_answers() {
	local begin
	hold a 2 crowded
	block crowded "$COUNT"
	everything_answers
	begin=$(now_ms)
	drop a
	wait_until 5 said_or_ended "granted $((COUNT / 10))"
	within 1000 flock -n "$(lock 1 another)" true
	wait_until 180 is_gone "${process[waiters]}"
	wait "${process[waiters]}"
	said "in order"
	note "$COUNT were served in $(($(now_ms) - begin)) ms"
	within 2000 flock -w 2 "$(lock 3 crowded)" true
}

killed_while_all_wait_they_leave_nothing() {
	local begin
	hold a 2 killed
	block killed "$COUNT"
	begin=$(now_ms)
	within 60000 drop waiters
	wait_until 60 waiters_are 2 killed 0
	note "killed, all $COUNT are gone after $(($(now_ms) - begin)) ms"
	drop a
	within 2000 flock -w 2 "$(lock 3 killed)" true
	wait_until 10 is_free 1 killed
}

killed_while_they_are_served_they_leave_nothing() {
	hold a 2 served
	block served $((COUNT / 5))
	drop a
	wait_until 60 said "granted $((COUNT / 50))"
	within 30000 drop waiters
	within 60000 flock -w 60 "$(lock 3 served)" true
	wait_until 60 is_free 2 served
}

interrupted_they_leave_nothing() {
	hold a 2 interrupted
	block interrupted $((COUNT / 5))
	kill -INT "${process[waiters]}"
	wait_until 30 is_gone "${process[waiters]}"
	wait_until 60 waiters_are 2 interrupted 0
	drop a
	within 2000 flock -w 2 "$(lock 1 interrupted)" true
}

run_cases \
	all_get_the_lock_in_order_and_everything_else_answers \
	killed_while_all_wait_they_leave_nothing \
	killed_while_they_are_served_they_leave_nothing \
	interrupted_they_leave_nothing
