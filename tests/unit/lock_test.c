/*
 * lock_test.c - flock(2) over the whole cluster, as core/state/lock.h tells it.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/state_fixture.h"

/* --- every state of a lock meets every event of one owner --------------------------------- */

enum act {
	TRY_SHARED,
	TRY_EXCLUSIVE,
	SHARED,
	EXCLUSIVE,
	RELEASE,
	CANCEL_IT,    /* the acquire that its claim answers */
	CANCEL_OTHER, /* another acquire of the same owner */
	SET_VALUE,
	EXPIRE, /* its session */
	ACTS
};

/* What A's act makes of a lock: the answer, and the picture after. */
static const struct {
	const char *before;
	const char *after[ACTS];
} cases[] = {
	{"", {"ok a", "ok A", "ok a", "ok A", "ok ", "ok ", "ok ", "denied ", "- "}},
	{"B", {"busy B", "busy B", "waiting B<a", "waiting B<A", "ok B", "ok B", "ok B", "denied B",
		      "- B"}},
	{"b", {"ok ba", "busy b", "ok ba", "waiting b<A", "ok b", "ok b", "ok b", "denied b",
		      "- b"}},
	{"b<C", {"busy b<C", "busy b<C", "waiting b<Ca", "waiting b<CA", "ok b<C", "ok b<C",
			"ok b<C", "denied b<C", "- b<C"}},
	{"B<c", {"busy B<c", "busy B<c", "waiting B<ca", "waiting B<cA", "ok B<c", "ok B<c",
			"ok B<c", "denied B<c", "- B<c"}},
	{"A", {"ok a", "ok A", "ok a", "ok A", "ok ", "ok ", "ok A", "ok A", "- "}},
	{"A<b", {"ok ab", "ok A<b", "ok ab", "ok A<b", "ok b", "ok b", "ok A<b", "ok A<b", "- b"}},
	{"A<B", {"ok a<B", "ok A<B", "ok a<B", "ok A<B", "ok B", "ok B", "ok A<B", "ok A<B",
			"- B"}},
	{"A<bC", {"ok ab<C", "ok A<bC", "ok ab<C", "ok A<bC", "ok b<C", "ok b<C", "ok A<bC",
			 "ok A<bC", "- b<C"}},
	{"a", {"ok a", "ok A", "ok a", "ok A", "ok ", "ok ", "ok a", "denied a", "- "}},
	{"ab", {"ok ab", "busy b", "ok ab", "waiting b<A", "ok b", "ok b", "ok ab", "denied ab",
		       "- b"}},
	{"a<B", {"ok a<B", "ok A<B", "ok a<B", "ok A<B", "ok B", "ok B", "ok a<B", "denied a<B",
			"- B"}},
	{"ab<C", {"ok ab<C", "busy b<C", "ok ab<C", "waiting b<CA", "ok b<C", "ok b<C", "ok ab<C",
			 "denied ab<C", "- b<C"}},
	{"B<A", {"busy B", "busy B", "waiting B<a", "waiting B<A", "ok B", "ok B", "ok B<A",
			"denied B<A", "- B"}},
	{"B<a", {"busy B", "busy B", "waiting B<a", "waiting B<A", "ok B", "ok B", "ok B<a",
			"denied B<a", "- B"}},
	{"b<A", {"ok ba", "busy b", "ok ba", "waiting b<A", "ok b", "ok b", "ok b<A", "denied b<A",
			"- b"}},
	{"b<Ac", {"ok bca", "busy bc", "ok bca", "waiting bc<A", "ok bc", "ok bc", "ok b<Ac",
			 "denied b<Ac", "- bc"}},
	{"b<AcD", {"busy bc<D", "busy bc<D", "waiting bc<Da", "waiting bc<DA", "ok bc<D", "ok bc<D",
			  "ok b<AcD", "denied b<AcD", "- bc<D"}},
	{"B<AC", {"busy B<C", "busy B<C", "waiting B<Ca", "waiting B<CA", "ok B<C", "ok B<C",
			 "ok B<AC", "denied B<AC", "- B<C"}},
	{"B<aC", {"busy B<C", "busy B<C", "waiting B<Ca", "waiting B<CA", "ok B<C", "ok B<C",
			 "ok B<aC", "denied B<aC", "- B<C"}},
	{"b<CA", {"busy b<C", "busy b<C", "waiting b<Ca", "waiting b<CA", "ok b<C", "ok b<C",
			 "ok b<CA", "denied b<CA", "- b<C"}},
	{"b<Ca", {"busy b<C", "busy b<C", "waiting b<Ca", "waiting b<CA", "ok b<C", "ok b<C",
			 "ok b<Ca", "denied b<Ca", "- b<C"}},
};

