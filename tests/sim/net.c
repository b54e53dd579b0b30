/*
 * net.c - streams between nodes that can be slow, cut, or worse.
 *
 * A node keeps a stream to each server of its configuration. A stream that is
 * not there is made again after a short pause if the way is free and the other
 * side admits the node, and then both its ends may have lost what was sent
 * before. Within a stream frames arrive, in order, unless the seed says
 * otherwise: then they are also lost, doubled and overtaken, which is more than
 * TCP does and what the protocols above must survive all the same.
 *
 * A cut is one direction between two nodes. What is sent into it is lost, or
 * arrives when it is healed (a TCP stream that outlives the cut).
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

#include <utlist.h>

#include "core/wire.h"

#define RECONNECT_LEAST_US (20 * SIM_MS)
#define RECONNECT_MOST_US (500 * SIM_MS)

static void connect_later(struct sim *s, uint64_t from, uint64_t to);

void net_init(struct sim *s)
{
	for (unsigned from = 1; from <= SIM_IDS_MAX; from++) {
		for (unsigned to = 1; to <= SIM_IDS_MAX; to++) {
			s->net.link[from][to].delay_us = s->net.delay_us;
			s->net.link[from][to].spread_us = s->net.spread_us;
		}
	}
}

static void drop_held(struct link *l)
{
	struct held_frame *f, *tmp;

	DL_FOREACH_SAFE (l->held, f, tmp) {
		DL_DELETE(l->held, f);
		free(f->data);
		free(f);
	}
}

void net_fini(struct sim *s)
{
	for (unsigned from = 1; from <= SIM_IDS_MAX; from++) {
		for (unsigned to = 1; to <= SIM_IDS_MAX; to++) {
			drop_held(&s->net.link[from][to]);
		}
	}
}

/* --- frames --------------------------------------------------------------------------------- */

static void hold_frame(struct link *l, void **data, size_t len)
{
	struct held_frame *f = xcalloc(1, sizeof *f);

	f->data = TAKE(*data);
	f->len = len;
	DL_APPEND(l->held, f);
}

static void frame_arrives(struct sim *s, struct sim_event *e)
{
	uint64_t from = e->a;
	struct link *l = &s->net.link[from][e->node];

	if (l->gen != (uint32_t)e->b) {
		return; /* the stream that it was sent on is gone */
	}
	if (l->cut) {
		if (l->hold) {
			hold_frame(l, &e->data, e->len);
		}
		return;
	}
	node_frame(s->nodes[e->node].node, from, e->data, e->len);
}

static void put_on_the_wire(struct sim *s, uint64_t from, uint64_t to, void **data, size_t len)
{
	struct link *l = &s->net.link[from][to];
	uint64_t at_us = s->now_us + l->delay_us + rng_below(&s->rng, l->spread_us + 1);
	struct sim_event *e;

	if (s->net.ordered) {
		at_us = MAX(at_us, l->last_us);
	}
	l->last_us = MAX(at_us, l->last_us);
	e = sim_at(s, at_us, to, frame_arrives);
	e->a = from;
	e->b = l->gen;
	e->data = TAKE(*data);
	e->len = len;
}

/* By the number of its field in wire.Frame. */
static const char *frame_name(unsigned field)
{
	static const char *const names[] = {"?", "raft", "propose", "refused", "keep_alive",
		"keep_alive_ack", "member_change", "member_changed", "contact"};

	return field < ARRAY_SIZE(names) ? names[field] : "?";
}

void net_send(struct sim *s, uint64_t from, uint64_t to, const void *frame, size_t len)
{
	const uint8_t *body = (const uint8_t *)frame + WIRE_FRAME_HEADER_BYTES;
	size_t body_len = len - WIRE_FRAME_HEADER_BYTES;
	struct link *l;
	void *copy;

	ASSERT(len > WIRE_FRAME_HEADER_BYTES);
	sim_hash(s, frame, len);
	if (to == 0 || to > SIM_IDS_MAX || !s->net.link[from][to].connected) {
		return;
	}
	l = &s->net.link[from][to];
	if (s->options.print) { /* too many for a tail */
		SIM_TRACE(s, from, "net.send", "to=%" PRIu64 " %s bytes=%zu%s", to,
			frame_name(body[0] >> 3), body_len, l->cut ? " into a cut" : "");
	}
	if (s->net.loss_permille > 0 && rng_permille(&s->rng, s->net.loss_permille)) {
		return;
	}
	copy = xmemdup(body, body_len);
	if (l->cut) {
		if (l->hold) {
			hold_frame(l, &copy, body_len);
		}
		free(copy);
		return;
	}
	put_on_the_wire(s, from, to, &copy, body_len);
	if (s->net.doubling_permille > 0 && rng_permille(&s->rng, s->net.doubling_permille)) {
		copy = xmemdup(body, body_len);
		put_on_the_wire(s, from, to, &copy, body_len);
	}
}

