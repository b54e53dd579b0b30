/*
 * wal.c - the replicated log on disk: queue, callbacks, open, close.
 *
 * A log is written in one direction only. Truncation and reset are written like
 * entries, as a record and as a new segment's header, so nothing that was
 * durable is ever overwritten, and reading the log again repeats its history.
 *
 * Torn tail or damage
 * -------------------
 * A crash may tear what was written after the last fdatasync that returned, in
 * any order, sector by sector. What was durable must be there. At start, reading
 * stops at the first place X that no whole record follows. X is the end of the
 * log, and a torn rest is cut off, unless one of these proves that more had been
 * durable (then the log is damaged at X, and refused):
 *
 *   1. Each record says up to where its segment was durable when it was written.
 *      A whole record further on that says more than X was written after an
 *      fdatasync had covered X. One that says less is of X's own batch.
 *      Records are found again after a gap because each carries its place
 *      (segment and offset) and the checksum before it, which seeds its own:
 *      what a recycled file held before has other segment numbers.
 *   2. The header of the next segment says where this one ended and with which
 *      checksum; it is written only after this one was durable. A header that is
 *      damaged itself is proved by its segment's records as in 1.
 *   3. The mark (a file of its own) names the log's first segment and a durable
 *      place with its checksum. It covers what has nothing after it: the
 *      last batch, the last segment. It is written after the log has rested for
 *      100 ms, soon after each change of segment, at close, and before a segment
 *      is let go; never in the way of an append.
 *
 * What remains: after a crash less than about 100 ms after the last batch became
 * durable, damage to that batch (and damage only; a crash alone loses nothing) is
 * taken for a torn tail, as nothing later knows of it. Sectors are taken to be
 * written whole or not at all; a batch may share its first sector with the one
 * before. A medium that breaks this damages durable records, and that is seen
 * as in 1 to 3.
 *
 * The vote has no such doubt: see struct wal_twin.
 */
#include "core/io/wal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#define SEGMENT_DEFAULT (16u << 20)
#define BATCH_DEFAULT (4u << 20)

/* --- shared with the threads ------------------------------------------------------------------ */

void wal_ring(struct wal *w)
{
	(void)eventfd_write(w->bell_fd, 1); /* fails only if it has rung 2^64 - 2 times unheard */
}

void wal_fail(struct wal *w, const struct wal_error *e)
{
	uv_mutex_lock(&w->lock);
	if (w->failure.code == 0) {
		w->failure = *e;
	}
	uv_mutex_unlock(&w->lock);
	wal_ring(w);
}

bool wal_failed(struct wal *w)
{
	bool failed;

	uv_mutex_lock(&w->lock);
	failed = w->failure.code != 0;
	uv_mutex_unlock(&w->lock);
	return failed;
}

void wal_set_low(struct wal *w, bool low)
{
	uv_mutex_lock(&w->lock);
	w->low = low;
	uv_mutex_unlock(&w->lock);
	wal_ring(w);
}

/* --- the terms of the log, for truncations -------------------------------------------------- */

static void runs_append(struct wal *w, uint64_t index, uint64_t term)
{
	if (w->n_runs > 0 && w->runs[w->n_runs - 1].term == term) {
		return;
	}
	if (w->n_runs == w->cap_runs) {
		w->cap_runs = w->cap_runs ? 2 * w->cap_runs : 16;
		w->runs = xrealloc(w->runs, w->cap_runs * sizeof(*w->runs));
	}
	w->runs[w->n_runs++] = (struct wal_run){index, term};
}

/* The log ends at `index` now; returns the term there. */
static uint64_t runs_cut(struct wal *w, uint64_t index)
{
	while (w->n_runs > 0 && w->runs[w->n_runs - 1].first > index) {
		w->n_runs--;
	}
	ASSERT(w->n_runs > 0); /* else it would cut off what was compacted, so committed */
	return w->runs[w->n_runs - 1].term;
}

static void runs_compact(struct wal *w, uint64_t index)
{
	size_t n = 0;

	while (n + 1 < w->n_runs && w->runs[n + 1].first <= index) {
		n++;
	}
	w->n_runs -= n;
	memmove(w->runs, w->runs + n, w->n_runs * sizeof(*w->runs));
}

