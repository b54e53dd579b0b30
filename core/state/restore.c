/*
 * restore.c - the state from the bytes of a snapshot.
 *
 * The bytes come from a disk or a peer: every record is checked against what
 * came before it, so that what is taken in keeps every invariant that
 * state_check() asserts, or is refused. Sequence: header, members, sessions,
 * locks, end.
 */
#include "core/state/internal.h"

#include <errno.h>

#include "core/state/scratch.h"

enum restore_step {
	RESTORE_HEADER,   /* nothing came yet */
	RESTORE_MEMBERS,  /* the header came */
	RESTORE_SESSIONS, /* a session came: no members any more */
	RESTORE_LOCKS,    /* a lock came: no sessions any more */
	RESTORE_DONE,     /* the end came: nothing any more */
	RESTORE_FAILED,   /* rc < 0 */
};

struct state_restore {
	enum restore_step step;
	int rc;
	struct state *state;  /* owned */
	struct wire_buf rest; /* the beginning of a record whose end has not come */
	uint64_t records;
	struct lock *open; /* borrowed: the newest; more of its claims may come */
};

struct state_restore *state_restore_new(const struct state_limits *limits)
{
	struct state_restore *r = xcalloc(1, sizeof *r);

	r->state = state_new(limits, NULL);
	return r;
}

void state_restore_free(struct state_restore *r)
{
	if (r == NULL) {
		return;
	}
	state_free(r->state);
	wire_buf_fini(&r->rest);
	free(r);
}

/* May a record come that belongs to `step`? Moves there. */
static bool advance(struct state_restore *r, enum restore_step step)
{
	if (r->step == RESTORE_HEADER || r->step == RESTORE_DONE || r->step > step) {
		return false;
	}
	r->step = step;
	return true;
}

/* --- header, members, sessions ------------------------------------------------------------ */

static int restore_header(struct state_restore *r, const Wire__SnapHeader *w)
{
	if (r->step != RESTORE_HEADER || w->format == 0) {
		return -EBADMSG;
	}
	if (w->format > WIRE_FORMAT) {
		return -EPROTO;
	}
	if (w->epoch > w->index) {
		return -EBADMSG;
	}
	r->step = RESTORE_MEMBERS;
	r->state->index = w->index;
	r->state->epoch = w->epoch;
	r->state->locks_created = w->locks_created;
	return 0;
}

static int restore_member(struct state_restore *r, const Wire__SnapMember *w)
{
	struct member *m;

	if (!advance(r, RESTORE_MEMBERS) || w->node == 0 ||
		member_find(r->state, w->node) != NULL) {
		return -EBADMSG;
	}
	if (w->uuid.len != 0 && w->uuid.len != STATE_UUID_BYTES) {
		return -EBADMSG;
	}
	m = member_new(r->state, w->node);
	if (w->uuid.len != 0) {
		memcpy(m->uuid, w->uuid.data, STATE_UUID_BYTES);
		m->has_uuid = true;
	}
	return 0;
}

static int restore_session(struct state_restore *r, const Wire__SnapSession *w)
{
	struct state *s = r->state;
	struct member *m = member_find(s, w->node);
	const struct session from = {
		.id = w->id,
		.incarnation = w->incarnation,
		.node = w->node,
		.nonce = w->nonce,
		.last_seq = w->last_seq,
		.opened_unix_ms = w->opened_unix_ms,
		.ttl_ms = w->ttl_ms,
	};

	if (!advance(r, RESTORE_SESSIONS) || m == NULL || m->session != NULL) {
		return -EBADMSG;
	}
	if (w->id == 0 || w->incarnation < w->id || w->incarnation > s->epoch) {
		return -EBADMSG;
	}
	if (s->sessions != NULL && w->id <= s->sessions->prev->id) {
		return -EBADMSG; /* the head's prev is the last one */
	}
	(void)session_new(s, m, &from);
	return 0;
}

/* --- locks -------------------------------------------------------------------------------- */

