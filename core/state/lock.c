/*
 * lock.c - what each command does to a lock: flock(2) over the whole cluster.
 *
 * All waiting is decided by two rules. A new request gets the lock at once only
 * if nobody waits for it (lock_acquire). Whenever a claim has gone, the waiters
 * are granted from the head for as long as the head fits the holders (lock_pump).
 */
#include "core/state/internal.h"

#include "core/state/plant.h"

bool lock_ref_is_valid(const struct lock_ref *ref)
{
	const char *name = ref->name;

	if (ref->owner == 0 || ref->name_len == 0 || ref->name_len > CORE_NAME_MAX) {
		return false;
	}
	if (memchr(name, '/', ref->name_len) != NULL || memchr(name, '\0', ref->name_len) != NULL) {
		return false;
	}
	return !(name[0] == '.' && (ref->name_len == 1 || (ref->name_len == 2 && name[1] == '.')));
}

static bool is_named(const struct lock *l, const struct lock_ref *ref)
{
	return l->name_len == ref->name_len && memcmp(l->name, ref->name, ref->name_len) == 0;
}

/* The claim that the command speaks of; NULL: there is none, or it is on another lock. */
static struct claim *claim_of(
	const struct state *s, const struct session *of, const struct lock_ref *ref)
{
	struct claim *c = claim_find(s, of->id, ref->owner);

	return c != NULL && is_named(c->lock, ref) ? c : NULL;
}

/* --- grants ------------------------------------------------------------------------------- */

static uint64_t next_token(struct state *s, const struct session *of)
{
	if (STATE_PLANTED(PLANT_STATE_TOKEN_REUSE)) {
		return of->incarnation << LOCK_TOKEN_SHIFT;
	}
	ASSERT(s->n_granted < 1u << LOCK_TOKEN_SHIFT);
	return (s->index << LOCK_TOKEN_SHIFT) + s->n_granted++;
}

static void grant_waiter(struct state *s, struct lock *l, struct claim *c)
{
	lock_touch(s, l);
	DL_DELETE(l->waiters, c);
	l->n_waiters--;
	c->since_unix_ms = s->unix_ms;
	claim_to_holders(c, next_token(s, c->of));
	if (s->hooks.granted != NULL) {
		s->hooks.granted(s->hooks.ctx, l, c);
	}
}

/* A claim of the lock has gone or has become weaker. Frees the lock when nobody is left. */
static void lock_pump(struct state *s, struct lock *l)
{
	if (l->holders == NULL) {
		lock_clear_value(l);
	}
	while (l->waiters != NULL && lock_admits(l, l->waiters->shared)) {
		grant_waiter(s, l, l->waiters);
	}
	if (l->holders == NULL) {
		lock_free(s, l);
	}
}

static void claim_end(struct state *s, struct claim *c)
{
	struct lock *l = c->lock;
	bool waited = c->token == 0;

	if (s->hooks.released != NULL) {
		s->hooks.released(s->hooks.ctx, l, c);
	}
	claim_free(s, c);
	if (waited && STATE_PLANTED(PLANT_STATE_NO_PUMP_ON_CANCEL)) {
		return;
	}
	lock_pump(s, l);
}

/* --- acquire ------------------------------------------------------------------------------ */

static void claim_describe(struct claim *c, const Wire__LockAcquire *cmd)
{
	c->shared = cmd->shared;
	c->uid = cmd->uid;
	core_task_from_wire(&c->task, cmd->task);
	core_task_from_wire(&c->opener, cmd->opener);
}

static void claim_told(const struct state *s, const struct claim *c)
{
	if (s->hooks.claimed != NULL) {
		s->hooks.claimed(s->hooks.ctx, c->lock, c);
	}
}

/* The holder has what it asks for, or can get it without waiting or letting go. */
static bool converts_in_place(const struct claim *c, bool shared)
{
	return c->shared == shared || shared || c->lock->n_holders == 1;
}

static uint64_t convert(
	struct state *s, struct claim *c, uint64_t seq, const Wire__LockAcquire *cmd)
{
	struct lock *l = c->lock;

	if (c->shared == cmd->shared) {
		/* Not even the sequence number: when this acquire is cancelled, the caller still
		 * has what it had before. */
		return c->token;
	}
	lock_touch(s, l);
	if (!cmd->shared) {
		c->token = next_token(s, c->of);
	}
	claim_describe(c, cmd);
	c->since_unix_ms = s->unix_ms;
	claim_renew(c, seq);
	claim_told(s, c);
	lock_pump(s, l);
	return c->token;
}

