/*
 * events_test.c - what readers of a node's events see, and what nobody sees.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "core/events.h"

struct fixture {
	struct events events;
	struct core_events *reader;
	int woken;
	struct lock *lock;
	char line[2048];    /* the last one read */
	struct claim claim; /* the last field: its range, which it has not, would follow */
};

static void on_wake(void *arg)
{
	((struct fixture *)arg)->woken++;
}

static void lock_is_called(struct fixture *f, const char *name, size_t len)
{
	free(f->lock);
	f->lock = xcalloc(1, sizeof *f->lock + len + 1);
	f->lock->name_len = (uint8_t)len;
	memcpy(f->lock->name, name, len);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	f->claim.task = (struct core_task){.pid = 4711, .command = "make"};
	f->claim.token = 77;
	lock_is_called(f, "build", 5);
	*state = f;
	return 0;
}

static void read_along(struct fixture *f)
{
	f->reader = events_open(&f->events, on_wake, f);
}

static void stop_reading(struct fixture *f)
{
	core_events_close(TAKE(f->reader));
	events_check(&f->events);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->reader != NULL) {
		stop_reading(f);
	}
	events_fini(&f->events);
	free(f->lock);
	free(f);
	return 0;
}

static void happens(struct fixture *f, enum event_kind kind)
{
	events_lock(&f->events, 1000, kind, 2, f->lock, &f->claim);
	events_check(&f->events);
}

static void rare_happens(struct fixture *f, const char *what)
{
	json_u64(events_begin(&f->events, 2000, what), "term", 3);
	events_end(&f->events);
	events_check(&f->events);
}

static const char *next(struct fixture *f)
{
	const char *line;
	size_t len = core_events_next(f->reader, &line);

	if (len == 0) {
		return NULL;
	}
	assert_true(len < sizeof f->line);
	assert_int_equal(line[len - 1], '\n');
	memcpy(f->line, line, len - 1);
	f->line[len - 1] = '\0';
	return f->line;
}

static void a_reader_gets_what_happens_from_its_opening_on_in_order(void **state)
{
	struct fixture *f = *state;

	rare_happens(f, "leader.changed");
	read_along(f);
	assert_null(next(f));
	happens(f, EVENT_GRANTED);
	rare_happens(f, "leader.changed");
	happens(f, EVENT_RELEASED);
	assert_string_equal(next(f),
		"{\"n\":2,\"time\":1000,\"event\":\"lock.granted\",\"lock\":\"build\","
		"\"mode\":\"exclusive\",\"node\":2,\"pid\":4711,\"command\":\"make\",\"token\":"
		"77}");
	assert_string_equal(
		next(f), "{\"n\":3,\"time\":2000,\"event\":\"leader.changed\",\"term\":3}");
	assert_non_null(strstr(next(f), "\"n\":4,\"time\":1000,\"event\":\"lock.released\""));
	assert_null(next(f));
}

static void a_wait_has_no_token(void **state)
{
	struct fixture *f = *state;

	read_along(f);
	f->claim.token = 0;
	f->claim.shared = true;
	happens(f, EVENT_WAITING);
	assert_string_equal(next(f),
		"{\"n\":1,\"time\":1000,\"event\":\"lock.waiting\",\"lock\":\"build\","
		"\"mode\":\"shared\",\"node\":2,\"pid\":4711,\"command\":\"make\"}");
}

static void names_and_commands_are_bytes(void **state)
{
	struct fixture *f = *state;
	char name[255];

	read_along(f);
	lock_is_called(f, "a\"\\\n\xff", 5);
	memset(f->claim.task.command, '\x01', sizeof f->claim.task.command); /* without a NUL */
	happens(f, EVENT_LOST);
	assert_non_null(strstr(next(f), "\"lock\":\"a\\u0022\\u005c\\u000a\\u00ff\""));
	memset(name, '\xfe', sizeof name);
	lock_is_called(f, name, sizeof name);
	happens(f, EVENT_CANCELLED);
	assert_true(strlen(next(f)) > sizeof name * 6);
}

static void locks_that_nobody_watches_leave_no_trace(void **state)
{
	struct fixture *f = *state;

	happens(f, EVENT_GRANTED);
	assert_int_equal(f->events.n, 0);
	assert_null(f->events.rings[EVENTS_LIVE].slots);
	read_along(f);
	happens(f, EVENT_GRANTED);
	stop_reading(f);
	assert_null(f->events.rings[EVENTS_LIVE].slots);
	read_along(f);
	core_events_rewind(f->reader);
	assert_null(next(f));
}

static void what_is_rare_is_kept_and_not_washed_away_by_locks(void **state)
{
	struct fixture *f = *state;

	rare_happens(f, "node.started");
	read_along(f);
	for (int i = 0; i < 3 * EVENTS_MAX; i++) {
		happens(f, EVENT_GRANTED);
	}
	stop_reading(f);
	read_along(f);
	core_events_rewind(f->reader);
	assert_non_null(strstr(next(f), "node.started"));
	assert_null(next(f));
}

static void a_slow_reader_is_told_how_much_it_missed(void **state)
{
	struct fixture *f = *state;
	int lines = 0;

	read_along(f);
	for (int i = 0; i < EVENTS_MAX + 10; i++) {
		events_lock(&f->events, 1000, EVENT_GRANTED, 2, f->lock, &f->claim);
	}
	events_check(&f->events);
	assert_string_equal(next(f), "{\"event\":\"events.missed\",\"count\":10}");
	assert_non_null(strstr(next(f), "\"n\":11,"));
	while (next(f) != NULL) {
		lines++;
	}
	assert_int_equal(lines, EVENTS_MAX - 1);
}

