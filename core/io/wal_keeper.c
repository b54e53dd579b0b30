/*
 * wal_keeper.c - the low-priority thread: next segments, recycling, mark, reserve.
 *
 * Everything that would make an append wait is done here, ahead of time or
 * afterwards: files are written with zeros (or taken from those that fell out
 * of the log, their header zeroed), renamed to the number they will have and
 * the directory synced, before the writer asks for them; the mark is written
 * when the log has rested, or has gone on to another segment; files behind the
 * log go after a mark that no longer names them.
 *
 * What to do next is decided in one place, keeper_plan(), most urgent first.
 *
 * A full disk: the next segment does not fit. The reserve gives up a segment's
 * worth, the node is told (it steps down and refuses writes), and from then on,
 * now and then, the reserve is tried to be made whole again. Only when the
 * reserve is used up too and the writer stands at the end of its last segment,
 * the log has failed.
 */
#include "core/io/wal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MARK_IDLE_NS 100000000u /* marked after so long a rest: not often, it is two syncs */
#define RETRY_NS 1000000000u    /* between attempts to get space. Arbitrary */
#define ZERO_STEP (1u << 20)    /* synced one by one, so that an append waits behind one at most */

int wal_make_zeroed(const struct wal_dir *dir, const char *name, uint64_t bytes,
	bool (*stop)(void *ctx), void *ctx, struct wal_file *ret_file, struct wal_error *e)
{
	struct wal_file f;
	int rc = wal_file_open(dir, name, O_RDWR | O_CREAT | O_TRUNC, &f, e);

	if (rc < 0) {
		return rc;
	}
	for (uint64_t at = 0; at < bytes && rc == 0; at += ZERO_STEP) {
		if (stop != NULL && stop(ctx)) {
			rc = wal_error_set(e, -ECANCELED, "%s: not finished", name);
			break;
		}
		rc = wal_file_zero(&f, at, MIN(at + ZERO_STEP, bytes), e);
		if (rc == 0) {
			rc = wal_file_sync(&f, e);
		}
	}
	if (rc < 0) {
		struct wal_error ignored; /* the first error is the one to report */

		wal_file_close(&f);
		(void)wal_file_unlink(dir, name, &ignored);
		return rc;
	}
	*ret_file = f;
	return 0;
}

int wal_reserve_resize(const struct wal_dir *dir, uint64_t bytes, struct wal_error *e)
{
	struct wal_file f;
	uint64_t had;
	int error = 0;
	int rc = wal_file_open(dir, WAL_RESERVE_FILE, O_RDWR | O_CREAT, &f, e);

	if (rc < 0) {
		return rc;
	}
	rc = wal_file_size(&f, &had, e);
	if (rc == 0 && bytes < had && ftruncate(f.fd, (off_t)bytes) < 0) {
		error = errno;
	}
	if (rc == 0 && bytes > had) {
		error = posix_fallocate(f.fd, 0, (off_t)bytes);
		if (error != 0) {
			(void)ftruncate(f.fd, (off_t)had); /* gives back what it got so far */
		}
	}
	if (error != 0) {
		rc = wal_error_sys(e, dir, f.name, "resize", error);
	}
	if (rc == 0 && fsync(f.fd) < 0) {
		rc = wal_error_sys(e, dir, f.name, "fsync", errno);
	}
	wal_file_close(&f);
	return rc;
}

/* --- what there is to do -------------------------------------------------------------------- */

enum step {
	STEP_STOP,
	STEP_PREPARE,
	STEP_MARK,
	STEP_RECYCLE,
	STEP_RESTORE,
	STEP_WAIT
};

static bool mark_is_old(const struct wal_keeper *k)
{
	return k->mark.v[WAL_MARK_SEGMENT] != k->synced.segment ||
	       k->mark.v[WAL_MARK_OFFSET] != k->synced.offset ||
	       k->mark.v[WAL_MARK_FIRST] != k->first;
}

