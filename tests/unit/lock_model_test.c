/*
 * lock_model_test.c - random commands against a second, naive machine.
 *
 * The model keeps one list of requests per lock, in order of arrival, each
 * granted or not, and looks at everything at every step. It has no hashes,
 * lists of sessions or counters that could be wrong in the same way.
 */
#include "tests/unit/state_fixture.h"

enum {
	NODES = 3,
	OWNERS = 3, /* per node */
	LOCKS = 2,
	REQUESTS = NODES * OWNERS,
	STEPS = 400,
	SEEDS = 400,
};

struct request {
	struct who who;
	uint64_t seq;
	uint64_t order; /* of the grant; 0: waits */
	bool shared;
};

struct model_lock {
	struct request requests[REQUESTS]; /* in order of arrival */
	size_t n;
	bool has_value;
};

struct model {
	struct model_lock locks[LOCKS];
	uint64_t grants;
};

static const char *const names[LOCKS] = {"x", "y"};

/* --- the model ---------------------------------------------------------------------------- */

static bool same(struct who a, struct who b)
{
	return a.node == b.node && a.owner == b.owner;
}

static struct request *request_of(struct model_lock *l, struct who who)
{
	for (size_t i = 0; i < l->n; i++) {
		if (same(l->requests[i].who, who)) {
			return &l->requests[i];
		}
	}
	return NULL;
}

static size_t n_holders(const struct model_lock *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		n += l->requests[i].order != 0;
	}
	return n;
}

static bool fits(const struct model_lock *l, bool shared)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->requests[i].order != 0 && !(shared && l->requests[i].shared)) {
			return false;
		}
	}
	return true;
}

/* Whoever is first in the queue and fits, again and again. */
static void settle(struct model *m, struct model_lock *l)
{
	if (n_holders(l) == 0) {
		l->has_value = false;
	}
	for (size_t i = 0; i < l->n; i++) {
		if (l->requests[i].order == 0) {
			if (!fits(l, l->requests[i].shared)) {
				return;
			}
			l->requests[i].order = ++m->grants;
		}
	}
}

static void withdraw(struct model_lock *l, struct request *r)
{
	size_t at = (size_t)(r - l->requests);

	memmove(r, r + 1, (l->n - at - 1) * sizeof *r);
	l->n--;
}

static enum status model_acquire(
	struct model *m, struct model_lock *l, struct who who, unsigned how, uint64_t seq)
{
	bool shared = (how & EX) == 0;
	struct request *r = request_of(l, who);
	bool waits;

	if (r != NULL && r->order != 0 && r->shared == shared) {
		return ST_OK;
	}
	if (r != NULL && r->order != 0 && (shared || n_holders(l) == 1)) {
		r->order = shared ? r->order : ++m->grants;
		r->shared = shared;
		r->seq = seq;
		settle(m, l);
		return ST_OK;
	}
	if (r != NULL) {
		withdraw(l, r);
		settle(m, l);
	}
	waits = l->n > n_holders(l) || !fits(l, shared);
	if (waits && (how & NB) != 0) {
		return ST_BUSY;
	}
	l->requests[l->n++] = (struct request){who, seq, waits ? 0 : ++m->grants, shared};
	return waits ? ST_WAITING : ST_OK;
}

static void model_end(struct model *m, struct who who, uint64_t seq)
{
	for (size_t i = 0; i < LOCKS; i++) {
		struct request *r = request_of(&m->locks[i], who);

		if (r != NULL && (seq == 0 || r->seq == seq)) {
			withdraw(&m->locks[i], r);
			settle(m, &m->locks[i]);
		}
	}
}

static void model_end_session(struct model *m, uint64_t node)
{
	for (size_t i = 0; i < LOCKS; i++) {
		struct model_lock *l = &m->locks[i];

		for (size_t k = l->n; k-- > 0;) {
			if (l->requests[k].who.node == node) {
				withdraw(l, &l->requests[k]);
			}
		}
		settle(m, l);
	}
}

/* --- comparing ---------------------------------------------------------------------------- */

static void assert_same_claims(
	struct state_fixture *f, struct model_lock *l, const struct lock *real)
{
	const struct claim *c, *before = NULL;

