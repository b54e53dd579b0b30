# shellcheck shell=bash
# cluster.sh - what every mount test stands on: a real cluster in a directory of its own, verbs for
# what processes do with its locks, and a runner for cases.
#
# A test sources this, calls cluster_up, defines cases (functions whose names are sentences) and
# ends with run_cases. A case runs in a subshell under `set -e`, traced into a log that is shown
# only if it fails; whatever it started is killed when it ends, by pid. Nothing is left behind.
#
#   COORDFS_BUILD  build directory whose coordd and tools are tested (default build)
#   COORDFS_SLOW   all limits are multiplied by it (default 1; more under sanitizers)

set -euo pipefail

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
BUILD=$(cd "$SOURCE" && cd "${COORDFS_BUILD:-build}" && pwd -P)
# shellcheck disable=SC2034 # for the tests
TOOLS=$BUILD/tests/mount
SLOW=${COORDFS_SLOW:-1}
NAME=$(basename "$0" .sh)

work=$(mktemp -d "${TMPDIR:-/var/tmp}/coordfs-$NAME.XXXXXX")
cluster=$work/cluster
export COORDFS_COORDD=$BUILD/coordd
failures=0

# --- outcome ------------------------------------------------------------------------------------

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# note TEXT: a figure worth showing beside the outcome of the case.
note() { echo "$*" >>"$work/notes"; }

# skip REASON: from inside a case.
skip() {
	echo "$*" >"$work/skip"
	exit 77
}

# skip_all REASON: the whole test, before cluster_up.
skip_all() {
	echo "skip $NAME: $*"
	exit 0
}

# --- waiting and time ---------------------------------------------------------------------------

now_ms() {
	local now=${EPOCHREALTIME/[.,]/}

	echo $((now / 1000))
}

comes_true() { # MS COMMAND...
	local end=$(($(now_ms) + $1))
	shift

	until "$@"; do
		[ "$(now_ms)" -lt "$end" ] || return 1
		sleep 0.02
	done
}

# wait_until SECONDS COMMAND...: until it succeeds; fails the case after the limit.
wait_until() {
	local limit=$(($1 * SLOW))
	shift

	# Without what the command says each time, and the trace, which would bury the rest.
	comes_true $((limit * 1000)) "$@" 2>/dev/null || fail "not within $limit s: $*"
}

# within MS COMMAND...: it must succeed, and in no more than that.
within() {
	local limit=$1 begin took rc=0
	shift

	begin=$(now_ms)
	"$@" || rc=$?
	took=$(($(now_ms) - begin))
	[ "$rc" = 0 ] || fail "exit status $rc: $*"
	[ "$took" -le $((limit * SLOW)) ] || fail "took $took ms, more than $((limit * SLOW)): $*"
}

# expect_status STATUS COMMAND...
expect_status() {
	local want=$1 rc=0
	shift

	"$@" || rc=$?
	[ "$rc" = "$want" ] || fail "exit status $rc, not $want: $*"
}

expect_failure() {
	if "$@"; then
		fail "succeeded, and must not: $*"
	fi
}

expect_equal() { # WANT GOT WHAT
	[ "$1" = "$2" ] || fail "$3: wanted '$1', got '$2'"
}

# --- the cluster --------------------------------------------------------------------------------

mc() {
	local verb=$1
	shift
	"$SOURCE/mount-cluster.sh" "$verb" --dir "$cluster" "$@"
}

# Sixteen neighbouring ports that nobody listens on, below those the kernel hands out.
free_port() {
	local port i

	while :; do
		port=$((16384 + RANDOM % 1000 * 16))
		for ((i = 0; i < 16; i++)); do
			if (: <>"/dev/tcp/127.0.0.1/$((port + i))") 2>/dev/null; then
				continue 2
			fi
		done
		echo "$port"
		return
	done
}

need_fuse() {
	[ -c /dev/fuse ] || skip_all "no /dev/fuse"
	[ -x "$COORDFS_COORDD" ] || {
		echo "no coordd in $BUILD: build it, or name another directory in COORDFS_BUILD" >&2
		exit 1
	}
}

# cluster_up NODES [COORDD-OPTION...]
cluster_up() {
	local count=$1
	shift

	need_fuse
	port=$(free_port)
	if ! mc up -n "$count" --port "$port" -- "$@" >"$work/up.log" 2>&1; then
		sed 's/^/  /' "$work/up.log"
		echo "not ok $NAME: a cluster of $count nodes comes up"
		exit 1
	fi
}

mnt() { echo "$cluster/mnt$1"; }

lock() { echo "$cluster/mnt$1/locks/$2"; } # NODE NAME

node_pid() { cat "$cluster/node$1/coordd.pid"; }

raft() { timeout 5 jq -r "$2" "$cluster/mnt$1/status/raft"; } # NODE FILTER

# The node that leads, as a living node sees it.
leader() { # NODE THAT IS ASKED
	raft "$1" .leader
}

