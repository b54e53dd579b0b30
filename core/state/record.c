/*
 * record.c - byte ranges: fcntl(2) over the whole cluster.
 *
 * What an owner holds is a set of claims that neither overlap nor touch in one mode, so
 * a range that it holds in one mode is covered by one claim. Every change is
 * made in two steps: what the owner has in the range is carved out, then the
 * new claim, if there is one, joins its neighbours.
 */
#include "core/state/internal.h"

/* --- comparing ---------------------------------------------------------------------------- */

struct lock_want want_of(const struct claim *c)
{
	return (struct lock_want){
		.session = c->session,
		.owner = c->owner,
		.record = c->record,
		.shared = c->shared,
		.range = claim_range(c),
	};
}

static bool is_own(const struct lock_want *want, const struct claim *c)
{
	return want->session == c->session && want->owner == c->owner && want->record == c->record;
}

bool want_conflicts(const struct lock_want *want, const struct claim *c)
{
	return !(want->shared && c->shared) && range_overlaps(want->range, claim_range(c)) &&
	       !is_own(want, c);
}

/* `end` of CORE_RANGE_MAX is no overflow. */
static bool touches(struct core_range a, struct core_range b)
{
	return a.end + 1 == b.start || b.end + 1 == a.start;
}

bool want_joins(const struct lock_want *want, const struct claim *c)
{
	struct core_range range = claim_range(c);

	return is_own(want, c) &&
	       (range_overlaps(want->range, range) ||
		       (want->shared == c->shared && touches(want->range, range)));
}

static const struct claim *first_conflict(const struct lock *l, const struct lock_want *want)
{
	const struct claim *c;

	DL_FOREACH (l->holders, c) {
		if (want_conflicts(want, c)) {
			return c;
		}
	}
	return NULL;
}

static bool holds_some(const struct lock *l, const struct lock_want *want)
{
	const struct claim *c;

	DL_FOREACH (l->holders, c) {
		if (is_own(want, c)) {
			return true;
		}
	}
	return false;
}

bool lock_blocks(const struct lock *l, const struct lock_want *want, const struct claim *end)
{
	if (first_conflict(l, want) != NULL) {
		return true;
	}
	if (holds_some(l, want)) {
		return false;
	}
	for (const struct claim *c = l->waiters; c != end; c = c->next) {
		if (want_conflicts(want, c)) {
			return true;
		}
	}
	return false;
}

bool lock_is_shared(const struct lock *l)
{
	const struct claim *c;

	if (l->n_records == 0) {
		return l->holders != NULL && l->holders->shared;
	}
	DL_FOREACH (l->holders, c) {
		if (!c->shared) {
			return false;
		}
	}
	return l->holders != NULL;
}

/* --- reads -------------------------------------------------------------------------------- */

const struct claim *state_record_wait(
	const struct lock *l, uint64_t session, uint64_t owner, uint64_t seq)
{
	const struct lock_want want = {.session = session, .owner = owner, .record = true};
	const struct claim *c;

	DL_FOREACH (l->waiters, c) {
		if (c->seq == seq && is_own(&want, c)) {
			return c;
		}
	}
	return NULL;
}

const struct claim *state_record_held(const struct lock *l, uint64_t session, uint64_t owner,
	struct core_range range, bool shared)
{
	const struct lock_want want = {session, owner, true, shared, range};
	const struct claim *c;

	DL_FOREACH (l->holders, c) {
		if (is_own(&want, c) && c->shared == shared &&
			range_covers(claim_range(c), range)) {
			return c;
		}
	}
	return NULL;
}

const struct claim *state_record_conflict(const struct lock *l, uint64_t session, uint64_t owner,
	struct core_range range, bool shared)
{
	const struct lock_want want = {session, owner, true, shared, range};

	return first_conflict(l, &want);
}

/* --- changes ------------------------------------------------------------------------------ */

/* Takes `range` out of a claim that overlaps it. */
static void carve_claim(struct state *s, struct claim *c, struct core_range range)
{
	struct core_range had = c->range[0];

	if (range_covers(range, had)) {
		claim_free(s, c);
		return;
	}
	lock_touch(s, c->lock);
	if (had.start < range.start) {
		c->range[0].end = range.start - 1;
		if (had.end > range.end) {
			claim_split(s, c, (struct core_range){range.end + 1, had.end});
		}
	} else {
		c->range[0].start = range.end + 1;
	}
}

/* Takes the range of `want` out of what its owner holds. False: nothing was there. */
static bool carve(struct state *s, struct lock *l, const struct lock_want *want)
{
	struct claim *c, *next;
	bool any = false;

	DL_FOREACH_SAFE (l->holders, c, next) {
		if (is_own(want, c) && range_overlaps(c->range[0], want->range)) {
			carve_claim(s, c, want->range);
			any = true;
		}
	}
	return any;
}

