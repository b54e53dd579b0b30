/*
 * snapshots.h - snapshot files of one node.
 *
 *   snap/<index>-<term>      a whole snapshot: header, chunks, trailer with checksum
 *   snap/tmp-own             being written by this node
 *   snap/tmp-leader          being received
 *
 * Written aside, synced, renamed, directory synced; only then is it the newest
 * and are older ones removed. The header carries format, index, term and the
 * packed configuration; the trailer the payload's length; each part has an XXH3
 * checksum chained to the part before (snapshots_file.h). File work is done by
 * uv's thread pool, one job at a time per file; completions run on the loop,
 * never inside a call. A failed write or fsync reports snap_events.failed and
 * the process must end, as with the log: nothing is started and nobody told
 * anything after that.
 *
 * The payload is opaque here: a sequence of bytes from the state machine.
 */
#ifndef COORDFS_IO_SNAPSHOTS_H
#define COORDFS_IO_SNAPSHOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "coordfs/trace.h"

struct snapshots;

struct snap_meta {
	uint64_t index; /* 0: there is none */
	uint64_t term;
	uint8_t *config; /* packed wire.RaftConfig, owned by whom the struct is given to */
	size_t config_len;
	uint64_t payload_bytes;
};

struct snap_events {
	void *ctx;
	/* An appended chunk is written (not yet synced): `buffered` bytes are still waiting. */
	void (*own_written)(void *ctx, size_t buffered);
	/* The node's own snapshot is durable and the newest (unless one received meanwhile is
	 * newer still). */
	void (*own_done)(void *ctx, uint64_t index);
	/* A received chunk is written; after the last: the file is durable and the newest.
	 * next_offset is not behind the chunk: it did not follow on what is here, or
	 * the whole file was damaged; the leader goes on from there. */
	void (*received)(void *ctx, uint64_t from, uint64_t index, uint64_t next_offset, bool done);
	/* Answer to snapshots_read(). error: -ESTALE, a newer one has replaced it, or it has
	 * no such offset; others from the system. */
	void (*chunk)(void *ctx, uint64_t to, uint64_t index, uint64_t offset, const void *data,
		size_t len, uint64_t total, int error);
	void (*failed)(void *ctx, int error, const char *text);
};

/* Finds the newest whole snapshot in dir/snap (made if it is missing), reads it to its end, removes
 * leftovers. -EUCLEAN: the newest is damaged; `err` names file and offset. */
int snapshots_open(uv_loop_t *loop, const char *dir, const struct snap_events *events,
	const struct tracer *trace, struct snapshots **ret_s, struct snap_meta *ret_meta, char *err,
	size_t err_size);

/* Read the payload of the newest one from start to end, synchronously (at start only), in
 * pieces; `piece` returns 0 or a negative errno, which ends the reading. The checksums of the
 * whole have been verified before the first piece, by this or since the start. */
int snapshots_load(struct snapshots *s, int (*piece)(void *ctx, const void *data, size_t len),
	void *ctx, char *err, size_t err_size);

/* This node's own snapshot: begin, any number of chunks (copied), finish. A second begin drops
 * an unfinished one. */
void snapshots_own_begin(
	struct snapshots *s, uint64_t index, uint64_t term, const void *config, size_t config_len);
void snapshots_own_append(struct snapshots *s, const void *data, size_t len);
void snapshots_own_finish(struct snapshots *s);
void snapshots_own_abort(struct snapshots *s);

/* A chunk from the leader (copied), offset in the file as the leader's snapshots_read() gave it:
 * the transferred bytes are the whole file. Offset 0 starts over. Chunks of a snapshot older than
 * the newest are ignored, and so are more than a few that wait. */
void snapshots_receive(struct snapshots *s, uint64_t from, uint64_t index, uint64_t term,
	uint64_t offset, const void *data, size_t len, bool done);

/* Up to `max` (at most 1 MiB) bytes of the newest snapshot's file, for a peer. At most 256 can be
 * under way; more are ignored. */
void snapshots_read(struct snapshots *s, uint64_t to, uint64_t index, uint64_t offset, size_t max);

/* What is being written is given up. `closed` comes when running jobs have ended; no event after
 * this call. */
void snapshots_close(struct snapshots *s, void (*closed)(void *ctx), void *ctx);

#endif