static void paint(struct state_fixture *f, const char *before)
{
	for (const char *p = before; *p != '\0'; p++) {
		if (*p != '<') {
			struct who who = {(uint64_t)((*p | 0x20) - 'a' + 1), 1};

			acquire(f, who, "x", (*p & 0x20) != 0 ? SH : EX);
		}
	}
	assert_lock(f, "x", before);
}

static void perform(struct state_fixture *f, enum act act)
{
	const struct claim *c = claim_of(f, ann);
	uint64_t seq = c != NULL ? c->seq : 1;

	switch (act) {
	case TRY_SHARED:
		acquire(f, ann, "x", SH | NB);
		break;
	case TRY_EXCLUSIVE:
		acquire(f, ann, "x", EX | NB);
		break;
	case SHARED:
		acquire(f, ann, "x", SH);
		break;
	case EXCLUSIVE:
		acquire(f, ann, "x", EX);
		break;
	case RELEASE:
		release(f, ann, "x");
		break;
	case CANCEL_IT:
		cancel(f, ann, "x", seq);
		break;
	case CANCEL_OTHER:
		cancel(f, ann, "x", seq + 1);
		break;
	case SET_VALUE:
		set_value(f, ann, "x", "v", 1);
		break;
	case EXPIRE:
		end_session(f, ann.node, true);
		break;
	case ACTS:
		break;
	}
}

static void every_event_in_every_state_has_its_outcome(void **state)
{
	char outcome[96];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (unsigned act = 0; act < ACTS; act++) {
			struct state_fixture *f = fixture_new(NULL, 4);

			paint(f, cases[i].before);
			perform(f, (enum act)act);
			(void)snprintf(outcome, sizeof outcome, "%s %s",
				f->answered ? status_name(f->status) : "-", picture(f, "x"));
			if (strcmp(outcome, cases[i].after[act]) != 0) {
				print_error("\"%s\", act %u\n", cases[i].before, act);
			}
			assert_string_equal(outcome, cases[i].after[act]);
			fixture_free(f);
		}
	}
}

/* --- grants and their order --------------------------------------------------------------- */

static void waiters_are_granted_in_the_order_they_came(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", EX);
	acquire(f, cid, "x", EX);
	release(f, ann, "x");
	assert_events(f, "granted b");
	release(f, bob, "x");
	assert_events(f, "granted c");
}

/* Otherwise a steady stream of readers starves the writer for ever. */
static void reader_behind_a_waiting_writer_waits(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", EX);
	acquire(f, cid, "x", SH);
	assert_status(f, ST_WAITING);
	release(f, ann, "x");
	assert_events(f, "granted b");
	assert_lock(f, "x", "B<c");
}

static void readers_at_the_head_are_granted_together(void **state)
{
	struct state_fixture *f = *state;
	const struct who another_bob = {2, 2};

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", SH);
	acquire(f, another_bob, "x", SH);
	acquire(f, cid, "x", EX);
	acquire(f, dan, "x", SH);
	release(f, ann, "x");
	assert_events(f, "granted b, granted b2");
	assert_lock(f, "x", "bb<Cd");
}

static void readers_behind_an_interrupted_writer_get_in(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", EX);
	acquire(f, cid, "x", SH);
	cancel(f, bob, "x", 1);
	assert_events(f, "granted c");
	assert_lock(f, "x", "ac");
}

