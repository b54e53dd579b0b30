/*
 * snapfile.c - the snapshots of one node, on the disk of disk.c.
 *
 * One is the newest and durable; one may be being written by the node itself,
 * one may be being received. A crash takes the latter two. What travels
 * between nodes is the whole file:
 *
 *     u64 index   u64 term   u64 bytes of configuration   configuration   payload
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>

#define HEADER_BYTES (3 * sizeof(uint64_t))

/* --- the file ------------------------------------------------------------------------ */

void snap_file_clear(struct snap_file *f)
{
	free(f->bytes);
	*f = (struct snap_file){0};
}

static void file_append(struct snap_file *f, const void *data, size_t len)
{
	if (f->len + len > f->cap) {
		f->cap = MAX(2 * f->cap, f->len + len);
		f->bytes = xrealloc(f->bytes, f->cap);
	}
	if (len > 0) {
		memcpy(f->bytes + f->len, data, len);
		f->len += len;
	}
}

static uint64_t header_word(const struct snap_file *f, size_t i)
{
	uint64_t v;

	memcpy(&v, f->bytes + i * sizeof v, sizeof v);
	return v;
}

static size_t payload_offset(const struct snap_file *f)
{
	return HEADER_BYTES + header_word(f, 2);
}

bool snap_file_config(const struct snap_file *f, struct raft_config *ret_config)
{
	if (f->len < HEADER_BYTES || f->len < payload_offset(f)) {
		return false;
	}
	return raft_config_decode(f->bytes + HEADER_BYTES, header_word(f, 2), ret_config) == 0;
}

/* An older one never takes the place of a newer one. */
static void becomes_newest(struct disk *d, struct snap_file *f)
{
	if (f->index > d->newest.index) {
		snap_file_clear(&d->newest);
		d->newest = *f;
		*f = (struct snap_file){0};
	} else {
		snap_file_clear(f);
	}
}

static uint64_t write_time(struct sim_node *n, uint64_t *ready_us)
{
	struct sim *s = n->sim;

	*ready_us = MAX(*ready_us, s->now_us) + n->disk.latency_us +
		    rng_below(&s->rng, n->disk.spread_us + 1);
	return *ready_us;
}

/* --- the node's own ------------------------------------------------------------------ */

static void env_begin(
	void *ctx, uint64_t index, uint64_t term, const void *config, size_t config_len)
{
	struct sim_node *n = ctx;
	struct disk *d = &n->disk;
	uint64_t header[3] = {index, term, config_len};

	snap_file_clear(&d->own);
	d->own_gen++;
	d->own_buffered = 0;
	d->own.index = index;
	d->own.term = term;
	file_append(&d->own, header, sizeof header);
	file_append(&d->own, config, config_len);
	SIM_TRACE(n->sim, n->id, "snap.begin", "index=%" PRIu64, index);
}

static void own_written(struct sim *s, struct sim_event *e)
{
	struct disk *d = &s->nodes[e->node].disk;

	if (d->own_gen == (uint32_t)e->a) {
		d->own_buffered -= e->b;
		node_snap_written(s->nodes[e->node].node, d->own_buffered);
	}
}

static void env_snap_append(void *ctx, const void *data, size_t len)
{
	struct sim_node *n = ctx;
	struct disk *d = &n->disk;
	struct sim_event *e;

	sim_hash(n->sim, data, len);
	file_append(&d->own, data, len);
	d->own_buffered += len;
	e = sim_at(n->sim, write_time(n, &d->own_ready_us), n->id, own_written);
	e->a = d->own_gen;
	e->b = len;
}

static void own_finished(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[e->node];
	struct disk *d = &n->disk;

	if (d->own_gen == (uint32_t)e->a) {
		uint64_t index = d->own.index;

		becomes_newest(d, &d->own);
		SIM_TRACE(s, n->id, "snap.done", "index=%" PRIu64, index);
		node_snap_done(n->node, index);
	}
}

static void env_finish(void *ctx)
{
	struct sim_node *n = ctx;

	sim_at(n->sim, write_time(n, &n->disk.own_ready_us), n->id, own_finished)->a =
		n->disk.own_gen;
}

