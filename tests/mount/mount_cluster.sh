#!/usr/bin/env bash
# mount_cluster.sh - mount-cluster.sh does what its help says.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3

pids() { cat "$cluster"/node*/coordd.pid | xargs; }

state_of() { mc status | awk -v node="$1" '$1 == node { print $3 }'; }

all_take_locks() {
	local i
	for i in 1 2 3; do
		within 5000 flock -w 5 "$(lock "$i" taken)" true
	done
}

up_again_leaves_a_healthy_cluster_alone() {
	local before
	before=$(pids)
	mc up
	expect_equal "$before" "$(pids)" "pids"
}

up_repairs_whatever_is_wrong() {
	mc kill 1
	mc pause 2
	umount -l "$(mnt 3)" || fusermount3 -uz "$(mnt 3)"
	mc up
	all_take_locks
	mc stop 3
	mc up
	all_take_locks
}

status_tells_running_paused_and_dead() {
	expect_equal running "$(state_of 1)" "node 1"
	mc pause 2
	expect_equal paused "$(state_of 2)" "node 2"
	mc kill 3
	expect_equal dead "$(state_of 3)" "node 3"
	mc resume 2
	expect_equal running "$(state_of 2)" "node 2"
	mc start 3
	expect_equal running "$(state_of 3)" "node 3"
	grep -q leader <<<"$(mc status)"
}

a_taken_port_is_named() {
	local answer
	expect_status 1 "$SOURCE/mount-cluster.sh" up --dir "$work/second" --port "$port" 2>"$work/error"
	answer=$(grep "^mount-cluster.sh: port $port is taken" "$work/error")
	[ -n "$answer" ]
	expect_status 1 mc up --port $((port + 8))
}

# A pid that the system has given to somebody else since is nobody's business.
a_reused_pid_is_not_touched() {
	local bystander
	mc kill 1
	sleep infinity &
	bystander=$!
	echo "$bystander" >"$cluster/node1/coordd.pid"
	expect_equal dead "$(state_of 1)" "node 1"
	expect_status 1 mc kill 1
	expect_status 1 mc stop 1
	mc start 1
	kill -0 "$bystander"
	kill "$bystander"
}

a_callers_descriptors_do_not_live_on_in_a_node() {
	mc kill 2
	exec 9>"$(lock 1 callers)"
	flock 9
	mc start 2
	exec 9>&-
	within 2000 flock -w 2 "$(lock 3 callers)" true
}

logs_shows_the_log() {
	grep -q . <<<"$(mc logs 1)"
	expect_status 1 mc logs 9
}

the_demo_tells_its_story_and_mends_what_it_broke() {
	local begin
	begin=$(now_ms)
	mc demo
	note "the demo took $(($(now_ms) - begin)) ms"
	[ $(($(now_ms) - begin)) -le $((12000 * SLOW)) ] || fail "the demo took $(($(now_ms) - begin)) ms"
	all_take_locks
}

what_makes_no_sense_is_refused_and_help_is_everywhere() {
	local verb
	for verb in up down status stop start kill pause resume logs demo; do
		grep -q '^usage:' <<<"$(mc "$verb" --help)"
	done
	for verb in stop start kill pause resume logs; do
		expect_status 2 mc "$verb"
		expect_status 2 mc "$verb" none
		expect_status 1 mc "$verb" 7
	done
	expect_status 2 mc dance
	expect_status 2 mc up -n 0
	expect_status 2 mc up -n many
	expect_status 2 mc up --port 99999
	expect_status 2 mc up --dir
	expect_status 1 mc up -n 2
	expect_status 1 "$SOURCE/mount-cluster.sh" status --dir "$work/nowhere"
	[ ! -e "$work/nowhere" ]
}

# Options may stand on either side of the verb; a directory may have any name.
one_node_in_a_directory_with_spaces() {
	local dir="$work/a small cluster" first
	"$SOURCE/mount-cluster.sh" --dir "$dir" up -n 1 --port $((port + 8))
	first=$(flock "$dir/mnt1/locks/x" getfattr -n user.coordfs.token --only-values "$dir/mnt1/locks/x")
	"$SOURCE/mount-cluster.sh" --dir "$dir" down
	expect_failure grep -F 'a\040small' /proc/self/mountinfo
	"$SOURCE/mount-cluster.sh" --dir "$dir"
	[ "$(flock "$dir/mnt1/locks/x" getfattr -n user.coordfs.token --only-values "$dir/mnt1/locks/x")" -gt "$first" ]
	"$SOURCE/mount-cluster.sh" down --dir "$dir"
}

run_cases \
	up_again_leaves_a_healthy_cluster_alone \
	up_repairs_whatever_is_wrong \
	status_tells_running_paused_and_dead \
	a_taken_port_is_named \
	a_reused_pid_is_not_touched \
	a_callers_descriptors_do_not_live_on_in_a_node \
	logs_shows_the_log \
	the_demo_tells_its_story_and_mends_what_it_broke \
	what_makes_no_sense_is_refused_and_help_is_everywhere \
	one_node_in_a_directory_with_spaces
