/*
 * node_test.c - a node alone: its session and lease, its commands, the operations of its
 * front-ends, as core/node.h and coordfs/core.h promise them.
 */
#include "tests/unit/node_fixture.h"

#include "core/wire.h"

static int setup(void **state)
{
	*state = world_new(3);
	elect(*state, 1);
	return 0;
}

static int setup_alone(void **state)
{
	*state = world_new(1);
	(void)settled_leader(*state);
	return 0;
}

static int teardown(void **state)
{
	world_free(*state);
	return 0;
}

static uint64_t lease_left(struct world *w, uint64_t id)
{
	uint64_t end = node_lease_end(node_at(w, id));

	return end > w->now ? end - w->now : 0;
}

/* Asks, is told at once, and nothing is left to do. */
static void lock_now(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how)
{
	struct ask ask;

	lock(w, id, name, owner, how, &ask);
	settle(w);
	assert_answer(&ask, ST_OK);
}

/* --- the lease --------------------------------------------------------------------------- */

/* An answer that takes long: the time that it took is not part of the lease. */
static void lease_runs_from_the_sending(void **state)
{
	struct world *w = *state;
	uint64_t sent;

	keep(w, 2, 1, WIRE__FRAME__BODY_KEEP_ALIVE);
	while (n_kept(w, 2, 1) == 0) {
		pass(w, 5);
	}
	sent = w->now;
	pass(w, 400); /* the next one is not sent before */
	assert_int_equal(n_kept(w, 2, 1), 1);
	assert_true(node_lease_end(node_at(w, 2)) < sent + TTL_MS - MARGIN_MS);
	(void)release(w, 2, 1);
	settle(w);
	assert_int_equal(node_lease_end(node_at(w, 2)), sent + TTL_MS - MARGIN_MS);
}

static void lease_is_over_before_the_others_are_granted(void **state)
{
	struct world *w = *state;
	struct ask other;

	lock_now(w, 2, "x", 7, EX);
	lock(w, 3, "x", 8, EX, &other);
	isolate(w, 2);
	while (other.answers == 0) {
		assert_int_equal(w->boxes[2].lost, w->boxes[2].lost > 0);
		pass(w, 5);
	}
	assert_answer(&other, ST_OK);
	assert_int_equal(w->boxes[2].lost, 1);
	assert_int_equal(core_lock_held(core_at(w, 2), 7, NULL), CORE_FREE);
}

static void end_of_the_lease_is_noticed_with_the_time(void **state)
{
	struct world *w = *state;

	lock_now(w, 2, "x", 7, EX);
	sleep_ms(w, lease_left(w, 2) - 1);
	notice(w, 2);
	assert_int_equal(w->boxes[2].lost, 0);
	sleep_ms(w, 1);
	notice(w, 2);
	assert_int_equal(w->boxes[2].lost, 1);
	assert_int_equal(core_lock_held(core_at(w, 2), 7, NULL), CORE_FREE);
}

/* The grant is applied in the same turn in which the process wakes up too late. */
static void grant_after_the_end_of_the_lease_is_not_delivered(void **state)
{
	struct world *w = *state;
	struct ask ask;

	lock_now(w, 3, "x", 8, EX);
	lock(w, 2, "x", 7, EX, &ask);
	settle(w);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT);
	unlock(w, 3, "x", 8);
	settle(w);
	assert_int_equal(holder_node(w, 1, "x"), 2);
	assert_true(release(w, 1, 2) > 0);
	notice(w, 2);
	hand_over(w, 2);
	sleep_ms(w, lease_left(w, 2));
	notice(w, 2);
	flush(w, 2);
	assert_waits(&ask);
	assert_int_equal(node_session(node_at(w, 2)), 0);
	(void)settled_leader(w);
	pass(w, 2 * TTL_MS);
	assert_answer(&ask, ST_OK);
	assert_lock(w, "x", 1, 0);
}

static void loss_of_the_session_queues_waiters_again_and_fails_values(void **state)
{
	struct world *w = *state;
	struct ask wait, value, idle;

	lock_now(w, 3, "x", 8, EX);
	lock_now(w, 2, "v", 5, EX);
	lock(w, 2, "x", 7, EX, &wait);
	settle(w);
	isolate(w, 2);
	set_value(w, 2, "v", 5, "hello", &value);
	lock(w, 2, "y", 9, EX_NB, &idle);
	pass(w, 2 * TTL_MS);
	assert_waits(&wait);
	assert_waits(&idle);
	assert_answer(&value, ST_LOST);
	assert_int_equal(holder_node(w, 1, "v"), 0);
	heal(w);
	(void)settled_leader(w);
	pass(w, 100);
	assert_answer(&idle, ST_OK);
	assert_waits(&wait);
	assert_lock(w, "x", 1, 1);
	unlock(w, 3, "x", 8);
	pass(w, 100);
	assert_answer(&wait, ST_OK);
	assert_int_equal(holder_node(w, 1, "x"), 2);
}

