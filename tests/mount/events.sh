#!/usr/bin/env bash
# events.sh - status/events as a stream for shells, tail and poll; a holder learns that others wait.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3

events() { echo "$cluster/mnt$1/status/events"; } # NODE

# follow WHO NODE: a process called WHO that copies the node's events to $work/WHO from here on.
# It has opened the stream when this returns.
follow() {
	mkfifo "$work/$1.opened"
	(
		exec <"$(events "$2")"
		echo >"$work/$1.opened"
		exec cat >"$work/$1"
	) &
	process[$1]=$!
	read -r _ <"$work/$1.opened"
	rm "$work/$1.opened"
}

# saw WHO FILTER: one of the lines has been like that.
saw() { jq -e -s "any(.[]; $2)" "$work/$1" >/dev/null; }

is_empty() { [ ! -s "$1" ]; }

lines_are() { [ "$(wc -l <"$1")" = "$2" ]; } # FILE COUNT

a_reader_sees_every_step_of_a_lock_on_any_node() {
	follow reader 3
	hold a 1 steps
	grab b 2 steps -s
	wait_until 5 waiters_are 3 steps 1
	drop a
	wait_until 5 has b
	drop b
	wait_until 5 saw reader '.event == "lock.released" and .node == 2'
	expect_equal "lock.granted exclusive 1
lock.waiting shared 2
lock.released exclusive 1
lock.granted shared 2
lock.released shared 2" \
		"$(jq -r 'select(.lock == "steps") | "\(.event) \(.mode) \(.node)"' "$work/reader")" "steps"
	saw reader ".event == \"lock.granted\" and .node == 1 and .token == $(token_of a) and .pid > 0"
	jq -e -s '[.[].n] | . == sort and . == unique' "$work/reader"
	drop reader
}

a_wait_that_is_given_up_is_told() {
	follow reader 1
	hold a 1 patience
	expect_status 1 flock -w 0.2 "$(lock 2 patience)" true
	wait_until 5 saw reader '.event == "lock.cancelled" and .lock == "patience" and .node == 2'
	drop a
	drop reader
}

ordinary_tools_read_it() {
	local file pid tools=()
	file=$(events 2)
	timeout 20 head -n1 "$file" >"$work/head" & tools+=($!)
	timeout 20 grep -m1 tooled "$file" >"$work/grep" & tools+=($!)
	tail -f "$file" >"$work/tail" & process[tail]=$!
	tail -n0 -f "$file" >"$work/tail0" & process[tail0]=$!
	# shellcheck disable=SC2016 # for the inner shell
	timeout 20 bash -c 'n=0; while read -r line; do echo "$line"; [ "$((++n))" -lt 4 ] || exit 0; done' \
		<"$file" >"$work/read" & tools+=($!)
	timeout 20 python3 -u -c 'import sys
for i, line in enumerate(sys.stdin):
    sys.stdout.write(line)
    if i == 3:
        break' <"$file" >"$work/python" & tools+=($!)
	wait_until 10 test -s "$work/tail" # it shows what has been kept

	while :; do
		flock "$(lock 1 tooled)" sleep 0.1
	done & process[locker]=$!
	for pid in "${tools[@]}"; do
		wait "$pid"
	done
	drop locker
	for file in head grep read python; do
		jq -e .event "$work/$file"
	done
	lines_are "$work/head" 1
	lines_are "$work/grep" 1
	lines_are "$work/read" 4
	lines_are "$work/python" 4
	wait_until 10 grep -q tooled "$work/tail"
	wait_until 10 grep -q tooled "$work/tail0"
	drop tail
	drop tail0
	expect_failure grep -q session.open "$work/tail0"
	# Consecutive lines: reading ahead has lost none.
	jq -e -s '[.[].n] | .[-1] - .[0] == length - 1' "$work/read"
	jq -e -s '[.[].n] | .[-1] - .[0] == length - 1' "$work/tail"
}

what_is_rare_is_kept_for_tail() {
	timeout 5 tail -n 1000 "$(events 1)" >"$work/kept"
	jq -e -s 'any(.[]; .event == "node.started" and .node == 1)' "$work/kept"
	jq -e -s 'any(.[]; .event == "leader.changed" and .leader > 0)' "$work/kept"
	jq -e -s '[.[] | select(.event == "session.open").node] | unique == [1, 2, 3]' "$work/kept"
	jq -e -s 'all(.[]; .event | startswith("lock.") | not)' "$work/kept"
}

many_read_at_once_and_the_dead_leave_nothing() {
	local i
	for i in 1 2 3 4 5 6 7 8 9 10; do
		follow "r$i" 1
	done
	flock "$(lock 2 crowd)" true
	for i in 1 2 3 4 5 6 7 8 9 10; do
		wait_until 5 saw "r$i" '.lock == "crowd" and .event == "lock.released"'
		cmp "$work/r1" "$work/r$i"
	done
	for i in 1 2 3 4 5 6 7 8 9 10; do
		within 2000 drop "r$i"
	done
	wait_until 5 is_empty "$(events 1)" # nobody has it open any more
}

