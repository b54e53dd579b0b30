#!/usr/bin/env bash
# mount-cluster.sh - a cluster of coordfs nodes on this machine, each with a mount point of its own.
#
# Everything it knows lives in one directory, so that it can be called again at any time and by
# anyone: the settings of the first `up` in DIR/config, each node's pid in DIR/nodeN/coordd.pid. A
# pid counts only while /proc says that it is the coordd of that very directory: a number that
# the system has given to another process since is never signalled.

set -euo pipefail

SOURCE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=tests/lib/deps.sh
. "$SOURCE/tests/lib/deps.sh"

READY_LIMIT_S=60  # arbitrary, generous: a start takes about a second
STOP_LIMIT_S=15   # arbitrary: a clean shutdown hands leadership over and unmounts
MAX_NODES=32      # arbitrary

usage() {
	cat <<'TEXT'
usage: ./mount-cluster.sh [VERB] [OPTIONS]

Runs coordfs nodes on this machine: DIR/mnt1 ... DIR/mntN are the mount points, DIR/node1 ...
DIR/nodeN hold each node's data, log (coordd.log) and pid (coordd.pid).

  up           (default) install what is missing, build, start, wait until every mount answers and
               there is a leader. Call it again at any time: it starts nodes that are down, resumes
               paused ones, replaces stale mounts and leaves healthy nodes alone.
               With -n greater than before it adds nodes, which join the running cluster.
  down         stop every node cleanly and unmount; data stays (to start afresh, remove DIR)
  status       one line for each node
  stop N       stop node N cleanly: its locks are free at once
  start N      start node N, or resume it if it is paused
  kill N       SIGKILL to node N: its locks are free once its session has expired
  pause N      SIGSTOP to node N
  resume N     SIGCONT to node N
  logs N [-f]  the last lines of node N's log; -f follows it
  demo         ten seconds: two nodes contend for a lock, one is killed, the other gets the lock

options, before or after the verb:
  -n NODES         number of nodes (up; default 3)
  --dir DIR        where it all lives (default ./cluster)
  --port PORT      node N listens on 127.0.0.1, port PORT+N-1 (first up; default 7101)
  --coordd FILE    run this coordd; install and build nothing (up)
  -- OPTION...     further options for coordd, such as --ttl 2s (up; see coordd --help)
  --help

The number of nodes, the port, --coordd and the options after -- are kept in DIR/config, so later
calls need only --dir. The environment variables COORDFS_PORT and COORDFS_COORDD stand for --port and
--coordd where these are not given.
TEXT
}

say() { printf '%s\n' "$*"; }

die() {
	printf 'mount-cluster.sh: %s\n' "$*" >&2
	exit 1
}

usage_error() {
	printf 'mount-cluster.sh: %s (see --help)\n' "$*" >&2
	exit 2
}

# --- options and settings ---------------------------------------------------------------------

verb=""
node=""
follow=false
opt_nodes=""
opt_dir=./cluster
opt_port=""
opt_coordd=""
opt_coordd_options=()
has_coordd_options=false

is_number() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]]; }

parse_word() {
	case $1 in
	up | down | status | stop | start | kill | pause | resume | logs | demo)
		[ -z "$verb" ] || usage_error "two verbs, $verb and $1"
		verb=$1
		;;
	*)
		if ! is_number "$1" || [ -n "$node" ]; then
			usage_error "cannot make sense of '$1'"
		fi
		node=$1
		;;
	esac
}

parse_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		-h | --help)
			usage
			exit 0
			;;
		-n | --dir | --port | --coordd)
			[ $# -ge 2 ] || usage_error "$1 needs a value"
			case $1 in
			-n) opt_nodes=$2 ;;
			--dir) opt_dir=$2 ;;
			--port) opt_port=$2 ;;
			--coordd) opt_coordd=$2 ;;
			esac
			shift
			;;
		-f) follow=true ;;
		--)
			shift
			opt_coordd_options=("$@")
			has_coordd_options=true
			break
			;;
		-*) usage_error "unknown option $1" ;;
		*) parse_word "$1" ;;
		esac
		shift
	done
	verb=${verb:-up}
}

