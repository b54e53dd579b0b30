#!/usr/bin/env bash
# damaged_start.sh - a node whose directory is damaged refuses to start and says where; a node with the wrong
# secret stays outside. (The whole table of damages is a unit test of the log.)

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3 --ttl 2s

prepare_damage() {
	local i
	for i in $(seq 1 30); do
		flock "$(lock 1 "fill$i")" true
	done
	mc stop 3
	rm -rf "$work/healthy"
	cp -a "$cluster/node3" "$work/healthy"
}

undo_damage() {
	rm -rf "$cluster/node3"
	mv "$work/healthy" "$cluster/node3"
	mc start 3
	within 5000 flock -w 5 "$(lock 3 healthy)" true
}

# refuses PATTERN: node 3 does not start, and its log says so.
refuses() {
	: >"$cluster/node3/coordd.log"
	expect_status 1 mc start 3
	grep -E "$1" "$cluster/node3/coordd.log" || fail "no line like '$1' in its log"
	within 5000 flock -w 5 "$(lock 1 others)" true # the others go on
}

# Flip a bit in the middle of what FILE has in use: in a byte that is not zero, for padding has no meaning.
flip_bit() {
	python3 - "$1" <<-'PYTHON'
		import sys
		with open(sys.argv[1], "r+b") as f:
		    used = f.read().rstrip(b"\0")
		    at = next(i for i in range(len(used) // 2, len(used)) if used[i])
		    f.seek(at)
		    f.write(bytes([used[at] ^ 0x10]))
	PYTHON
}

# How much of FILE is in use: segments are zeroed before they are written.
used_bytes() { python3 -c 'import sys; print(len(open(sys.argv[1], "rb").read().rstrip(b"\0")))' "$1"; }

# The segment that is written at present: the last one with anything in it.
last_segment() {
	local segment last=""
	for segment in "$cluster"/node3/log/*.seg; do
		[ "$(used_bytes "$segment")" = 0 ] || last=$segment
	done
	echo "$last"
}

a_flipped_bit_inside_the_log_refuses_with_file_and_offset() {
	local segment
	prepare_damage
	segment=$(last_segment)
	flip_bit "$segment"
	refuses "$(basename "$segment").*offset [0-9]+"
	undo_damage
}

a_log_cut_short_refuses_with_file_and_offset() {
	local segment
	prepare_damage
	segment=$(last_segment)
	truncate -s $(($(used_bytes "$segment") / 2)) "$segment"
	refuses "$(basename "$segment")"
	undo_damage
}

a_lost_log_refuses() {
	prepare_damage
	rm -r "$cluster/node3/log"
	refuses 'log'
	undo_damage
}

a_lost_vote_refuses() {
	prepare_damage
	rm "$cluster/node3/vote"
	refuses 'vote'
	undo_damage
}

a_zeroed_vote_refuses() {
	prepare_damage
	truncate -s 0 "$cluster/node3/vote"
	truncate -s 4096 "$cluster/node3/vote"
	refuses 'vote'
	undo_damage
}

has_refused() { cat "$cluster"/node[12]/coordd.log | grep -qE '(^|[^0-9])401([^0-9]|$)|secret'; }

a_node_with_the_wrong_secret_stays_outside() {
	local pid
	mc stop 3
	head -c 24 /dev/urandom | base64 >"$work/other-secret"
	chmod 600 "$work/other-secret"
	: >"$cluster/node1/coordd.log"
	: >"$cluster/node2/coordd.log"
	"$COORDFS_COORDD" --dir "$cluster/node3" --listen "127.0.0.1:$((port + 2))" \
		--secret-file "$work/other-secret" --mount "$cluster/mnt3" --ttl 2s --timeo 2s &
	pid=$!
	wait_until 10 has_refused
	expect_failure timeout 5 flock -n "$(lock 3 outside)" true
	within 5000 flock -w 5 "$(lock 1 inside)" true
	kill -TERM "$pid"
	wait_until 10 is_gone "$pid"
	mc start 3
	within 5000 flock -w 5 "$(lock 3 inside)" true
}

a_secret_that_others_can_read_is_refused() {
	mc stop 3
	chmod 644 "$cluster/secret"
	refuses 'secret'
	chmod 600 "$cluster/secret"
	mc start 3
}

run_cases \
	a_flipped_bit_inside_the_log_refuses_with_file_and_offset \
	a_log_cut_short_refuses_with_file_and_offset \
	a_lost_log_refuses \
	a_lost_vote_refuses \
	a_zeroed_vote_refuses \
	a_node_with_the_wrong_secret_stays_outside \
	a_secret_that_others_can_read_is_refused