static void writer_behind_an_interrupted_writer_waits_on(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", EX);
	acquire(f, cid, "x", EX);
	cancel(f, bob, "x", 1);
	assert_events(f, "");
	assert_lock(f, "x", "a<C");
}

/* --- tokens ------------------------------------------------------------------------------- */

static void token_grows_with_every_grant(void **state)
{
	struct state_fixture *f = *state;
	uint64_t last = 0;

	for (unsigned i = 0; i < 5; i++) {
		acquire(f, ann, "x", EX);
		assert_true(f->token > last);
		last = f->token;
		acquire(f, bob, "x", EX);
		assert_int_equal(f->token, 0);
		release(f, ann, "x");
		assert_true(claim_of(f, bob)->token > last);
		last = claim_of(f, bob)->token;
		release(f, bob, "x");
	}
}

static void readers_granted_by_one_entry_have_tokens_of_their_own(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", SH);
	acquire(f, cid, "x", SH);
	release(f, ann, "x");
	assert_int_equal(claim_of(f, bob)->token, f->index << LOCK_TOKEN_SHIFT);
	assert_int_equal(claim_of(f, cid)->token, (f->index << LOCK_TOKEN_SHIFT) + 1);
}

static void same_mode_again_keeps_the_token(void **state)
{
	struct state_fixture *f = *state;
	uint64_t token;

	acquire(f, ann, "x", EX);
	token = f->token;
	acquire(f, ann, "x", EX);
	assert_status(f, ST_OK);
	assert_int_equal(f->token, token);
}

static void upgrade_renews_the_token_and_downgrade_keeps_it(void **state)
{
	struct state_fixture *f = *state;
	uint64_t shared, exclusive;

	acquire(f, ann, "x", SH);
	shared = f->token;
	acquire(f, ann, "x", EX);
	exclusive = f->token;
	assert_true(exclusive > shared);
	acquire(f, ann, "x", SH);
	assert_int_equal(f->token, exclusive);
	acquire(f, bob, "x", SH);
	assert_true(f->token > exclusive);
}

/* --- interrupts: EINTR means that the call took nothing ------------------------------------- */

static void cancel_after_the_grant_gives_the_lock_to_the_next(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	acquire(f, bob, "x", EX);
	cancel(f, ann, "x", 1);
	assert_status(f, ST_OK);
	assert_events(f, "granted b");
}

static void cancel_of_an_answered_acquire_leaves_a_later_one_alone(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	release(f, ann, "x");
	acquire(f, ann, "x", EX);
	cancel(f, ann, "x", 1);
	assert_status(f, ST_OK);
	assert_lock(f, "x", "A");
}

static void cancel_of_a_granted_conversion_releases(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", SH); /* 1 */
	acquire(f, ann, "x", EX); /* 2 */
	cancel(f, ann, "x", 2);
	assert_lock(f, "x", "");
}

/* The caller had it before the interrupted call, and still has. */
static void cancel_of_a_repeated_acquire_takes_nothing_away(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX); /* 1 */
	acquire(f, ann, "x", EX); /* 2: has it already */
	cancel(f, ann, "x", 2);
	assert_status(f, ST_OK);
	assert_lock(f, "x", "A");
}

static void cancel_by_another_name_or_owner_does_nothing(void **state)
{
	struct state_fixture *f = *state;
	const struct who another_ann = {1, 2};

	acquire(f, ann, "x", EX);
	cancel(f, ann, "y", 1);
	cancel(f, another_ann, "x", 1);
	assert_status(f, ST_OK);
	assert_lock(f, "x", "A");
}

/* --- one file per description ------------------------------------------------------------- */

static void owner_of_one_lock_is_denied_another(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	acquire(f, ann, "y", EX);
	assert_status(f, ST_DENIED);
	assert_lock(f, "x", "A");
	assert_lock(f, "y", "");
	release(f, ann, "y");
	assert_lock(f, "x", "A");
}

