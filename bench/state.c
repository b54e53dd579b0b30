/*
 * state.c - the state machine alone: what one lock costs in time and memory,
 * and what a snapshot of very many costs.
 *
 *     bench-state [LOCKS]     default 1000000
 *
 * Times are CPU times of this one thread: there is nothing to wait for.
 */
#include <malloc.h>
#include <stdio.h>
#include <time.h>

#include "coordfs/util.h"
#include "core/state/state.h"

#define SLICE_BYTES 65536u /* as a node takes them */
#define CHURN 200000u      /* acquires, and as many releases */
#define CHURN_LOCKS 1000u  /* different ones */
#define COMMAND_BYTES_MAX 160u

struct bench {
	struct state *state;
	uint64_t index;
	uint64_t session;
	uint64_t seq;
	struct wire_buf snapshot;
};

static double now_s(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* exists on Linux */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- commands ----------------------------------------------------------------------------- */

static Wire__Command command(struct bench *b)
{
	Wire__Command c = WIRE__COMMAND__INIT;

	c.format = WIRE_FORMAT;
	c.session = b->session;
	c.incarnation = b->session;
	c.seq = ++b->seq;
	c.unix_ms = 1700000000000 + b->seq;
	return c;
}

static void apply(struct bench *b, const uint8_t *bytes, size_t len)
{
	int rc = state_apply(b->state, ++b->index, bytes, len);

	ASSERT(rc == 0);
}

static ProtobufCBinaryData bytes_of(char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
}

static size_t pack_acquire(struct bench *b, char *name, uint64_t owner, uint8_t *out)
{
	Wire__Command c = command(b);
	Wire__LockAcquire op = WIRE__LOCK_ACQUIRE__INIT;
	Wire__Task task = WIRE__TASK__INIT;
	char comm[] = "flock";

	task.pid = 4711;
	task.start = 123456;
	task.command = comm;
	op.name = bytes_of(name);
	op.owner = owner;
	op.wait = true;
	op.task = &task;
	op.opener = &task;
	op.uid = 1000;
	c.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	c.lock_acquire = &op;
	return wire__command__pack(&c, out);
}

static size_t pack_release(struct bench *b, char *name, uint64_t owner, uint8_t *out)
{
	Wire__Command c = command(b);
	Wire__LockRelease op = WIRE__LOCK_RELEASE__INIT;

	op.name = bytes_of(name);
	op.owner = owner;
	c.op_case = WIRE__COMMAND__OP_LOCK_RELEASE;
	c.lock_release = &op;
	return wire__command__pack(&c, out);
}

static void open_session(struct bench *b)
{
	Wire__Command c = command(b);
	Wire__SessionOpen op = WIRE__SESSION_OPEN__INIT;
	uint8_t bytes[COMMAND_BYTES_MAX];

	op.node = 1;
	op.nonce = 1;
	c.op_case = WIRE__COMMAND__OP_SESSION_OPEN;
	c.session_open = &op;
	apply(b, bytes, wire__command__pack(&c, bytes));
	b->session = b->index;
	b->seq = 0;
}

static void end_session(struct bench *b)
{
	Wire__Command c = command(b);
	Wire__SessionEnd op = WIRE__SESSION_END__INIT;
	uint8_t bytes[COMMAND_BYTES_MAX];

	op.session = b->session;
	op.incarnation = b->session;
	c.op_case = WIRE__COMMAND__OP_SESSION_END;
	c.session_end = &op;
	apply(b, bytes, wire__command__pack(&c, bytes));
}

/* --- figures ------------------------------------------------------------------------------ */

/* Lock and unlock, packed beforehand. Owners above `above` are free. */
static void churn(struct bench *b, uint64_t above, const char *when)
{
	uint8_t *bytes = xmalloc((size_t)2 * CHURN * COMMAND_BYTES_MAX);
	size_t *len = xcalloc((size_t)2 * CHURN, sizeof *len);
	uint8_t *p = bytes;
	double start;

	for (size_t i = 0; i < 2 * CHURN; i++, p += COMMAND_BYTES_MAX) {
		uint64_t owner = above + 1 + i / 2;
		char name[32];

		(void)snprintf(name, sizeof name, "build-%zu", i / 2 % CHURN_LOCKS);
		len[i] = (i % 2 == 0 ? pack_acquire : pack_release)(b, name, owner, p);
	}
	start = now_s();
	for (size_t i = 0; i < 2 * CHURN; i++) {
		apply(b, bytes + i * COMMAND_BYTES_MAX, len[i]);
	}
	printf("acquire or release, %s: %.0f ns\n", when, (now_s() - start) / (2 * CHURN) * 1e9);
	free(bytes);
	free(len);
}

static size_t heap_bytes(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void fill(struct bench *b, size_t n)
{
	size_t heap = heap_bytes();
	double spent_s = 0;
	double worst_s = 0;

	for (size_t i = 1; i <= n; i++) {
		uint8_t bytes[COMMAND_BYTES_MAX];
		char name[32];
		size_t len;
		double start;

		(void)snprintf(name, sizeof name, "artifact-%011zu", i);
		len = pack_acquire(b, name, i, bytes);
		start = now_s();
		apply(b, bytes, len);
		start = now_s() - start;
		spent_s += start;
		worst_s = MAX(worst_s, start);
	}
	printf("%zu locks of 20 bytes: %.0f ns each, at worst %.1f ms (a hash grows)\n", n,
		spent_s / (double)n * 1e9, worst_s * 1e3);
	printf("memory: %.0f bytes per held lock\n", (double)(heap_bytes() - heap) / (double)n);
}

static void take_snapshot(struct bench *b)
{
	double start = now_s();
	double worst_s = 0;
	struct state_snapshot *snap = state_snapshot_begin(b->state);
	size_t slices = 0;
	bool more = true;

	while (more) {
		double slice = now_s();

		more = state_snapshot_next(snap, SLICE_BYTES, &b->snapshot);
		worst_s = MAX(worst_s, now_s() - slice);
		slices++;
	}
	state_snapshot_free(snap);
	printf("snapshot: %.2f s, %zu MiB, %zu slices, at worst %.2f ms\n", now_s() - start,
		b->snapshot.len >> 20, slices, worst_s * 1e3);
}

static void restore(struct bench *b)
{
	double start = now_s();
	struct state_restore *r = state_restore_new(NULL);
	struct state *restored = NULL;
	int rc = 0;

	for (size_t at = 0; at < b->snapshot.len && rc == 0; at += SLICE_BYTES) {
		rc = state_restore_feed(
			r, b->snapshot.data + at, MIN(SLICE_BYTES, b->snapshot.len - at));
	}
	ASSERT(rc == 0);
	rc = state_restore_end(r, &restored);
	ASSERT(rc == 0);
	printf("restore: %.2f s\n", now_s() - start);
	ASSERT(state_digest(restored) == state_digest(b->state));
	state_free(restored);
}

static void list(struct bench *b)
{
	double start = now_s();
	const struct lock *l = state_lock_after(b->state, 0);

	while (l != NULL) {
		l = state_lock_after(b->state, l->serial);
	}
	printf("listing of all: %.2f s\n", now_s() - start);
}

int main(int argc, char **argv)
{
	size_t locks = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
	struct bench b = {.state = state_new(NULL, NULL)};
	struct state_snapshot *snap;
	double start;

	open_session(&b);
	churn(&b, locks, "few locks");
	fill(&b, locks);
	churn(&b, locks, "beside them");
	take_snapshot(&b);
	restore(&b);
	list(&b);
	snap = state_snapshot_begin(b.state);
	churn(&b, locks, "while a snapshot is taken");
	state_snapshot_free(snap);
	start = now_s();
	end_session(&b);
	printf("end of the session that held them: %.2f s\n", now_s() - start);
	wire_buf_fini(&b.snapshot);
	state_free(b.state);
	return 0;
}
