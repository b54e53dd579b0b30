/*
 * follower.c - the receiving end of the log: match, keep, acknowledge.
 *
 * Rule 2 in three numbers of the present term: `matched`, how far this log is
 * known to equal the leader's; `durable`, how far it is on the disk;
 * `leader_commit`. What is acknowledged is the least of the first two, what is
 * committed the least of all three.
 *
 * An answer leaves when it says something new: a round, more on the disk, or
 * that entries sent again have been here for long. Word of a commit index alone
 * is not answered.
 */
#include "core/raft/raft_internal.h"

void raft_follower_reset(struct raft *r)
{
	r->matched = 0;
	r->leader_commit = 0;
	r->round_seen = 0;
	r->round_acked = 0;
	r->acked = 0;
	r->ack_due = false;
}

/* Where the logs may still agree. Everything committed does. */
static void refuse(struct raft *r, const struct raft_msg *m)
{
	uint64_t hint = MAX(rlog_last_at_most(&r->log, m->index, m->log_term), r->commit);

	raft_post(r, &(struct raft_msg){.kind = RAFT_APPEND_RESP,
			     .to = m->from,
			     .term = r->term,
			     .index = hint,
			     .log_term = rlog_term(&r->log, hint),
			     .round = r->round_seen});
}

/* The entries from the first new one on; -1 if they contradict what cannot be undone. */
static int find_new(struct raft *r, const struct raft_msg *m, size_t *ret_first)
{
	size_t i = 0;

	while (i < m->n_entries && m->entries[i]->index <= rlog_last(&r->log)) {
		const struct raft_entry *e = m->entries[i];

		if (e->index > r->log.prev_index && rlog_term(&r->log, e->index) != e->term) {
			break;
		}
		i++;
	}
	*ret_first = i;
	if (i == m->n_entries || m->entries[i]->index > MAX(r->commit, r->matched)) {
		return 0;
	}
	TRACE(&r->o.trace, TRACE_ERROR, "raft.contradiction",
		"id=%" PRIu64 " from=%" PRIu64 " term=%" PRIu64 " index=%" PRIu64 " commit=%" PRIu64
		" matched=%" PRIu64,
		r->o.id, m->from, m->term, m->entries[i]->index, r->commit, r->matched);
	return -1;
}

static void keep(struct raft *r, const struct raft_msg *m, size_t first)
{
	if (first < m->n_entries && m->entries[first]->index <= rlog_last(&r->log)) {
		raft_truncate(r, m->entries[first]->index);
	}
	for (size_t i = first; i < m->n_entries; i++) {
		raft_append_entry(r, raft_entry_ref(m->entries[i]));
	}
}

static bool agrees_at(const struct raft *r, uint64_t index, uint64_t term)
{
	return index < r->log.prev_index || /* committed: the leader has the same */
	       (index <= rlog_last(&r->log) && rlog_term(&r->log, index) == term);
}

void raft_on_append_req(struct raft *r, const struct raft_msg *m)
{
	uint64_t end = m->index + m->n_entries;
	size_t first;

	if (!raft_follow(r, m->from)) {
		return;
	}
	r->round_seen = MAX(r->round_seen, m->round);
	r->ack_due |= r->round_seen > r->round_acked;
	if (r->incoming.installing) {
		return; /* the log on the disk is about to be replaced */
	}
	if (!agrees_at(r, m->index, m->log_term)) {
		refuse(r, m);
		return;
	}
	if (find_new(r, m, &first) < 0) {
		return;
	}
	keep(r, m, first);
	r->matched = PLANTED(PLANT_ACK_BEYOND_MATCH) ? rlog_last(&r->log) : MAX(r->matched, end);
	r->leader_commit = MAX(r->leader_commit, m->commit);
	r->ack_due |= MIN(r->matched, r->durable) > r->acked;
	r->ack_due |= m->n_entries > 0 && end <= r->durable;
}

void raft_follower_commit(struct raft *r)
{
	uint64_t index = MIN(r->leader_commit, MIN(r->matched, r->durable));

	if (index > r->commit && !r->incoming.installing) {
		raft_set_commit(r, index);
	}
}

void raft_follower_durable(struct raft *r)
{
	r->ack_due |= r->leader != 0 && MIN(r->matched, r->durable) > r->acked;
}

/* In the flush, once the term is durable. */
void raft_follower_ack(struct raft *r)
{
	bool unsynced = PLANTED(PLANT_ACK_BEFORE_DURABLE);
	struct raft_msg m = {
		.kind = RAFT_APPEND_RESP,
		.from = r->o.id,
		.to = r->leader,
		.term = r->term,
		.ok = true,
		.index = unsynced ? r->matched : MIN(r->matched, r->durable),
		.round = r->round_seen,
	};

	if (!r->ack_due || r->leader == 0 || r->durable_term < r->term) {
		return;
	}
	r->ack_due = false;
	r->acked = m.index;
	r->round_acked = m.round;
	r->env.send(r->env.ctx, &m);
}
