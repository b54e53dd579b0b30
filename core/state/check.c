/*
 * check.c - what is always true of the state, asserted.
 */
#include "core/state/internal.h"

/* --- one lock ----------------------------------------------------------------------------- */

/* Pieces of one range have its token. */
static void check_order(const struct claim *c, const struct claim *next)
{
	if (next == NULL || c->token < next->token) {
		return;
	}
	ASSERT(c->token == next->token);
	ASSERT(c->record);
	ASSERT(next->record);
	ASSERT(c->session == next->session);
	ASSERT(c->owner == next->owner);
	ASSERT(c->range[0].end < next->range[0].start);
}

/* Against every later holder, once a range is among them. */
static void check_fits(const struct lock *l, const struct claim *c)
{
	struct lock_want want = want_of(c);
	const struct claim *other;

	if (l->n_records == 0) {
		ASSERT(c->shared == l->holders->shared);
		ASSERT(c->shared || c->next == NULL);
		return;
	}
	for (other = c->next; other != NULL; other = other->next) {
		ASSERT(!want_conflicts(&want, other));
		ASSERT(!want_joins(&want, other));
	}
}

static size_t check_holders(const struct lock *l)
{
	const struct claim *c;
	size_t n = 0;

	DL_FOREACH (l->holders, c) {
		ASSERT(c->lock == l);
		ASSERT(c->token != 0);
		check_order(c, c->next);
		check_fits(l, c);
		n++;
	}
	ASSERT(n >= 1);
	return n;
}

static size_t check_waiters(const struct lock *l)
{
	const struct claim *c;
	size_t n = 0;

	DL_FOREACH (l->waiters, c) {
		ASSERT(c->lock == l);
		ASSERT(c->token == 0);
		if (l->n_records > 0) {
			struct lock_want want = want_of(c);

			ASSERT(lock_blocks(l, &want, c));
		}
		n++;
	}
	ASSERT(n == 0 || l->n_records > 0 || !lock_admits(l, l->waiters->shared));
	return n;
}

static size_t count_records(const struct claim *list)
{
	const struct claim *c;
	size_t n = 0;

	DL_FOREACH (list, c) {
		ASSERT(!c->record || range_is_valid(c->range[0]));
		n += c->record;
	}
	return n;
}

void lock_check(const struct lock *l)
{
	ASSERT(l->name_len >= 1);
	ASSERT(l->serial != 0);
	ASSERT(check_holders(l) == l->n_holders);
	ASSERT(check_waiters(l) == l->n_waiters);
	ASSERT(count_records(l->holders) + count_records(l->waiters) == l->n_records);
	ASSERT((l->value == NULL) == (l->value_len == 0));
	ASSERT(l->value_len <= CORE_LOCK_VALUE_MAX);
	ASSERT(!l->to_pump);
}

/* --- everything --------------------------------------------------------------------------- */

static void check_claims_of(const struct state *s, const struct claim *list)
{
	const struct claim *c;

	DL_FOREACH (list, c) {
		ASSERT(c->record || claim_find(s, c->session, c->owner) == c);
		ASSERT(c->token >> LOCK_TOKEN_SHIFT <= s->index);
	}
}

static size_t check_locks(const struct state *s)
{
	const struct lock *l;
	size_t n_locks = 0;
	size_t n_claims = 0;
	size_t n_records = 0;

	DL_FOREACH (s->locks, l) {
		lock_check(l);
		check_claims_of(s, l->holders);
		check_claims_of(s, l->waiters);
		ASSERT(lock_find(s, l->name, l->name_len) == l);
		ASSERT(l->serial <= s->locks_created);
		ASSERT(l->next == NULL || l->serial < l->next->serial);
		n_claims += l->n_holders + l->n_waiters;
		n_records += l->n_records;
		n_locks++;
	}
	ASSERT(n_locks == s->n_locks);
	ASSERT(HASH_COUNT(s->locks_by_name) == n_locks);
	ASSERT(HASH_COUNT(s->claims) == n_claims - n_records);
	return n_claims;
}

/* A command got one claim, or pieces of what was one. */
static void check_seq(const struct claim *c, const struct claim *next)
{
	if (next != NULL && c->seq == next->seq) {
		ASSERT(c->record);
		ASSERT(claim_range(c).end < claim_range(next).start);
	} else {
		ASSERT(next == NULL || c->seq < next->seq);
	}
}

static void check_session(const struct state *s, const struct session *session)
{
	const struct member *m = member_find(s, session->node);
	const struct claim *c;
	size_t n = 0;

	ASSERT(m != NULL);
	ASSERT(m->session == session);
	ASSERT(session_find(s, session->id) == session);
	ASSERT(session->id >= 1);
	ASSERT(session->id <= session->incarnation);
	ASSERT(session->incarnation <= s->epoch);
	DL_FOREACH2 (session->claims, c, session_next) {
		ASSERT(c->of == session);
		ASSERT(c->session == session->id);
		ASSERT(c->owner != 0);
		ASSERT(c->seq >= 1);
		ASSERT(c->seq <= session->last_seq);
		check_seq(c, c->session_next);
		n++;
	}
	ASSERT(n == session->n_claims);
}

static void check_members(const struct state *s)
{
	const struct member *m;
	size_t n_sessions = 0;

	for (m = s->members; m != NULL; m = m->hh.next) {
		ASSERT(m->node >= 1);
		ASSERT(m->node <= s->member_max);
		n_sessions += m->session != NULL;
	}
	ASSERT(n_sessions == s->n_sessions);
}

void state_check(const struct state *s)
{
	const struct session *session;
	size_t n_claims = check_locks(s);
	size_t n_sessions = 0;

	ASSERT(s->epoch <= s->index);
	check_members(s);
	DL_FOREACH (s->sessions, session) {
		check_session(s, session);
		ASSERT(session->next == NULL || session->id < session->next->id);
		n_claims -= session->n_claims;
		n_sessions++;
	}
	ASSERT(n_claims == 0); /* each claim is one session's */
	ASSERT(n_sessions == s->n_sessions);
	ASSERT(HASH_COUNT(s->sessions_by_id) == n_sessions);
}
