/*
 * chaos.c - what a seed makes happen: the cluster that it draws, and what goes wrong.
 *
 * Faults come one after the other at random and last for a random time, from
 * far below a heartbeat to well beyond the TTL of a session, so that they
 * overlap. Half of them look for the leader.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum fault {
	FAULT_CRASH,
	FAULT_CRASH_ALL,
	FAULT_PAUSE,
	FAULT_STOP,
	FAULT_ISOLATE,
	FAULT_SPLIT,
	FAULT_ONE_WAY,
	FAULT_BREAK,
	FAULT_SLOW_LINKS,
	FAULT_SLOW_DISK,
	FAULT_FAILING_DISK,
	FAULT_LOW_SPACE,
	FAULT_MEMBERSHIP,
	FAULT_STALE_LEADER,
	FAULT_LATE_ANSWERS,
	FAULT_MAX_,
};

_Static_assert(FAULT_MAX_ <= SIM_FAULTS_MAX, "each fault has a weight");

/* --- faults of nodes ----------------------------------------------------------------- */

static uint64_t fault_lasts(struct sim *s)
{
	return rng_magnitude(&s->rng, 5, s->profile.fault_most_ms) * SIM_MS;
}

static size_t count_up(struct sim *s)
{
	size_t n = 0;

	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		n += s->nodes[id].presence == SIM_UP;
	}
	return n;
}

static struct sim_node *victim(struct sim *s)
{
	struct sim_node *leader = cluster_leader(s);
	size_t up = count_up(s);
	uint64_t which;

	if (leader != NULL && leader->presence == SIM_UP && rng_permille(&s->rng, 500)) {
		return leader;
	}
	if (up == 0) {
		return NULL;
	}
	which = rng_below(&s->rng, up);
	for (unsigned id = 1;; id++) {
		if (s->nodes[id].presence == SIM_UP && which-- == 0) {
			return &s->nodes[id];
		}
	}
}

/* Most of the time a majority stays: a cluster that does nothing shows nothing. */
static struct sim_node *expendable(struct sim *s)
{
	size_t present = 0;

	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		present += s->nodes[id].presence != SIM_ABSENT;
	}
	if (count_up(s) <= present / 2 + 1 && rng_permille(&s->rng, 700)) {
		return NULL;
	}
	return victim(s);
}

static void node_comes_back(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = cluster_node(s, e->a);

	if (n->life != (uint32_t)e->b || !s->chaos) {
		return;
	}
	if (n->presence == SIM_DOWN) {
		cluster_start(n);
	} else if (n->presence == SIM_PAUSED) {
		cluster_resume(n);
	}
}

static void comes_back_later(struct sim_node *n, uint64_t in_us)
{
	struct sim_event *e = sim_at(n->sim, n->sim->now_us + in_us, 0, node_comes_back);

	e->a = n->id;
	e->b = n->life;
}

static void crash(struct sim_node *n)
{
	cluster_crash(n, rng_permille(&n->sim->rng, 300));
	comes_back_later(n, fault_lasts(n->sim));
}

void chaos_node_down(struct sim_node *n)
{
	if (n->sim->chaos) {
		comes_back_later(n, fault_lasts(n->sim));
	}
}

static void crash_all(struct sim *s)
{
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		if (cluster_runs(&s->nodes[id])) {
			crash(&s->nodes[id]);
		}
	}
}

static void pause_node(struct sim_node *n)
{
	uint64_t us = fault_lasts(n->sim);

	cluster_pause(n);
	comes_back_later(n, us);
}

static void disk_is_well(struct sim *s, struct sim_event *e)
{
	struct disk *d = &s->nodes[e->a].disk;

	d->latency_us = 100;
	d->spread_us = 200;
}

static void slow_disk(struct sim_node *n)
{
	struct sim *s = n->sim;

	n->disk.latency_us = (uint32_t)rng_magnitude(&s->rng, 1000, 300000);
	n->disk.spread_us = n->disk.latency_us;
	sim_at(s, s->now_us + fault_lasts(s), 0, disk_is_well)->a = n->id;
}

static void space_again(struct sim *s, struct sim_event *e)
{
	node_low_space(s->nodes[e->node].node, false);
}

static void low_space(struct sim_node *n)
{
	struct sim *s = n->sim;

	if (!turn_begin(n)) {
		return;
	}
	SIM_TRACE(s, n->id, "disk.low_space", "%s", "");
	node_low_space(n->node, true);
	sim_at(s, s->now_us + fault_lasts(s), n->id, space_again);
	turn_end(n);
}

/* --- faults of the network ----------------------------------------------------------- */

