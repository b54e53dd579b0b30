/*
 * replication.c - the leader's side of the log: send, count, commit.
 *
 * Two kinds of APPEND_REQ leave here. With entries, or looking for the place
 * where the logs agree, it starts at `next`. Without, it is a heartbeat, a
 * round of ReadIndex or word of a new commit index; it starts at `match`, where
 * the logs are known to agree, so it is never refused.
 *
 * Messages may be lost: what is unanswered for two heartbeats is sent again,
 * beginning with a probe.
 */
#include "core/raft/raft_internal.h"

/* Of an entry in a message, beside its payload: tags, lengths, numbers. An upper bound. */
#define ENTRY_OVERHEAD 40u

/* --- sending ----------------------------------------------------------------------------- */

static void send_append(struct raft *r, struct peer *p, uint64_t prev, size_t n)
{
	struct raft_msg m = {
		.kind = RAFT_APPEND_REQ,
		.from = r->o.id,
		.to = p->id,
		.term = r->term,
		.index = prev,
		.log_term = rlog_term(&r->log, prev),
		.commit = r->commit,
		.round = r->round,
		.entries = n > 0 ? rlog_at(&r->log, prev + 1) : NULL,
		.n_entries = n,
	};

	p->commit_sent = r->commit;
	p->round_sent = r->round;
	r->env.send(r->env.ctx, &m);
}

static size_t batch_from(const struct raft *r, uint64_t next)
{
	uint64_t last = rlog_last(&r->log);
	size_t bytes = 0;
	size_t n = 0;

	while (next + n <= last && n < r->o.append_entries_max) {
		bytes += (*rlog_at(&r->log, next + n))->len + ENTRY_OVERHEAD;
		if (n > 0 && bytes > r->o.append_bytes_max) {
			break;
		}
		n++;
	}
	return n;
}

/* Who does not answer gets no entries: they would pile up on their way to nobody. */
static void send_probe(struct raft *r, struct peer *p)
{
	size_t n = raft_peer_is_alive(r, p) ? batch_from(r, p->next) : 0;

	p->probing = true;
	p->probe_ms = r->now_ms;
	send_append(r, p, p->next - 1, n);
}

static void send_batch(struct raft *r, struct peer *p)
{
	size_t n = batch_from(r, p->next);
	size_t slot = (p->inflight_head + p->n_inflight) % r->o.inflight_max;

	if (p->n_inflight == 0) {
		p->progress_ms = r->now_ms;
	}
	send_append(r, p, p->next - 1, n);
	p->next += n;
	p->inflight[slot] = p->next - 1;
	p->n_inflight++;
}

/* Returns whether anything was sent, and with it round and commit. */
static bool send_entries(struct raft *r, struct peer *p)
{
	bool sent = false;

	if (p->state != PEER_SNAPSHOT && p->next <= r->log.prev_index) {
		raft_peer_start_snapshot(r, p);
	}
	switch (p->state) {
	case PEER_PROBE:
		if (!p->probing) {
			send_probe(r, p);
			sent = true;
		}
		break;
	case PEER_REPLICATE:
		while (p->next <= rlog_last(&r->log) && p->n_inflight < r->o.inflight_max) {
			send_batch(r, p);
			sent = true;
		}
		break;
	case PEER_SNAPSHOT:
		raft_send_snapshot(r, p);
		break;
	}
	return sent;
}

static void send_word(struct raft *r, struct peer *p)
{
	bool round = p->round_sent < r->round && (p->voter || r->heartbeat_due);
	bool commit = p->commit_sent < r->commit && p->commit_sent < p->match;
	uint64_t prev = rlog_term(&r->log, p->match) != 0 ? p->match : 0;

	if (!round && !commit) {
		return;
	}
	/* Where the log does not reach back to `match`, the start of all logs is agreed on. */
	send_append(r, p, prev, 0);
}

void raft_replicate(struct raft *r)
{
	if (r->round_wanted || r->heartbeat_due) {
		r->round++;
		r->round_wanted = false;
	}
	for (size_t i = 0; i < r->n_peers; i++) {
		if (!send_entries(r, &r->peers[i])) {
			send_word(r, &r->peers[i]);
		}
	}
	r->heartbeat_due = false;
	raft_peers_see_off(r);
}