/* The holders that it joins become part of `c`. */
static void join(struct state *s, struct lock *l, struct claim *c)
{
	const struct lock_want want = want_of(c);
	struct claim *h, *next;

	DL_FOREACH_SAFE (l->holders, h, next) {
		if (want_joins(&want, h)) {
			c->range[0].start = MIN(c->range[0].start, h->range[0].start);
			c->range[0].end = MAX(c->range[0].end, h->range[0].end);
			claim_free(s, h);
		}
	}
}

void record_hold(struct state *s, struct claim *c)
{
	const struct lock_want want = want_of(c);
	struct lock *l = c->lock;

	(void)carve(s, l, &want); /* most requests find nothing */
	join(s, l, c);
	claim_to_holders(c, lock_next_token(s, c->of));
}

/* --- commands ----------------------------------------------------------------------------- */

/* A grant may leave two pieces of a range around the one that it is for. */
static bool has_room(
	const struct state *s, const struct session *of, const struct lock *l, bool waits)
{
	if (of->n_claims + 2 > s->limits.session_claims_max) {
		return false;
	}
	if (l == NULL) {
		return s->n_locks < s->limits.locks_max;
	}
	return l->n_holders + l->n_waiters < s->limits.records_max &&
	       !(waits && l->n_waiters >= s->limits.waiters_max);
}

static enum status acquire_range(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, const struct lock_want *want, uint64_t *ret_token)
{
	struct lock *l = lock_find(s, cmd->name.data, cmd->name.len);
	bool waits = l != NULL && lock_blocks(l, want, NULL);
	struct claim *c;

	if (waits && !cmd->wait) {
		return ST_BUSY;
	}
	if (!has_room(s, of, l, waits)) {
		return ST_NO_SPACE;
	}
	if (l == NULL) {
		l = lock_new(s, cmd->name.data, cmd->name.len, ++s->locks_created);
	}
	c = claim_new(s, of, cmd->owner, seq, l, &want->range);
	claim_describe(c, cmd);
	if (waits) {
		claim_to_waiters(c);
		claim_told(s, c);
		return ST_WAITING;
	}
	record_hold(s, c);
	claim_told(s, c);
	*ret_token = c->token;
	if (l->waiters != NULL) {
		lock_pump(s, l); /* it may hold less than before, and passes waiters from now on */
	}
	return ST_OK;
}

enum status record_acquire(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token)
{
	const struct lock_want want = {
		.session = of->id,
		.owner = cmd->owner,
		.record = true,
		.shared = cmd->shared,
		.range = {cmd->start, cmd->end},
	};
	const struct lock *l = lock_find(s, cmd->name.data, cmd->name.len);
	const struct claim *held;

	if (!range_is_valid(want.range)) {
		return ST_DENIED;
	}
	if (cmd->test) {
		return l != NULL && first_conflict(l, &want) != NULL ? ST_BUSY : ST_OK;
	}
	held = l == NULL ? NULL : state_record_held(l, of->id, cmd->owner, want.range, cmd->shared);
	if (held != NULL) {
		*ret_token = held->token;
		return ST_OK;
	}
	return acquire_range(s, of, seq, cmd, &want, ret_token);
}

enum status record_cancel(
	struct state *s, struct session *of, const struct lock_ref *ref, uint64_t acquire_seq)
{
	struct lock *l = lock_find(s, ref->name, ref->name_len);
	const struct lock_want want = {.session = of->id, .owner = ref->owner, .record = true};
	struct claim *c;

	if (l == NULL) {
		return ST_OK;
	}
	DL_FOREACH (l->waiters, c) {
		if (c->seq == acquire_seq && is_own(&want, c)) {
			claim_ends_told(s, c);
			claim_free(s, c);
			lock_pump(s, l);
			return ST_CANCELLED;
		}
	}
	return ST_OK;
}

/* Would the session have too many claims with the middle of one taken out? */
static bool splits_too_much(const struct state *s, const struct session *of, const struct lock *l,
	const struct lock_want *want)
{
	const struct claim *c;

	if (of->n_claims < s->limits.session_claims_max) {
		return false;
	}
	DL_FOREACH (l->holders, c) {
		if (is_own(want, c) && c->range[0].start < want->range.start &&
			c->range[0].end > want->range.end) {
			return true;
		}
	}
	return false;
}

/* Of claims that go altogether: what is left of the others is held as before. */
static void tell_ends(const struct state *s, const struct lock *l, const struct lock_want *want)
{
	const struct claim *c;

	DL_FOREACH (l->holders, c) {
		if (is_own(want, c) && range_covers(want->range, c->range[0])) {
			claim_ends_told(s, c);
		}
	}
}

enum status record_release(struct state *s, struct session *of, const struct lock_ref *ref)
{
	const struct lock_want want = {
		.session = of->id, .owner = ref->owner, .record = true, .range = ref->range};
	struct lock *l = lock_find(s, ref->name, ref->name_len);

	if (!range_is_valid(ref->range)) {
		return ST_DENIED;
	}
	if (l == NULL) {
		return ST_OK;
	}
	if (splits_too_much(s, of, l, &want)) {
		return ST_NO_SPACE;
	}
	tell_ends(s, l, &want);
	if (carve(s, l, &want)) {
		lock_pump(s, l);
	}
	return ST_OK;
}
