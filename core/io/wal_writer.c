/*
 * wal_writer.c - the thread that writes and syncs, in order.
 *
 * It takes all jobs that have queued up, encodes their records into one buffer,
 * writes the buffer with one pwrite and makes it durable with one fdatasync;
 * then the jobs go to the done list and the loop is woken. The buffer goes out
 * early at the byte limit, at the end of a segment (so a batch lies in one file)
 * and before a vote (the order of the queue is the order on the disk).
 *
 * The first error ends it: later jobs are handed back, not carried out.
 */
#include "core/io/wal_internal.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

static uint64_t writer_offset(const struct wal_writer *wr)
{
	return wr->buf_at + wr->buf_len;
}

/* --- out ------------------------------------------------------------------------------------ */

/* Hand `jobs` back to the loop. */
static void writer_done(struct wal *w, struct wal_job **jobs)
{
	struct wal_job *job;

	uv_mutex_lock(&w->lock);
	DL_FOREACH (*jobs, job) {
		job->ok = w->failure.code == 0;
	}
	DL_CONCAT(w->done, *jobs);
	uv_mutex_unlock(&w->lock);
	*jobs = NULL;
	wal_ring(w);
}

static int writer_sync(struct wal *w, struct wal_error *e)
{
	uint64_t from = uv_hrtime();
	int rc = wal_file_sync(&w->writer.file, e);
	uint64_t us = (uv_hrtime() - from) / 1000;

	atomic_fetch_add_explicit(&w->syncs, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->sync_us_sum, us, memory_order_relaxed);
	if (us > atomic_load_explicit(&w->sync_us_max, memory_order_relaxed)) {
		atomic_store_explicit(&w->sync_us_max, us, memory_order_relaxed);
	}
	return rc;
}

/* Write and sync what is in the buffer; the encoded jobs are done. */
static int writer_flush(struct wal *w, struct wal_error *e)
{
	struct wal_writer *wr = &w->writer;
	struct wal_place place;
	int rc;

	if (wr->buf_len > 0) {
		rc = wal_file_write(&wr->file, wr->buf, wr->buf_len, wr->buf_at, e);
		if (rc == 0) {
			rc = writer_sync(w, e);
		}
		if (rc < 0) {
			return rc;
		}
		atomic_fetch_add_explicit(&w->bytes_written, wr->buf_len, memory_order_relaxed);
		wr->buf_at += wr->buf_len;
		wr->buf_len = 0;
		wr->synced = wr->buf_at;
		place = (struct wal_place){wr->number, wr->synced, wr->sum};
		wal_keeper_synced(w, &place);
	}
	if (wr->encoded != NULL) {
		writer_done(w, &wr->encoded);
	}
	return 0;
}

/* --- segments ------------------------------------------------------------------------------- */

void wal_writer_add_live(struct wal_writer *wr, uint64_t max_index)
{
	if (wr->n_live == wr->cap_live) {
		wr->cap_live = wr->cap_live ? 2 * wr->cap_live : 16;
		wr->max_index = xrealloc(wr->max_index, wr->cap_live * sizeof(uint64_t));
	}
	wr->max_index[wr->n_live++] = max_index;
}

static void writer_count_segments(struct wal *w)
{
	atomic_store_explicit(&w->segments, w->writer.n_live, memory_order_relaxed);
}

/* Forget segments before `first`; the keeper recycles them. */
static void writer_drop_before(struct wal *w, uint64_t first)
{
	struct wal_writer *wr = &w->writer;
	size_t n = (size_t)(first - wr->first);

	if (n == 0) {
		return;
	}
	wr->n_live -= n;
	memmove(wr->max_index, wr->max_index + n, wr->n_live * sizeof(uint64_t));
	wr->first = first;
	writer_count_segments(w);
	wal_keeper_release(w, first);
}

/* Go on in the next segment. Its header goes out with the first records. */
static int writer_turn_over(struct wal *w, const struct wal_job *reset, struct wal_error *e)
{
	struct wal_writer *wr = &w->writer;
	struct wal_header h = {.reset = reset != NULL};
	struct wal_ready ready;
	int rc = writer_flush(w, e);

	if (rc == 0) {
		rc = wal_keeper_take(w, &ready, e);
	}
	if (rc < 0) {
		return rc;
	}
	ASSERT(ready.number == wr->number + 1);
	if (reset != NULL) {
		wr->last_index = reset->a;
		wr->last_term = reset->b;
	}
	h.number = ready.number;
	h.bytes = w->segment_bytes;
	h.prev_index = wr->last_index;
	h.prev_term = wr->last_term;
	h.prev_end = wr->synced;
	h.prev_sum = wr->sum;
	wal_file_close(&wr->file);
	wr->file = ready.file;
	wr->number = ready.number;
	wr->bytes = w->segment_bytes;
	wr->synced = 0;
	wr->buf_at = 0;
	wr->sum = wal_header_encode(&h, wr->buf);
	wr->buf_len = WAL_HEADER_BYTES;
	wal_writer_add_live(wr, 0);
	writer_count_segments(w);
	return 0;
}

/* --- records -------------------------------------------------------------------------------- */

