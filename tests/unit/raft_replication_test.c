/*
 * raft_replication_test.c - entries reach the others; what may be acknowledged and committed.
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

static void an_entry_is_applied_everywhere_at_once(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	assert_int_equal(propose(f, 1, "x"), 2);
	settle(f); /* no time passes: the commit index does not wait for a heartbeat */
	assert_all_applied(f, 2);
}

static void what_is_proposed_in_one_turn_leaves_in_one_message(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	forget_sent(f);
	for (int i = 0; i < 64; i++) {
		(void)propose(f, 1, "x");
	}
	flush(f, 1);
	assert_int_equal(f->sent[1][RAFT_APPEND_REQ], 2); /* one for each follower */
	assert_int_equal(last_sent(f, 1, 2, RAFT_APPEND_REQ)->n_entries, 64);
}

static void a_message_keeps_to_its_limits(void **state)
{
	struct fixture *f = *state;
	char command[600] = {0};

	f->options.append_entries_max = 4;
	f->options.append_bytes_max = 2000;
	f->options.inflight_max = 2;
	for (uint64_t id = 1; id <= 3; id++) {
		restart(f, id);
	}
	elect(f, 1);
	memset(command, 'c', sizeof command - 1);
	forget_sent(f);
	for (int i = 0; i < 20; i++) {
		(void)propose(f, 1, i < 10 ? command : "short");
	}
	flush(f, 1);
	assert_int_equal(last_sent(f, 1, 2, RAFT_APPEND_REQ)->n_entries, 3); /* 3 * 640 bytes */
	assert_int_equal(f->sent[1][RAFT_APPEND_REQ], 4); /* two unanswered ones each */
	settle(f);
	assert_all_applied(f, 21);
}

static void too_much_uncommitted_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t index;
	size_t n = 0;
	int rc;

	f->options.uncommitted_bytes_max = 4096;
	restart(f, 1);
	elect(f, 1);
	while ((rc = raft_propose(raft_of(f, 1), "0123456789", 10, &index)) == 0) {
		n++;
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_in_range(n, 50, 150);
	settle(f);
	assert_int_equal(raft_propose(raft_of(f, 1), "x", 1, &index), 0);
}

static void an_entry_that_is_too_long_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t *data = xcalloc(1, RAFT_ENTRY_BYTES_MAX + 1);
	uint64_t index;

	assert_int_equal(raft_propose(raft_of(f, 1), data, 1, &index), -EAGAIN);
	elect(f, 1);
	assert_int_equal(
		raft_propose(raft_of(f, 1), data, RAFT_ENTRY_BYTES_MAX + 1, &index), -EFBIG);
	assert_int_equal(raft_propose(raft_of(f, 1), data, RAFT_ENTRY_BYTES_MAX, &index), 0);
	settle(f);
	assert_all_applied(f, 2);
	free(data);
}

static void what_apply_proposes_leaves_in_the_same_flush(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	server(f, 1)->propose_on_apply = 3;
	(void)propose(f, 1, "x");
	settle(f);
	assert_all_applied(f, 5);
}

/* --- durability -------------------------------------------------------------------------- */

/* Otherwise an entry would count as stored on a majority that one power cut takes away. */
static void a_leader_does_not_count_its_own_unwritten_entries(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 3);
	hold_disk(f, 1);
	(void)propose(f, 1, "x");
	settle(f);
	assert_commit(f, 1, 1); /* 2 alone is no majority */
	release_disk(f, 1);
	settle(f);
	assert_commit(f, 1, 2);

	hold_disk(f, 2);
	(void)propose(f, 1, "y");
	settle(f);
	assert_commit(f, 1, 2); /* nor is its own disk */
	release_disk(f, 2);
	settle(f);
	assert_commit(f, 1, 3);
}

static void two_followers_commit_without_the_leaders_disk(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	hold_disk(f, 1);
	(void)propose(f, 1, "x");
	settle(f);
	assert_commit(f, 1, 2);
	assert_int_equal(raft_durable_index(raft_of(f, 1)), 1);
}

