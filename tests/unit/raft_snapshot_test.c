/*
 * raft_snapshot_test.c - the log is shortened, and who is behind gets a snapshot.
 */
#include "raft_fixture.h"

#include <errno.h>

#include "coordfs/util.h"

static int setup(void **state)
{
	struct fixture *f = fixture_new(3);

	f->options.trailing_entries = 4;
	f->options.snapshot_chunk_bytes = 100; /* ten chunks */
	for (uint64_t id = 1; id <= 3; id++) {
		restart(f, id);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void propose_many(struct fixture *f, uint64_t id, int n)
{
	for (int i = 0; i < n; i++) {
		(void)propose(f, id, "x");
	}
	settle(f);
}

/* Server 3 misses 50 entries that 1 and 2 no longer have. */
static void leave_3_behind(struct fixture *f)
{
	elect(f, 1);
	isolate(f, 3);
	propose_many(f, 1, 50);
	take_snapshot(f, 1);
	take_snapshot(f, 2);
	pass(f, 500);
}

static void a_snapshot_lets_go_of_older_entries_but_the_trailing(void **state)
{
	struct fixture *f = *state;
	size_t bytes;

	elect(f, 1);
	propose_many(f, 1, 50);
	bytes = raft_log_bytes(raft_of(f, 1));
	take_snapshot(f, 1);
	assert_int_equal(raft_snapshot_index(raft_of(f, 1)), 51);
	assert_int_equal(raft_last_index(raft_of(f, 1)), 51);
	assert_int_equal(raft_term_at(raft_of(f, 1), 46), 0);
	assert_int_equal(raft_term_at(raft_of(f, 1), 47), 1);
	assert_true(raft_log_bytes(raft_of(f, 1)) < bytes / 10);
	assert_int_equal(raft_snapshot_taken(raft_of(f, 1), 20), 48); /* an older one: nothing */
	propose_many(f, 1, 5);
	assert_all_applied(f, 56);
}

static void who_is_too_far_behind_gets_a_snapshot(void **state)
{
	struct fixture *f = *state;

	leave_3_behind(f);
	heal(f);
	pass(f, 400);
	assert_all_applied(f, 51);
	assert_int_equal(server(f, 3)->chunks_written, 10);
	assert_int_equal(raft_snapshot_index(raft_of(f, 3)), 51);
	propose_many(f, 1, 3);
	assert_all_applied(f, 54);
	restart(f, 3);
	pass(f, 400);
	assert_all_applied(f, 54);
}

static void who_is_a_little_behind_gets_entries(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	propose_many(f, 1, 50);
	isolate(f, 3);
	propose_many(f, 1, 3);
	take_snapshot(f, 1);
	pass(f, 500);
	heal(f);
	pass(f, 400);
	assert_all_applied(f, 54);
	assert_int_equal(server(f, 3)->chunks_written, 0);
}

static void a_report_tells_who_is_being_sent_one(void **state)
{
	struct fixture *f = *state;
	struct raft_peer_report rows[4];

	leave_3_behind(f);
	hold_disk(f, 3);
	heal(f);
	pass(f, 300);
	assert_int_equal(raft_peers(raft_of(f, 1), rows, 4), 2);
	assert_int_equal(rows[1].id, 3);
	assert_true(rows[1].snapshot);
	assert_false(rows[0].snapshot);
	assert_int_equal(raft_peers(raft_of(f, 2), rows, 4), 0);
}

static void lost_chunks_are_sent_again(void **state)
{
	struct fixture *f = *state;

	leave_3_behind(f);
	heal(f);
	for (int i = 0; i < 1000 && server(f, 3)->applied < 51; i++) {
		f->muted[RAFT_SNAPSHOT_REQ] = i % 7 < 2;
		f->muted[RAFT_SNAPSHOT_RESP] = i % 11 < 3;
		pass(f, 10);
	}
	assert_int_equal(server(f, 3)->applied, 51);
	assert_int_equal(server(f, 3)->chunks_written, 10);
}

static void a_transfer_is_taken_up_where_it_was(void **state)
{
	struct fixture *f = *state;
	size_t before;

	leave_3_behind(f);
	heal(f);
	while (server(f, 3)->chunks_written < 6) {
		tick(f, 1, 10);
		flush(f, 3);
		if (f->n_net > 0) {
			deliver(f, 0);
		}
		for (uint64_t id = 1; id <= 3; id++) {
			(void)disk_work(f, id, true);
		}
	}
	isolate(f, 3);
	pass(f, 2000);
	before = server(f, 3)->chunks_written;
	heal(f);
	pass(f, 3000);
	assert_all_applied(f, server(f, leader_of(f))->applied);
	assert_int_equal(before, 6);
	assert_in_range(server(f, 3)->chunks_written, 10, 16);
}

/* A transfer goes on for long; nobody stands for election meanwhile. */
static void a_slow_transfer_keeps_the_election_timers_quiet(void **state)
{
	struct fixture *f = *state;

	leave_3_behind(f);
	hold_disk(f, 3);
	heal(f);
	for (int i = 0; i < 10; i++) {
		pass(f, 500);
		assert_role(f, 3, RAFT_FOLLOWER);
		assert_role(f, 1, RAFT_LEADER);
		(void)disk_work(f, 3, true);
	}
	release_disk(f, 3);
	pass(f, 500);
	assert_all_applied(f, 51);
	assert_int_equal(raft_term(raft_of(f, 1)), 1);
}

static void a_newer_snapshot_is_begun_when_it_replaces_the_one_under_way(void **state)
{
	struct fixture *f = *state;

	leave_3_behind(f);
	hold_disk(f, 3);
	heal(f);
	pass(f, 300);
	(void)disk_work(f, 3, true);
	propose_many(f, 1, 50);
	take_snapshot(f, 1);
	release_disk(f, 3);
	pass(f, 1000);
	assert_all_applied(f, 101);
	assert_int_equal(raft_snapshot_index(raft_of(f, 3)), 101);
}

static struct raft_msg chunk(struct fixture *f, uint64_t index, uint64_t offset)
{
	static const uint8_t data[100];

	return (struct raft_msg){.kind = RAFT_SNAPSHOT_REQ,
		.from = 1,
		.term = raft_term(raft_of(f, 1)),
		.index = index,
		.log_term = 1,
		.offset = offset,
		.data = data,
		.data_len = sizeof data,
		.config = raft_config(raft_of(f, 1))};
}

static void a_snapshot_of_what_is_committed_is_answered_as_done(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	propose_many(f, 1, 10);
	tell(f, 2, chunk(f, 5, 0));
	assert_true(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->done);
	assert_int_equal(server(f, 2)->chunks_written, 0);
}

/* Otherwise acknowledged entries behind the snapshot would be thrown away with the log. */
static void a_snapshot_that_the_log_contains_is_not_installed(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1, 1, 1, 1};

	tell_entries(f, 1, 2, 1, 0, 0, terms, 4, 0);
	tell(f, 2,
		(struct raft_msg){.kind = RAFT_SNAPSHOT_REQ,
			.from = 1,
			.term = 1,
			.index = 3,
			.log_term = 1,
			.done = true,
			.config = raft_config(raft_of(f, 2))});
	assert_int_equal(raft_last_index(raft_of(f, 2)), 4);
	assert_commit(f, 2, 3);
	assert_true(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->done);
	assert_int_equal(server(f, 2)->chunks_written, 0);
}

static void chunks_out_of_order_are_answered_with_what_is_wanted(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	tell(f, 2, chunk(f, 50, 100));
	assert_int_equal(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->offset, 0);
	tell(f, 2, chunk(f, 50, 0));
	flush(f, 2);
	assert_int_equal(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->offset, 100);
	forget_sent(f);
	tell(f, 2, chunk(f, 50, 0)); /* doubled */
	assert_int_equal(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->offset, 100);
	assert_int_equal(server(f, 2)->chunks_written, 1);
	tell(f, 2, chunk(f, 50, 300));
	assert_int_equal(server(f, 2)->chunks_written, 1);
	tell(f, 2, chunk(f, 60, 0)); /* another one begins */
	assert_int_equal(server(f, 2)->chunks_written, 2);
}

/* The disk log is about to be replaced: what is appended now would be acknowledged and lost. */
static void nothing_is_appended_while_a_snapshot_is_installed(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1};
	struct raft_msg last;

	elect(f, 1);
	hold_disk(f, 2);
	last = chunk(f, 50, 0);
	last.done = true;
	tell(f, 2, last);
	forget_sent(f);
	tell_entries(f, 1, 2, 1, 1, 1, terms, 1, 1);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 1);
	tell(f, 2, (struct raft_msg){.kind = RAFT_APPEND_REQ, .from = 1, .term = 1, .round = 9});
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->round, 9); /* it still lives */
	isolate(f, 2);
	tick(f, 2, 10000);
	assert_role(f, 2, RAFT_FOLLOWER); /* and does not stand */
}

