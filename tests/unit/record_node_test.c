/*
 * record_node_test.c - operations on byte ranges: who is told what, and when, where giving up, a
 * grant, a lost session and a snapshot cross each other.
 */
#include "tests/unit/node_fixture.h"

#include "core/wire.h"

#define R(start, end) ((struct core_range){(start), (end)})

static int setup(void **state)
{
	*state = world_new(3);
	elect(*state, 1);
	return 0;
}

static int teardown(void **state)
{
	world_free(*state);
	return 0;
}

static void range_now(
	struct world *w, uint64_t id, uint64_t owner, enum how how, struct core_range range)
{
	struct ask ask;

	lock_range(w, id, "x", owner, how, range, &ask);
	settle(w);
	assert_answer(&ask, ST_OK);
}

static void expect(struct world *w, uint64_t id, uint64_t owner, enum how how,
	struct core_range range, enum status expected)
{
	struct ask ask;

	lock_range(w, id, "x", owner, how, range, &ask);
	settle(w);
	assert_answer(&ask, expected);
}

static void threads_of_one_owner_ask_at_the_same_time(void **state)
{
	struct world *w = *state;
	struct ask first, second, third;

	range_now(w, 3, 8, EX, R(0, 9));
	lock_range(w, 2, "x", 7, EX, R(0, 4), &first);
	lock_range(w, 2, "x", 7, EX, R(5, 9), &second);
	lock_range(w, 2, "x", 7, EX_NB, R(20, 29), &third);
	settle(w);
	assert_answer(&third, ST_OK);
	assert_waits(&first);
	unlock_range(w, 3, "x", 8, R(5, 9));
	settle(w);
	assert_waits(&first);
	assert_answer(&second, ST_OK);
	unlock_range(w, 3, "x", 8, R(0, 4));
	settle(w);
	assert_answer(&first, ST_OK);
}

static void a_wait_given_up_is_cancelled_and_leaves_what_was_held(void **state)
{
	struct world *w = *state;
	struct ask ask;

	range_now(w, 3, 8, SH, R(0, 9));
	range_now(w, 2, 7, SH, R(0, 9));
	lock_range(w, 2, "x", 7, EX, R(0, 9), &ask);
	settle(w);
	assert_lock(w, "x", 2, 1);
	give_up(w, 2, &ask);
	settle(w);
	assert_answer(&ask, ST_CANCELLED);
	assert_lock(w, "x", 2, 0);
	expect(w, 3, 8, EX_NB, R(0, 9), ST_BUSY);
}

/* Its acquire is on the way: the cancel follows when the log has it waiting. */
static void a_wait_given_up_on_its_way_is_cancelled(void **state)
{
	struct world *w = *state;
	struct ask ask;

	range_now(w, 3, 8, EX, R(0, 9));
	lock_range(w, 2, "x", 7, EX, R(0, 9), &ask);
	give_up(w, 2, &ask);
	give_up(w, 2, &ask);
	assert_waits(&ask);
	settle(w);
	assert_answer(&ask, ST_CANCELLED);
	assert_lock(w, "x", 1, 0);
}

static void a_grant_before_the_cancel_is_told(void **state)
{
	struct world *w = *state;
	struct ask ask;

	range_now(w, 3, 8, EX, R(0, 9));
	lock_range(w, 2, "x", 7, EX, R(0, 9), &ask);
	settle(w);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT);
	unlock_range(w, 3, "x", 8, R(0, 9));
	settle(w);
	assert_int_equal(holder_node(w, 1, "x"), 2); /* which does not know it */
	give_up(w, 2, &ask);
	(void)release(w, 1, 2);
	settle(w);
	assert_answer(&ask, ST_OK);
	assert_lock(w, "x", 1, 0);
}

static void a_lost_session_ends_what_was_given_up(void **state)
{
	struct world *w = *state;
	struct ask ask, stays;

	range_now(w, 3, 8, EX, R(0, 9));
	lock_range(w, 2, "x", 7, EX, R(0, 4), &ask);
	lock_range(w, 2, "x", 7, EX, R(5, 9), &stays);
	settle(w);
	isolate(w, 2);
	give_up(w, 2, &ask);
	settle(w);
	assert_waits(&ask);
	pass(w, 2 * TTL_MS);
	assert_answer(&ask, ST_CANCELLED);
	assert_waits(&stays); /* and queues again */
	heal(w);
	pass(w, 2 * TTL_MS);
	assert_lock(w, "x", 1, 1);
	unlock_range(w, 3, "x", 8, R(0, 9));
	settle(w);
	assert_answer(&stays, ST_OK);
}

