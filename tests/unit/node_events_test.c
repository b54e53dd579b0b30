/*
 * node_events_test.c - which moments of a node's life are told to those who read its events.
 */
#include "tests/unit/node_fixture.h"

#include <stdio.h>

/* Reads along at one node. */
struct reader {
	struct core_events *events;
	unsigned woken;
	char text[65536];
	size_t len;
};

static void on_wake(void *arg)
{
	((struct reader *)arg)->woken++;
}

static void read_along(struct world *w, uint64_t id, struct reader *ret_reader)
{
	memset(ret_reader, 0, sizeof *ret_reader);
	ret_reader->events = core_events_open(core_at(w, id), on_wake, ret_reader);
	assert_false(core_events_pending(ret_reader->events));
}

/* All lines since the last time. */
static const char *news(struct reader *r)
{
	const char *line;
	size_t len;

	r->len = 0;
	while ((len = core_events_next(r->events, &line)) > 0) {
		assert_true(r->len + len < sizeof r->text);
		memcpy(r->text + r->len, line, len);
		r->len += len;
	}
	r->text[r->len] = '\0';
	return r->text;
}

/* One of the lines, and no other, has this event, and all the rest of the words. */
static void assert_told(struct reader *r, const char *event, const char *words)
{
	char want[64];
	const char *at;

	(void)snprintf(want, sizeof want, "\"event\":\"%s\"", event);
	at = strstr(r->text, want);
	if (at == NULL || memmem(at, strcspn(at, "\n"), words, strlen(words)) == NULL) {
		fail_msg("no %s with %s in:\n%s", event, words, r->text);
	}
	assert_null(strstr(at + 1, want));
}

static void assert_not_told(struct reader *r, const char *event)
{
	if (strstr(r->text, event) != NULL) {
		fail_msg("%s in:\n%s", event, r->text);
	}
}

static int setup(void **state)
{
	*state = world_new(3);
	elect(*state, 1);
	(void)settled_leader(*state);
	return 0;
}

static int teardown(void **state)
{
	world_free(*state);
	return 0;
}

static void steps_of_a_lock_are_told_on_every_node(void **state)
{
	struct world *w = *state;
	struct reader r;
	struct ask a, b, c;

	read_along(w, 3, &r);
	lock(w, 1, "x", 1, EX, &a);
	settle(w);
	assert_int_equal(r.woken, 1);
	(void)news(&r);
	assert_told(&r, "lock.granted", "\"lock\":\"x\",\"mode\":\"exclusive\",\"node\":1");
	lock(w, 2, "x", 1, SH, &b);
	lock(w, 2, "x", 2, EX_NB, &c);
	settle(w);
	(void)news(&r);
	assert_told(&r, "lock.waiting", "\"lock\":\"x\",\"mode\":\"shared\",\"node\":2");
	assert_not_told(&r, "lock.granted"); /* nor that somebody was refused */
	unlock(w, 1, "x", 1);
	settle(w);
	(void)news(&r);
	assert_told(&r, "lock.released", "\"node\":1");
	assert_told(&r, "lock.granted", "\"node\":2");
	core_events_close(r.events);
}

static void a_conversion_is_told(void **state)
{
	struct world *w = *state;
	struct reader r;
	struct ask a;

	read_along(w, 2, &r);
	lock(w, 1, "x", 1, SH, &a);
	settle(w);
	(void)news(&r);
	lock(w, 1, "x", 1, SH, &a);
	settle(w);
	assert_string_equal(news(&r), ""); /* nothing changes */
	lock(w, 1, "x", 1, EX, &a);
	settle(w);
	(void)news(&r);
	assert_told(&r, "lock.granted", "\"mode\":\"exclusive\"");
	assert_not_told(&r, "lock.released");
	core_events_close(r.events);
}

static void an_interrupted_wait_is_told(void **state)
{
	struct world *w = *state;
	struct reader r;
	struct ask a, b;

	read_along(w, 1, &r);
	lock(w, 1, "x", 1, EX, &a);
	lock(w, 1, "x", 2, EX, &b);
	settle(w);
	interrupt(w, 1, &b);
	settle(w);
	(void)news(&r);
	assert_told(&r, "lock.cancelled", "\"lock\":\"x\"");
	core_events_close(r.events);
}

