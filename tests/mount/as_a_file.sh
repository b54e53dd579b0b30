#!/usr/bin/env bash
# as_a_file.sh - what programs do with files they may do with a lock's: the same lines on a local file and
# on a lock must print the same.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster_up 3

# same_as_local LINES: a Python program that is given two names of one file, and prints.
same_as_local() {
	{
		echo "import errno, fcntl, os, sys, threading"
		echo "a, b = sys.argv[1:]"
		echo "EX, SH, NB, UN = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB, fcntl.LOCK_UN"
		cat
	} >"$work/program.py"
	mkdir -p "$work/local"
	timeout 60 python3 "$work/program.py" "$work/local/$1" "$work/local/$1" >"$work/want"
	timeout 60 python3 "$work/program.py" "$(lock 1 "$1")" "$(lock 2 "$1")" >"$work/got"
	diff "$work/want" "$work/got"
	[ -s "$work/got" ] || fail "it has said nothing"
}

a_value_is_written_as_a_file() {
	same_as_local written <<-'PYTHON'
		f = os.open(a, os.O_RDWR | os.O_CREAT, 0o666)
		fcntl.flock(f, EX)
		def show(*what): print(*what, os.pread(f, 100, 0), os.fstat(f).st_size)
		show(os.write(f, b"0123456789"))
		show(os.pwrite(f, b"ab", 0))
		show(os.pwrite(f, b"cd", 4))
		show(os.pwrite(f, b"e", 12))
		show(os.ftruncate(f, 6), os.write(f, b"xyz"))
		show(os.ftruncate(f, 0), os.ftruncate(f, 3))
		g = os.open(a, os.O_RDWR | os.O_APPEND)
		show(os.write(g, b"end"), os.write(g, b"."))
		os.close(g)
	PYTHON
}

the_holder_replaces_its_value_by_opening_with_truncation() {
	same_as_local replaced <<-'PYTHON'
		f = os.open(a, os.O_RDWR | os.O_CREAT, 0o666)
		fcntl.flock(f, EX)
		os.write(f, b"a long value")
		g = os.open(a, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o666)
		print(os.write(g, b"short"), os.pread(f, 100, 0))
		print(os.write(g, b" one"), os.pread(f, 100, 0))
		os.close(g)
		os.system("echo of a child >'%s'" % a)
		print(os.pread(f, 100, 0))
		os.system("echo and >>'%s'; printf O 1<>'%s'" % (a, a))
		print(os.pread(f, 100, 0))
	PYTHON
}

# Two threads ask on one descriptor: the second does not wait, and so not for the first one either.
who_would_not_wait_does_not_wait_behind_another_thread() {
	[ "$(uname -m)" = x86_64 ] || skip "knows the number of flock(2) on x86-64 only"
	same_as_local threads <<-'PYTHON'
		held = os.open(b, os.O_RDWR | os.O_CREAT, 0o666)
		fcntl.flock(held, EX)
		f = os.open(a, os.O_RDWR | os.O_CREAT, 0o666)
		waiter = threading.Thread(target=fcntl.flock, args=(f, EX))
		waiter.start()
		while not any(open("/proc/self/task/%s/syscall" % t).read().startswith("73 ")
		              for t in os.listdir("/proc/self/task")):
		    pass
		try:
		    fcntl.flock(f, SH | NB)
		except OSError as e:
		    print(errno.errorcode[e.errno])
		os.close(held)
		waiter.join()
		fcntl.flock(f, EX | NB)
		print("granted")
	PYTHON
}

run_cases \
	a_value_is_written_as_a_file \
	the_holder_replaces_its_value_by_opening_with_truncation \
	who_would_not_wait_does_not_wait_behind_another_thread
