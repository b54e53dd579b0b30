/*
 * record_model_test.c - random commands on byte ranges against a naive machine.
 *
 * The model has an array of bytes for each owner, with the mode in which it holds each, and one
 * list of requests that wait. No splitting, joining or ordering of claims that could be wrong in
 * the same way. Owners of both kinds, several waits of one owner, cancels and ends of sessions; and
 * now and then a snapshot is taken in slices between commands.
 */
#include "tests/unit/state_fixture.h"

enum {
	NODES = 3,
	OWNERS = 3, /* per node and kind */
	PARTIES = NODES * OWNERS * 2,
	BYTES = 10, /* the last stands for all that follow */
	WAITS_MAX = 64,
	STEPS = 400,
	SEEDS = 300,
};

enum mode {
	NONE,
	SHARED,
	EXCLUSIVE,
};

struct party {
	struct who who;
	bool record;
	enum mode held[BYTES];
	uint64_t seq; /* of the claim of a flock owner */
};

struct wait {
	size_t party;
	uint64_t seq;
	enum mode mode;
	size_t from, to; /* included */
};

struct model {
	struct party parties[PARTIES];
	struct wait waits[WAITS_MAX];
	size_t n_waits;
};

static const char *const NAME = "x";

/* --- the model ---------------------------------------------------------------------------- */

static void model_init(struct model *m)
{
	*m = (struct model){0};
	for (size_t i = 0; i < PARTIES; i++) {
		m->parties[i].who = (struct who){1 + i / 2 % NODES, 1 + i / 2 / NODES};
		m->parties[i].record = i % 2 == 1;
	}
}

static bool holds_any(const struct party *p)
{
	for (size_t b = 0; b < BYTES; b++) {
		if (p->held[b] != NONE) {
			return true;
		}
	}
	return false;
}

static bool clash(enum mode a, enum mode b)
{
	return a != NONE && b != NONE && (a == EXCLUSIVE || b == EXCLUSIVE);
}

static bool blocked_by_holders(const struct model *m, const struct wait *w)
{
	for (size_t i = 0; i < PARTIES; i++) {
		for (size_t b = w->from; i != w->party && b <= w->to; b++) {
			if (clash(m->parties[i].held[b], w->mode)) {
				return true;
			}
		}
	}
	return false;
}

/* `before`: how many of the waiters came earlier. */
static bool blocked(const struct model *m, const struct wait *w, size_t before)
{
	if (blocked_by_holders(m, w)) {
		return true;
	}
	for (size_t i = 0; i < before && !holds_any(&m->parties[w->party]); i++) {
		const struct wait *other = &m->waits[i];

		if (other->party != w->party && clash(other->mode, w->mode) &&
			other->from <= w->to && w->from <= other->to) {
			return true;
		}
	}
	return false;
}

static void hold(struct model *m, const struct wait *w)
{
	struct party *p = &m->parties[w->party];

	for (size_t b = w->from; b <= w->to; b++) {
		p->held[b] = w->mode;
	}
	p->seq = w->seq;
}

static void forget_wait(struct model *m, size_t i)
{
	memmove(&m->waits[i], &m->waits[i + 1], (m->n_waits - i - 1) * sizeof m->waits[0]);
	m->n_waits--;
}

static void settle(struct model *m)
{
	for (size_t i = 0; i < m->n_waits; i++) {
		struct wait w = m->waits[i];

		if (!blocked(m, &w, i)) {
			forget_wait(m, i);
			hold(m, &w);
			i = (size_t)-1; /* once more from the first */
		}
	}
}

static void let_go(struct model *m, size_t party, size_t from, size_t to)
{
	for (size_t b = from; b <= to; b++) {
		m->parties[party].held[b] = NONE;
	}
}

static enum status request(struct model *m, struct wait w, bool wait)
{
	if (blocked(m, &w, m->n_waits)) {
		if (wait) {
			m->waits[m->n_waits++] = w;
		}
		return wait ? ST_WAITING : ST_BUSY;
	}
	hold(m, &w);
	settle(m);
	return ST_OK;
}

static enum status acquire_bytes(struct model *m, struct wait w, bool wait)
{
	const struct party *p = &m->parties[w.party];
	bool has = true;