/* --- the session ------------------------------------------------------------------------- */

static void delayed_session_open_has_no_effect(void **state)
{
	struct world *w = *state;
	uint64_t session;

	isolate(w, 2);
	pass(w, 2 * TTL_MS);
	keep(w, 2, 1, WIRE__FRAME__BODY_PROPOSE);
	heal(w);
	while (n_kept(w, 2, 1) == 0) {
		pass(w, 5);
	}
	give_copies(w, 2, 1); /* it opens a session; what is kept is the delayed copy */
	settle(w);
	session = node_session(node_at(w, 2));
	assert_int_not_equal(session, 0);
	pass(w, 1000);
	lock(w, 2, "x", 7, EX, &(struct ask){0});
	give_copies(w, 2, 1);
	settle(w);
	assert_int_equal(holder_node(w, 1, "x"), 2);
	give_copies(w, 2, 1);
	settle(w);
	pass(w, 1000);
	assert_int_equal(node_session(node_at(w, 2)), session);
	assert_int_equal(holder_node(w, 1, "x"), 2);
}

static void restart_within_the_ttl_takes_the_session_up_and_reports_orphans(void **state)
{
	struct world *w = *state;
	uint64_t session = node_session(node_at(w, 2));
	struct ask wait, other;

	lock_now(w, 2, "x", 7, EX);
	lock_now(w, 3, "y", 8, EX);
	lock(w, 2, "y", 9, EX, &wait);
	settle(w);
	lock(w, 3, "x", 5, EX, &other);
	settle(w);
	crash(w, 2);
	restart(w, 2);
	(void)settled_leader(w);
	assert_int_equal(node_session(node_at(w, 2)), session);
	assert_int_equal(w->boxes[2].orphans, 1);
	settle(w);
	assert_answer(&other, ST_OK);
	assert_lock(w, "x", 1, 0);
	assert_lock(w, "y", 1, 0);
}

/* Two processes of one directory, copied: the first must not believe in what it held. */
static void session_taken_up_by_another_process_is_lost(void **state)
{
	struct world *w = *state;
	Wire__SessionOpen open = WIRE__SESSION_OPEN__INIT;
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__Propose propose = WIRE__PROPOSE__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;
	uint8_t packed[256];
	ProtobufCBinaryData data = {.data = packed};
	struct wire_buf out = {0};

	lock_now(w, 2, "x", 7, EX);
	open.node = 2;
	open.nonce = 12345;
	open.ttl_ms = TTL_MS;
	open.resume = true;
	open.replaces = state_session_of_node(node_state(node_at(w, 1)), 2)->incarnation;
	open.uuid = (ProtobufCBinaryData){.data = w->boxes[2].uuid, .len = 16};
	command.format = WIRE_FORMAT;
	command.op_case = WIRE__COMMAND__OP_SESSION_OPEN;
	command.session_open = &open;
	data.len = wire__command__pack(&command, packed);
	propose.n_commands = 1;
	propose.commands = &data;
	frame.body_case = WIRE__FRAME__BODY_PROPOSE;
	frame.propose = &propose;
	wire_encode_frame(&frame, &out);
	node_frame(node_at(w, 1), 2, out.data + WIRE_FRAME_HEADER_BYTES,
		out.len - WIRE_FRAME_HEADER_BYTES);
	wire_buf_fini(&out);
	settle(w);
	assert_int_equal(holder_node(w, 1, "x"), 0);
	assert_int_equal(w->boxes[2].lost, 1);
}

/* --- commands on their way --------------------------------------------------------------- */