static void descriptions_of_one_node_exclude_each_other(void **state)
{
	struct state_fixture *f = *state;
	const struct who another_ann = {1, 2};

	acquire(f, ann, "x", EX);
	acquire(f, another_ann, "x", EX | NB);
	assert_status(f, ST_BUSY);
}

static void equal_owners_of_two_nodes_are_two(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", SH);
	release(f, bob, "x");
	assert_lock(f, "x", "a");
}

/* --- values ------------------------------------------------------------------------------- */

static void assert_value(struct state_fixture *f, const char *expected)
{
	const struct lock *l = lock_named(f, "x");

	assert_int_equal(l->value_len, strlen(expected));
	assert_memory_equal(l->value, expected, l->value_len);
}

static void value_stays_with_the_holder_through_conversions(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	set_value(f, ann, "x", "one", 3);
	set_value(f, ann, "x", "two!", 4);
	assert_value(f, "two!");
	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", SH);
	release(f, ann, "x");
	assert_value(f, "two!");
}

static void value_can_be_emptied(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	set_value(f, ann, "x", "one", 3);
	set_value(f, ann, "x", "", 0);
	assert_null(lock_named(f, "x")->value);
}

/* Else the next leader's address would be the last one's, if it happened to wait. */
static void value_goes_with_the_last_holder_even_if_another_waits(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	set_value(f, ann, "x", "ann", 3);
	acquire(f, bob, "x", EX);
	release(f, ann, "x");
	assert_lock(f, "x", "B");
	assert_int_equal(lock_named(f, "x")->value_len, 0);
}

static void only_the_exclusive_holder_may_write(void **state)
{
	struct state_fixture *f = *state;

	acquire(f, ann, "x", SH);
	set_value(f, ann, "x", "v", 1);
	assert_status(f, ST_DENIED);
	acquire(f, ann, "x", EX);
	set_value(f, bob, "x", "v", 1);
	assert_status(f, ST_DENIED);
	set_value(f, ann, "y", "v", 1);
	assert_status(f, ST_DENIED);
}

static void value_over_the_limit_is_refused(void **state)
{
	static const char big[CORE_LOCK_VALUE_MAX + 1];
	struct state_fixture *f = *state;

	acquire(f, ann, "x", EX);
	set_value(f, ann, "x", big, CORE_LOCK_VALUE_MAX);
	assert_status(f, ST_OK);
	set_value(f, ann, "x", big, CORE_LOCK_VALUE_MAX + 1);
	assert_status(f, ST_TOO_BIG);
	assert_int_equal(lock_named(f, "x")->value_len, CORE_LOCK_VALUE_MAX);
}

/* --- what makes no sense is refused, with an answer --------------------------------------- */

static void acquire_bytes(struct state_fixture *f, const char *name, size_t len, uint64_t owner)
{
	Wire__Command cmd = command_of(f, 1);
	Wire__LockAcquire op = WIRE__LOCK_ACQUIRE__INIT;

	op.name = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)name, .len = len};
	op.owner = owner;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	cmd.lock_acquire = &op;
	apply(f, &cmd);
}

static void names_are_1_to_255_bytes_of_a_file_name(void **state)
{
	static const struct {
		const char *name;
		size_t len;
	} bad[] = {{"", 0}, {".", 1}, {"..", 2}, {"a/b", 3}, {"/", 1}, {"a\0b", 3}, {"\0", 1}};
	struct state_fixture *f = *state;
	char longest[CORE_NAME_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		acquire_bytes(f, bad[i].name, bad[i].len, 1);
		assert_status(f, ST_DENIED);
	}
	memset(longest, '\xff', sizeof longest);
	acquire_bytes(f, longest, sizeof longest, 1);
	assert_status(f, ST_DENIED);
	assert_null(state_lock(f->state, longest, sizeof longest));
	acquire_bytes(f, longest, CORE_NAME_MAX, 1);
	assert_status(f, ST_OK);
	acquire_bytes(f, "...", 3, 2);
	assert_status(f, ST_OK);
}

