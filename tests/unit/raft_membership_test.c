/*
 * raft_membership_test.c - configurations: in force on append, one change at a time.
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

static int change(struct fixture *f, uint64_t at, enum raft_change what, uint64_t id)
{
	return raft_change_config(raft_of(f, at), what, id, "127.0.0.1:7009");
}

static void add_voter(struct fixture *f, uint64_t at, uint64_t id)
{
	join(f, id);
	assert_int_equal(change(f, at, RAFT_ADD_LEARNER, id), 0);
	pass(f, 500);
	assert_int_equal(change(f, at, RAFT_PROMOTE, id), 0);
	settle(f);
}

static void a_learner_receives_the_log_and_counts_for_nothing(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	(void)propose(f, 1, "x");
	join(f, 4);
	settle(f);
	assert_int_equal(change(f, 1, RAFT_ADD_LEARNER, 4), 0);
	pass(f, 500);
	assert_all_applied(f, 3);
	assert_non_null(raft_config_find(raft_config(raft_of(f, 4)), 4));
	isolate(f, 2);
	isolate(f, 3);
	(void)propose(f, 1, "x");
	settle(f);
	assert_commit(f, 1, 3); /* it and the leader are no majority */
	tick(f, 4, 10000);
	assert_role(f, 4, RAFT_FOLLOWER); /* and it does not stand */
}

static void a_learner_that_caught_up_becomes_a_voter(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	for (int i = 0; i < 3000; i++) {
		(void)propose(f, 1, "x");
	}
	settle(f);
	assert_int_equal(change(f, 1, RAFT_ADD_LEARNER, 4), 0);
	settle(f);
	assert_int_equal(change(f, 1, RAFT_PROMOTE, 4), -EPROTO); /* it is not even there */
	join(f, 4);
	pass(f, 500);
	assert_int_equal(change(f, 1, RAFT_PROMOTE, 4), 0);
	settle(f);
	isolate(f, 2);
	(void)propose(f, 1, "x");
	settle(f);
	assert_commit(f, 1, 3004); /* 1, 3 and 4 of four */
	crash(f, 3);
	(void)propose(f, 1, "x");
	settle(f);
	assert_commit(f, 1, 3004);
}

static void impossible_changes_are_refused(void **state)
{
	struct fixture *f = *state;
	char long_addr[RAFT_ADDR_MAX + 1];

	memset(long_addr, 'a', RAFT_ADDR_MAX);
	long_addr[RAFT_ADDR_MAX] = '\0';
	assert_int_equal(change(f, 1, RAFT_REMOVE, 2), -EAGAIN);
	elect(f, 1);
	assert_int_equal(change(f, 1, RAFT_ADD_LEARNER, 3), -EEXIST);
	assert_int_equal(change(f, 1, RAFT_ADD_LEARNER, 0), -EINVAL);
	assert_int_equal(
		raft_change_config(raft_of(f, 1), RAFT_ADD_LEARNER, 9, long_addr), -EINVAL);
	assert_int_equal(raft_change_config(raft_of(f, 1), RAFT_ADD_LEARNER, 9, NULL), -EINVAL);
	assert_int_equal(change(f, 1, RAFT_PROMOTE, 3), -EEXIST);
	assert_int_equal(change(f, 1, RAFT_PROMOTE, 9), -ENOENT);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 9), -ENOENT);
}

static void the_number_of_servers_is_limited(void **state)
{
	struct fixture *f = fixture_new(1);
	uint64_t id = 100; /* nobody is there */
	int rc;

	(void)state;
	elect(f, 1);
	while ((rc = change(f, 1, RAFT_ADD_LEARNER, id)) == 0) {
		settle(f);
		id++;
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_int_equal(raft_config(raft_of(f, 1))->n, RAFT_SERVERS_MAX);
	fixture_free(f);
}

static void one_change_at_a_time(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), 0);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 2), -EBUSY);
	settle(f);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 2), 0);
	settle(f);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 1), -EPERM);
}

/* Without this a change of an older term may be lost unnoticed (Ongaro 2015). */
static void no_change_before_an_entry_of_the_own_term_is_committed(void **state)
{
	struct fixture *f = *state;

	f->muted[RAFT_APPEND_REQ] = true;
	elect(f, 1);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), -EBUSY);
	heal(f);
	pass(f, 200);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), 0);
}

