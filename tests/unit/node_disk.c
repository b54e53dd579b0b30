/*
 * node_disk.c - the disks of node_fixture.h: log, vote and snapshots, through a queue.
 */
#include <errno.h>
#include <utlist.h>

#include "tests/unit/node_fixture.h"

enum op_kind {
	OP_APPEND,
	OP_TRUNCATE,
	OP_COMPACT,
	OP_RESET,
	OP_VOTE,
	OP_OWN_WRITTEN,
	OP_OWN_DONE,
	OP_READ,
	OP_RECEIVED,
};

struct disk_op {
	enum op_kind kind;
	uint64_t gen;
	struct raft_entry **entries;
	size_t n;
	uint64_t index;
	uint64_t term;
	uint64_t vote;
	uint64_t peer;
	uint64_t offset;
	size_t max;
	bool done;
	struct disk_op *prev, *next;
};

/* --- what is asked ---------------------------------------------------------------------------- */

static struct disk_op *op_new(struct box *b, enum op_kind kind)
{
	struct disk_op *op = xcalloc(1, sizeof *op);

	op->kind = kind;
	DL_APPEND(b->ops, op);
	return op;
}

static void op_free(struct box *b, struct disk_op *op)
{
	DL_DELETE(b->ops, op);
	for (size_t i = 0; i < op->n; i++) {
		raft_entry_unref(op->entries[i]);
	}
	free(op->entries);
	free(op);
}

static void env_log_append(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t n)
{
	struct disk_op *op = op_new(ctx, OP_APPEND);

	op->gen = gen;
	op->n = n;
	op->entries = xmemdup(entries, n * sizeof *entries);
	for (size_t i = 0; i < n; i++) {
		(void)raft_entry_ref(entries[i]);
	}
}

static void env_log_truncate(void *ctx, uint64_t from)
{
	op_new(ctx, OP_TRUNCATE)->index = from;
}

static void env_log_compact(void *ctx, uint64_t first)
{
	op_new(ctx, OP_COMPACT)->index = first;
}

static void env_log_reset(void *ctx, uint64_t index, uint64_t term)
{
	struct disk_op *op = op_new(ctx, OP_RESET);

	op->index = index;
	op->term = term;
}

static void env_save_vote(void *ctx, uint64_t term, uint64_t vote)
{
	struct disk_op *op = op_new(ctx, OP_VOTE);

	op->term = term;
	op->vote = vote;
}

/* A file: length of the configuration, configuration, payload. */
static void env_snap_begin(
	void *ctx, uint64_t index, uint64_t term, const void *config, size_t config_len)
{
	struct box *b = ctx;
	uint64_t len = config_len;

	b->own.len = 0;
	b->own_index = index;
	b->own_term = term;
	wire_buf_append(&b->own, &len, sizeof len);
	wire_buf_append(&b->own, config, config_len);
}

static void env_snap_append(void *ctx, const void *data, size_t len)
{
	struct box *b = ctx;

	wire_buf_append(&b->own, data, len);
	(void)op_new(b, OP_OWN_WRITTEN);
}

static void env_snap_finish(void *ctx)
{
	struct box *b = ctx;

	op_new(b, OP_OWN_DONE)->index = b->own_index;
}

static void env_snap_abort(void *ctx)
{
	struct box *b = ctx;

	b->own_index = 0;
}

static void env_snap_read(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
	struct disk_op *op = op_new(ctx, OP_READ);

	op->peer = to;
	op->index = index;
	op->offset = offset;
	op->max = max;
}

static void env_snap_receive(void *ctx, uint64_t from, uint64_t index, uint64_t term,
	uint64_t offset, const void *data, size_t len, bool done)
{
	struct box *b = ctx;
	struct disk_op *op = op_new(b, OP_RECEIVED);

	b->incoming.len = offset == 0 ? 0 : b->incoming.len;
	assert_int_equal(b->incoming.len, offset);
	wire_buf_append(&b->incoming, data, len);
	op->peer = from;
	op->index = index;
	op->term = term;
	op->offset = offset + len;
	op->done = done;
}

static uint64_t config_bytes(const struct box *b)
{
	uint64_t len;

	memcpy(&len, b->snapshot, sizeof len);
	return len;
}

void disk_snapshot_config(const struct box *b, struct raft_config *ret_config)
{
	assert_int_equal(
		raft_config_decode(b->snapshot + sizeof(uint64_t), config_bytes(b), ret_config), 0);
}

static int env_snap_load(
	void *ctx, int (*piece)(void *arg, const void *data, size_t len), void *arg)
{
	struct box *b = ctx;
	size_t skip = sizeof(uint64_t) + config_bytes(b);

	return piece(arg, b->snapshot + skip, b->snapshot_len - skip);
}

