/*
 * election.c - terms, roles and votes.
 *
 *                 timeout              majority would vote       majority voted
 *      FOLLOWER ----------> PRECANDIDATE ----------> CANDIDATE ----------> LEADER
 *         ^                     |  ^    (no term yet)  |  |                   |
 *         |                     |  +------timeout------+  |                   |
 *         +----- a leader, a later term, a majority refuses, no quorum heard -+
 *
 * A candidate asks for votes only when its term and its own vote are durable;
 * TIMEOUT_NOW leads from FOLLOWER straight to CANDIDATE (thesis 3.10).
 */
#include "core/raft/raft_internal.h"

static const char *role_name(enum raft_role role)
{
	switch (role) {
	case RAFT_FOLLOWER:
		return "follower";
	case RAFT_PRECANDIDATE:
		return "precandidate";
	case RAFT_CANDIDATE:
		return "candidate";
	case RAFT_LEADER:
		return "leader";
	}
	UNREACHABLE();
}

static void raft_move(struct raft *r, enum raft_role role, uint64_t leader)
{
	if (r->role == role && r->leader == leader) {
		return;
	}
	r->role = role;
	r->leader = leader;
	r->role_changed = true;
	TRACE(&r->o.trace, TRACE_DEBUG, "raft.role",
		"id=%" PRIu64 " role=%s term=%" PRIu64 " leader=%" PRIu64, r->o.id, role_name(role),
		r->term, leader);
}

static void set_term(struct raft *r, uint64_t term, uint64_t vote)
{
	ASSERT(term > r->term);
	r->term = term;
	r->vote = vote;
	r->vote_changed = true;
	r->role_changed = true;
	raft_follower_reset(r);
}

void raft_reset_election_timer(struct raft *r)
{
	uint64_t t = r->o.election_timeout_ms;

	/* A server whose disk is full stands only when no other does. */
	r->deadline_ms = r->now_ms + t + raft_random(r) % t + (r->readonly ? 2 * t : 0);
}

/* Also a voter whose removal is not committed yet: it may be the only one whose log is long
 * enough to win, and then it is needed to commit its own removal (thesis 4.2.2). */
static bool is_electable(const struct raft *r)
{
	const struct raft_server *s = raft_config_find(raft_config_at(r, r->commit), r->o.id);

	return r->self_voter || (s != NULL && s->voter);
}

bool raft_may_stand(const struct raft *r)
{
	return is_electable(r) && !r->incoming.installing && r->durable == rlog_last(&r->log) &&
	       r->durable_term == r->term;
}

bool raft_vote_is_durable(const struct raft *r, uint64_t to)
{
	return r->durable_term == r->term &&
	       (r->durable_vote == to || PLANTED(PLANT_VOTE_NOT_PERSISTED));
}

bool raft_leader_is_alive(const struct raft *r)
{
	return r->role == RAFT_LEADER ||
	       (r->leader != 0 && r->now_ms - r->contact_ms < r->o.election_timeout_ms);
}

void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader)
{
	enum raft_role was = r->role;

	if (term > r->term) {
		set_term(r, term, 0);
	}
	raft_move(r, RAFT_FOLLOWER, leader);
	if (was == RAFT_LEADER) {
		TRACE(&r->o.trace, TRACE_INFO, "raft.stepdown", "id=%" PRIu64 " term=%" PRIu64,
			r->o.id, r->term);
		r->transfer_to = 0;
		raft_peers_stop(r);
		raft_reset_election_timer(r);
	}
}

bool raft_follow(struct raft *r, uint64_t leader)
{
	if (r->role == RAFT_LEADER || (r->leader != 0 && r->leader != leader)) {
		TRACE(&r->o.trace, TRACE_ERROR, "raft.two_leaders",
			"id=%" PRIu64 " term=%" PRIu64 " known=%" PRIu64 " other=%" PRIu64, r->o.id,
			r->term, r->leader, leader);
		return false;
	}
	raft_become_follower(r, r->term, leader);
	r->contact_ms = r->now_ms;
	raft_reset_election_timer(r);
	return true;
}

/* --- standing ---------------------------------------------------------------------------- */

static void forget_votes(struct raft *r)
{
	for (size_t i = 0; i < r->n_peers; i++) {
		r->peers[i].vote = VOTE_OPEN;
	}
}

static size_t count_votes(const struct raft *r, enum peer_vote vote)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_peers; i++) {
		n += r->peers[i].voter && r->peers[i].vote == vote;
	}
	return n;
}

static void ask_for_votes(struct raft *r, enum raft_msg_kind kind, uint64_t term)
{
	for (size_t i = 0; i < r->n_peers; i++) {
		if (!r->peers[i].voter) {
			continue;
		}
		raft_post(r, &(struct raft_msg){.kind = kind,
				     .to = r->peers[i].id,
				     .term = term,
				     .index = rlog_last(&r->log),
				     .log_term = rlog_last_term(&r->log),
				     .transfer = r->told_to});
	}
}

static void become_leader(struct raft *r)
{
	size_t tail = 0;

	for (uint64_t i = r->commit + 1; i <= rlog_last(&r->log); i++) {
		tail += rlog_entry_bytes(*rlog_at(&r->log, i));
	}
	raft_move(r, RAFT_LEADER, r->o.id);
	r->uncommitted_bytes = tail;
	r->elected_ms = r->now_ms;
	r->last_tick_ms = r->now_ms;
	r->heartbeat_ms = r->now_ms;
	r->round = 0;
	r->round_wanted = true;
	r->transfer_to = 0;
	raft_incoming_fini(r);
	raft_peers_start(r);
	r->term_start = rlog_last(&r->log) + 1;
	raft_append_entry(r, raft_entry_new(r->term_start, r->term, RAFT_NOOP, NULL, 0));
	TRACE(&r->o.trace, TRACE_INFO, "raft.elected",
		"id=%" PRIu64 " term=%" PRIu64 " index=%" PRIu64, r->o.id, r->term, r->term_start);
}

