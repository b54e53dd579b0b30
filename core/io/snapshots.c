/*
 * snapshots.c - which snapshot files there are: opening, loading, closing.
 *
 * Jobs: all file work after the start runs in uv's thread pool as a snap_job.
 * When one is done its `done` tells the events and snap_job_done() starts what
 * waits behind it: own snapshots and received chunks are two queues with
 * one job at a time each; reads and removals are independent.
 *
 * Failures: the first failing write, sync or rename sets `failed`: it is told
 * once, and from then on nothing is started and nobody told anything.
 * snapshots_close() lets running jobs end, then a last job closes the files.
 */
#include "core/io/snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/snapshots_internal.h"
#include "coordfs/util.h"

/* --- jobs ---------------------------------------------------------------------------------- */

static void last_work(struct snap_job *j);
static void last_done(struct snap_job *j);

static void start_last(struct snapshots *s)
{
	if (s->closing && s->n_jobs == 0 && !s->last_started) {
		s->last_started = true;
		snap_job_start(s, &s->last, last_work, last_done);
	}
}

static void job_work(uv_work_t *req)
{
	struct snap_job *j = CONTAINER_OF(req, struct snap_job, req);

	j->work(j);
}

static void job_done(uv_work_t *req, int status)
{
	struct snap_job *j = CONTAINER_OF(req, struct snap_job, req);
	struct snapshots *s = j->s;
	bool last = j == &s->last;

	ASSERT(status == 0); /* jobs are never cancelled */
	s->n_jobs--;
	j->done(j); /* may free j, and s if it is the last */
	if (last) {
		return;
	}
	if (!snap_quiet(s)) {
		snap_own_run(s);
		snap_chunks_run(s);
	}
	start_last(s);
}

void snap_job_start(struct snapshots *s, struct snap_job *j, void (*work)(struct snap_job *j),
	void (*done)(struct snap_job *j))
{
	int rc;

	j->s = s;
	j->work = work;
	j->done = done;
	j->error = 0;
	rc = uv_queue_work(s->loop, &j->req, job_work, job_done);
	ASSERT(rc == 0); /* only a missing function is refused */
	s->n_jobs++;
}

void snap_fail(struct snapshots *s, const struct snap_job *j)
{
	if (snap_quiet(s)) {
		return;
	}
	s->failed = true;
	TRACE(&s->trace, TRACE_ERROR, "snapshot.failed", "error=\"%s\"", j->text);
	s->events.failed(s->events.ctx, j->error, j->text);
}

/* --- the newest ---------------------------------------------------------------------------- */

struct removal {
	struct snap_job job;
	char name[SNAP_NAME_MAX];
};

static void removal_work(struct snap_job *j)
{
	struct removal *r = CONTAINER_OF(j, struct removal, job);

	j->error = snap_dir_remove(&j->s->dir, r->name);
}

static void removal_done(struct snap_job *j)
{
	struct removal *r = CONTAINER_OF(j, struct removal, job);

	if (j->error < 0) { /* it takes space; the next start tries again */
		TRACE(&j->s->trace, TRACE_WARN, "snapshot.remove", "file=%s error=\"%s\", ignoring",
			r->name, strerror(-j->error));
	}
	free(r);
}

static void start_removal(struct snapshots *s, struct snap_id id)
{
	struct removal *r = xcalloc(1, sizeof *r);

	snap_name(id, r->name);
	snap_job_start(s, &r->job, removal_work, removal_done);
}

void snap_adopt(struct snapshots *s, struct snap_id id, bool checked)
{
	struct snap_id old = s->newest;

	if (id.index < old.index) {
		start_removal(s, id);
		return;
	}
	s->newest = id;
	s->newest_checked = checked;
	TRACE(&s->trace, TRACE_INFO, "snapshot.newest", "index=%" PRIu64 " term=%" PRIu64, id.index,
		id.term);
	if (old.index != 0 && (old.index != id.index || old.term != id.term)) {
		start_removal(s, old);
	}
}

/* --- opening -------------------------------------------------------------------------------- */