static void a_damaged_transfer_begins_again(void **state)
{
	struct fixture *f = *state;
	struct raft_msg last;

	elect(f, 1);
	hold_disk(f, 2);
	last = chunk(f, 50, 0);
	last.done = true;
	tell(f, 2, last);
	raft_snapshot_written(raft_of(f, 2), 1, 50, 0, false);
	flush(f, 2);
	assert_false(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->done);
	assert_int_equal(last_sent(f, 2, 1, RAFT_SNAPSHOT_RESP)->offset, 0);
	tell(f, 2, last);
	assert_int_equal(server(f, 2)->chunks_written, 2);
}

/* The snapshot is renamed, the log not yet restarted: at that moment the power goes. */
static void a_log_that_ends_before_the_snapshot_is_given_up_at_start(void **state)
{
	struct fixture *f = *state;

	leave_3_behind(f);
	hold_disk(f, 3);
	heal(f);
	for (int i = 0; i < 20 && server(f, 3)->snapshot.index == 0; i++) {
		pass(f, 100);
		(void)disk_work(f, 3, true);
	}
	assert_int_equal(server(f, 3)->snapshot.index, 51);
	assert_int_equal(server(f, 3)->n_entries, 1);
	restart(f, 3);
	assert_int_equal(raft_last_index(raft_of(f, 3)), 51);
	pass(f, 500);
	propose_many(f, 1, 3);
	assert_all_applied(f, 54);
}

