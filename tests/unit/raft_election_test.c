/*
 * raft_election_test.c - terms, votes, and who may lead.
 */
#include "raft_fixture.h"

#include <errno.h>

#include "coordfs/util.h"

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

static void three_servers_elect_one_leader(void **state)
{
	struct fixture *f = *state;

	pass(f, 2000);
	assert_int_not_equal(leader_of(f), 0);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_int_equal(raft_leader(raft_of(f, id)), leader_of(f));
		assert_int_equal(raft_term(raft_of(f, id)), 1);
	}
	assert_true(raft_leader_ready(raft_of(f, leader_of(f))));
	assert_all_applied(f, 1);
}

static void a_leader_that_is_heard_keeps_its_term(void **state)
{
	struct fixture *f = *state;

	elect(f, 2);
	pass(f, 60000);
	assert_role(f, 2, RAFT_LEADER);
	assert_int_equal(raft_term(raft_of(f, 1)), 1);
}

static void a_dead_leader_is_replaced_within_three_timeouts(void **state)
{
	struct fixture *f = *state;

	elect(f, 2);
	crash(f, 2);
	pass(f, 3 * f->options.election_timeout_ms);
	assert_int_not_equal(leader_of(f), 0);
}

static void a_single_server_leads_itself(void **state)
{
	struct fixture *f = fixture_new(1);

	(void)state;
	elect(f, 1);
	(void)propose(f, 1, "x");
	settle(f);
	assert_all_applied(f, 2);
	/* Nobody else could have been elected while it was stopped. */
	tick(f, 1, 60000);
	assert_role(f, 1, RAFT_LEADER);
	fixture_free(f);
}

/* A server cut off for long would otherwise unseat the leader when it comes back. */
static void asking_for_prevotes_does_not_raise_the_term(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 3);
	pass(f, 10000);
	assert_role(f, 3, RAFT_PRECANDIDATE);
	assert_int_equal(raft_term(raft_of(f, 3)), 1);
	heal(f);
	pass(f, 1000);
	assert_role(f, 1, RAFT_LEADER);
	assert_int_equal(raft_term(raft_of(f, 1)), 1);
	assert_int_equal(raft_leader(raft_of(f, 3)), 1);
}

static void a_leader_without_a_quorum_steps_down(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 1);
	pass(f, f->options.election_timeout_ms + 20);
	assert_int_not_equal(raft_role(raft_of(f, 1)), RAFT_LEADER);
	assert_int_equal(raft_leader(raft_of(f, 1)), 0);
}

static void a_leader_that_was_stopped_does_not_believe_old_contacts(void **state)
{
	struct fixture *f = *state;
	uint64_t index;

	elect(f, 1);
	pass(f, 500);
	f->now += 5000;
	raft_flush(raft_of(f, 1), f->now);
	assert_role(f, 1, RAFT_FOLLOWER);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), -EAGAIN);
}

