/*
 * peer.c - the table of the other servers, and what a majority of them has reached.
 *
 * One row for each server of the configuration in force except this one, and
 * on a leader for each server that was removed and does not know it yet.
 */
#include "core/raft/raft_internal.h"

struct peer *raft_peer_find(const struct raft *r, uint64_t id)
{
	for (size_t i = 0; i < r->n_peers; i++) {
		if (r->peers[i].id == id) {
			return &r->peers[i];
		}
	}
	return NULL;
}

bool raft_peer_is_alive(const struct raft *r, const struct peer *p)
{
	return r->now_ms - MAX(p->heard_ms, r->elected_ms) < r->o.election_timeout_ms;
}

void raft_peer_probe(struct raft *r, struct peer *p, uint64_t next)
{
	p->state = PEER_PROBE;
	p->next = MAX(next, p->match + 1);
	p->probing = false;
	p->n_inflight = 0;
	p->chunk = CHUNK_IDLE;
	p->snap_index = 0;
}

/* --- rows -------------------------------------------------------------------------------- */

static void peer_start(struct raft *r, struct peer *p)
{
	p->vote = VOTE_OPEN;
	p->match = 0;
	p->commit_sent = 0;
	p->round_sent = 0;
	p->round_acked = 0;
	p->heard_ms = 0;
	raft_peer_probe(r, p, rlog_last(&r->log) + 1);
}

static struct peer *peer_add(struct raft *r, uint64_t id)
{
	struct peer *p;

	r->peers = xrealloc(r->peers, (r->n_peers + 1) * sizeof *p);
	p = &r->peers[r->n_peers++];
	*p = (struct peer){.id = id};
	p->inflight = xcalloc(r->o.inflight_max, sizeof p->inflight[0]);
	peer_start(r, p);
	return p;
}

static void peer_drop(struct raft *r, struct peer *p)
{
	free(p->inflight);
	*p = r->peers[--r->n_peers];
}

/* Not in the configuration any more. */
static void peer_leave(struct raft *r, struct peer *p)
{
	p->voter = false;
	if (r->role == RAFT_LEADER && !p->leaving) {
		p->leaving = true;
		p->leave_index = raft_config_index(r);
		p->leave_ms = 0;
	}
}

static void drop_leaving(struct raft *r)
{
	for (size_t i = r->n_peers; i-- > 0;) {
		if (raft_config_find(raft_config(r), r->peers[i].id) == NULL) {
			peer_drop(r, &r->peers[i]);
		}
	}
}

void raft_peers_sync(struct raft *r)
{
	const struct raft_config *c = raft_config(r);
	const struct raft_server *self = raft_config_find(c, r->o.id);

	r->self_voter = self != NULL && self->voter;
	for (size_t i = 0; i < c->n; i++) {
		struct peer *p = raft_peer_find(r, c->servers[i].id);

		if (c->servers[i].id == r->o.id) {
			continue;
		}
		if (p == NULL) {
			p = peer_add(r, c->servers[i].id);
		}
		p->voter = c->servers[i].voter;
		p->leaving = false;
	}
	for (size_t i = 0; i < r->n_peers; i++) {
		if (raft_config_find(c, r->peers[i].id) == NULL) {
			peer_leave(r, &r->peers[i]);
		}
	}
	if (r->role != RAFT_LEADER) {
		drop_leaving(r);
	}
}

void raft_peers_start(struct raft *r)
{
	for (size_t i = 0; i < r->n_peers; i++) {
		peer_start(r, &r->peers[i]);
	}
}

void raft_peers_stop(struct raft *r)
{
	drop_leaving(r);
}

void raft_peers_fini(struct raft *r)
{
	while (r->n_peers > 0) {
		peer_drop(r, &r->peers[r->n_peers - 1]);
	}
	free(r->peers);
	r->peers = NULL;
}

void raft_peers_see_off(struct raft *r)
{
	for (size_t i = r->n_peers; i-- > 0;) {
		struct peer *p = &r->peers[i];

		if (!p->leaving || r->commit < p->leave_index) {
			continue;
		}
		if (p->leave_ms == 0) {
			p->leave_ms = MAX(r->now_ms, (uint64_t)1);
		}
		if ((p->match >= p->leave_index && p->commit_sent >= p->leave_index) ||
			r->now_ms - p->leave_ms >= r->o.election_timeout_ms) {
			peer_drop(r, p);
		}
	}
}

/* --- majorities -------------------------------------------------------------------------- */

/* Votes for few: a sorted array is the fastest set. */
struct tally {
	uint64_t value[RAFT_VOTERS_MAX]; /* descending */
	size_t n;
};

static void tally_add(struct tally *t, uint64_t value)
{
	size_t i = t->n++;

	ASSERT(i < RAFT_VOTERS_MAX);
	for (; i > 0 && t->value[i - 1] < value; i--) {
		t->value[i] = t->value[i - 1];
	}
	t->value[i] = value;
}

static uint64_t tally_majority(const struct tally *t)
{
	return t->n == 0 ? 0 : t->value[t->n / 2];
}

size_t raft_majority(const struct raft *r)
{
	size_t voters = r->self_voter;

	for (size_t i = 0; i < r->n_peers; i++) {
		voters += r->peers[i].voter;
	}
	return voters / 2 + 1;
}

uint64_t raft_quorum_match(const struct raft *r)
{
	bool unsynced = PLANTED(PLANT_LEADER_COUNTS_UNSYNCED);
	struct tally t = {.n = 0};

	if (r->self_voter) {
		tally_add(&t, unsynced ? rlog_last(&r->log) : r->durable);
	}
	for (size_t i = 0; i < r->n_peers; i++) {
		if (r->peers[i].voter) {
			tally_add(&t, r->peers[i].match);
		}
	}
	return tally_majority(&t);
}

uint64_t raft_quorum_round(const struct raft *r)
{
	struct tally t = {.n = 0};

	if (r->self_voter) {
		tally_add(&t, r->round);
	}
	for (size_t i = 0; i < r->n_peers; i++) {
		if (r->peers[i].voter) {
			tally_add(&t, r->peers[i].round_acked);
		}
	}
	return tally_majority(&t);
}
