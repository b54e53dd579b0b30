/*
 * snapshot_state_test.c - a snapshot is of the moment it was begun, whatever
 * happens while it is taken; and what is not a snapshot is refused.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/state/scratch.h"
#include "tests/unit/state_fixture.h"

enum {
	NODES = 4,
	OWNERS = 6, /* per node */
	LOCKS = 8,
	SEEDS = 300,
};

/* --- chance ------------------------------------------------------------------------------- */

static void random_command(struct state_fixture *f, uint64_t *seed)
{
	struct who who = {1 + draw_below(seed, NODES), 1 + draw_below(seed, OWNERS)};
	const struct claim *c = claim_of(f, who);
	uint64_t dice = draw_below(seed, 1000);
	char name[256] = {0};

	(void)snprintf(
		name, sizeof name, "lock %llu", (unsigned long long)(draw_below(seed, LOCKS)));
	if (c != NULL) {
		memcpy(name, c->lock->name, c->lock->name_len + 1u);
	}
	if (dice < 550) {
		acquire(f, who, name, (unsigned)draw_below(seed, 4));
	} else if (dice < 750) {
		release(f, who, name);
	} else if (dice < 850) {
		cancel(f, who, name, c != NULL ? c->seq : 1);
	} else if (dice < 990) {
		set_value(f, who, name, name, draw_below(seed, 7));
	} else {
		if (dice < 993) {
			end_session(f, who.node, draw_below(seed, 2) == 1);
		}
		open_session(f, who.node, dice < 996);
	}
}

/* --- taking and restoring ----------------------------------------------------------------- */

/* Slices of random size, with commands in between. */
static void take_with_changes(
	struct state_fixture *f, uint64_t *seed, uint64_t busy, struct wire_buf *out)
{
	struct state_snapshot *snap = state_snapshot_begin(f->state);
	uint64_t index = f->index;

	do {
		for (uint64_t n = draw_below(seed, busy + 1); n > 0; n--) {
			random_command(f, seed);
		}
	} while (state_snapshot_next(snap, draw_below(seed, 300), out));
	assert_int_equal(state_snapshot_index(snap), index);
	random_command(f, seed); /* the snapshot is ended but not freed */
	state_snapshot_free(snap);
}

static void take(struct state *s, struct wire_buf *out)
{
	struct state_snapshot *snap = state_snapshot_begin(s);

	while (state_snapshot_next(snap, SIZE_MAX, out)) {
	}
	state_snapshot_free(snap);
}

static int restore(const void *data, size_t len, struct state **ret_state)
{
	struct state_restore *r = state_restore_new(NULL);
	int rc = state_restore_feed(r, data, len);

	if (rc < 0) {
		assert_int_equal(state_restore_end(r, ret_state), rc);
		return rc;
	}
	return state_restore_end(r, ret_state);
}

static struct state *restore_in_pieces(const struct wire_buf *from, uint64_t *seed)
{
	struct state_restore *r = state_restore_new(NULL);
	struct state *s = NULL;
	size_t at = 0;

	while (at < from->len) {
		size_t n = draw_below(seed, draw_below(seed, 2) == 0 ? 4 : 700);

		n = MIN(n, from->len - at);
		assert_int_equal(state_restore_feed(r, from->data + at, n), 0);
		at += n;
	}
	assert_int_equal(state_restore_end(r, &s), 0);
	state_check(s);
	return s;
}

/* Apply what the fixture logged after `index` to a restored state. */
static void replay(struct state *s, const struct wire_buf *log, uint64_t index)
{
	size_t at = 0;
	uint32_t len;

	while (at < log->len) {
		memcpy(&len, log->data + at, sizeof len);
		at += sizeof len;
		assert_int_equal(state_apply(s, ++index, log->data + at, len), 0);
		at += len;
	}
}

/* --- a moment, kept ----------------------------------------------------------------------- */

static void same_listing(const struct state *a, const struct state *b)
{
	const struct lock *l = state_locks(a);
	const struct lock *m = state_locks(b);

	for (; l != NULL && m != NULL; l = l->next, m = m->next) {
		assert_int_equal(l->serial, m->serial);
		assert_string_equal(l->name, m->name);
	}
	assert_true(l == NULL && m == NULL);
}