static void commands_sent_again_take_effect_once(void **state)
{
	struct world *w = *state;
	struct ask ask, second;

	keep(w, 2, 1, WIRE__FRAME__BODY_PROPOSE);
	lock(w, 2, "x", 7, EX, &ask);
	assert_int_equal(n_kept(w, 2, 1), 1);
	give_copies(w, 2, 1);
	give_copies(w, 2, 1);
	settle(w);
	assert_answer(&ask, ST_OK);
	unlock(w, 2, "x", 7);
	assert_int_equal(n_kept(w, 2, 1), 2);
	give_copies(w, 2, 1);
	give_copies(w, 2, 1);
	settle(w);
	assert_lock(w, "x", 0, 0);
	assert_int_equal(release(w, 2, 1), 2);
	settle(w);
	lock(w, 2, "x", 7, EX, &second);
	settle(w);
	assert_answer(&second, ST_OK);
	assert_true(second.token > ask.token);
	assert_lock(w, "x", 1, 0);
}

/* The leader names what it misses: nobody waits for a timer. */
static void gap_is_refused_and_filled_at_once(void **state)
{
	struct world *w = *state;
	struct ask a, b;

	keep(w, 2, 1, WIRE__FRAME__BODY_PROPOSE);
	lock(w, 2, "x", 7, EX, &a);
	lose(w, 2, 1);
	(void)release(w, 2, 1);
	settle(w);
	assert_waits(&a);
	lock(w, 2, "y", 8, EX, &b);
	settle(w);
	assert_answer(&a, ST_OK);
	assert_answer(&b, ST_OK);
}

static void lost_command_is_sent_again_in_time(void **state)
{
	struct world *w = *state;
	struct ask ask;

	keep(w, 2, 1, WIRE__FRAME__BODY_PROPOSE);
	lock(w, 2, "x", 7, EX, &ask);
	lose(w, 2, 1);
	(void)release(w, 2, 1);
	pass(w, 1000);
	assert_answer(&ask, ST_OK);
}

static void commands_survive_the_death_of_the_leader_once_and_in_order(void **state)
{
	struct world *w = *state;
	struct ask first, again, other;

	lock_now(w, 2, "x", 7, EX);
	lock(w, 3, "x", 5, EX, &other);
	settle(w);
	cut(w, 1, 3);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT); /* so nothing of this commits */
	unlock(w, 2, "x", 7);
	lock(w, 2, "x", 7, EX, &again);
	lock(w, 2, "y", 8, EX, &first);
	settle(w);
	lose(w, 1, 2);
	(void)release(w, 1, 2);
	crash(w, 1);
	pass(w, 2000);
	assert_answer(&other, ST_OK); /* the unlock came first, and 3 was before us */
	assert_answer(&first, ST_OK);
	assert_waits(&again);
	assert_lock(w, "x", 1, 1);
	unlock(w, 3, "x", 5);
	pass(w, 100);
	assert_answer(&again, ST_OK);
}

