/*
 * heal.c - when the faults have stopped, everything comes right, in time.
 *
 * First the network is healed, what is down is started, and no client begins
 * anything new; some that hold a lock keep it. In bounded time there is one
 * leader, every node has a session and the same state, every question is
 * answered, and the lock table says exactly what the clients say. Then it stays
 * so, without another election. Then the clients let go, of what they hold and
 * of half of their waits; the other waits must be granted, and at the end the
 * table is empty.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>

#define STEP_US (50 * SIM_MS)
#define QUIET_MS 1500 /* longer than any election timeout, twice */
/* Elections, reconnecting and catching up, once nothing is in the way any more; the TTL of a
 * session whose node is gone comes on top. Arbitrary, but bounded. */
#define SETTLE_MS 10000

static bool was_removed(const struct sim_node *leader, uint64_t id)
{
	const struct raft *r = node_raft(leader->node);

	return raft_leader_ready(r) && raft_commit(r) == raft_last_index(r) &&
	       raft_config_find(raft_config(r), id) == NULL;
}

static void repair(struct sim *s)
{
	const struct sim_node *leader = cluster_leader(s);

	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		struct sim_node *n = &s->nodes[id];

		n->disk.latency_us = 100;
		n->disk.spread_us = 100;
		n->disk.sync_fails = 0;
		if (n->presence == SIM_DOWN) {
			cluster_start(n);
		} else if (n->presence == SIM_PAUSED) {
			cluster_resume(n);
		}
		/* A server that was removed while its process could not hear of it. */
		if (leader != NULL && n->presence == SIM_UP && was_removed(leader, id)) {
			cluster_forget(n);
		}
	}
}

static bool nodes_are_well(struct sim *s, char *why, size_t size)
{
	const struct sim_node *leader = cluster_leader(s);

	if (leader == NULL || !raft_leader_ready(node_raft(leader->node))) {
		(void)snprintf(why, size, "nobody leads");
		return false;
	}
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		const struct sim_node *n = &s->nodes[id];

		if (n->presence == SIM_ABSENT) {
			continue;
		}
		if (n->presence != SIM_UP || n->stopping || node_session(n->node) == 0) {
			(void)snprintf(why, size, "node %u has no session", id);
			return false;
		}
		if (raft_leader(node_raft(n->node)) != leader->id) {
			(void)snprintf(
				why, size, "node %u does not follow node %" PRIu64, id, leader->id);
			return false;
		}
	}
	if (!watch_agree(s)) {
		(void)snprintf(why, size, "the nodes have not applied the same");
		return false;
	}
	return true;
}

static bool clients_are_well(struct sim *s, char *why, size_t size)
{
	for (size_t i = 0; i < s->n_clients; i++) {
		const struct sim_client *c = &s->clients[i];

		if (c->op != NULL && (c->sets_value || !c->wait || s->letting_go)) {
			(void)snprintf(why, size, "client %u on node %" PRIu64 " has no answer",
				c->index, c->node);
			return false;
		}
		if (c->state == CLIENT_LOST || (c->op == NULL && c->unsure) ||
			(c->holds && !c->stubborn)) {
			(void)snprintf(why, size, "client %u has not let go yet", c->index);
			return false;
		}
	}
	return true;
}

static bool all_is_well(struct sim *s, char *why, size_t size)
{
	return nodes_are_well(s, why, size) && clients_are_well(s, why, size) &&
	       holds_match(s, why, size);
}

static void settle(struct sim *s, const char *check, uint64_t within_ms)
{
	uint64_t deadline_us = s->now_us + within_ms * SIM_MS;
	char why[256] = "";

	do {
		if (s->now_us > deadline_us) {
			sim_fail(s, check, "%" PRIu64 " ms after all was repaired: %s", within_ms,
				why);
		}
		sim_run_until(s, s->now_us + STEP_US);
		repair(s);
		holds_check_all(s);
	} while (!all_is_well(s, why, sizeof why));
}

static void stay_quiet(struct sim *s)
{
	uint64_t term = raft_term(node_raft(cluster_leader(s)->node));

	sim_run_until(s, s->now_us + QUIET_MS * SIM_MS);
	if (cluster_leader(s) == NULL || raft_term(node_raft(cluster_leader(s)->node)) != term) {
		sim_fail(s, "stability", "a new election although nothing was in the way");
	}
	settle(s, "ghosts", SETTLE_MS); /* somebody may just have lost patience */
}

static void let_go(struct sim *s)
{
	s->letting_go = true;
	for (size_t i = 0; i < s->n_clients; i++) {
		struct sim_client *c = &s->clients[i];
		struct sim_node *n = &s->nodes[c->node];

		c->stubborn = false;
		if (n->presence != SIM_UP || (c->op != NULL && c->index % 2 == 0)) {
			continue;
		}
		(void)turn_begin(n);
		client_close(c);
		turn_end(n);
	}
}

void heal_run(struct sim *s)
{
	SIM_TRACE(s, 0, "heal", "%s", "the faults stop");
	chaos_stop(s);
	net_heal_all(s);
	repair(s);
	settle(s, "liveness", SETTLE_MS + 2 * s->profile.ttl_ms);
	/* A leader may still find that it heard too little while the faults went on. */
	sim_run_until(s, s->now_us + QUIET_MS * SIM_MS);
	settle(s, "liveness", SETTLE_MS);
	SIM_TRACE(s, 0, "heal", "%s", "all is well");
	stay_quiet(s);
	let_go(s);
	settle(s, "waits end", SETTLE_MS);
	if (state_locks(node_state(cluster_leader(s)->node)) != NULL) {
		sim_fail(s, "ghosts", "everybody let go, and the table is not empty");
	}
	SIM_TRACE(s, 0, "heal", "events=%" PRIu64 " grants=%" PRIu64 " lost=%" PRIu64, s->n_events,
		s->n_grants, s->n_lost);
}