static bool wants_segment(const struct wal_keeper *k, uint64_t now)
{
	if (k->n_ready == WAL_READY_MAX) {
		return false;
	}
	if (k->n_spares > 0) {
		return true;
	}
	/* Short of space: no more than the one that must be. */
	return k->low ? k->n_ready == 0 && (!k->exhausted || now >= k->retry_ns) : true;
}

/*
 * Under the lock. A file to use again comes before a new one, so that under a steady load
 * files circulate and do not pile up. ret_wait_ns, with STEP_WAIT: for how long at most, 0:
 * until woken.
 */
static enum step keeper_plan(
	const struct wal_keeper *k, uint64_t reserve_bytes, uint64_t now, uint64_t *ret_wait_ns)
{
	bool rested = mark_is_old(k) && now - k->synced_ns >= MARK_IDLE_NS;
	bool short_reserve = k->reserve_bytes < reserve_bytes;

	*ret_wait_ns = 0;
	if (k->stop) {
		return STEP_STOP;
	}
	if (k->n_ready == 0 && k->n_spares > 0) {
		return STEP_PREPARE;
	}
	if (k->mark.v[WAL_MARK_FIRST] != k->first) {
		return STEP_MARK;
	}
	if (k->oldest < k->mark.v[WAL_MARK_FIRST]) {
		return STEP_RECYCLE;
	}
	if (k->n_ready == 0 && wants_segment(k, now)) {
		return STEP_PREPARE;
	}
	if (k->mark.v[WAL_MARK_SEGMENT] != k->synced.segment || rested) {
		return STEP_MARK;
	}
	if (wants_segment(k, now)) {
		return STEP_PREPARE;
	}
	if (short_reserve && now >= k->retry_ns) {
		return STEP_RESTORE;
	}
	if (mark_is_old(k)) {
		*ret_wait_ns = k->synced_ns + MARK_IDLE_NS - now;
	} else if (short_reserve) {
		*ret_wait_ns = k->retry_ns - now;
	}
	return STEP_WAIT;
}

/* --- segments --------------------------------------------------------------------------------- */

static bool keeper_stopping(void *ctx)
{
	struct wal_keeper *k = ctx;
	bool stop;

	uv_mutex_lock(&k->lock);
	stop = k->stop;
	uv_mutex_unlock(&k->lock);
	return stop;
}

/* A file that fell out of the log: without its header, nothing in it is taken for current. */
static int spare_reuse(struct wal *w, struct wal_file *ret_file, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	char name[WAL_NAME_BYTES];
	int rc;

	wal_spare_name(k->spares[--k->n_spares], name);
	rc = wal_file_open(&w->dir, name, O_RDWR, ret_file, e);
	if (rc < 0) {
		return rc;
	}
	rc = wal_file_zero(ret_file, 0, WAL_HEADER_BYTES, e);
	if (rc == 0) {
		rc = wal_file_sync(ret_file, e);
	}
	if (rc < 0) {
		wal_file_close(ret_file);
	}
	return rc;
}

static int spare_make(struct wal *w, struct wal_file *ret_file, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	char name[WAL_NAME_BYTES];
	int rc;

	wal_spare_name(k->next, name);
	do {
		rc = wal_make_zeroed(
			&w->dir, name, w->segment_bytes, keeper_stopping, k, ret_file, e);
		if (!wal_error_is_space(rc) || k->reserve_bytes == 0) {
			return rc;
		}
		k->reserve_bytes -= MIN(k->reserve_bytes, w->segment_bytes);
		k->low = true;
		k->retry_ns = uv_hrtime() + RETRY_NS;
		wal_set_low(w, true);
		rc = wal_reserve_resize(&w->dir, k->reserve_bytes, e);
	} while (rc == 0);
	return rc;
}

static void keeper_exhausted(struct wal *w)
{
	struct wal_keeper *k = &w->keeper;

	k->low = true;
	k->retry_ns = uv_hrtime() + RETRY_NS;
	wal_set_low(w, true);
	uv_mutex_lock(&k->lock);
	k->exhausted = true;
	uv_cond_signal(&k->handed);
	uv_mutex_unlock(&k->lock);
}

