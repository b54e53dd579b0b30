/*
 * state_fixture.h - a state machine with a few nodes, each with a session, for
 * the tests of core/state.
 *
 * Every command goes through its bytes, as from a log, and state_check() runs
 * after each. Events are collected as words: "granted a1", "dropped b2",
 * "opened 1".
 */
#ifndef TESTS_STATE_FIXTURE_H
#define TESTS_STATE_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "core/state/state.h"

#define FIXTURE_NODES 8

/* An open file description: node 1 to FIXTURE_NODES, and a number that is not 0. */
struct who {
	uint64_t node;
	uint64_t owner;
};

static const struct who ann = {1, 1};
static const struct who bob = {2, 1};
static const struct who cid = {3, 1};
static const struct who dan = {4, 1};

struct node_fixture {
	uint64_t session;
	uint64_t incarnation;
	uint64_t seq;
	uint64_t nonce;
};

struct state_fixture {
	struct state *state;
	uint64_t index;
	uint64_t unix_ms;
	struct node_fixture nodes[FIXTURE_NODES + 1];
	/* Of the last command. */
	bool answered;
	enum status status;
	uint64_t token;
	uint64_t answered_seq;
	char events[512];
	/* If set: every command goes here too, length first, for replaying. */
	struct wire_buf *log;
	bool unchecked; /* no state_check(): tests of size */
};

/* --- what the machine tells --------------------------------------------------------------- */

static inline void event(struct state_fixture *f, const char *what, const char *name)
{
	size_t used = strlen(f->events);

	(void)snprintf(f->events + used, sizeof f->events - used, "%s%s %s", used > 0 ? ", " : "",
		what, name);
}

/* "b2": node 2, owner 2 (a letter for the node, then the owner unless it is 1). */
static inline void claim_event(struct state_fixture *f, const char *what, const struct claim *c)
{
	const struct session *s = state_session(f->state, c->session);
	char name[32];

	(void)snprintf(name, sizeof name, "%c", (char)('a' + s->node - 1));
	if (c->owner != 1) {
		(void)snprintf(name + 1, sizeof name - 1, "%llu", (unsigned long long)c->owner);
	}
	event(f, what, name);
}

static inline void on_result(
	void *ctx, uint64_t incarnation, uint64_t seq, enum status st, uint64_t token)
{
	struct state_fixture *f = ctx;

	assert_false(f->answered);
	f->answered = true;
	f->status = st;
	f->token = token;
	f->answered_seq = seq;
}

static inline void on_granted(void *ctx, const struct lock *l, const struct claim *c)
{
	assert_true(c->token != 0);
	assert_ptr_equal(c->lock, l);
	claim_event(ctx, "granted", c);
}

static inline void on_dropped(void *ctx, const struct lock *l, const struct claim *c)
{
	assert_ptr_equal(c->lock, l);
	claim_event(ctx, "dropped", c);
}

static inline void on_session(void *ctx, const struct session *s, enum session_event what)
{
	static const char *const words[] = {"opened", "resumed", "closed", "expired"};
	struct state_fixture *f = ctx;
	char node[24];

	if (what == SESSION_OPENED || what == SESSION_RESUMED) {
		f->nodes[s->node].session = s->id;
		f->nodes[s->node].incarnation = s->incarnation;
		f->nodes[s->node].seq = 0;
	} else {
		assert_null(state_session(f->state, s->id));
	}
	assert_int_equal(s->n_claims, 0);
	(void)snprintf(node, sizeof node, "%llu", (unsigned long long)s->node);
	event(f, words[what], node);
}

static inline const struct state_hooks *hooks_of(struct state_fixture *f)
{
	static struct state_hooks hooks;

	hooks = (struct state_hooks){f, on_result, on_granted, on_dropped, on_session};
	return &hooks;
}

/* --- commands ----------------------------------------------------------------------------- */

static inline int apply_bytes(struct state_fixture *f, const void *data, size_t len)
{
	int rc;

	f->answered = false;
	f->events[0] = '\0';
	rc = state_apply(f->state, ++f->index, data, len);
	if (!f->unchecked) {
		state_check(f->state);
	}
	return rc;
}