static void a_configuration_is_in_force_on_append(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 1);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), 0);
	flush(f, 1);
	assert_null(raft_config_find(raft_config(raft_of(f, 1)), 3));
	assert_non_null(raft_config_find(raft_config_at(raft_of(f, 1), 1), 3));
	assert_int_equal(server(f, 1)->config_changes, 1);
}

/* A leader that goes on by a configuration that was never committed counts the wrong voters. */
static void a_truncated_configuration_is_undone(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 1);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), 0);
	settle(f);
	elect(f, 2);
	heal(f);
	pass(f, 500);
	assert_non_null(raft_config_find(raft_config(raft_of(f, 1)), 3));
	assert_int_equal(server(f, 1)->config_changes, 2);
	isolate(f, 2);
	elect(f, 1); /* it needs 3 */
}

static void a_removed_server_does_not_disturb(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	isolate(f, 3);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), 0);
	pass(f, 1000);
	heal(f); /* 3 never heard of it */
	pass(f, 10000);
	assert_role(f, 1, RAFT_LEADER);
	assert_int_equal(raft_term(raft_of(f, 1)), 1);
}

static void a_removed_server_is_told(void **state)
{
	struct fixture *f = *state;
	struct raft_peer_report rows[4];

	elect(f, 1);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 3), 0);
	settle(f);
	assert_commit(f, 3, 2);
	assert_null(raft_config_find(raft_config(raft_of(f, 3)), 3));
	assert_int_equal(raft_peers(raft_of(f, 1), rows, 4), 1);
	forget_sent(f);
	pass(f, 10000);
	assert_null(last_sent(f, 1, 3, RAFT_APPEND_REQ));
	assert_null(last_sent(f, 3, 1, RAFT_PREVOTE_REQ)); /* it knows */
}

static void a_removed_leader_goes_when_its_removal_is_committed(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	hold_disk(f, 2);
	assert_int_equal(change(f, 1, RAFT_REMOVE, 1), 0);
	settle(f);
	assert_role(f, 1, RAFT_LEADER); /* 1 and 3 have it, but 1 does not count */
	assert_commit(f, 1, 1);
	release_disk(f, 2);
	settle(f);
	assert_role(f, 1, RAFT_FOLLOWER);
	assert_int_not_equal(leader_of(f), 0); /* at once: it named a successor */
	assert_int_not_equal(leader_of(f), 1);
	(void)propose(f, leader_of(f), "x");
	pass(f, 2000);
	assert_int_equal(server(f, 2)->applied, 4);
	assert_int_equal(raft_role(raft_of(f, 1)), RAFT_FOLLOWER);
}

/* Of two voters, 2 removes 1 and forgets it in a crash; 1 remembers. Only 1 can win, by votes of a
 * configuration that it is not part of, and then it commits its own removal (thesis 4.2.2). */
static void a_voter_whose_removal_is_not_committed_still_stands(void **state)
{
	struct fixture *f = fixture_new(2);

	(void)state;
	elect(f, 2);
	hold_disk(f, 2);
	assert_int_equal(change(f, 2, RAFT_REMOVE, 1), 0);
	settle(f);
	assert_null(raft_config_find(raft_config(raft_of(f, 1)), 1));
	restart(f, 2);
	assert_non_null(raft_config_find(raft_config(raft_of(f, 2)), 1));
	pass(f, 3000);
	assert_role(f, 2, RAFT_LEADER);
	assert_null(raft_config_find(raft_config(raft_of(f, 2)), 1));
	fixture_free(f);
}

static void five_servers_survive_two_and_three_survive_one(void **state)
{
	struct fixture *f = *state;

	elect(f, 1);
	add_voter(f, 1, 4);
	add_voter(f, 1, 5);
	crash(f, 1);
	crash(f, 2);
	pass(f, 2000);
	assert_int_not_equal(leader_of(f), 0);
	(void)propose(f, leader_of(f), "x");
	settle(f);
	restart(f, 1);
	restart(f, 2);
	pass(f, 1000);
	assert_all_applied(f, server(f, leader_of(f))->applied);
}

/* A learner that was promoted may have the deciding vote and not know of its promotion. */
static void a_server_votes_by_the_candidates_configuration(void **state)
{
	struct fixture *f = *state;

	join(f, 4);
	tell(f, 4, (struct raft_msg){.kind = RAFT_VOTE_REQ, .from = 1, .term = 1});
	assert_true(last_sent(f, 4, 1, RAFT_VOTE_RESP)->ok);
}

