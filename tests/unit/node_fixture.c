/*
 * node_fixture.c - see node_fixture.h.
 */
#include "tests/unit/node_fixture.h"

#include <errno.h>
#include <utlist.h>

#define STEP_MS 5u

struct frame {
	uint64_t from;
	uint64_t to;
	int kind;
	size_t len;
	uint8_t *body; /* owned */
	struct frame *prev, *next;
};

/* --- frames ------------------------------------------------------------------------------ */

static void frame_free(struct world *w, struct frame *f)
{
	DL_DELETE(w->net, f);
	free(f->body);
	free(f);
}

static int kind_of(const uint8_t *body, size_t len)
{
	struct wire_frame *f = NULL;
	int kind;

	assert_int_equal(wire_decode_frame(body, len, &f), 0);
	kind = (int)wire_frame_body(f)->body_case;
	wire_frame_free(f);
	return kind;
}

static void env_send(void *ctx, uint64_t to, const void *data, size_t len)
{
	struct box *b = ctx;
	struct world *w = b->w;
	const struct box *other = &w->boxes[to];
	struct frame *f;

	if (w->cut[b->id][to] || raft_config_find(&b->streams, to) == NULL || other->node == NULL ||
		!node_admits(other->node, b->id, b->uuid)) {
		return;
	}
	f = xcalloc(1, sizeof *f);
	f->from = b->id;
	f->to = to;
	f->len = len - WIRE_FRAME_HEADER_BYTES;
	f->body = xmemdup((const uint8_t *)data + WIRE_FRAME_HEADER_BYTES, f->len);
	f->kind = kind_of(f->body, f->len);
	DL_APPEND(w->net, f);
	w->n_frames++;
}

static void env_peers(void *ctx, const struct raft_config *config)
{
	struct box *b = ctx;

	raft_config_fini(&b->streams);
	assert_int_equal(raft_config_copy(config, &b->streams), 0);
}

static bool is_kept(const struct world *w, const struct frame *f)
{
	return w->kept[f->from][f->to] == f->kind;
}

static bool is_between(const struct frame *f, uint64_t from, uint64_t to)
{
	return f->from == from && f->to == to;
}

void keep(struct world *w, uint64_t from, uint64_t to, int kind)
{
	w->kept[from][to] = kind;
}

size_t n_kept(struct world *w, uint64_t from, uint64_t to)
{
	struct frame *f;
	size_t n = 0;

	DL_FOREACH (w->net, f) {
		n += is_between(f, from, to) && is_kept(w, f);
	}
	return n;
}

size_t release(struct world *w, uint64_t from, uint64_t to)
{
	size_t n = n_kept(w, from, to);

	w->kept[from][to] = 0;
	return n;
}

void lose(struct world *w, uint64_t from, uint64_t to)
{
	struct frame *f, *next;

	DL_FOREACH_SAFE (w->net, f, next) {
		if (is_between(f, from, to) && is_kept(w, f)) {
			frame_free(w, f);
		}
	}
}

void give_copies(struct world *w, uint64_t from, uint64_t to)
{
	struct frame *f;

	notice(w, to);
	DL_FOREACH (w->net, f) {
		if (is_between(f, from, to) && is_kept(w, f)) {
			node_frame(w->boxes[to].node, from, f->body, f->len);
		}
	}
	flush(w, to);
}

/* --- env: the end ------------------------------------------------------------------------ */

static void env_fatal(void *ctx, const char *text)
{
	((struct box *)ctx)->fatal = true;
	fail_msg("%s", text);
}

static void env_stopped(void *ctx)
{
	((struct box *)ctx)->stopped = true;
}

static void on_lost(void *ctx)
{
	((struct box *)ctx)->lost++;
}

static void on_orphan(void *ctx, const struct core_task *task, const struct core_task *opener)
{
	((struct box *)ctx)->orphans++;
}

/* --- nodes ------------------------------------------------------------------------------- */

static void config_add(struct raft_config *c, uint64_t id, bool voter)
{
	struct raft_server *s;

	c->servers = xrealloc(c->servers, (c->n + 1) * sizeof *s);
	s = &c->servers[c->n++];
	*s = (struct raft_server){.id = id, .voter = voter};
	(void)snprintf(s->addr, sizeof s->addr, "node%u:7100", (unsigned)id);
}

