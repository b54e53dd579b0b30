/*
 * record_lock_test.c - byte ranges: splitting, joining, replacing, waiting, and how they
 * live beside flock.
 */
#include "tests/unit/state_fixture.h"

static const struct who A = {1, 1}, B = {2, 1}, C = {3, 1}, D = {4, 1};

#define R(start, end) ((struct core_range){(start), (end)})
#define ALL CORE_RANGE_WHOLE

static size_t add_claims(struct state_fixture *f, const struct claim *c, char *text, size_t size)
{
	size_t used = 0;

	for (; c != NULL; c = c->next) {
		struct core_range r = claim_range(c);

		used += (size_t)snprintf(text + used, size - used, "%s%c%llu-", used > 0 ? " " : "",
			letter(f, c), (unsigned long long)r.start);
		if (r.end != CORE_RANGE_MAX) {
			used += (size_t)snprintf(
				text + used, size - used, "%llu", (unsigned long long)r.end);
		}
	}
	return used;
}

/* "A0-9 b20- < C5-6": node 1 holds bytes 0 to 9 exclusively, 2 shares from 20 on, 3 waits. */
static const char *ranges(struct state_fixture *f)
{
	static char text[512];
	const struct lock *l = lock_named(f, "x");
	size_t used = 0;

	text[0] = '\0';
	if (l == NULL) {
		return text;
	}
	used = add_claims(f, l->holders, text, sizeof text);
	if (l->waiters != NULL) {
		used += (size_t)snprintf(text + used, sizeof text - used, " < ");
		(void)add_claims(f, l->waiters, text + used, sizeof text - used);
	}
	return text;
}

#define assert_ranges(f, expected) assert_string_equal(ranges(f), (expected))

/* --- what one owner holds ----------------------------------------------------------------- */

static void an_unlock_of_the_middle_leaves_both_ends(void **state)
{
	struct state_fixture *f = *state;
	uint64_t token;

	acquire_range(f, A, "x", EX, R(0, 9));
	token = f->token;
	release_range(f, A, "x", R(3, 5));
	assert_ranges(f, "A0-2 A6-9");
	acquire_range(f, B, "x", EX | NB, R(3, 5));
	assert_status(f, ST_OK);
	assert_true(f->token > token);
	acquire_range(f, B, "x", EX | NB, R(2, 2));
	assert_status(f, ST_BUSY);
	release_range(f, A, "x", ALL);
	assert_ranges(f, "B3-5");
}

static void an_unlock_shrinks_from_either_end(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(10, 19));
	release_range(f, A, "x", R(0, 11));
	assert_ranges(f, "A12-19");
	release_range(f, A, "x", R(18, CORE_RANGE_MAX));
	assert_ranges(f, "A12-17");
	release_range(f, A, "x", R(0, 11));
	assert_ranges(f, "A12-17");
}

static void neighbours_of_one_mode_join(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", SH, R(0, 4));
	acquire_range(f, A, "x", SH, R(10, 14));
	acquire_range(f, A, "x", SH, R(5, 9));
	assert_ranges(f, "a0-14");
	acquire_range(f, A, "x", EX, R(15, CORE_RANGE_MAX));
	assert_ranges(f, "a0-14 A15-");
	assert_int_equal(state_session_of_node(f->state, 1)->n_claims, 2);
}

static void a_lock_in_the_other_mode_replaces_what_it_covers(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 9));
	acquire_range(f, A, "x", SH, R(3, 5));
	assert_ranges(f, "A0-2 A6-9 a3-5");
	acquire_range(f, B, "x", SH | NB, R(3, 5));
	assert_status(f, ST_OK);
	acquire_range(f, A, "x", EX | NB, R(3, 5));
	assert_status(f, ST_BUSY);
	release_range(f, B, "x", ALL);
	acquire_range(f, A, "x", EX | NB, R(4, 4));
	assert_ranges(f, "A0-2 A6-9 a3-3 a5-5 A4-4");
	acquire_range(f, A, "x", EX | NB, R(0, 9));
	assert_ranges(f, "A0-9");
}

static void what_is_held_is_granted_again_with_its_token(void **state)
{
	struct state_fixture *f = *state;
	uint64_t token;

	acquire_range(f, A, "x", EX, R(0, 9));
	token = f->token;
	acquire_range(f, A, "x", EX, R(2, 3));
	assert_status(f, ST_OK);
	assert_true(f->token == token);
	assert_ranges(f, "A0-9");
}

