/*
 * session_test.c - members, sessions, incarnations and sequence numbers, as
 * core/state/state.h tells them.
 */
#include "tests/unit/state_fixture.h"

#include <time.h>

#include "coordfs/status.h"

static const uint8_t uuid_1[16] = "first directory";
static const uint8_t uuid_2[16] = "other directory";

/* --- opening ------------------------------------------------------------------------------ */

static void session_and_view_are_named_by_the_opening_entry(void **state)
{
	struct state_fixture *f = *state;
	const struct session *s;

	open_session(f, 5, false);
	assert_events(f, "opened 5");
	s = state_session_of_node(f->state, 5);
	assert_int_equal(s->id, f->index);
	assert_int_equal(s->incarnation, f->index);
	assert_int_equal(s->last_seq, 0);
	assert_int_equal(s->ttl_ms, 5000);
	assert_int_equal(s->opened_unix_ms, f->unix_ms);
	assert_int_equal(state_epoch(f->state), f->index);
	assert_int_equal(state_n_sessions(f->state), 5);
	assert_ptr_equal(state_session(f->state, s->id), s);
}

static void sessions_are_listed_by_id(void **state)
{
	struct state_fixture *f = *state;
	const struct session *s;
	uint64_t last = 0;
	size_t n = 0;

	open_session(f, 2, false); /* anew: the last one now */
	for (s = state_sessions(f->state); s != NULL; s = s->next) {
		assert_true(s->id > last);
		last = s->id;
		n++;
	}
	assert_int_equal(n, 4);
	assert_int_equal(state_session(f->state, last)->node, 2);
}

static void open_that_came_twice_is_one_open(void **state)
{
	struct state_fixture *f = *state;
	uint64_t id = state_session_of_node(f->state, 1)->id;
	uint64_t epoch = state_epoch(f->state);

	acquire(f, ann, "x", EX);
	for (unsigned resume = 0; resume <= 1; resume++) {
		f->nodes[1].nonce--;
		open_session(f, 1, resume == 1);
		assert_events(f, "");
	}
	assert_int_equal(state_session_of_node(f->state, 1)->id, id);
	assert_int_equal(state_epoch(f->state), epoch);
	assert_lock(f, "x", "A");
}

static void open_without_resume_ends_the_live_session_first(void **state)
{
	struct state_fixture *f = *state;
	uint64_t old = f->nodes[1].session;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", EX);
	open_session(f, 1, false);
	assert_events(f, "dropped a, granted b, closed 1, opened 1");
	assert_null(state_session(f->state, old));
	assert_int_equal(state_n_sessions(f->state), 4);
	assert_int_equal(state_epoch(f->state), f->index);
}

static void resume_keeps_the_session_and_drops_what_descriptors_held(void **state)
{
	struct state_fixture *f = *state;
	const struct who ann2 = {1, 2};
	uint64_t old = f->nodes[1].session;
	uint64_t opened_unix_ms = state_session(f->state, old)->opened_unix_ms;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "y", EX);
	acquire(f, ann2, "y", EX); /* waits */
	acquire(f, bob, "x", EX);  /* bob again: denied */
	acquire(f, cid, "x", EX);
	open_session(f, 1, true);
	assert_events(f, "dropped a, dropped a2, granted c, resumed 1");
	assert_int_equal(f->nodes[1].session, old);
	assert_int_equal(f->nodes[1].incarnation, f->index);
	assert_int_equal(state_epoch(f->state), f->index);
	assert_int_equal(state_session(f->state, old)->opened_unix_ms, opened_unix_ms);
	assert_lock(f, "y", "B");
	acquire(f, ann, "z", EX); /* seq 1 again */
	assert_status(f, ST_OK);
}

static void resume_without_a_live_session_opens_one(void **state)
{
	struct state_fixture *f = *state;

	open_session(f, 5, true);
	assert_events(f, "opened 5");
}

/* A copy of an old open that was on its way for long must not end a session with a good lease. */
static void open_that_replaces_another_incarnation_has_no_effect(void **state)
{
	struct state_fixture *f = *state;
	Wire__SessionOpen open = WIRE__SESSION_OPEN__INIT;

	acquire(f, ann, "x", EX);
	open.node = 1;
	open.nonce = 99;
	open_with(f, &open);
	assert_events(f, "");
	open.replaces = f->nodes[1].incarnation + 1;
	open.resume = true;
	open_with(f, &open);
	assert_events(f, "");
	assert_lock(f, "x", "A");
	open.replaces = f->nodes[1].incarnation;
	open_with(f, &open);
	assert_events(f, "dropped a, resumed 1");
}

