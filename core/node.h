/*
 * node.h - one node of the cluster: consensus, state machine, session, locks.
 *
 * Pure: inputs are the calls below, outputs go through struct env (core/env.h)
 * and struct core_listener (coordfs/core.h). A `struct core` is a node as its
 * front-ends see it; a `struct node` as its env does; they are one object.
 *
 * The driver's part, for every input of a turn: node_set_now(), then the event or
 * the front-end's call; at the end of the turn node_flush(). Callbacks of
 * operations and effects on the env run inside node_flush() (core_interrupt()
 * excepted), in this order: disk, frames, answers.
 */
#ifndef COORDFS_NODE_H
#define COORDFS_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordfs/core.h"
#include "core/env.h"
#include "core/raft/raft.h"
#include "core/state/state.h"

struct node;

struct node_options {
	struct raft_options raft; /* id, seed, timeouts */
	struct state_limits limits;
	uint8_t uuid[16];            /* of the data directory */
	uint32_t ttl_ms;             /* of the session; default 5000 */
	uint32_t timeo_ms;           /* of operations that do not wait for ever; default 30000 */
	uint64_t snapshot_log_bytes; /* take a snapshot when the log in memory is larger; default 64
					MiB */
	size_t snapshot_slice_bytes; /* written per turn while taking one; default 8 KiB */
	uint32_t voters_wanted; /* learners are promoted while there are fewer voters; default 5 */
	const char *version;
};

/* What the disk had. */
struct node_start {
	struct raft_start raft;
	bool snapshot; /* env->snap_load() gives the state at raft.snapshot_index */
	bool resume;   /* this directory has been a node before: take up its session if it lives */
};

void node_options_default(struct node_options *o);
/* -EINVAL, -EUCLEAN: the log or the snapshot is not usable (traced). The unix time is for reports.
 */
int node_new(const struct node_options *o, const struct env *env, const struct node_start *start,
	uint64_t now_ms, struct node **ret_node);
void node_free(struct node *n);
struct core *node_core(struct node *n);

/* CLOCK_BOOTTIME in ms, and the wall clock for reports. Notices the end of the lease. */
void node_set_now(struct node *n, uint64_t now_ms, uint64_t unix_ms);
/* At least every heartbeat / 4. */
void node_tick(struct node *n);
void node_flush(struct node *n);
/* More work waits although no input did (a snapshot being taken): call node_flush() again soon. */
bool node_wants_turn(const struct node *n);

/* --- events from the env -------------------------------------------------------------------- */

/* A frame's body from the authenticated stream of `from`. Anything is survived. */
void node_frame(struct node *n, uint64_t from, const void *body, size_t len);
/* The stream to a peer is up (again): what was sent before may be lost. */
void node_peer_up(struct node *n, uint64_t id);
void node_log_durable(struct node *n, uint64_t gen, uint64_t index);
void node_vote_durable(struct node *n, uint64_t term, uint64_t vote);
void node_log_reset(struct node *n, uint64_t index);
void node_low_space(struct node *n, bool low);
void node_snap_written(
	struct node *n, size_t buffered); /* bytes of an own snapshot still waiting */
void node_snap_done(struct node *n, uint64_t index);
void node_snap_received(
	struct node *n, uint64_t from, uint64_t index, uint64_t next_offset, bool done);
void node_snap_chunk(struct node *n, uint64_t to, uint64_t index, uint64_t offset, const void *data,
	size_t len, uint64_t total, int error);

/* --- the operator --------------------------------------------------------------------------- */

/* Is a stream from this id and data directory to be let in? A voter that was let in once is
 * remembered: another directory under its id is refused from then on. */
bool node_admits(struct node *n, uint64_t id, const uint8_t uuid[16]);

typedef void node_member_fn(void *arg, int error, uint64_t id, const char *text);
/* Change the membership; forwarded to the leader. Answered once: error 0, or a positive errno with
 * a sentence in `text`. id 0 with RAFT_ADD_LEARNER: the next free one, told in the answer. */
void node_change_member(struct node *n, enum raft_change change, uint64_t id, const char *addr,
	node_member_fn *done, void *arg);

/* Clean end: refuse new operations, end the session in the log, hand leadership over; then
 * env->stopped (also when the cluster does not answer for `timeo`, at the latest `max_ms`). */
void node_shutdown(struct node *n, uint32_t max_ms);

/* --- for tests and reports ------------------------------------------------------------------ */

const struct raft *node_raft(const struct node *n);
const struct state *node_state(const struct node *n);
/* The session in force; 0: none. */
uint64_t node_session(const struct node *n);
/* now_ms at which the lease ends; 0: no lease. */
uint64_t node_lease_end(const struct node *n);

#endif