static void box_init(struct world *w, uint64_t id)
{
	struct box *b = &w->boxes[id];

	b->w = w;
	b->id = id;
	memset(b->uuid, (int)id, sizeof b->uuid);
	b->env = (struct env){
		.ctx = b,
		.send = env_send,
		.peers = env_peers,
		.fatal = env_fatal,
		.stopped = env_stopped,
	};
	disk_env(&b->env);
}

void restart(struct world *w, uint64_t id)
{
	struct box *b = &w->boxes[id];
	struct core_listener listener = {.ctx = b, .session_lost = on_lost, .orphan = on_orphan};
	struct node_options o = w->options;
	struct node_start start = {.snapshot = b->snapshot != NULL, .resume = true};
	struct raft_config config = {0};
	size_t covered = (size_t)(b->snapshot_index - b->prev_index);

	assert_null(b->node);
	o.raft.id = id;
	o.raft.seed = ++w->lives;
	memcpy(o.uuid, b->uuid, sizeof o.uuid);
	start.raft.term = b->term;
	start.raft.vote = b->vote;
	start.raft.config = &b->boot;
	if (b->snapshot != NULL) {
		disk_snapshot_config(b, &config);
		start.raft.config = &config;
		start.raft.snapshot_index = b->snapshot_index;
		start.raft.snapshot_term = b->snapshot_term;
	}
	start.raft.n_entries = b->n_entries - covered;
	start.raft.entries = b->n_entries > covered ? b->entries + covered : NULL;
	assert_int_equal(node_new(&o, &b->env, &start, w->now, &b->node), 0);
	raft_config_fini(&config);
	core_listen(node_core(b->node), &listener);
	b->stopped = false;
}

void crash(struct world *w, uint64_t id)
{
	struct box *b = &w->boxes[id];
	struct frame *f, *next;

	node_free(TAKE(b->node));
	disk_crash(b);
	DL_FOREACH_SAFE (w->net, f, next) {
		if (f->to == id || f->from == id) {
			frame_free(w, f);
		}
	}
}

void wipe(struct world *w, uint64_t id)
{
	struct box *b = &w->boxes[id];

	assert_null(b->node);
	disk_clear(b);
	memset(b->uuid, 0x80 + (int)id, sizeof b->uuid);
}

void join(struct world *w, uint64_t id)
{
	struct box *b = &w->boxes[id];
	const struct raft_config *known = raft_config(node_raft(node_at(w, leader_of(w))));

	raft_config_fini(&b->boot);
	assert_int_equal(raft_config_copy(known, &b->boot), 0);
	assert_non_null(raft_config_find(&b->boot, id));
	restart(w, id);
}

struct world *world_new(uint64_t n)
{
	struct world *w = xcalloc(1, sizeof *w);
	struct raft_config boot = {0};

	w->now = 1000000;
	node_options_default(&w->options);
	w->options.ttl_ms = TTL_MS;
	for (uint64_t id = 1; id < NODES_MAX; id++) {
		box_init(w, id);
	}
	for (uint64_t id = 1; id <= n; id++) {
		config_add(&boot, id, true);
	}
	for (uint64_t id = 1; id <= n; id++) {
		assert_int_equal(raft_config_copy(&boot, &w->boxes[id].boot), 0);
		restart(w, id);
	}
	raft_config_fini(&boot);
	return w;
}

void world_free(struct world *w)
{
	for (uint64_t id = 1; id < NODES_MAX; id++) {
		struct box *b = &w->boxes[id];

		crash(w, id);
		disk_clear(b);
		free(b->entries);
		raft_config_fini(&b->boot);
		raft_config_fini(&b->streams);
		wire_buf_fini(&b->own);
		wire_buf_fini(&b->incoming);
	}
	free(w);
}

struct node *node_at(struct world *w, uint64_t id)
{
	assert_non_null(w->boxes[id].node);
	return w->boxes[id].node;
}

