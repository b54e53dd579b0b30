/*
 * cluster.c - the processes of the nodes: their lives, their clocks, struct env.
 *
 * Everything that happens to a node happens in a turn: the time is told, inputs
 * are given, the node is flushed, and what must hold is checked. A process that
 * must end in a turn (a failed sync, a clean stop) ends at the end of it.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/wire.h"

#define STOP_MAX_MS 5000 /* for a clean shutdown; as the daemon's unit file would have it */

/* --- clocks -------------------------------------------------------------------------- */

uint64_t node_clock_ms(const struct sim_node *n)
{
	int64_t now_us = (int64_t)n->sim->now_us;

	return (uint64_t)((n->clock_offset_us + now_us + now_us * n->drift_ppm / 1000000) / 1000);
}

static uint64_t node_wall_ms(const struct sim_node *n)
{
	return (uint64_t)((int64_t)(n->sim->now_us / 1000) + n->wall_offset_ms);
}

/* --- turns --------------------------------------------------------------------------- */

static void another_turn(struct sim *s, struct sim_event *e)
{
	(void)s; /* the turn itself is what was wanted */
	(void)e;
}

bool turn_begin(struct sim_node *n)
{
	ASSERT(n->presence == SIM_UP);
	ASSERT(!n->in_turn);
	n->in_turn = true;
	node_set_now(n->node, node_clock_ms(n), node_wall_ms(n));
	return !n->dying;
}

static void process_ends(struct sim_node *n)
{
	bool clean = n->stopping;

	cluster_crash(n, false);
	n->dying = false;
	SIM_TRACE(n->sim, n->id, "node.ended", "clean=%d", clean);
	chaos_node_down(n);
}

void turn_end(struct sim_node *n)
{
	struct sim *s = n->sim;

	if (!n->dying) {
		node_flush(n->node);
	}
	n->in_turn = false;
	if (n->dying) {
		process_ends(n);
		return;
	}
	watch_turn(n);
	if (node_wants_turn(n->node)) {
		sim_at(s, s->now_us + rng_between(&s->rng, 20, 500), n->id, another_turn);
	}
	holds_check(s, n->id, false);
}

void cluster_probe(struct sim_node *n)
{
	if (n->presence == SIM_UP && !n->in_turn) {
		(void)turn_begin(n);
		turn_end(n);
	}
}

static void tick(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[e->node];
	uint64_t period_us = n->options.raft.heartbeat_ms * SIM_MS / 4;

	node_tick(n->node);
	sim_at(s, s->now_us + period_us - rng_below(&s->rng, period_us / 8 + 1), n->id, tick);
}

/* --- struct env: the rest is in disk.c and snapfile.c -------------------------------- */

static void env_send(void *ctx, uint64_t to, const void *frame, size_t len)
{
	struct sim_node *n = ctx;

	watch_frame(n, to, (const uint8_t *)frame + WIRE_FRAME_HEADER_BYTES,
		len - WIRE_FRAME_HEADER_BYTES);
	net_send(n->sim, n->id, to, frame, len);
}

static void env_peers(void *ctx, const struct raft_config *config)
{
	struct sim_node *n = ctx;

	net_wanted(n->sim, n->id, config);
}

static void env_fatal(void *ctx, const char *text)
{
	struct sim_node *n = ctx;

	sim_fail(n->sim, "fatal", "node %" PRIu64 " cannot go on: %s", n->id, text);
}

static void env_stopped(void *ctx)
{
	struct sim_node *n = ctx;

	n->dying = true;
}

static void env_trace(void *ctx, enum trace_level level, const char *event, const char *kv)
{
	struct sim_node *n = ctx;

	(void)level;
	sim_trace(n->sim, n->id, event, "%s", kv);
}

static void env_init(struct sim_node *n)
{
	n->env = (struct env){
		.ctx = n,
		.send = env_send,
		.peers = env_peers,
		.fatal = env_fatal,
		.stopped = env_stopped,
	};
	if (sim_tracing(n->sim)) {
		n->env.trace = (struct tracer){env_trace, n, TRACE_DEBUG};
	}
	disk_env(&n->env);
	snapfile_env(&n->env);
}

/* --- lives --------------------------------------------------------------------------- */

