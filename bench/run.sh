#!/usr/bin/env bash
# run.sh - every measure of coordfs in one run, on one disk, and other systems' beside them.
#
# Rounds, so that a busy moment of the machine does not fall on one system only: each round measures
# the floor (a local file, an empty FUSE file system), a mounted cluster, consensus alone, and the
# peers, one after the other, never two at once. A figure is the median of its rounds.

set -euo pipefail

SOURCE=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
# shellcheck source=tests/lib/deps.sh
. "$SOURCE/tests/lib/deps.sh"

PORT=7601       # of the cluster's first node; arbitrary
WAIT_LIMIT_S=10 # for the empty file system's mount; arbitrary

usage() {
	cat <<'TEXT'
usage: bench/run.sh [OPTIONS]

Builds coordfs, brings up three nodes in a fresh directory and measures: locks through the mounts,
consensus alone (also with 1 ms and 5 ms of delay between the nodes), and a table of a million
locks; beside them a local file and an empty FUSE file system. Prints medians over the rounds and
what was wanted of them. About ten minutes with a peer, on two cores; nothing else should run.

options:
  --quick          one short round, 100,000 locks: to see that everything works
  --rounds N       default 3
  --seconds S      for each measure of a round; default 3
  --only PARTS     some of mount,consensus,table,peers, with commas
  --peers DIR      scripts NAME.sh that measure other systems and print `NAME METRIC VALUE UNIT`; they
                   are copied, built with make, and given RUNS, DUR and PEERS_DATA
  --peer NAMES     which of them, with commas; default etcd
  --dir DIR        where the work directory is made, on a real disk; default /var/tmp
  --build DIR      build there, and keep it; default inside the work directory
  --json FILE      write everything there as well
  --markdown FILE  the same as tables, for docs/benchmarks.md
  --help
TEXT
}

die() {
	printf 'run.sh: %s\n' "$*" >&2
	exit 1
}

note() { printf '# %s\n' "$*" >&2; }

# --- options ------------------------------------------------------------------------------------

rounds=3
seconds=3
locks=1000000
snapshots=6
only=mount,consensus,table,peers
peers_dir=
peer_names=etcd
base=/var/tmp
build=
json=
markdown=

parse() {
	while [ $# -gt 0 ]; do
		case $1 in
		--quick)
			rounds=1 seconds=1 locks=100000 snapshots=2
			shift
			continue
			;;
		--help)
			usage
			exit 0
			;;
		esac
		[ $# -ge 2 ] || die "$1 is not an option or lacks its value; see --help"
		case $1 in
		--rounds) rounds=$2 ;;
		--seconds) seconds=$2 ;;
		--only) only=$2 ;;
		--peers) peers_dir=$2 ;;
		--peer) peer_names=$2 ;;
		--dir) base=$2 ;;
		--build) build=$2 ;;
		--json) json=$2 ;;
		--markdown) markdown=$2 ;;
		*) die "$1 is not an option; see --help" ;;
		esac
		shift 2
	done
	[[ $rounds =~ ^[1-9][0-9]?$ ]] || die "--rounds must be 1 to 99"
	[[ $seconds =~ ^[1-9][0-9]?$ ]] || die "--seconds must be 1 to 99"
	[ -d "$base" ] || die "$base is not a directory"
	case $(stat -f -c %T "$base") in
	tmpfs | ramfs) die "$base is not on a disk: an fdatasync there costs nothing" ;;
	esac
	[ -z "$peers_dir" ] || [ -d "$peers_dir" ] || die "$peers_dir is not a directory"
	[ -z "$json" ] || : >>"$json" || die "$json cannot be written"
	[ -z "$markdown" ] || : >>"$markdown" || die "$markdown cannot be written"
}

wants() { [[ ,$only, == *,$1,* ]]; }

# --- work directory -----------------------------------------------------------------------------

work=
floor_pid=

cleanup() {
	floor_stop
	if [ -n "$work" ]; then
		cluster down >/dev/null 2>&1 || true # it may not be up
		rm -rf --one-file-system "$work"
	fi
}