	DL_FOREACH (real->holders, c) {
		struct who who = {state_session(f->state, c->session)->node, c->owner};
		struct request *r = request_of(l, who);

		assert_non_null(r);
		assert_true(r->order != 0);
		assert_int_equal(r->shared, c->shared);
		assert_int_equal(r->seq, c->seq);
		if (before != NULL) { /* both know the same order of grants */
			struct who earlier = {
				state_session(f->state, before->session)->node, before->owner};

			assert_true(request_of(l, earlier)->order < r->order);
		}
		before = c;
	}
}

static void assert_same_queue(
	struct state_fixture *f, const struct model_lock *l, const struct lock *real)
{
	const struct claim *c = real->waiters;

	for (size_t i = 0; i < l->n; i++) {
		const struct request *r = &l->requests[i];

		if (r->order != 0) {
			continue;
		}
		assert_non_null(c);
		assert_int_equal(state_session(f->state, c->session)->node, r->who.node);
		assert_int_equal(c->owner, r->who.owner);
		assert_int_equal(c->shared, r->shared);
		assert_int_equal(c->seq, r->seq);
		c = c->next;
	}
	assert_null(c);
}

static void assert_same(struct state_fixture *f, struct model *m)
{
	for (size_t i = 0; i < LOCKS; i++) {
		const struct lock *real = lock_named(f, names[i]);

		if (m->locks[i].n == 0) {
			assert_null(real);
			continue;
		}
		assert_non_null(real);
		assert_int_equal(real->n_holders, n_holders(&m->locks[i]));
		assert_int_equal(real->n_holders + real->n_waiters, m->locks[i].n);
		assert_int_equal(real->value != NULL, m->locks[i].has_value);
		assert_same_claims(f, &m->locks[i], real);
		assert_same_queue(f, &m->locks[i], real);
	}
}

/* --- chance ------------------------------------------------------------------------------- */

static void random_acquire(
	struct state_fixture *f, struct model *m, struct who who, size_t i, uint64_t *seed)
{
	unsigned how = (unsigned)draw_below(seed, 4);
	bool elsewhere = request_of(&m->locks[1 - i], who) != NULL;

	acquire(f, who, names[i], how);
	assert_status(f,
		elsewhere ? ST_DENIED : model_acquire(m, &m->locks[i], who, how, f->answered_seq));
}

static void random_cancel(
	struct state_fixture *f, struct model *m, struct who who, size_t i, uint64_t *seed)
{
	struct request *r = request_of(&m->locks[i], who);
	uint64_t seq = r != NULL ? r->seq + draw_below(seed, 2) : 1;

	cancel(f, who, names[i], seq);
	assert_status(f, ST_OK);
	if (r != NULL) {
		model_end(m, who, seq);
	}
}

static void random_value(struct state_fixture *f, struct model *m, struct who who, size_t i)
{
	struct request *r = request_of(&m->locks[i], who);
	bool may = r != NULL && r->order != 0 && !r->shared;

	set_value(f, who, names[i], "value", 5);
	assert_status(f, may ? ST_OK : ST_DENIED);
	m->locks[i].has_value |= may;
}

static void random_step(struct state_fixture *f, struct model *m, uint64_t *seed)
{
	struct who who = {1 + draw_below(seed, NODES), 1 + draw_below(seed, OWNERS)};
	uint64_t dice = draw_below(seed, 100);
	size_t i = draw_below(seed, LOCKS);

	if (dice < 55) {
		random_acquire(f, m, who, i, seed);
	} else if (dice < 75) {
		release(f, who, names[i]);
		if (request_of(&m->locks[i], who) != NULL) {
			model_end(m, who, 0);
		}
	} else if (dice < 88) {
		random_cancel(f, m, who, i, seed);
	} else if (dice < 97) {
		random_value(f, m, who, i);
	} else {
		model_end_session(m, who.node);
		if (dice == 97) {
			end_session(f, who.node, true);
		}
		open_session(f, who.node, dice == 98);
	}
}

static void machine_and_naive_model_agree_at_every_step(void **state)
{
	for (uint64_t first = 1; first <= SEEDS; first++) {
		struct state_fixture *f = fixture_new(NULL, NODES);
		struct model m = {0};
		uint64_t seed = first;

		for (unsigned step = 0; step < STEPS; step++) {
			random_step(f, &m, &seed);
			assert_same(f, &m);
		}
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