/* Also on error `ret_dir` owns its path. */
static int open_dir(const char *parent, struct snap_dir *ret_dir, struct snap_err err)
{
	size_t size = strlen(parent) + sizeof "/snap";
	struct snap_dir d = {.fd = -1, .path = xmalloc(size)};
	int rc = 0;

	(void)snprintf(d.path, size, "%s/snap", parent);
	if (mkdir(d.path, 0700) < 0 && errno != EEXIST) {
		rc = snap_error(&d, ".", "mkdir", -errno, err);
	}
	if (rc == 0) {
		d.fd = open(d.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = d.fd >= 0 ? 0 : snap_error(&d, ".", "open", -errno, err);
	}
	*ret_dir = d;
	return rc;
}

/* Calls `each` for every name in the directory. */
static int list_dir(const struct snap_dir *d, void (*each)(void *ctx, const char *name), void *ctx,
	struct snap_err err)
{
	int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int rc;

	if (list == NULL) {
		rc = snap_error(d, ".", "open", -errno, err);
		if (fd >= 0) {
			(void)close(fd); /* read only */
		}
		return rc;
	}
	for (errno = 0; (entry = readdir(list)) != NULL; errno = 0) {
		each(ctx, entry->d_name);
	}
	rc = errno == 0 ? 0 : snap_error(d, ".", "read", -errno, err);
	(void)closedir(list); /* read only */
	return rc;
}

static void find_newest(void *ctx, const char *name)
{
	struct snap_id *newest = ctx;
	struct snap_id id;

	if (snap_name_parse(name, &id) == 0 && id.index >= newest->index) {
		*newest = id;
	}
}

static void remove_leftover(void *ctx, const char *name)
{
	struct snapshots *s = ctx;
	struct snap_id id;
	bool older = snap_name_parse(name, &id) == 0 && id.index < s->newest.index;

	if (!older && strcmp(name, SNAP_TMP_OWN) != 0 && strcmp(name, SNAP_TMP_LEADER) != 0) {
		return;
	}
	if (unlinkat(s->dir.fd, name, 0) < 0) {
		TRACE(&s->trace, TRACE_WARN, "snapshot.remove", "file=%s error=\"%s\", ignoring",
			name, strerror(errno));
	}
}

static int keep_config(void *ctx, const void *config, size_t config_len)
{
	struct snap_meta *meta = ctx;

	meta->config = xmemdup(config, config_len);
	meta->config_len = config_len;
	return 0;
}

static int check_newest(struct snapshots *s, struct snap_meta *meta, struct snap_err err)
{
	struct snap_visitor visitor = {.ctx = meta, .header = keep_config};
	int rc;

	if (s->newest.index == 0) {
		return 0;
	}
	meta->index = s->newest.index;
	meta->term = s->newest.term;
	rc = snap_dir_walk(&s->dir, s->newest, &visitor, &meta->payload_bytes, err);
	s->newest_checked = rc == 0;
	return rc;
}

static void snapshots_free(struct snapshots *s)
{
	snap_own_fini(s);
	snap_chunks_fini(s);
	if (s->dir.fd >= 0) {
		(void)close(s->dir.fd); /* whatever was written through it is synced */
	}
	free(s->dir.path);
	free(s);
}

static int open_files(
	struct snapshots *s, const char *dir, struct snap_meta *meta, struct snap_err err)
{
	int rc = open_dir(dir, &s->dir, err);

	if (rc == 0) {
		rc = list_dir(&s->dir, find_newest, &s->newest, err);
	}
	/* An older one is no substitute for a damaged one: the log may begin behind the newest. */
	if (rc == 0) {
		rc = check_newest(s, meta, err);
	}
	if (rc == 0) {
		rc = list_dir(&s->dir, remove_leftover, s, err);
	}
	return rc;
}

int snapshots_open(uv_loop_t *loop, const char *dir, const struct snap_events *events,
	const struct tracer *trace, struct snapshots **ret_s, struct snap_meta *ret_meta, char *err,
	size_t err_size)
{
	struct snapshots *s = xcalloc(1, sizeof *s);
	struct snap_meta meta = {0};
	int rc;

	s->loop = loop;
	s->events = *events;
	s->trace = *trace;
	s->dir.fd = -1;
	s->incoming.fd = -1;
	rc = open_files(s, dir, &meta, (struct snap_err){.text = err, .size = err_size});
	if (rc < 0) {
		free(meta.config);
		snapshots_free(s);
		return rc;
	}
	*ret_s = s;
	*ret_meta = meta;
	return 0;
}

/* --- loading -------------------------------------------------------------------------------- */

int snapshots_load(struct snapshots *s, int (*piece)(void *ctx, const void *data, size_t len),
	void *ctx, char *err, size_t err_size)
{
	struct snap_err text = {.text = err, .size = err_size};
	struct snap_visitor visitor = {0};
	char name[SNAP_NAME_MAX];
	int rc;

	snap_name(s->newest, name);
	if (s->newest.index == 0) {
		return snap_error(&s->dir, ".", "load a snapshot", -ENOENT, text);
	}
	if (!s->newest_checked) {
		rc = snap_dir_walk(&s->dir, s->newest, &visitor, NULL, text);
		if (rc < 0) {
			return rc;
		}
		s->newest_checked = true;
	}
	(void)snprintf(err, err_size, "%s/%s: its content was refused", s->dir.path, name);
	visitor = (struct snap_visitor){.ctx = ctx, .piece = piece};
	return snap_dir_walk(&s->dir, s->newest, &visitor, NULL, text);
}

/* --- closing --------------------------------------------------------------------------------- */

static void last_work(struct snap_job *j)
{
	/* Files that are being written are worth nothing without their end. Closing in the pool,
	 * because removing a large one takes time. */
	snap_own_fini(j->s);
	snap_chunks_fini(j->s);
}

static void last_done(struct snap_job *j)
{
	struct snapshots *s = j->s;
	void (*closed)(void *ctx) = s->closed;
	void *ctx = s->closed_ctx;

	snapshots_free(s);
	closed(ctx);
}

void snapshots_close(struct snapshots *s, void (*closed)(void *ctx), void *ctx)
{
	ASSERT(!s->closing);
	s->closing = true;
	s->closed = closed;
	s->closed_ctx = ctx;
	start_last(s);
}