/* --- the queue ------------------------------------------------------------------------------ */

static struct wal_job *job_new(enum wal_job_kind kind, uint64_t a, uint64_t b, size_t n)
{
	struct wal_job *job = xcalloc(1, sizeof(*job) + n * sizeof(job->entries[0]));

	job->kind = kind;
	job->a = a;
	job->b = b;
	job->n = n;
	return job;
}

static void job_free(struct wal_job *job)
{
	for (size_t i = 0; i < job->n; i++) {
		raft_entry_unref(job->entries[i]);
	}
	free(job);
}

static void push(struct wal *w, struct wal_job *job)
{
	ASSERT(!w->closing);
	w->closing = job->kind == WAL_JOB_CLOSE;
	uv_mutex_lock(&w->lock);
	DL_APPEND(w->queue, job);
	uv_mutex_unlock(&w->lock);
	uv_cond_signal(
		&w->wake); /* not before: the writer would wake up only to wait for the lock */
}

void wal_append(struct wal *w, uint64_t gen, struct raft_entry *const *entries, size_t n)
{
	struct wal_job *job;

	if (n == 0) {
		return;
	}
	job = job_new(WAL_JOB_APPEND, 0, 0, n);
	job->gen = gen;
	for (size_t i = 0; i < n; i++) {
		ASSERT(entries[i]->index == w->last_index + 1);
		w->last_index++;
		runs_append(w, entries[i]->index, entries[i]->term);
		job->entries[i] = raft_entry_ref(entries[i]);
	}
	push(w, job);
}

void wal_truncate(struct wal *w, uint64_t from)
{
	ASSERT(from > 0);
	if (from > w->last_index) {
		return;
	}
	w->last_index = from - 1;
	push(w, job_new(WAL_JOB_TRUNCATE, from - 1, runs_cut(w, from - 1), 0));
}

void wal_save_vote(struct wal *w, uint64_t term, uint64_t vote)
{
	push(w, job_new(WAL_JOB_VOTE, term, vote, 0));
}

void wal_reset(struct wal *w, uint64_t index, uint64_t term)
{
	w->last_index = index;
	w->n_runs = 0;
	runs_append(w, index, term);
	push(w, job_new(WAL_JOB_RESET, index, term, 0));
}

void wal_compact(struct wal *w, uint64_t first)
{
	if (first > 0) {
		runs_compact(w, first - 1);
		push(w, job_new(WAL_JOB_COMPACT, first, 0, 0));
	}
}

void wal_stats(const struct wal *w, struct wal_stats *ret_stats)
{
	*ret_stats = (struct wal_stats){
		.bytes_written = atomic_load_explicit(&w->bytes_written, memory_order_relaxed),
		.syncs = atomic_load_explicit(&w->syncs, memory_order_relaxed),
		.segments = atomic_load_explicit(&w->segments, memory_order_relaxed),
		.sync_us_sum = atomic_load_explicit(&w->sync_us_sum, memory_order_relaxed),
		.sync_us_max = atomic_load_explicit(&w->sync_us_max, memory_order_relaxed),
	};
}

/* --- results, on the loop ------------------------------------------------------------------- */

/* What the appends seen so far made durable, told once. */
struct told {
	uint64_t gen;
	uint64_t index; /* 0: nothing to tell */
};

static void tell_durable(struct wal *w, struct told *t)
{
	if (t->index > 0) {
		w->events.durable(w->events.ctx, t->gen, t->index);
		t->index = 0;
	}
}

static void report_job(struct wal *w, const struct wal_job *job, struct told *t)
{
	if (job->kind == WAL_JOB_APPEND) {
		if (t->gen != job->gen) {
			tell_durable(w, t);
		}
		t->gen = job->gen;
		t->index = job->entries[job->n - 1]->index;
	} else if (job->kind == WAL_JOB_VOTE) {
		tell_durable(w, t);
		w->events.vote_durable(w->events.ctx, job->a, job->b);
	} else if (job->kind == WAL_JOB_RESET) {
		tell_durable(w, t);
		w->events.reset_done(w->events.ctx, job->a);
	}
}

