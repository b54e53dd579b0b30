/*
 * node_members_test.c - changes of the membership, asked of any node, and who is let in.
 */
#include "tests/unit/node_fixture.h"

#include <errno.h>

#include "core/wire.h"

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

struct change {
	unsigned answers;
	int error;
	uint64_t id;
};

static void changed(void *arg, int error, uint64_t id, const char *text)
{
	struct change *c = arg;

	assert_non_null(text);
	c->answers++;
	c->error = error;
	c->id = id;
}

static void ask(struct world *w, uint64_t at, enum raft_change what, uint64_t id, const char *addr,
	struct change *ret_change)
{
	*ret_change = (struct change){0};
	notice(w, at);
	node_change_member(node_at(w, at), what, id, addr, changed, ret_change);
	flush(w, at);
}

#define assert_changed(change, err)                                                                \
	do {                                                                                       \
		assert_int_equal((change)->answers, 1);                                            \
		assert_int_equal((change)->error, err);                                            \
	} while (0)

static uint64_t add(struct world *w, uint64_t at, const char *addr)
{
	struct change c;

	ask(w, at, RAFT_ADD_LEARNER, 0, addr, &c);
	pass(w, 1000);
	assert_changed(&c, 0);
	return c.id;
}

static const struct raft_server *server_at(struct world *w, uint64_t at, uint64_t id)
{
	return raft_config_find(raft_config(node_raft(node_at(w, at))), id);
}

/* --- changes ----------------------------------------------------------------------------- */

static void changes_asked_of_a_follower_are_made_by_the_leader(void **state)
{
	struct world *w = *state;
	struct change remove;

	assert_int_equal(add(w, 3, "node4:7100"), 4);
	assert_false(server_at(w, 2, 4)->voter);
	join(w, 4);
	(void)settled_leader(w);
	pass(w, 1000);
	assert_true(server_at(w, 2, 4)->voter);
	ask(w, 2, RAFT_REMOVE, 4, NULL, &remove);
	pass(w, 1000);
	assert_changed(&remove, 0);
	assert_null(server_at(w, 3, 4));
	assert_int_equal(add(w, 2, "node5:7100"), 5); /* an id is not used again */
}

static void changes_that_make_no_sense_are_refused(void **state)
{
	struct world *w = *state;
	struct change remove, promote, late;

	ask(w, 2, RAFT_REMOVE, 9, NULL, &remove);
	ask(w, 3, RAFT_PROMOTE, 2, NULL, &promote);
	pass(w, 1000);
	assert_changed(&remove, ENOENT);
	assert_changed(&promote, EEXIST);
	isolate(w, 2);
	ask(w, 2, RAFT_REMOVE, 3, NULL, &late);
	pass(w, 30100);
	assert_changed(&late, ETIMEDOUT);
}

static void nodes_that_join_at_once_get_an_id_each(void **state)
{
	static const char *const addrs[] = {"a:1", "b:1", "c:1", "d:1"};
	struct world *w = *state;
	struct change c[ARRAY_SIZE(addrs)];

	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		ask(w, i == 0 ? 2 : 1, RAFT_ADD_LEARNER, 0, addrs[i], &c[i]);
	}
	pass(w, 2000);
	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		assert_changed(&c[i], 0);
		assert_string_equal(server_at(w, 1, c[i].id)->addr, addrs[i]);
	}
}

/* Its process died between the answer and the first start. */
static void joining_once_more_gives_the_same_id(void **state)
{
	struct world *w = *state;
	struct change again;

	assert_int_equal(add(w, 2, "node4:7100"), 4);
	assert_int_equal(add(w, 1, "node4:7100"), 4);
	join(w, 4);
	(void)settled_leader(w);
	ask(w, 3, RAFT_ADD_LEARNER, 0, "node4:7100", &again);
	pass(w, 1000);
	assert_changed(&again, EEXIST);
}

static void id_is_given_when_it_is_committed(void **state)
{
	struct world *w = *state;
	struct change first, again;

	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT);
	keep(w, 1, 3, WIRE__FRAME__BODY_RAFT);
	ask(w, 1, RAFT_ADD_LEARNER, 0, "node4:7100", &first);
	pass(w, 30);
	assert_non_null(server_at(w, 1, 4));
	ask(w, 1, RAFT_ADD_LEARNER, 0, "node4:7100", &again);
	pass(w, 30);
	assert_int_equal(first.answers + again.answers, 0);
	(void)release(w, 1, 2);
	pass(w, 100);
	assert_changed(&first, 0);
	assert_changed(&again, 0);
	assert_int_equal(first.id, 4);
	assert_int_equal(again.id, 4);
}

static void change_goes_on_under_the_next_leader(void **state)
{
	struct world *w = *state;
	struct change c;

	cut(w, 1, 3);
	keep(w, 1, 2, WIRE__FRAME__BODY_RAFT); /* in the leader's log, not committed */
	ask(w, 1, RAFT_ADD_LEARNER, 0, "a:1", &c);
	for (unsigned i = 0; i < 10; i++) {
		tick(w, 1);
		flush(w, 1);
	}
	lose(w, 1, 2);
	isolate(w, 1);
	(void)release(w, 1, 2);
	pass(w, 2000);
	assert_int_equal(c.answers, 0);
	assert_int_equal(add(w, 2, "b:1"), 4); /* the id that the first one had nearly got */
	heal(w);
	pass(w, 2000);
	assert_changed(&c, 0);
	assert_int_equal(c.id, 5);
	assert_string_equal(server_at(w, 2, 5)->addr, "a:1");
}