static void heal_link(struct sim *s, struct sim_event *e)
{
	net_heal(s, e->a, e->b);
}

static void cut_for(struct sim *s, uint64_t from, uint64_t to, bool hold, uint64_t us)
{
	struct sim_event *e;

	net_cut(s, from, to, hold);
	e = sim_at(s, s->now_us + us, 0, heal_link);
	e->a = from;
	e->b = to;
}

/* side: bits of the nodes on one side. */
static void split(struct sim *s, uint64_t side)
{
	uint64_t us = fault_lasts(s);
	bool hold = rng_permille(&s->rng, 500);
	bool both_ways = rng_permille(&s->rng, 750);

	for (unsigned a = 1; a <= SIM_IDS_MAX; a++) {
		for (unsigned b = 1; b <= SIM_IDS_MAX; b++) {
			if ((side >> a & 1) == 1 && (side >> b & 1) == 0) {
				cut_for(s, a, b, hold, us);
				if (both_ways) {
					cut_for(s, b, a, hold, us);
				}
			}
		}
	}
}

static void one_way(struct sim *s)
{
	uint64_t from = rng_between(&s->rng, 1, SIM_IDS_MAX);
	uint64_t to = rng_between(&s->rng, 1, SIM_IDS_MAX);

	if (from != to) {
		cut_for(s, from, to, rng_permille(&s->rng, 500), fault_lasts(s));
	}
}

static void break_streams(struct sim *s)
{
	for (unsigned a = 1; a <= SIM_IDS_MAX; a++) {
		for (unsigned b = 1; b <= SIM_IDS_MAX; b++) {
			if (rng_permille(&s->rng, 300)) {
				net_break(s, a, b);
			}
		}
	}
}

static void links_are_well(struct sim *s, struct sim_event *e)
{
	for (unsigned b = 1; b <= SIM_IDS_MAX; b++) {
		s->net.link[e->a][b].delay_us = s->net.delay_us;
		s->net.link[e->a][b].spread_us = s->net.spread_us;
	}
}

/* All that a node sends, or all of it to one other. */
static void slow_links(struct sim *s, struct sim_node *n)
{
	uint32_t delay_us = (uint32_t)rng_magnitude(&s->rng, 1000, 1000 * s->profile.ttl_ms);
	uint64_t only = rng_permille(&s->rng, 500) ? rng_between(&s->rng, 1, SIM_IDS_MAX) : 0;

	for (unsigned b = 1; b <= SIM_IDS_MAX; b++) {
		if (only == 0 || only == b) {
			s->net.link[n->id][b].delay_us = delay_us;
			s->net.link[n->id][b].spread_us = delay_us / 4;
		}
	}
	sim_at(s, s->now_us + fault_lasts(s), 0, links_are_well)->a = n->id;
}

static void slow_link(struct sim *s, uint64_t from, uint64_t to, uint64_t delay_us, uint64_t us)
{
	s->net.link[from][to].delay_us = (uint32_t)delay_us;
	sim_at(s, s->now_us + us, 0, links_are_well)->a = from;
}

/* From here on the leader and its companion reach nobody. */
static void make_stale(struct sim *s, uint64_t leader, uint64_t companion)
{
	uint64_t us = 2 * s->profile.ttl_ms * SIM_MS;

	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		if (id != leader && id != companion) {
			cut_for(s, leader, id, true, us);
			cut_for(s, companion, id, true, us);
			cut_for(s, id, companion, true, us);
		}
	}
}

/* A leader hears all but its companion later and later, and still is heard; then it is not heard
 * any more, so that the others elect another one while their old answers still come in. */
#define STALE_STEP_MS 200 /* well below an election timeout, or it would notice */

static void grows_stale(struct sim *s, struct sim_event *e)
{
	uint64_t leader = e->a;
	uint64_t companion = e->b;
	uint64_t delay_ms = e->len;
	struct sim_event *next;

	if (!s->chaos || cluster_leader(s) != &s->nodes[leader]) {
		return;
	}
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		if (id != leader && id != companion) {
			slow_link(s, id, leader, delay_ms * SIM_MS, 3 * s->profile.ttl_ms * SIM_MS);
		}
	}
	if (delay_ms > s->profile.ttl_ms) {
		make_stale(s, leader, companion);
		return;
	}
	next = sim_at(s, s->now_us + STALE_STEP_MS * SIM_MS, 0, grows_stale);
	next->a = leader;
	next->b = companion;
	next->len = delay_ms + STALE_STEP_MS;
}

static void stale_leader(struct sim *s, struct sim_node *leader)
{
	struct sim_event *e = sim_at(s, s->now_us, 0, grows_stale);
	const struct sim_node *companion = victim(s);

	e->a = leader->id;
	e->b = companion->id;
	e->len = STALE_STEP_MS;
}