# lock_report NODE NAME: what status/locks says about it; an empty lock if nothing.
lock_report() {
	jq -c --arg name "$2" \
		'[.locks[] | select(.name == $name)] + [{n_holders: 0, n_waiters: 0}] | .[0]' \
		"$cluster/mnt$1/status/locks"
}

holders_are() { # NODE NAME COUNT
	[ "$(lock_report "$1" "$2" | jq .n_holders)" = "$3" ]
}

waiters_are() { # NODE NAME COUNT
	[ "$(lock_report "$1" "$2" | jq .n_waiters)" = "$3" ]
}

is_free() { # NODE NAME
	holders_are "$1" "$2" 0 && waiters_are "$1" "$2" 0
}

token() { getfattr -n user.coordfs.token --only-values "$(lock "$1" "$2")"; } # NODE NAME

# --- processes that take locks ------------------------------------------------------------------

declare -A process=()

# grab WHO NODE LOCK [LOCKER-OPTION...]: a process called WHO (see tests/mount/locker.c) that asks for
# the lock and, once it has it, keeps it until drop. Its events go to $work/WHO.
grab() {
	local who=$1 file
	file=$(lock "$2" "$3")
	shift 3

	: >"$work/$who"
	"$TOOLS/mount_locker" "$@" "$file" "$work/$who" &
	process[$who]=$!
}

has() { grep -q '^held' "$work/$1"; }

has_not() { ! has "$1"; }

# event WHO EVENT FIELD: a field of the first such event.
event() { awk -v event="$2" -v field="$3" '$1 == event { print $field; exit }' "$work/$1"; }

told() { grep -q "^$2" "$work/$1"; } # WHO EVENT

held_ms() { event "$1" held 2; }

token_of() { event "$1" held 3; }

# hold WHO NODE LOCK [FLOCK-OPTION...]: grab, and wait until it has it.
hold() {
	grab "$@"
	wait_until 10 has "$1"
}

# drop WHO: kill -9 it, which is how its lock ends.
drop() {
	kill -KILL "${process[$1]}" 2>/dev/null || true # it may have ended before
	wait "${process[$1]}" 2>/dev/null || true       # its status is the kill
	unset "process[$1]"
}

# A zombie is gone: whose child it is decides how long it stays one.
is_gone() { ! grep -q '^State:.[^ZX]' "/proc/$1/status" 2>/dev/null; }

# --- running ------------------------------------------------------------------------------------

case_cleanup() {
	local pid

	for pid in $(jobs -p); do
		kill -KILL "$pid" 2>/dev/null || true # it may have ended
	done
}

indent() { sed 's/^/  /'; }

show_failure() {
	local log

	tail -n 60 "$work/case.log" | indent
	for log in "$cluster"/node*/coordd.log; do
		[ -e "$log" ] || continue
		echo "  --- the last lines of $(basename "$(dirname "$log")")"
		tail -n 25 "$log" | indent
	done
}

run_case() {
	local name=$1 rc
	local label=$NAME:${1//_/ }

	rm -f "$work/notes"
	set +e
	(
		set -e
		exec >"$work/case.log" 2>&1 </dev/null
		trap case_cleanup EXIT
		PS4='+ $EPOCHREALTIME ${FUNCNAME[0]:-}:$LINENO '
		set -x
		"$name"
	)
	rc=$?
	set -e
	case $rc in
	0) echo "ok $label" ;;
	77) echo "skip $label: $(cat "$work/skip")" ;;
	*)
		show_failure
		echo "not ok $label"
		failures=$((failures + 1))
		;;
	esac
	if [ -e "$work/notes" ]; then
		indent <"$work/notes"
	fi
	if [ "$rc" != 0 ] && [ -e "$cluster/config" ]; then
		mc up >/dev/null 2>&1 || true # the cases to come deserve a whole cluster; they will tell
	fi
}

# Sanitizers and assertions speak in the logs.
logs_are_clean() {
	! grep -E -h -A 30 'ERROR: .*Sanitizer|runtime error:|assertion failed' "$cluster"/node*/coordd.log
}

nothing_is_left() {
	if grep -F " $work/" /proc/self/mountinfo; then
		fail "mounts are left"
	fi
	if grep -l -s -z -F "$work/cluster/node" /proc/[0-9]*/cmdline; then
		fail "processes are left"
	fi
}

the_cluster_goes_down_and_leaves_nothing() {
	mc down
	nothing_is_left
	logs_are_clean
}

cleanup() {
	if [ -e "$cluster/config" ]; then
		mc down >/dev/null 2>&1 || true # what can be done at this point; run.sh looks again
	fi
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# run_cases CASE...: the last thing a test does.
run_cases() {
	local name

	for name in "$@"; do
		run_case "$name"
	done
	if [ -e "$cluster/config" ]; then
		run_case the_cluster_goes_down_and_leaves_nothing
	fi
	[ "$failures" = 0 ]
}
