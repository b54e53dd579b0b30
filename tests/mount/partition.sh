#!/usr/bin/env bash
# partition.sh - a minority is cut off: its holders get EIO before the majority grants their locks.
#
# Each node lives in a network namespace of its own, joined by a bridge; a cut takes the node's link
# down at the bridge, so that nothing is refused or reset: packets just do not arrive. Mounts stay
# visible to the test because only the network is apart. Needs root.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

PREFIX=cfs$$
NET=10.213.7
PORT=7101
TTL_MS=2000

host() { echo "$PREFIX-$1"; } # a namespace's name; 0 is the one with the bridge

net_up() {
	local i
	ip netns add "$(host 0)" || return 1
	ip -n "$(host 0)" link add br0 type bridge && ip -n "$(host 0)" link set br0 up || return 1
	for i in 1 2 3; do
		ip netns add "$(host "$i")" &&
			ip -n "$(host "$i")" link add eth0 type veth peer name "port$i" netns "$(host 0)" &&
			ip -n "$(host "$i")" addr add "$NET.$i/24" dev eth0 &&
			ip -n "$(host "$i")" link set eth0 up &&
			ip -n "$(host "$i")" link set lo up &&
			ip -n "$(host 0)" link set "port$i" master br0 up || return 1
	done
}

net_down() {
	local i
	for i in 0 1 2 3; do
		ip netns del "$(host "$i")" 2>/dev/null || true # what was never made need not go
	done
}

cut_off() { ip -n "$(host 0)" link set "port$1" down; }

join_again() { ip -n "$(host 0)" link set "port$1" up; }

start_node() {
	local i=$1
	mkdir -p "$cluster/node$i" "$cluster/mnt$i"
	nsenter --net="/run/netns/$(host "$i")" "$COORDFS_COORDD" --dir "$cluster/node$i" --id "$i" \
		--peers "1=$NET.1:$PORT,2=$NET.2:$PORT,3=$NET.3:$PORT" --listen "$NET.$i:$PORT" \
		--secret-file "$work/secret" --mount "$cluster/mnt$i" --ttl ${TTL_MS}ms \
		</dev/null >>"$cluster/node$i/coordd.log" 2>&1 &
	node_process[i]=$!
}

serves() { timeout 2 flock -n "$(lock "$1" "serves$1")" true 2>/dev/null; }

stop_nodes() {
	local i
	for i in "${!node_process[@]}"; do
		kill -KILL "${node_process[i]}" 2>/dev/null || true # it may have ended
		wait "${node_process[i]}" 2>/dev/null || true
		umount -l "$cluster/mnt$i" 2>/dev/null || true # it unmounts itself if it can
	done
	net_down
	cleanup
}

declare -a node_process=()
need_fuse
[ "$(id -u)" = 0 ] || skip_all "network namespaces need root"
if ! net_up 2>"$work/net.log"; then
	net_down
	skip_all "no network namespaces here: $(tail -n 1 "$work/net.log")"
fi
trap stop_nodes EXIT
head -c 24 /dev/urandom | base64 >"$work/secret"
chmod 600 "$work/secret"
for i in 1 2 3; do
	start_node "$i"
done
for i in 1 2 3; do
	wait_until 30 serves "$i"
done

# is_cut NODE: what happens to NODE's lock when NODE cannot be reached.
is_cut() {
	local node=$1 other=$(($1 % 3 + 1)) begin
	hold old "$node" minority -p -r
	grab new "$other" minority
	wait_until 5 waiters_are "$other" minority 1
	begin=$(now_ms)
	cut_off "$node"
	wait_until 10 has new
	note "$([ "$2" = leader ] && echo "leader" || echo "follower") cut off:" \
		"the other side has the lock after $(($(now_ms) - begin)) ms"
	told old error || fail "granted to another while its holder knew nothing"
	[ "$(event old error 3)" -le "$(held_ms new)" ] ||
		fail "EIO at $(event old error 3) ms, granted at $(held_ms new) ms"
	expect_equal EIO "$(event old error 2)" "the holder's I/O"
	[ "$(token_of new)" -gt "$(token_of old)" ] || fail "the token did not grow"
	wait_until 5 told old signal
	within 1000 ls "$(mnt "$node")"
	within 1000 cat "$(mnt "$node")/status/raft"
	join_again "$node"
	wait_until 20 serves "$node"
	expect_status 1 flock -n "$(lock "$node" minority)" true
	drop new
	within 5000 flock -w 5 "$(lock "$node" minority)" true
	drop old
}

a_cut_off_follower_knows_before_the_majority_grants() {
	is_cut $(($(leader 1) % 3 + 1)) follower
}

a_cut_off_leader_knows_before_the_majority_grants() {
	is_cut "$(leader 1)" leader
}

# Two of three cut off from each other and the third: nobody has a majority, so nobody is granted anything.
without_a_majority_nobody_is_granted_anything() {
	local i
	hold old 1 nobody -p -r
	for i in 1 2 3; do
		cut_off "$i"
	done
	wait_until 10 told old error
	for i in 1 2 3; do
		expect_status 124 timeout 2 flock -n "$(lock "$i" nobody)" true
	done
	for i in 1 2 3; do
		join_again "$i"
	done
	for i in 1 2 3; do
		wait_until 20 serves "$i"
	done
	within 10000 flock -w 10 "$(lock 2 nobody)" true
	drop old
}

the_nodes_stop_cleanly() {
	local i
	for i in 1 2 3; do
		kill -TERM "${node_process[i]}"
	done
	for i in 1 2 3; do
		wait_until 20 is_gone "${node_process[i]}"
	done
	nothing_is_left
	logs_are_clean
}

run_cases \
	a_cut_off_follower_knows_before_the_majority_grants \
	a_cut_off_leader_knows_before_the_majority_grants \
	without_a_majority_nobody_is_granted_anything \
	the_nodes_stop_cleanly