/* --- time -------------------------------------------------------------------------------- */

/* Entries are on their way, and for two heartbeats none has arrived; or nobody is there. */
static bool has_stalled(const struct raft *r, const struct peer *p)
{
	return (p->n_inflight > 0 &&
		       r->now_ms - p->progress_ms >= 2 * (uint64_t)r->o.heartbeat_ms) ||
	       !raft_peer_is_alive(r, p);
}

static void peer_tick(struct raft *r, struct peer *p)
{
	if (p->state == PEER_PROBE && r->now_ms - p->probe_ms >= r->o.heartbeat_ms) {
		p->probing = false;
	}
	if (p->state == PEER_REPLICATE && has_stalled(r, p)) {
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.resend",
			"id=%" PRIu64 " to=%" PRIu64 " match=%" PRIu64 " next=%" PRIu64, r->o.id,
			p->id, p->match, p->next);
		raft_peer_probe(r, p, p->match + 1);
	}
}

void raft_replication_tick(struct raft *r)
{
	if (r->now_ms < r->heartbeat_ms) {
		return;
	}
	r->heartbeat_ms = r->now_ms + r->o.heartbeat_ms;
	r->heartbeat_due = true;
	for (size_t i = 0; i < r->n_peers; i++) {
		peer_tick(r, &r->peers[i]);
	}
}

/* --- answers ----------------------------------------------------------------------------- */

static void on_match(struct raft *r, struct peer *p, uint64_t match)
{
	if (match > p->match) {
		p->match = match;
		p->progress_ms = r->now_ms;
		p->next = MAX(p->next, match + 1);
	}
	while (p->n_inflight > 0 && p->inflight[p->inflight_head] <= p->match) {
		p->inflight_head = (p->inflight_head + 1) % r->o.inflight_max;
		p->n_inflight--;
	}
	if (p->state == PEER_PROBE && match + 1 >= p->next) {
		p->state = PEER_REPLICATE;
		p->next = match + 1;
	}
	if (p->state == PEER_SNAPSHOT && p->match >= r->log.prev_index) {
		raft_peer_probe(r, p, p->match + 1);
	}
}

static void on_refused(struct raft *r, struct peer *p, const struct raft_msg *m)
{
	uint64_t agree = rlog_last_at_most(&r->log, m->index, m->log_term);

	/* A late refusal: what it knew less of has been acknowledged, or has been tried since. */
	if (p->state == PEER_SNAPSHOT || agree + 1 >= p->next || m->index < p->match) {
		return;
	}
	TRACE(&r->o.trace, TRACE_DEBUG, "raft.refused",
		"id=%" PRIu64 " by=%" PRIu64 " next=%" PRIu64 " agree=%" PRIu64, r->o.id, p->id,
		p->next, agree);
	raft_peer_probe(r, p, agree + 1);
}

void raft_on_append_resp(struct raft *r, const struct raft_msg *m)
{
	struct peer *p = raft_peer_find(r, m->from);

	if (r->role != RAFT_LEADER || p == NULL) {
		return;
	}
	if (m->round > r->round || (m->ok && m->index > rlog_last(&r->log))) {
		TRACE(&r->o.trace, TRACE_ERROR, "raft.impossible_ack",
			"id=%" PRIu64 " from=%" PRIu64 " index=%" PRIu64 " round=%" PRIu64, r->o.id,
			m->from, m->index, m->round);
		return;
	}
	p->heard_ms = r->now_ms;
	p->round_acked = MAX(p->round_acked, m->round);
	if (m->ok) {
		on_match(r, p, m->index);
	} else {
		on_refused(r, p, m);
	}
}

/* Rule 1: only entries of the own term are committed by counting; those before come with them. */
void raft_leader_commit(struct raft *r)
{
	uint64_t index = raft_quorum_match(r);

	if (index > r->commit && (index >= r->term_start || PLANTED(PLANT_COMMIT_OLD_TERM))) {
		for (uint64_t i = r->commit + 1; i <= index; i++) {
			r->uncommitted_bytes -= rlog_entry_bytes(*rlog_at(&r->log, i));
		}
		raft_set_commit(r, index);
	}
}