static void answer_to_a_former_process_is_not_taken_for_ours(void **state)
{
	struct world *w = *state;
	struct change before, after;

	ask(w, 2, RAFT_ADD_LEARNER, 0, "a:1", &before);
	keep(w, 1, 2, WIRE__FRAME__BODY_MEMBER_CHANGED);
	pass(w, 200);
	assert_int_equal(n_kept(w, 1, 2), 1);
	assert_int_equal(before.answers, 0);
	node_free(TAKE(w->boxes[2].node)); /* killed; what is on its way to it stays so */
	restart(w, 2);
	keep(w, 2, 1, WIRE__FRAME__BODY_MEMBER_CHANGE);
	ask(w, 2, RAFT_REMOVE, 3, NULL, &after);
	while (n_kept(w, 2, 1) == 0) {
		pass(w, 5);
	}
	(void)release(w, 1, 2);
	settle(w);
	assert_int_equal(after.answers, 0);
	(void)release(w, 2, 1);
	pass(w, 1000);
	assert_changed(&after, 0);
	assert_null(server_at(w, 1, 3));
}

static void leader_removes_itself_and_answers(void **state)
{
	struct world *w = *state;
	struct change here, there;

	ask(w, 1, RAFT_REMOVE, 1, NULL, &here);
	pass(w, 2000);
	assert_changed(&here, 0);
	assert_int_not_equal(leader_of(w), 1);
	assert_null(server_at(w, leader_of(w), 1));
	ask(w, 2, RAFT_REMOVE, leader_of(w), NULL, &there);
	pass(w, 2000);
	assert_changed(&there, 0);
}

/* --- a removed node ---------------------------------------------------------------------- */

static void removed_node_learns_it_and_loses_its_session(void **state)
{
	struct world *w = *state;
	struct change c;
	struct ask held, wait;

	lock(w, 3, "x", 7, EX, &held);
	settle(w);
	lock(w, 2, "x", 8, EX, &wait);
	settle(w);
	ask(w, 3, RAFT_REMOVE, 3, NULL, &c);
	pass(w, 2 * TTL_MS);
	assert_changed(&c, 0);
	assert_null(server_at(w, 3, 3));
	assert_int_equal(w->boxes[3].lost, 1);
	assert_int_equal(node_session(node_at(w, 3)), 0);
	assert_answer(&wait, ST_OK);
	pass(w, 60000);
	assert_null(raft_config_find(&w->boxes[1].streams, 3)); /* nobody holds a stream to it */
	assert_int_equal(leader_of(w), 1);
}

static void removed_node_restarts_and_stays_out(void **state)
{
	struct world *w = *state;
	struct change c;

	ask(w, 1, RAFT_REMOVE, 3, NULL, &c);
	pass(w, 1000);
	assert_changed(&c, 0);
	crash(w, 3);
	restart(w, 3);
	pass(w, 2 * TTL_MS);
	assert_int_equal(leader_of(w), 1);
	assert_null(state_session_of_node(node_state(node_at(w, 1)), 3));
}

/* --- who is let in ----------------------------------------------------------------------- */

static void empty_directory_is_not_let_in_under_its_former_id(void **state)
{
	struct world *w = *state;

	crash(w, 3);
	wipe(w, 3);
	assert_false(node_admits(node_at(w, 1), 3, w->boxes[3].uuid));
	assert_false(node_admits(node_at(w, 2), 3, w->boxes[3].uuid));
	assert_false(node_admits(node_at(w, 2), 2, w->boxes[2].uuid)); /* ourselves */
	assert_true(node_admits(node_at(w, 2), 1, w->boxes[1].uuid));
}

/* 2 and 3 have an entry that 1 has not; 3 forgets it, and 2 is away. */
static void empty_directory_does_not_vote_after_a_restart_of_all(void **state)
{
	struct world *w = *state;
	struct ask ask;
	uint64_t term;

	elect(w, 2);
	isolate(w, 1);
	lock(w, 2, "x", 7, EX, &ask);
	settle(w);
	assert_answer(&ask, ST_OK);
	for (uint64_t id = 1; id <= 3; id++) {
		crash(w, id);
	}
	heal(w);
	wipe(w, 3);
	restart(w, 1);
	term = raft_term(node_raft(node_at(w, 1)));
	restart(w, 3);
	pass(w, 10000);
	assert_int_equal(raft_term(node_raft(node_at(w, 1))), term); /* nobody was elected */
	restart(w, 2);
	pass(w, 1000);
	assert_int_equal(leader_of(w), 2); /* the only one whose log has everything */
}

int main(void)
{
#define AT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		AT(changes_asked_of_a_follower_are_made_by_the_leader),
		AT(changes_that_make_no_sense_are_refused),
		AT(nodes_that_join_at_once_get_an_id_each),
		AT(joining_once_more_gives_the_same_id),
		AT(id_is_given_when_it_is_committed),
		AT(change_goes_on_under_the_next_leader),
		AT(answer_to_a_former_process_is_not_taken_for_ours),
		AT(leader_removes_itself_and_answers),
		AT(removed_node_learns_it_and_loses_its_session),
		AT(removed_node_restarts_and_stays_out),
		AT(empty_directory_is_not_let_in_under_its_former_id),
		AT(empty_directory_does_not_vote_after_a_restart_of_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