static void long_names_are_limited_by_bytes(void **state)
{
	struct fixture *f = *state;
	char name[255];

	memset(name, 'x', sizeof name);
	lock_is_called(f, name, sizeof name);
	read_along(f);
	for (int i = 0; i < EVENTS_MAX; i++) {
		events_lock(&f->events, 1000, EVENT_GRANTED, 2, f->lock, &f->claim);
	}
	events_check(&f->events);
	assert_true(f->events.rings[EVENTS_LIVE].bytes <= EVENTS_BYTES_MAX);
	assert_non_null(strstr(next(f), "events.missed"));
}

static void a_reader_that_found_nothing_is_woken_once(void **state)
{
	struct fixture *f = *state;

	read_along(f);
	happens(f, EVENT_GRANTED);
	events_wake(&f->events);
	assert_int_equal(f->woken, 0); /* it has not looked yet */
	assert_non_null(next(f));
	assert_false(core_events_pending(f->reader));
	events_wake(&f->events);
	assert_int_equal(f->woken, 0); /* nothing new */
	happens(f, EVENT_RELEASED);
	rare_happens(f, "leader.changed");
	events_wake(&f->events);
	events_wake(&f->events);
	assert_int_equal(f->woken, 1);
	assert_non_null(next(f));
	assert_non_null(next(f));
	assert_null(next(f));
	happens(f, EVENT_GRANTED);
	events_wake(&f->events);
	assert_int_equal(f->woken, 2);
}

static void readers_do_not_disturb_each_other(void **state)
{
	struct fixture *f = *state;
	struct core_events *others[9];

	read_along(f);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		others[i] = events_open(&f->events, on_wake, f);
	}
	happens(f, EVENT_GRANTED);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct core_events *mine = f->reader;

		f->reader = others[i];
		assert_non_null(strstr(next(f), "lock.granted"));
		assert_null(next(f));
		core_events_close(others[i]);
		f->reader = mine;
		events_check(&f->events);
	}
	assert_non_null(strstr(next(f), "lock.granted"));
}

static void nested_values_are_written(void **state)
{
	struct json j = {.comma = false};
	static const char want[] =
		"{\"cycle\":[{\"node\":1,\"name\":\"a\"},{\"node\":2}],\"ok\":true,\"empty\":[]}";

	(void)state;
	json_open(&j, NULL, '{');
	json_open(&j, "cycle", '[');
	json_open(&j, NULL, '{');
	json_u64(&j, "node", 1);
	json_string(&j, "name", "a");
	json_close(&j, '}');
	json_open(&j, NULL, '{');
	json_u64(&j, "node", 2);
	json_close(&j, '}');
	json_close(&j, ']');
	json_bool(&j, "ok", true);
	json_open(&j, "empty", '[');
	json_close(&j, ']');
	json_close(&j, '}');
	assert_int_equal(j.text.len, strlen(want));
	assert_memory_equal(j.text.data, want, strlen(want));
	wire_buf_fini(&j.text);
}

static bool check_fails(const struct events *e)
{
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		(void)freopen("/dev/null", "w", stderr); /* it says why, which is expected here */
		(void)signal(SIGABRT, SIG_DFL); /* cmocka would report it as the parent's */
		events_check(e);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#define ASSERT_NOTICED(lvalue, wrong)                                                              \
	do {                                                                                       \
		__typeof__(lvalue) right_ = (lvalue);                                              \
		(lvalue) = (wrong);                                                                \
		assert_true(check_fails(&f->events));                                              \
		(lvalue) = right_;                                                                 \
	} while (0)

/* A check that never fails checks nothing. */
static void the_check_notices_what_is_wrong(void **state)
{
	struct fixture *f = *state;
	struct events_ring *kept = &f->events.rings[EVENTS_KEPT];
	struct events_ring *live = &f->events.rings[EVENTS_LIVE];

	read_along(f);
	rare_happens(f, "node.started");
	happens(f, EVENT_GRANTED);
	assert_false(check_fails(&f->events));
	ASSERT_NOTICED(kept->bytes, kept->bytes + 1);
	ASSERT_NOTICED(kept->first, kept->end + 1);
	ASSERT_NOTICED(f->events.n, 1);          /* a record has a later number */
	ASSERT_NOTICED(f->events.readers, NULL); /* and LIVE is not empty */
	while (next(f) != NULL) {
	}
	assert_false(check_fails(&f->events));
	ASSERT_NOTICED(live->end, live->end - 1); /* the reader is ahead */
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_reader_gets_what_happens_from_its_opening_on_in_order),
		T(a_wait_has_no_token),
		T(names_and_commands_are_bytes),
		T(locks_that_nobody_watches_leave_no_trace),
		T(what_is_rare_is_kept_and_not_washed_away_by_locks),
		T(a_slow_reader_is_told_how_much_it_missed),
		T(long_names_are_limited_by_bytes),
		T(a_reader_that_found_nothing_is_woken_once),
		T(readers_do_not_disturb_each_other),
		T(nested_values_are_written),
		T(the_check_notices_what_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
