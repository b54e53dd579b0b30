/*
 * snapshot.c - the state as bytes, of one moment, while commands go on.
 *
 * A cursor walks the locks in order of creation, some at each slice. A lock that
 * is about to change and that the cursor has not reached is written there and
 * then (lock_touch), into a buffer that leaves with the next slice. Which locks
 * are done is told by their mark: the number of the last snapshot that has them,
 * or that was begun before them. So nothing is copied but what changes.
 */
#include "core/state/internal.h"

/* A skipped lock costs the slice this much of its budget: a list of many is not walked at once. */
#define SKIP_BYTES 16

struct state_snapshot {
	struct state *state; /* borrowed; NULL when the end was written or the state is gone */
	uint64_t index;
	uint64_t records;       /* written so far */
	uint64_t locks_created; /* at the beginning: later ones are not part of it */
	struct lock *cursor;    /* borrowed: the next to look at; NULL: all done */
	struct wire_buf forced; /* written ahead of the cursor, since the last slice */
};

/* --- records ------------------------------------------------------------------------------ */

static void put_record(
	struct state_snapshot *snap, const Wire__SnapRecord *record, struct wire_buf *out)
{
	size_t len = wire__snap_record__get_packed_size(record);
	uint8_t *p = wire_buf_reserve(out, SNAP_RECORD_HEADER_BYTES + len);

	ASSERT(len <= SNAP_RECORD_BYTES_MAX);
	for (unsigned i = 0; i < SNAP_RECORD_HEADER_BYTES; i++) {
		*p++ = (uint8_t)(len >> (8 * i));
	}
	(void)wire__snap_record__pack(record, p); /* its length is known */
	out->len += SNAP_RECORD_HEADER_BYTES + len;
	snap->records++;
}

/* `field` is a member of the union and the name of its case's constant. */
#define PUT(snap, CASE, field, message, out)                                                       \
	do {                                                                                       \
		Wire__SnapRecord record_ = WIRE__SNAP_RECORD__INIT;                                \
		record_.record_case = WIRE__SNAP_RECORD__RECORD_##CASE;                            \
		record_.field = (message);                                                         \
		put_record((snap), &record_, (out));                                               \
	} while (0)

static void put_header(struct state_snapshot *snap, const struct state *s)
{
	Wire__SnapHeader w = WIRE__SNAP_HEADER__INIT;

	w.format = WIRE_FORMAT;
	w.index = s->index;
	w.epoch = s->epoch;
	w.locks_created = s->locks_created;
	PUT(snap, HEADER, header, &w, &snap->forced);
}

static void put_member(struct state_snapshot *snap, struct member *m)
{
	Wire__SnapMember w = WIRE__SNAP_MEMBER__INIT;

	w.node = m->node;
	if (m->has_uuid) {
		w.uuid = (ProtobufCBinaryData){.data = m->uuid, .len = sizeof m->uuid};
	}
	PUT(snap, MEMBER, member, &w, &snap->forced);
}

static void put_session(struct state_snapshot *snap, const struct session *from)
{
	Wire__SnapSession w = WIRE__SNAP_SESSION__INIT;

	w.id = from->id;
	w.incarnation = from->incarnation;
	w.node = from->node;
	w.nonce = from->nonce;
	w.ttl_ms = from->ttl_ms;
	w.last_seq = from->last_seq;
	w.opened_unix_ms = from->opened_unix_ms;
	PUT(snap, SESSION, session, &w, &snap->forced);
}

/* --- locks -------------------------------------------------------------------------------- */

struct packed_claim {
	Wire__SnapClaim claim;
	Wire__Task task;
	Wire__Task opener;
};

static void pack_task(struct core_task *from, Wire__Task *to)
{
	wire__task__init(to);
	to->pid = from->pid;
	to->start = from->start;
	to->command = from->command;
}

static void pack_claim(struct claim *from, struct packed_claim *to)
{
	wire__snap_claim__init(&to->claim);
	to->claim.session = from->session;
	to->claim.owner = from->owner;
	to->claim.seq = from->seq;
	to->claim.shared = from->shared;
	to->claim.token = from->token;
	to->claim.uid = from->uid;
	to->claim.since_unix_ms = from->since_unix_ms;
	if (from->record) {
		to->claim.kind = WIRE__LOCK_KIND__RECORD;
		to->claim.start = from->range[0].start;
		to->claim.end = from->range[0].end;
	}
	pack_task(&from->task, &to->task);
	to->claim.task = &to->task;
	pack_task(&from->opener, &to->opener);
	to->claim.opener = &to->opener;
}