/* --- streams ------------------------------------------------------------------------- */

static void stream_is_up(struct sim *s, struct sim_event *e)
{
	node_peer_up(s->nodes[e->node].node, e->a);
}

static void disconnect(struct link *l)
{
	l->connected = false;
	l->gen++;
	drop_held(l);
}

static bool may_connect(struct sim *s, uint64_t from, uint64_t to)
{
	struct sim_node *a = &s->nodes[from];
	struct sim_node *b = &s->nodes[to];

	return b->presence == SIM_UP && !b->dying && !s->net.link[from][to].cut &&
	       node_admits(b->node, from, a->options.uuid);
}

static void connect_now(struct sim *s, struct sim_event *e)
{
	uint64_t from = e->a;
	uint64_t to = e->b;
	struct link *l = &s->net.link[from][to];

	if ((uint32_t)e->len != l->gen || !l->wanted || l->connected ||
		!cluster_runs(&s->nodes[from])) {
		return;
	}
	if (!may_connect(s, from, to)) {
		connect_later(s, from, to);
		return;
	}
	l->connected = true;
	SIM_TRACE(s, from, "net.up", "to=%" PRIu64, to);
	sim_at(s, s->now_us, from, stream_is_up)->a = to;
}

static void connect_later(struct sim *s, uint64_t from, uint64_t to)
{
	uint64_t pause_us = rng_between(&s->rng, RECONNECT_LEAST_US, RECONNECT_MOST_US);
	struct sim_event *e = sim_at(s, s->now_us + pause_us, 0, connect_now);

	e->a = from;
	e->b = to;
	e->len = s->net.link[from][to].gen;
}

void net_wanted(struct sim *s, uint64_t from, const struct raft_config *config)
{
	for (unsigned to = 1; to <= SIM_IDS_MAX; to++) {
		struct link *l = &s->net.link[from][to];
		bool wanted = to != from && raft_config_find(config, to) != NULL;

		if (wanted && !l->wanted) {
			l->wanted = true;
			connect_later(s, from, to);
		} else if (!wanted && l->wanted) {
			l->wanted = false;
			disconnect(l);
		}
	}
}

void net_break(struct sim *s, uint64_t from, uint64_t to)
{
	struct link *l = &s->net.link[from][to];

	if (!l->connected) {
		return;
	}
	disconnect(l);
	SIM_TRACE(s, from, "net.broken", "to=%" PRIu64, to);
	connect_later(s, from, to);
}

void net_node_gone(struct sim *s, uint64_t id)
{
	for (unsigned other = 1; other <= SIM_IDS_MAX; other++) {
		s->net.link[id][other].wanted = false;
		disconnect(&s->net.link[id][other]);
		net_break(s, other, id);
	}
}

/* --- cuts ---------------------------------------------------------------------------- */

void net_cut(struct sim *s, uint64_t from, uint64_t to, bool hold)
{
	struct link *l = &s->net.link[from][to];

	if (l->cut) {
		return;
	}
	l->cut = true;
	l->hold = hold;
	SIM_TRACE(s, from, "net.cut", "to=%" PRIu64 " hold=%d", to, hold);
	if (!hold) {
		net_break(s, from, to);
	}
}

void net_heal(struct sim *s, uint64_t from, uint64_t to)
{
	struct link *l = &s->net.link[from][to];
	struct held_frame *f, *tmp;

	if (!l->cut) {
		return;
	}
	l->cut = false;
	SIM_TRACE(s, from, "net.healed", "to=%" PRIu64, to);
	DL_FOREACH_SAFE (l->held, f, tmp) {
		DL_DELETE(l->held, f);
		put_on_the_wire(s, from, to, &f->data, f->len);
		free(f);
	}
}

void net_heal_all(struct sim *s)
{
	for (unsigned from = 1; from <= SIM_IDS_MAX; from++) {
		for (unsigned to = 1; to <= SIM_IDS_MAX; to++) {
			net_heal(s, from, to);
			s->net.link[from][to].delay_us = s->net.delay_us;
			s->net.link[from][to].spread_us = s->net.spread_us;
		}
	}
}