static void report_done(struct wal *w, struct wal_job *done)
{
	struct wal_job *job, *tmp;
	struct told t = {0};

	DL_FOREACH (done, job) {
		if (job->ok) {
			report_job(w, job, &t);
		}
	}
	tell_durable(w, &t);
	DL_FOREACH_SAFE (done, job, tmp) {
		job_free(job);
	}
}

static void report_low(struct wal *w, bool low)
{
	if (low == w->low_reported) {
		return;
	}
	w->low_reported = low;
	TRACE(&w->trace, low ? TRACE_WARN : TRACE_INFO, "wal.space", "dir=%s low=%d", w->dir.path,
		low);
	w->events.low_space(w->events.ctx, low);
}

static void report_failure(struct wal *w, const struct wal_error *failure)
{
	if (failure->code == 0 || w->fail_reported) {
		return;
	}
	w->fail_reported = true;
	TRACE(&w->trace, TRACE_ERROR, "wal.failed", "text=\"%s\"", failure->text);
	w->events.failed(w->events.ctx, failure->code, failure->text);
}

static void wal_free(struct wal *w)
{
	wal_file_close(&w->writer.file);
	wal_file_close(&w->writer.vote.file);
	wal_file_close(&w->keeper.mark.file);
	for (size_t i = 0; i < w->keeper.n_ready; i++) {
		wal_file_close(&w->keeper.ready[i].file);
	}
	if (w->dir.log_fd >= 0) {
		(void)close(w->dir.log_fd); /* only synced */
	}
	if (w->dir.fd >= 0) {
		(void)close(w->dir.fd); /* only synced; drops the lock */
	}
	if (w->bell_fd >= 0) {
		(void)close(w->bell_fd); /* says nothing any more */
	}
	uv_cond_destroy(&w->keeper.handed);
	uv_cond_destroy(&w->keeper.wake);
	uv_mutex_destroy(&w->keeper.lock);
	uv_cond_destroy(&w->wake);
	uv_mutex_destroy(&w->lock);
	free(w->dir.path);
	free(w->runs);
	free(w->writer.buf);
	free(w->writer.max_index);
	free(w);
}

static void bell_closed(uv_handle_t *handle)
{
	struct wal *w = handle->data;

	w->closed(w->closed_ctx);
	wal_free(w);
}

static void on_bell(uv_poll_t *bell, int status, int events)
{
	struct wal *w = bell->data;
	struct wal_job *done;
	struct wal_error failure;
	bool low, finished;
	eventfd_t rung;

	(void)eventfd_read(w->bell_fd, &rung); /* nothing to read: then there is nothing to do */
	uv_mutex_lock(&w->lock);
	done = TAKE(w->done);
	failure = w->failure;
	low = w->low;
	finished = w->finished;
	uv_mutex_unlock(&w->lock);
	report_done(w, done);
	report_low(w, low);
	report_failure(w, &failure);
	if (finished) {
		(void)uv_thread_join(&w->writer.thread); /* it is on its last line */
		uv_close((uv_handle_t *)&w->bell, bell_closed);
	}
}

void wal_close(struct wal *w, void (*closed)(void *ctx), void *ctx)
{
	w->closed = closed;
	w->closed_ctx = ctx;
	push(w, job_new(WAL_JOB_CLOSE, 0, 0, 0));
}

/* --- create --------------------------------------------------------------------------------- */

#define NEW_LOG "log.new"

static bool exists(const struct wal *w, const char *name)
{
	struct stat st;

	return fstatat(w->dir.fd, name, &st, 0) == 0;
}

/* A vote file without a log is what an unfinished creation leaves, if it promises nothing. */
static int check_new(struct wal *w, struct wal_error *e)
{
	struct wal_twin vote;
	bool repaired;
	int rc;

	if (exists(w, "log")) {
		return wal_error_set(e, -EEXIST, "%s: there is a log already", w->dir.path);
	}
	rc = wal_twin_open(&w->dir, WAL_TWIN_VOTE, &vote, &repaired, e);
	if (rc == -ENOENT) {
		return 0;
	}
	if (rc == 0) {
		wal_file_close(&vote.file);
		if (vote.v[WAL_VOTE_TERM] == 0) {
			return 0;
		}
	}
	return wal_error_set(e, -EEXIST, "%s: there is no log, but a vote of one", w->dir.path);
}

