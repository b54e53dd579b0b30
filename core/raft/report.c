/*
 * report.c - what a raft knows, and whether it is sound.
 */
#include "core/raft/raft_internal.h"

enum raft_role raft_role(const struct raft *r)
{
	return r->role;
}

uint64_t raft_term(const struct raft *r)
{
	return r->term;
}

uint64_t raft_leader(const struct raft *r)
{
	return r->leader;
}

bool raft_leader_ready(const struct raft *r)
{
	return r->role == RAFT_LEADER && r->applied >= r->term_start;
}

uint64_t raft_commit(const struct raft *r)
{
	return r->commit;
}

uint64_t raft_applied(const struct raft *r)
{
	return r->applied;
}

uint64_t raft_last_index(const struct raft *r)
{
	return rlog_last(&r->log);
}

uint64_t raft_durable_index(const struct raft *r)
{
	return r->durable;
}

uint64_t raft_snapshot_index(const struct raft *r)
{
	return r->snapshot_index;
}

uint64_t raft_term_at(const struct raft *r, uint64_t index)
{
	return rlog_term(&r->log, index);
}

size_t raft_log_bytes(const struct raft *r)
{
	return r->log.bytes;
}

size_t raft_peers(const struct raft *r, struct raft_peer_report *ret_rows, size_t max)
{
	size_t n = 0;

	if (r->role != RAFT_LEADER) {
		return 0;
	}
	for (size_t i = 0; i < r->n_peers; i++) {
		const struct peer *p = &r->peers[i];

		if (p->leaving) {
			continue;
		}
		if (n < max) {
			ret_rows[n] = (struct raft_peer_report){.id = p->id,
				.match = p->match,
				.next = p->next,
				.heard_ms = p->heard_ms,
				.snapshot = p->state == PEER_SNAPSHOT};
		}
		n++;
	}
	return n;
}

static void check_log(const struct raft *r)
{
	uint64_t term = r->log.prev_term;

	for (uint64_t i = r->log.prev_index + 1; i <= rlog_last(&r->log); i++) {
		const struct raft_entry *e = *rlog_at(&r->log, i);

		ASSERT(e->index == i);
		ASSERT(e->term >= term);
		ASSERT(e->refs > 0);
		term = e->term;
	}
	ASSERT(r->term >= term);
}

void raft_check(const struct raft *r)
{
	check_log(r);
	ASSERT(r->applied <= r->commit);
	ASSERT(r->commit <= rlog_last(&r->log));
	ASSERT(r->durable <= r->queued);
	ASSERT(r->queued <= rlog_last(&r->log));
	ASSERT(r->snapshot_index <= r->applied);
	ASSERT(r->log.prev_index <= r->snapshot_index);
	ASSERT(r->durable_term <= r->term);
	ASSERT(r->matched <= rlog_last(&r->log));
	ASSERT(raft_config_index(r) <= rlog_last(&r->log));
	ASSERT(r->role != RAFT_LEADER || r->leader == r->o.id);
	ASSERT(r->role == RAFT_LEADER || r->leader != r->o.id);
	ASSERT(r->role == RAFT_LEADER || r->transfer_to == 0);
	ASSERT(r->role != RAFT_LEADER || r->durable_vote == r->o.id);
}
