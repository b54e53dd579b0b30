/*
 * snapshots_internal.h - what the parts of snapshots share.
 *
 *   snapshots.c       opening, loading, closing; which file is the newest
 *   snapshots_own.c   this node's own snapshots, chunk by chunk into a file
 *   snapshots_peer.c  files from the leader, and bytes of the newest for others
 *   snapshots_file.c  the format of a file
 *
 * Everything but the `work` functions of jobs runs on the loop. A job touches
 * its own struct and what it was lent for the time that it runs.
 */
#ifndef COORDFS_IO_SNAPSHOTS_INTERNAL_H
#define COORDFS_IO_SNAPSHOTS_INTERNAL_H

#include <stdbool.h>
#include <uv.h>

#include "core/io/snapshots.h"
#include "core/io/snapshots_file.h"

/* One piece of file work in uv's thread pool. Embedded in what it works for. */
struct snap_job {
	uv_work_t req;
	struct snapshots *s;
	void (*work)(struct snap_job *j); /* in the pool */
	void (*done)(struct snap_job *j); /* on the loop */
	int error;                        /* set by work: 0 or a negative errno */
	char text[512];                   /* with it, a sentence */
};

struct snap_own;
struct snap_chunk;

struct snapshots {
	uv_loop_t *loop; /* borrowed */
	struct snap_events events;
	struct tracer trace;
	struct snap_dir dir;
	struct snap_id newest;
	bool newest_checked; /* read as a whole by this process */

	struct snap_own *owns; /* owned; the first is at work, only the last may be appended to */
	bool own_busy;         /* the job of the first is running */

	struct snap_chunk *chunks; /* owned; received, in order; the first is at work */
	unsigned n_chunks;
	bool chunk_busy;
	/* The transfer under way; file.fd is -1 if there is none. Lent to a running chunk job. */
	struct snap_file incoming;
	struct snap_id incoming_id;
	uint64_t incoming_from;

	unsigned n_reads;
	unsigned n_jobs;
	bool failed;
	bool closing;
	struct snap_job last; /* closes the files, when no other job runs any more */
	bool last_started;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* Failed or closing: nothing is started, nobody is told anything. */
static inline bool snap_quiet(const struct snapshots *s)
{
	return s->failed || s->closing;
}

static inline struct snap_err snap_job_err(struct snap_job *j)
{
	return (struct snap_err){.text = j->text, .size = sizeof j->text};
}

void snap_job_start(struct snapshots *s, struct snap_job *j, void (*work)(struct snap_job *j),
	void (*done)(struct snap_job *j));
/* The process must end: tells so, once. */
void snap_fail(struct snapshots *s, const struct snap_job *j);
/* `id` is durable under its own name. It becomes the newest unless there is a newer one; the
 * older of the two is removed. */
void snap_adopt(struct snapshots *s, struct snap_id id, bool checked);

/* Start what can be started. */
void snap_own_run(struct snapshots *s);
void snap_chunks_run(struct snapshots *s);
/* No job runs any more: release memory and files. */
void snap_own_fini(struct snapshots *s);
void snap_chunks_fini(struct snapshots *s);

#endif