	for (size_t b = w.from; b <= w.to; b++) {
		has = has && p->held[b] == w.mode;
	}
	return has ? ST_OK : request(m, w, wait);
}

static size_t n_holders_besides(const struct model *m, size_t party)
{
	size_t n = 0;

	for (size_t i = 0; i < PARTIES; i++) {
		n += i != party && holds_any(&m->parties[i]);
	}
	return n;
}

static void drop_waits(struct model *m, size_t party)
{
	for (size_t i = m->n_waits; i-- > 0;) {
		if (m->waits[i].party == party) {
			forget_wait(m, i);
		}
	}
}

/* flock(2): a conversion that others are in the way of gives up what there was. */
static enum status acquire_whole(struct model *m, struct wait w, bool wait)
{
	struct party *p = &m->parties[w.party];
	enum mode had = p->held[0];

	if (had == w.mode) {
		return ST_OK;
	}
	if (had != NONE && (w.mode == SHARED || n_holders_besides(m, w.party) == 0)) {
		hold(m, &w);
		settle(m);
		return ST_OK;
	}
	drop_waits(m, w.party);
	let_go(m, w.party, 0, BYTES - 1);
	settle(m);
	return request(m, w, wait);
}

/* --- comparing ---------------------------------------------------------------------------- */

static size_t party_of(struct state_fixture *f, const struct model *m, const struct claim *c)
{
	uint64_t node = state_session(f->state, c->session)->node;

	for (size_t i = 0; i < PARTIES; i++) {
		const struct party *p = &m->parties[i];

		if (p->who.node == node && p->who.owner == c->owner && p->record == c->record) {
			return i;
		}
	}
	fail_msg("a claim of nobody");
	return 0;
}

static size_t byte_of(uint64_t at)
{
	return at < BYTES ? (size_t)at : BYTES - 1;
}

static void assert_same(struct state_fixture *f, const struct model *m)
{
	const struct lock *l = lock_named(f, NAME);
	enum mode held[PARTIES][BYTES] = {{NONE}};
	const struct claim *c;
	size_t i = 0;

	for (c = l == NULL ? NULL : l->holders; c != NULL; c = c->next) {
		struct core_range r = claim_range(c);

		for (size_t b = byte_of(r.start); b <= byte_of(r.end); b++) {
			held[party_of(f, m, c)][b] = c->shared ? SHARED : EXCLUSIVE;
		}
	}
	for (size_t p = 0; p < PARTIES; p++) {
		assert_memory_equal(held[p], m->parties[p].held, sizeof held[p]);
	}
	for (c = l == NULL ? NULL : l->waiters; c != NULL; c = c->next) {
		assert_true(i < m->n_waits);
		assert_int_equal(party_of(f, m, c), m->waits[i].party);
		assert_int_equal(c->seq, m->waits[i].seq);
		i++;
	}
	assert_int_equal(i, m->n_waits);
}

/* --- a snapshot between commands ---------------------------------------------------------- */

struct taking {
	struct state_snapshot *snap; /* NULL: none is being taken */
	struct wire_buf bytes;
	uint64_t digest;
};

static void restore_and_compare(struct taking *t)
{
	struct state_restore *r = state_restore_new(NULL);
	struct state *s;

	assert_int_equal(state_restore_feed(r, t->bytes.data, t->bytes.len), 0);
	assert_int_equal(state_restore_end(r, &s), 0);
	state_check(s);
	assert_true(state_digest(s) == t->digest);
	state_free(s);
}

static void snapshot_step(struct state_fixture *f, struct taking *t, uint64_t *seed)
{
	if (t->snap == NULL && draw_below(seed, 20) == 0) {
		t->digest = state_digest(f->state);
		t->snap = state_snapshot_begin(f->state);
	} else if (t->snap != NULL && draw_below(seed, 4) == 0 &&
		   !state_snapshot_next(t->snap, 1, &t->bytes)) {
		state_snapshot_free(TAKE(t->snap));
		restore_and_compare(t);
		wire_buf_fini(&t->bytes);
	}
}

/* --- chance ------------------------------------------------------------------------------- */

static struct core_range range_of(const struct wait *w)
{
	return (struct core_range){w->from, w->to == BYTES - 1 ? CORE_RANGE_MAX : w->to};
}