/* The snapshot of a new leader may be durable before the term that it came in. */
static void a_snapshot_of_a_later_term_than_the_vote_is_a_start(void **state)
{
	struct fixture *f = *state;

	crash(f, 2);
	server(f, 2)->snapshot.index = 50;
	server(f, 2)->snapshot.term = 4;
	join(f, 2);
	assert_int_equal(raft_term(raft_of(f, 2)), 4);
	settle(f);
	assert_int_equal(server(f, 2)->term, 4);
	assert_int_equal(server(f, 2)->vote, 0);
}

static void a_restart_finds_trailing_entries_before_the_snapshot(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	propose_many(f, 1, 50);
	take_snapshot(f, 2);
	propose_many(f, 1, 2);
	restart(f, 2);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 53);
	assert_int_equal(raft_snapshot_index(raft_of(f, 2)), 51);
	assert_commit(f, 2, 51);
	pass(f, 300);
	assert_all_applied(f, 53);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_snapshot_lets_go_of_older_entries_but_the_trailing),
		T(who_is_too_far_behind_gets_a_snapshot),
		T(who_is_a_little_behind_gets_entries),
		T(a_report_tells_who_is_being_sent_one),
		T(lost_chunks_are_sent_again),
		T(a_transfer_is_taken_up_where_it_was),
		T(a_slow_transfer_keeps_the_election_timers_quiet),
		T(a_newer_snapshot_is_begun_when_it_replaces_the_one_under_way),
		T(a_snapshot_of_what_is_committed_is_answered_as_done),
		T(a_snapshot_that_the_log_contains_is_not_installed),
		T(chunks_out_of_order_are_answered_with_what_is_wanted),
		T(nothing_is_appended_while_a_snapshot_is_installed),
		T(a_damaged_transfer_begins_again),
		T(a_log_that_ends_before_the_snapshot_is_given_up_at_start),
		T(a_snapshot_of_a_later_term_than_the_vote_is_a_start),
		T(a_restart_finds_trailing_entries_before_the_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
