#!/usr/bin/env bash
# membership.sh - a node joins a living cluster, becomes a voter, and is removed again, while locks are taken.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3 --ttl 2s

# members BODY [SECRET]: POST /members to the leader; prints the answer and its status on a line each.
members() {
	curl -s -m 20 -w '\n%{http_code}\n' -H "Authorization: Bearer ${2:-$(cat "$cluster/secret")}" \
		-d "$1" "http://127.0.0.1:$((port + $(leader 1) - 1))/members"
}

is_voter() { raft 1 "any(.servers[]; .id == $1 and .voter)" | grep -qx true; }

is_no_member() { ! is_member "$1"; }

is_member() { raft 1 "any(.servers[]; .id == $1)" | grep -qx true; }

a_fourth_node_joins_and_becomes_a_voter() {
	hold a 1 joining
	mc up -n 4
	wait_until 20 is_voter 4
	expect_status 1 flock -n "$(lock 4 joining)" true
	grab b 4 joining
	wait_until 5 waiters_are 1 joining 1
	drop a
	wait_until 5 has b
	[ "$(token_of b)" -gt "$(token_of a)" ] || fail "the token did not grow"
	drop b
}

four_nodes_go_on_without_one() {
	mc kill "$(leader 1 | awk '{ print $1 % 3 + 2 }')"
	wait_until 10 timeout 2 flock -n "$(lock 1 three)" true
	mc up
}

a_restarted_newcomer_remembers_who_it_is() {
	mc stop 4
	mc start 4
	expect_equal 4 "$(raft 4 .id)" "id"
	within 5000 flock -w 5 "$(lock 4 again)" true
}

a_removed_node_is_no_member_and_the_rest_goes_on() {
	local answer
	[ "$(leader 1)" != 4 ] || mc stop 4
	answer=$(members '{"op":"remove","id":4}')
	expect_equal 200 "$(tail -n 1 <<<"$answer")" "status of $answer"
	wait_until 10 is_no_member 4
	within 5000 flock -w 5 "$(lock 1 removed)" true
	within 5000 flock -w 5 "$(lock 3 removed)" true
}

bad_requests_are_refused_with_a_reason() {
	local answer body
	for body in '{"op":"remove","id":77}' '{"op":"promote","id":77}' '{"op":"dance"}' '{"op":' '[]' \
		'{"op":"add"}' '{"op":"add","addr":"nonsense"}' '{"op":"remove","id":-1}' '{"op":"remove","id":"x"}' ''; do
		answer=$(members "$body")
		grep -qE '^4[0-9][0-9]$' <<<"$(tail -n 1 <<<"$answer")" || fail "'$body' was answered $answer"
		head -n 1 <<<"$answer" | jq -e '.error and .message' || fail "'$body' was answered $answer"
	done
	expect_equal 401 "$(members '{"op":"remove","id":3}' 'not the secret at all' | tail -n 1)" "status"
	is_member 3
}

run_cases \
	a_fourth_node_joins_and_becomes_a_voter \
	four_nodes_go_on_without_one \
	a_restarted_newcomer_remembers_who_it_is \
	a_removed_node_is_no_member_and_the_rest_goes_on \
	bad_requests_are_refused_with_a_reason
