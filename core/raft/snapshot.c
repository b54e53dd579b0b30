/*
 * snapshot.c - the log is shortened; who is too far behind gets a snapshot.
 *
 * Leader: the peer in state SNAPSHOT has one chunk under way: asked of env
 * (CHUNK_READING), then sent (CHUNK_SENT); the answer names the offset wanted
 * next, so a transfer resumes after a loss, a restart of the peer, or an
 * interruption. Unanswered for an election timeout it is sent again; when a newer
 * snapshot has replaced the one under way, the newer one is begun.
 *
 * Follower: chunks go to env in order of offsets. From the last chunk until
 * raft_snapshot_written(installed) the log on the disk is about to be replaced:
 * nothing is appended, committed, and this server does not stand for election.
 */
#include "core/raft/raft_internal.h"

/* --- own snapshots ----------------------------------------------------------------------- */

uint64_t raft_snapshot_taken(struct raft *r, uint64_t index)
{
	uint64_t keep_from = index > r->o.trailing_entries ? index - r->o.trailing_entries : 0;

	ASSERT(index <= r->applied);
	if (index > r->snapshot_index) {
		r->snapshot_index = index;
		r->snapshot_term = rlog_term(&r->log, index);
		r->durable = MAX(r->durable, index);
		raft_config_forget(r, index);
		if (keep_from > r->log.prev_index) {
			rlog_compact(&r->log, keep_from);
		}
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.snapshot.taken",
			"id=%" PRIu64 " index=%" PRIu64 " first=%" PRIu64, r->o.id, index,
			r->log.prev_index + 1);
	}
	return r->log.prev_index + 1;
}

/* --- leader ------------------------------------------------------------------------------ */

void raft_peer_start_snapshot(struct raft *r, struct peer *p)
{
	p->state = PEER_SNAPSHOT;
	p->probing = false;
	p->n_inflight = 0;
	p->chunk = CHUNK_IDLE;
	p->snap_index = 0;
	TRACE(&r->o.trace, TRACE_INFO, "raft.snapshot.needed",
		"id=%" PRIu64 " to=%" PRIu64 " next=%" PRIu64 " first=%" PRIu64, r->o.id, p->id,
		p->next, r->log.prev_index + 1);
}

void raft_send_snapshot(struct raft *r, struct peer *p)
{
	if (!raft_peer_is_alive(r, p)) {
		return;
	}
	if (p->snap_index != r->snapshot_index) {
		p->snap_index = r->snapshot_index;
		p->snap_offset = 0;
		p->snap_total = RAFT_NUMBER_MAX; /* until the first chunk tells */
		p->chunk = CHUNK_IDLE;
	}
	if (p->chunk == CHUNK_SENT && r->now_ms - p->snap_ms >= r->o.election_timeout_ms) {
		p->chunk = CHUNK_IDLE;
	}
	if (p->chunk == CHUNK_IDLE) {
		p->chunk = CHUNK_READING;
		r->env.snapshot_read(r->env.ctx, p->id, p->snap_index, p->snap_offset,
			r->o.snapshot_chunk_bytes);
	}
}

static void send_chunk(
	struct raft *r, const struct peer *p, const void *data, size_t len, bool done)
{
	struct raft_msg m = {
		.kind = RAFT_SNAPSHOT_REQ,
		.from = r->o.id,
		.to = p->id,
		.term = r->term,
		.index = r->snapshot_index,
		.log_term = r->snapshot_term,
		.round = r->round,
		.offset = p->snap_offset,
		.done = done,
		.data = data,
		.data_len = len,
		.config = raft_config_at(r, r->snapshot_index),
	};

	r->env.send(r->env.ctx, &m);
}

void raft_snapshot_chunk(struct raft *r, uint64_t to, uint64_t index, uint64_t offset,
	const void *data, size_t len, uint64_t total, int error)
{
	struct peer *p = raft_peer_find(r, to);

	if (r->role != RAFT_LEADER || p == NULL || p->state != PEER_SNAPSHOT ||
		p->chunk != CHUNK_READING || p->snap_index != index || p->snap_offset != offset) {
		return; /* asked for by an earlier attempt */
	}
	p->chunk = CHUNK_SENT;
	p->snap_ms = r->now_ms;
	if (error != 0 || (len == 0 && offset < total)) {
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.snapshot.replaced",
			"id=%" PRIu64 " to=%" PRIu64 " index=%" PRIu64 " error=%d", r->o.id, to,
			index, error);
		p->snap_offset = 0; /* with the newest, or after a while with the same */
		return;
	}
	if (index != r->snapshot_index) {
		return; /* replaced meanwhile: the next flush begins the newer one */
	}
	p->snap_total = total;
	send_chunk(r, p, data, len, offset + len >= total);
}