/* The first segment, in a directory that becomes log/ by a rename at the end. */
static int create_segment(struct wal *w, struct wal_error *e)
{
	struct wal_header h = {.number = 1, .bytes = w->segment_bytes};
	const char *name = NEW_LOG "/0000000001.seg";
	struct wal_file f;
	uint8_t buf[WAL_HEADER_BYTES];
	int rc;

	if (mkdirat(w->dir.fd, NEW_LOG, 0700) < 0 && errno != EEXIST) {
		return wal_error_sys(e, &w->dir, NEW_LOG, "mkdir", errno);
	}
	rc = wal_make_zeroed(&w->dir, name, w->segment_bytes, NULL, NULL, &f, e);
	if (rc < 0) {
		return rc;
	}
	(void)wal_header_encode(&h, buf);
	rc = wal_file_write(&f, buf, sizeof(buf), 0, e);
	if (rc == 0) {
		rc = wal_file_sync(&f, e);
	}
	wal_file_close(&f);
	return rc;
}

static int create_marks(struct wal *w, struct wal_error *e)
{
	struct wal_header h = {.number = 1, .bytes = w->segment_bytes};
	uint8_t buf[WAL_HEADER_BYTES];
	uint64_t vote[WAL_TWIN_VALUES] = {0}, mark[WAL_TWIN_VALUES] = {0};
	int rc;

	mark[WAL_MARK_FIRST] = 1;
	mark[WAL_MARK_SEGMENT] = 1;
	mark[WAL_MARK_OFFSET] = WAL_HEADER_BYTES;
	mark[WAL_MARK_SUM] = wal_header_encode(&h, buf);
	rc = wal_twin_create(&w->dir, WAL_TWIN_VOTE, vote, e);
	return rc < 0 ? rc : wal_twin_create(&w->dir, WAL_TWIN_MARK, mark, e);
}

