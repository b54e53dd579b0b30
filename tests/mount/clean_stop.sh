#!/usr/bin/env bash
# clean_stop.sh - SIGTERM: leadership is handed over, the session is closed at once, the mount is gone.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3 --ttl 20s

is_unmounted() { ! grep -qF " $(mnt "$1") " /proc/self/mountinfo; }

# stops NODE: its locks go to who waits, without the TTL.
stops() {
	local node=$1 other=$(($1 % 3 + 1)) begin
	hold old "$node" stopped
	grab new "$other" stopped
	wait_until 5 waiters_are "$other" stopped 1
	begin=$(now_ms)
	kill -TERM "$(node_pid "$node")"
	wait_until 2 has new
	note "$(raft "$other" .role) sees the lock of a stopped node after $(($(now_ms) - begin)) ms"
	wait_until 5 is_unmounted "$node"
	drop old
	drop new
	mc start "$node"
}

the_locks_of_a_stopped_follower_are_free_at_once() {
	stops $(($(leader 1) % 3 + 1))
}

the_locks_of_a_stopped_leader_are_free_at_once() {
	stops "$(leader 1)"
}

has_another_leader() { # ASKED OLD
	local now
	now=$(leader "$1")
	[ "$now" -gt 0 ] && [ "$now" != "$2" ]
}

a_stopping_leader_hands_over() {
	local old other begin
	old=$(leader 1)
	other=$((old % 3 + 1))
	begin=$(now_ms)
	kill -TERM "$(node_pid "$old")"
	wait_until 2 has_another_leader "$other" "$old"
	note "another leader after $(($(now_ms) - begin)) ms"
	within 1000 flock -n "$(lock "$other" handed)" true
	mc start "$old"
}

# The one that is asked to stop while nobody can take its word still ends, and in time.
the_last_nodes_stop_without_a_majority() {
	mc stop 1
	mc stop 2
	within 10000 mc stop 3
	mc up
	within 5000 flock -w 5 "$(lock 1 again)" true
}

a_mount_in_use_is_no_obstacle() {
	(
		cd "$(mnt 2)/locks"
		within 10000 mc stop 2
	)
	is_unmounted 2
	mc start 2
}

run_cases \
	the_locks_of_a_stopped_follower_are_free_at_once \
	the_locks_of_a_stopped_leader_are_free_at_once \
	a_stopping_leader_hands_over \
	the_last_nodes_stop_without_a_majority \
	a_mount_in_use_is_no_obstacle
