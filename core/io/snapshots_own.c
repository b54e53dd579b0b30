/*
 * snapshots_own.c - this node's own snapshots.
 *
 * Happy path: snapshots_own_begin() makes a struct snap_own; appended bytes
 * gather in `filling` while one job writes what gathered before (`writing`); after
 * snapshots_own_finish() the job that takes the last bytes also ends, syncs and
 * renames the file.
 * Given up (abort, or another begin): `dropped`; a job discards the file. The
 * next one waits, because both write snap/tmp-own. One whose publishing job
 * already runs cannot be given up any more: it becomes a snapshot.
 */
#include <utlist.h>

#include "core/io/snapshots_internal.h"
#include "coordfs/util.h"
#include "core/wire.h"

struct snap_own {
	struct snap_own *prev, *next; /* snapshots.owns */
	struct snap_job job;
	struct snap_id id;
	uint8_t *config; /* owned */
	size_t config_len;
	struct wire_buf filling;
	struct wire_buf writing; /* lent to the job, as `file` is */
	struct snap_file file;
	bool ended;      /* nothing more will be appended */
	bool publishing; /* the running job is the last */
	bool dropped;
};

static void own_free(struct snap_own *o)
{
	snap_file_discard(&o->file);
	wire_buf_fini(&o->filling);
	wire_buf_fini(&o->writing);
	free(o->config);
	free(o);
}

static void own_remove(struct snapshots *s, struct snap_own *o)
{
	DL_DELETE(s->owns, o);
	own_free(o);
}

void snap_own_fini(struct snapshots *s)
{
	while (s->owns != NULL) {
		own_remove(s, s->owns);
	}
}

/* The one that can still be given up; NULL: none. */
static struct snap_own *own_unfinished(struct snapshots *s)
{
	struct snap_own *o = s->owns == NULL ? NULL : s->owns->prev; /* the last */

	return o == NULL || o->dropped || o->publishing ? NULL : o;
}

/* The one that has begun and not been finished. */
static struct snap_own *own_current(struct snapshots *s)
{
	struct snap_own *o = own_unfinished(s);

	ASSERT(o != NULL);
	ASSERT(!o->ended);
	return o;
}

/* --- jobs ---------------------------------------------------------------------------------- */

static int own_write(struct snap_own *o, const struct snap_dir *dir, struct snap_err err)
{
	int rc = 0;

	if (o->file.fd < 0) {
		rc = snap_file_create(&o->file, dir, SNAP_TMP_OWN, err);
		if (rc == 0) {
			rc = snap_file_write_header(&o->file, o->id, o->config, o->config_len, err);
		}
	}
	if (rc == 0) {
		rc = snap_file_write_payload(&o->file, o->writing.data, o->writing.len, err);
	}
	return rc;
}

static void own_work(struct snap_job *j)
{
	struct snap_own *o = CONTAINER_OF(j, struct snap_own, job);

	j->error = own_write(o, &j->s->dir, snap_job_err(j));
	if (j->error == 0 && o->publishing) {
		j->error = snap_file_write_end(&o->file, snap_job_err(j));
		if (j->error == 0) {
			j->error = snap_file_publish(&o->file, o->id, snap_job_err(j));
		}
	}
}

static void own_published(struct snapshots *s, struct snap_own *o)
{
	struct snap_id id = o->id;

	own_remove(s, o);
	snap_adopt(s, id, false);
	s->events.own_done(s->events.ctx, id.index);
}

static void own_worked(struct snap_job *j)
{
	struct snap_own *o = CONTAINER_OF(j, struct snap_own, job);
	struct snapshots *s = j->s;

	s->own_busy = false;
	if (j->error < 0) {
		snap_fail(s, j);
	}
	if (snap_quiet(s)) {
		return;
	}
	if (o->publishing) {
		own_published(s, o);
	} else if (!o->dropped) {
		s->events.own_written(s->events.ctx, o->filling.len);
	}
}

static void discard_work(struct snap_job *j)
{
	snap_file_discard(&CONTAINER_OF(j, struct snap_own, job)->file);
}

static void discarded(struct snap_job *j)
{
	struct snapshots *s = j->s;

	s->own_busy = false;
	own_remove(s, CONTAINER_OF(j, struct snap_own, job));
}

static void own_start(struct snapshots *s, struct snap_own *o)
{
	struct wire_buf empty = o->writing;

	empty.len = 0;
	o->writing = o->filling;
	o->filling = empty;
	o->publishing = o->ended;
	s->own_busy = true;
	snap_job_start(s, &o->job, own_work, own_worked);
}

void snap_own_run(struct snapshots *s)
{
	struct snap_own *o = s->owns;

	if (o == NULL || s->own_busy || snap_quiet(s)) {
		return;
	}
	if (o->dropped) {
		s->own_busy = true;
		snap_job_start(s, &o->job, discard_work, discarded);
	} else if (o->filling.len > 0 || o->ended) {
		own_start(s, o);
	}
}

/* --- what the node asks for; after a failure or at the end, nothing happens any more ------- */

static void own_drop(struct snapshots *s, struct snap_own *o)
{
	bool at_work = s->own_busy && o == s->owns; /* then `file` is lent */

	if (!at_work && o->file.fd < 0) {
		own_remove(s, o); /* never started */
		return;
	}
	o->dropped = true;
	snap_own_run(s);
}

void snapshots_own_abort(struct snapshots *s)
{
	struct snap_own *o;

	if (snap_quiet(s)) {
		return;
	}
	o = own_unfinished(s);
	if (o != NULL) {
		own_drop(s, o);
	}
}

void snapshots_own_begin(
	struct snapshots *s, uint64_t index, uint64_t term, const void *config, size_t config_len)
{
	struct snap_own *o;

	ASSERT(index > 0);
	if (snap_quiet(s)) {
		return;
	}
	snapshots_own_abort(s);
	o = xcalloc(1, sizeof *o);
	o->id = (struct snap_id){.index = index, .term = term};
	o->config = xmemdup(config, config_len);
	o->config_len = config_len;
	o->file.fd = -1;
	DL_APPEND(s->owns, o);
}

void snapshots_own_append(struct snapshots *s, const void *data, size_t len)
{
	if (snap_quiet(s)) {
		return;
	}
	wire_buf_append(&own_current(s)->filling, data, len);
	snap_own_run(s);
}

void snapshots_own_finish(struct snapshots *s)
{
	if (snap_quiet(s)) {
		return;
	}
	own_current(s)->ended = true;
	snap_own_run(s);
}