static int open_log_dir(struct wal *w, const char *name, struct wal_error *e)
{
	w->dir.log_fd = openat(w->dir.fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return w->dir.log_fd < 0 ? wal_error_sys(e, &w->dir, name, "open", errno) : 0;
}

static int wal_create(struct wal *w, struct wal_error *e)
{
	int rc = check_new(w, e);

	if (rc == 0) {
		rc = create_segment(w, e);
	}
	if (rc == 0) {
		rc = wal_reserve_resize(&w->dir, w->reserve_bytes, e);
	}
	if (rc == 0) {
		rc = create_marks(w, e);
	}
	if (rc == 0) {
		rc = open_log_dir(w, NEW_LOG, e);
	}
	if (rc == 0) {
		rc = wal_dir_sync_log(&w->dir, e);
	}
	if (rc == 0) {
		rc = wal_file_rename(&w->dir, NEW_LOG, "log", e);
	}
	return rc == 0 ? wal_dir_sync(&w->dir, e) : rc;
}

/* --- open ----------------------------------------------------------------------------------- */

static int check_exists(struct wal *w, struct wal_error *e)
{
	if (exists(w, "log")) {
		return open_log_dir(w, "log", e);
	}
	if (exists(w, WAL_VOTE_FILE) || exists(w, WAL_MARK_FILE)) {
		return wal_damage(e, &w->dir, "log", 0,
			"the directory is missing, but there is a vote or mark of a log");
	}
	return wal_error_set(e, -ENOENT, "%s: there is no log here", w->dir.path);
}

static int open_dir(struct wal *w, struct wal_error *e)
{
	w->dir.fd = open(w->dir.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dir.fd < 0) {
		return wal_error_set(e, -errno, "%s: open: %s", w->dir.path, strerror(errno));
	}
	if (flock(w->dir.fd, LOCK_EX | LOCK_NB) < 0) {
		return errno == EWOULDBLOCK
			       ? wal_error_set(e, -EBUSY, "%s: the log is open in another process",
					 w->dir.path)
			       : wal_error_sys(e, &w->dir, ".", "flock", errno);
	}
	return 0;
}

/* For what fails only for want of memory or by our own mistake. */
static void must(int rc)
{
	ASSERT(rc == 0);
}

static struct wal *wal_new(const struct wal_options *o, const struct wal_events *events)
{
	struct wal *w = xcalloc(1, sizeof(*w));

	w->dir = (struct wal_dir){.path = xstrdup(o->dir), .fd = -1, .log_fd = -1};
	w->bell_fd = -1;
	w->segment_bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_DEFAULT;
	w->reserve_bytes = o->reserve_bytes ? o->reserve_bytes : 2 * w->segment_bytes;
	w->batch_bytes = o->batch_bytes ? o->batch_bytes : BATCH_DEFAULT;
	w->events = *events;
	w->trace = o->trace;
	w->writer.file.fd = -1;
	w->writer.vote.file.fd = -1;
	w->keeper.mark.file.fd = -1;
	w->writer.buf = xmalloc(MAX(w->batch_bytes, (size_t)WAL_HEADER_BYTES + WAL_RECORD_MAX));
	must(uv_mutex_init(&w->lock));
	must(uv_cond_init(&w->wake));
	must(uv_mutex_init(&w->keeper.lock));
	must(uv_cond_init(&w->keeper.wake));
	must(uv_cond_init(&w->keeper.handed));
	return w;
}

static int wal_read(
	struct wal *w, const struct wal_options *o, struct wal_recovered *r, struct wal_error *e)
{
	int rc;

	if (w->segment_bytes < WAL_SEGMENT_MIN || w->segment_bytes > WAL_SEGMENT_MAX ||
		w->segment_bytes % WAL_HEADER_BYTES != 0) {
		return wal_error_set(e, -EINVAL,
			"segment_bytes must be a multiple of %u from %u to %u", WAL_HEADER_BYTES,
			WAL_SEGMENT_MIN, WAL_SEGMENT_MAX);
	}
	rc = open_dir(w, e);
	if (rc == 0) {
		rc = o->create ? wal_create(w, e) : check_exists(w, e);
	}
	return rc == 0 ? wal_recover(w, r, e) : rc;
}

static void note_recovered(struct wal *w, const struct wal_recovered *r)
{
	w->last_index = r->prev_index + r->n_entries;
	runs_append(w, r->prev_index, r->prev_term);
	for (size_t i = 0; i < r->n_entries; i++) {
		runs_append(w, r->entries[i]->index, r->entries[i]->term);
	}
	TRACE(&w->trace, r->truncated_tail ? TRACE_WARN : TRACE_INFO, "wal.open",
		"dir=%s term=%" PRIu64 " first=%" PRIu64 " last=%" PRIu64 " torn_tail=%d",
		w->dir.path, r->term, r->prev_index + 1, w->last_index, r->truncated_tail);
}

/* Once the bell's handle is there, the wal can only be freed from the loop. */
static void start_threads(struct wal *w, uv_loop_t *loop)
{
	w->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(w->bell_fd < 0 ? -errno : 0);
	must(uv_poll_init(loop, &w->bell, w->bell_fd));
	must(uv_poll_start(&w->bell, UV_READABLE, on_bell));
	w->bell.data = w;
	must(wal_keeper_start(w));
	must(wal_writer_start(w));
}

int wal_open(uv_loop_t *loop, const struct wal_options *o, const struct wal_events *events,
	struct wal **ret_wal, struct wal_recovered *ret_recovered, char *err, size_t err_size)
{
	struct wal *w = wal_new(o, events);
	struct wal_recovered r = {0};
	struct wal_error e;
	int rc = wal_read(w, o, &r, &e);

	if (rc < 0) {
		(void)snprintf(err, err_size, "%s", e.text); /* cut if too long */
		wal_recovered_fini(&r);
		wal_free(w);
		return rc;
	}
	note_recovered(w, &r);
	start_threads(w, loop);
	*ret_wal = w;
	*ret_recovered = r;
	return 0;
}

void wal_recovered_fini(struct wal_recovered *r)
{
	for (size_t i = 0; i < r->n_entries; i++) {
		raft_entry_unref(r->entries[i]);
	}
	free(r->entries);
	*r = (struct wal_recovered){0};
}