static void snapshot_is_of_the_moment_it_was_begun(void **state)
{
	for (uint64_t first = 1; first <= SEEDS; first++) {
		struct state_fixture *f = fixture_new(NULL, NODES);
		struct wire_buf log = {0}, out = {0};
		uint64_t seed = first;
		struct state *restored;
		uint64_t digest, index;

		for (uint64_t n = draw_below(&seed, 200); n > 0; n--) {
			random_command(f, &seed);
		}
		digest = state_digest(f->state);
		index = f->index;
		f->log = &log;
		take_with_changes(f, &seed, first % 5, &out);
		restored = restore_in_pieces(&out, &seed);
		assert_int_equal(state_digest(restored), digest);
		assert_int_equal(state_index(restored), index);

		/* And from there, the log leads both to the same state. */
		for (unsigned n = 0; n < 100; n++) {
			random_command(f, &seed);
		}
		replay(restored, &log, index);
		state_check(restored);
		assert_int_equal(state_digest(restored), state_digest(f->state));
		same_listing(restored, f->state);
		state_free(restored);
		wire_buf_fini(&log);
		wire_buf_fini(&out);
		fixture_free(f);
	}
}

static void snapshots_follow_each_other(void **state)
{
	struct state_fixture *f = *state;
	uint64_t seed = 5;

	for (unsigned i = 0; i < 50; i++) {
		struct wire_buf out = {0};
		uint64_t digest = state_digest(f->state);
		struct state *restored;

		take_with_changes(f, &seed, 3, &out);
		restored = restore_in_pieces(&out, &seed);
		assert_int_equal(state_digest(restored), digest);
		state_free(restored);
		wire_buf_fini(&out);
	}
}

static void snapshot_of_nothing_restores_to_nothing(void **state)
{
	struct state *empty = state_new(NULL, NULL);
	struct wire_buf out = {0};
	struct state *restored;

	take(empty, &out);
	assert_int_equal(restore(out.data, out.len, &restored), 0);
	assert_int_equal(state_digest(restored), state_digest(empty));
	assert_int_equal(state_index(restored), 0);
	state_free(restored);
	state_free(empty);
	wire_buf_fini(&out);
}

static void members_and_their_highest_id_are_kept(void **state)
{
	static const uint8_t uuid[16] = "first directory";
	struct state_fixture *f = *state;
	Wire__SessionOpen open = WIRE__SESSION_OPEN__INIT;
	struct wire_buf out = {0};
	struct state *restored;

	open.node = 7;
	open.nonce = 1;
	open.uuid = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)uuid, .len = sizeof uuid};
	open_with(f, &open);
	end_session(f, 7, true);
	take(f->state, &out);
	assert_int_equal(restore(out.data, out.len, &restored), 0);
	assert_int_equal(state_member_max(restored), 7);
	assert_memory_equal(state_member_uuid(restored, 7), uuid, sizeof uuid);
	assert_null(state_member_uuid(restored, 1));
	state_free(restored);
	wire_buf_fini(&out);
}

