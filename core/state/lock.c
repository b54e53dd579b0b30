/*
 * lock.c - what each command does to a lock: flock(2) over the whole cluster.
 *
 * All waiting is decided by two rules. A new request gets the lock at once only
 * if nobody waits for it (lock_acquire). Whenever a claim has gone, the waiters
 * are granted from the head for as long as the head fits the holders (lock_pump).
 * That is what lock.h says of conflicts, where every claim is on the whole lock; with a record
 * claim among them (record.c) each is compared with the others.
 */
#include "core/state/internal.h"

#include "core/state/plant.h"

bool lock_ref_is_valid(const struct lock_ref *ref)
{
	const char *name = ref->name;

	if (ref->kind != WIRE__LOCK_KIND__FLOCK && ref->kind != WIRE__LOCK_KIND__RECORD) {
		return false;
	}
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

uint64_t lock_next_token(struct state *s, const struct session *of)
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
	if (c->record) {
		record_hold(s, c);
	} else {
		claim_to_holders(c, lock_next_token(s, c->of));
	}
	if (s->hooks.granted != NULL) {
		s->hooks.granted(s->hooks.ctx, l, c);
	}
}

/* From the head again after a grant that passed others: its owner holds something now, or holds
 * less, so one of them may go on. */
static void pump_records(struct state *s, struct lock *l)
{
	struct claim *c = l->waiters;

	while (c != NULL) {
		struct claim *next = c->next;
		struct lock_want want = want_of(c);

		if (!lock_blocks(l, &want, c)) {
			next = c == l->waiters ? next : l->waiters;
			grant_waiter(s, l, c);
		}
		c = next;
	}
}

void lock_pump(struct state *s, struct lock *l)
{
	if (l->holders == NULL) {
		lock_clear_value(l);
	}
	if (l->n_records > 0) {
		pump_records(s, l);
	}
	while (l->waiters != NULL && l->n_records == 0 && lock_admits(l, l->waiters->shared)) {
		grant_waiter(s, l, l->waiters);
	}
	if (l->holders == NULL) {
		lock_free(s, l);
	}
}

void claim_ends_told(const struct state *s, const struct claim *c)
{
	if (s->hooks.released != NULL) {
		s->hooks.released(s->hooks.ctx, c->lock, c);
	}
}

static void claim_end(struct state *s, struct claim *c)
{
	struct lock *l = c->lock;
	bool waited = c->token == 0;

	claim_ends_told(s, c);
	claim_free(s, c);
	if (waited && STATE_PLANTED(PLANT_STATE_NO_PUMP_ON_CANCEL)) {
		return;
	}
	lock_pump(s, l);
}

/* --- acquire ------------------------------------------------------------------------------ */

void claim_describe(struct claim *c, const Wire__LockAcquire *cmd)
{
	c->shared = cmd->shared;
	c->uid = cmd->uid;
	core_task_from_wire(&c->task, cmd->task);
	core_task_from_wire(&c->opener, cmd->opener);
}

void claim_told(const struct state *s, const struct claim *c)
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
		c->token = lock_next_token(s, c->of);
	}
	claim_describe(c, cmd);
	c->since_unix_ms = s->unix_ms;
	claim_renew(c, seq);
	claim_told(s, c);
	lock_pump(s, l);
	return c->token;
}

/* As lock.h says of waiting; with flock owners only, their order alone tells. */
static bool must_wait(const struct lock *l, const struct session *of, const Wire__LockAcquire *cmd)
{
	const struct lock_want want = {of->id, cmd->owner, false, cmd->shared, CORE_RANGE_WHOLE};

	if (l->n_records > 0) {
		return lock_blocks(l, &want, NULL);
	}
	return l->waiters != NULL || !lock_admits(l, cmd->shared);
}

/* An owner without a claim asks. */
static enum status acquire_new(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token)
{
	struct lock *l = lock_find(s, cmd->name.data, cmd->name.len);
	bool waits = l != NULL && must_wait(l, of, cmd);
	struct claim *c;

	if (waits && !cmd->wait) {
		return ST_BUSY;
	}
	if (of->n_claims >= s->limits.session_claims_max ||
		(l == NULL && s->n_locks >= s->limits.locks_max) ||
		(waits && l->n_waiters >= s->limits.waiters_max) ||
		(l != NULL && l->n_records > 0 &&
			l->n_holders + l->n_waiters >= s->limits.records_max)) {
		return ST_NO_SPACE;
	}
	if (l == NULL) {
		l = lock_new(s, cmd->name.data, cmd->name.len, ++s->locks_created);
	}
	c = claim_new(s, of, cmd->owner, seq, l, NULL);
	claim_describe(c, cmd);
	if (waits) {
		claim_to_waiters(c);
		claim_told(s, c);
		return ST_WAITING;
	}
	claim_to_holders(c, lock_next_token(s, of));
	claim_told(s, c);
	*ret_token = c->token;
	return ST_OK;
}

enum status lock_acquire(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token)
{
	struct lock_ref ref = {.name = cmd->name.data,
		.name_len = cmd->name.len,
		.owner = cmd->owner,
		.kind = cmd->kind};
	struct claim *c;

	if (!lock_ref_is_valid(&ref)) {
		return ST_DENIED;
	}
	if (cmd->kind == WIRE__LOCK_KIND__RECORD) {
		return record_acquire(s, of, seq, cmd, ret_token);
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
	if (ref->kind == WIRE__LOCK_KIND__RECORD) {
		return record_cancel(s, of, ref, acquire_seq);
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
	if (ref->kind == WIRE__LOCK_KIND__RECORD) {
		return record_release(s, of, ref);
	}
	c = claim_of(s, of, ref);
	if (c != NULL) {
		claim_end(s, c);
	}
	return ST_OK;
}

/* Does it hold the whole lock exclusively? */
static bool holds_all(const struct state *s, const struct lock *l, const struct session *of,
	const struct lock_ref *ref)
{
	const struct claim *c;

	if (ref->kind == WIRE__LOCK_KIND__RECORD) {
		return state_record_held(l, of->id, ref->owner, CORE_RANGE_WHOLE, false) != NULL;
	}
	c = claim_of(s, of, ref);
	return c != NULL && c->token != 0 && !c->shared;
}

enum status lock_set_value(struct state *s, struct session *of, const struct lock_ref *ref,
	const ProtobufCBinaryData *value)
{
	struct lock *l = lock_ref_is_valid(ref) ? lock_find(s, ref->name, ref->name_len) : NULL;

	if (l == NULL || !holds_all(s, l, of, ref)) {
		return ST_DENIED;
	}
	if (value->len > CORE_LOCK_VALUE_MAX) {
		return ST_TOO_BIG;
	}
	lock_touch(s, l);
	lock_clear_value(l);
	if (value->len > 0) {
		l->value = xmemdup(value->data, value->len);
		l->value_len = value->len;
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