static void a_follower_acknowledges_only_what_is_on_its_disk(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1, 1};

	tell_entries(f, 1, 2, 1, 0, 0, terms, 2, 0);
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->index, 2);
	hold_disk(f, 2);
	forget_sent(f);
	tell_entries(f, 1, 2, 1, 2, 1, terms, 2, 4);
	assert_null(last_sent(f, 2, 1, RAFT_APPEND_RESP));
	assert_commit(f, 2, 2);

	/* A heartbeat is answered meanwhile. */
	tell(f, 2, (struct raft_msg){.kind = RAFT_APPEND_REQ, .from = 1, .term = 1, .round = 7});
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->index, 2);
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->round, 7);

	assert_true(disk_work(f, 2, true));
	flush(f, 2);
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->index, 4);
	assert_commit(f, 2, 4);
}

/* libraft before 0.20: a tail of an old term was acknowledged because the log was long enough. */
static void entries_that_this_leader_never_sent_are_not_acknowledged(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1, 1, 1, 1};
	const uint64_t later[] = {2};
	const struct raft_msg *ack;

	tell_entries(f, 1, 2, 1, 0, 0, terms, 4, 0);
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->index, 4);

	/* A leader of term 2 that knows only the first entry. */
	tell(f, 2,
		(struct raft_msg){.kind = RAFT_APPEND_REQ,
			.from = 3,
			.term = 2,
			.index = 1,
			.log_term = 1,
			.round = 1,
			.commit = 4});
	ack = last_sent(f, 2, 3, RAFT_APPEND_RESP);
	assert_true(ack->ok);
	assert_int_equal(ack->index, 1); /* prev, no more */
	assert_commit(f, 2, 1);

	tell_entries(f, 3, 2, 2, 1, 1, later, 1, 2);
	assert_int_equal(last_sent(f, 2, 3, RAFT_APPEND_RESP)->index, 2);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 2);
	assert_commit(f, 2, 2);
}

static void nothing_of_a_term_is_said_before_the_term_is_durable(void **state)
{
	struct fixture *f = *state;

	hold_disk(f, 2);
	tell(f, 2, (struct raft_msg){.kind = RAFT_APPEND_REQ, .from = 1, .term = 5, .round = 1});
	flush(f, 2);
	assert_null(last_sent(f, 2, 1, RAFT_APPEND_RESP));
	assert_true(disk_work(f, 2, true));
	flush(f, 2);
	assert_int_equal(last_sent(f, 2, 1, RAFT_APPEND_RESP)->term, 5);
}

/* "Index 3 is on the disk" may be said of an entry that was replaced meanwhile. */
static void a_late_completion_of_a_truncated_entry_is_ignored(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1, 1, 1};
	const uint64_t other[] = {2, 2};

	tell_entries(f, 1, 2, 1, 0, 0, terms, 1, 1);
	hold_disk(f, 2);
	tell_entries(f, 1, 2, 1, 1, 1, terms, 2, 1);
	tell_entries(f, 3, 2, 2, 1, 1, other, 2, 1); /* replaces 2 and 3 */
	assert_true(disk_work(f, 2, true));          /* the old 2 and 3 */
	flush(f, 2);
	assert_int_equal(raft_durable_index(raft_of(f, 2)), 1);
	release_disk(f, 2);
	settle(f);
	assert_int_equal(raft_durable_index(raft_of(f, 2)), 3);
	assert_int_equal(last_sent(f, 2, 3, RAFT_APPEND_RESP)->index, 3);
	restart(f, 2);
	assert_int_equal(raft_term_at(raft_of(f, 2), 3), 2);
}

static void a_crash_loses_only_what_was_not_acknowledged(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	(void)propose(f, 1, "kept");
	settle(f);
	for (uint64_t id = 1; id <= 3; id++) {
		hold_disk(f, id);
	}
	(void)propose(f, 1, "lost");
	settle(f);
	for (uint64_t id = 1; id <= 3; id++) {
		restart(f, id);
	}
	pass(f, 3000);
	assert_all_applied(f, 3); /* two, and the no-op of the new term */
}