static void a_test_tells_who_is_in_the_way(void **state)
{
	struct world *w = *state;
	struct core_conflict conflict = {0};
	struct ask ask;

	range_now(w, 2, 7, EX, R(10, 19));
	test_range(w, 2, "x", 9, SH_NB, R(0, 100), &conflict, &ask);
	settle(w);
	assert_answer(&ask, ST_BUSY);
	assert_false(conflict.shared);
	assert_int_equal(conflict.range.start, 10);
	assert_int_equal(conflict.range.end, 19);
	assert_int_equal(conflict.pid, 102);
	test_range(w, 3, "x", 9, SH_NB, R(0, 100), &conflict, &ask);
	settle(w);
	assert_answer(&ask, ST_BUSY);
	assert_int_equal(conflict.pid, 0); /* another node's */
	unlock_range(w, 2, "x", 7, R(0, 100));
	test_range(w, 2, "x", 9, EX_NB, R(0, 100), &conflict, &ask); /* right behind it */
	settle(w);
	assert_answer(&ask, ST_OK);
	assert_lock(w, "x", 0, 0);
}

static void a_question_of_a_node_cut_off_times_out(void **state)
{
	struct world *w = *state;
	struct core_conflict conflict;
	struct ask asks[2];

	isolate(w, 2);
	test_range(w, 2, "x", 7, EX_NB, R(0, 9), &conflict, &asks[0]);
	lock_range(w, 2, "x", 7, EX_NB, R(0, 9), &asks[1]);
	pass(w, w->options.timeo_ms + 2 * TTL_MS);
	assert_answer(&asks[0], ST_TIMEOUT);
	assert_answer(&asks[1], ST_TIMEOUT);
	heal(w);
	pass(w, 2 * TTL_MS);
	assert_lock(w, "x", 0, 0);
}

static int setup_small_log(void **state)
{
	struct world *w = world_new(3);

	for (uint64_t id = 1; id <= 3; id++) {
		crash(w, id);
		w->options.snapshot_log_bytes = 20000;
		w->options.raft.trailing_entries = 10;
		restart(w, id);
	}
	*state = w;
	elect(w, 1);
	return 0;
}

/* Node 2 does not hear, and what it would have heard is then part of a snapshot. */
static void fall_behind(struct world *w)
{
	for (unsigned i = 0; i < 240; i++) {
		struct ask ask;

		lock(w, 3, "churn", 1000 + i, EX, &ask);
		settle(w);
		unlock(w, 3, "churn", 1000 + i);
		if (i % 60 == 59) {
			pass(w, 500);
			lose(w, 1, 2);
			lose(w, 3, 2);
		}
	}
}

static void a_snapshot_settles_what_is_under_way(void **state)
{
	struct world *w = *state;
	uint64_t session = node_session(node_at(w, 2));
	struct ask granted, waits, busy, was_waiting, given_up;

	range_now(w, 3, 5, EX, R(0, 9));
	range_now(w, 3, 5, EX, R(20, 29));
	lock_range(w, 2, "x", 10, EX, R(0, 4), &was_waiting);
	lock_range(w, 2, "x", 10, EX, R(20, 22), &given_up);
	settle(w);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT);
	keep(w, 3, 2, WIRE__FRAME__BODY_RAFT);
	lock_range(w, 2, "x", 11, EX, R(50, 59), &granted);
	lock_range(w, 2, "x", 11, EX, R(25, 25), &waits);
	lock_range(w, 2, "x", 12, EX_NB, R(25, 25), &busy);
	give_up(w, 2, &given_up);
	settle(w);
	unlock_range(w, 3, "x", 5, R(0, 4));
	lose(w, 1, 2);
	fall_behind(w);
	assert_waits(&granted);
	(void)release(w, 1, 2);
	(void)release(w, 3, 2);
	pass(w, 3000);
	assert_true(raft_snapshot_index(node_raft(node_at(w, 2))) > 100);
	assert_int_equal(node_session(node_at(w, 2)), session);
	assert_answer(&granted, ST_OK);
	assert_answer(&was_waiting, ST_OK);
	assert_answer(&given_up, ST_CANCELLED);
	assert_answer(&busy, ST_BUSY);
	assert_waits(&waits);
	unlock_range(w, 3, "x", 5, CORE_RANGE_WHOLE);
	pass(w, 100);
	assert_answer(&waits, ST_OK);
}

#define node_test(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		node_test(threads_of_one_owner_ask_at_the_same_time),
		node_test(a_wait_given_up_is_cancelled_and_leaves_what_was_held),
		node_test(a_wait_given_up_on_its_way_is_cancelled),
		node_test(a_grant_before_the_cancel_is_told),
		node_test(a_lost_session_ends_what_was_given_up),
		node_test(a_test_tells_who_is_in_the_way),
		node_test(a_question_of_a_node_cut_off_times_out),
		cmocka_unit_test_setup_teardown(
			a_snapshot_settles_what_is_under_way, setup_small_log, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
