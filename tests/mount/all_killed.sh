#!/usr/bin/env bash
# all_killed.sh - every node killed at once and restarted: no holder survived, so every lock is free; what
# was granted before is remembered, so tokens go on growing.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3 --ttl 2s

all_nodes_killed_and_restarted_leave_every_lock_free_and_tokens_growing() {
	local round i last=0
	for round in 1 2 3; do
		for i in 1 2 3; do
			hold "h$i" "$i" "lock$i"
			hold "s$i" "$i" common -s
			[ "$(token_of "h$i")" -gt "$last" ] || fail "token $(token_of "h$i") in round $round, after $last"
		done
		grab waiter 1 lock2
		wait_until 5 waiters_are 1 lock2 1
		last=$(token_of h1)
		for i in 2 3; do
			[ "$(token_of "h$i")" -le "$last" ] || last=$(token_of "h$i")
		done
		kill -KILL "$(node_pid 1)" "$(node_pid 2)" "$(node_pid 3)"
		mc up
		for i in 1 2 3; do
			within 5000 flock -w 5 "$(lock "$i" "lock$(((i % 3) + 1))")" true
			within 5000 flock -w 5 "$(lock "$i" common)" true
		done
		for i in 1 2 3; do
			drop "h$i"
			drop "s$i"
		done
		drop waiter
	done
}

run_cases all_nodes_killed_and_restarted_leave_every_lock_free_and_tokens_growing
