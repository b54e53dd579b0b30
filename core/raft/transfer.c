/*
 * transfer.c - leadership given away on purpose (thesis 3.10).
 *
 * The leader stops taking proposals, waits until the successor has the whole
 * log, and tells it to stand at once; its VOTE_REQ says so and is answered even
 * by those who hear their leader. If it has not worked after an election
 * timeout, the leader goes on as before.
 */
#include "core/raft/raft_internal.h"

/* The voter with the longest log, of those that answer. */
static struct peer *best_successor(const struct raft *r)
{
	struct peer *best = NULL;

	for (size_t i = 0; i < r->n_peers; i++) {
		struct peer *p = &r->peers[i];

		if (p->voter && raft_peer_is_alive(r, p) &&
			(best == NULL || p->match > best->match)) {
			best = p;
		}
	}
	return best;
}

int raft_transfer(struct raft *r, uint64_t to, uint64_t now_ms)
{
	const struct peer *p;

	raft_clock(r, now_ms);
	if (r->role != RAFT_LEADER) {
		return -EAGAIN;
	}
	p = to == 0 ? best_successor(r) : raft_peer_find(r, to);
	if (p == NULL || !p->voter) {
		return -EAGAIN;
	}
	r->transfer_to = p->id;
	r->transfer_deadline_ms = r->now_ms + r->o.election_timeout_ms;
	r->transfer_sent_ms = 0;
	TRACE(&r->o.trace, TRACE_INFO, "raft.transfer",
		"id=%" PRIu64 " term=%" PRIu64 " to=%" PRIu64, r->o.id, r->term, p->id);
	return 0;
}

void raft_set_readonly(struct raft *r, bool readonly, uint64_t now_ms)
{
	if (r->readonly == readonly) {
		return;
	}
	r->readonly = readonly;
	if (readonly && r->role == RAFT_LEADER) {
		(void)raft_transfer(r, 0, now_ms); /* if nobody is there, this leader stays */
	}
}

static void tell_to_stand(struct raft *r, const struct peer *p)
{
	struct raft_msg m = {
		.kind = RAFT_TIMEOUT_NOW, .from = r->o.id, .to = p->id, .term = r->term};

	r->env.send(r->env.ctx, &m);
}

void raft_transfer_tick(struct raft *r)
{
	if (r->transfer_to != 0 && r->now_ms >= r->transfer_deadline_ms) {
		TRACE(&r->o.trace, TRACE_WARN, "raft.transfer_failed", "id=%" PRIu64 " to=%" PRIu64,
			r->o.id, r->transfer_to);
		r->transfer_to = 0;
	}
}

void raft_transfer_flush(struct raft *r)
{
	const struct peer *p;

	if (r->transfer_to == 0) {
		return;
	}
	p = raft_peer_find(r, r->transfer_to);
	if (p == NULL || !p->voter) {
		r->transfer_to = 0; /* removed meanwhile */
		return;
	}
	if (p->match < rlog_last(&r->log)) {
		return;
	}
	if (r->transfer_sent_ms == 0 || r->now_ms - r->transfer_sent_ms >= r->o.heartbeat_ms) {
		r->transfer_sent_ms = MAX(r->now_ms, (uint64_t)1);
		tell_to_stand(r, p);
	}
}

void raft_leave_if_removed(struct raft *r)
{
	const struct peer *p;

	if (r->role != RAFT_LEADER || r->self_voter || raft_config_index(r) > r->commit) {
		return;
	}
	p = best_successor(r);
	if (p != NULL) {
		tell_to_stand(r, p);
	}
	raft_become_follower(r, r->term, 0);
}

void raft_on_timeout_now(struct raft *r, const struct raft_msg *m)
{
	if (r->role != RAFT_FOLLOWER || m->from != r->leader || !raft_may_stand(r)) {
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.transfer_ignored",
			"id=%" PRIu64 " from=%" PRIu64 " term=%" PRIu64, r->o.id, m->from, m->term);
		return;
	}
	raft_campaign(r, true);
}