check_options() {
	case $verb in
	stop | start | kill | pause | resume | logs)
		[ -n "$node" ] || usage_error "$verb needs the number of a node"
		;;
	*)
		[ -z "$node" ] || usage_error "$verb takes no number"
		;;
	esac
	if [ -n "$opt_nodes" ]; then
		[ "$verb" = up ] || usage_error "-n is for up"
		if ! is_number "$opt_nodes" || [ "$opt_nodes" -gt $MAX_NODES ]; then
			usage_error "-n takes a number from 1 to $MAX_NODES, not '$opt_nodes'"
		fi
	fi
	if [ -n "$opt_port" ]; then
		if ! is_number "$opt_port" || [ "$opt_port" -gt $((65536 - MAX_NODES)) ]; then
			usage_error "--port takes a number from 1 to $((65536 - MAX_NODES)), not '$opt_port'"
		fi
	fi
	if $has_coordd_options && [ "$verb" != up ]; then
		usage_error "options for coordd are for up"
	fi
	if $follow && [ "$verb" != logs ]; then
		usage_error "-f is for logs"
	fi
}

# Settings of this cluster. `founders` nodes began it together; those after them joined later, and
# `joined` lists those that have arrived.
nodes=0
founders=0
joined=" "
port=""
coordd="" # given by the user; else $program is what build() makes
coordd_options=()
program=$SOURCE/build/coordd

config_load() {
	local key value

	[ -f "$dir/config" ] || return 0
	while IFS='=' read -r key value; do
		case $key in
		nodes) nodes=$value ;;
		founders) founders=$value ;;
		joined) joined=$value ;;
		port) port=$value ;;
		coordd) coordd=$value ;;
		option) coordd_options+=("$value") ;;
		esac
	done <"$dir/config"
}

config_save() {
	local option

	{
		say "nodes=$nodes"
		say "founders=$founders"
		say "joined=$joined"
		say "port=$port"
		say "coordd=$coordd"
		for option in ${coordd_options[@]+"${coordd_options[@]}"}; do
			say "option=$option"
		done
	} >"$dir/config.new"
	mv "$dir/config.new" "$dir/config"
}

# What this `up` asks for, on top of what the first one settled.
config_merge() {
	if [ "$nodes" = 0 ]; then
		nodes=${opt_nodes:-3}
		founders=$nodes
		port=${opt_port:-${COORDFS_PORT:-7101}}
	fi
	if [ -n "$opt_nodes" ] && [ "$opt_nodes" -lt "$nodes" ]; then
		die "this cluster has $nodes nodes, not $opt_nodes; 'stop N' stops one of them"
	fi
	if [ -n "$opt_port" ] && [ "$opt_port" != "$port" ]; then
		die "this cluster's ports begin at $port; its nodes know each other by them, so --port $opt_port is too late"
	fi
	nodes=${opt_nodes:-$nodes}
	coordd=${opt_coordd:-${coordd:-${COORDFS_COORDD:-}}}
	if $has_coordd_options; then
		coordd_options=(${opt_coordd_options[@]+"${opt_coordd_options[@]}"})
	fi
}

address() { say "127.0.0.1:$((port + $1 - 1))"; }

founders_list() {
	local i list=""

	for ((i = 1; i <= founders; i++)); do
		list+="${list:+,}$i=$(address "$i")"
	done
	say "$list"
}

# --- what a node is doing ---------------------------------------------------------------------

# is_node PID N: is that process, of all that may have had this pid, the coordd of node N?
is_node() {
	local word
	local -a argv=()

	{ mapfile -d '' -t argv <"/proc/$1/cmdline"; } 2>/dev/null || return 1
	for word in ${argv[@]+"${argv[@]}"}; do
		if [ "$word" = "$dir/node$2" ]; then
			return 0
		fi
	done
	return 1
}

# node_pid N: print the pid of its living coordd.
node_pid() {
	local pid=""

	{ read -r pid <"$dir/node$1/coordd.pid"; } 2>/dev/null || [ -n "$pid" ] || return 1
	is_number "$pid" && is_node "$pid" "$1" || return 1
	say "$pid"
}

# node_state N: running, paused or dead.
node_state() {
	local pid stat

	if ! pid=$(node_pid "$1") || ! stat=$(cat "/proc/$pid/stat" 2>/dev/null); then
		say dead
		return
	fi
	stat=${stat##*) }
	case ${stat%% *} in
	T | t) say paused ;;
	Z | X) say dead ;;
	*) say running ;;
	esac
}