/* --- figure 8 ---------------------------------------------------------------------------- */

/* An entry of an older term on a majority can still be replaced: it must not count. */
static void figure_8_an_older_terms_entry_is_not_committed_by_counting(void **state)
{
	struct fixture *f = fixture_new(5);

	(void)state;
	/* (a) 1 leads term 1, and its entry reaches only 2. */
	elect(f, 1);
	cut(f, 1, 3);
	cut(f, 1, 4);
	cut(f, 1, 5);
	(void)propose(f, 1, "2");
	settle(f);
	assert_commit(f, 1, 1);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 2);
	/* (b) 1 crashes; 5 leads term 2 with the votes of 3 and 4; its entries reach nobody. */
	crash(f, 1);
	heal(f);
	f->muted[RAFT_APPEND_REQ] = true;
	cut(f, 5, 2);
	elect(f, 5);
	settle(f);
	/* (c) 5 crashes; 1 leads term 3. Its no-op reaches nobody, but its entry 2 reaches 3: */
	crash(f, 5);
	heal(f);
	restart(f, 1);
	f->muted[RAFT_APPEND_REQ] = true;
	elect(f, 1);
	heal(f);
	tell(f, 1,
		(struct raft_msg){.kind = RAFT_APPEND_RESP,
			.from = 2,
			.term = raft_term(raft_of(f, 1)),
			.ok = true,
			.index = 2});
	tell(f, 1,
		(struct raft_msg){.kind = RAFT_APPEND_RESP,
			.from = 3,
			.term = raft_term(raft_of(f, 1)),
			.ok = true,
			.index = 2});
	/* it is on 1, 2 and 3, a majority, and yet: */
	assert_int_equal(raft_last_index(raft_of(f, 1)), 3);
	assert_commit(f, 1, 0);
	/* (e) with an entry of the own term on a majority, all before it is committed. */
	pass(f, 500);
	assert_commit(f, 1, 3);
	fixture_free(f);
}

/* --- loss, disorder ---------------------------------------------------------------------- */

static void lost_messages_are_sent_again(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	f->muted[RAFT_APPEND_REQ] = true;
	(void)propose(f, 1, "x");
	settle(f);
	heal(f);
	assert_commit(f, 1, 1);
	pass(f, 3 * f->options.heartbeat_ms);
	assert_all_applied(f, 2);
	assert_role(f, 1, RAFT_LEADER);
}

static void lost_answers_are_given_again(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	(void)propose(f, 1, "x");
	f->muted[RAFT_APPEND_RESP] = true;
	settle(f);
	heal(f);
	pass(f, 2 * f->options.heartbeat_ms);
	assert_all_applied(f, 2);
}

static void messages_in_the_wrong_order_do_no_harm(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 3);
	for (int i = 0; i < 5; i++) {
		(void)propose(f, 1, "x");
		flush(f, 1);
	}
	assert_int_equal(f->n_net, 5);
	duplicate(f, 2);
	while (f->n_net > 0) {
		deliver(f, f->n_net - 1); /* the last first */
	}
	settle(f);
	pass(f, 300);
	assert_int_equal(server(f, 2)->applied, 6);
	check_logs(f);
}

static void a_follower_with_another_tail_is_overwritten(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 1);
	for (int i = 0; i < 20; i++) {
		(void)propose(f, 1, "never committed");
	}
	settle(f);
	elect(f, 2);
	for (int i = 0; i < 5; i++) {
		(void)propose(f, 2, "x");
	}
	settle(f);
	heal(f);
	pass(f, 500);
	assert_all_applied(f, 7);
	assert_int_equal(raft_last_index(raft_of(f, 1)), 7);
	check_logs(f);
}