prepare() {
	deps_install "$(deps_compiler)" "${DEPS_BUILD[@]}" || exit 1
	work=$(mktemp -d "$base/coordfs-bench-XXXXXX")
	trap cleanup EXIT
	trap 'exit 130' INT TERM HUP
	build=${build:-$work/build}
	if [ ! -f "$build/build.ninja" ]; then
		meson setup "$build" "$SOURCE" -Dbuildtype=release -Dtests=false >"$work/build.log" ||
			die "meson failed: $(tail -n 3 "$work/build.log")"
	fi
	ninja -C "$build" coordd bench/bench-{mount,fuse-floor,consensus,locktable} >"$work/build.log" ||
		die "the build failed: $(tail -n 20 "$work/build.log")"
	if [ -n "$peers_dir" ] && wants peers; then
		cp -r "$peers_dir" "$work/peers"
		make -s -C "$work/peers" >&2 || die "the peers' programs cannot be built"
	fi
	results=$work/results
	: >"$results"
}

cluster() { "$SOURCE/mount-cluster.sh" "$@" --dir "$work/cluster"; }

floor_start() {
	local i

	mkdir -p "$work/floor"
	"$build/bench/bench-fuse-floor" "$work/floor" &
	floor_pid=$!
	for ((i = 0; i < WAIT_LIMIT_S * 50; i++)); do
		mountpoint -q "$work/floor" && return 0
		sleep 0.02
	done
	die "the empty file system cannot be mounted"
}

floor_stop() {
	if [ -n "$floor_pid" ]; then
		kill "$floor_pid" 2>/dev/null || true # it has ended, or ends now and unmounts
		wait "$floor_pid" || true
		floor_pid=
	fi
}

# --- measures -----------------------------------------------------------------------------------

# record COMMAND...: its result lines; a measure that fails is told and left out.
record() {
	"$@" | grep -v '^#' | awk 'NF >= 4 { print $1, $2, $3, $4 }' >>"$results" ||
		note "failed: ${*##*/}"
}

# measure NAME MEASURE CLIENTS DIR...
measure() {
	local name=$1 what=$2 clients=$3

	shift 3
	record "$build/bench/bench-mount" "$what" -n "$name" -s "$seconds" -c "$clients" "$@"
}

measure_floor() {
	mkdir -p "$work/local"
	measure local-disk lock 1 "$work/local"
	measure local-disk open 1 "$work/local"
	measure local-disk handover 8 "$work/local"
	measure local-disk spawn 1 "$work/local"
	floor_start
	measure fuse-floor lock 1 "$work/floor"
	measure fuse-floor parts 1 "$work/floor"
	measure fuse-floor open 1 "$work/floor"
	measure fuse-floor lock 16 "$work/floor"
	measure fuse-floor spawn 1 "$work/floor"
	floor_stop
}

leader() { jq -r .leader "$work/cluster/mnt1/status/raft"; }

measure_mount() {
	local at other

	cluster up --port "$PORT" --coordd "$build/coordd" >/dev/null
	at=$work/cluster/mnt$(leader)
	other=$work/cluster/mnt$(($(leader) % 3 + 1))
	measure coordfs lock 1 "$at"
	measure coordfs parts 1 "$at"
	measure coordfs open 1 "$at"
	measure coordfs spawn 1 "$at"
	measure coordfs-follower lock 1 "$other"
	measure coordfs-follower parts 1 "$other"
	measure coordfs lock 16 "$work"/cluster/mnt{1,2,3}
	measure coordfs lock 64 "$work"/cluster/mnt{1,2,3}
	measure coordfs handover 8 "$work"/cluster/mnt{1,2,3}
	measure coordfs handover 64 "$work"/cluster/mnt{1,2,3}
	cluster down >/dev/null
}

# consensus WHO [DELAY_MS]
consensus() {
	mkdir "$work/consensus"
	# shellcheck disable=SC2016 # expanded by that shell
	record bash -c 'set -o pipefail; "$@" | sed "s/^coordfs /$0 /"' "$1" \
		"$build/bench/bench-consensus" "$work/consensus" "$seconds" "${@:2}"
	rm -r "$work/consensus"
}

