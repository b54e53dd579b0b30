/*
 * disk.c - the log and the vote of one node, on a disk that may lose power.
 *
 * What the node asks for queues up. One sync at a time takes what is waiting,
 * up to a limit, and when it is over all of that is durable and the node is
 * told, in order. A crash loses the queue; of the batch that was being written
 * any number of operations from its start may have reached the disk, and of an
 * append any number of entries from its start (the rest is the torn tail that the real log
 * cuts off, see core/io/wal.h). The vote is a file of its own: it may have
 * reached the disk although an earlier append has not.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

#include <utlist.h>

/* --- the log's file ------------------------------------------------------------------ */

static void entries_free(struct raft_entry **entries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		raft_entry_unref(entries[i]);
	}
	free(entries);
}

uint64_t disk_last(const struct disk *d)
{
	return d->log.prev_index + d->log.n;
}

const struct raft_entry *disk_entry(const struct disk *d, uint64_t index)
{
	if (index <= d->log.prev_index || index > disk_last(d)) {
		return NULL;
	}
	return d->log.entries[index - d->log.prev_index - 1];
}

static void log_push(struct sim_node *n, struct raft_entry *e)
{
	struct disk_log *l = &n->disk.log;

	if (e->index != l->prev_index + l->n + 1) {
		sim_fail(n->sim, "disk order",
			"node %" PRIu64 " appends entry %" PRIu64 " behind %" PRIu64, n->id,
			e->index, l->prev_index + l->n);
	}
	if (l->n == l->cap) {
		l->cap = MAX(2 * l->cap, 64);
		l->entries = xrealloc(l->entries, l->cap * sizeof(*l->entries));
	}
	l->entries[l->n++] = raft_entry_ref(e);
}

static void log_truncate(struct disk_log *l, uint64_t from)
{
	while (l->n > 0 && l->prev_index + l->n >= from) {
		raft_entry_unref(l->entries[--l->n]);
	}
}

static void log_compact(struct disk_log *l, uint64_t first)
{
	size_t gone = 0;

	while (gone < l->n && l->prev_index + 1 < first) {
		l->prev_index++;
		l->prev_term = l->entries[gone]->term;
		raft_entry_unref(l->entries[gone++]);
	}
	if (gone > 0) {
		l->n -= gone;
		memmove(l->entries, l->entries + gone, l->n * sizeof(*l->entries));
	}
}

static void log_reset(struct disk_log *l, uint64_t index, uint64_t term)
{
	log_truncate(l, 0);
	l->prev_index = index;
	l->prev_term = term;
}

/* --- operations ---------------------------------------------------------------------- */

static void op_free(struct disk_op *op)
{
	entries_free(op->entries, op->n);
	free(op);
}

static void ops_free(struct disk_op **ops)
{
	struct disk_op *op, *tmp;

	DL_FOREACH_SAFE (*ops, op, tmp) {
		DL_DELETE(*ops, op);
		op_free(op);
	}
}

static void op_apply(struct sim_node *n, const struct disk_op *op, size_t n_entries)
{
	struct disk *d = &n->disk;

	switch (op->kind) {
	case DISK_APPEND:
		for (size_t i = 0; i < n_entries; i++) {
			log_push(n, op->entries[i]);
		}
		break;
	case DISK_TRUNCATE:
		log_truncate(&d->log, op->a);
		break;
	case DISK_COMPACT:
		log_compact(&d->log, op->a);
		break;
	case DISK_RESET:
		log_reset(&d->log, op->a, op->b);
		break;
	case DISK_VOTE:
		d->term = op->a;
		d->vote = op->b;
		watch_vote_durable(n, op->a, op->b);
		break;
	}
}

static void op_report(struct sim_node *n, const struct disk_op *op)
{
	switch (op->kind) {
	case DISK_APPEND:
		/* One report for consecutive appends: the last one's. */
		if (op->next == NULL || op->next->kind != DISK_APPEND || op->next->a != op->a) {
			node_log_durable(n->node, op->a, op->entries[op->n - 1]->index);
		}
		break;
	case DISK_VOTE:
		node_vote_durable(n->node, op->a, op->b);
		break;
	case DISK_RESET:
		node_log_reset(n->node, op->a);
		break;
	case DISK_TRUNCATE:
	case DISK_COMPACT:
		break;
	}
}

static void sync_begin(struct sim_node *n);

static void sync_done(struct sim *s, struct sim_event *e)
{
	struct sim_node *n = &s->nodes[e->node];
	struct disk *d = &n->disk;
	struct disk_op *op;

	if (d->sync_fails > 0 && --d->sync_fails == 0) {
		SIM_TRACE(s, n->id, "disk.failed", "%s", "the process ends");
		n->dying = true;
		return;
	}
	DL_FOREACH (d->batch, op) {
		op_apply(n, op, op->n);
	}
	DL_FOREACH (d->batch, op) {
		op_report(n, op);
	}
	ops_free(&d->batch);
	sync_begin(n);
}