static void owner_0_is_refused_by_every_command(void **state)
{
	struct state_fixture *f = *state;
	const struct who nobody = {1, 0};

	acquire(f, nobody, "x", EX);
	assert_status(f, ST_DENIED);
	release(f, nobody, "x");
	assert_status(f, ST_DENIED);
	cancel(f, nobody, "x", 1);
	assert_status(f, ST_DENIED);
	set_value(f, nobody, "x", "", 0);
	assert_status(f, ST_DENIED);
	assert_int_equal(state_n_locks(f->state), 0);
}

static void bytes_that_are_no_command_stop_the_machine(void **state)
{
	struct state_fixture *f = *state;
	Wire__Command cmd = command_of(f, 1);
	Wire__LockRelease op = WIRE__LOCK_RELEASE__INIT;
	uint8_t bytes[64];

	assert_int_equal(apply_bytes(f, "\xff\xff\xff", 3), -EBADMSG);
	assert_int_equal(apply_bytes(f, "", 0), -EBADMSG);
	assert_int_equal(
		apply_bytes(f, bytes, wire__command__pack(&cmd, bytes)), -EBADMSG); /* no op */
	cmd.op_case = WIRE__COMMAND__OP_LOCK_RELEASE;
	cmd.lock_release = &op;
	cmd.format = WIRE_FORMAT + 1;
	assert_int_equal(apply_bytes(f, bytes, wire__command__pack(&cmd, bytes)), -EPROTO);
}

/* Unpacking takes what it needs from the heap when the stack's part is used up. */
static void command_with_many_unknown_fields_is_carried_out(void **state)
{
	struct state_fixture *f = *state;
	Wire__Command cmd = command_of(f, 1);
	Wire__LockAcquire op = WIRE__LOCK_ACQUIRE__INIT;
	uint8_t bytes[4096];
	size_t len;

	op.name = bytes_of("x");
	op.owner = 1;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	cmd.lock_acquire = &op;
	len = wire__command__pack(&cmd, bytes);
	while (len + 3 <= sizeof bytes) {
		memcpy(bytes + len, "\x98\x06\x01", 3); /* field 99 = 1 */
		len += 3;
	}
	assert_int_equal(apply_bytes(f, bytes, len), 0);
	assert_lock(f, "x", "A");
}

/* --- limits ------------------------------------------------------------------------------- */

static void limits_are_reached_and_hold(void **state)
{
	const struct state_limits limits = {
		.locks_max = 2, .waiters_max = 1, .session_claims_max = 2};
	struct state_fixture *f = fixture_new(&limits, 4);
	const struct who ann2 = {1, 2}, ann3 = {1, 3};

	acquire(f, ann, "x", EX);
	acquire(f, ann2, "y", EX);
	acquire(f, ann3, "x", EX);
	assert_status(f, ST_NO_SPACE); /* claims of a session */
	acquire(f, bob, "z", EX);
	assert_status(f, ST_NO_SPACE); /* locks */
	acquire(f, bob, "x", EX);
	assert_status(f, ST_WAITING);
	acquire(f, cid, "x", EX);
	assert_status(f, ST_NO_SPACE); /* waiters of a lock */
	acquire(f, cid, "x", EX | NB);
	assert_status(f, ST_BUSY);
	assert_lock(f, "x", "A<B");
	acquire(f, bob, "x", SH); /* its own place does not count against it */
	assert_status(f, ST_WAITING);
	release(f, ann2, "y");
	acquire(f, cid, "z", EX);
	assert_status(f, ST_OK);
	fixture_free(f);
}

/* As on a local file, where a failed conversion has lost the lock, too. */
static void upgrade_that_finds_no_place_to_wait_has_given_up_the_shared_lock(void **state)
{
	const struct state_limits limits = {
		.locks_max = 9, .waiters_max = 0, .session_claims_max = 9};
	struct state_fixture *f = fixture_new(&limits, 4);

	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", SH);
	acquire(f, ann, "x", EX);
	assert_status(f, ST_NO_SPACE);
	assert_lock(f, "x", "b");
	fixture_free(f);
}

/* --- reports ------------------------------------------------------------------------------ */