static void publish(struct box *b, const struct wire_buf *file, uint64_t index, uint64_t term)
{
	free(b->snapshot);
	b->snapshot = xmemdup(file->data, file->len);
	b->snapshot_len = file->len;
	b->snapshot_index = index;
	b->snapshot_term = term;
}

static void log_cut(struct box *b, uint64_t from)
{
	while (b->n_entries > 0 && b->prev_index + b->n_entries >= from) {
		raft_entry_unref(b->entries[--b->n_entries]);
	}
}

static void log_add(struct box *b, struct raft_entry *e)
{
	assert_int_equal(e->index, b->prev_index + b->n_entries + 1);
	b->entries = xrealloc(b->entries, (b->n_entries + 1) * sizeof(struct raft_entry *));
	b->entries[b->n_entries++] = raft_entry_ref(e);
}

static void log_compact(struct box *b, uint64_t first)
{
	while (b->n_entries > 0 && b->prev_index + 1 < first) {
		b->prev_index = b->entries[0]->index;
		b->prev_term = b->entries[0]->term;
		raft_entry_unref(b->entries[0]);
		memmove(b->entries, b->entries + 1, --b->n_entries * sizeof(*b->entries));
	}
}

static void disk_read(struct box *b, const struct disk_op *op)
{
	size_t len = op->offset < b->snapshot_len ? b->snapshot_len - op->offset : 0;
	bool there = op->index == b->snapshot_index;

	node_snap_chunk(b->node, op->peer, op->index, op->offset,
		there ? b->snapshot + op->offset : NULL, there ? MIN(len, op->max) : 0,
		b->snapshot_len, there ? 0 : -ENOENT);
}

static void disk_own_done(struct box *b, const struct disk_op *op)
{
	if (op->index == b->own_index) {
		publish(b, &b->own, b->own_index, b->own_term);
		node_snap_done(b->node, op->index);
	}
}

static void disk_carry_out(struct box *b, const struct disk_op *op)
{
	switch (op->kind) {
	case OP_APPEND:
		for (size_t i = 0; i < op->n; i++) {
			log_add(b, op->entries[i]);
		}
		node_log_durable(b->node, op->gen, op->entries[op->n - 1]->index);
		break;
	case OP_TRUNCATE:
		log_cut(b, op->index);
		break;
	case OP_COMPACT:
		log_compact(b, op->index);
		break;
	case OP_RESET:
		log_cut(b, 0);
		b->prev_index = op->index;
		b->prev_term = op->term;
		node_log_reset(b->node, op->index);
		break;
	case OP_VOTE:
		b->term = op->term;
		b->vote = op->vote;
		node_vote_durable(b->node, op->term, op->vote);
		break;
	case OP_OWN_WRITTEN:
		node_snap_written(b->node, 0);
		break;
	case OP_OWN_DONE:
		disk_own_done(b, op);
		break;
	case OP_READ:
		disk_read(b, op);
		break;
	case OP_RECEIVED:
		if (op->done) {
			publish(b, &b->incoming, op->index, op->term);
		}
		node_snap_received(b->node, op->peer, op->index, op->offset, op->done);
		break;
	}
}

/* What is asked for meanwhile is for the next time. */
bool disk_work(struct box *b)
{
	struct disk_op *last = b->ops == NULL ? NULL : b->ops->prev;
	bool more = last != NULL;

	while (more) {
		struct disk_op *op = b->ops;

		more = op != last;
		disk_carry_out(b, op);
		op_free(b, op);
	}
	return last != NULL;
}

void disk_crash(struct box *b)
{
	while (b->ops != NULL) {
		op_free(b, b->ops);
	}
}

void disk_clear(struct box *b)
{
	log_cut(b, 0);
	b->prev_index = b->prev_term = b->term = b->vote = 0;
	free(TAKE(b->snapshot));
	b->snapshot_len = 0;
	b->snapshot_index = b->snapshot_term = 0;
}

void disk_env(struct env *env)
{
	env->log_append = env_log_append;
	env->log_truncate = env_log_truncate;
	env->log_compact = env_log_compact;
	env->log_reset = env_log_reset;
	env->save_vote = env_save_vote;
	env->snap_begin = env_snap_begin;
	env->snap_append = env_snap_append;
	env->snap_finish = env_snap_finish;
	env->snap_abort = env_snap_abort;
	env->snap_read = env_snap_read;
	env->snap_receive = env_snap_receive;
	env->snap_load = env_snap_load;
}