static unsigned turns_to_lock(struct world *w, uint64_t id, unsigned n)
{
	struct ask *asks = xcalloc(n, sizeof *asks);
	unsigned turns = 0;

	for (unsigned i = 0; i < n; i++) {
		char name[16];

		(void)snprintf(name, sizeof name, "l%u", i);
		lock(w, id, name, 100 + i, EX, &asks[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		for (; asks[i].answers == 0; turns++) {
			assert_true(turns < 1000);
			pass(w, 5);
		}
		assert_answer(&asks[i], ST_OK);
	}
	free(asks);
	return turns;
}

static void many_commands_of_one_turn_take_few_turns(void **state)
{
	struct world *w = *state;

	assert_true(turns_to_lock(w, 2, 5000) < 20);
}

/* More than one Propose waits, and the leader, which is the same node, takes none. */
static void leader_with_a_full_disk_takes_its_turns_and_goes_on_later(void **state)
{
	struct world *w = *state;
	unsigned n = 3000;
	struct ask refused;

	for (unsigned i = 0; i < n; i++) {
		char name[16];

		(void)snprintf(name, sizeof name, "l%u", i);
		lock_now(w, 1, name, 100 + i, EX);
	}
	node_low_space(node_at(w, 1), true);
	notice(w, 1);
	for (unsigned i = 0; i < n; i++) {
		char name[16];

		(void)snprintf(name, sizeof name, "l%u", i);
		core_unlock(core_at(w, 1), (struct core_name){.bytes = name, .len = strlen(name)},
			core_flock_owner(100 + i), CORE_RANGE_WHOLE);
	}
	pass(w, 200);
	lock(w, 1, "z", 1, EX_NB, &refused);
	settle(w);
	assert_answer(&refused, ST_NO_SPACE);
	pass(w, 10000);
	assert_int_equal(state_n_locks(node_state(node_at(w, 1))), n);
	node_low_space(node_at(w, 1), false);
	pass(w, 2000);
	assert_int_equal(state_n_locks(node_state(node_at(w, 1))), 0);
}

/* The same over the network: it must not be asked again and again within a moment. */
static void refused_commands_are_not_sent_in_a_loop(void **state)
{
	struct world *w = *state;
	struct ask ask;
	size_t before;

	for (uint64_t id = 1; id <= 3; id++) {
		node_low_space(node_at(w, id), true);
	}
	pass(w, 1000);
	elect(w, 1);
	lock(w, 2, "x", 7, EX, &ask);
	before = w->n_frames;
	pass(w, 1000);
	assert_waits(&ask);
	assert_true(w->n_frames - before < 200);
	for (uint64_t id = 1; id <= 3; id++) {
		node_low_space(node_at(w, id), false);
	}
	pass(w, 1000);
	assert_answer(&ask, ST_OK);
}

/* A leader that hands over refuses everything for as long as that takes. */
static void commands_to_a_leader_that_hands_over_are_not_sent_in_a_loop(void **state)
{
	struct world *w = *state;
	struct ask ask;
	size_t before;

	keep(w, 1, 3, WIRE__FRAME__BODY_RAFT); /* so that it lasts */
	sleep_ms(w, 1);
	lock(w, 2, "y", 5, EX, &ask);
	settle(w);
	assert_int_equal(
		raft_transfer((struct raft *)(uintptr_t)node_raft(node_at(w, 1)), 3, w->now), 0);
	lock(w, 2, "x", 7, EX, &ask);
	before = w->n_frames;
	for (unsigned i = 0; i < 100; i++) {
		hand_over(w, 1);
		flush(w, 1);
		hand_over(w, 2);
		flush(w, 2);
	}
	assert_true(w->n_frames - before < 20);
	(void)release(w, 1, 3);
	pass(w, 2000);
	assert_answer(&ask, ST_OK);
}

/* --- giving up --------------------------------------------------------------------------- */

static void interrupt_before_the_grant_leaves_no_waiter(void **state)
{
	struct world *w = *state;
	struct ask ask;

	lock_now(w, 3, "x", 8, EX);
	lock(w, 2, "x", 7, EX, &ask);
	settle(w);
	assert_lock(w, "x", 1, 1);
	interrupt(w, 2, &ask);
	settle(w);
	assert_lock(w, "x", 1, 0);
	unlock(w, 3, "x", 8);
	settle(w);
	assert_lock(w, "x", 0, 0);
}

static void interrupt_after_the_grant_leaves_no_holder(void **state)
{
	struct world *w = *state;
	struct ask ask, other;

	lock_now(w, 3, "x", 8, EX);
	lock(w, 2, "x", 7, EX, &ask);
	settle(w);
	lock(w, 1, "x", 9, EX, &other);
	settle(w);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT);
	unlock(w, 3, "x", 8);
	settle(w);
	assert_int_equal(holder_node(w, 1, "x"), 2); /* which does not know it */
	interrupt(w, 2, &ask);
	(void)release(w, 1, 2);
	settle(w);
	assert_answer(&other, ST_OK);
	assert_answer(&ask, ST_CANCELLED);
	assert_lock(w, "x", 1, 0);
}

/* Applied, and the answer not given yet: the same turn. */
static void interrupt_between_grant_and_answer_leaves_no_holder(void **state)
{
	struct world *w = *state;
	struct ask ask;

	lock(w, 1, "x", 7, EX, &ask);
	isolate(w, 1);
	settle(w);
	interrupt(w, 1, &ask);
	heal(w);
	pass(w, 2000);
	assert_answer(&ask, ST_CANCELLED);
	assert_lock(w, "x", 0, 0);
}

static void interrupt_of_what_was_never_sent_leaves_nothing(void **state)
{
	struct world *w = *state;
	struct ask ask;

	isolate(w, 2);
	pass(w, 2 * TTL_MS);
	lock(w, 2, "x", 7, EX, &ask);
	pass(w, 100);
	interrupt(w, 2, &ask);
	heal(w);
	(void)settled_leader(w);
	pass(w, 1000);
	assert_lock(w, "x", 0, 0);
}

static void timeout_cancels(void **state)
{
	struct world *w = *state;
	struct ask ask;

	lock(w, 2, "x", 7, EX_NB, &ask);
	keep(w, 2, 1, WIRE__FRAME__BODY_PROPOSE);
	lose(w, 2, 1);
	while (ask.answers == 0) { /* keep-alives go on: the session lives */
		pass(w, 100);
	}
	assert_answer(&ask, ST_TIMEOUT);
	(void)release(w, 2, 1);
	pass(w, 2000);
	assert_answer(&ask, ST_TIMEOUT);
	assert_lock(w, "x", 0, 0);
}

static void second_request_of_an_owner_is_busy(void **state)
{
	struct world *w = *state;
	struct ask first, second, third;

	lock_now(w, 3, "x", 8, EX);
	lock(w, 2, "x", 7, EX, &first);
	lock(w, 2, "x", 7, EX, &second);
	settle(w);
	assert_waits(&first);
	assert_answer(&second, ST_BUSY);
	interrupt(w, 2, &first);
	lock(w, 2, "x", 7, EX, &third);
	unlock(w, 3, "x", 8);
	settle(w);
	assert_answer(&third, ST_OK);
	assert_lock(w, "x", 1, 0);
}

/* --- snapshots --------------------------------------------------------------------------- */

static void churn(struct world *w, uint64_t id, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		lock_now(w, id, "churn", 1000000 + i, EX);
		unlock(w, id, "churn", 1000000 + i);
	}
	pass(w, 500);
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

/* Its commands are carried out while it does not hear, and are then part of a snapshot. */
static void restore_from_a_snapshot_settles_what_is_under_way(void **state)
{
	struct world *w = *state;
	uint64_t session = node_session(node_at(w, 2));
	struct ask granted, waits, busy, was_waiting, value, refused;

	lock_now(w, 3, "held", 5, EX);
	lock_now(w, 3, "old", 4, EX);
	lock_now(w, 2, "v", 20, EX);
	lock(w, 2, "old", 10, EX, &was_waiting);
	settle(w);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT);
	keep(w, 3, 2, WIRE__FRAME__BODY_RAFT);
	lock(w, 2, "free", 11, EX, &granted);
	lock(w, 2, "held", 12, EX, &waits);
	lock(w, 2, "held", 13, EX_NB, &busy);
	set_value(w, 2, "v", 20, "hello", &value);
	set_value(w, 2, "free", 21, "mine", &refused);
	settle(w);
	unlock(w, 3, "old", 4);
	lose(w, 1, 2);
	for (unsigned i = 0; i < 10; i++) {
		churn(w, 3, 60);
		lose(w, 1, 2);
		lose(w, 3, 2);
		if (i == 3) { /* it may stand, but must not lose its session meanwhile */
			break;
		}
	}
	assert_waits(&granted);
	(void)release(w, 1, 2);
	(void)release(w, 3, 2);
	pass(w, 3000);
	assert_true(raft_snapshot_index(node_raft(node_at(w, 2))) > 100);
	assert_int_equal(node_session(node_at(w, 2)), session);
	assert_answer(&granted, ST_OK);
	assert_answer(&was_waiting, ST_OK);
	assert_answer(&busy, ST_BUSY);
	assert_answer(&value, ST_OK);
	assert_answer(&refused, ST_DENIED);
	assert_waits(&waits);
	unlock(w, 3, "held", 5);
	pass(w, 100);
	assert_answer(&waits, ST_OK);
}

