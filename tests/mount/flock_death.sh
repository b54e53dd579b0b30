#!/usr/bin/env bash
# flock_death.sh - whatever dies, its lock is free: at once where a process died, within the session's
# TTL plus one second where a node did. What only waited leaves nothing.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

TTL_MS=2000
cluster_up 3 --ttl ${TTL_MS}ms

a_killed_holder_frees_its_lock_at_once() {
	local i
	for i in 1 2 3 4 5; do
		hold a 1 victim
		grab b 2 victim
		wait_until 5 waiters_are 1 victim 1
		drop a
		within 1000 wait_until 1 has b
		drop b
		within 1000 wait_until 1 is_free 2 victim
	done
}

a_killed_holder_frees_its_lock_for_its_own_mount_too() {
	hold a 1 victim
	drop a
	within 1000 flock -w 1 "$(lock 1 victim)" true
}

a_killed_node_frees_its_locks_within_the_ttl_and_a_second() {
	local node begin took
	for node in 2 "$(leader 1)"; do
		local asker=$((node % 3 + 1))
		hold a "$node" orphan
		grab b "$asker" orphan
		wait_until 5 waiters_are "$asker" orphan 1
		begin=$(now_ms)
		mc kill "$node"
		wait_until 10 has b
		took=$(($(now_ms) - begin))
		[ "$took" -le $(((TTL_MS + 1000) * SLOW)) ] || fail "free only after $took ms"
		[ "$(token_of b)" -gt "$(token_of a)" ] || fail "the token did not grow"
		drop a
		drop b
		mc start "$node"
	done
}

a_killed_waiter_leaves_nothing() {
	hold a 1 queue
	grab b 2 queue
	wait_until 5 waiters_are 1 queue 1
	grab c 3 queue
	wait_until 5 waiters_are 1 queue 2
	within 1000 drop b
	wait_until 2 waiters_are 1 queue 1
	drop a
	wait_until 2 has c
	drop c
	wait_until 2 is_free 1 queue
}

# A shell's Ctrl-C goes to the whole foreground: what waits must go, and at once.
an_interrupted_waiter_leaves_nothing() {
	local signal pid
	hold a 1 interrupted
	for signal in INT TERM HUP; do
		env --default-signal=INT,TERM,HUP flock "$(lock 2 interrupted)" true &
		pid=$!
		wait_until 5 waiters_are 1 interrupted 1
		kill "-$signal" "$pid"
		within 1000 wait_until 1 is_gone "$pid"
		wait_until 2 waiters_are 1 interrupted 0
	done
	drop a
	wait_until 2 is_free 1 interrupted
}

# The grant and the interrupt cross each other; whichever comes first, nobody is left with the lock.
a_grant_that_crosses_an_interrupt_leaves_no_ghost() {
	local i pid
	for i in $(seq 1 40); do
		hold a 1 crossing
		env --default-signal=INT flock "$(lock 2 crossing)" true &
		pid=$!
		wait_until 5 waiters_are 1 crossing 1
		kill -KILL "${process[a]}"
		kill -INT "$pid" || true # it may have had the lock already, and ended
		wait_until 5 is_gone "$pid"
		drop a
		within 2000 flock -w 2 "$(lock 3 crossing)" true
	done
	wait_until 2 is_free 1 crossing
	wait_until 2 is_free 2 crossing
}

a_killed_node_takes_its_waiters_along() {
	hold a 1 waited
	grab b 2 waited
	wait_until 5 waiters_are 1 waited 1
	mc kill 2
	wait_until 5 waiters_are 1 waited 0
	drop b
	drop a
	wait_until 2 is_free 1 waited
	mc start 2
}

run_cases \
	a_killed_holder_frees_its_lock_at_once \
	a_killed_holder_frees_its_lock_for_its_own_mount_too \
	a_killed_node_frees_its_locks_within_the_ttl_and_a_second \
	a_killed_waiter_leaves_nothing \
	an_interrupted_waiter_leaves_nothing \
	a_grant_that_crosses_an_interrupt_leaves_no_ghost \
	a_killed_node_takes_its_waiters_along