/* Only once the own vote counts: always for a prevote, when durable for a vote. */
static void tally(struct raft *r)
{
	if (count_votes(r, VOTE_YES) + r->self_voter >= raft_majority(r)) {
		if (r->role == RAFT_PRECANDIDATE) {
			raft_campaign(r, false);
		} else {
			become_leader(r);
		}
	} else if (count_votes(r, VOTE_NO) >= raft_majority(r)) {
		raft_become_follower(r, r->term, 0);
	}
}

void raft_campaign(struct raft *r, bool told_to)
{
	set_term(r, r->term + 1, r->o.id);
	r->told_to = told_to;
	r->stood = false;
	raft_move(r, RAFT_CANDIDATE, 0);
	forget_votes(r);
	raft_reset_election_timer(r);
	TRACE(&r->o.trace, TRACE_INFO, "raft.campaign",
		"id=%" PRIu64 " term=%" PRIu64 " last=%" PRIu64 " told=%d", r->o.id, r->term,
		rlog_last(&r->log), told_to);
}

static void ask_first(struct raft *r)
{
	raft_move(r, RAFT_PRECANDIDATE, 0);
	r->told_to = false;
	forget_votes(r);
	raft_reset_election_timer(r);
	ask_for_votes(r, RAFT_PREVOTE_REQ, r->term + 1);
	TRACE(&r->o.trace, TRACE_DEBUG, "raft.prevote", "id=%" PRIu64 " term=%" PRIu64, r->o.id,
		r->term + 1);
	tally(r);
}

void raft_election_tick(struct raft *r)
{
	if (r->now_ms < r->deadline_ms) {
		return;
	}
	if (raft_may_stand(r)) {
		ask_first(r);
	} else if (!is_electable(r)) {
		raft_move(r, RAFT_FOLLOWER, 0);
		raft_reset_election_timer(r);
	} /* else with a later tick, when the disk has caught up */
}

void raft_check_quorum(struct raft *r)
{
	size_t heard = r->self_voter;

	for (size_t i = 0; i < r->n_peers; i++) {
		heard += r->peers[i].voter && raft_peer_is_alive(r, &r->peers[i]);
	}
	if (heard < raft_majority(r)) {
		TRACE(&r->o.trace, TRACE_WARN, "raft.quorum_lost",
			"id=%" PRIu64 " term=%" PRIu64 " heard=%zu", r->o.id, r->term, heard);
		raft_become_follower(r, r->term, 0);
	}
}

/* Of rule 3: what may be said now that this much is durable. */
void raft_vote_durable(struct raft *r, uint64_t term, uint64_t vote)
{
	if (term < r->durable_term || term > r->term) {
		return;
	}
	r->durable_term = term;
	r->durable_vote = vote;
	if (r->role == RAFT_CANDIDATE && !r->stood && term == r->term && vote == r->o.id) {
		r->stood = true;
		ask_for_votes(r, RAFT_VOTE_REQ, r->term);
		tally(r);
	}
}

/* --- voting ------------------------------------------------------------------------------ */

static bool is_up_to_date(const struct raft *r, const struct raft_msg *m)
{
	uint64_t term = rlog_last_term(&r->log);

	return m->log_term > term || (m->log_term == term && m->index >= rlog_last(&r->log));
}

void raft_on_prevote_req(struct raft *r, const struct raft_msg *m)
{
	bool ok = m->term > r->term && is_up_to_date(r, m) && !raft_leader_is_alive(r);

	raft_post(r, &(struct raft_msg){.kind = RAFT_PREVOTE_RESP,
			     .to = m->from,
			     .term = ok ? m->term : r->term,
			     .ok = ok});
}

static void record_vote(struct raft *r, const struct raft_msg *m)
{
	struct peer *p = raft_peer_find(r, m->from);

	if (p != NULL) {
		p->vote = m->ok ? VOTE_YES : VOTE_NO;
		tally(r);
	}
}

void raft_on_prevote_resp(struct raft *r, const struct raft_msg *m)
{
	/* A yes is for one term; a no of this term or an earlier one is a no to any. */
	if (r->role == RAFT_PRECANDIDATE && (!m->ok || m->term == r->term + 1)) {
		record_vote(r, m);
	}
}

void raft_on_vote_req(struct raft *r, const struct raft_msg *m)
{
	bool is_free = (r->vote == 0 && r->leader == 0) || r->vote == m->from ||
		       PLANTED(PLANT_DOUBLE_VOTE);
	bool ok = m->term == r->term && is_free && is_up_to_date(r, m);

	if (ok && r->vote != m->from) {
		raft_become_follower(r, r->term, 0);
		r->vote = m->from;
		r->vote_changed = true;
	}
	if (ok) {
		raft_reset_election_timer(r);
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.vote",
			"id=%" PRIu64 " term=%" PRIu64 " to=%" PRIu64, r->o.id, r->term, m->from);
	}
	raft_post(r, &(struct raft_msg){
			     .kind = RAFT_VOTE_RESP, .to = m->from, .term = r->term, .ok = ok});
}

void raft_on_vote_resp(struct raft *r, const struct raft_msg *m)
{
	if (r->role == RAFT_CANDIDATE && r->stood) {
		record_vote(r, m);
	}
}