static void the_last_byte_has_no_neighbour_behind_it(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(CORE_RANGE_MAX, CORE_RANGE_MAX));
	acquire_range(f, A, "x", EX, R(0, 0));
	assert_int_equal(lock_named(f, "x")->n_holders, 2);
	acquire_range(f, A, "x", EX, R(1, CORE_RANGE_MAX - 1));
	assert_ranges(f, "A0-");
}

static void a_range_that_is_none_is_denied(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(5, 4));
	assert_status(f, ST_DENIED);
	acquire_range(f, A, "x", EX, R(0, CORE_RANGE_MAX + 1));
	assert_status(f, ST_DENIED);
	release_range(f, A, "x", R(5, 4));
	assert_status(f, ST_DENIED);
	assert_ranges(f, "");
}

/* --- waiting ------------------------------------------------------------------------------ */

static void a_wait_ends_when_all_of_its_range_is_free(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 9));
	acquire_range(f, B, "x", EX, R(5, 14));
	assert_status(f, ST_WAITING);
	release_range(f, A, "x", R(5, 8));
	assert_events(f, "");
	release_range(f, A, "x", R(9, 9));
	assert_events(f, "granted b");
	assert_ranges(f, "A0-4 B5-14");
}

/* Otherwise a steady stream of readers starves the writer for ever. */
static void a_reader_behind_a_waiting_writer_of_its_bytes_waits(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", SH, R(0, 9));
	acquire_range(f, B, "x", EX, R(5, 9));
	acquire_range(f, C, "x", SH, R(5, 5));
	assert_status(f, ST_WAITING);
	acquire_range(f, D, "x", SH, R(0, 4));
	assert_status(f, ST_OK); /* nobody waits for these */
	assert_ranges(f, "a0-9 d0-4 < B5-9 c5-5");
}

/* B waits for what A has; behind B, A would wait for itself. */
static void who_holds_does_not_queue_behind_who_waits_for_it(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", SH, R(0, 9));
	acquire_range(f, B, "x", EX, R(0, 19));
	acquire_range(f, A, "x", EX, R(0, 19));
	assert_status(f, ST_OK);
	assert_ranges(f, "A0-19 < B0-19");
}

/* C waits for B only, and B for A. */
static void nor_behind_who_waits_behind_those(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 0));
	acquire_range(f, B, "x", EX, R(0, 1));
	acquire_range(f, C, "x", EX, R(1, 2));
	assert_ranges(f, "A0-0 < B0-1 C1-2");
	acquire_range(f, A, "x", EX, R(2, 2));
	assert_status(f, ST_OK);
}

static void an_upgrade_waits_for_the_other_holders_and_keeps_what_it_has(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", SH, R(0, 9));
	acquire_range(f, B, "x", SH, R(0, 9));
	acquire_range(f, A, "x", EX, R(0, 4));
	assert_status(f, ST_WAITING);
	assert_ranges(f, "a0-9 b0-9 < A0-4");
	release_range(f, B, "x", ALL);
	assert_events(f, "granted a");
	assert_ranges(f, "a5-9 A0-4");
}

static void a_cancelled_upgrade_leaves_what_was_held(void **state)
{
	struct state_fixture *f = *state;
	uint64_t seq;

	acquire_range(f, A, "x", SH, R(0, 9));
	acquire_range(f, B, "x", SH, R(0, 9));
	acquire_range(f, A, "x", EX, R(0, 14));
	seq = f->answered_seq;
	acquire_range(f, C, "x", EX, R(12, 12));
	assert_status(f, ST_WAITING);
	cancel_range(f, A, "x", seq);
	assert_status(f, ST_CANCELLED);
	assert_events(f, "granted c");
	assert_ranges(f, "a0-9 b0-9 C12-12");
}

/* The asker is told of the grant: its cancel came too late. */
static void a_cancel_behind_the_grant_changes_nothing(void **state)
{
	struct state_fixture *f = *state;
	uint64_t seq;

	acquire_range(f, A, "x", EX, R(0, 9));
	acquire_range(f, B, "x", EX, R(0, 9));
	seq = f->answered_seq;
	release_range(f, A, "x", ALL);
	assert_events(f, "granted b");
	cancel_range(f, B, "x", seq);
	assert_status(f, ST_OK);
	assert_ranges(f, "B0-9");
}

static void threads_of_one_owner_wait_each_for_its_range(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 9));
	acquire_range(f, B, "x", EX, R(0, 4));
	acquire_range(f, B, "x", EX, R(5, 9));
	assert_ranges(f, "A0-9 < B0-4 B5-9");
	release_range(f, A, "x", R(5, 9));
	assert_ranges(f, "A0-4 B5-9 < B0-4");
	release_range(f, B, "x", R(5, 9));
	assert_ranges(f, "A0-4 < B0-4"); /* an unlock ends no wait */
	release_range(f, A, "x", ALL);
	assert_ranges(f, "B0-4");
}