static void cut_now(struct sim *s, struct sim_event *e)
{
	if (s->chaos) {
		cut_for(s, e->a, e->b, false, 2 * s->profile.ttl_ms * SIM_MS);
	}
}

/* A node hears the leader late, and then is not heard any more: what it still hears must not make
 * it believe in its lease for longer. */
static void late_answers(struct sim *s, struct sim_node *n)
{
	const struct sim_node *leader = cluster_leader(s);
	uint64_t delay_us = rng_magnitude(&s->rng, 100, s->profile.ttl_ms) * SIM_MS;
	uint64_t us = 4 * s->profile.ttl_ms * SIM_MS;
	struct sim_event *e;

	if (leader == NULL || leader == n) {
		return;
	}
	slow_link(s, leader->id, n->id, delay_us, us);
	e = sim_at(s, s->now_us + 2 * delay_us + rng_below(&s->rng, s->profile.ttl_ms * SIM_MS), 0,
		cut_now);
	e->a = n->id;
	e->b = leader->id;
}

/* --- membership ---------------------------------------------------------------------- */

static void process_joins(struct sim *s, struct sim_event *e)
{
	const struct sim_node *leader = cluster_leader(s);
	uint64_t id = e->a;
	uint64_t tries = e->b;
	struct sim_event *again;

	if (s->nodes[id].presence != SIM_ABSENT || id != s->next_id || !s->chaos) {
		return;
	}
	if (leader != NULL && raft_config_find(raft_config(node_raft(leader->node)), id) != NULL) {
		s->next_id++;
		cluster_join(s, id, raft_config(node_raft(leader->node)));
	} else if (tries > 0) {
		again = sim_at(s, s->now_us + 100 * SIM_MS, 0, process_joins);
		again->a = id;
		again->b = tries - 1;
	}
}

static void process_is_gone(struct sim *s, struct sim_event *e)
{
	if (s->nodes[e->a].presence != SIM_ABSENT) {
		cluster_forget(&s->nodes[e->a]);
	}
}

void chaos_membership_changed(
	struct sim_node *at, const struct membership_change *change, int error)
{
	struct sim *s = at->sim;
	struct sim_event *e;

	if (s->scripted) {
		return;
	}
	if (change->kind == RAFT_ADD_LEARNER && (error == 0 || error == EEXIST)) {
		e = sim_at(s, s->now_us + rng_magnitude(&s->rng, 100, 3000 * SIM_MS), 0,
			process_joins);
		e->a = change->id;
		e->b = 50;
	} else if (change->kind == RAFT_REMOVE && (error == 0 || error == ENOENT)) {
		sim_at(s, s->now_us + rng_magnitude(&s->rng, 100, 3000 * SIM_MS), 0,
			process_is_gone)
			->a = change->id;
	}
}

static size_t count_voters(const struct raft_config *config)
{
	size_t voters = 0;

	for (size_t i = 0; i < config->n; i++) {
		voters += config->servers[i].voter;
	}
	return voters;
}

static void change_membership(struct sim *s, struct sim_node *at)
{
	const struct raft_config *config = raft_config(node_raft(at->node));
	uint64_t id;

	if (s->next_id <= SIM_IDS_MAX && rng_permille(&s->rng, 500)) {
		cluster_change(at, RAFT_ADD_LEARNER, s->next_id);
		return;
	}
	id = config->servers[rng_below(&s->rng, config->n)].id;
	if (count_voters(config) > 2 && s->nodes[id].presence != SIM_ABSENT) {
		cluster_change(at, RAFT_REMOVE, id);
	}
}

/* --- the seed ------------------------------------------------------------------------ */

static void strike_node(struct sim *s, enum fault f)
{
	bool deadly =
		f == FAULT_CRASH || f == FAULT_PAUSE || f == FAULT_STOP || f == FAULT_FAILING_DISK;
	struct sim_node *n = f == FAULT_STALE_LEADER ? cluster_leader(s)
			     : deadly                ? expendable(s)
						     : victim(s);

	if (n == NULL || n->stopping || n->presence != SIM_UP) {
		return;
	}
	switch (f) {
	case FAULT_CRASH:
		crash(n);
		break;
	case FAULT_PAUSE:
		pause_node(n);
		break;
	case FAULT_STOP:
		cluster_stop(n);
		break;
	case FAULT_ISOLATE:
		split(s, UINT64_C(1) << n->id);
		break;
	case FAULT_SLOW_LINKS:
		slow_links(s, n);
		break;
	case FAULT_SLOW_DISK:
		slow_disk(n);
		break;
	case FAULT_FAILING_DISK:
		n->disk.sync_fails = (uint32_t)rng_between(&s->rng, 1, 20);
		break;
	case FAULT_LOW_SPACE:
		low_space(n);
		break;
	case FAULT_MEMBERSHIP:
		change_membership(s, n);
		break;
	case FAULT_STALE_LEADER:
		stale_leader(s, n);
		break;
	case FAULT_LATE_ANSWERS:
		late_answers(s, n);
		break;
	case FAULT_CRASH_ALL:
	case FAULT_SPLIT:
	case FAULT_ONE_WAY:
	case FAULT_BREAK:
	case FAULT_MAX_:
		UNREACHABLE();
	}
}