/* More claims than one record takes, so that no record is large. */
static void lock_with_many_claims_takes_several_records(void **state)
{
	static const uint64_t shapes[][2] = {
		{1, 63}, {1, 64}, {64, 1}, {64, 0}, {65, 200}, {128, 128}, {1, 500}, {500, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		struct state_fixture *f = fixture_new(NULL, NODES);
		struct wire_buf out = {0};
		struct state *restored;
		uint64_t owner = 1;

		for (; owner <= shapes[i][0]; owner++) {
			acquire(f, (struct who){1, owner}, "x", SH);
		}
		for (; owner <= shapes[i][0] + shapes[i][1]; owner++) {
			acquire(f, (struct who){2, owner}, "x", EX);
		}
		take(f->state, &out);
		assert_int_equal(restore(out.data, out.len, &restored), 0);
		state_check(restored);
		assert_int_equal(state_digest(restored), state_digest(f->state));
		state_free(restored);
		wire_buf_fini(&out);
		fixture_free(f);
	}
}

static void session_with_all_locks_may_end_in_between(void **state)
{
	struct state_fixture *f = *state;
	struct wire_buf out = {0};
	struct state_snapshot *snap;
	struct state *restored;
	uint64_t digest, seed = 3;

	for (uint64_t owner = 1; owner <= 500; owner++) {
		char name[16];

		(void)snprintf(name, sizeof name, "%llu", (unsigned long long)owner);
		acquire(f, (struct who){1, owner}, name, EX);
	}
	digest = state_digest(f->state);
	snap = state_snapshot_begin(f->state);
	assert_true(state_snapshot_next(snap, 1000, &out));
	end_session(f, 1, true);
	assert_int_equal(state_n_locks(f->state), 0);
	assert_false(state_snapshot_next(snap, 1000, &out));
	state_snapshot_free(snap);
	restored = restore_in_pieces(&out, &seed);
	assert_int_equal(state_digest(restored), digest);
	state_free(restored);
	wire_buf_fini(&out);
}

static void slices_keep_to_their_budget(void **state)
{
	struct state_fixture *f = *state;
	struct wire_buf out = {0};
	struct state_snapshot *snap;
	size_t before;
	unsigned slices = 1;

	for (uint64_t owner = 1; owner <= 300; owner++) {
		char name[16];

		(void)snprintf(name, sizeof name, "%llu", (unsigned long long)owner);
		acquire(f, (struct who){1, owner}, name, EX);
	}
	snap = state_snapshot_begin(f->state);
	for (before = 0; state_snapshot_next(snap, 1000, &out); before = out.len) {
		assert_in_range(out.len - before, 1000, 1200);
		slices++;
	}
	assert_true(slices > 10);
	state_snapshot_free(snap);
	wire_buf_fini(&out);
}

static void snapshot_may_be_given_up_and_outlive_the_state(void **state)
{
	struct state *s = state_new(NULL, NULL);
	struct state_snapshot *snap = state_snapshot_begin(s);
	struct wire_buf out = {0};

	state_snapshot_free(snap);
	take(s, &out);
	wire_buf_fini(&out);
	snap = state_snapshot_begin(s);
	state_free(s);
	state_snapshot_free(snap);
	state_snapshot_free(NULL);
}

/* --- what is not a snapshot --------------------------------------------------------------- */

/* A small state with something of everything: values, holders of both modes, waiters, members. */
static void take_small(struct state_fixture *f, struct wire_buf *out)
{
	open_session(f, 3, true);
	acquire(f, ann, "x", EX);
	set_value(f, ann, "x", "here", 4);
	acquire(f, bob, "x", SH);
	acquire(f, cid, "y", SH);
	acquire(f, dan, "y", SH);
	acquire(f, (struct who){1, 2}, "y", EX);
	take(f->state, out);
}

static void every_truncated_snapshot_is_refused(void **state)
{
	struct wire_buf out = {0};
	struct state *restored;

	take_small(*state, &out);
	for (size_t len = 0; len < out.len; len++) {
		/* On the heap and no larger, so that reading past the end is noticed. */
		uint8_t *part = xmemdup(out.data, len);

		assert_int_equal(restore(part, len, &restored), -EBADMSG);
		free(part);
	}
	wire_buf_fini(&out);
}

static void bytes_after_the_end_are_refused(void **state)
{
	struct wire_buf out = {0};
	struct state *restored;

	take_small(*state, &out);
	wire_buf_append(&out, "", 1);
	assert_int_equal(restore(out.data, out.len, &restored), -EBADMSG);
	out.len--;
	(void)wire_buf_reserve(&out, out.len);
	wire_buf_append(&out, out.data, out.len);
	assert_int_equal(restore(out.data, out.len, &restored), -EBADMSG);
	wire_buf_fini(&out);
}

/* Whatever is taken in keeps every invariant. */
static bool survives(const void *data, size_t len)
{
	struct state *restored = NULL;

	if (restore(data, len, &restored) < 0) {
		return false;
	}
	state_check(restored);
	state_free(restored);
	return true;
}

static void no_flipped_bit_does_harm(void **state)
{
	struct wire_buf out = {0};
	size_t refused = 0;

	take_small(*state, &out);
	for (size_t bit = 0; bit < 8 * out.len; bit++) {
		out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		refused += !survives(out.data, out.len);
		out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_true(refused > out.len); /* most of them; a changed uid cannot be noticed */
	assert_true(survives(out.data, out.len));
	wire_buf_fini(&out);
}

static void no_random_damage_does_harm(void **state)
{
	struct wire_buf out = {0};
	uint64_t seed = 11;

	take_small(*state, &out);
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t *bad = xmemdup(out.data, out.len);

		for (uint64_t n = 1 + draw_below(&seed, 6); n > 0; n--) {
			bad[draw_below(&seed, out.len)] = (uint8_t)draw(&seed);
		}
		(void)survives(bad, out.len);
		free(bad);
	}
	wire_buf_fini(&out);
}

static void record_above_the_limit_is_refused_at_its_header(void **state)
{
	struct state_restore *r = state_restore_new(NULL);
	struct state *restored;

	assert_int_equal(state_restore_feed(r, "\xff\xff\xff", 3), 0);
	assert_int_equal(state_restore_feed(r, "\xff", 1), -EBADMSG);
	assert_int_equal(state_restore_feed(r, "", 0), -EBADMSG);
	assert_int_equal(state_restore_end(r, &restored), -EBADMSG);
	state_restore_free(NULL);
}

/* --- records that are well-formed and cannot be ------------------------------------------- */

enum {
	RECORDS_MAX = 16
};

/* take_small() as records: header, 4 members, 4 sessions, x, y, end. */
struct records {
	Wire__SnapRecord *r[RECORDS_MAX]; /* in `memory`: a change may make them share parts */
	size_t n;
	struct scratch memory;
};

static void unpack_all(const struct wire_buf *from, struct records *to)
{
	size_t at = 0;

	to->n = 0;
	scratch_init(&to->memory);
	while (at < from->len) {
		size_t len = from->data[at] | (size_t)from->data[at + 1] << 8;

		assert_true(to->n < RECORDS_MAX);
		to->r[to->n] =
			wire__snap_record__unpack(&to->memory.allocator, len, from->data + at + 4);
		assert_non_null(to->r[to->n]);
		to->n++;
		at += 4 + len;
	}
}

static void pack_all(const struct records *from, struct wire_buf *to)
{
	to->len = 0;
	for (size_t i = 0; i < from->n; i++) {
		size_t len = wire__snap_record__get_packed_size(from->r[i]);
		uint8_t header[4] = {(uint8_t)len, (uint8_t)(len >> 8)};

		wire_buf_append(to, header, sizeof header);
		(void)wire__snap_record__pack(from->r[i], wire_buf_reserve(to, len));
		to->len += len;
	}
}

enum {
	HEADER = 0,
	MEMBER = 1,
	SESSION = 5,
	LOCK_X = 9,
	LOCK_Y = 10,
	END = 11
};

static void swap(struct records *r, size_t a, size_t b)
{
	Wire__SnapRecord *t = r->r[a];

	r->r[a] = r->r[b];
	r->r[b] = t;
}

static void make_range(Wire__SnapClaim *w, uint64_t start, uint64_t end)
{
	w->kind = WIRE__LOCK_KIND__RECORD;
	w->start = start;
	w->end = end;
}

/* Each changes one thing that must be noticed. */
static int change(struct records *r, unsigned what)
{
	Wire__SnapLock *x = r->r[LOCK_X]->lock;
	Wire__SnapLock *y = r->r[LOCK_Y]->lock;
	Wire__SnapSession *s = r->r[SESSION]->session;

	switch (what) {
	case 0:
		r->r[HEADER]->header->format = WIRE_FORMAT + 1;
		return -EPROTO;
	case 1:
		r->r[HEADER]->header->format = 0;
		break;
	case 2:
		r->r[HEADER]->header->epoch = r->r[HEADER]->header->index + 1;
		break;
	case 3:
		r->r[HEADER]->header->index = 1; /* tokens and sessions of the future */
		r->r[HEADER]->header->epoch = 1;
		break;
	case 4:
		r->r[HEADER]->header->locks_created = 1;
		break;
	case 5:
		swap(r, HEADER, MEMBER);
		break;
	case 6:
		swap(r, MEMBER, SESSION);
		break;
	case 7:
		swap(r, SESSION, LOCK_X);
		break;
	case 8:
		swap(r, LOCK_Y, END);
		break;
	case 9:
		r->r[END]->end->records++;
		break;
	case 10:
		r->r[MEMBER]->member->node = 0;
		break;
	case 11:
		r->r[MEMBER]->member->node = r->r[MEMBER + 1]->member->node;
		break;
	case 12:
		r->r[MEMBER]->member->uuid = bytes_of("short");
		break;
	case 13:
		s->node = 99;
		break;
	case 14:
		s->node = r->r[SESSION + 1]->session->node;
		break;
	case 15:
		swap(r, SESSION, SESSION + 1); /* not in the order of ids */
		break;
	case 16:
		s->id = 0;
		break;
	case 17:
		s->incarnation = s->id - 1;
		break;
	case 18:
		s->incarnation = UINT64_MAX;
		break;
	case 19:
		s->last_seq = 0; /* its claims are from later */
		break;
	case 20:
		x->name = bytes_of("");
		break;
	case 21:
		x->name = bytes_of("a/b");
		break;
	case 22:
		x->name = y->name;
		break;
	case 23:
		x->serial = y->serial;
		break;
	case 24:
		x->serial = 0;
		break;
	case 25:
		x->n_holders = 0; /* somebody waits for nobody */
		break;
	case 26:
		x->holders[0]->token = 0;
		break;
	case 27:
		x->holders[0]->token = UINT64_MAX;
		break;
	case 28:
		x->waiters[0]->token = x->holders[0]->token;
		break;
	case 29:
		x->holders[0]->shared = true; /* then the shared waiter would have been granted */
		break;
	case 30:
		y->holders[0]->shared = false; /* one exclusive, one shared */
		break;
	case 31:
		y->holders[1]->shared = false;
		break;
	case 32:
		y->holders[1]->token = y->holders[0]->token;
		break;
	case 33:
		x->holders[0]->session = 999;
		break;
	case 34:
		x->holders[0]->owner = 0;
		break;
	case 35:
		x->holders[0]->seq = 0;
		break;
	case 36:
		x->holders[0]->seq = UINT64_MAX;
		break;
	case 37:
		y->waiters[0]->owner = x->holders[0]->owner; /* one owner, two locks */
		break;
	case 38:
		y->waiters[0]->seq = x->holders[0]->seq; /* one command, two claims */
		break;
	case 39:
		x->more = true; /* of nothing */
		break;
	case 40:
		y->more = true; /* of another lock */
		break;
	case 41:
		y->more = true; /* holders after the waiters */
		y->serial = x->serial;
		break;
	case 42:
		r->r[END]->record_case = WIRE__SNAP_RECORD__RECORD__NOT_SET;
		break;
	case 43:
		x->holders[0]->kind = 7;
		break;
	case 44:
		make_range(x->holders[0], 5, 4);
		break;
	case 45:
		make_range(x->holders[0], 0, CORE_RANGE_MAX + 1);
		break;
	case 46:
		make_range(x->holders[0], 5, 5);
		make_range(x->waiters[0], 6, 6); /* nothing is in its way */
		break;
	case 47: /* two that are one */
		make_range(y->holders[0], 0, 4);
		make_range(y->holders[1], 5, 9);
		y->holders[1]->session = y->holders[0]->session;
		y->holders[1]->owner = y->holders[0]->owner;
		break;
	default:
		return 0;
	}
	return -EBADMSG;
}

/* Restores what `what` changed and compares. False: there are no more changes. */
static bool refused_as_expected(const struct wire_buf *good, unsigned what)
{
	struct wire_buf bad = {0};
	struct records records;
	struct state *restored = NULL;
	int expected, rc;

	unpack_all(good, &records);
	expected = change(&records, what);
	pack_all(&records, &bad);
	rc = restore(bad.data, bad.len, &restored);
	if (rc != expected) {
		print_error("change %u: %d\n", what, rc);
	}
	assert_int_equal(rc, expected);
	state_free(restored);
	wire_buf_fini(&bad);
	scratch_fini(&records.memory);
	return expected < 0;
}

static void records_that_contradict_each_other_are_refused(void **state)
{
	struct wire_buf out = {0};
	unsigned what = 0;

	take_small(*state, &out);
	while (refused_as_expected(&out, what)) {
		what++;
	}
	assert_int_equal(what, 48);
	wire_buf_fini(&out);
}

/* --- digest and check --------------------------------------------------------------------- */

static void digest_tells_states_apart(void **state)
{
	struct state_fixture *a = *state;
	struct state_fixture *b = fixture_new(NULL, 4);
	uint64_t seed = 1, same_seed = 1;

	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(state_digest(a->state), state_digest(b->state));
		random_command(a, &seed);
		assert_int_not_equal(state_digest(a->state), state_digest(b->state));
		random_command(b, &same_seed);
	}
	fixture_free(b);
}