/* B holds something from its first grant on, and passes C from then on. */
static void a_grant_lets_an_earlier_wait_of_its_owner_pass(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 9));
	acquire_range(f, D, "x", EX, R(20, 29));
	acquire_range(f, C, "x", EX, R(5, 29));
	acquire_range(f, B, "x", EX, R(10, 12)); /* only C is in the way */
	acquire_range(f, B, "x", EX, R(0, 0));
	assert_ranges(f, "A0-9 D20-29 < C5-29 B10-12 B0-0");
	release_range(f, A, "x", R(0, 0));
	assert_events(f, "granted b, granted b");
	assert_ranges(f, "A1-9 D20-29 B0-0 B10-12 < C5-29");
}

/* --- beside flock ------------------------------------------------------------------------- */

static void a_flock_is_a_lock_on_every_byte(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, A, "x", SH);
	acquire_range(f, B, "x", SH | NB, R(7, 7));
	assert_status(f, ST_OK);
	acquire_range(f, B, "x", EX | NB, R(7, 7));
	assert_status(f, ST_BUSY);
	acquire(f, A, "x", EX | NB);
	assert_status(f, ST_BUSY);
	assert_ranges(f, "b7-7"); /* as flock(2): a conversion that fails costs the lock */
	acquire(f, A, "x", EX);
	assert_status(f, ST_WAITING);
	release_range(f, B, "x", ALL);
	assert_events(f, "granted a");
	assert_ranges(f, "A0-");
}

static void owners_of_the_two_kinds_are_different_whatever_their_numbers(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, A, "x", EX);
	acquire_range(f, A, "x", EX | NB, R(0, 0));
	assert_status(f, ST_BUSY);
	release_range(f, A, "x", ALL);
	assert_ranges(f, "A0-");
	release(f, A, "x");
	acquire_range(f, A, "x", EX, R(0, 0));
	release(f, A, "x");
	assert_ranges(f, "A0-0");
}

static void both_kinds_wait_in_one_queue(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 0));
	acquire(f, B, "x", EX);
	acquire_range(f, C, "x", EX, R(5, 5));
	assert_ranges(f, "A0-0 < B0- C5-5");
	release_range(f, A, "x", ALL);
	assert_ranges(f, "B0- < C5-5");
	release(f, B, "x");
	assert_ranges(f, "C5-5");
}

/* --- the rest ----------------------------------------------------------------------------- */

static void a_test_changes_nothing(void **state)
{
	struct state_fixture *f = *state;
	uint64_t owner = state_session_of_node(f->state, 2)->id;
	const struct claim *c;

	acquire_range(f, A, "x", EX, R(10, 19));
	ask_range(f, B, "x", SH | NB, R(0, 10), true);
	assert_status(f, ST_BUSY);
	ask_range(f, B, "x", EX | NB, R(0, 9), true);
	assert_status(f, ST_OK);
	ask_range(f, B, "free", EX | NB, ALL, true);
	assert_status(f, ST_OK);
	assert_null(lock_named(f, "free"));
	assert_ranges(f, "A10-19");
	c = state_record_conflict(lock_named(f, "x"), owner, 1, R(0, 10), true);
	assert_non_null(c);
	assert_true(c->range[0].start == 10 && c->range[0].end == 19);
}

static void the_end_of_a_session_frees_all_its_ranges(void **state)
{
	struct state_fixture *f = *state;

	acquire_range(f, A, "x", EX, R(0, 0));
	acquire_range(f, A, "x", EX, R(2, 2));
	acquire_range(f, B, "x", EX, R(4, 4));
	acquire_range(f, A, "x", EX, R(4, 9));
	acquire_range(f, C, "x", EX, R(0, 2));
	end_session(f, 1, true);
	assert_events(f, "dropped a, dropped a, dropped a, granted c, expired 1");
	assert_ranges(f, "B4-4 C0-2");
}

