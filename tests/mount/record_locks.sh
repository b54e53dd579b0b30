#!/usr/bin/env bash
# record_locks.sh - fcntl(2) locks of byte ranges on two mounts behave as on one local file.
#
# What the processes do is in record_locks.py; here is what needs the cluster.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

TTL_MS=2000
cluster_up 3 --ttl ${TTL_MS}ms --lost-signal none

# records CASE LOCK [FILE]: on nodes 1 and 2.
records() {
	local case=$1 name=$2
	shift 2
	timeout $((60 * SLOW)) python3 "$SOURCE/tests/mount/record_locks.py" \
		"$case" "$(lock 1 "$name")" "$(lock 2 "$name")" "$@"
	wait_until 5 is_free 3 "$name"
}

ranges_exclude_over_two_mounts() { records "${FUNCNAME[0]}" ranges; }
getlk_says_what_is_in_the_way() { records "${FUNCNAME[0]}" test; }
any_close_by_the_process_ends_posix_locks() { records "${FUNCNAME[0]}" close; }
ofd_locks_end_with_their_description() { records "${FUNCNAME[0]}" ofd; }
a_child_inherits_no_posix_lock() { records "${FUNCNAME[0]}" fork; }
flock_and_fcntl_exclude_each_other() { records "${FUNCNAME[0]}" mixed; }
a_wait_is_granted_when_its_range_is_free() { records "${FUNCNAME[0]}" wait; }
a_killed_holder_frees_its_ranges() { records "${FUNCNAME[0]}" killed; }
an_interrupted_wait_leaves_what_was_held() { records "${FUNCNAME[0]}" interrupted; }
a_killed_waiter_leaves_nothing() { records "${FUNCNAME[0]}" waiter; }
a_grant_that_crosses_an_interrupt_is_told_as_the_log_says() { records "${FUNCNAME[0]}" crossing; }
the_exclusive_holder_of_all_writes_the_value() { records "${FUNCNAME[0]}" value; }
lockf_locks_from_where_it_stands() { records "${FUNCNAME[0]}" lockf; }
random_calls_answer_as_on_a_local_file() { records "${FUNCNAME[0]}" random "$work/local"; }

a_lost_session_is_told_to_who_holds() {
	records "${FUNCNAME[0]}" lost "$work/ready" &
	wait_until 10 test -e "$work/ready"
	mc pause 2
	mc pause 3
	wait_until 10 lease_is_gone 1
	mc resume 2
	mc resume 3
	wait $!
}

lease_is_gone() { [ "$(raft "$1" .lease_ms)" = 0 ]; } # NODE

run_cases \
	ranges_exclude_over_two_mounts \
	getlk_says_what_is_in_the_way \
	any_close_by_the_process_ends_posix_locks \
	ofd_locks_end_with_their_description \
	a_child_inherits_no_posix_lock \
	flock_and_fcntl_exclude_each_other \
	a_wait_is_granted_when_its_range_is_free \
	a_killed_holder_frees_its_ranges \
	an_interrupted_wait_leaves_what_was_held \
	a_killed_waiter_leaves_nothing \
	a_grant_that_crosses_an_interrupt_is_told_as_the_log_says \
	the_exclusive_holder_of_all_writes_the_value \
	lockf_locks_from_where_it_stands \
	random_calls_answer_as_on_a_local_file \
	a_lost_session_is_told_to_who_holds