static bool token_is_valid(const struct state *s, uint64_t token)
{
	return token >> LOCK_TOKEN_SHIFT >= 1 && token >> LOCK_TOKEN_SHIFT <= s->index;
}

static struct lock_want want_of_wire(const Wire__SnapClaim *w)
{
	bool record = w->kind == WIRE__LOCK_KIND__RECORD;

	return (struct lock_want){
		.session = w->session,
		.owner = w->owner,
		.record = record,
		.shared = w->shared,
		.range = record ? (struct core_range){w->start, w->end} : CORE_RANGE_WHOLE,
	};
}

/* Is one of the claims of a range? */
static bool has_ranges(const struct lock *l, const Wire__SnapClaim *w)
{
	return l->n_records > 0 || w->kind == WIRE__LOCK_KIND__RECORD;
}

/* Tokens ascend, and those of the pieces of one range by start. */
static bool follows(const struct claim *last, const Wire__SnapClaim *w)
{
	return w->token > last->token ||
	       (w->token == last->token && last->record && w->session == last->session &&
		       w->owner == last->owner && w->start > last->range[0].end);
}

/* Another owner's, no conflict; its own, neither overlapping nor one with it. */
static bool goes_with_holders(const struct lock *l, const Wire__SnapClaim *w)
{
	struct lock_want want = want_of_wire(w);
	const struct claim *c;

	DL_FOREACH (l->holders, c) {
		if (want_conflicts(&want, c) || want_joins(&want, c)) {
			return false;
		}
	}
	return true;
}

/* A holder must fit those before it. */
static bool holder_is_valid(const struct state *s, const struct lock *l, const Wire__SnapClaim *w)
{
	if (l->waiters != NULL || !token_is_valid(s, w->token)) {
		return false;
	}
	if (l->holders == NULL) {
		return true;
	}
	return (has_ranges(l, w) ? goes_with_holders(l, w) : lock_admits(l, w->shared)) &&
	       follows(l->holders->prev, w);
}

/* A waiter must wait for something: the first for the holders, the others for it. */
static bool waiter_is_valid(const struct lock *l, const Wire__SnapClaim *w)
{
	struct lock_want want = want_of_wire(w);

	if (w->token != 0 || l->n_waiters >= (size_t)1 << LOCK_TOKEN_SHIFT) {
		return false;
	}
	if (has_ranges(l, w)) {
		return lock_blocks(l, &want, NULL);
	}
	return l->waiters != NULL || !lock_admits(l, w->shared);
}

static bool kind_is_valid(const struct state *s, const Wire__SnapClaim *w)
{
	if (w->kind == WIRE__LOCK_KIND__RECORD) {
		return range_is_valid((struct core_range){w->start, w->end});
	}
	return w->kind == WIRE__LOCK_KIND__FLOCK && claim_find(s, w->session, w->owner) == NULL;
}

static int restore_claim(struct state *s, struct lock *l, const Wire__SnapClaim *w, bool holds)
{
	struct session *of = session_find(s, w->session);
	struct lock_want want = want_of_wire(w);
	struct claim *c;

	if (of == NULL || w->owner == 0 || w->seq == 0 || w->seq > of->last_seq ||
		!kind_is_valid(s, w)) {
		return -EBADMSG;
	}
	if (holds ? !holder_is_valid(s, l, w) : !waiter_is_valid(l, w)) {
		return -EBADMSG;
	}
	c = claim_new(s, of, w->owner, w->seq, l, want.record ? &want.range : NULL);
	c->shared = w->shared;
	c->since_unix_ms = w->since_unix_ms;
	c->uid = w->uid;
	core_task_from_wire(&c->task, w->task);
	core_task_from_wire(&c->opener, w->opener);
	if (holds) {
		claim_to_holders(c, w->token);
	} else {
		claim_to_waiters(c);
	}
	return 0;
}