static void env_abort(void *ctx)
{
	struct sim_node *n = ctx;

	snap_file_clear(&n->disk.own);
	n->disk.own_gen++;
	n->disk.own_buffered = 0;
}

/* --- between nodes ------------------------------------------------------------------- */

static void chunk_is_read(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[e->node];
	const struct snap_file *f = &n->disk.newest;
	uint64_t to = e->len & 0xff;
	uint64_t max = e->len >> 8;
	uint64_t index = e->a;
	uint64_t offset = e->b;

	if (f->index != index || offset > f->len) {
		node_snap_chunk(n->node, to, index, offset, NULL, 0, 0, -ESTALE);
		return;
	}
	node_snap_chunk(n->node, to, index, offset, f->bytes + offset, MIN(max, f->len - offset),
		f->len, 0);
}

static void env_read(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
	struct sim_node *n = ctx;
	struct sim *s = n->sim;
	struct sim_event *e = sim_at(s,
		s->now_us + n->disk.latency_us + rng_below(&s->rng, n->disk.spread_us + 1), n->id,
		chunk_is_read);

	ASSERT(to <= SIM_IDS_MAX);
	e->a = index;
	e->b = offset;
	e->len = to | max << 8;
}

/* A chunk on its way into the file, with what it belongs to. */
struct chunk {
	uint64_t from, index, term, offset;
	bool done;
	size_t len;
	uint8_t data[];
};

static void chunk_is_kept(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[e->node];
	struct disk *d = &n->disk;
	const struct chunk *c = e->data;

	if (c->offset == 0) {
		snap_file_clear(&d->received);
		d->received.index = c->index;
		d->received.term = c->term;
	}
	if (c->offset != d->received.len || c->index != d->received.index) {
		sim_fail(s, "snapshot chunks",
			"node %" PRIu64 " writes %" PRIu64 "+%" PRIu64 " into a file of %" PRIu64
			" that has %zu bytes",
			n->id, c->index, c->offset, d->received.index, d->received.len);
	}
	file_append(&d->received, c->data, c->len);
	if (c->done) {
		struct raft_config config;

		if (!snap_file_config(&d->received, &config) ||
			header_word(&d->received, 0) != c->index ||
			header_word(&d->received, 1) != c->term) {
			sim_fail(s, "snapshot chunks", "node %" PRIu64 " received no snapshot",
				n->id);
		}
		raft_config_fini(&config);
		becomes_newest(d, &d->received);
	}
	node_snap_received(n->node, c->from, c->index, c->offset + c->len, c->done);
}

static void env_receive(void *ctx, uint64_t from, uint64_t index, uint64_t term, uint64_t offset,
	const void *data, size_t len, bool done)
{
	struct sim_node *n = ctx;
	struct chunk *c = xmalloc(sizeof *c + len);

	sim_hash_u64(n->sim, index, offset);
	*c = (struct chunk){from, index, term, offset, done, len};
	if (len > 0) {
		memcpy(c->data, data, len);
	}
	sim_at(n->sim, write_time(n, &n->disk.received_ready_us), n->id, chunk_is_kept)->data = c;
}

/* --- at start ------------------------------------------------------------------------ */

static int env_load(void *ctx, int (*piece)(void *arg, const void *data, size_t len), void *arg)
{
	struct sim_node *n = ctx;
	const struct snap_file *f = &n->disk.newest;
	size_t at = payload_offset(f);
	int rc;

	ASSERT(f->index > 0);
	while (at < f->len) {
		size_t len = rng_between(&n->sim->rng, 1, 4096);

		len = MIN(len, f->len - at);
		rc = piece(arg, f->bytes + at, len);
		if (rc < 0) {
			return rc;
		}
		at += len;
	}
	return 0;
}

void snapfile_env(struct env *env)
{
	env->snap_begin = env_begin;
	env->snap_append = env_snap_append;
	env->snap_finish = env_finish;
	env->snap_abort = env_abort;
	env->snap_read = env_read;
	env->snap_receive = env_receive;
	env->snap_load = env_load;
}