/* An owner without a claim asks. */
static enum status acquire_new(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token)
{
	struct lock *l = lock_find(s, cmd->name.data, cmd->name.len);
	bool waits = l != NULL && (l->waiters != NULL || !lock_admits(l, cmd->shared));
	struct claim *c;

	if (waits && !cmd->wait) {
		return ST_BUSY;
	}
	if (of->n_claims >= s->limits.session_claims_max ||
		(l == NULL && s->n_locks >= s->limits.locks_max) ||
		(waits && l->n_waiters >= s->limits.waiters_max)) {
		return ST_NO_SPACE;
	}
	if (l == NULL) {
		l = lock_new(s, cmd->name.data, cmd->name.len, ++s->locks_created);
	}
	c = claim_new(s, of, cmd->owner, seq, l);
	claim_describe(c, cmd);
	if (waits) {
		claim_to_waiters(c);
		claim_told(s, c);
		return ST_WAITING;
	}
	claim_to_holders(c, next_token(s, of));
	claim_told(s, c);
	*ret_token = c->token;
	return ST_OK;
}

enum status lock_acquire(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token)
{
	struct lock_ref ref = {cmd->name.data, cmd->name.len, cmd->owner};
	struct claim *c;

	if (!lock_ref_is_valid(&ref)) {
		return ST_DENIED;
	}
	c = claim_find(s, of->id, cmd->owner);
	if (c != NULL && !is_named(c->lock, &ref)) {
		return ST_DENIED; /* an open file description is of one file */
	}
	if (c != NULL && c->token != 0 && converts_in_place(c, cmd->shared)) {
		*ret_token = convert(s, c, seq, cmd);
		return ST_OK;
	}
	if (c != NULL) {
		/* A wait that nobody awaits any more, or a shared lock given up to ask for the
		 * exclusive one. Others hold the lock: it stays. */
		claim_end(s, c);
	}
	return acquire_new(s, of, seq, cmd, ret_token);
}

/* --- the other commands ------------------------------------------------------------------- */

enum status lock_cancel(
	struct state *s, struct session *of, const struct lock_ref *ref, uint64_t acquire_seq)
{
	struct claim *c;

	if (!lock_ref_is_valid(ref)) {
		return ST_DENIED;
	}
	c = claim_of(s, of, ref);
	if (c != NULL && c->seq == acquire_seq) {
		claim_end(s, c);
	}
	return ST_OK;
}

enum status lock_release(struct state *s, struct session *of, const struct lock_ref *ref)
{
	struct claim *c;

	if (!lock_ref_is_valid(ref)) {
		return ST_DENIED;
	}
	c = claim_of(s, of, ref);
	if (c != NULL) {
		claim_end(s, c);
	}
	return ST_OK;
}

enum status lock_set_value(struct state *s, struct session *of, const struct lock_ref *ref,
	const ProtobufCBinaryData *value)
{
	struct claim *c = lock_ref_is_valid(ref) ? claim_of(s, of, ref) : NULL;

	if (c == NULL || c->token == 0 || c->shared) {
		return ST_DENIED;
	}
	if (value->len > CORE_LOCK_VALUE_MAX) {
		return ST_TOO_BIG;
	}
	lock_touch(s, c->lock);
	lock_clear_value(c->lock);
	if (value->len > 0) {
		c->lock->value = xmemdup(value->data, value->len);
		c->lock->value_len = value->len;
	}
	return ST_OK;
}

/* --- the end of a session ----------------------------------------------------------------- */

/* The first claim of each lock keeps the pointer to it, to pump it once. */
static void drop_claim(struct state *s, struct claim *c)
{
	if (s->hooks.dropped != NULL) {
		s->hooks.dropped(s->hooks.ctx, c->lock, c);
	}
	claim_unlink(s, c);
	if (c->lock->to_pump) {
		c->lock = NULL;
	} else {
		c->lock->to_pump = true;
	}
}

void lock_drop_session(struct state *s, struct session *of)
{
	struct claim *c, *next;

	DL_FOREACH2 (of->claims, c, session_next) {
		drop_claim(s, c);
	}
	for (c = TAKE(of->claims); c != NULL; c = next) {
		next = c->session_next;
		if (c->lock != NULL) {
			c->lock->to_pump = false;
			s->n_granted = 0; /* counts the grants of one lock */
			lock_pump(s, c->lock);
		}
		free(c);
	}
	of->n_claims = 0;
}