measure_consensus() {
	consensus coordfs
	consensus coordfs-1ms 1
	consensus coordfs-5ms 5
}

measure_table() {
	mkdir "$work/table"
	record "$build/bench/bench-locktable" "$work/table" "$locks" "$snapshots"
	rm -r "$work/table"
}

measure_peers() {
	local name

	for name in ${peer_names//,/ }; do
		[ -x "$work/peers/$name.sh" ] || die "$peers_dir has no script $name.sh"
		record env RUNS=1 TRIES=1 DUR="$seconds" NOMAKE=1 PEERS_DATA="$work" \
			"$work/peers/$name.sh"
	done
}

measure_all() {
	local round

	for ((round = 1; round <= rounds; round++)); do
		note "round $round of $rounds, load $(cut -d' ' -f1 /proc/loadavg)"
		if wants mount; then
			measure_floor
			measure_mount
		fi
		if wants consensus; then
			measure_consensus
		fi
		if wants peers && [ -n "$peers_dir" ]; then
			measure_peers
		fi
	done
	if wants table; then
		note "lock table"
		measure_table
	fi
}

# --- what came of it ----------------------------------------------------------------------------

# Lines `WHO METRIC MEDIAN UNIT LEAST MOST ROUNDS`, in the order of the measures.
medians() {
	awk '
		{ k = $1 " " $2 }
		!(k in unit) { order[++keys] = k; unit[k] = $4 }
		{ value[k, ++n[k]] = $3 + 0 }
		END {
			for (i = 1; i <= keys; i++) {
				k = order[i]; c = n[k]
				for (a = 2; a <= c; a++) {
					v = value[k, a]
					for (b = a - 1; b >= 1 && value[k, b] > v; b--) {
						value[k, b + 1] = value[k, b]
					}
					value[k, b + 1] = v
				}
				mid = int((c + 1) / 2)
				m = c % 2 ? value[k, mid] : (value[k, mid] + value[k, mid + 1]) / 2
				printf "%s %.4g %s %.4g %.4g %d\n", k, m, unit[k], value[k, 1], value[k, c], c
			}
		}' "$results"
}

# What was wanted, as lines `NAME|VALUE|RELATION|LIMIT|UNIT`; those whose figures are missing are left
# out. The floor of an acquire: one fdatasync, one round trip to a peer, one empty FUSE request.
# shellcheck disable=SC2016 # fields of awk
CHECKS='
	function v(who, metric) {
		if (who " " metric in median) { return median[who " " metric] }
		missing = 1
		return 1
	}
	function check(name, value, relation, limit, unit) {
		if (!missing) { printf "%s|%.4g|%s|%g|%s\n", name, value, relation, limit, unit }
		missing = 0
	}
	function faster(name, who, metric, peer, limit) {
		check(name, v(who, peer) / v("coordfs", metric), ">=", limit, "x")
	}
	function more(name, who, metric, peer, limit) {
		check(name, v("coordfs", metric) / v(who, peer), ">=", limit, "x")
	}
	{ median[$1 " " $2] = $3 }
	END {
		disk_and_peer = v("coordfs", "fdatasync_p50") + v("coordfs", "round_trip_p50")
		floored = missing
		check("one commit / (fdatasync + round trip)",
			v("coordfs", "commit_1_p50") / disk_and_peer, "<=", 1.2, "x")
		shared_disk_and_peer = v("coordfs", "fdatasync_of_3_p50") + v("coordfs", "round_trip_p50")
		check("one commit / (fdatasync by three + round trip)",
			v("coordfs", "commit_1_p50") / shared_disk_and_peer, "<=", 1.2, "x")
		check("commits with 64 outstanding", v("coordfs", "commit_64_rate"), ">=", 20000, "ops/s")
		check("leader CPU with 64 outstanding", v("coordfs", "commit_64_leader_cpu"), "<=", 15, "us/op")
		check("open loop, 1 ms each way, p99", v("coordfs-1ms", "commit_open_loop_p99") / 1000, "<=", 10, "ms")
		check("open loop, 5 ms each way, p99", v("coordfs-5ms", "commit_open_loop_p99") / 1000, "<=", 30, "ms")
		missing = floored
		check("acquire / (fdatasync + round trip + empty FUSE)",
			v("coordfs", "acquire_p50") / (disk_and_peer + v("fuse-floor", "acquire_p50")), "<=", 2, "x")
		check("p99 while a snapshot is taken / p99 without",
			v("coordfs", "locktable_p99_ratio"), "<=", 3, "x")
		faster("lock + unlock, etcd / ours", "etcd", "lock_1c_p50", "lock_session_leader_p50", 3)
		more("64 clients, ours / etcd", "etcd", "lock_64c_rate", "lock_session_64c_rate", 5)
		more("handovers of 8 clients, ours / etcd", "etcd", "handover_8c_rate", "handover_8c_rate", 10)
		faster("flock FILE true, etcdctl lock / ours", "etcd", "spawn_1c_p50", "etcdctl_lock_true_1ep_p50", 1)
	}'

# Adds `|ok` or `|MISSED`.
judge() {
	awk "$CHECKS" "$work/medians" | awk -F'|' '
		{ print $0 "|" (($3 == "<=" ? $2 <= $4 : $2 >= $4) ? "ok" : "MISSED") }'
}

print_tables() {
	printf '\n%-18s %-34s %12s %-11s %12s %12s\n' who measure median unit least most
	awk '{ printf "%-18s %-34s %12s %-11s %12s %12s\n", $1, $2, $3, $4, $5, $6 }' "$work/medians"
	printf '\n%-50s %10s    %-12s\n' check figure wanted
	awk -F'|' '{ printf "%-50s %10s %-5s %s %s %s  %s\n", $1, $2, $5, $3, $4, $5, $6 }' "$work/checks"
}

write_json() {
	jq -n --rawfile medians "$work/medians" --rawfile checks "$work/checks" \
		--arg commit "$(git -C "$SOURCE" rev-parse --short HEAD 2>/dev/null || true)" \
		--arg kernel "$(uname -r)" --argjson cores "$(nproc)" --arg started "$started" \
		--argjson rounds "$rounds" --argjson seconds "$seconds" '
		def rows($sep): rtrimstr("\n") | split("\n") | map(select(. != "") | split($sep));
		{$started, $commit, $kernel, $cores, $rounds, $seconds,
		 results: ($medians | rows(" ") | map({who: .[0], metric: .[1], median: (.[2] | tonumber),
			unit: .[3], least: (.[4] | tonumber), most: (.[5] | tonumber), rounds: (.[6] | tonumber)})),
		 checks: ($checks | rows("|") | map({name: .[0], figure: (.[1] | tonumber), relation: .[2],
			limit: (.[3] | tonumber), unit: .[4], ok: (.[5] == "ok")}))}' >"$json"
}

# Latencies of a measure side by side, then whatever else was found of it.
write_markdown() {
	{
		printf '| check | figure | wanted | |\n|---|---|---|---|\n'
		awk -F'|' '{ printf "| %s | %s %s | %s %s %s | %s |\n", $1, $2, $5, $3, $4, $5, $6 }' "$work/checks"
		printf '\n| who | measure | p50 | p99 | p99.9 | besides |\n|---|---|---|---|---|---|\n'
		awk '
			{
				part = $2; sub(/.*_/, "", part)
				k = $1 " | " substr($2, 1, length($2) - length(part) - 1)
				if (!(k in seen)) { order[++n] = k; seen[k] = 1 }
				if (part ~ /^p[0-9.]+$/) { value[k, part] = $3 " " $4; next }
				more[k] = (more[k] == "" ? "" : more[k] ", ") part " " $3 " " $4
			}
			END {
				for (i = 1; i <= n; i++) {
					k = order[i]
					printf "| %s | %s | %s | %s | %s |\n", k, value[k, "p50"],
						value[k, "p99"], value[k, "p99.9"], more[k]
				}
			}' "$work/medians"
	} >"$markdown"
}

parse "$@"
prepare
started=$(date -u +%FT%TZ)
measure_all
medians >"$work/medians"
judge >"$work/checks"
print_tables
[ -z "$json" ] || write_json
[ -z "$markdown" ] || write_markdown