static void a_snapshot_brings_its_configuration(void **state)
{
	struct fixture *f = *state;

	f->options.trailing_entries = 0;
	for (uint64_t id = 1; id <= 3; id++) {
		restart(f, id);
	}
	elect(f, 1);
	add_voter(f, 1, 4);
	take_snapshot(f, 1);
	assert_non_null(raft_config_find(raft_config_at(raft_of(f, 1), 3), 4));
	(void)propose(f, 1, "x");
	settle(f);
	take_snapshot(f, 1);
	assert_int_equal(change(f, 1, RAFT_ADD_LEARNER, 5), 0);
	join(f, 5);
	pass(f, 1000);
	assert_true(server(f, 5)->chunks_written > 0);
	assert_true(raft_config_find(raft_config(raft_of(f, 5)), 4)->voter);
	assert_all_applied(f, server(f, 1)->applied);
	restart(f, 5);
	assert_true(raft_config_find(raft_config(raft_of(f, 5)), 4)->voter);
}

/* --- as a value -------------------------------------------------------------------------- */

static void a_configuration_survives_packing(void **state)
{
	struct raft_server servers[] = {{.id = 9, .addr = "node9:1"}, {.id = 2, .voter = true}};
	struct raft_config c = {.n = 2, .servers = servers};
	struct raft_config back;
	uint8_t *data;
	size_t len;

	(void)state;
	raft_config_encode(&c, &data, &len);
	assert_int_equal(raft_config_decode(data, len, &back), 0);
	assert_int_equal(back.n, 2);
	assert_int_equal(back.servers[0].id, 2); /* ordered */
	assert_true(back.servers[0].voter);
	assert_string_equal(back.servers[1].addr, "node9:1");
	assert_null(raft_config_find(&back, 3));
	for (size_t cut_at = 0; cut_at < len; cut_at++) {
		struct raft_config part;

		if (raft_config_decode(data, cut_at, &part) == 0) {
			raft_config_fini(&part); /* shorter, and still one */
		}
	}
	raft_config_fini(&back);
	free(data);
}

static void what_is_no_configuration_is_refused(void **state)
{
	struct raft_server twice[] = {{.id = 2, .voter = true}, {.id = 2}};
	struct raft_server zero[] = {{.id = 0, .voter = true}};
	struct raft_server learners[] = {{.id = 1}, {.id = 2}};
	struct raft_server *many = xcalloc(RAFT_SERVERS_MAX + 1, sizeof *many);
	struct raft_config copy;

	(void)state;
	for (size_t i = 0; i <= RAFT_SERVERS_MAX; i++) {
		many[i].id = i + 1;
		many[i].voter = i <= RAFT_VOTERS_MAX;
	}
	assert_int_equal(raft_config_copy(&(struct raft_config){2, twice}, &copy), -EBADMSG);
	assert_int_equal(raft_config_copy(&(struct raft_config){1, zero}, &copy), -EBADMSG);
	assert_int_equal(raft_config_copy(&(struct raft_config){2, learners}, &copy), -EBADMSG);
	assert_int_equal(raft_config_copy(&(struct raft_config){0, many}, &copy), -EBADMSG);
	assert_int_equal(raft_config_copy(&(struct raft_config){RAFT_SERVERS_MAX + 1, many}, &copy),
		-EBADMSG);
	assert_int_equal(raft_config_copy(&(struct raft_config){RAFT_VOTERS_MAX + 1, many}, &copy),
		-EBADMSG);
	assert_int_equal(raft_config_copy(&(struct raft_config){RAFT_VOTERS_MAX, many}, &copy), 0);
	raft_config_fini(&copy);
	free(many);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_learner_receives_the_log_and_counts_for_nothing),
		T(a_learner_that_caught_up_becomes_a_voter),
		T(impossible_changes_are_refused),
		cmocka_unit_test(the_number_of_servers_is_limited),
		T(one_change_at_a_time),
		T(no_change_before_an_entry_of_the_own_term_is_committed),
		T(a_configuration_is_in_force_on_append),
		T(a_truncated_configuration_is_undone),
		T(a_removed_server_does_not_disturb),
		T(a_removed_server_is_told),
		T(a_removed_leader_goes_when_its_removal_is_committed),
		cmocka_unit_test(a_voter_whose_removal_is_not_committed_still_stands),
		T(five_servers_survive_two_and_three_survive_one),
		T(a_server_votes_by_the_candidates_configuration),
		T(a_snapshot_brings_its_configuration),
		cmocka_unit_test(a_configuration_survives_packing),
		cmocka_unit_test(what_is_no_configuration_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