static enum fault draw_fault(struct sim *s)
{
	unsigned total = 0;
	uint64_t dice;
	unsigned f;

	for (f = 0; f < FAULT_MAX_; f++) {
		total += s->profile.weight[f];
	}
	dice = rng_below(&s->rng, total);
	for (f = 0; dice >= s->profile.weight[f]; f++) {
		dice -= s->profile.weight[f];
	}
	return (enum fault)f;
}

static void fault_strikes(struct sim *s, struct sim_event *e)
{
	enum fault f;

	(void)e;
	if (!s->chaos) {
		return;
	}
	sim_at(s, s->now_us + rng_between(&s->rng, 1, 2 * s->profile.fault_every_us), 0,
		fault_strikes);
	f = draw_fault(s);
	if (f == FAULT_CRASH_ALL) {
		crash_all(s);
	} else if (f == FAULT_SPLIT) {
		split(s, rng_next(&s->rng));
	} else if (f == FAULT_ONE_WAY) {
		one_way(s);
	} else if (f == FAULT_BREAK) {
		break_streams(s);
	} else {
		strike_node(s, f);
	}
}

static void draw_network(struct sim *s)
{
	struct net *net = &s->net;

	net->delay_us = (uint32_t)rng_magnitude(&s->rng, 20, 10000);
	net->spread_us = (uint32_t)rng_magnitude(&s->rng, 20, 2 * net->delay_us + 20);
	net->ordered = rng_permille(&s->rng, 700);
	if (!net->ordered) {
		net->loss_permille = (unsigned)rng_below(&s->rng, 50);
		net->doubling_permille = (unsigned)rng_below(&s->rng, 50);
	}
}

static void draw_profile(struct sim *s)
{
	static const unsigned sizes[] = {1, 3, 3, 3, 3, 3, 3, 5, 5, 5};
	static const uint32_t ttls[] = {1500, 2000, 3000, 5000};
	struct sim_profile *p = &s->profile;

	p->nodes = sizes[rng_below(&s->rng, ARRAY_SIZE(sizes))];
	p->clients_per_node = (unsigned)rng_between(&s->rng, 1, p->nodes == 5 ? 4 : 6);
	p->locks = (unsigned)rng_between(&s->rng, 1, 5);
	p->ttl_ms = ttls[rng_below(&s->rng, ARRAY_SIZE(ttls))];
	p->timeo_ms = (uint32_t)rng_magnitude(&s->rng, 500, 8000);
	p->think_us = rng_magnitude(&s->rng, 10 * SIM_MS, 4000 * SIM_MS);
	p->hold_us = rng_magnitude(&s->rng, 10 * SIM_MS, 2000 * SIM_MS);
	p->fault_every_us = rng_magnitude(&s->rng, 200 * SIM_MS, 6000 * SIM_MS);
	p->fault_most_ms = 2 * p->ttl_ms + 500;
	p->turn_us = rng_permille(&s->rng, 500) ? 0 : rng_magnitude(&s->rng, 10, 2000);
	for (unsigned f = 0; f < FAULT_MAX_; f++) {
		p->weight[f] =
			rng_permille(&s->rng, 700) ? (unsigned)rng_between(&s->rng, 1, 10) : 0;
	}
	p->weight[FAULT_CRASH_ALL] = MIN(p->weight[FAULT_CRASH_ALL], 1);
	p->weight[FAULT_BREAK] += 1; /* at least one kind of fault */
	for (unsigned i = 0; i < p->locks; i++) {
		(void)snprintf(s->locks[i].name, sizeof s->locks[i].name, "lock%u", i);
	}
}