static void restart_from_an_own_snapshot_knows_the_locks(void **state)
{
	struct world *w = *state;

	lock_now(w, 3, "x", 5, EX);
	churn(w, 3, 300);
	assert_true(raft_snapshot_index(node_raft(node_at(w, 2))) > 0);
	crash(w, 2);
	restart(w, 2);
	(void)settled_leader(w);
	pass(w, 100);
	assert_lock(w, "x", 1, 0);
}

/* --- the end ----------------------------------------------------------------------------- */

static void shutdown_closes_the_session_and_hands_over(void **state)
{
	struct world *w = *state;
	struct ask waits, other, late;
	uint64_t began = w->now;

	lock_now(w, 1, "x", 7, EX);
	lock_now(w, 3, "y", 8, EX);
	lock(w, 1, "y", 9, EX, &waits);
	lock(w, 2, "x", 5, EX, &other);
	settle(w);
	notice(w, 1);
	node_shutdown(node_at(w, 1), 3000);
	flush(w, 1);
	assert_answer(&waits, ST_SHUTDOWN);
	lock(w, 1, "z", 11, EX, &late);
	settle(w);
	assert_answer(&late, ST_SHUTDOWN);
	while (!w->boxes[1].stopped) {
		pass(w, 5);
	}
	assert_true(w->now - began < 500);
	assert_answer(&other, ST_OK);
	pass(w, 200);
	assert_int_not_equal(leader_of(w), 0);
	assert_int_not_equal(leader_of(w), 1);
	assert_null(state_session_of_node(node_state(node_at(w, 2)), 1));
}