/* The next segment, from a spare or new, under its final name. */
static int keeper_prepare(struct wal *w, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	struct wal_ready ready = {.number = k->next};
	char name[WAL_NAME_BYTES];
	int rc = k->n_spares > 0 ? spare_reuse(w, &ready.file, e) : spare_make(w, &ready.file, e);

	if (wal_error_is_space(rc)) {
		keeper_exhausted(w);
		return 0;
	}
	if (rc < 0) {
		return rc == -ECANCELED ? 0 : rc;
	}
	wal_segment_name(k->next, name);
	rc = wal_file_rename(&w->dir, ready.file.name, name, e);
	if (rc == 0) {
		rc = wal_dir_sync_log(&w->dir, e);
	}
	if (rc < 0) {
		wal_file_close(&ready.file);
		return rc;
	}
	memcpy(ready.file.name, name, sizeof(name));
	k->next++;
	uv_mutex_lock(&k->lock);
	k->ready[k->n_ready++] = ready;
	k->exhausted = false;
	uv_cond_signal(&k->handed);
	uv_mutex_unlock(&k->lock);
	return 0;
}

/* Segment `oldest` is behind the log: keep the file for later, or let it go. */
static int keeper_recycle(struct wal *w, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	char name[WAL_NAME_BYTES], spare[WAL_NAME_BYTES];
	struct wal_file f;
	uint64_t bytes;
	int rc;

	wal_segment_name(k->oldest, name);
	rc = wal_file_open(&w->dir, name, O_RDWR, &f, e);
	if (rc == -ENOENT) {
		k->oldest++; /* went before a restart */
		return 0;
	}
	if (rc < 0) {
		return rc;
	}
	rc = wal_file_size(&f, &bytes, e);
	wal_file_close(&f);
	if (rc < 0) {
		return rc;
	}
	if (k->n_spares < WAL_SPARE_MAX && bytes == w->segment_bytes) {
		wal_spare_name(k->oldest, spare);
		rc = wal_file_rename(&w->dir, name, spare, e);
		k->spares[k->n_spares++] = k->oldest;
	} else {
		rc = wal_file_unlink(&w->dir, name, e);
	}
	k->oldest++;
	return rc;
}

/* --- mark and reserve ------------------------------------------------------------------------- */

static int keeper_mark(struct wal *w, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	uint64_t v[WAL_TWIN_VALUES];

	uv_mutex_lock(&k->lock);
	v[WAL_MARK_FIRST] = k->first;
	v[WAL_MARK_SEGMENT] = k->synced.segment;
	v[WAL_MARK_OFFSET] = k->synced.offset;
	v[WAL_MARK_SUM] = k->synced.sum;
	uv_mutex_unlock(&k->lock);
	return wal_twin_write(&k->mark, WAL_TWIN_MARK, v, e);
}

static int keeper_restore(struct wal *w, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	int rc = wal_reserve_resize(&w->dir, w->reserve_bytes, e);

	if (rc == 0) {
		rc = wal_dir_sync(&w->dir, e); /* the file may be new */
	}
	if (wal_error_is_space(rc)) {
		k->retry_ns = uv_hrtime() + RETRY_NS;
		rc = 0;
	} else if (rc == 0) {
		k->reserve_bytes = w->reserve_bytes;
	}
	k->low = k->reserve_bytes < w->reserve_bytes;
	wal_set_low(w, k->low);
	return rc;
}

/* --- the thread ----------------------------------------------------------------------------- */

static int keeper_do(struct wal *w, enum step step, struct wal_error *e)
{
	switch (step) {
	case STEP_PREPARE:
		return keeper_prepare(w, e);
	case STEP_MARK:
		return keeper_mark(w, e);
	case STEP_RECYCLE:
		return keeper_recycle(w, e);
	case STEP_RESTORE:
		return keeper_restore(w, e);
	case STEP_STOP:
	case STEP_WAIT:
		break;
	}
	UNREACHABLE();
}

/* Returns what to do, after waiting for it. */
static enum step keeper_next(struct wal *w)
{
	struct wal_keeper *k = &w->keeper;
	enum step step;
	uint64_t wait_ns;

