#!/usr/bin/env bash
# flock_basic.sh - flock on two mounts behaves as on one local file.
#
# The battery runs the same lines on a local file and on the same lock seen through two mounts, and
# compares what they print; the other cases need several processes at once.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3

# battery A B: A and B name the same lock. Prints what a user would see, line by line.
battery() {
	local a=$1 b=$2

	# Shows the exit status of each step, and nothing of paths that differ.
	step() {
		local rc=0
		"$@" || rc=$?
		echo "$rc"
	}
	# A release answers at once and is committed behind: the other node may hear of it a moment later.
	# shellcheck disable=SC2317 # step calls it
	soon() { flock -w 10 "$@"; }
	echo "free: $(step flock -n "$a" true) $(step soon -s "$b" true) $(step soon -x "$a" true)"
	echo "status of the command: $(step flock "$a" sh -c 'exit 7') $(step flock "$a" -c 'exit 8')"
	(
		exec 9>"$a"
		flock 9
		echo "held: $(step flock -n "$b" true) $(step flock -n -s "$b" true) $(step flock -n -E 42 "$a" true)"
		echo "give up: $(step flock -w 0.2 "$b" true)"
		echo "again by its holder: $(step flock -n 9)"
		flock -u 9
		echo "unlocked: $(step soon "$b" true)"
	)
	echo "closed: $(step soon "$b" true)"
	(
		exec 8>"$a" 9>"$b"
		flock -s 8
		echo "two readers: $(step flock -s -n 9)"
		echo "upgrade beside a reader: $(step flock -x -n 8)"
		flock -u 9
		echo "upgrade alone: $(step soon -x 8) then a reader: $(step flock -s -n 9)"
		flock -s 8
		echo "downgrade: $(step soon -s 9) then a writer: $(step flock -n "$b" true)"
	)
	(
		exec 9>"$a"
		flock 9
		exec 7>&9 9>&-
		echo "a dup keeps it: $(step flock -n "$b" true)"
		exec 7>&-
		echo "the last close ends it: $(step soon "$b" true)"
	)
	(
		exec 9>"$a"
		flock 9
		echo "an opened descriptor of another process: $(step sh -c 'flock -n 9' 9>"$b")"
		echo "an inherited one: $(step sh -c 'flock -n 9')"
		sh -c 'flock -u 9'
		echo "unlocked by a child: $(step soon "$b" true)"
	)
	(
		exec 9>"$a"
		flock 9
		wait_until 5 test -e "$b" # likewise the grant
		exec 8<"$b"
		echo "read-only: $(step flock -n 8) $(step flock -n -s 8)"
		flock -u 9
		echo "read-only: $(step soon 8)"
	)
	echo "append and read-write: $(step soon 9 9>>"$a") $(step soon 9 9<>"$b")"
	echo "nested: $(step flock "$a" flock -n "$b" true)"
	echo "close before exec: $(step flock -o "$a" flock -n "$b" true)"
	echo "command keeps no lock: $(step flock -o "$a" sh -c : && step soon "$b" true)"
}

flock_behaves_as_on_a_local_file() {
	mkdir -p "$work/local"
	battery "$work/local/x" "$work/local/x" >"$work/want"
	battery "$(lock 1 battery)" "$(lock 2 battery)" >"$work/got"
	diff "$work/want" "$work/got"
	battery "$(lock 2 same)" "$(lock 2 same)" >"$work/got"
	diff "$work/want" "$work/got"
}

a_wait_with_a_limit_gives_up_on_time() {
	hold a 1 limit
	local begin
	begin=$(now_ms)
	expect_status 1 flock -w 1 "$(lock 2 limit)" true
	[ $(($(now_ms) - begin)) -ge 1000 ] || fail "gave up before its limit"
	wait_until 2 waiters_are 1 limit 0
	drop a
}

a_wait_with_a_limit_gets_a_lock_that_becomes_free() {
	hold a 1 later
	flock -w 30 "$(lock 2 later)" true &
	wait_until 5 waiters_are 1 later 1
	drop a
	within 5000 wait $!
}

grants_are_first_come_first_served_over_all_mounts() {
	hold a 1 fifo
	local i before=a next
	for i in 1 2 3 4 5 6; do
		grab "w$i" $((i % 3 + 1)) fifo
		wait_until 5 waiters_are 1 fifo "$i"
	done
	for i in 1 2 3 4 5 6; do
		drop "$before"
		before=w$i
		wait_until 5 has "w$i"
		next=w$((i + 1))
		[ "$i" = 6 ] || has_not "$next"
	done
	drop w6
}

a_reader_behind_a_waiting_writer_waits() {
	hold reader 1 fair -s
	grab writer 2 fair
	wait_until 5 waiters_are 1 fair 1
	grab late 3 fair -s
	wait_until 5 waiters_are 1 fair 2
	drop reader
	wait_until 5 has writer
	has_not late
	drop writer
	wait_until 5 has late
	drop late
}