static int restore_claims(struct state *s, struct lock *l, const Wire__SnapLock *w)
{
	int rc = 0;

	for (size_t i = 0; i < w->n_holders && rc == 0; i++) {
		rc = restore_claim(s, l, w->holders[i], true);
	}
	for (size_t i = 0; i < w->n_waiters && rc == 0; i++) {
		rc = restore_claim(s, l, w->waiters[i], false);
	}
	return rc;
}

/* Further claims of the lock of the record before. */
static int restore_more(struct state_restore *r, const Wire__SnapLock *w)
{
	struct lock *l = r->open;

	if (l == NULL || w->serial != l->serial || w->value.len != 0 ||
		w->n_holders + w->n_waiters == 0) {
		return -EBADMSG;
	}
	return restore_claims(r->state, l, w);
}

static int restore_lock(struct state_restore *r, const Wire__SnapLock *w)
{
	/* Owners are the claims'; for the name alone, any will do. */
	const struct lock_ref ref = {.name = w->name.data, .name_len = w->name.len, .owner = 1};
	struct state *s = r->state;
	struct lock *l;

	if (!advance(r, RESTORE_LOCKS)) {
		return -EBADMSG;
	}
	if (w->more) {
		return restore_more(r, w);
	}
	if (!lock_ref_is_valid(&ref) || w->n_holders == 0 || w->value.len > CORE_LOCK_VALUE_MAX ||
		w->serial == 0 || w->serial > s->locks_created ||
		lock_find(s, ref.name, ref.name_len) != NULL) {
		return -EBADMSG;
	}
	l = lock_new(s, ref.name, ref.name_len, w->serial);
	r->open = l;
	if (w->value.len > 0) {
		l->value = xmemdup(w->value.data, w->value.len);
		l->value_len = w->value.len;
	}
	return restore_claims(s, l, w);
}

/* --- the end: order as the log gave it ---------------------------------------------------- */

static int lock_order(const struct lock *a, const struct lock *b)
{
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}

/* Pieces of what one command got go by their place. */
static int claim_order(const struct claim *a, const struct claim *b)
{
	if (a->seq != b->seq) {
		return a->seq < b->seq ? -1 : 1;
	}
	return claim_range(a).start < claim_range(b).start
		       ? -1
		       : claim_range(a).start > claim_range(b).start;
}

/* Is each element of the list larger than the one before? */
#define ASCENDS(list, next, order)                                                                 \
	__extension__({                                                                            \
		const __typeof__(*(list)) *at_ = (list);                                           \
		while (at_ != NULL && at_->next != NULL && order(at_, at_->next) < 0) {            \
			at_ = at_->next;                                                           \
		}                                                                                  \
		at_ == NULL || at_->next == NULL;                                                  \
	})

/* What changed while the snapshot was taken was written early. False: two have one serial. */
static bool sort_locks(struct state *s)
{
	if (!ASCENDS(s->locks, next, lock_order)) {
		DL_SORT(s->locks, lock_order);
	}
	return ASCENDS(s->locks, next, lock_order);
}

/* The records have them lock by lock. False: two answer one command. */
static bool sort_claims(struct session *of)
{
	if (!ASCENDS(of->claims, session_next, claim_order)) {
		DL_SORT2(of->claims, claim_order, session_prev, session_next);
	}
	return ASCENDS(of->claims, session_next, claim_order);
}

static int restore_done(struct state_restore *r, const Wire__SnapEnd *w)
{
	struct session *of;

	if (!advance(r, RESTORE_DONE) || w->records != r->records || !sort_locks(r->state)) {
		return -EBADMSG;
	}
	DL_FOREACH (r->state->sessions, of) {
		if (!sort_claims(of)) {
			return -EBADMSG;
		}
	}
	return 0;
}

/* --- bytes -------------------------------------------------------------------------------- */