static void node_0_gets_no_session(void **state)
{
	struct state_fixture *f = *state;

	open_session(f, 0, false);
	assert_events(f, "");
	assert_int_equal(state_n_sessions(f->state), 4);
}

/* --- members ------------------------------------------------------------------------------ */

static void open_as(struct state_fixture *f, uint64_t node, const uint8_t *uuid, size_t len)
{
	Wire__SessionOpen open = WIRE__SESSION_OPEN__INIT;
	const struct session *live = state_session_of_node(f->state, node);

	open.node = node;
	open.nonce = ++f->nodes[node].nonce;
	open.uuid = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)uuid, .len = len};
	open.replaces = live != NULL ? live->incarnation : 0;
	open_with(f, &open);
}

static void node_id_belongs_to_the_first_data_directory(void **state)
{
	struct state_fixture *f = *state;

	assert_null(state_member_uuid(f->state, 6));
	open_as(f, 6, uuid_1, 16);
	assert_events(f, "opened 6");
	assert_memory_equal(state_member_uuid(f->state, 6), uuid_1, 16);
	open_as(f, 6, uuid_2, 16);
	assert_events(f, "");
	end_session(f, 6, true);
	open_as(f, 6, uuid_2, 16);
	assert_events(f, "");
	assert_null(state_session_of_node(f->state, 6));
	open_as(f, 6, uuid_1, 16);
	assert_events(f, "opened 6");
}

static void uuid_of_another_length_is_none(void **state)
{
	struct state_fixture *f = *state;

	open_as(f, 6, uuid_1, 15);
	assert_events(f, "opened 6");
	assert_null(state_member_uuid(f->state, 6));
	open_as(f, 6, uuid_2, 16);
	assert_memory_equal(state_member_uuid(f->state, 6), uuid_2, 16);
}

static void highest_node_id_outlives_the_session(void **state)
{
	struct state_fixture *f = *state;

	open_session(f, 7, false);
	end_session(f, 7, false);
	open_session(f, 5, false);
	assert_int_equal(state_member_max(f->state), 7);
}

/* --- ending ------------------------------------------------------------------------------- */

static void end_drops_all_then_grants_in_order_of_the_claims(void **state)
{
	struct state_fixture *f = *state;
	const struct who ann2 = {1, 2}, bob2 = {2, 2};

	acquire(f, ann2, "y", SH);
	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", EX);
	acquire(f, bob2, "y", EX);
	acquire(f, ann2, "y", SH);
	end_session(f, 1, true);
	assert_events(f, "dropped a2, dropped a, granted b2, granted b, expired 1");
	assert_false(f->answered);
	assert_int_equal(state_epoch(f->state), f->index);
	assert_null(state_session_of_node(f->state, 1));
}

/* Both of the session's: it must not be granted to the dead. */
static void holder_and_waiters_of_one_session_go_together(void **state)
{
	struct state_fixture *f = *state;
	const struct who ann2 = {1, 2}, ann3 = {1, 3};

	acquire(f, ann, "x", EX);
	acquire(f, ann2, "x", EX);
	acquire(f, ann3, "x", SH);
	end_session(f, 1, false);
	assert_events(f, "dropped a, dropped a2, dropped a3, closed 1");
	assert_int_equal(state_n_locks(f->state), 0);
}

static void end_of_a_former_incarnation_has_no_effect(void **state)
{
	struct state_fixture *f = *state;
	struct node_fixture old = f->nodes[1];

	open_session(f, 1, true);
	acquire(f, ann, "x", EX);
	f->nodes[1].incarnation = old.incarnation;
	end_session(f, 1, true);
	assert_events(f, "");
	assert_lock(f, "x", "A");
}

/* --- sequence numbers --------------------------------------------------------------------- */

static void command_that_came_twice_is_one_command(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	assert_status(f, ST_OK);
	release(f, ann, "x");
	f->nodes[1].seq = 0;
	acquire(f, ann, "x", EX);
	assert_false(f->answered);
	assert_lock(f, "x", "");
	assert_int_equal(state_session_of_node(f->state, 1)->last_seq, 2);
}

static void command_that_came_too_early_is_none(void **state)
{
	struct state_fixture *f = *state;

	f->nodes[1].seq = 1;
	acquire(f, ann, "x", EX); /* 2, and there was no 1 */
	assert_false(f->answered);
	assert_lock(f, "x", "");
	f->nodes[1].seq = 0;
	acquire(f, ann, "x", EX);
	assert_status(f, ST_OK);
	assert_int_equal(f->answered_seq, 1);
}