# is_mounted N: is anything mounted there? Asks the kernel's list, never the mount, which may be stale.
is_mounted() {
	local target

	while read -r _ _ _ _ target _; do
		# The list writes a space as \040, which %b reads as \0040.
		target=$(printf '%b' "${target//\\/\\0}")
		if [ "$target" = "$dir/mnt$1" ]; then
			return 0
		fi
	done < <(grep -F 'coordfs' /proc/self/mountinfo)
	return 1
}

node_unmount() {
	while is_mounted "$1"; do
		if [ "$(id -u)" = 0 ]; then
			umount -l "$dir/mnt$1"
		else
			fusermount3 -u -z "$dir/mnt$1"
		fi || die "cannot unmount $dir/mnt$1"
	done
}

# raft_status N: its status/raft, if the node runs and answers.
raft_status() {
	[ "$(node_state "$1")" = running ] && is_mounted "$1" || return 1
	timeout -k 1 2 cat "$dir/mnt$1/status/raft" 2>/dev/null
}

# is_ready N: the mount answers, and the node has a leader and a session.
is_ready() {
	raft_status "$1" | jq -e '.leader > 0 and (.session // 0) != 0' >/dev/null 2>&1
}

is_answering() { raft_status "$1" | jq -e . >/dev/null 2>&1; }

node_log_tail() {
	local log=$dir/node$1/coordd.log

	if [ -s "$log" ]; then
		say "the last lines of $log:" >&2
		tail -n 15 "$log" | sed 's/^/  /' >&2
	fi
}

# --- acting on a node -------------------------------------------------------------------------

# Without descriptors of ours beyond stderr: a caller's lock must not live on in a daemon.
close_descriptors() {
	local fd

	for fd in "/proc/$BASHPID/fd"/*; do
		fd=${fd##*/}
		if [ "$fd" -gt 2 ] && [ "$fd" != 255 ]; then
			eval "exec $fd>&-"
		fi
	done
}

port_is_taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The living node through which another one may join.
gate() {
	local i

	for ((i = 1; i <= nodes; i++)); do
		if is_ready "$i"; then
			address "$i"
			return 0
		fi
	done
	die "no node is well enough to let another one join"
}

declare -A started=() # node -> pid of the coordd that this call started

# node_start N: give it a process; is_ready tells when it has arrived.
node_start() {
	local i=$1 own
	local -a origin

	node_unmount "$i"
	own=$((port + i - 1))
	if port_is_taken "$own"; then
		die "port $own is taken, and not by node $i of this cluster; stop what listens there or use another --port (and --dir)"
	fi
	if [ "$i" -le "$founders" ]; then
		origin=(--id "$i" --peers "$(founders_list)")
	else
		origin=(--join "$(gate)")
	fi
	mkdir -p "$dir/node$i" "$dir/mnt$i"
	(
		close_descriptors
		cd /
		exec setsid "$program" --dir "$dir/node$i" "${origin[@]}" --listen "$(address "$i")" \
			--secret-file "$dir/secret" --mount "$dir/mnt$i" \
			${coordd_options[@]+"${coordd_options[@]}"}
	) </dev/null >>"$dir/node$i/coordd.log" 2>&1 &
	started[$i]=$!
}

node_signal() {
	local pid

	pid=$(node_pid "$2") || die "node $2 is not running"
	kill "-$1" "$pid"
}

# await_ready CHECK NODE...: until each of them passes it; progress on the way, its log on failure.
await_ready() {
	local check=$1 waiting i next=2
	local -a rest
	shift

	rest=("$@")
	SECONDS=0
	while [ "${#rest[@]}" -gt 0 ]; do
		waiting=()
		for i in "${rest[@]}"; do
			"$check" "$i" || waiting+=("$i")
			if [ -n "${started[$i]:-}" ] && ! kill -0 "${started[$i]}" 2>/dev/null; then
				node_log_tail "$i"
				die "node $i did not start"
			fi
		done
		rest=(${waiting[@]+"${waiting[@]}"})
		[ "${#rest[@]}" -gt 0 ] || break
		if [ "$SECONDS" -ge $READY_LIMIT_S ]; then
			for i in "${rest[@]}"; do
				node_log_tail "$i"
			done
			die "node ${rest[*]} not ready after $READY_LIMIT_S s"
		fi
		if [ "$SECONDS" -ge "$next" ]; then
			say "waiting for node ${rest[*]} ($SECONDS s)"
			next=$((SECONDS + 2))
		fi
		sleep 0.05
	done
}

