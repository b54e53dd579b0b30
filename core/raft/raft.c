/*
 * raft.c - events, and the order in which effects leave.
 */
#include "core/raft/raft_internal.h"

/* --- the log ----------------------------------------------------------------------------- */

void raft_append_entry(struct raft *r, struct raft_entry *e)
{
	rlog_push(&r->log, e);
	if (r->role == RAFT_LEADER) {
		r->uncommitted_bytes += rlog_entry_bytes(e);
	}
	if (e->kind == RAFT_CONFIG) {
		raft_config_appended(r, e);
	}
}

void raft_truncate(struct raft *r, uint64_t from)
{
	ASSERT(r->role != RAFT_LEADER);
	ASSERT(from > r->commit);
	TRACE(&r->o.trace, TRACE_INFO, "raft.truncate",
		"id=%" PRIu64 " term=%" PRIu64 " from=%" PRIu64 " last=%" PRIu64, r->o.id, r->term,
		from, rlog_last(&r->log));
	rlog_truncate(&r->log, from);
	r->gen++;
	if (from <= r->queued) {
		r->truncate_from = r->truncate_from == 0 ? from : MIN(from, r->truncate_from);
		r->queued = from - 1;
	}
	r->durable = MIN(r->durable, from - 1);
	raft_config_undo(r, from);
}

void raft_set_commit(struct raft *r, uint64_t index)
{
	ASSERT(index > r->commit);
	ASSERT(index <= rlog_last(&r->log));
	r->commit = index;
	TRACE(&r->o.trace, TRACE_DEBUG, "raft.commit", "id=%" PRIu64 " index=%" PRIu64, r->o.id,
		index);
}

int raft_propose(struct raft *r, const void *data, size_t len, uint64_t *ret_index)
{
	struct raft_entry *e;

	if (r->role != RAFT_LEADER || r->transfer_to != 0) {
		return -EAGAIN;
	}
	if (r->readonly) {
		return -ENOSPC;
	}
	if (len > RAFT_ENTRY_BYTES_MAX) {
		return -EFBIG;
	}
	if (r->uncommitted_bytes >= r->o.uncommitted_bytes_max) {
		return -ENOBUFS;
	}
	e = raft_entry_new(rlog_last(&r->log) + 1, r->term, RAFT_COMMAND, data, len);
	*ret_index = e->index;
	raft_append_entry(r, e);
	return 0;
}

void raft_log_durable(struct raft *r, uint64_t gen, uint64_t index)
{
	if (gen != r->gen || index <= r->durable) {
		return; /* of entries that were truncated since */
	}
	r->durable = MIN(index, r->queued);
	raft_follower_durable(r);
}

/* --- time -------------------------------------------------------------------------------- */

void raft_clock(struct raft *r, uint64_t now_ms)
{
	r->now_ms = MAX(r->now_ms, now_ms);
	if (r->role == RAFT_LEADER && r->now_ms - r->last_tick_ms > r->o.election_timeout_ms) {
		r->last_tick_ms = r->now_ms;
		raft_check_quorum(r);
	}
}

void raft_tick(struct raft *r, uint64_t now_ms)
{
	raft_clock(r, now_ms);
	r->last_tick_ms = r->now_ms;
	if (r->role == RAFT_LEADER) {
		raft_check_quorum(r);
	}
	if (r->role == RAFT_LEADER) {
		raft_replication_tick(r);
		raft_transfer_tick(r);
	} else {
		raft_election_tick(r);
	}
}

/* --- messages in ------------------------------------------------------------------------- */

static bool names_a_term_to_come(const struct raft_msg *m)
{
	return m->kind == RAFT_PREVOTE_REQ || (m->kind == RAFT_PREVOTE_RESP && m->ok);
}

/* False: it has no business here while a leader is alive (thesis 4.2.3). */
static bool adopt_term(struct raft *r, const struct raft_msg *m)
{
	if (m->kind == RAFT_VOTE_REQ && !m->transfer && raft_leader_is_alive(r)) {
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.vote_ignored",
			"id=%" PRIu64 " from=%" PRIu64 " term=%" PRIu64, r->o.id, m->from, m->term);
		return false;
	}
	raft_become_follower(r, m->term, 0);
	return true;
}

/* Whoever lives in the past is told the present term. */
static void answer_old_term(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg answer = {.kind = RAFT_APPEND_RESP, .to = m->from, .term = r->term};

	if (m->kind == RAFT_VOTE_REQ) {
		answer.kind = RAFT_VOTE_RESP;
		raft_post(r, &answer);
	} else if (m->kind == RAFT_APPEND_REQ || m->kind == RAFT_SNAPSHOT_REQ) {
		raft_post(r, &answer);
	}
}

static void dispatch(struct raft *r, const struct raft_msg *m)
{
	switch (m->kind) {
	case RAFT_PREVOTE_REQ:
		raft_on_prevote_req(r, m);
		break;
	case RAFT_PREVOTE_RESP:
		raft_on_prevote_resp(r, m);
		break;
	case RAFT_VOTE_REQ:
		raft_on_vote_req(r, m);
		break;
	case RAFT_VOTE_RESP:
		raft_on_vote_resp(r, m);
		break;
	case RAFT_APPEND_REQ:
		raft_on_append_req(r, m);
		break;
	case RAFT_APPEND_RESP:
		raft_on_append_resp(r, m);
		break;
	case RAFT_SNAPSHOT_REQ:
		raft_on_snapshot_req(r, m);
		break;
	case RAFT_SNAPSHOT_RESP:
		raft_on_snapshot_resp(r, m);
		break;
	case RAFT_TIMEOUT_NOW:
		raft_on_timeout_now(r, m);
		break;
	}
}