static void votes_are_ignored_while_a_leader_is_heard(void **state)
{
	struct fixture *f = *state;
	struct raft_msg ask = {
		.kind = RAFT_VOTE_REQ, .from = 3, .term = 9, .index = 99, .log_term = 8};

	elect(f, 1);
	forget_sent(f);
	tell(f, 2, ask);
	assert_int_equal(raft_term(raft_of(f, 2)), 1);
	assert_null(last_sent(f, 2, 3, RAFT_VOTE_RESP));

	ask.kind = RAFT_PREVOTE_REQ;
	tell(f, 2, ask);
	assert_false(last_sent(f, 2, 3, RAFT_PREVOTE_RESP)->ok);

	ask.kind = RAFT_VOTE_REQ;
	ask.transfer = true; /* the leader itself wants it */
	tell(f, 2, ask);
	assert_true(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
}

static void a_vote_leaves_only_when_it_is_durable(void **state)
{
	struct fixture *f = *state;

	hold_disk(f, 2);
	tell(f, 2, (struct raft_msg){.kind = RAFT_VOTE_REQ, .from = 3, .term = 1});
	flush(f, 2);
	assert_null(last_sent(f, 2, 3, RAFT_VOTE_RESP));
	assert_true(disk_work(f, 2, true));
	flush(f, 2);
	assert_true(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
}

static void a_candidate_asks_only_when_its_own_vote_is_durable(void **state)
{
	struct fixture *f = *state;

	hold_disk(f, 1);
	tick(f, 1, 1000);
	settle(f);
	assert_role(f, 1, RAFT_CANDIDATE);
	assert_null(last_sent(f, 1, 2, RAFT_VOTE_REQ));
	tick(f, 1, 10000); /* and does not stand again meanwhile */
	assert_int_equal(raft_term(raft_of(f, 1)), 1);
	release_disk(f, 1);
	settle(f);
	assert_role(f, 1, RAFT_LEADER);
}

/* The grant of a vote that the crash lost was never sent, so voting anew is no second vote. */
static void no_second_vote_in_a_term_after_a_crash(void **state)
{
	struct fixture *f = *state;
	struct raft_msg ask = {.kind = RAFT_VOTE_REQ, .from = 3, .term = 1};

	tell(f, 2, ask);
	assert_true(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
	restart(f, 2);
	ask.from = 1;
	tell(f, 2, ask);
	assert_false(last_sent(f, 2, 1, RAFT_VOTE_RESP)->ok);
	ask.from = 3;
	forget_sent(f);
	tell(f, 2, ask); /* the same again: its answer may have been lost */
	assert_true(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
}

static void one_vote_in_a_term(void **state)
{
	struct fixture *f = *state;

	tell(f, 2, (struct raft_msg){.kind = RAFT_VOTE_REQ, .from = 3, .term = 1});
	tell(f, 2, (struct raft_msg){.kind = RAFT_VOTE_REQ, .from = 1, .term = 1});
	tell(f, 2,
		(struct raft_msg){.kind = RAFT_VOTE_REQ, .from = 1, .term = 1, .transfer = true});
	assert_true(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
	assert_false(last_sent(f, 2, 1, RAFT_VOTE_RESP)->ok);
}

static void a_shorter_log_gets_no_vote(void **state)
{
	struct fixture *f = *state;
	struct raft_msg ask = {.kind = RAFT_VOTE_REQ, .from = 3, .term = 2, .transfer = true};

	elect(f, 1);
	(void)propose(f, 1, "x");
	settle(f);
	ask.index = 1;
	ask.log_term = 1;
	tell(f, 2, ask);
	assert_false(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
	assert_int_equal(raft_term(raft_of(f, 2)), 2);
}

static void a_server_with_an_unwritten_tail_does_not_stand(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1, 1};

	hold_disk(f, 2);
	tell_entries(f, 1, 2, 1, 0, 0, terms, 2, 0);
	assert_true(disk_work(f, 2, true)); /* the term, not the entries */
	isolate(f, 1);
	tick(f, 2, 10000);
	assert_role(f, 2, RAFT_FOLLOWER);
	release_disk(f, 2);
	settle(f);
	tick(f, 2, 10);
	assert_role(f, 2, RAFT_PRECANDIDATE);
}

static void leadership_is_handed_over_at_once(void **state)
{
	struct fixture *f = *state;
	uint64_t index;

	elect(f, 1);
	pass(f, 200);
	assert_int_equal(raft_transfer(raft_of(f, 1), 3, f->now), 0);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), -EAGAIN);
	settle(f); /* no time passes */
	assert_role(f, 3, RAFT_LEADER);
	assert_role(f, 1, RAFT_FOLLOWER);
	assert_int_equal(raft_leader(raft_of(f, 1)), 3);
}

static void the_voter_with_the_longest_log_is_chosen(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	cut(f, 1, 2);
	(void)propose(f, 1, "x");
	settle(f);
	heal(f);
	assert_int_equal(raft_transfer(raft_of(f, 1), 0, f->now), 0);
	settle(f);
	assert_role(f, 3, RAFT_LEADER);
}

static void a_transfer_to_nobody_is_given_up(void **state)
{
	struct fixture *f = *state;
	uint64_t index;

	elect(f, 1);
	assert_int_equal(raft_transfer(raft_of(f, 1), 1, f->now), -EAGAIN);
	assert_int_equal(raft_transfer(raft_of(f, 1), 7, f->now), -EAGAIN);
	assert_int_equal(raft_transfer(raft_of(f, 2), 3, f->now), -EAGAIN);
	crash(f, 3);
	assert_int_equal(raft_transfer(raft_of(f, 1), 3, f->now), 0);
	settle(f);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), -EAGAIN);
	pass(f, f->options.election_timeout_ms + 10);
	assert_role(f, 1, RAFT_LEADER);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), 0);
}

static void a_server_told_to_stand_has_one_vote_too(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 2);
	tell(f, 2, (struct raft_msg){.kind = RAFT_TIMEOUT_NOW, .from = 1, .term = 1});
	assert_role(f, 2, RAFT_CANDIDATE);
	assert_int_equal(raft_term(raft_of(f, 2)), 2);
	tell(f, 2,
		(struct raft_msg){.kind = RAFT_VOTE_REQ,
			.from = 3,
			.term = 2,
			.index = 9,
			.log_term = 1,
			.transfer = true});
	assert_false(last_sent(f, 2, 3, RAFT_VOTE_RESP)->ok);
}

