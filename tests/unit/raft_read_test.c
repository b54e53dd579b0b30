/*
 * raft_read_test.c - linearizable reads: never an answer of a leader that no longer leads.
 */
#include "raft_fixture.h"

#include <errno.h>

static int setup(void **state)
{
	*state = fixture_new(3);
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void a_read_is_answered_after_a_round(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	assert_int_equal(ask_read(f, 1, 7), 0);
	flush(f, 1);
	assert_int_equal(server(f, 1)->n_answers, 0);
	settle(f);
	assert_int_equal(server(f, 1)->n_answers, 1);
	assert_true(server(f, 1)->answers[0].ok);
	assert_int_equal(server(f, 1)->answers[0].index, 1);
}

static void reads_of_one_turn_share_a_round(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	forget_sent(f);
	for (uint64_t i = 0; i < 50; i++) {
		assert_int_equal(ask_read(f, 1, i), 0);
	}
	settle(f);
	assert_int_equal(server(f, 1)->n_answers, 50);
	assert_int_equal(f->sent[1][RAFT_APPEND_REQ], 2);
}

/* The answers on their way belong to a round from before the read. */
static void an_older_round_does_not_confirm(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	assert_int_equal(ask_read(f, 1, 1), 0);
	flush(f, 1);
	assert_int_equal(f->n_net, 2);
	deliver(f, 0);
	deliver(f, 0);
	flush(f, 2);
	flush(f, 3);
	assert_int_equal(f->n_net, 2); /* the answers */
	assert_int_equal(ask_read(f, 1, 2), 0);
	f->muted[RAFT_APPEND_REQ] = true; /* the second round does not get through */
	settle(f);
	assert_int_equal(server(f, 1)->n_answers, 1);
	heal(f);
	pass(f, 200); /* a heartbeat does */
	assert_int_equal(server(f, 1)->n_answers, 2);
}

static void no_read_before_an_entry_of_the_own_term_is_committed(void **state)
{
	struct fixture *f = *state;

	/* A new leader, whose first entry is on no disk yet; its rounds are answered. */
	f->muted[RAFT_APPEND_REQ] = true;
	elect(f, 1);
	hold_disk(f, 2);
	hold_disk(f, 3);
	heal(f);
	assert_int_equal(ask_read(f, 1, 1), 0);
	pass(f, 250);
	assert_true(last_sent(f, 2, 1, RAFT_APPEND_RESP)->round > 0);
	assert_int_equal(server(f, 1)->n_answers, 0);
	assert_false(raft_leader_ready(raft_of(f, 1)));
	release_disk(f, 2);
	settle(f);
	assert_int_equal(server(f, 1)->n_answers, 1);
	assert_int_equal(server(f, 1)->answers[0].index, 1);
	assert_true(raft_leader_ready(raft_of(f, 1)));
}

static void a_leader_cut_off_does_not_answer(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	pass(f, 200);
	isolate(f, 1);
	tell(f, 2, (struct raft_msg){.kind = RAFT_TIMEOUT_NOW, .from = 1, .term = 1});
	settle(f);
	assert_role(f, 2, RAFT_LEADER);
	(void)propose(f, 2, "newer");
	settle(f);
	assert_role(f, 1, RAFT_LEADER); /* it does not know yet */
	assert_int_equal(ask_read(f, 1, 1), 0);
	settle(f);
	assert_int_equal(server(f, 1)->n_answers, 0);
	pass(f, 1000);
	assert_int_equal(server(f, 1)->n_answers, 1);
	assert_false(server(f, 1)->answers[0].ok);
}

static void a_follower_refuses_reads(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	assert_int_equal(ask_read(f, 2, 1), -EAGAIN);
}

static void a_single_server_answers_in_the_same_flush(void **state)
{
	struct fixture *f = fixture_new(1);

	(void)state;
	elect(f, 1);
	assert_int_equal(ask_read(f, 1, 1), 0);
	flush(f, 1);
	assert_int_equal(server(f, 1)->n_answers, 1);
	assert_true(server(f, 1)->answers[0].ok);
	fixture_free(f);
}

static void too_many_reads_are_refused(void **state)
{
	struct fixture *f = *state;
	int rc = 0;
	uint64_t n = 0;

	elect(f, 1);
	while (rc == 0) {
		rc = ask_read(f, 1, n++);
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_int_equal(n - 1, 65536);
	settle(f);
	assert_int_equal(ask_read(f, 1, n), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_read_is_answered_after_a_round),
		T(reads_of_one_turn_share_a_round),
		T(an_older_round_does_not_confirm),
		T(no_read_before_an_entry_of_the_own_term_is_committed),
		T(a_leader_cut_off_does_not_answer),
		T(a_follower_refuses_reads),
		cmocka_unit_test(a_single_server_answers_in_the_same_flush),
		T(too_many_reads_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