static void claim_tells_who_asked_and_since_when(void **state)
{
	struct state_fixture *f = *state;
	uint64_t asked_unix_ms;

	acquire(f, ann, "x", EX);
	assert_string_equal(claim_of(f, ann)->task.command, "flock");
	assert_int_equal(claim_of(f, ann)->task.pid, 1001);
	assert_int_equal(claim_of(f, ann)->task.start, 77);
	assert_int_equal(claim_of(f, ann)->opener.pid, 0);
	assert_int_equal(claim_of(f, ann)->uid, 501);
	acquire(f, bob, "x", EX);
	asked_unix_ms = f->unix_ms;
	assert_int_equal(claim_of(f, bob)->since_unix_ms, asked_unix_ms);
	release(f, ann, "x");
	assert_int_equal(claim_of(f, bob)->since_unix_ms, asked_unix_ms + 1);
}

static void names_of_commands_are_cut_at_15_bytes(void **state)
{
	struct state_fixture *f = *state;
	Wire__Command cmd = command_of(f, 1);
	Wire__LockAcquire op = WIRE__LOCK_ACQUIRE__INIT;
	Wire__Task task = WIRE__TASK__INIT;

	task.command = (char *)(uintptr_t) "a-very-long-command-name";
	op.name = bytes_of("x");
	op.owner = 1;
	op.opener = &task;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	cmd.lock_acquire = &op;
	apply(f, &cmd);
	assert_string_equal(claim_of(f, ann)->opener.command, "a-very-long-com");
}

/* --- listings ----------------------------------------------------------------------------- */

static void fill(struct state_fixture *f, unsigned from, unsigned to)
{
	char name[16];

	for (unsigned i = from; i < to; i++) {
		(void)snprintf(name, sizeof name, "%u", i);
		acquire(f, (struct who){1, i + 1}, name, EX);
	}
}

static void drain(struct state_fixture *f, unsigned i)
{
	char name[16];

	(void)snprintf(name, sizeof name, "%u", i);
	release(f, (struct who){1, i + 1}, name);
}

/* One of the odd ones goes, or comes back at the end. */
static void toggle_odd(struct state_fixture *f, unsigned i, unsigned n)
{
	i = (2 * i + 1) % n;
	if (claim_of(f, (struct who){1, i + 1}) != NULL) {
		drain(f, i);
	} else {
		fill(f, i, i + 1);
	}
}

/* With more listings than are remembered, each at its own pace. */
static void listing_gives_once_what_is_there_all_the_time(void **state)
{
	enum {
		LISTINGS = 12,
		LOCKS = 300,
		STEPS = 20000
	};
	struct state_fixture *f = *state;
	uint64_t serial[LISTINGS] = {0};
	unsigned seen[LISTINGS][LOCKS] = {{0}};
	uint64_t seed = 7;

	fill(f, 0, LOCKS);
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned k = (unsigned)draw_below(&seed, LISTINGS);
		const struct lock *l = state_lock_after(f->state, serial[k]);

		if (l != NULL) {
			assert_true(l->serial > serial[k]);
			assert_true(l == state_locks(f->state) || l->prev->serial <= serial[k]);
			serial[k] = l->serial;
			seen[k][atoi(l->name)]++;
		}
		if (step % 50 == 0) {
			toggle_odd(f, step / 50, LOCKS);
		}
	}
	for (unsigned k = 0; k < LISTINGS; k++) {
		assert_null(state_lock_after(f->state, serial[k]));
		for (unsigned i = 0; i < LOCKS; i += 2) {
			assert_int_equal(seen[k][i], 1);
		}
	}
}

static void listing_of_nothing_ends(void **state)
{
	struct state_fixture *f = *state;

	assert_null(state_lock_after(f->state, 0));
	acquire(f, ann, "x", EX);
	assert_ptr_equal(state_lock_after(f->state, 0), state_locks(f->state));
	assert_null(state_lock_after(f->state, UINT64_MAX));
	release(f, ann, "x");
	assert_null(state_lock_after(f->state, 0));
}

/* --- the check notices -------------------------------------------------------------------- */