/* Packs claims from *at on, moving it, as long as there is room after `n`. Returns the new n. */
static size_t pack_claims(
	struct claim **at, struct packed_claim *packed, Wire__SnapClaim **refs, size_t n)
{
	for (; *at != NULL && n < SNAP_CLAIMS_MAX; *at = (*at)->next) {
		pack_claim(*at, &packed[n]);
		refs[n] = &packed[n].claim;
		n++;
	}
	return n;
}

static void put_lock(struct state_snapshot *snap, struct lock *l, struct wire_buf *out)
{
	struct packed_claim packed[SNAP_CLAIMS_MAX];
	Wire__SnapClaim *refs[SNAP_CLAIMS_MAX];
	Wire__SnapLock w = WIRE__SNAP_LOCK__INIT;
	struct claim *holder = l->holders;
	struct claim *waiter = l->waiters;

	w.name = (ProtobufCBinaryData){.data = (uint8_t *)l->name, .len = l->name_len};
	w.serial = l->serial;
	w.value = (ProtobufCBinaryData){.data = l->value, .len = l->value_len};
	w.holders = refs;
	do {
		w.n_holders = pack_claims(&holder, packed, refs, 0);
		w.waiters = refs + w.n_holders;
		w.n_waiters = pack_claims(&waiter, packed, refs, w.n_holders) - w.n_holders;
		PUT(snap, LOCK, lock, &w, out);
		w.more = true;
		w.value = (ProtobufCBinaryData){0};
	} while (holder != NULL || waiter != NULL);
}

static void write_lock(struct state_snapshot *snap, struct lock *l, struct wire_buf *out)
{
	put_lock(snap, l, out);
	l->snap_mark = snap->state->snap_mark;
}

void snapshot_write(struct state_snapshot *snap, struct lock *l)
{
	write_lock(snap, l, &snap->forced);
}

void snapshot_forget(struct state_snapshot *snap, const struct lock *l)
{
	if (snap->cursor == l) {
		snap->cursor = l->next;
	}
}

void snapshot_orphan(struct state_snapshot *snap)
{
	snap->state->snap = NULL;
	snap->state = NULL;
	snap->cursor = NULL;
}

/* --- slices ------------------------------------------------------------------------------- */

struct state_snapshot *state_snapshot_begin(struct state *s)
{
	struct state_snapshot *snap = xcalloc(1, sizeof *snap);
	const struct session *session;
	struct member *m;

	ASSERT(s->snap == NULL);
	snap->state = s;
	snap->index = s->index;
	snap->locks_created = s->locks_created;
	snap->cursor = s->locks;
	s->snap = snap;
	s->snap_mark++;
	put_header(snap, s);
	for (m = s->members; m != NULL; m = m->hh.next) {
		put_member(snap, m);
	}
	DL_FOREACH (s->sessions, session) {
		put_session(snap, session);
	}
	return snap;
}

uint64_t state_snapshot_index(const struct state_snapshot *snap)
{
	return snap->index;
}

static void write_slice(struct state_snapshot *snap, size_t budget_bytes, struct wire_buf *out)
{
	size_t start = out->len;
	size_t skipped_bytes = 0;

	wire_buf_append(out, snap->forced.data, snap->forced.len);
	wire_buf_fini(&snap->forced);
	while (snap->cursor != NULL &&
		(out->len == start || out->len - start + skipped_bytes < budget_bytes)) {
		struct lock *l = snap->cursor;

		if (l->serial > snap->locks_created) {
			snap->cursor = NULL; /* from here on all are newer */
			return;
		}
		snap->cursor = l->next;
		if (l->snap_mark != snap->state->snap_mark) {
			write_lock(snap, l, out);
		} else {
			skipped_bytes += SKIP_BYTES;
		}
	}
}

bool state_snapshot_next(struct state_snapshot *snap, size_t budget_bytes, struct wire_buf *out)
{
	Wire__SnapEnd end = WIRE__SNAP_END__INIT;

	ASSERT(snap->state != NULL);
	write_slice(snap, budget_bytes, out);
	if (snap->cursor != NULL) {
		return true;
	}
	end.records = snap->records;
	PUT(snap, END, end, &end, out);
	snapshot_orphan(snap);
	return false;
}

void state_snapshot_free(struct state_snapshot *snap)
{
	if (snap == NULL) {
		return;
	}
	if (snap->state != NULL) {
		snapshot_orphan(snap);
	}
	wire_buf_fini(&snap->forced);
	free(snap);
}