static void only_the_leader_may_tell_to_stand(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	tell(f, 2, (struct raft_msg){.kind = RAFT_TIMEOUT_NOW, .from = 3, .term = 1});
	assert_role(f, 2, RAFT_FOLLOWER);
}

static void a_server_with_a_full_disk_hands_leadership_over(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	pass(f, 200);
	raft_set_readonly(raft_of(f, 1), true, f->now);
	settle(f);
	assert_int_not_equal(leader_of(f), 1);
	assert_int_not_equal(leader_of(f), 0);
}

static void a_full_disk_refuses_proposals(void **state)
{
	struct fixture *f = fixture_new(1);
	uint64_t index;

	(void)state;
	elect(f, 1);
	raft_set_readonly(raft_of(f, 1), true, f->now);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), -ENOSPC);
	raft_set_readonly(raft_of(f, 1), false, f->now);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), 0);
	fixture_free(f);
}

static void a_leader_of_the_past_learns_the_present_term(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 1);
	elect(f, 2);
	tell(f, 2, (struct raft_msg){.kind = RAFT_APPEND_REQ, .from = 1, .term = 1});
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->term, 2);
	assert_false(last_sent(f, 2, 1, RAFT_APPEND_RESP)->ok);
	heal(f);
	pass(f, 300);
	assert_role(f, 2, RAFT_LEADER);
	assert_role(f, 1, RAFT_FOLLOWER);
}

static void impossible_options_and_logs_are_refused(void **state)
{
	struct fixture *f = *state;
	struct raft_entry *gap[2] = {
		raft_entry_new(1, 1, RAFT_NOOP, NULL, 0), raft_entry_new(3, 1, RAFT_NOOP, NULL, 0)};
	struct raft_entry *bad_config[1] = {raft_entry_new(1, 1, RAFT_CONFIG, "?", 1)};
	struct raft_start st = {.term = 1, .config = raft_config(raft_of(f, 1))};
	struct raft_env env = {.ctx = NULL};
	struct raft_options o = f->options;
	struct raft *r;

	assert_int_equal(raft_new(&o, &env, &st, 0, &r), -EINVAL); /* no id */
	o.id = 1;
	st.entries = gap;
	st.n_entries = 2;
	assert_int_equal(raft_new(&o, &env, &st, 0, &r), -EINVAL);
	st.entries = gap + 1;
	st.n_entries = 1;
	assert_int_equal(raft_new(&o, &env, &st, 0, &r), -EINVAL); /* a gap before it */
	st.entries = bad_config;
	assert_int_equal(raft_new(&o, &env, &st, 0, &r), -EINVAL);
	st.entries = gap;
	st.term = 0;
	assert_int_equal(raft_new(&o, &env, &st, 0, &r), -EINVAL); /* a term it never had */
	st.term = 1;
	st.config = NULL;
	assert_int_equal(raft_new(&o, &env, &st, 0, &r), -EINVAL);
	raft_entry_unref(gap[0]);
	raft_entry_unref(gap[1]);
	raft_entry_unref(bad_config[0]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(three_servers_elect_one_leader),
		T(a_leader_that_is_heard_keeps_its_term),
		T(a_dead_leader_is_replaced_within_three_timeouts),
		cmocka_unit_test(a_single_server_leads_itself),
		T(asking_for_prevotes_does_not_raise_the_term),
		T(a_leader_without_a_quorum_steps_down),
		T(a_leader_that_was_stopped_does_not_believe_old_contacts),
		T(votes_are_ignored_while_a_leader_is_heard),
		T(a_vote_leaves_only_when_it_is_durable),
		T(a_candidate_asks_only_when_its_own_vote_is_durable),
		T(no_second_vote_in_a_term_after_a_crash),
		T(one_vote_in_a_term),
		T(a_shorter_log_gets_no_vote),
		T(a_server_with_an_unwritten_tail_does_not_stand),
		T(leadership_is_handed_over_at_once),
		T(the_voter_with_the_longest_log_is_chosen),
		T(a_transfer_to_nobody_is_given_up),
		T(a_server_told_to_stand_has_one_vote_too),
		T(only_the_leader_may_tell_to_stand),
		T(a_server_with_a_full_disk_hands_leadership_over),
		cmocka_unit_test(a_full_disk_refuses_proposals),
		T(a_leader_of_the_past_learns_the_present_term),
		T(impossible_options_and_logs_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