static void assert_check_fails(const struct state *s)
{
	int status;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)signal(SIGABRT, SIG_DFL);
		if (freopen("/dev/null", "w", stderr) != NULL) {
			state_check(s);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

#define assert_noticed(state, field, broken)                                                       \
	do {                                                                                       \
		__typeof__(field) good_ = (field);                                                 \
		(field) = (broken);                                                                \
		assert_check_fails(state);                                                         \
		(field) = good_;                                                                   \
		state_check(state);                                                                \
	} while (0)

static void state_check_notices_what_must_not_be(void **state)
{
	struct state_fixture *f = *state;
	struct session *s;
	struct lock *l;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", EX);
	acquire(f, (struct who){1, 2}, "y", EX);
	s = (struct session *)(uintptr_t)state_session_of_node(f->state, 1);
	l = (struct lock *)(uintptr_t)lock_named(f, "x");
	assert_noticed(f->state, s->id, 0);
	assert_noticed(f->state, s->node, 2);
	assert_noticed(f->state, s->incarnation, UINT64_MAX);
	assert_noticed(f->state, s->last_seq, 0);
	assert_noticed(f->state, s->n_claims, 1);
	assert_noticed(f->state, s->claims->seq, 2);
	assert_noticed(f->state, s->claims->session, s->id + 1);
	assert_noticed(f->state, s->claims->owner, 0);
	assert_noticed(f->state, l->holders->token, UINT64_MAX);
	assert_noticed(f->state, l->serial, UINT64_MAX);
	assert_noticed(f->state, l->name[0], 'z');
	assert_noticed(f->state, l->n_waiters, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(snapshot_is_of_the_moment_it_was_begun),
		unit_test_with_state(snapshots_follow_each_other),
		cmocka_unit_test(snapshot_of_nothing_restores_to_nothing),
		unit_test_with_state(members_and_their_highest_id_are_kept),
		cmocka_unit_test(lock_with_many_claims_takes_several_records),
		unit_test_with_state(session_with_all_locks_may_end_in_between),
		unit_test_with_state(slices_keep_to_their_budget),
		cmocka_unit_test(snapshot_may_be_given_up_and_outlive_the_state),
		unit_test_with_state(every_truncated_snapshot_is_refused),
		unit_test_with_state(bytes_after_the_end_are_refused),
		unit_test_with_state(no_flipped_bit_does_harm),
		unit_test_with_state(no_random_damage_does_harm),
		cmocka_unit_test(record_above_the_limit_is_refused_at_its_header),
		unit_test_with_state(records_that_contradict_each_other_are_refused),
		unit_test_with_state(digest_tells_states_apart),
		unit_test_with_state(state_check_notices_what_must_not_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
