/*
 * read_index.c - linearizable reads without a log entry (thesis 6.4).
 *
 * A read notes the commit index and the next round. The round is begun in the
 * flush, after the read was asked; when a majority has answered it, this
 * server was the leader after the read was asked, so the noted index is not
 * older than anything acknowledged before. A new leader does not know what is
 * committed before an entry of its own term is, so reads wait for that too.
 */
#include "core/raft/raft_internal.h"

int raft_read_index(struct raft *r, uint64_t read_id)
{
	if (r->role != RAFT_LEADER) {
		return -EAGAIN;
	}
	if (r->n_reads == RAFT_READS_MAX) {
		return -ENOBUFS;
	}
	if (r->n_reads == r->reads_cap) {
		r->reads_cap = MAX(r->reads_cap * 2, (size_t)64); /* arbitrary */
		r->reads = xrealloc(r->reads, r->reads_cap * sizeof r->reads[0]);
	}
	r->reads[r->n_reads++] =
		(struct pending_read){.id = read_id, .round = r->round + 1, .index = r->commit};
	r->round_wanted = true;
	return 0;
}

/* The callback may ask for new reads: they go to the end of a list that is consistent. */
static void answer_first(struct raft *r, size_t n, bool ok)
{
	struct pending_read *answered = xmemdup(r->reads, n * sizeof *answered);

	r->n_reads -= n;
	memmove(r->reads, r->reads + n, r->n_reads * sizeof r->reads[0]);
	for (size_t i = 0; i < n; i++) {
		r->env.read_ready(r->env.ctx, answered[i].id,
			ok ? MAX(answered[i].index, r->term_start) : 0, ok);
	}
	free(answered);
}

static size_t count_confirmed(const struct raft *r)
{
	uint64_t round = PLANTED(PLANT_NO_READ_ROUND) ? UINT64_MAX : raft_quorum_round(r);
	size_t n = 0;

	while (n < r->n_reads && r->reads[n].round <= round) {
		n++;
	}
	return n;
}

void raft_answer_reads(struct raft *r)
{
	bool leads = r->role == RAFT_LEADER;
	size_t n = r->n_reads;

	if (n == 0 || (leads && r->commit < r->term_start)) {
		return;
	}
	if (leads) {
		n = count_confirmed(r);
	}
	if (n > 0) {
		answer_first(r, n, leads);
	}
}
