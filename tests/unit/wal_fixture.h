/*
 * wal_fixture.h - a log in a directory of its own, on a real loop; for the wal's tests.
 *
 * The fixture keeps a model beside the log: the entries that must be there. An
 * entry's payload follows from its index, term and size, so that any entry read
 * back can be checked by itself.
 */
#ifndef COORDFS_TESTS_WAL_FIXTURE_H
#define COORDFS_TESTS_WAL_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/io/wal_internal.h"

#define MODEL_MAX 100000
#define GENS_MAX 1000

struct model_entry {
	uint64_t term;
	uint32_t len;
};

struct log {
	uv_loop_t loop;
	char dir[256];
	size_t segment_bytes;
	size_t reserve_bytes;
	size_t batch_bytes;
	struct wal *w; /* NULL: closed */
	struct wal_recovered r;
	char err[512];

	/* what the callbacks told */
	uint64_t gen;
	uint64_t cut[GENS_MAX]; /* where the truncation or reset that ended a generation left the
				   log */
	uint64_t durable;
	unsigned durable_calls;
	uint64_t vote_term, vote;
	uint64_t reset;
	bool low;
	int failed; /* errno, 0: no */
	char failed_text[512];
	bool closed;

	/* what must be there: entries (first, last], by index */
	uint64_t base, base_term;
	uint64_t last;
	struct model_entry *model; /* owned; MODEL_MAX */
};

static inline void on_durable(void *ctx, uint64_t gen, uint64_t index)
{
	struct log *l = ctx;

	l->durable_calls++;
	for (uint64_t g = gen; g < l->gen; g++) {
		index = MIN(index, l->cut[g]); /* cut off since */
	}
	l->durable = MAX(l->durable, index);
}

static inline void on_vote(void *ctx, uint64_t term, uint64_t vote)
{
	struct log *l = ctx;

	l->vote_term = term;
	l->vote = vote;
}

static inline void on_reset(void *ctx, uint64_t index)
{
	struct log *l = ctx;

	l->reset = index;
}

static inline void on_low(void *ctx, bool low)
{
	struct log *l = ctx;

	l->low = low;
}

static inline void on_failed(void *ctx, int error, const char *text)
{
	struct log *l = ctx;

	assert_int_equal(l->failed, 0); /* told once */
	l->failed = -error;
	(void)snprintf(l->failed_text, sizeof(l->failed_text), "%s", text);
}

static inline void on_closed(void *ctx)
{
	struct log *l = ctx;

	l->closed = true;
}

static inline struct log *log_new(void)
{
	struct log *l = xcalloc(1, sizeof(*l));
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(
		l->dir, sizeof(l->dir), "%s/wal-test-XXXXXX", tmp != NULL ? tmp : "/var/tmp");
	assert_non_null(mkdtemp(l->dir));
	assert_int_equal(uv_loop_init(&l->loop), 0);
	l->segment_bytes = 64 << 10;
	l->model = xcalloc(MODEL_MAX, sizeof(*l->model));
	return l;
}

static inline int sh(const char *fmt, ...)
{
	char cmd[1024];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(cmd, sizeof(cmd), fmt, args);
	va_end(args);
	return system(cmd);
}

static inline int log_try_open(struct log *l, bool create)
{
	struct wal_options o = {
		.dir = l->dir,
		.segment_bytes = l->segment_bytes,
		.reserve_bytes = l->reserve_bytes,
		.batch_bytes = l->batch_bytes,
		.create = create,
	};
	struct wal_events events = {
		.ctx = l,
		.durable = on_durable,
		.vote_durable = on_vote,
		.reset_done = on_reset,
		.low_space = on_low,
		.failed = on_failed,
	};

	l->err[0] = '\0';
	l->failed = 0;
	l->closed = false;
	l->gen = 1;
	return wal_open(&l->loop, &o, &events, &l->w, &l->r, l->err, sizeof(l->err));
}

static inline void log_open(struct log *l, bool create)
{
	int rc = log_try_open(l, create);

	if (rc < 0) {
		print_error("%s\n", l->err);
	}
	assert_int_equal(rc, 0);
	l->durable = l->r.prev_index + l->r.n_entries;
}