void raft_on_snapshot_resp(struct raft *r, const struct raft_msg *m)
{
	struct peer *p = raft_peer_find(r, m->from);

	if (r->role != RAFT_LEADER || p == NULL) {
		return;
	}
	p->heard_ms = r->now_ms;
	if (p->state != PEER_SNAPSHOT || p->snap_index == 0 || p->snap_index != m->index) {
		return;
	}
	if (m->done) {
		TRACE(&r->o.trace, TRACE_INFO, "raft.snapshot.sent",
			"id=%" PRIu64 " to=%" PRIu64 " index=%" PRIu64, r->o.id, p->id, m->index);
		p->match = MAX(p->match, m->index);
		raft_peer_probe(r, p, p->match + 1);
		return;
	}
	/* An answer heard twice must not send a chunk twice, which would be answered twice … */
	if (p->chunk == CHUNK_SENT && m->offset != p->snap_offset && m->offset <= p->snap_total) {
		p->snap_offset = m->offset;
		p->chunk = CHUNK_IDLE;
	}
}

/* --- follower ---------------------------------------------------------------------------- */

void raft_incoming_fini(struct raft *r)
{
	raft_config_fini(&r->incoming.config);
	r->incoming = (struct incoming){.from = 0};
}

static void answer(struct raft *r, uint64_t to, uint64_t index, uint64_t offset, bool done)
{
	raft_post(r, &(struct raft_msg){.kind = RAFT_SNAPSHOT_RESP,
			     .to = to,
			     .term = r->term,
			     .index = index,
			     .offset = offset,
			     .done = done});
}

/* Is all of it here already? Then it need not come, and what lies behind it in the log stays. */
static bool is_known(struct raft *r, const struct raft_msg *m)
{
	if (m->index > r->commit && rlog_term(&r->log, m->index) != m->log_term) {
		return false;
	}
	r->matched = MAX(r->matched, m->index);
	r->leader_commit = MAX(r->leader_commit, m->index);
	raft_follower_durable(r);
	if (m->index <= r->durable) {
		answer(r, m->from, m->index, 0, true);
	}
	return true;
}

static bool is_under_way(const struct raft *r, const struct raft_msg *m)
{
	return r->incoming.from == m->from && r->incoming.index == m->index &&
	       r->incoming.term == m->log_term;
}

static void begin(struct raft *r, const struct raft_msg *m)
{
	int rc;

	raft_incoming_fini(r);
	r->incoming.from = m->from;
	r->incoming.index = m->index;
	r->incoming.term = m->log_term;
	rc = raft_config_copy(m->config, &r->incoming.config);
	ASSERT(rc == 0); /* raft_message_fault() asked */
	TRACE(&r->o.trace, TRACE_INFO, "raft.snapshot.incoming",
		"id=%" PRIu64 " from=%" PRIu64 " index=%" PRIu64, r->o.id, m->from, m->index);
}

void raft_on_snapshot_req(struct raft *r, const struct raft_msg *m)
{
	struct incoming *in = &r->incoming;

	if (!raft_follow(r, m->from)) {
		return;
	}
	r->round_seen = MAX(r->round_seen, m->round);
	r->ack_due |= r->round_seen > r->round_acked;
	if (in->installing || is_known(r, m)) {
		return;
	}
	if (!is_under_way(r, m)) {
		if (m->offset != 0) {
			answer(r, m->from, m->index, 0, false);
			return;
		}
		begin(r, m);
	}
	if (m->offset == in->next) {
		in->next += m->data_len;
		in->installing = m->done;
		r->env.snapshot_write(r->env.ctx, m);
	} else if (in->written == in->next) {
		answer(r, m->from, m->index, in->next, false);
	}
}

/* The whole log gives way: it lacks the snapshot's last entry, so nothing behind it can ever be
 * committed (is_known() asked, and nothing was appended since). */
static void install(struct raft *r)
{
	struct incoming *in = &r->incoming;

	ASSERT(in->index > r->commit);
	rlog_restart(&r->log, in->index, in->term);
	r->gen++;
	r->truncate_from = 0;
	r->queued = in->index;
	r->durable = in->index;
	r->commit = in->index;
	r->applied = in->index;
	r->snapshot_index = in->index;
	r->snapshot_term = in->term;
	r->matched = MAX(r->matched, in->index);
	raft_configs_clear(r);
	raft_config_push(r, in->index, &in->config);
	TRACE(&r->o.trace, TRACE_INFO, "raft.snapshot.installed",
		"id=%" PRIu64 " index=%" PRIu64 " term=%" PRIu64, r->o.id, in->index, in->term);
}

void raft_snapshot_written(
	struct raft *r, uint64_t from, uint64_t index, uint64_t next_offset, bool installed)
{
	struct incoming *in = &r->incoming;

	if (in->from == 0 || in->from != from || in->index != index || next_offset > in->next) {
		return; /* of an attempt that was given up */
	}
	if (installed) {
		ASSERT(in->installing);
		install(r);
		raft_incoming_fini(r);
		raft_follower_durable(r);
	} else {
		if (next_offset <= in->written && next_offset < in->next) {
			in->next = next_offset; /* it was damaged on its way: again from there */
			in->installing = false;
		}
		in->written = next_offset;
	}
	if (r->leader == from) {
		answer(r, from, index, next_offset, installed);
	}
}