static void assert_stops_late(struct world *w)
{
	notice(w, 1);
	node_shutdown(node_at(w, 1), 3000);
	flush(w, 1);
	pass(w, 2900);
	assert_false(w->boxes[1].stopped);
	pass(w, 200);
	assert_true(w->boxes[1].stopped);
}

static void shutdown_without_a_majority_ends_in_time(void **state)
{
	struct world *w = *state;

	lock_now(w, 1, "x", 7, EX);
	crash(w, 2);
	crash(w, 3);
	assert_stops_late(w);
}

static void shutdown_during_an_election_ends_in_time(void **state)
{
	struct world *w = *state;

	lock_now(w, 1, "x", 7, EX);
	crash(w, 2);
	crash(w, 3);
	pass(w, 2000);
	assert_stops_late(w);
}

static void last_node_stops_at_once(void **state)
{
	struct world *w = *state;

	lock_now(w, 1, "x", 7, EX);
	node_shutdown(node_at(w, 1), 3000);
	pass(w, 100);
	assert_true(w->boxes[1].stopped);
}

/* --- limits ------------------------------------------------------------------------------ */

static void ten_thousand_waiters_are_granted_in_order(void **state)
{
	struct world *w = *state;
	unsigned n = 10000;
	struct ask *asks = xcalloc(n, sizeof *asks);

	lock_now(w, 3, "x", 1, EX);
	notice(w, 2);
	for (unsigned i = 0; i < n; i++) {
		lock(w, 2, "x", 100 + i, EX, &asks[i]);
	}
	settle(w);
	for (unsigned i = 0; i < n; i += 2) {
		interrupt(w, 2, &asks[i]);
	}
	unlock(w, 3, "x", 1);
	for (unsigned i = 1; i < n; i += 2) {
		settle(w);
		assert_answer(&asks[i], ST_OK);
		assert_true(i + 2 >= n || asks[i + 2].answers == 0);
		unlock(w, 2, "x", 100 + i);
	}
	settle(w);
	assert_lock(w, "x", 0, 0);
	free(asks);
}

int main(void)
{
#define AT(test, up) cmocka_unit_test_setup_teardown(test, up, teardown)
	const struct CMUnitTest tests[] = {
		AT(lease_runs_from_the_sending, setup),
		AT(lease_is_over_before_the_others_are_granted, setup),
		AT(end_of_the_lease_is_noticed_with_the_time, setup),
		AT(grant_after_the_end_of_the_lease_is_not_delivered, setup),
		AT(loss_of_the_session_queues_waiters_again_and_fails_values, setup),
		AT(delayed_session_open_has_no_effect, setup),
		AT(restart_within_the_ttl_takes_the_session_up_and_reports_orphans, setup),
		AT(session_taken_up_by_another_process_is_lost, setup),
		AT(commands_sent_again_take_effect_once, setup),
		AT(gap_is_refused_and_filled_at_once, setup),
		AT(lost_command_is_sent_again_in_time, setup),
		AT(commands_survive_the_death_of_the_leader_once_and_in_order, setup),
		AT(many_commands_of_one_turn_take_few_turns, setup),
		AT(leader_with_a_full_disk_takes_its_turns_and_goes_on_later, setup_alone),
		AT(refused_commands_are_not_sent_in_a_loop, setup),
		AT(commands_to_a_leader_that_hands_over_are_not_sent_in_a_loop, setup),
		AT(interrupt_before_the_grant_leaves_no_waiter, setup),
		AT(interrupt_after_the_grant_leaves_no_holder, setup),
		AT(interrupt_between_grant_and_answer_leaves_no_holder, setup),
		AT(interrupt_of_what_was_never_sent_leaves_nothing, setup),
		AT(timeout_cancels, setup),
		AT(second_request_of_an_owner_is_busy, setup),
		AT(restore_from_a_snapshot_settles_what_is_under_way, setup_small_log),
		AT(restart_from_an_own_snapshot_knows_the_locks, setup_small_log),
		AT(shutdown_closes_the_session_and_hands_over, setup),
		AT(shutdown_without_a_majority_ends_in_time, setup),
		AT(shutdown_during_an_election_ends_in_time, setup),
		AT(last_node_stops_at_once, setup_alone),
		AT(ten_thousand_waiters_are_granted_in_order, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
