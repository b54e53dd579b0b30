#!/usr/bin/env bash
# restart_resume.sh - a coordd that dies and is back within the TTL takes its session up again; the locks of
# descriptors, which died with its mount, are released without waiting for the TTL.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3 --ttl 20s --lost-signal TERM

# restarts NODE
restarts() {
	local node=$1 other=$(($1 % 3 + 1)) session
	session=$(raft "$node" .session)
	hold old "$node" resumed
	grab new "$other" resumed
	wait_until 5 waiters_are "$other" resumed 1
	mc kill "$node"
	mc start "$node"
	expect_equal "$session" "$(raft "$node" .session)" "session after the restart"
	wait_until 5 has new # long before the TTL
	[ "$(token_of new)" -gt "$(token_of old)" ] || fail "the token did not grow"
	wait_until 5 is_gone "${process[old]}" # by the lost_signal
	drop old
	drop new
	within 5000 flock -w 5 "$(lock "$node" resumed)" true
}

a_restarted_follower_resumes_its_session() {
	restarts $(($(leader 1) % 3 + 1))
}

a_restarted_leader_resumes_its_session() {
	restarts "$(leader 1)"
}

run_cases \
	a_restarted_follower_resumes_its_session \
	a_restarted_leader_resumes_its_session