/* One message a term, not one an entry (thesis 3.5). */
static void a_long_wrong_tail_costs_few_messages(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 1);
	for (int i = 0; i < 500; i++) {
		(void)propose(f, 1, "never committed");
	}
	settle(f);
	elect(f, 2);
	for (int i = 0; i < 500; i++) {
		(void)propose(f, 2, "x");
	}
	settle(f);
	heal(f);
	forget_sent(f);
	pass(f, 300);
	assert_all_applied(f, 502);
	assert_in_range(f->sent[2][RAFT_APPEND_REQ], 1, 20);
}

static void a_dead_follower_is_sent_no_entries(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	crash(f, 3);
	pass(f, 1000);
	forget_sent(f);
	for (int i = 0; i < 100; i++) {
		(void)propose(f, 1, "x");
		pass(f, 10);
	}
	assert_in_range(f->entries_sent, 100, 110); /* to 2 */
	restart(f, 3);
	pass(f, 300);
	assert_all_applied(f, 101);
}

static void word_of_a_commit_is_not_answered(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 3);
	forget_sent(f);
	(void)propose(f, 1, "x");
	settle(f);
	assert_int_equal(server(f, 2)->applied, 2);
	assert_int_equal(f->sent[2][RAFT_APPEND_RESP], 1);
}

/* --- rule 12 ----------------------------------------------------------------------------- */

static void impossible_messages_change_nothing(void **state)
{
	struct fixture *f = *state;
	const uint64_t max = UINT64_MAX;
	const struct raft_msg bad[] = {
		{.kind = 0, .from = 1, .term = 2},
		{.kind = 99, .from = 1, .term = 2},
		{.kind = RAFT_APPEND_REQ, .from = 0, .term = 2},
		{.kind = RAFT_APPEND_REQ, .from = 2, .term = 2},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 0},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = max},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .index = max, .log_term = 1},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .index = 1},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .log_term = 1},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .index = 1, .log_term = 3},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .commit = max},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .round = max},
		{.kind = RAFT_APPEND_REQ, .from = 1, .term = 2, .n_entries = 1},
		{.kind = RAFT_VOTE_REQ, .from = 1, .term = 2, .index = 1, .log_term = 2},
		{.kind = RAFT_PREVOTE_REQ, .from = 1, .term = 2, .index = 1},
		{.kind = RAFT_SNAPSHOT_REQ, .from = 1, .term = 2, .index = 5, .log_term = 1},
		{.kind = RAFT_SNAPSHOT_REQ, .from = 1, .term = 2, .done = true},
		{.kind = RAFT_SNAPSHOT_REQ,
			.from = 1,
			.term = 2,
			.index = 5,
			.log_term = 1,
			.data_len = 4},
		{.kind = RAFT_SNAPSHOT_REQ,
			.from = 1,
			.term = 2,
			.index = 5,
			.log_term = 1,
			.done = true},
		{.kind = RAFT_SNAPSHOT_RESP, .from = 1, .term = 2, .offset = max},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		tell(f, 2, bad[i]);
		assert_int_equal(server(f, 2)->bad_messages, i + 1);
		assert_int_equal(raft_term(raft_of(f, 2)), 0);
	}
}

static void tell_bad_entry(struct fixture *f, struct raft_entry *e, uint64_t term)
{
	size_t before = server(f, 2)->bad_messages;

	tell(f, 2,
		(struct raft_msg){.kind = RAFT_APPEND_REQ,
			.from = 1,
			.term = term,
			.entries = &e,
			.n_entries = 1});
	assert_int_equal(server(f, 2)->bad_messages, before + 1);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 0);
	raft_entry_unref(e);
}

