/*
 * table.c - locks and claims, and the lists and hashes that they are on.
 *
 * Everything that enters or leaves a list does it here, with the counters, the
 * snapshot in progress and the listings told.
 */
#include "core/state/internal.h"

/* struct claim begins with its key. */
struct claim_key {
	uint64_t session;
	uint64_t owner;
};
_Static_assert(offsetof(struct claim, session) == offsetof(struct claim_key, session) &&
		       offsetof(struct claim, owner) == offsetof(struct claim_key, owner),
	"a claim begins with its key");

struct lock *lock_find(const struct state *s, const void *name, size_t name_len)
{
	struct lock *l;

	HASH_FIND(hh, s->locks_by_name, name, (unsigned)name_len, l);
	return l;
}

struct lock *lock_new(struct state *s, const void *name, size_t name_len, uint64_t serial)
{
	/* Not sizeof: the name begins in the padding. */
	struct lock *l = xmalloc(MAX(sizeof *l, offsetof(struct lock, name) + name_len + 1));

	*l = (struct lock){
		.serial = serial,
		.snap_mark = s->snap_mark, /* a snapshot in progress is of before */
		.name_len = (uint8_t)name_len,
	};
	memcpy(l->name, name, name_len);
	l->name[name_len] = '\0';
	DL_APPEND(s->locks, l);
	HASH_ADD_KEYPTR(hh, s->locks_by_name, l->name, (unsigned)name_len, l);
	s->n_locks++;
	return l;
}

void lock_free(struct state *s, struct lock *l)
{
	ASSERT(l->holders == NULL);
	ASSERT(l->waiters == NULL);
	listing_forget(s, l);
	if (s->snap != NULL) {
		snapshot_forget(s->snap, l);
	}
	HASH_DELETE(hh, s->locks_by_name, l);
	DL_DELETE(s->locks, l);
	s->n_locks--;
	free(l->value);
	free(l);
}

void lock_clear_value(struct lock *l)
{
	free(TAKE(l->value));
	l->value_len = 0;
}

struct claim *claim_find(const struct state *s, uint64_t session, uint64_t owner)
{
	struct claim_key key = {.session = session, .owner = owner};
	struct claim *c;

	HASH_FIND(hh, s->claims, &key, sizeof key, c);
	return c;
}

struct claim *claim_new(struct state *s, struct session *of, uint64_t owner, uint64_t seq,
	struct lock *l, const struct core_range *range)
{
	struct claim *c = xmalloc(sizeof *c + (range != NULL ? sizeof *range : 0));

	lock_touch(s, l);
	*c = (struct claim){
		.session = of->id,
		.owner = owner,
		.seq = seq,
		.since_unix_ms = s->unix_ms,
		.record = range != NULL,
		.lock = l,
		.of = of,
	};
	if (range != NULL) {
		c->range[0] = *range;
		l->n_records++;
	} else {
		HASH_ADD_KEYPTR(hh, s->claims, &c->session, sizeof(struct claim_key), c);
	}
	DL_APPEND2(of->claims, c, session_prev, session_next);
	of->n_claims++;
	return c;
}

void claim_split(struct state *s, struct claim *c, struct core_range range)
{
	struct claim *later = xmemdup(c, sizeof *c + sizeof range);

	lock_touch(s, c->lock);
	later->range[0] = range;
	DL_APPEND_ELEM(c->lock->holders, c, later);
	DL_APPEND_ELEM2(c->of->claims, c, later, session_prev, session_next);
	c->lock->n_holders++;
	c->lock->n_records++;
	c->of->n_claims++;
}

void claim_unlink(struct state *s, struct claim *c)
{
	struct lock *l = c->lock;

	lock_touch(s, l);
	if (c->record) {
		l->n_records--;
	} else {
		HASH_DELETE(hh, s->claims, c);
	}
	if (c->token != 0) {
		DL_DELETE(l->holders, c);
		l->n_holders--;
	} else {
		DL_DELETE(l->waiters, c);
		l->n_waiters--;
	}
}

void claim_free(struct state *s, struct claim *c)
{
	claim_unlink(s, c);
	DL_DELETE2(c->of->claims, c, session_prev, session_next);
	c->of->n_claims--;
	free(c);
}

void claim_to_waiters(struct claim *c)
{
	ASSERT(c->token == 0);
	DL_APPEND(c->lock->waiters, c);
	c->lock->n_waiters++;
}

void claim_to_holders(struct claim *c, uint64_t token)
{
	ASSERT(c->token == 0);
	ASSERT(token != 0);
	c->token = token;
	DL_APPEND(c->lock->holders, c);
	c->lock->n_holders++;
}

void claim_renew(struct claim *c, uint64_t seq)
{
	c->seq = seq;
	DL_DELETE2(c->of->claims, c, session_prev, session_next);
	DL_APPEND2(c->of->claims, c, session_prev, session_next);
}