static void command_of_a_former_incarnation_is_none(void **state)
{
	struct state_fixture *f = *state;
	struct node_fixture old = f->nodes[1];

	open_session(f, 1, true);
	f->nodes[1] = old;
	acquire(f, ann, "x", EX);
	assert_false(f->answered);
}

static void command_of_an_ended_or_unknown_session_is_none(void **state)
{
	struct state_fixture *f = *state;

	end_session(f, 1, true);
	acquire(f, ann, "x", EX);
	assert_false(f->answered);
	f->nodes[1].session = 12345;
	acquire(f, ann, "x", EX);
	assert_false(f->answered);
}

static void refused_command_counts(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "", EX);
	assert_status(f, ST_DENIED);
	assert_int_equal(state_session_of_node(f->state, 1)->last_seq, 1);
}

static void entries_that_are_no_commands_move_the_index(void **state)
{
	struct state_fixture *f = *state;

	f->index += 10;
	state_skip(f->state, f->index);
	assert_int_equal(state_index(f->state), f->index);
	acquire(f, ann, "x", EX);
	assert_int_equal(f->token >> LOCK_TOKEN_SHIFT, f->index);
}

/* --- hooks and size ----------------------------------------------------------------------- */

static void machine_without_hooks_tells_nobody(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", EX);
	state_set_hooks(f->state, NULL);
	open_session(f, 1, false);
	assert_events(f, "");
	assert_lock(f, "x", "B");
}

static double seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* CPU seconds to end a session with `n` claims, for which as many others wait. */
static double end_with(uint64_t n)
{
	struct state_fixture *f = fixture_new(NULL, 2);
	char name[24];
	double start;

	f->unchecked = true;
	for (uint64_t i = 1; i <= n; i++) {
		(void)snprintf(name, sizeof name, "%llu", (unsigned long long)i);
		acquire(f, (struct who){1, i}, name, EX);
		acquire(f, (struct who){2, i}, name, EX);
	}
	start = seconds();
	end_session(f, 1, true);
	start = seconds() - start;
	assert_int_equal(state_session_of_node(f->state, 2)->n_claims, n);
	state_check(f->state);
	fixture_free(f);
	return start;
}

/* Four times as many may take some more than four times as long (caches), never sixteen times. */
static void end_of_a_large_session_takes_linear_time(void **state)
{
	double few = end_with(20000);
	double many = end_with(80000);

	assert_true(many < 10 * few + 0.01);
}

static void every_status_has_a_name_of_its_own(void **state)
{
	for (unsigned a = 0; a < ST_MAX_; a++) {
		assert_true(strlen(status_name((enum status)a)) > 0);
		for (unsigned b = 0; b < a; b++) {
			assert_string_not_equal(
				status_name((enum status)a), status_name((enum status)b));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_test_with_state(session_and_view_are_named_by_the_opening_entry),
		unit_test_with_state(sessions_are_listed_by_id),
		unit_test_with_state(open_that_came_twice_is_one_open),
		unit_test_with_state(open_without_resume_ends_the_live_session_first),
		unit_test_with_state(resume_keeps_the_session_and_drops_what_descriptors_held),
		unit_test_with_state(resume_without_a_live_session_opens_one),
		unit_test_with_state(open_that_replaces_another_incarnation_has_no_effect),
		unit_test_with_state(node_0_gets_no_session),
		unit_test_with_state(node_id_belongs_to_the_first_data_directory),
		unit_test_with_state(uuid_of_another_length_is_none),
		unit_test_with_state(highest_node_id_outlives_the_session),
		unit_test_with_state(end_drops_all_then_grants_in_order_of_the_claims),
		unit_test_with_state(holder_and_waiters_of_one_session_go_together),
		unit_test_with_state(end_of_a_former_incarnation_has_no_effect),
		unit_test_with_state(command_that_came_twice_is_one_command),
		unit_test_with_state(command_that_came_too_early_is_none),
		unit_test_with_state(command_of_a_former_incarnation_is_none),
		unit_test_with_state(command_of_an_ended_or_unknown_session_is_none),
		unit_test_with_state(refused_command_counts),
		unit_test_with_state(entries_that_are_no_commands_move_the_index),
		unit_test_with_state(machine_without_hooks_tells_nobody),
		cmocka_unit_test(end_of_a_large_session_takes_linear_time),
		cmocka_unit_test(every_status_has_a_name_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