all_waiting_readers_enter_together() {
	hold writer 1 readers
	local i
	for i in 1 2 3; do
		grab "r$i" "$i" readers -s
		wait_until 5 waiters_are 1 readers "$i"
	done
	drop writer
	for i in 1 2 3; do
		wait_until 5 has "r$i"
	done
	wait_until 5 holders_are 1 readers 3
	for i in 1 2 3; do
		drop "r$i"
	done
}

an_inherited_descriptor_keeps_the_lock_until_the_last_close() {
	mkfifo "$work/go"
	(
		exec 9>"$(lock 1 inherit)"
		flock 9
		# The child outlives its parent and is told to end.
		bash -c 'read -r _ <"$1"' child "$work/go" &
	)
	expect_status 1 flock -n "$(lock 2 inherit)" true
	echo go >"$work/go"
	within 5000 flock -w 5 "$(lock 2 inherit)" true
}

two_nested_locks_are_two_locks() {
	local status
	# shellcheck disable=SC2016 # for the inner shell
	status=$(flock "$(lock 1 outer)" flock "$(lock 1 inner)" sh -c '
		flock -n "$1" true; echo "$?"; flock -n "$2" true; echo "$?"' \
		sh "$(lock 2 outer)" "$(lock 2 inner)" | xargs)
	expect_equal "1 1" "$status" "both held inside"
	within 5000 flock -w 5 "$(lock 2 outer)" flock -w 5 "$(lock 2 inner)" true
}

python_and_perl_lock_as_the_shell_does() {
	cat >"$work/try.py" <<-'PYTHON'
		import fcntl, sys
		a = open(sys.argv[1], "w")
		b = open(sys.argv[2], "a+")
		fcntl.flock(a, fcntl.LOCK_EX)
		for mode in (fcntl.LOCK_EX, fcntl.LOCK_SH):
		    try:
		        fcntl.flock(b, mode | fcntl.LOCK_NB)
		        sys.exit("two holders")
		    except BlockingIOError:
		        pass
		fcntl.flock(a, fcntl.LOCK_SH)
		fcntl.flock(b, fcntl.LOCK_SH)
		fcntl.flock(a, fcntl.LOCK_UN)
		fcntl.flock(b, fcntl.LOCK_EX)
		b.close()
		fcntl.flock(a, fcntl.LOCK_EX)
	PYTHON
	cat >"$work/try.pl" <<-'PERL'
		use strict; use warnings; use Fcntl ':flock';
		open(my $a, '>>', $ARGV[0]) or die "open: $!";
		open(my $b, '+>>', $ARGV[1]) or die "open: $!";
		flock($a, LOCK_EX) or die "flock: $!";
		die "two holders" if flock($b, LOCK_EX | LOCK_NB);
		die "not EWOULDBLOCK: $!" unless $!{EWOULDBLOCK};
		close($a);
		flock($b, LOCK_EX) or die "flock: $!";
	PERL
	timeout 30 python3 "$work/try.py" "$(lock 1 program)" "$(lock 2 program)"
	timeout 30 perl "$work/try.pl" "$(lock 1 program)" "$(lock 2 program)"
	hold a 3 program
	expect_status 1 python3 -c 'import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(1)' "$(lock 1 program)"
	drop a
}

is_listed() { find "$(mnt "$1")/locks" -mindepth 1 -name "$2" | grep -q .; } # NODE NAME

# A lock exists while somebody holds it or waits for it.
a_free_lock_leaves_no_name() {
	hold a 1 shortlived
	wait_until 5 test -e "$(lock 2 shortlived)"
	is_listed 2 shortlived
	drop a
	wait_until 5 is_free 1 shortlived
	wait_until 5 is_free 2 shortlived
	expect_failure is_listed 2 shortlived
}

names_are_any_bytes_but_slash_and_at() {
	local name
	for name in 'with space' $'new\nline' 'ünïcode' "$(printf 'n%.0s' {1..255})" '-dash' $'\xff\xfe'; do
		hold a 1 "$name"
		expect_status 1 flock -n "$(lock 2 "$name")" true
		drop a
	done
	expect_failure touch "$(lock 1 'with@at')"
	expect_failure touch "$(lock 1 "$(printf 'n%.0s' {1..256})")"
}

run_cases \
	flock_behaves_as_on_a_local_file \
	a_wait_with_a_limit_gives_up_on_time \
	a_wait_with_a_limit_gets_a_lock_that_becomes_free \
	grants_are_first_come_first_served_over_all_mounts \
	a_reader_behind_a_waiting_writer_waits \
	all_waiting_readers_enter_together \
	an_inherited_descriptor_keeps_the_lock_until_the_last_close \
	two_nested_locks_are_two_locks \
	python_and_perl_lock_as_the_shell_does \
	a_free_lock_leaves_no_name \
	names_are_any_bytes_but_slash_and_at