# nodes_stop NODE...: SIGTERM to all of them, wait, and SIGKILL to what is left.
nodes_stop() {
	local i pid
	local -A pids=()

	for i in "$@"; do
		if pid=$(node_pid "$i"); then
			pids[$i]=$pid
			kill -TERM "$pid" 2>/dev/null || true # it may have ended just now
			kill -CONT "$pid" 2>/dev/null || true
		fi
	done
	SECONDS=0
	for i in ${pids[@]+"${!pids[@]}"}; do
		# The process, not its pid file, which goes a little earlier.
		while is_node "${pids[$i]}" "$i"; do
			if [ "$SECONDS" -ge $STOP_LIMIT_S ]; then
				say "node $i has not stopped after $STOP_LIMIT_S s, killing it"
				kill -KILL "${pids[$i]}" 2>/dev/null || true # it may have ended just now
				SECONDS=0
			fi
			sleep 0.05
		done
	done
	for i in "$@"; do
		node_unmount "$i"
	done
}

# --- what must be there before a node can start -------------------------------------------------

check_fuse() {
	if [ ! -c /dev/fuse ]; then
		die "no /dev/fuse here: load the module (modprobe fuse); in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
	fi
	if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
		die "not root and no fusermount3: install the package fuse3, or run as root"
	fi
	if ! { : <>/dev/fuse; } 2>/dev/null; then
		die "cannot open /dev/fuse: run as root or as a user who may; in a container, start it with --device /dev/fuse"
	fi
}

build_failed() {
	tail -n 40 "$dir/build.log" >&2
	die "the build failed; all it said is in $dir/build.log"
}

# prepare: leaves a coordd in $program that is no older than its sources.
prepare() {
	local out=$SOURCE/build

	if [ -n "$coordd" ]; then
		deps_install fuse3 jq || exit 1
		if ! program=$(readlink -f "$coordd") || [ ! -x "$program" ]; then
			die "no program at $coordd"
		fi
		coordd=$program
		return
	fi
	# shellcheck disable=SC2046 # no word for a compiler that is no package
	deps_install $(deps_compiler) "${DEPS_BUILD[@]}" || exit 1
	if [ ! -f "$out/build.ninja" ]; then
		say "building coordd in $out"
		meson setup "$out" "$SOURCE" >"$dir/build.log" 2>&1 || build_failed
	fi
	ninja -C "$out" coordd >"$dir/build.log" 2>&1 || build_failed
}

# --- the verbs ----------------------------------------------------------------------------------

need_cluster() {
	[ "$nodes" != 0 ] || die "no cluster in $dir; './mount-cluster.sh up' makes one"
	if [ -n "$node" ] && [ "$node" -gt "$nodes" ]; then
		die "this cluster has nodes 1 to $nodes, not $node"
	fi
}

# Two calls at once would start a node twice.
take_turn() {
	exec 8>"$dir/turn"
	flock -w $((READY_LIMIT_S + STOP_LIMIT_S)) 8 || die "another mount-cluster.sh is at work in $dir"
}

make_secret() {
	if [ ! -s "$dir/secret" ]; then
		(
			umask 077
			head -c 24 /dev/urandom | base64 >"$dir/secret.new"
		)
		mv "$dir/secret.new" "$dir/secret"
	fi
}

is_newcomer() { [ "$1" -gt "$founders" ] && [[ $joined != *" $1 "* ]]; }

# Bring one node to life, whatever is wrong with it. Newcomers have their own way in.
node_repair() {
	case $(node_state "$1") in
	paused)
		say "node $1 is paused, resuming it"
		node_signal CONT "$1"
		;;
	running)
		if ! is_mounted "$1"; then
			say "node $1 has lost its mount, restarting it"
			nodes_stop "$1"
			node_start "$1"
		fi
		;;
	dead) node_start "$1" ;;
	esac
}