static void server_address(uint64_t id, char *buf, size_t size)
{
	(void)snprintf(buf, size, "node%" PRIu64 ":7100", id);
}

static void config_add(struct raft_config *c, uint64_t id, bool voter)
{
	struct raft_server *server;

	c->servers = xrealloc(c->servers, (c->n + 1) * sizeof(*c->servers));
	server = &c->servers[c->n++];
	*server = (struct raft_server){.id = id, .voter = voter};
	server_address(id, server->addr, sizeof server->addr);
}

static void node_init(struct sim *s, uint64_t id)
{
	struct sim_node *n = &s->nodes[id];

	n->sim = s;
	n->id = id;
	node_options_default(&n->options);
	n->options.raft.id = id;
	n->options.ttl_ms = s->profile.ttl_ms;
	n->options.timeo_ms = s->profile.timeo_ms;
	n->options.version = "simulated";
	memset(n->options.uuid, (int)id, sizeof n->options.uuid);
	disk_init(&n->disk);
	n->clock_offset_us = (int64_t)rng_between(&s->rng, 1000 * SIM_MS, 1000000 * SIM_MS);
	n->drift_ppm = (int32_t)rng_between(&s->rng, 0, 20000) - 10000;
	n->wall_offset_ms = (int64_t)rng_between(&s->rng, 1, 1000000);
	env_init(n);
}

void cluster_init(struct sim *s, unsigned n)
{
	struct raft_config config = {0};

	ASSERT(n <= SIM_IDS_MAX);
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		node_init(s, id);
	}
	for (unsigned id = 1; id <= n; id++) {
		config_add(&config, id, true);
	}
	for (unsigned id = 1; id <= n; id++) {
		ASSERT(raft_config_copy(&config, &s->nodes[id].boot) == 0);
		s->nodes[id].presence = SIM_DOWN;
	}
	raft_config_fini(&config);
	s->next_id = n + 1;
	net_init(s);
}

void cluster_fini(struct sim *s)
{
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		s->nodes[id].presence = SIM_ABSENT;
		sim_unpark(&s->nodes[id]);
		node_free(s->nodes[id].node);
		disk_fini(&s->nodes[id].disk);
		raft_config_fini(&s->nodes[id].boot);
		s->nodes[id].node = NULL;
	}
}

struct sim_node *cluster_node(struct sim *s, uint64_t id)
{
	ASSERT(id > 0 && id <= SIM_IDS_MAX);
	return &s->nodes[id];
}

bool cluster_runs(const struct sim_node *n)
{
	return n->presence == SIM_UP || n->presence == SIM_PAUSED;
}

/* As core/main.c: what the disk has becomes what the node starts with. */
static void process_new(struct sim_node *n)
{
	struct disk *d = &n->disk;
	struct raft_config config = {0};
	struct node_start start = {0};
	size_t covered;

	disk_recover(n);
	start.raft.term = d->term;
	start.raft.vote = d->vote;
	start.raft.config = &n->boot;
	start.resume = n->started_before;
	if (d->newest.index > 0) {
		ASSERT(snap_file_config(&d->newest, &config));
		start.snapshot = true;
		start.raft.config = &config;
		start.raft.snapshot_index = d->newest.index;
		start.raft.snapshot_term = d->newest.term;
	}
	covered = d->newest.index - d->log.prev_index;
	start.raft.entries = d->log.n > covered ? d->log.entries + covered : NULL;
	start.raft.n_entries = d->log.n - covered;
	n->options.raft.seed = rng_next(&n->sim->rng);
	if (node_new(&n->options, &n->env, &start, node_clock_ms(n), &n->node) != 0) {
		sim_fail(n->sim, "start", "node %" PRIu64 " does not start from its own disk",
			n->id);
	}
	raft_config_fini(&config);
}

void cluster_start(struct sim_node *n)
{
	struct sim *s = n->sim;
	struct core_listener listener;

	ASSERT(n->presence == SIM_DOWN);
	n->life++;
	n->stopping = false;
	n->next_owner = 1;
	SIM_TRACE(s, n->id, "node.start",
		"life=%" PRIu32 " term=%" PRIu64 " vote=%" PRIu64 " snapshot=%" PRIu64
		" last=%" PRIu64,
		n->life, n->disk.term, n->disk.vote, n->disk.newest.index, disk_last(&n->disk));
	watch_started(n);
	n->presence = SIM_UP;
	process_new(n);
	n->started_before = true;
	clients_listener(n, &listener);
	core_listen(node_core(n->node), &listener);
	sim_at(s, s->now_us, n->id, tick);
	mind_node_up(n);
}

