/*
 * compaction.c - snapshots: taking this node's own, installing the leader's.
 *
 * Our own is written in slices, one a turn, while commands go on being applied
 * (core/state/state.h), and never faster than the disk takes it. The nodes take
 * turns: each is due at another phase of the same period, so that they do not all write
 * at once.
 *
 * The leader's arrives chunk by chunk into a file. When that is durable, the log
 * on disk is restarted behind it, and only then does the state machine change
 * over: a crash at any point finds either the old log, or the snapshot.
 */
#include "core/node_internal.h"

/* Do not queue more than this for the disk. */
#define BUFFERED_MAX (1u << 20)
/* Periods that a snapshot may be put off while an older one is on its way to a follower. */
#define PUT_OFF_MAX 4

/* 0, 1, 2 … among the servers. */
static uint64_t turn_of(const struct node *n)
{
	const struct raft_config *config = raft_config(n->raft);
	uint64_t turn = 0;

	for (size_t i = 0; i < config->n && config->servers[i].id < n->o.raft.id; i++) {
		turn++;
	}
	return turn;
}

static void begin(struct node *n)
{
	struct compaction *c = &n->compaction;
	uint8_t *config;
	size_t config_len;
	uint64_t index;

	c->taking = state_snapshot_begin(n->state);
	c->bytes_since = 0;
	c->due_bytes = n->o.snapshot_log_bytes;
	c->buffered = 0;
	index = state_snapshot_index(c->taking);
	raft_config_encode(raft_config_at(n->raft, index), &config, &config_len);
	n->env->snap_begin(n->env->ctx, index, raft_term_at(n->raft, index), config, config_len);
	free(config);
	TRACE(&n->o.raft.trace, TRACE_INFO, "snapshot.begin", "index=%" PRIu64, index);
}

static void slice(struct node *n)
{
	struct compaction *c = &n->compaction;
	struct wire_buf out = {0};
	bool more;

	if (c->buffered > BUFFERED_MAX) {
		return;
	}
	more = state_snapshot_next(c->taking, n->o.snapshot_slice_bytes, &out);
	c->buffered += out.len;
	n->env->snap_append(n->env->ctx, out.data, out.len);
	wire_buf_fini(&out);
	if (!more) {
		state_snapshot_free(TAKE(c->taking));
		c->finishing = true;
		n->env->snap_finish(n->env->ctx);
	}
}

bool node_wants_turn(const struct node *n)
{
	return n->compaction.taking != NULL && n->compaction.buffered <= BUFFERED_MAX;
}

void compaction_applied(struct node *n, size_t bytes)
{
	n->compaction.bytes_since += bytes;
}

/* A follower is being sent the newest one: another would make it start over. */
static bool is_sending(const struct node *n)
{
	struct raft_peer_report peers[RAFT_SERVERS_MAX];
	size_t n_peers = MIN(raft_peers(n->raft, peers, RAFT_SERVERS_MAX), RAFT_SERVERS_MAX);

	for (size_t i = 0; i < n_peers; i++) {
		if (peers[i].snapshot) {
			return true;
		}
	}
	return false;
}

/* Put off while one is being sent, but not for ever: the log must stay bounded. */
static bool is_due(const struct node *n)
{
	const struct compaction *c = &n->compaction;

	return c->bytes_since >= c->due_bytes &&
	       (c->bytes_since >= PUT_OFF_MAX * c->due_bytes || !is_sending(n));
}

void compaction_turn(struct node *n)
{
	struct compaction *c = &n->compaction;

	if (c->reset_due) {
		c->reset_due = false;
		n->env->log_reset(n->env->ctx, c->install_index, c->install_term);
	}
	if (c->taking != NULL) {
		slice(n);
		return;
	}
	if (c->due_bytes == 0) {
		uint64_t period = n->o.snapshot_log_bytes;

		c->due_bytes = period + period * turn_of(n) / MAX(raft_config(n->raft)->n, 1);
	}
	if (!c->finishing && c->install_index == 0 && is_due(n) &&
		raft_term_at(n->raft, state_index(n->state)) != 0) {
		begin(n);
	}
}

static void abandon(struct node *n)
{
	struct compaction *c = &n->compaction;

	if (c->taking != NULL || c->finishing) {
		state_snapshot_free(TAKE(c->taking));
		c->finishing = false;
		n->env->snap_abort(n->env->ctx);
	}
}

void node_snap_written(struct node *n, size_t buffered)
{
	n->compaction.buffered = buffered;
}

void node_snap_done(struct node *n, uint64_t index)
{
	uint64_t first;

	if (!n->compaction.finishing) {
		return; /* the leader's has overtaken it */
	}
	n->compaction.finishing = false;
	first = raft_snapshot_taken(n->raft, index);
	n->env->log_compact(n->env->ctx, first);
	TRACE(&n->o.raft.trace, TRACE_INFO, "snapshot.done", "index=%" PRIu64 " log_from=%" PRIu64,
		index, first);
}

/* --- the leader's --------------------------------------------------------------------------- */

void compaction_receive(struct node *n, const struct raft_msg *msg)
{
	struct compaction *c = &n->compaction;

	if (c->install_index != 0) {
		return; /* one is being installed; this leader, or the next, sends again */
	}
	if (msg->offset == 0) {
		abandon(n);
	}
	c->install_term = msg->log_term;
	n->env->snap_receive(n->env->ctx, msg->from, msg->index, msg->log_term, msg->offset,
		msg->data, msg->data_len, msg->done);
}

void node_snap_received(
	struct node *n, uint64_t from, uint64_t index, uint64_t next_offset, bool done)
{
	struct compaction *c = &n->compaction;

	if (!done) {
		raft_snapshot_written(n->raft, from, index, next_offset, false);
		return;
	}
	c->install_from = from;
	c->install_index = index;
	c->install_offset = next_offset;
	c->reset_due = true; /* at the end of the turn: behind what raft appended before */
}

static int feed(void *arg, const void *data, size_t len)
{
	return state_restore_feed(arg, data, len);
}

int node_load_snapshot(struct node *n, struct state **ret_state)
{
	struct state_restore *r = state_restore_new(&n->o.limits);
	int rc = n->env->snap_load(n->env->ctx, feed, r);

	if (rc < 0) {
		state_restore_free(r);
		return rc;
	}
	return state_restore_end(r, ret_state);
}

void node_log_reset(struct node *n, uint64_t index)
{
	struct compaction *c = &n->compaction;
	struct state *fresh = NULL;
	int rc;

	if (index != c->install_index || index == 0) {
		return;
	}
	rc = node_load_snapshot(n, &fresh);
	if (rc < 0) {
		node_fatal(n, "a snapshot received from the leader cannot be loaded", rc);
		return;
	}
	ASSERT(state_index(fresh) == index);
	abandon(n);
	state_free(n->state);
	n->state = fresh;
	state_set_hooks(n->state, &n->hooks);
	c->install_index = 0;
	c->bytes_since = 0;
	raft_snapshot_written(n->raft, c->install_from, index, c->install_offset, true);
	TRACE(&n->o.raft.trace, TRACE_INFO, "snapshot.installed", "index=%" PRIu64, index);
	node_restored(n);
}

void compaction_fini(struct node *n)
{
	state_snapshot_free(n->compaction.taking);
}