struct core *core_at(struct world *w, uint64_t id)
{
	return node_core(node_at(w, id));
}

/* --- time, turns ------------------------------------------------------------------------- */

void sleep_ms(struct world *w, uint64_t ms)
{
	w->now += ms;
}

void notice(struct world *w, uint64_t id)
{
	node_set_now(node_at(w, id), w->now, w->now);
}

void tick(struct world *w, uint64_t id)
{
	notice(w, id);
	node_tick(node_at(w, id));
}

void flush(struct world *w, uint64_t id)
{
	node_flush(node_at(w, id));
}

static bool hand(struct world *w, uint64_t to)
{
	struct frame *f, *next;
	struct frame *last = w->net == NULL ? NULL : w->net->prev;
	bool any = false;

	DL_FOREACH_SAFE (w->net, f, next) {
		bool is_last = f == last;

		if (f->to == to && !is_kept(w, f)) {
			any = true;
			node_frame(w->boxes[to].node, f->from, f->body, f->len);
			frame_free(w, f);
		}
		if (is_last) {
			break;
		}
	}
	return any;
}

void hand_over(struct world *w, uint64_t to)
{
	(void)hand(w, to);
}

void settle(struct world *w)
{
	bool more = true;

	while (more) {
		more = false;
		for (uint64_t id = 1; id < NODES_MAX; id++) {
			struct box *b = &w->boxes[id];

			if (b->node == NULL) {
				continue;
			}
			notice(w, id);
			more |= disk_work(b);
			more |= hand(w, id);
			flush(w, id);
			more |= node_wants_turn(b->node);
		}
	}
}

void pass(struct world *w, uint64_t ms)
{
	for (uint64_t end = w->now + ms; w->now < end;) {
		sleep_ms(w, MIN(STEP_MS, end - w->now));
		for (uint64_t id = 1; id < NODES_MAX; id++) {
			if (w->boxes[id].node != NULL) {
				tick(w, id);
			}
		}
		settle(w);
	}
}

uint64_t leader_of(struct world *w)
{
	uint64_t leader = 0;
	uint64_t term = 0;

	for (uint64_t id = 1; id < NODES_MAX; id++) {
		const struct raft *r = w->boxes[id].node == NULL ? NULL : node_raft(node_at(w, id));

		if (r != NULL && raft_leader_ready(r) && raft_term(r) > term) {
			term = raft_term(r);
			leader = id;
		}
	}
	return leader;
}

static bool all_live(struct world *w)
{
	for (uint64_t id = 1; id < NODES_MAX; id++) {
		if (w->boxes[id].node != NULL && node_lease_end(w->boxes[id].node) == 0) {
			return false;
		}
	}
	return leader_of(w) != 0;
}

uint64_t settled_leader(struct world *w)
{
	for (unsigned i = 0; i < 2000 && !all_live(w); i++) {
		pass(w, STEP_MS);
	}
	assert_true(all_live(w));
	return leader_of(w);
}

void elect(struct world *w, uint64_t id)
{
	for (unsigned i = 0; i < 50 && settled_leader(w) != id; i++) {
		struct raft *r = (struct raft *)(uintptr_t)node_raft(node_at(w, leader_of(w)));

		(void)raft_transfer(r, id, w->now); /* fails if it is busy: once more */
		pass(w, 100);
	}
	assert_int_equal(settled_leader(w), id);
}

static void lose_cut(struct world *w)
{
	struct frame *f, *next;

	DL_FOREACH_SAFE (w->net, f, next) {
		if (w->cut[f->from][f->to]) {
			frame_free(w, f);
		}
	}
}

void cut(struct world *w, uint64_t a, uint64_t b)
{
	w->cut[a][b] = w->cut[b][a] = true;
	lose_cut(w);
}

void isolate(struct world *w, uint64_t id)
{
	for (uint64_t other = 1; other < NODES_MAX; other++) {
		if (other != id) {
			cut(w, id, other);
		}
	}
}

void heal(struct world *w)
{
	memset(w->cut, 0, sizeof w->cut);
}

/* --- requests ---------------------------------------------------------------------------- */