static void impossible_entries_change_nothing(void **state)
{
	struct fixture *f = *state;
	struct raft_entry *too_long = raft_entry_new(1, 1, RAFT_NOOP, NULL, 0);

	too_long->len = RAFT_ENTRY_BYTES_MAX + 1;
	tell_bad_entry(f, raft_entry_new(2, 1, RAFT_NOOP, NULL, 0), 1); /* a gap */
	tell_bad_entry(f, raft_entry_new(1, 2, RAFT_NOOP, NULL, 0), 1); /* of the future */
	tell_bad_entry(f, raft_entry_new(1, 0, RAFT_NOOP, NULL, 0), 1);
	tell_bad_entry(f, raft_entry_new(1, 1, (enum raft_entry_kind)9, NULL, 0), 1);
	tell_bad_entry(f, raft_entry_new(1, 1, RAFT_CONFIG, NULL, 0), 1); /* nobody votes */
	tell_bad_entry(f, raft_entry_new(1, 1, RAFT_CONFIG, "\xff\xff", 2), 1);
	tell_bad_entry(f, too_long, 1);
}

/* A broken or malicious peer cannot make a server forget what it has committed. */
static void committed_entries_are_not_overwritten(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1, 1};
	const uint64_t other[] = {2, 2};

	tell_entries(f, 1, 2, 1, 0, 0, terms, 2, 2);
	assert_commit(f, 2, 2);
	tell_entries(f, 3, 2, 2, 0, 0, other, 2, 2);
	assert_int_equal(raft_term_at(raft_of(f, 2), 2), 1);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 2);
}

static void impossible_acknowledgements_commit_nothing(void **state)
{
	struct fixture *f = *state;
	struct raft_msg ack = {.kind = RAFT_APPEND_RESP, .from = 2, .term = 1, .ok = true};

	elect(f, 1);
	isolate(f, 1);
	(void)propose(f, 1, "x");
	settle(f);
	ack.index = 3; /* longer than the leader's log */
	tell(f, 1, ack);
	assert_commit(f, 1, 1);
	ack.index = 2;
	ack.round = 1000; /* never begun */
	tell(f, 1, ack);
	assert_commit(f, 1, 1);
	ack.round = 0;
	ack.from = 6; /* nobody knows it */
	tell(f, 1, ack);
	assert_commit(f, 1, 1);
	ack.from = 2;
	tell(f, 1, ack);
	assert_commit(f, 1, 2);
}

static void a_second_leader_of_one_term_is_not_believed(void **state)
{
	struct fixture *f = *state;
	const uint64_t terms[] = {1};

	elect(f, 1);
	tell_entries(f, 3, 2, 1, 1, 1, terms, 1, 1);
	assert_int_equal(raft_last_index(raft_of(f, 2)), 1);
	assert_int_equal(raft_leader(raft_of(f, 2)), 1);
	tell_entries(f, 3, 1, 1, 1, 1, terms, 1, 1);
	assert_role(f, 1, RAFT_LEADER);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_entry_is_applied_everywhere_at_once),
		T(what_is_proposed_in_one_turn_leaves_in_one_message),
		T(a_message_keeps_to_its_limits),
		T(too_much_uncommitted_is_refused),
		T(an_entry_that_is_too_long_is_refused),
		T(what_apply_proposes_leaves_in_the_same_flush),
		T(a_leader_does_not_count_its_own_unwritten_entries),
		T(two_followers_commit_without_the_leaders_disk),
		T(a_follower_acknowledges_only_what_is_on_its_disk),
		T(entries_that_this_leader_never_sent_are_not_acknowledged),
		T(nothing_of_a_term_is_said_before_the_term_is_durable),
		T(a_late_completion_of_a_truncated_entry_is_ignored),
		T(a_crash_loses_only_what_was_not_acknowledged),
		cmocka_unit_test(figure_8_an_older_terms_entry_is_not_committed_by_counting),
		T(lost_messages_are_sent_again),
		T(lost_answers_are_given_again),
		T(messages_in_the_wrong_order_do_no_harm),
		T(a_follower_with_another_tail_is_overwritten),
		T(a_long_wrong_tail_costs_few_messages),
		T(a_dead_follower_is_sent_no_entries),
		T(word_of_a_commit_is_not_answered),
		T(impossible_messages_change_nothing),
		T(impossible_entries_change_nothing),
		T(committed_entries_are_not_overwritten),
		T(impossible_acknowledgements_commit_nothing),
		T(a_second_leader_of_one_term_is_not_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