static int restore_record(struct state_restore *r, const Wire__SnapRecord *w)
{
	switch (w->record_case) {
	case WIRE__SNAP_RECORD__RECORD_HEADER:
		return restore_header(r, w->header);
	case WIRE__SNAP_RECORD__RECORD_MEMBER:
		return restore_member(r, w->member);
	case WIRE__SNAP_RECORD__RECORD_SESSION:
		return restore_session(r, w->session);
	case WIRE__SNAP_RECORD__RECORD_LOCK:
		return restore_lock(r, w->lock);
	case WIRE__SNAP_RECORD__RECORD_END:
		return restore_done(r, w->end);
	case WIRE__SNAP_RECORD__RECORD__NOT_SET:
	case _WIRE__SNAP_RECORD__RECORD__CASE_IS_INT_SIZE:
		break;
	}
	return -EBADMSG;
}

static int unpack_record(struct state_restore *r, const uint8_t *data, size_t len)
{
	struct scratch scratch;
	Wire__SnapRecord *w;
	int rc;

	scratch_init(&scratch);
	w = wire__snap_record__unpack(&scratch.allocator, len, data);
	rc = w != NULL ? restore_record(r, w) : -EBADMSG;
	r->records++;
	scratch_fini(&scratch);
	return rc;
}

/* Of the whole record, from its header. */
static size_t record_bytes(const uint8_t header[SNAP_RECORD_HEADER_BYTES])
{
	size_t body = 0;

	for (unsigned i = 0; i < SNAP_RECORD_HEADER_BYTES; i++) {
		body |= (size_t)header[i] << (8 * i);
	}
	return SNAP_RECORD_HEADER_BYTES + body;
}

/* Takes one record from the front of `data`. *ret_taken 0: there is no whole one. */
static int take_record(struct state_restore *r, const uint8_t *data, size_t len, size_t *ret_taken)
{
	size_t bytes;

	*ret_taken = 0;
	if (len < SNAP_RECORD_HEADER_BYTES) {
		return 0;
	}
	bytes = record_bytes(data);
	if (bytes > SNAP_RECORD_HEADER_BYTES + SNAP_RECORD_BYTES_MAX) {
		return -EBADMSG;
	}
	if (len < bytes) {
		return 0;
	}
	*ret_taken = bytes;
	return unpack_record(r, data + SNAP_RECORD_HEADER_BYTES, bytes - SNAP_RECORD_HEADER_BYTES);
}

/* Completes the torn record, as far as the input goes, and takes it. */
static int mend_rest(struct state_restore *r, const uint8_t **data, size_t *len)
{
	size_t want, n, taken;
	int rc = 0;

	while (r->rest.len > 0 && *len > 0 && rc == 0) {
		want = r->rest.len < SNAP_RECORD_HEADER_BYTES ? SNAP_RECORD_HEADER_BYTES
							      : record_bytes(r->rest.data);
		n = MIN(want - r->rest.len, *len);
		wire_buf_append(&r->rest, *data, n);
		*data += n;
		*len -= n;
		rc = take_record(r, r->rest.data, r->rest.len, &taken);
		if (taken > 0) {
			r->rest.len = 0;
		}
	}
	return rc;
}

static int feed(struct state_restore *r, const uint8_t *data, size_t len)
{
	size_t taken;
	int rc;

	rc = mend_rest(r, &data, &len);
	do {
		taken = 0;
		if (rc == 0) {
			rc = take_record(r, data, len, &taken);
		}
		data += taken;
		len -= taken;
	} while (taken > 0);
	if (rc == 0) {
		wire_buf_append(&r->rest, data, len);
	}
	return rc;
}

int state_restore_feed(struct state_restore *r, const void *data, size_t len)
{
	if (r->step != RESTORE_FAILED) {
		r->rc = feed(r, data, len);
	}
	if (r->rc < 0) {
		r->step = RESTORE_FAILED;
	}
	return r->rc;
}

int state_restore_end(struct state_restore *r, struct state **ret_state)
{
	int rc = r->step == RESTORE_FAILED ? r->rc : -EBADMSG;

	if (r->step == RESTORE_DONE && r->rest.len == 0) {
		*ret_state = TAKE(r->state);
		rc = 0;
	}
	state_restore_free(r);
	return rc;
}
