#!/usr/bin/env bash
# pause_node.sh - a node stopped for longer than its lease, and resumed: others hold its locks by then with
# larger tokens, and its own holders learn it from their next I/O and by the lost_signal.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3 --ttl 2s --lost-signal TERM

# pauses NODE: the whole story, with NODE's holder losing its lock to another node.
pauses() {
	local node=$1 other=$(($1 % 3 + 1))
	hold old "$node" paused -p -r
	grab new "$other" paused
	wait_until 5 waiters_are "$other" paused 1
	mc pause "$node"
	wait_until 8 has new
	[ "$(token_of new)" -gt "$(token_of old)" ] || fail "the token did not grow"
	mc resume "$node"
	wait_until 5 told old error
	wait_until 5 told old signal
	expect_equal EIO "$(event old error 2)" "the holder's next I/O"
	expect_equal TERM "$(event old signal 2)" "the signal to the holder"
	# The node goes on with a new session, and the lock belongs to the other one.
	wait_until 10 takes_locks "$node"
	expect_status 1 flock -n "$(lock "$node" paused)" true
	drop new
	within 5000 flock -w 5 "$(lock "$node" paused)" true
	drop old
}

takes_locks() { timeout 2 flock -n "$(lock "$1" takes)" true; }

a_paused_follower_loses_its_locks_and_knows_it() {
	local node=$(($(leader 1) % 3 + 1))
	pauses "$node"
}

a_paused_leader_loses_its_locks_and_knows_it() {
	pauses "$(leader 1)"
}

a_pause_within_the_lease_changes_nothing() {
	local node=$(($(leader 1) % 3 + 1)) session
	session=$(raft "$node" .session)
	hold old "$node" short -p -r
	mc pause "$node"
	mc resume "$node"
	expect_status 1 timeout 5 flock -n "$(lock $((node % 3 + 1)) short)" true
	expect_equal "$session" "$(raft "$node" .session)" "session"
	if told old error || told old signal; then
		fail "the holder was told: $(cat "$work/old")"
	fi
	drop old
}

run_cases \
	a_paused_follower_loses_its_locks_and_knows_it \
	a_paused_leader_loses_its_locks_and_knows_it \
	a_pause_within_the_lease_changes_nothing
