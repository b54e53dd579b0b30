#!/usr/bin/env bash
# never_hang.sh - with the majority gone everything still answers: from memory what can be, with ETIMEDOUT
# after `timeo` what cannot, and any wait can be interrupted.
#
# Once with the others killed, and once with the others stopped, whose connections stay open.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

TIMEO_MS=3000
cluster_up 3 --ttl 2s --timeo ${TIMEO_MS}ms

takes_locks() { timeout 2 flock -n "$(lock "$1" takes)" true; }

everything_local_answers() {
	local file
	within 1000 ls -l "$(mnt 1)"
	within 1000 ls -l "$(mnt 1)/locks" "$(mnt 1)/queues" "$(mnt 1)/cache" "$(mnt 1)/status"
	within 1000 df "$(mnt 1)"
	within 1000 stat "$(mnt 1)" "$(mnt 1)/locks" "$(mnt 1)/status"
	for file in raft nodes sessions locks version; do
		within 1000 cat "$(mnt 1)/status/$file"
		jq -e . "$(mnt 1)/status/$file"
	done
}

# gives_up COMMAND...: fails with ETIMEDOUT, neither before nor long after timeo.
gives_up() {
	local begin took rc=0
	begin=$(now_ms)
	timeout $((10 * SLOW)) "$@" 2>"$work/error" || rc=$?
	took=$(($(now_ms) - begin))
	case $rc in
	0 | 124) fail "exit status $rc: $*" ;;
	esac
	grep -q 'timed out' "$work/error" || fail "said $(cat "$work/error")"
	[ "$took" -ge $((TIMEO_MS - 500)) ] || fail "gave up after $took ms"
	[ "$took" -le $(((TIMEO_MS + 2000) * SLOW)) ] || fail "gave up only after $took ms"
}

waits_and_is_interrupted() {
	local signal pid
	for signal in INT TERM; do
		env --default-signal=INT,TERM flock "$(lock 1 alone)" true &
		pid=$!
		wait_until 5 sleeps_in_flock "$pid"
		kill "-$signal" "$pid"
		wait_until 2 is_gone "$pid"
	done
}

# Its flock(2) is under way: the process sleeps, in the system call of that number.
sleeps_in_flock() { grep -q '^73 ' "/proc/$1/syscall" || [ "$(uname -m)" != x86_64 ]; }

# without_a_majority VERB UNDO: nodes 2 and 3 go by VERB and come back by UNDO.
without_a_majority() {
	hold a 1 held -p -r
	mc "$1" 2
	mc "$1" 3
	everything_local_answers
	wait_until 10 told a error # the lease has run out
	expect_equal EIO "$(event a error 2)" "the holder's I/O"
	everything_local_answers
	gives_up flock -n "$(lock 1 alone)" true
	gives_up flock -n "$(lock 1 held)" true
	waits_and_is_interrupted
	mc "$2" 2
	mc "$2" 3
	wait_until 20 takes_locks 1
	wait_until 20 takes_locks 2
	within 5000 flock -w 5 "$(lock 3 held)" true
	within 5000 flock -w 5 "$(lock 2 alone)" true
	drop a
}

with_the_others_killed_nothing_hangs() {
	without_a_majority kill start
}

with_the_others_stopped_nothing_hangs() {
	without_a_majority pause resume
}

# A wait that began in good times has no time limit, whatever becomes of leader and session meanwhile.
a_blocked_wait_survives_the_loss_of_the_majority() {
	hold a 1 patient -p -r
	grab b 1 patient
	wait_until 5 waiters_are 1 patient 1
	mc kill 2
	mc kill 3
	wait_until 10 told a error
	gives_up flock -n "$(lock 1 alone)" true
	has_not b
	kill -0 "${process[b]}"
	mc start 2
	wait_until 20 has b
	[ "$(token_of b)" -gt "$(token_of a)" ] || fail "the token did not grow"
	mc start 3
	expect_status 1 flock -n "$(lock 3 patient)" true
	drop b
	drop a
}

a_blocked_wait_survives_the_loss_of_the_leader() {
	local old node
	old=$(leader 1)
	node=$((old % 3 + 1))
	hold a "$node" patient
	grab b "$node" patient
	wait_until 5 waiters_are "$node" patient 1
	mc kill "$old"
	wait_until 10 takes_locks "$node"
	has_not b
	drop a
	wait_until 10 has b
	mc start "$old"
	drop b
}

run_cases \
	with_the_others_killed_nothing_hangs \
	with_the_others_stopped_nothing_hangs \
	a_blocked_wait_survives_the_loss_of_the_majority \
	a_blocked_wait_survives_the_loss_of_the_leader