	uv_mutex_lock(&k->lock);
	for (;;) {
		step = keeper_plan(k, w->reserve_bytes, uv_hrtime(), &wait_ns);
		if (step != STEP_WAIT) {
			break;
		}
		if (wait_ns > 0) {
			(void)uv_cond_timedwait(&k->wake, &k->lock, wait_ns); /* plans again */
		} else {
			k->asleep = true;
			uv_cond_wait(&k->wake, &k->lock);
			k->asleep = false;
		}
	}
	uv_mutex_unlock(&k->lock);
	return step;
}

/* Linux: the priority is the thread's. Without it appends wait a little more, ignoring errors. */
static void lower_priority(void)
{
	enum {
		IOPRIO_WHO_PROCESS = 1,
		IOPRIO_BEST_EFFORT_LOWEST = (2 << 13) | 7
	};

	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10);
	(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_BEST_EFFORT_LOWEST);
}

static void keeper_main(void *arg)
{
	struct wal *w = arg;
	struct wal_keeper *k = &w->keeper;
	struct wal_error e;
	enum step step;
	int rc = 0;

	lower_priority();
	while (rc == 0 && (step = keeper_next(w)) != STEP_STOP) {
		rc = keeper_do(w, step, &e);
	}
	if (rc == 0 && mark_is_old(k) && !wal_failed(w)) {
		rc = keeper_mark(w, &e);
	}
	if (rc < 0) {
		wal_fail(w, &e);
		uv_mutex_lock(&k->lock);
		k->broken = true;
		uv_cond_signal(&k->handed);
		uv_mutex_unlock(&k->lock);
	}
}

int wal_keeper_start(struct wal *w)
{
	return uv_thread_create(&w->keeper.thread, keeper_main, w);
}

void wal_keeper_stop(struct wal *w)
{
	struct wal_keeper *k = &w->keeper;

	uv_mutex_lock(&k->lock);
	k->stop = true;
	uv_cond_signal(&k->wake);
	uv_mutex_unlock(&k->lock);
	(void)uv_thread_join(&k->thread); /* can fail only for a thread that is not there */
	for (size_t i = 0; i < k->n_ready; i++) {
		wal_file_close(&k->ready[i].file);
	}
	k->n_ready = 0;
}

/* --- what the writer calls ------------------------------------------------------------------ */

void wal_keeper_synced(struct wal *w, const struct wal_place *place)
{
	struct wal_keeper *k = &w->keeper;

	uv_mutex_lock(&k->lock);
	if (k->asleep || k->synced.segment != place->segment) {
		uv_cond_signal(&k->wake);
	}
	k->synced = *place;
	k->synced_ns = uv_hrtime();
	uv_mutex_unlock(&k->lock);
}

void wal_keeper_release(struct wal *w, uint64_t first)
{
	struct wal_keeper *k = &w->keeper;

	uv_mutex_lock(&k->lock);
	k->first = first;
	uv_cond_signal(&k->wake);
	uv_mutex_unlock(&k->lock);
}

int wal_keeper_take(struct wal *w, struct wal_ready *ret_ready, struct wal_error *e)
{
	struct wal_keeper *k = &w->keeper;
	int rc = 0;

	uv_mutex_lock(&k->lock);
	while (k->n_ready == 0 && !k->exhausted && !k->broken) {
		uv_cond_wait(&k->handed, &k->lock);
	}
	if (k->n_ready > 0) {
		*ret_ready = k->ready[0];
		k->n_ready--;
		memmove(&k->ready[0], &k->ready[1], k->n_ready * sizeof(k->ready[0]));
		uv_cond_signal(&k->wake);
	} else if (k->broken) {
		rc = wal_error_set(
			e, -EPIPE, "%s: the next segment cannot be prepared", w->dir.path);
	} else {
		rc = wal_error_set(e, -ENOSPC,
			"%s/log: write: no space for the next segment, and the reserve is used up",
			w->dir.path);
	}
	uv_mutex_unlock(&k->lock);
	return rc;
}