static void the_value_is_for_who_holds_all_of_it_exclusively(void **state)
{
	struct state_fixture *f = *state;

	for (unsigned shared = 0; shared < 2; shared++) {
		Wire__LockSetValue op = WIRE__LOCK_SET_VALUE__INIT;
		Wire__Command cmd;

		acquire_range(f, A, "x", shared ? SH : EX, ALL);
		op.name = bytes_of("x");
		op.owner = A.owner;
		op.kind = WIRE__LOCK_KIND__RECORD;
		op.value = bytes_of("value");
		cmd = command_of(f, A.node);
		cmd.op_case = WIRE__COMMAND__OP_LOCK_SET_VALUE;
		cmd.lock_set_value = &op;
		apply(f, &cmd);
		assert_status(f, shared ? ST_DENIED : ST_OK);
		assert_int_equal(lock_named(f, "x")->value_len, 5); /* a conversion keeps it */
	}
	release_range(f, A, "x", R(0, 0));
	assert_int_equal(lock_named(f, "x")->value_len, 5);
	release_range(f, A, "x", ALL);
	assert_ranges(f, "");
}

static void a_lock_with_ranges_has_a_limit_of_claims(void **state)
{
	struct state_limits limits;
	struct state_fixture *f;

	(void)state;
	state_limits_default(&limits);
	limits.records_max = 3;
	f = fixture_new(&limits, 4);
	acquire_range(f, A, "x", EX, R(0, 0));
	acquire_range(f, A, "x", EX, R(2, 2));
	acquire_range(f, B, "x", EX, R(4, 4));
	acquire_range(f, C, "x", EX | NB, R(6, 6));
	assert_status(f, ST_NO_SPACE);
	acquire_range(f, C, "x", EX, R(0, 0));
	assert_status(f, ST_NO_SPACE);
	acquire(f, D, "x", EX);
	assert_status(f, ST_NO_SPACE);
	release_range(f, B, "x", ALL);
	acquire_range(f, C, "x", EX | NB, R(6, 6));
	assert_status(f, ST_OK);
	fixture_free(f);
}

static void a_session_has_a_limit_that_an_unlock_keeps_too(void **state)
{
	struct state_limits limits;
	struct state_fixture *f;

	(void)state;
	state_limits_default(&limits);
	limits.session_claims_max = 3;
	f = fixture_new(&limits, 4);
	acquire_range(f, A, "x", EX, R(0, 9));
	acquire_range(f, A, "x", EX, R(20, 29));
	release_range(f, A, "x", R(5, 5));
	assert_ranges(f, "A0-4 A6-9 A20-29");
	release_range(f, A, "x", R(2, 2));
	assert_status(f, ST_NO_SPACE);
	acquire_range(f, A, "x", EX, R(40, 40));
	assert_status(f, ST_NO_SPACE);
	assert_ranges(f, "A0-4 A6-9 A20-29");
	release_range(f, A, "x", R(20, 25));
	assert_ranges(f, "A0-4 A6-9 A26-29");
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_test_with_state(an_unlock_of_the_middle_leaves_both_ends),
		unit_test_with_state(an_unlock_shrinks_from_either_end),
		unit_test_with_state(neighbours_of_one_mode_join),
		unit_test_with_state(a_lock_in_the_other_mode_replaces_what_it_covers),
		unit_test_with_state(what_is_held_is_granted_again_with_its_token),
		unit_test_with_state(the_last_byte_has_no_neighbour_behind_it),
		unit_test_with_state(a_range_that_is_none_is_denied),
		unit_test_with_state(a_wait_ends_when_all_of_its_range_is_free),
		unit_test_with_state(a_reader_behind_a_waiting_writer_of_its_bytes_waits),
		unit_test_with_state(who_holds_does_not_queue_behind_who_waits_for_it),
		unit_test_with_state(nor_behind_who_waits_behind_those),
		unit_test_with_state(an_upgrade_waits_for_the_other_holders_and_keeps_what_it_has),
		unit_test_with_state(a_cancelled_upgrade_leaves_what_was_held),
		unit_test_with_state(a_cancel_behind_the_grant_changes_nothing),
		unit_test_with_state(threads_of_one_owner_wait_each_for_its_range),
		unit_test_with_state(a_grant_lets_an_earlier_wait_of_its_owner_pass),
		unit_test_with_state(a_flock_is_a_lock_on_every_byte),
		unit_test_with_state(owners_of_the_two_kinds_are_different_whatever_their_numbers),
		unit_test_with_state(both_kinds_wait_in_one_queue),
		unit_test_with_state(a_test_changes_nothing),
		unit_test_with_state(the_end_of_a_session_frees_all_its_ranges),
		unit_test_with_state(the_value_is_for_who_holds_all_of_it_exclusively),
		cmocka_unit_test(a_lock_with_ranges_has_a_limit_of_claims),
		cmocka_unit_test(a_session_has_a_limit_that_an_unlock_keeps_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