void raft_recv(struct raft *r, const struct raft_msg *m, uint64_t now_ms)
{
	const char *fault = raft_message_fault(r, m);

	raft_clock(r, now_ms);
	if (fault != NULL) {
		TRACE(&r->o.trace, TRACE_WARN, "raft.bad_message",
			"id=%" PRIu64 " from=%" PRIu64 " kind=%d term=%" PRIu64 " index=%" PRIu64
			" fault=\"%s\"",
			r->o.id, m->from, (int)m->kind, m->term, m->index, fault);
		return;
	}
	if (names_a_term_to_come(m)) {
		dispatch(r, m);
		return;
	}
	if (m->term > r->term && !adopt_term(r, m)) {
		return;
	}
	if (m->term < r->term && m->kind != RAFT_PREVOTE_RESP) {
		answer_old_term(r, m);
		return;
	}
	dispatch(r, m);
}

/* --- effects out ------------------------------------------------------------------------- */

void raft_post(struct raft *r, const struct raft_msg *m)
{
	if (r->n_out == RAFT_OUT_MAX) {
		TRACE(&r->o.trace, TRACE_WARN, "raft.out_full", "id=%" PRIu64 " to=%" PRIu64,
			r->o.id, m->to);
		return;
	}
	if (r->n_out == r->out_cap) {
		r->out_cap = MAX(r->out_cap * 2, (size_t)16); /* arbitrary */
		r->out = xrealloc(r->out, r->out_cap * sizeof r->out[0]);
	}
	r->out[r->n_out] = *m;
	r->out[r->n_out++].from = r->o.id;
}

static void tell_changes(struct raft *r)
{
	if (r->config_changed) {
		r->config_changed = false;
		r->env.config_changed(r->env.ctx, raft_config(r));
	}
	if (r->role_changed) {
		r->role_changed = false;
		r->env.role_changed(r->env.ctx);
	}
}

/* Term and vote first: an entry of a term must not be on a disk that does not know the term. */
static void flush_disk(struct raft *r)
{
	uint64_t last = rlog_last(&r->log);

	if (r->vote_changed) {
		bool forget = PLANTED(PLANT_VOTE_NOT_PERSISTED) && r->vote != r->o.id;

		r->vote_changed = false;
		r->env.save_vote(r->env.ctx, r->term, forget ? 0 : r->vote);
	}
	if (r->truncate_from != 0) {
		r->env.truncate(r->env.ctx, r->truncate_from);
		r->truncate_from = 0;
	}
	if (r->queued < last) {
		r->env.append(r->env.ctx, r->gen, rlog_at(&r->log, r->queued + 1),
			(size_t)(last - r->queued));
		r->queued = last;
	}
}

static bool is_outdated(const struct raft *r, const struct raft_msg *m)
{
	return m->term < r->term && m->kind != RAFT_PREVOTE_REQ && m->kind != RAFT_PREVOTE_RESP;
}

/* Rule 3: nothing of a term is said before the term is durable, no vote before the vote is. */
static bool may_leave(const struct raft *r, const struct raft_msg *m)
{
	if (names_a_term_to_come(m)) {
		return true;
	}
	if (m->kind == RAFT_VOTE_RESP && m->ok) {
		return raft_vote_is_durable(r, m->to);
	}
	return r->durable_term >= m->term;
}

static void flush_out(struct raft *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->n_out; i++) {
		const struct raft_msg *m = &r->out[i];

		if (is_outdated(r, m)) {
			continue;
		}
		if (may_leave(r, m)) {
			r->env.send(r->env.ctx, m);
		} else {
			r->out[kept++] = *m;
		}
	}
	r->n_out = kept;
}

static void flush_messages(struct raft *r)
{
	flush_out(r);
	if (r->role == RAFT_LEADER) {
		raft_replicate(r);
		raft_transfer_flush(r);
	} else {
		raft_follower_ack(r);
	}
}

static void apply_committed(struct raft *r)
{
	while (r->applied < r->commit) {
		r->applied++;
		r->env.apply(r->env.ctx, *rlog_at(&r->log, r->applied));
	}
}

/* What apply and read_ready asked for, and stepping down, take effect in the same flush. */
static bool has_more(const struct raft *r)
{
	return r->queued < rlog_last(&r->log) || r->role_changed ||
	       (r->role == RAFT_LEADER && r->round_wanted);
}

void raft_flush(struct raft *r, uint64_t now_ms)
{
	raft_clock(r, now_ms);
	do {
		if (r->role == RAFT_LEADER) {
			raft_leader_commit(r);
		} else {
			raft_follower_commit(r);
		}
		tell_changes(r);
		flush_disk(r);
		flush_messages(r);
		apply_committed(r);
		raft_leave_if_removed(r);
		raft_answer_reads(r);
	} while (has_more(r));
}