a_reader_that_does_not_read_is_told_how_much_it_missed() {
	exec 8<"$(events 1)"
	python3 -c 'import fcntl, sys
f = open(sys.argv[1], "w")
for _ in range(2500):
    fcntl.flock(f, fcntl.LOCK_EX)
    fcntl.flock(f, fcntl.LOCK_UN)' "$(lock 1 busy)"
	timeout 5 head -c 100000 <&8 >"$work/slow"
	expect_equal events.missed "$(head -n1 "$work/slow" | jq -r .event)" "the first line"
	[ "$(head -n1 "$work/slow" | jq .count)" -gt 0 ]
	exec 8<&-
}

poll_and_non_blocking_reads_work() {
	cat >"$work/poll.py" <<-'PYTHON'
		import fcntl, json, os, select, sys
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
		try:
		    os.read(fd, 4096)
		    sys.exit("read something")
		except BlockingIOError:
		    pass
		poll = select.poll()
		poll.register(fd, select.POLLIN)
		assert poll.poll(0) == [], "readable at once"
		lock = open(sys.argv[2], "w")
		fcntl.flock(lock, fcntl.LOCK_EX)
		assert poll.poll(5000) == [(fd, select.POLLIN)], "not readable"
		assert select.select([fd], [], [], 0)[0] == [fd]
		# A line longer than the buffer goes on in the next read; the others come whole.
		text = os.read(fd, 10)
		assert len(text) == 10
		text += os.read(fd, 4096)
		assert text.endswith(b"\n"), text
		events = [json.loads(line) for line in text.splitlines()]
		assert events[0]["event"] == "lock.granted" and events[0]["lock"] == "polled", events
		assert poll.poll(0) == [], "readable after the last line"
	PYTHON
	timeout 20 python3 "$work/poll.py" "$(events 3)" "$(lock 1 polled)"
}

a_blocked_read_can_be_interrupted() {
	timeout --preserve-status -s INT 0.3 cat "$(events 2)" >/dev/null || true
	expect_failure timeout 2 bash -c "echo >'$(events 2)'"
	expect_status 124 timeout 0.3 cat "$(events 2)"
}

a_change_of_leader_and_a_lost_session_are_told() {
	local old survivor
	old=$(leader 1)
	survivor=$((old % 3 + 1))
	follow reader "$survivor"
	hold a "$old" doomed
	mc kill "$old"
	wait_until 10 saw reader ".event == \"leader.changed\" and .leader > 0 and .leader != $old"
	wait_until 15 saw reader ".event == \"session.ended\" and .node == $old and .why == \"expired\" and .locks_lost == 1"
	saw reader ".event == \"lock.lost\" and .lock == \"doomed\" and .node == $old and .token == $(token_of a)"
	drop a
	drop reader
	mc start "$old"
	wait_until 15 holders_are "$old" doomed 0
}

a_node_stops_although_somebody_reads() {
	follow reader 2
	within 10000 mc stop 2
	wait_until 5 is_gone "${process[reader]}"
	drop reader
	mc start 2
}

# --- contention ---------------------------------------------------------------------------------

a_holder_that_polls_is_told_when_somebody_begins_to_wait() {
	cat >"$work/urgent.py" <<-'PYTHON'
		import fcntl, select, sys
		lock = open(sys.argv[1], "r+" if len(sys.argv) > 3 else "w")
		fcntl.flock(lock, fcntl.LOCK_SH if sys.argv[2] == "sh" else fcntl.LOCK_EX)
		poll = select.poll()
		poll.register(lock, select.POLLPRI)
		assert poll.poll(0) == [], "urgent before anybody waits"
		print("held", flush=True)
		assert poll.poll(20000) == [(lock.fileno(), select.POLLPRI)], "not urgent"
		# For as long as there are waiters, and for select too.
		assert poll.poll(0) != []
		assert select.select([], [], [lock], 0)[2] == [lock]
		print("urgent", flush=True)
		sys.stdin.readline()
		assert poll.poll(0) == [], "urgent though nobody waits any more"
		print("calm", flush=True)
		sys.stdin.readline()
	PYTHON
	local mode waiter
	for mode in ex sh; do
		mkfifo "$work/go"
		python3 "$work/urgent.py" "$(lock 1 "urgent$mode")" $mode <"$work/go" >"$work/said" &
		process[urgent]=$!
		exec 7>"$work/go"
		wait_until 5 grep -q held "$work/said"
		flock "$(lock 2 "urgent$mode")" true &
		waiter=$!
		wait_until 5 grep -q urgent "$work/said"
		kill "$waiter"
		wait "$waiter" || true
		wait_until 5 waiters_are 1 "urgent$mode" 0
		echo >&7
		wait_until 5 grep -q calm "$work/said"
		exec 7>&-
		wait "${process[urgent]}"
		rm "$work/go"
	done
}

run_cases \
	a_reader_sees_every_step_of_a_lock_on_any_node \
	a_wait_that_is_given_up_is_told \
	ordinary_tools_read_it \
	what_is_rare_is_kept_for_tail \
	many_read_at_once_and_the_dead_leave_nothing \
	a_reader_that_does_not_read_is_told_how_much_it_missed \
	poll_and_non_blocking_reads_work \
	a_blocked_read_can_be_interrupted \
	a_change_of_leader_and_a_lost_session_are_told \
	a_node_stops_although_somebody_reads \
	a_holder_that_polls_is_told_when_somebody_begins_to_wait
