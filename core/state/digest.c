/*
 * digest.c - one number that tells equal states.
 *
 * Field by field and not from the bytes of a snapshot, so that what a snapshot
 * forgets shows. Lists are hashed in their order; only members, which have
 * none, are summed up.
 */
#include "core/state/internal.h"

/* Numbers one after the other; a text follows its length. */
static void add(XXH3_state_t *h, uint64_t v)
{
	(void)XXH3_64bits_update(h, &v, sizeof v); /* fails only without a state */
}

static void add_bytes(XXH3_state_t *h, const void *data, size_t len)
{
	add(h, len);
	if (len > 0) {
		(void)XXH3_64bits_update(h, data, len);
	}
}

static void add_task(XXH3_state_t *h, const struct core_task *t)
{
	add(h, t->pid);
	add(h, t->start);
	add_bytes(h, t->command, strnlen(t->command, sizeof t->command));
}

static void add_claims(XXH3_state_t *h, const struct claim *list, size_t n)
{
	const struct claim *c;

	add(h, n);
	DL_FOREACH (list, c) {
		add(h, c->session);
		add(h, c->owner);
		add(h, c->seq);
		add(h, c->token);
		add(h, c->since_unix_ms);
		add(h, c->uid);
		add(h, c->shared);
		add(h, c->record);
		add(h, claim_range(c).start);
		add(h, claim_range(c).end);
		add_task(h, &c->task);
		add_task(h, &c->opener);
	}
}

static void add_lock(XXH3_state_t *h, const struct lock *l)
{
	add(h, l->serial);
	add_bytes(h, l->name, l->name_len);
	add_bytes(h, l->value, l->value_len);
	add_claims(h, l->holders, l->n_holders);
	add_claims(h, l->waiters, l->n_waiters);
}

static void add_session(XXH3_state_t *h, const struct session *session)
{
	const struct claim *c;

	add(h, session->id);
	add(h, session->incarnation);
	add(h, session->node);
	add(h, session->nonce);
	add(h, session->last_seq);
	add(h, session->opened_unix_ms);
	add(h, session->ttl_ms);
	add(h, session->n_claims);
	DL_FOREACH2 (session->claims, c, session_next) {
		add(h, c->owner);
		add(h, claim_range(c).start);
	}
}

static uint64_t digest_members(const struct state *s)
{
	const struct member *m;
	uint64_t sum = 0;

	for (m = s->members; m != NULL; m = m->hh.next) {
		sum += XXH3_64bits_withSeed(m->uuid, sizeof m->uuid, m->node) + m->has_uuid;
	}
	return sum;
}

uint64_t state_digest(const struct state *s)
{
	XXH3_state_t h;
	const struct lock *l;
	const struct session *session;

	(void)XXH3_64bits_reset(&h);
	add(&h, s->index);
	add(&h, s->epoch);
	add(&h, s->member_max);
	add(&h, digest_members(s));
	add(&h, s->locks_created);
	add(&h, s->n_locks);
	DL_FOREACH (s->locks, l) {
		add_lock(&h, l);
	}
	DL_FOREACH (s->sessions, session) {
		add_session(&h, session);
	}
	return XXH3_64bits_digest(&h);
}