do_up() {
	local i
	local -a members=()

	config_merge
	check_fuse
	prepare
	config_save
	make_secret
	for ((i = 1; i <= nodes; i++)); do
		if ! is_newcomer "$i"; then
			node_repair "$i"
			members+=("$i")
		fi
	done
	await_ready is_ready "${members[@]}"
	# One after another: a cluster changes its membership one server at a time.
	for ((i = 1; i <= nodes; i++)); do
		if is_newcomer "$i"; then
			say "node $i joins"
			node_repair "$i"
			await_ready is_ready "$i"
			joined+="$i "
			config_save
		fi
	done
}

say_up() {
	local i first=$opt_dir/mnt1 second=$opt_dir/mnt2

	say "$nodes nodes are up, all of them show the same tree:"
	for ((i = 1; i <= nodes; i++)); do
		say "  $opt_dir/mnt$i"
	done
	if [ "$nodes" = 1 ]; then
		second=$first
	fi
	cat <<-TEXT

		Try next, in two terminals:
		  flock $first/locks/build sh -c 'echo mine; sleep 5'
		  flock $second/locks/build echo 'mine now'
		and look at:
		  jq . $first/status/locks
		  ./mount-cluster.sh status${where}
		  ./mount-cluster.sh demo${where}
		  ./mount-cluster.sh --help
	TEXT
}

do_down() {
	local i
	local -a all=()

	for ((i = 1; i <= nodes; i++)); do
		all+=("$i")
	done
	nodes_stop "${all[@]}"
	say "$nodes nodes are down; their data stays in $opt_dir"
}

do_status() {
	local i pid state mount raft
	local row='%-5s %-8s %-8s %-12s %-6s %-8s %-10s %-16s %s\n'

	# shellcheck disable=SC2059 # the format is ours
	printf "$row" node pid state role term applied session address mount
	for ((i = 1; i <= nodes; i++)); do
		pid=$(node_pid "$i") || pid=-
		state=$(node_state "$i")
		mount=$opt_dir/mnt$i
		if ! is_mounted "$i"; then
			mount+=" (not mounted)"
		elif [ "$state" = dead ]; then
			mount+=" (stale)"
		fi
		raft=$(raft_status "$i" | jq -r '[.role, .term, .applied, .session // "-"] | join(" ")' 2>/dev/null) || true
		[ -n "$raft" ] || raft="- - - -"
		# shellcheck disable=SC2059,SC2086 # the format is ours, and $raft is four words
		printf "$row" "$i" "$pid" "$state" $raft "$(address "$i")" "$mount"
	done
}

count_running() {
	local i count=0

	for ((i = 1; i <= nodes; i++)); do
		if [ "$(node_state "$i")" = running ]; then
			count=$((count + 1))
		fi
	done
	say "$count"
}

do_start() {
	local running

	check_fuse
	prepare
	if [ "$(node_state "$node")" = running ] && is_mounted "$node"; then
		say "node $node is running already"
		return
	fi
	node_repair "$node"
	await_ready is_answering "$node"
	running=$(count_running)
	if [ $((2 * running)) -gt "$nodes" ]; then
		await_ready is_ready "$node"
		say "node $node is up: $opt_dir/mnt$node"
	else
		say "node $node is up, but $running of $nodes nodes are no majority: locks wait for the others"
	fi
}

do_stop() {
	node_pid "$node" >/dev/null || die "node $node is not running"
	nodes_stop "$node"
	say "node $node has stopped"
}

do_kill() {
	node_signal KILL "$node"
	while node_pid "$node" >/dev/null; do
		sleep 0.01
	done
	say "node $node is killed; its mount is stale until 'start $node' or 'up'"
}

do_pause() {
	node_signal STOP "$node"
	say "node $node is paused; what touches its mount waits until 'resume $node'"
}

do_resume() {
	node_signal CONT "$node"
	say "node $node goes on"
}

do_logs() {
	local log=$dir/node$node/coordd.log

	[ -f "$log" ] || die "node $node has no log yet"
	if $follow; then
		exec tail -n 50 -f "$log"
	fi
	tail -n 50 "$log"
}

# --- demo ---------------------------------------------------------------------------------------