/* Small limits, so that they are reached. The same on all nodes. */
static void draw_options(struct sim *s)
{
	static const uint64_t trailing[] = {0, 2, 32, 8192};
	struct node_options o = s->nodes[1].options;

	o.raft.append_entries_max = rng_magnitude(&s->rng, 1, 1024);
	o.raft.append_bytes_max = rng_magnitude(&s->rng, 200, 256 * 1024);
	o.raft.inflight_max = rng_magnitude(&s->rng, 1, 64);
	if (s->options.bias == BIAS_SHORT_LEADERS) {
		o.raft.append_entries_max = 1;
		o.raft.inflight_max = 1;
	}
	o.raft.snapshot_chunk_bytes = rng_magnitude(&s->rng, 100, 64 * 1024);
	o.raft.trailing_entries = trailing[rng_below(&s->rng, ARRAY_SIZE(trailing))];
	o.snapshot_log_bytes = rng_magnitude(&s->rng, 2 * 1024, 512 * 1024);
	o.snapshot_slice_bytes = rng_magnitude(&s->rng, 100, 64 * 1024);
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		struct node_options *to = &s->nodes[id].options;

		to->raft.append_entries_max = o.raft.append_entries_max;
		to->raft.append_bytes_max = o.raft.append_bytes_max;
		to->raft.inflight_max = o.raft.inflight_max;
		to->raft.snapshot_chunk_bytes = o.raft.snapshot_chunk_bytes;
		to->raft.trailing_entries = o.raft.trailing_entries;
		to->snapshot_log_bytes = o.snapshot_log_bytes;
		to->snapshot_slice_bytes = o.snapshot_slice_bytes;
		s->nodes[id].disk.batch_max = rng_magnitude(&s->rng, 1, 1024);
		s->nodes[id].disk.spread_us = (uint32_t)rng_magnitude(&s->rng, 20, 5000);
	}
}

/* What brings out a planted bug sooner than chance does. */
static void bias(struct sim *s)
{
	struct sim_profile *p = &s->profile;

	switch (s->options.bias) {
	case BIAS_NONE:
		return;
	case BIAS_SHORT_LEADERS:
		/* Leaders that come and go while single entries travel slowly (figure 8). */
		memset(p->weight, 0, sizeof p->weight);
		p->weight[FAULT_CRASH] = 3;
		p->weight[FAULT_ISOLATE] = 3;
		p->weight[FAULT_SPLIT] = 1;
		p->nodes = s->options.seed % 2 == 0 ? 3 : 5;
		p->fault_every_us = 250 * SIM_MS;
		p->fault_most_ms = 1200;
		p->think_us = 50 * SIM_MS;
		s->net.delay_us = 20000;
		s->net.spread_us = 20000;
		break;
	case BIAS_LEASES:
		memset(p->weight, 0, sizeof p->weight);
		p->weight[FAULT_STALE_LEADER] = 1;
		p->weight[FAULT_LATE_ANSWERS] = 1;
		p->nodes = 5;
		p->locks = 1;
		p->fault_every_us = p->ttl_ms * 4 * SIM_MS;
		break;
	}
}

void chaos_start(struct sim *s)
{
	draw_profile(s);
	draw_network(s);
	bias(s);
	cluster_init(s, s->profile.nodes);
	draw_options(s);
	SIM_TRACE(s, 0, "seed",
		"seed=%" PRIu64 " nodes=%u clients=%u locks=%u ttl_ms=%" PRIu32 " ordered=%d",
		s->options.seed, s->profile.nodes, s->profile.clients_per_node, s->profile.locks,
		s->profile.ttl_ms, s->net.ordered);
	s->chaos = true;
	for (unsigned id = 1; id <= s->profile.nodes; id++) {
		cluster_start(&s->nodes[id]);
	}
	sim_at(s, s->profile.fault_every_us, 0, fault_strikes);
}

void chaos_stop(struct sim *s)
{
	s->chaos = false;
	s->net.loss_permille = 0;
	s->net.doubling_permille = 0;
	s->net.delay_us = MIN(s->net.delay_us, 1000); /* who is far behind is to catch up in time */
	s->net.spread_us = MIN(s->net.spread_us, 1000);
	for (size_t i = 0; i < s->n_clients; i++) {
		struct sim_client *c = &s->clients[i];

		c->stubborn = rng_permille(&s->rng, 400);
		if (c->state != CLIENT_ASKING) {
			mind_moves(c);
		}
	}
}

static void look_at_all(struct sim *s, struct sim_event *e)
{
	(void)e;
	holds_check_all(s);
	sim_at(s, s->now_us + 200 * SIM_MS, 0, look_at_all);
}

void sim_run_chaos(struct sim *s)
{
	chaos_start(s);
	sim_at(s, 0, 0, look_at_all);
	sim_run_until(s, s->options.chaos_ms * SIM_MS);
	heal_run(s);
}