void cluster_join(struct sim *s, uint64_t id, const struct raft_config *config)
{
	struct sim_node *n = cluster_node(s, id);

	ASSERT(n->presence == SIM_ABSENT);
	ASSERT(raft_config_find(config, id) != NULL);
	raft_config_fini(&n->boot);
	ASSERT(raft_config_copy(config, &n->boot) == 0);
	n->presence = SIM_DOWN;
	cluster_start(n);
}

void cluster_crash(struct sim_node *n, bool reboot)
{
	struct sim *s = n->sim;

	ASSERT(cluster_runs(n));
	ASSERT(!n->in_turn);
	SIM_TRACE(s, n->id, "node.crash", "reboot=%d", reboot);
	clients_node_gone(s, n->id);
	n->presence = SIM_DOWN;
	sim_unpark(n);
	n->change.under_way = false;
	node_free(n->node);
	n->node = NULL;
	disk_crash(n);
	net_node_gone(s, n->id);
	if (reboot) {
		n->clock_offset_us += (int64_t)rng_between(&s->rng, 1000 * SIM_MS, 9000 * SIM_MS) -
				      (int64_t)node_clock_ms(n) * 1000;
	}
}

void cluster_pause(struct sim_node *n)
{
	ASSERT(n->presence == SIM_UP);
	n->presence = SIM_PAUSED;
	SIM_TRACE(n->sim, n->id, "node.pause", "clock=%" PRIu64, node_clock_ms(n));
}

void cluster_resume(struct sim_node *n)
{
	ASSERT(n->presence == SIM_PAUSED);
	n->presence = SIM_UP;
	SIM_TRACE(n->sim, n->id, "node.resume", "clock=%" PRIu64, node_clock_ms(n));
	cluster_probe(n);
	holds_check(n->sim, n->id, true);
	sim_unpark(n);
}

void cluster_stop(struct sim_node *n)
{
	ASSERT(n->presence == SIM_UP);
	SIM_TRACE(n->sim, n->id, "node.stop", "max_ms=%d", STOP_MAX_MS);
	(void)turn_begin(n);
	n->stopping = true;
	clients_session_lost(n);
	node_shutdown(n->node, STOP_MAX_MS);
	turn_end(n);
}

void cluster_forget(struct sim_node *n)
{
	if (cluster_runs(n)) {
		cluster_crash(n, false);
	}
	SIM_TRACE(n->sim, n->id, "node.forgotten", "id=%" PRIu64, n->id);
	n->presence = SIM_ABSENT;
}

struct sim_node *cluster_leader(struct sim *s)
{
	struct sim_node *leader = NULL;
	uint64_t term = 0;

	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		struct sim_node *n = &s->nodes[id];
		const struct raft *r;

		if (!cluster_runs(n)) {
			continue;
		}
		r = node_raft(n->node);
		if (raft_role(r) == RAFT_LEADER && raft_term(r) > term) {
			term = raft_term(r);
			leader = n;
		}
	}
	return leader;
}

/* --- membership ---------------------------------------------------------------------- */

static void change_done(void *arg, int error, uint64_t id, const char *text)
{
	struct sim_node *at = arg;
	struct membership_change change = at->change;

	at->change.under_way = false;
	SIM_TRACE(at->sim, at->id, "member.answer", "kind=%d id=%" PRIu64 " error=%d text=%s",
		(int)change.kind, id, error, text != NULL ? text : "");
	chaos_membership_changed(at, &change, error);
}

void cluster_change(struct sim_node *at, enum raft_change kind, uint64_t id)
{
	char addr[RAFT_ADDR_MAX];

	if (at->change.under_way) {
		return;
	}
	server_address(id, addr, sizeof addr);
	SIM_TRACE(at->sim, at->id, "member.ask", "kind=%d id=%" PRIu64, (int)kind, id);
	(void)turn_begin(at);
	at->change = (struct membership_change){true, kind, id};
	node_change_member(at->node, kind, id, addr, change_done, at);
	turn_end(at);
}