static inline void log_close(struct log *l)
{
	wal_close(l->w, on_closed, l);
	while (!l->closed) {
		(void)uv_run(&l->loop, UV_RUN_ONCE);
	}
	l->w = NULL;
	wal_recovered_fini(&l->r);
}

static inline void log_free(struct log *l)
{
	if (l->w != NULL) {
		log_close(l);
	}
	assert_int_equal(uv_loop_close(&l->loop), 0);
	assert_int_equal(sh("rm -rf '%s'", l->dir), 0);
	free(l->model);
	free(l);
}

static uint64_t payload_salt; /* two logs of one shape, but not of one content */

static inline void payload(uint64_t index, uint64_t term, uint32_t len, uint8_t *buf)
{
	uint64_t x = index * 0x9e3779b97f4a7c15u + term + payload_salt;

	for (uint32_t i = 0; i < len; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		buf[i] = (uint8_t)(x >> 56);
	}
}

/* Queue `n` entries as one append. */
static inline void append(struct log *l, size_t n, uint64_t term, uint32_t len)
{
	struct raft_entry **entries = xcalloc(n, sizeof(*entries));

	for (size_t i = 0; i < n; i++) {
		uint64_t index = ++l->last;

		assert_true(index < MODEL_MAX);
		l->model[index] = (struct model_entry){term, len};
		entries[i] = raft_entry_new(index, term, RAFT_COMMAND, NULL, len);
		payload(index, term, len, entries[i]->data);
	}
	wal_append(l->w, l->gen, entries, n);
	for (size_t i = 0; i < n; i++) {
		raft_entry_unref(entries[i]);
	}
	free(entries);
}

static inline void wait_durable(struct log *l)
{
	while (l->durable != l->last && !l->failed) {
		(void)uv_run(&l->loop, UV_RUN_ONCE);
	}
}

static inline void append_durably(struct log *l, size_t n, uint64_t term, uint32_t len)
{
	append(l, n, term, len);
	wait_durable(l);
	assert_int_equal(l->failed, 0);
}

static inline void next_gen(struct log *l)
{
	assert_true(l->gen + 1 < GENS_MAX);
	l->cut[l->gen++] = l->last;
}

static inline void truncate_log(struct log *l, uint64_t from)
{
	wal_truncate(l->w, from);
	l->last = from - 1;
	next_gen(l);
	l->durable = MIN(l->durable, l->last);
}

static inline void save_vote(struct log *l, uint64_t term, uint64_t vote)
{
	wal_save_vote(l->w, term, vote);
	while (l->vote_term != term || l->vote != vote) {
		(void)uv_run(&l->loop, UV_RUN_ONCE);
	}
}

static inline void reset_log(struct log *l, uint64_t index, uint64_t term)
{
	wal_reset(l->w, index, term);
	l->base = index;
	l->base_term = term;
	l->last = index;
	next_gen(l);
	l->durable = index;
	while (l->reset != index && !l->failed) {
		(void)uv_run(&l->loop, UV_RUN_ONCE);
	}
}

static inline void assert_entry(
	const struct raft_entry *e, uint64_t index, uint64_t term, uint32_t len)
{
	uint8_t *buf = xmalloc(len);

	payload(index, term, len, buf);
	assert_int_equal(e->index, index);
	assert_int_equal(e->term, term);
	assert_int_equal(e->len, len);
	assert_memory_equal(e->data, buf, len);
	free(buf);
}

/* What was recovered reaches to `upto` of the model and, unless `or_more`, no further. */
static inline void assert_recovered(const struct log *l, uint64_t upto, bool or_more)
{
	uint64_t prev = l->r.prev_index;
	uint64_t last = prev + l->r.n_entries;

	assert_true(prev <= l->base);
	assert_true(last >= upto);
	assert_true(or_more || last == upto);
	if (prev == l->base && l->base_term != 0) {
		assert_int_equal(l->r.prev_term, l->base_term);
	}
	for (uint64_t i = l->base + 1; i <= last; i++) {
		assert_entry(l->r.entries[i - prev - 1], i, l->model[i].term, l->model[i].len);
	}
}

static inline void reopen(struct log *l)
{
	log_close(l);
	log_open(l, false);
	assert_recovered(l, l->last, false);
}

static inline uint64_t segments(const struct log *l)
{
	struct wal_stats s;

	wal_stats(l->w, &s);
	return s.segments;
}

#endif