static void sync_begin(struct sim_node *n)
{
	struct disk *d = &n->disk;
	struct sim *s = n->sim;
	struct disk_op *op;
	size_t taken = 0;

	while (d->queue != NULL && taken < d->batch_max) {
		op = d->queue;
		DL_DELETE(d->queue, op);
		DL_APPEND(d->batch, op);
		taken++;
	}
	if (taken > 0) {
		sim_at(s, s->now_us + d->latency_us + rng_below(&s->rng, d->spread_us + 1), n->id,
			sync_done);
	}
}

static const char *op_name(enum disk_op_kind kind)
{
	static const char *const names[] = {"append", "truncate", "compact", "reset", "vote"};

	return names[kind];
}

static void op_queue(struct sim_node *n, enum disk_op_kind kind, uint64_t a, uint64_t b,
	struct raft_entry *const *entries, size_t count)
{
	struct disk_op *op = xcalloc(1, sizeof *op);

	sim_hash_u64(n->sim, a, b ^ (uint64_t)kind << 56);
	SIM_TRACE(n->sim, n->id, "disk.queue",
		"op=%s a=%" PRIu64 " b=%" PRIu64 " entries=%zu first=%" PRIu64, op_name(kind), a, b,
		count, count > 0 ? entries[0]->index : 0);
	op->kind = kind;
	op->a = a;
	op->b = b;
	op->n = count;
	op->entries = count > 0 ? xcalloc(count, sizeof(*op->entries)) : NULL;
	for (size_t i = 0; i < count; i++) {
		op->entries[i] = raft_entry_ref(entries[i]);
	}
	DL_APPEND(n->disk.queue, op);
	if (n->disk.batch == NULL) {
		sync_begin(n);
	}
}

/* --- struct env ---------------------------------------------------------------------- */

static void env_append(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t count)
{
	if (count > 0) {
		watch_append(ctx, entries, count);
		op_queue(ctx, DISK_APPEND, gen, 0, entries, count);
	}
}

static void env_truncate(void *ctx, uint64_t from)
{
	watch_truncate(ctx, from);
	op_queue(ctx, DISK_TRUNCATE, from, 0, NULL, 0);
}

static void env_compact(void *ctx, uint64_t first)
{
	struct sim_node *n = ctx;

	if (first > n->disk.newest.index + 1) {
		sim_fail(n->sim, "compaction",
			"node %" PRIu64 " lets the log go up to %" PRIu64
			" with a snapshot of %" PRIu64,
			n->id, first, n->disk.newest.index);
	}
	op_queue(n, DISK_COMPACT, first, 0, NULL, 0);
}

static void env_reset(void *ctx, uint64_t index, uint64_t term)
{
	watch_reset(ctx, index, term);
	op_queue(ctx, DISK_RESET, index, term, NULL, 0);
}

static void env_save_vote(void *ctx, uint64_t term, uint64_t vote)
{
	op_queue(ctx, DISK_VOTE, term, vote, NULL, 0);
}

void disk_env(struct env *env)
{
	env->log_append = env_append;
	env->log_truncate = env_truncate;
	env->log_compact = env_compact;
	env->log_reset = env_reset;
	env->save_vote = env_save_vote;
}

/* --- crash and start ----------------------------------------------------------------- */

void disk_init(struct disk *d)
{
	d->latency_us = 100;
	d->batch_max = 1024; /* arbitrary */
}

void disk_fini(struct disk *d)
{
	ops_free(&d->queue);
	ops_free(&d->batch);
	entries_free(d->log.entries, d->log.n);
	snap_file_clear(&d->newest);
	snap_file_clear(&d->own);
	snap_file_clear(&d->received);
}

/* What of an unfinished sync reached the disk: a beginning, and perhaps a vote behind it. */
static void keep_a_part(struct sim_node *n)
{
	struct sim *s = n->sim;
	struct disk_op *op;
	bool torn = false;

	DL_FOREACH (n->disk.batch, op) {
		if (torn) {
			if (op->kind == DISK_VOTE && rng_permille(&s->rng, 500)) {
				op_apply(n, op, 0);
			}
			continue;
		}
		torn = rng_permille(&s->rng, 300);
		if (!torn) {
			op_apply(n, op, op->n);
		} else if (op->kind == DISK_APPEND) {
			op_apply(n, op, rng_below(&s->rng, op->n + 1));
		}
	}
}

void disk_crash(struct sim_node *n)
{
	struct disk *d = &n->disk;

	if (!n->sim->scripted) { /* a script's crash loses all that it can */
		keep_a_part(n);
	}
	ops_free(&d->queue);
	ops_free(&d->batch);
	snap_file_clear(&d->own);
	snap_file_clear(&d->received);
	d->own_ready_us = 0;
	d->received_ready_us = 0;
	d->own_buffered = 0;
	d->own_gen++;
	d->sync_fails = 0;
}

/* As core/main.c: what the snapshot covers is not needed, and a log that does not reach it, or
 * belongs to another history, is of no use any more. */
void disk_recover(struct sim_node *n)
{
	struct disk *d = &n->disk;
	const struct raft_entry *e;

	if (d->newest.index == 0 || d->newest.index < d->log.prev_index) {
		ASSERT(d->log.prev_index <= d->newest.index);
		return;
	}
	e = disk_entry(d, d->newest.index);
	if (d->newest.index > disk_last(d) || (e != NULL && e->term != d->newest.term)) {
		log_reset(&d->log, d->newest.index, d->newest.term);
	}
}