static void answered(void *arg, enum status st, uint64_t token)
{
	struct ask *ask = arg;

	ask->answers++;
	ask->op = NULL;
	ask->status = st;
	ask->token = token;
}

static struct core_name name_of(const char *name)
{
	return (struct core_name){.bytes = name, .len = strlen(name)};
}

void lock(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how,
	struct ask *ret_ask)
{
	struct core_lock_request r = {
		.name = name_of(name),
		.owner = core_flock_owner(owner),
		.shared = how == SH || how == SH_NB,
		.wait = how == EX || how == SH,
	};

	*ret_ask = (struct ask){0};
	notice(w, id);
	ret_ask->op = core_lock(core_at(w, id), &r, answered, ret_ask);
	assert_int_equal(ret_ask->answers, 0);
	flush(w, id);
}

void unlock(struct world *w, uint64_t id, const char *name, uint64_t owner)
{
	notice(w, id);
	core_unlock(core_at(w, id), name_of(name), core_flock_owner(owner), CORE_RANGE_WHOLE);
	flush(w, id);
}

void set_value(struct world *w, uint64_t id, const char *name, uint64_t owner, const char *value,
	struct ask *ret_ask)
{
	*ret_ask = (struct ask){0};
	notice(w, id);
	ret_ask->op = core_lock_set_value(core_at(w, id), name_of(name), core_flock_owner(owner),
		value, strlen(value), answered, ret_ask);
	assert_int_equal(ret_ask->answers, 0);
	flush(w, id);
}

void interrupt(struct world *w, uint64_t id, struct ask *ask)
{
	notice(w, id);
	core_interrupt(core_at(w, id), ask->op);
	assert_answer(ask, ST_CANCELLED);
	flush(w, id);
}

static void ask_range(
	struct world *w, uint64_t id, const struct core_lock_request *r, struct ask *ret_ask)
{
	*ret_ask = (struct ask){0};
	notice(w, id);
	ret_ask->op = core_lock(core_at(w, id), r, answered, ret_ask);
	assert_int_equal(ret_ask->answers, 0);
	flush(w, id);
}

void lock_range(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how,
	struct core_range range, struct ask *ret_ask)
{
	const struct core_lock_request r = {
		.name = name_of(name),
		.owner = {CORE_RECORD, owner},
		.range = range,
		.shared = how == SH || how == SH_NB,
		.wait = how == EX || how == SH,
		.task = {.pid = 100 + (uint32_t)id},
	};

	ask_range(w, id, &r, ret_ask);
}

void test_range(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how,
	struct core_range range, struct core_conflict *ret_conflict, struct ask *ret_ask)
{
	const struct core_lock_request r = {
		.name = name_of(name),
		.owner = {CORE_RECORD, owner},
		.range = range,
		.shared = how == SH_NB,
		.ret_test = ret_conflict,
	};

	ask_range(w, id, &r, ret_ask);
}

void unlock_range(
	struct world *w, uint64_t id, const char *name, uint64_t owner, struct core_range range)
{
	notice(w, id);
	core_unlock(core_at(w, id), name_of(name), (struct core_owner){CORE_RECORD, owner}, range);
	flush(w, id);
}

void give_up(struct world *w, uint64_t id, struct ask *ask)
{
	notice(w, id);
	core_lock_give_up(core_at(w, id), ask->op);
	flush(w, id);
}

/* --- what is seen ------------------------------------------------------------------------ */

void assert_lock(struct world *w, const char *name, size_t holders, size_t waiters)
{
	for (uint64_t id = 1; id < NODES_MAX; id++) {
		struct core_lock_info info = {0};

		if (w->boxes[id].node != NULL) {
			(void)core_lock_info(core_at(w, id), name_of(name), &info);
			assert_int_equal(info.n_holders, holders);
			assert_int_equal(info.n_waiters, waiters);
			state_check(node_state(node_at(w, id)));
		}
	}
}

uint64_t holder_node(struct world *w, uint64_t at, const char *name)
{
	const struct state *s = node_state(node_at(w, at));
	const struct lock *l = state_lock(s, name, strlen(name));

	return l == NULL || l->holders == NULL ? 0 : state_session(s, l->holders->session)->node;
}