static inline void apply(struct state_fixture *f, Wire__Command *cmd)
{
	uint8_t bytes[8192];
	uint32_t len = (uint32_t)wire__command__get_packed_size(cmd);

	assert_in_range(len, 1, sizeof bytes);
	(void)wire__command__pack(cmd, bytes);
	if (f->log != NULL) {
		wire_buf_append(f->log, &len, sizeof len);
		wire_buf_append(f->log, bytes, len);
	}
	assert_int_equal(apply_bytes(f, bytes, len), 0);
}

static inline Wire__Command command(struct state_fixture *f)
{
	Wire__Command cmd = WIRE__COMMAND__INIT;

	cmd.format = WIRE_FORMAT;
	cmd.unix_ms = ++f->unix_ms;
	return cmd;
}

/* The next command of the node's session. */
static inline Wire__Command command_of(struct state_fixture *f, uint64_t node)
{
	Wire__Command cmd = command(f);

	cmd.session = f->nodes[node].session;
	cmd.incarnation = f->nodes[node].incarnation;
	cmd.seq = ++f->nodes[node].seq;
	return cmd;
}

static inline ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)text, .len = strlen(text)};
}

static inline void open_with(struct state_fixture *f, Wire__SessionOpen *open)
{
	Wire__Command cmd = command(f);

	cmd.op_case = WIRE__COMMAND__OP_SESSION_OPEN;
	cmd.session_open = open;
	apply(f, &cmd);
}

/* A new process of the node that knows of the live session. */
static inline void open_session(struct state_fixture *f, uint64_t node, bool resume)
{
	Wire__SessionOpen open = WIRE__SESSION_OPEN__INIT;
	const struct session *live = state_session_of_node(f->state, node);

	open.node = node;
	open.nonce = ++f->nodes[node].nonce;
	open.ttl_ms = 5000;
	open.resume = resume;
	open.replaces = live != NULL ? live->incarnation : 0;
	open_with(f, &open);
}

static inline void end_session(struct state_fixture *f, uint64_t node, bool expired)
{
	Wire__Command cmd = command(f);
	Wire__SessionEnd end = WIRE__SESSION_END__INIT;

	end.session = f->nodes[node].session;
	end.incarnation = f->nodes[node].incarnation;
	end.expired = expired;
	cmd.op_case = WIRE__COMMAND__OP_SESSION_END;
	cmd.session_end = &end;
	apply(f, &cmd);
}

enum how {
	SH = 0,
	EX = 1,
	NB = 2, /* or'ed: do not wait */
};

static inline void acquire(struct state_fixture *f, struct who who, const char *name, unsigned how)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockAcquire op = WIRE__LOCK_ACQUIRE__INIT;
	Wire__Task task = WIRE__TASK__INIT;

	task.pid = 1000 + (uint32_t)who.node;
	task.start = 77;
	task.command = (char *)(uintptr_t) "flock";
	op.name = bytes_of(name);
	op.owner = who.owner;
	op.shared = (how & EX) == 0;
	op.wait = (how & NB) == 0;
	op.task = &task;
	op.uid = 500 + (uint32_t)who.owner;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	cmd.lock_acquire = &op;
	apply(f, &cmd);
}

static inline void release(struct state_fixture *f, struct who who, const char *name)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockRelease op = WIRE__LOCK_RELEASE__INIT;

	op.name = bytes_of(name);
	op.owner = who.owner;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_RELEASE;
	cmd.lock_release = &op;
	apply(f, &cmd);
}

static inline void cancel(
	struct state_fixture *f, struct who who, const char *name, uint64_t acquire_seq)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockCancel op = WIRE__LOCK_CANCEL__INIT;

	op.name = bytes_of(name);
	op.owner = who.owner;
	op.acquire_seq = acquire_seq;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_CANCEL;
	cmd.lock_cancel = &op;
	apply(f, &cmd);
}

/* The same by owners of byte ranges, which are others than those above. `end` is included. */
static inline void ask_range(struct state_fixture *f, struct who who, const char *name,
	unsigned how, struct core_range range, bool test)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockAcquire op = WIRE__LOCK_ACQUIRE__INIT;
	Wire__Task task = WIRE__TASK__INIT;

	task.pid = 1000 + (uint32_t)who.node;
	task.command = (char *)(uintptr_t) "fcntl";
	op.name = bytes_of(name);
	op.owner = who.owner;
	op.kind = WIRE__LOCK_KIND__RECORD;
	op.start = range.start;
	op.end = range.end;
	op.shared = (how & EX) == 0;
	op.wait = (how & NB) == 0;
	op.test = test;
	op.task = &task;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	cmd.lock_acquire = &op;
	apply(f, &cmd);
}