demo_begin=""
demo_pids=()
demo_dir=""

# The story, each line with the seconds since it began.
tell() {
	local now=${EPOCHREALTIME/[.,]/}
	local ms=$(((now - demo_begin) / 1000))

	printf '%3d.%01d s  %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*"
}

# demo_contend N SECONDS: as a process on node N, take the lock, note the token, hold it.
demo_contend() {
	(
		exec 9>"$dir/mnt$1/locks/demo"
		flock 9
		getfattr -n user.coordfs.token --only-values "$dir/mnt$1/locks/demo" >"$demo_dir/token$1.new"
		mv "$demo_dir/token$1.new" "$demo_dir/token$1"
		exec sleep "$2"
	) </dev/null >/dev/null 2>"$demo_dir/error$1" &
	demo_pids+=($!)
}

# demo_granted N: wait until the process on node N has the lock.
demo_granted() {
	SECONDS=0
	until [ -e "$demo_dir/token$1" ]; do
		if [ "$SECONDS" -ge 30 ]; then
			cat "$demo_dir/error$1" >&2
			die "node $1 has not got the lock within 30 s"
		fi
		sleep 0.02
	done
}

demo_waits() { # FILTER: until status/locks, as node 1 sees it, passes the filter
	SECONDS=0
	until jq -e '.locks[] | select(.name == "demo") | '"$1" "$dir/mnt1/status/locks" >/dev/null 2>&1; do
		[ "$SECONDS" -lt 10 ] || die "the lock does not show up in $opt_dir/mnt1/status/locks"
		sleep 0.02
	done
}

demo_end() {
	local pid

	for pid in ${demo_pids[@]+"${demo_pids[@]}"}; do
		kill "$pid" 2>/dev/null || true # it may have ended by itself
	done
	rm -rf "$demo_dir"
}

do_demo() {
	local token1 token2 token3 role

	[ "$nodes" -ge 3 ] || die "the demo needs three nodes: ./mount-cluster.sh up -n 3"
	demo_dir=$(mktemp -d)
	trap demo_end EXIT
	demo_begin=${EPOCHREALTIME/[.,]/}
	tell "A process on node 1 runs: flock $opt_dir/mnt1/locks/demo ..."
	demo_contend 1 2
	demo_granted 1
	token1=$(cat "$demo_dir/token1")
	tell "Node 1 has the lock, fencing token $token1. Node 2 wants the same lock and has to wait:"
	demo_contend 2 60
	demo_waits '(.waiters | length) > 0'
	jq -c '.locks[] | select(.name == "demo")' "$dir/mnt1/status/locks" | cut -c 1-160 | sed 's/^/        /'
	demo_granted 2
	token2=$(cat "$demo_dir/token2")
	tell "Node 1 has let go, node 2 has the lock, token $token2. Now node 3 waits for it."
	demo_contend 3 60
	demo_waits '(.waiters | length) > 0'
	role=$(raft_status 2 | jq -r .role 2>/dev/null) || role=node
	tell "Node 2, at present a $role, is killed with SIGKILL. It can release nothing."
	node_signal KILL 2
	demo_granted 3
	token3=$(cat "$demo_dir/token3")
	tell "Its session has expired: node 3 has the lock, token $token3, larger than $token2."
	kill "${demo_pids[1]}" 2>/dev/null || true # its lock died with its node
	node_start 2
	await_ready is_ready 2
	tell "Node 2 is back."
}

main() {
	parse_options "$@"
	check_options
	case $verb in
	up) mkdir -p "$opt_dir" || die "cannot make the directory $opt_dir" ;;
	*) [ -d "$opt_dir" ] || die "no cluster in $opt_dir; './mount-cluster.sh up' makes one" ;;
	esac
	dir=$(cd "$opt_dir" && pwd -P)
	where=""
	if [ "$opt_dir" != ./cluster ]; then
		where=" --dir $opt_dir"
	fi
	config_load
	case $verb in
	up)
		take_turn
		do_up
		say_up
		;;
	demo)
		take_turn
		do_up
		do_demo
		;;
	start | stop | down)
		need_cluster
		take_turn
		"do_$verb"
		;;
	*)
		need_cluster
		"do_$verb"
		;;
	esac
}

main "$@"
