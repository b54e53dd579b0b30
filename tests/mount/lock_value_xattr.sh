#!/usr/bin/env bash
# lock_value_xattr.sh - what a lock file says: its value, and the attributes token, mode, holders, waiters.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3

attribute() { getfattr -n "user.coordfs.$3" --only-values "$(lock "$1" "$2")"; } # NODE NAME ATTRIBUTE

descriptor_mode_is() {
	[ "$(getfattr -n user.coordfs.mode --only-values /proc/self/fd/9)" = "$1" ]
}

mode_is() { [ "$(attribute "$1" "$2" mode)" = "$3" ]; }

# Another node may hear of a write, as of a grant, a moment later.
reads() { [ "$(cat "$(lock "$1" "$2")")" = "$3" ]; } # NODE NAME VALUE

the_holder_writes_a_value_and_everyone_reads_it() {
	local i
	exec 9>"$(lock 1 value)"
	flock 9
	echo "leader is node 1" >&9
	for i in 1 2 3; do
		wait_until 5 reads "$i" value "leader is node 1"
	done
	exec 9>&-
}

opening_with_truncation_changes_nothing() {
	exec 9>"$(lock 1 trunc)"
	flock 9
	echo kept >&9
	exec 8>"$(lock 2 trunc)"
	wait_until 5 reads 2 trunc kept
	exec 8>&- 9>&-
}

write_to() { echo "$2" >"$1"; }

only_the_exclusive_holder_writes() {
	hold a 1 writing
	expect_failure write_to "$(lock 2 writing)" intruder 2>"$work/error"
	grep -q 'not permitted' "$work/error"
	expect_failure write_to "$(lock 1 writing)" intruder
	wait_until 5 reads 3 writing ""
	drop a
	exec 9>"$(lock 1 writing)"
	flock -s 9
	expect_failure sh -c 'echo reader >&9'
	flock -u 9
	expect_failure sh -c 'echo nobody >&9'
	exec 9>&-
}

a_value_has_four_kibibytes() {
	exec 9>"$(lock 1 big)"
	flock 9
	head -c 4096 /dev/zero | tr '\0' x >&9
	wait_until 5 reads 2 big "$(head -c 4096 /dev/zero | tr '\0' x)"
	expect_failure eval 'echo more >&9' 2>"$work/error"
	grep -q 'too large' "$work/error"
	exec 9>&-
}

the_value_goes_when_the_lock_becomes_free() {
	exec 9>"$(lock 1 gone)"
	flock 9
	echo mine >&9
	flock -u 9
	hold b 2 gone
	expect_equal "" "$(cat "$(lock 2 gone)")" "value for the next holder"
	wait_until 5 reads 1 gone ""
	drop b
	exec 9>&-
}

the_mode_says_who_holds() {
	exec 9>"$(lock 1 mode)"
	flock -s 9
	wait_until 5 mode_is 2 mode shared
	flock -x 9
	wait_until 5 mode_is 2 mode exclusive
	flock -u 9
	# Nobody holds it, so the name is gone; the descriptor still knows.
	wait_until 5 descriptor_mode_is free
	exec 9>&-
}

holders_and_waiters_are_listed() {
	hold a 1 listed
	grab b 2 listed
	wait_until 5 waiters_are 3 listed 1
	wait_until 5 waiters_are 1 listed 1
	attribute 3 listed holders | grep -q .
	attribute 3 listed waiters | grep -q .
	expect_equal "1 mount_locker" \
		"$(lock_report 1 listed | jq -r '.holders[0] | "\(.node) \(.command)"')" "holder"
	expect_equal "${process[a]}" "$(lock_report 3 listed | jq -r '.holders[0].pid')" "pid of the holder"
	expect_equal 2 "$(lock_report 1 listed | jq -r '.waiters[0].node')" "node of the waiter"
	drop b
	drop a
}

tokens_grow_from_holder_to_holder() {
	local i last=0
	for i in $(seq 1 30); do
		hold a $((i % 3 + 1)) growing
		expect_equal "$(token_of a)" "$(token $((i % 3 + 1)) growing)" "token seen by its holder"
		[ "$(token_of a)" -gt "$last" ] || fail "token $(token_of a) after $last"
		last=$(token_of a)
		drop a
	done
}

# `set` after `list` must say the same names; nothing else may be written there.
attributes_are_listed_and_read_only() {
	local name
	hold a 1 attributes
	for name in token mode holders waiters; do
		getfattr "$(lock 1 attributes)" | grep -qx "user.coordfs.$name"
	done
	expect_failure setfattr -n user.coordfs.token -v 1 "$(lock 1 attributes)"
	expect_failure getfattr -n user.other "$(lock 1 attributes)"
	drop a
}

run_cases \
	the_holder_writes_a_value_and_everyone_reads_it \
	opening_with_truncation_changes_nothing \
	only_the_exclusive_holder_writes \
	a_value_has_four_kibibytes \
	the_value_goes_when_the_lock_becomes_free \
	the_mode_says_who_holds \
	holders_and_waiters_are_listed \
	tokens_grow_from_holder_to_holder \
	attributes_are_listed_and_read_only
