/*
 * env.h - everything a node does to the world, as function pointers.
 *
 * There are two: the real one (core/io/) and the simulator's (tests/sim/). Each
 * function starts something and returns; what it leads to comes back as an event
 * (core/node.h), never from inside the call. Disk functions queue in order: see
 * core/raft/raft.h and core/io/wal.h for what each promises.
 */
#ifndef COORDFS_ENV_H
#define COORDFS_ENV_H

#include <stddef.h>
#include <stdint.h>

#include "coordfs/trace.h"
#include "core/raft/raft.h"

struct env {
	void *ctx;
	struct tracer trace;

	/* --- the log's disk queue, in order
	 * --------------------------------------------------------- */
	void (*log_append)(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t n);
	void (*log_truncate)(void *ctx, uint64_t from);
	void (*log_compact)(void *ctx, uint64_t first);
	/* Restart the log behind (index, term); answered by node_log_reset(). */
	void (*log_reset)(void *ctx, uint64_t index, uint64_t term);
	void (*save_vote)(void *ctx, uint64_t term, uint64_t vote);

	/* --- snapshot files
	 * ------------------------------------------------------------------------- */
	void (*snap_begin)(
		void *ctx, uint64_t index, uint64_t term, const void *config, size_t config_len);
	void (*snap_append)(void *ctx, const void *data, size_t len);
	void (*snap_finish)(void *ctx);
	void (*snap_abort)(void *ctx);
	void (*snap_read)(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max);
	void (*snap_receive)(void *ctx, uint64_t from, uint64_t index, uint64_t term,
		uint64_t offset, const void *data, size_t len, bool done);
	/* Give the payload of the newest snapshot, in pieces, synchronously. Negative errno: it is
	 * damaged or `piece` failed. */
	int (*snap_load)(
		void *ctx, int (*piece)(void *arg, const void *data, size_t len), void *arg);

	/* --- other nodes
	 * ---------------------------------------------------------------------------- */
	/* One whole frame (header and body), copied. Fire and forget. */
	void (*send)(void *ctx, uint64_t to, const void *frame, size_t len);
	/* Keep streams to these servers (this one may be among them) and no others. */
	void (*peers)(void *ctx, const struct raft_config *config);

	/* --- the end
	 * -------------------------------------------------------------------------------- */
	/* The node cannot go on (a state machine that cannot apply, a snapshot that cannot be
	 * loaded): the process must end without writing anything more. */
	void (*fatal)(void *ctx, const char *text);
	/* node_shutdown() has come to its end. */
	void (*stopped)(void *ctx);
};

#endif