static void a_node_that_dies_loses_its_session_and_locks(void **state)
{
	struct world *w = *state;
	struct reader r;
	struct ask a;

	read_along(w, 2, &r);
	lock(w, 3, "x", 1, EX, &a);
	settle(w);
	crash(w, 3);
	pass(w, 2 * TTL_MS);
	(void)news(&r);
	assert_told(&r, "lock.lost", "\"lock\":\"x\",\"mode\":\"exclusive\",\"node\":3");
	assert_told(&r, "session.ended", "\"node\":3");
	assert_told(&r, "session.ended", "\"why\":\"expired\",\"locks_lost\":1");
	assert_not_told(&r, "session.lost"); /* that is the other node's to notice */
	core_events_close(r.events);
}

static void a_node_that_is_cut_off_tells_what_it_has_lost(void **state)
{
	struct world *w = *state;
	struct reader r;
	struct ask a;

	read_along(w, 3, &r);
	lock(w, 3, "mine", 1, EX, &a);
	settle(w);
	isolate(w, 3);
	pass(w, 2 * TTL_MS);
	(void)news(&r);
	assert_told(&r, "session.lost", "\"locks\":[\"mine\"],\"locks_lost\":1");
	assert_told(&r, "leader.changed", "\"leader\":0");
	heal(w);
	pass(w, TTL_MS);
	(void)news(&r);
	assert_told(&r, "session.ended", "\"node\":3");
	core_events_close(r.events);
}

static void a_new_leader_is_told(void **state)
{
	struct world *w = *state;
	struct reader r;

	read_along(w, 3, &r);
	elect(w, 2);
	pass(w, 100);
	(void)news(&r);
	assert_non_null(strstr(r.text, "\"event\":\"leader.changed\",\"leader\":2"));
	core_events_close(r.events);
}

static void ignore_change(void *arg, int error, uint64_t id, const char *text)
{
}

static void members_are_told(void **state)
{
	struct world *w = *state;
	struct reader r;

	read_along(w, 2, &r);
	node_change_member(node_at(w, 1), RAFT_ADD_LEARNER, 0, "127.0.0.1:9", ignore_change, NULL);
	pass(w, 1000);
	(void)news(&r);
	assert_told(&r, "member.added", "\"node\":4,\"addr\":\"127.0.0.1:9\",\"voter\":false");
	node_change_member(node_at(w, 1), RAFT_REMOVE, 4, NULL, ignore_change, NULL);
	pass(w, 1000);
	(void)news(&r);
	assert_told(&r, "member.removed", "\"node\":4");
	core_events_close(r.events);
}

/* They are in the log that it reads again, and happened in its former life. */
static void a_restarted_node_does_not_tell_old_members_as_new(void **state)
{
	struct world *w = *state;
	struct reader r;

	node_change_member(node_at(w, 1), RAFT_ADD_LEARNER, 0, "127.0.0.1:9", ignore_change, NULL);
	pass(w, 1000);
	crash(w, 2);
	restart(w, 2);
	pass(w, 1000);
	read_along(w, 2, &r);
	core_events_rewind(r.events);
	(void)news(&r);
	assert_told(&r, "node.started", "\"node\":2");
	assert_not_told(&r, "member.added");
	core_events_close(r.events);
}

static void a_full_disk_is_told_once(void **state)
{
	struct world *w = *state;
	struct reader r;

	read_along(w, 3, &r);
	node_low_space(node_at(w, 3), false);
	assert_string_equal(news(&r), "");
	node_low_space(node_at(w, 3), true);
	node_low_space(node_at(w, 3), true);
	(void)news(&r);
	assert_told(&r, "node.low_space", "\"low\":true");
	core_events_close(r.events);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(steps_of_a_lock_are_told_on_every_node),
		T(a_conversion_is_told),
		T(an_interrupted_wait_is_told),
		T(a_node_that_dies_loses_its_session_and_locks),
		T(a_node_that_is_cut_off_tells_what_it_has_lost),
		T(a_new_leader_is_told),
		T(members_are_told),
		T(a_restarted_node_does_not_tell_old_members_as_new),
		T(a_full_disk_is_told_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