static inline void acquire_range(struct state_fixture *f, struct who who, const char *name,
	unsigned how, struct core_range range)
{
	ask_range(f, who, name, how, range, false);
}

static inline void release_range(
	struct state_fixture *f, struct who who, const char *name, struct core_range range)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockRelease op = WIRE__LOCK_RELEASE__INIT;

	op.name = bytes_of(name);
	op.owner = who.owner;
	op.kind = WIRE__LOCK_KIND__RECORD;
	op.start = range.start;
	op.end = range.end;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_RELEASE;
	cmd.lock_release = &op;
	apply(f, &cmd);
}

static inline void cancel_range(
	struct state_fixture *f, struct who who, const char *name, uint64_t acquire_seq)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockCancel op = WIRE__LOCK_CANCEL__INIT;

	op.name = bytes_of(name);
	op.owner = who.owner;
	op.kind = WIRE__LOCK_KIND__RECORD;
	op.acquire_seq = acquire_seq;
	cmd.op_case = WIRE__COMMAND__OP_LOCK_CANCEL;
	cmd.lock_cancel = &op;
	apply(f, &cmd);
}

static inline void set_value(
	struct state_fixture *f, struct who who, const char *name, const void *value, size_t len)
{
	Wire__Command cmd = command_of(f, who.node);
	Wire__LockSetValue op = WIRE__LOCK_SET_VALUE__INIT;

	op.name = bytes_of(name);
	op.owner = who.owner;
	op.value = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)value, .len = len};
	cmd.op_case = WIRE__COMMAND__OP_LOCK_SET_VALUE;
	cmd.lock_set_value = &op;
	apply(f, &cmd);
}

/* --- what is seen ------------------------------------------------------------------------- */

static inline const struct claim *claim_of(struct state_fixture *f, struct who who)
{
	return state_claim(f->state, f->nodes[who.node].session, who.owner);
}

static inline const struct lock *lock_named(struct state_fixture *f, const char *name)
{
	return state_lock(f->state, name, strlen(name));
}

static inline char letter(struct state_fixture *f, const struct claim *c)
{
	const struct session *s = state_session(f->state, c->session);

	return (char)((c->shared ? 'a' : 'A') + s->node - 1);
}

/*
 * A lock as a picture: its holders, and after `<` its waiters, in order; a letter
 * for each node, small if shared. "ab<C": nodes 1 and 2 hold it shared, 3 waits
 * for it exclusively. "": free.
 */
static inline const char *picture(struct state_fixture *f, const char *name)
{
	static char text[64];
	const struct lock *l = lock_named(f, name);
	const struct claim *c;
	char *p = text;

	if (l != NULL) {
		DL_FOREACH (l->holders, c) {
			*p++ = letter(f, c);
		}
		if (l->waiters != NULL) {
			*p++ = '<';
		}
		DL_FOREACH (l->waiters, c) {
			*p++ = letter(f, c);
		}
	}
	*p = '\0';
	return text;
}

#define assert_lock(f, name, expected) assert_string_equal(picture((f), (name)), (expected))
#define assert_events(f, expected) assert_string_equal((f)->events, (expected))
#define assert_status(f, expected)                                                                 \
	do {                                                                                       \
		assert_true((f)->answered);                                                        \
		assert_string_equal(status_name((f)->status), status_name(expected));              \
	} while (0)

/* --- life --------------------------------------------------------------------------------- */

/* Sessions for nodes 1 to `nodes`. */
static inline struct state_fixture *fixture_new(const struct state_limits *limits, uint64_t nodes)
{
	struct state_fixture *f = xcalloc(1, sizeof *f);

	f->state = state_new(limits, hooks_of(f));
	f->unix_ms = 1700000000000;
	for (uint64_t n = 1; n <= nodes; n++) {
		open_session(f, n, false);
	}
	return f;
}

static inline void fixture_free(struct state_fixture *f)
{
	state_free(f->state);
	free(f);
}

static inline int setup(void **state)
{
	*state = fixture_new(NULL, 4);
	return 0;
}

static inline int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

#define unit_test_with_state(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* --- chance, the same for the same seed (splitmix64) -------------------------------------- */

static inline uint64_t draw(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline uint64_t draw_below(uint64_t *seed, uint64_t n)
{
	return draw(seed) % n;
}

#endif