static void assert_check_fails(const struct lock *l)
{
	int status;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)signal(SIGABRT, SIG_DFL);
		(void)freopen("/dev/null", "w", stderr);
		lock_check(l);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

/* Breaks `field`, and mends it. */
#define assert_noticed(lock, field, broken)                                                        \
	do {                                                                                       \
		__typeof__(field) good_ = (field);                                                 \
		(field) = (broken);                                                                \
		assert_check_fails(lock);                                                          \
		(field) = good_;                                                                   \
		lock_check(lock);                                                                  \
	} while (0)

static void lock_check_notices_what_must_not_be(void **state)
{
	struct state_fixture *f = *state;
	struct lock *l;

	acquire(f, ann, "x", SH);
	acquire(f, bob, "x", SH);
	acquire(f, cid, "x", EX);
	l = (struct lock *)(uintptr_t)lock_named(f, "x");
	assert_noticed(l, l->holders->token, 0);
	assert_noticed(l, l->holders->token, UINT64_MAX);
	assert_noticed(l, l->holders->shared, false);
	assert_noticed(l, l->holders->next->shared, false);
	assert_noticed(l, l->waiters->token, 1);
	assert_noticed(l, l->waiters->shared, true);
	assert_noticed(l, l->holders, NULL);
	assert_noticed(l, l->n_holders, 3);
	assert_noticed(l, l->n_waiters, 0);
	assert_noticed(l, l->value_len, 1);
	assert_noticed(l, l->name_len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_event_in_every_state_has_its_outcome),
		unit_test_with_state(waiters_are_granted_in_the_order_they_came),
		unit_test_with_state(reader_behind_a_waiting_writer_waits),
		unit_test_with_state(readers_at_the_head_are_granted_together),
		unit_test_with_state(readers_behind_an_interrupted_writer_get_in),
		unit_test_with_state(writer_behind_an_interrupted_writer_waits_on),
		unit_test_with_state(token_grows_with_every_grant),
		unit_test_with_state(readers_granted_by_one_entry_have_tokens_of_their_own),
		unit_test_with_state(same_mode_again_keeps_the_token),
		unit_test_with_state(upgrade_renews_the_token_and_downgrade_keeps_it),
		unit_test_with_state(cancel_after_the_grant_gives_the_lock_to_the_next),
		unit_test_with_state(cancel_of_an_answered_acquire_leaves_a_later_one_alone),
		unit_test_with_state(cancel_of_a_granted_conversion_releases),
		unit_test_with_state(cancel_of_a_repeated_acquire_takes_nothing_away),
		unit_test_with_state(cancel_by_another_name_or_owner_does_nothing),
		unit_test_with_state(owner_of_one_lock_is_denied_another),
		unit_test_with_state(descriptions_of_one_node_exclude_each_other),
		unit_test_with_state(equal_owners_of_two_nodes_are_two),
		unit_test_with_state(value_stays_with_the_holder_through_conversions),
		unit_test_with_state(value_can_be_emptied),
		unit_test_with_state(value_goes_with_the_last_holder_even_if_another_waits),
		unit_test_with_state(only_the_exclusive_holder_may_write),
		unit_test_with_state(value_over_the_limit_is_refused),
		unit_test_with_state(names_are_1_to_255_bytes_of_a_file_name),
		unit_test_with_state(owner_0_is_refused_by_every_command),
		unit_test_with_state(bytes_that_are_no_command_stop_the_machine),
		unit_test_with_state(command_with_many_unknown_fields_is_carried_out),
		cmocka_unit_test(limits_are_reached_and_hold),
		cmocka_unit_test(upgrade_that_finds_no_place_to_wait_has_given_up_the_shared_lock),
		unit_test_with_state(claim_tells_who_asked_and_since_when),
		unit_test_with_state(names_of_commands_are_cut_at_15_bytes),
		unit_test_with_state(listing_gives_once_what_is_there_all_the_time),
		unit_test_with_state(listing_of_nothing_ends),
		unit_test_with_state(lock_check_notices_what_must_not_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