static void random_acquire(struct state_fixture *f, struct model *m, struct wait w, uint64_t *seed)
{
	const struct party *p = &m->parties[w.party];
	bool wait = m->n_waits < WAITS_MAX && draw_below(seed, 2) == 0;
	unsigned how = (w.mode == EXCLUSIVE ? EX : SH) | (wait ? 0 : NB);
	enum status expected;

	if (p->record) {
		acquire_range(f, p->who, NAME, how, range_of(&w));
		w.seq = f->answered_seq;
		expected = acquire_bytes(m, w, wait);
	} else {
		acquire(f, p->who, NAME, how);
		w.seq = f->answered_seq;
		w.from = 0;
		w.to = BYTES - 1;
		expected = acquire_whole(m, w, wait);
	}
	assert_status(f, expected);
	assert_int_equal(f->token != 0, expected == ST_OK);
}

static void random_test(struct state_fixture *f, struct model *m, struct wait w)
{
	if (m->parties[w.party].record) {
		ask_range(f, m->parties[w.party].who, NAME, w.mode == EXCLUSIVE ? EX | NB : NB,
			range_of(&w), true);
		assert_status(f, blocked_by_holders(m, &w) ? ST_BUSY : ST_OK);
	}
}

static void random_release(struct state_fixture *f, struct model *m, struct wait w)
{
	const struct party *p = &m->parties[w.party];

	if (p->record) {
		release_range(f, p->who, NAME, range_of(&w));
		let_go(m, w.party, w.from, w.to);
	} else {
		release(f, p->who, NAME);
		let_go(m, w.party, 0, BYTES - 1);
		drop_waits(m, w.party);
	}
	settle(m);
	assert_status(f, ST_OK);
}

static void random_cancel(struct state_fixture *f, struct model *m, uint64_t *seed)
{
	size_t i = m->n_waits > 0 ? draw_below(seed, m->n_waits) : 0;
	struct wait w = m->waits[i];
	const struct party *p = &m->parties[w.party];

	if (m->n_waits == 0) {
		return;
	}
	forget_wait(m, i);
	settle(m);
	if (p->record) {
		cancel_range(f, p->who, NAME, w.seq);
		assert_status(f, ST_CANCELLED);
		assert_same(f, m);
		cancel_range(f, p->who, NAME, w.seq); /* once is enough */
	} else {
		cancel(f, p->who, NAME, w.seq);
	}
	assert_status(f, ST_OK);
}

static void random_end(struct state_fixture *f, struct model *m, uint64_t node, bool resume)
{
	for (size_t i = 0; i < PARTIES; i++) {
		if (m->parties[i].who.node == node) {
			drop_waits(m, i);
			let_go(m, i, 0, BYTES - 1);
		}
	}
	settle(m);
	open_session(f, node, resume);
}

static void random_step(struct state_fixture *f, struct model *m, uint64_t *seed)
{
	uint64_t dice = draw_below(seed, 100);
	struct wait w = {
		.party = draw_below(seed, PARTIES),
		.mode = draw_below(seed, 2) == 0 ? SHARED : EXCLUSIVE,
		.from = draw_below(seed, BYTES),
	};

	/* Owners of ranges are asked more, or the others keep them out. */
	w.party |= draw_below(seed, 4) > 0;
	w.to = w.from + draw_below(seed, BYTES - w.from);
	if (dice < 50) {
		random_acquire(f, m, w, seed);
	} else if (dice < 58) {
		random_test(f, m, w);
	} else if (dice < 85) {
		random_release(f, m, w);
	} else if (dice < 98) {
		random_cancel(f, m, seed);
	} else {
		random_end(f, m, m->parties[w.party].who.node, dice == 98);
	}
}

static void machine_and_naive_model_agree_at_every_step(void **state)
{
	for (uint64_t first = 1; first <= SEEDS; first++) {
		struct state_fixture *f = fixture_new(NULL, NODES);
		struct taking t = {0};
		struct model m;
		uint64_t seed = first;

		model_init(&m);
		for (unsigned step = 0; step < STEPS; step++) {
			random_step(f, &m, &seed);
			assert_same(f, &m);
			snapshot_step(f, &t, &seed);
		}
		state_snapshot_free(t.snap);
		wire_buf_fini(&t.bytes);
		fixture_free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(machine_and_naive_model_agree_at_every_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