static int writer_record(struct wal *w, struct wal_record *r, const void *data, struct wal_error *e)
{
	struct wal_writer *wr = &w->writer;
	size_t size = wal_record_size(r->len);
	int rc = 0;

	if (r->len > RAFT_ENTRY_BYTES_MAX || size > w->segment_bytes - WAL_HEADER_BYTES) {
		return wal_error_set(e, -EFBIG,
			"%s/%s: append: entry %" PRIu64 " of %" PRIu32 " bytes is too large",
			w->dir.path, wr->file.name, r->index, r->len);
	}
	if (writer_offset(wr) + size > wr->bytes) {
		rc = writer_turn_over(w, NULL, e);
	} else if (wr->buf_len > 0 && wr->buf_len + size > w->batch_bytes) {
		rc = writer_flush(w, e);
	}
	if (rc < 0) {
		return rc;
	}
	r->segment = wr->number;
	r->offset = (uint32_t)writer_offset(wr);
	r->synced = (uint32_t)wr->synced;
	r->prev = wr->sum;
	wal_record_encode(r, data, wr->buf + wr->buf_len);
	wr->buf_len += size;
	wr->sum = r->sum;
	wr->last_index = r->index;
	wr->last_term = r->term;
	return 0;
}

static int run_append(struct wal *w, const struct wal_job *job, struct wal_error *e)
{
	struct wal_writer *wr = &w->writer;
	int rc = 0;

	for (size_t i = 0; i < job->n && rc == 0; i++) {
		const struct raft_entry *entry = job->entries[i];
		struct wal_record r = {
			.index = entry->index,
			.term = entry->term,
			.len = entry->len,
			.kind = (uint8_t)(entry->kind + WAL_NOOP),
		};

		rc = writer_record(w, &r, entry->data, e);
		if (rc == 0) {
			uint64_t *max = &wr->max_index[wr->n_live - 1];

			*max = MAX(*max, entry->index);
		}
	}
	return rc;
}

static int run_truncate(struct wal *w, const struct wal_job *job, struct wal_error *e)
{
	struct wal_record r = {.index = job->a, .term = job->b, .kind = WAL_TRUNCATE};

	return writer_record(w, &r, NULL, e);
}

static int run_vote(struct wal *w, const struct wal_job *job, struct wal_error *e)
{
	uint64_t v[WAL_TWIN_VALUES] = {0};
	int rc = writer_flush(w, e);

	v[WAL_VOTE_TERM] = job->a;
	v[WAL_VOTE_VOTE] = job->b;
	return rc < 0 ? rc : wal_twin_write(&w->writer.vote, WAL_TWIN_VOTE, v, e);
}

static int run_reset(struct wal *w, const struct wal_job *job, struct wal_error *e)
{
	int rc = writer_turn_over(w, job, e);

	if (rc == 0) {
		rc = writer_flush(w, e);
	}
	if (rc == 0) {
		writer_drop_before(w, w->writer.number);
	}
	return rc;
}

/* max_index counts truncated entries too, so a truncation never stays without what it is about. */
static int run_compact(struct wal *w, const struct wal_job *job, struct wal_error *e)
{
	struct wal_writer *wr = &w->writer;
	size_t n = 0;
	int rc = writer_flush(w, e);

	if (rc < 0) {
		return rc;
	}
	while (n + 1 < wr->n_live && wr->max_index[n] < job->a) {
		n++;
	}
	writer_drop_before(w, wr->first + n);
	return 0;
}

static int writer_run(struct wal *w, const struct wal_job *job, struct wal_error *e)
{
	switch (job->kind) {
	case WAL_JOB_APPEND:
		return run_append(w, job, e);
	case WAL_JOB_TRUNCATE:
		return run_truncate(w, job, e);
	case WAL_JOB_VOTE:
		return run_vote(w, job, e);
	case WAL_JOB_RESET:
		return run_reset(w, job, e);
	case WAL_JOB_COMPACT:
		return run_compact(w, job, e);
	case WAL_JOB_CLOSE:
		return 0;
	}
	UNREACHABLE();
}

/* --- the thread ----------------------------------------------------------------------------- */

/* All that has queued up; waits for something. */
static struct wal_job *writer_take(struct wal *w)
{
	struct wal_job *jobs;

	uv_mutex_lock(&w->lock);
	while (w->queue == NULL) {
		uv_cond_wait(&w->wake, &w->lock);
	}
	jobs = TAKE(w->queue);
	uv_mutex_unlock(&w->lock);
	return jobs;
}

/* One batch. Returns whether it was the last. */
static bool writer_batch(struct wal *w)
{
	struct wal_job *jobs = writer_take(w);
	struct wal_job *job, *tmp;
	struct wal_error e;
	bool last = false;
	int rc = wal_failed(w) ? -EIO : 0;

	DL_FOREACH_SAFE (jobs, job, tmp) {
		last = last || job->kind == WAL_JOB_CLOSE;
		if (rc == 0) {
			rc = writer_run(w, job, &e);
			if (rc < 0) {
				wal_fail(w, &e);
			}
		}
		DL_DELETE(jobs, job);
		DL_APPEND(w->writer.encoded, job);
		if (rc == 0 && w->writer.buf_len == 0) {
			writer_done(
				w, &w->writer.encoded); /* a vote need not wait for what follows */
		}
	}
	if (rc == 0) {
		rc = writer_flush(w, &e);
		if (rc < 0) {
			wal_fail(w, &e);
		}
	}
	if (rc < 0) {
		writer_done(w, &w->writer.encoded);
	}
	return last;
}

static void writer_main(void *arg)
{
	struct wal *w = arg;

	while (!writer_batch(w)) {
	}
	wal_keeper_stop(w);
	uv_mutex_lock(&w->lock);
	w->finished = true;
	uv_mutex_unlock(&w->lock);
	wal_ring(w);
}

int wal_writer_start(struct wal *w)
{
	writer_count_segments(w);
	return uv_thread_create(&w->writer.thread, writer_main, w);
}
