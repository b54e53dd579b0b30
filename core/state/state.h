/*
 * state.h - the replicated state machine: sessions, views, locks.
 *
 * Pure and deterministic: every node applies the same commands in log order
 * and must come to the same state, so nothing here asks for the time, a random
 * number or the order of a hash table. It knows nothing of leaders, frames or
 * open files; what a command led to goes out through struct state_hooks, during
 * state_apply().
 *
 * A session belongs to one node and one process life:
 *
 *   SessionOpen ----> LIVE(incarnation = index of the open) --SessionEnd--> gone
 *                      |  ^
 *                      +--+ SessionOpen{resume}: same id, new incarnation; claims of open file
 *                           descriptions, which died with the process, are dropped
 *   SessionOpen without resume for a node with a LIVE session ends that one first.
 *   SessionOpen for a node whose live session is not of the incarnation that it `replaces`, or that
 *   belongs to another data directory: no effect.
 *
 * Commands of a session carry (incarnation, seq) and take effect only if the
 * incarnation is the live one and seq is the next: so a command that was sent
 * twice, or late, is one command or none.
 *
 * The view (epoch, live sessions) changes with each open and end; the epoch is
 * the index of that entry.
 */
#ifndef COORDFS_STATE_H
#define COORDFS_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordfs/core.h"
#include "coordfs/status.h"
#include "core/state/lock.h"
#include "core/wire.h"

struct state;

struct session {
	uint64_t id;          /* index of the entry that opened it */
	uint64_t incarnation; /* index of the last open or resume */
	uint64_t node;
	uint64_t nonce;
	uint64_t last_seq; /* of the last command applied in this incarnation */
	uint64_t opened_unix_ms;
	uint32_t ttl_ms;
	struct claim *claims; /* utlist, by session_prev/session_next, in order of seq */
	size_t n_claims;
	struct session *prev, *next; /* all sessions, ordered by id */
	UT_hash_handle hh;           /* private to state/: by id */
};

enum session_event {
	SESSION_OPENED,
	SESSION_RESUMED,
	SESSION_CLOSED, /* said goodbye, or replaced by an open without resume */
	SESSION_EXPIRED,
};

struct state_hooks {
	void *ctx;
	/* What came of a command of a session (not of SessionOpen and SessionEnd). With ST_WAITING
	 * a later granted(). token: of the grant, else 0. */
	void (*result)(
		void *ctx, uint64_t incarnation, uint64_t seq, enum status st, uint64_t token);
	/* A waiting claim has become a holder. */
	void (*granted)(void *ctx, const struct lock *lock, const struct claim *claim);
	/* A claim ends because its session ended or was resumed; called before it is freed. */
	void (*dropped)(void *ctx, const struct lock *lock, const struct claim *claim);
	/* Called after OPENED and RESUMED took effect, and before a CLOSED or EXPIRED one is freed:
	 * its claims are already dropped, it has left the list, and the epoch is the new one. */
	void (*session)(void *ctx, const struct session *s, enum session_event what);
	/* A command has made a claim, or changed its mode: it holds, or (token 0) waits. */
	void (*claimed)(void *ctx, const struct lock *lock, const struct claim *claim);
	/* A command ends a claim: what it held is released, or its wait given up. Called before it
	 * is freed. */
	void (*released)(void *ctx, const struct lock *lock, const struct claim *claim);
};

struct state_limits {
	size_t locks_max;   /* default 16 Mi: ST_NO_SPACE beyond */
	size_t waiters_max; /* of one lock; default 1 Mi, and no more: see LOCK_TOKEN_SHIFT */
	size_t session_claims_max; /* default 16 Mi */
	size_t records_max;        /* claims of a lock that has one on a range; default 8192 */
};

void state_limits_default(struct state_limits *l);
/* `limits` NULL: the defaults; `hooks` NULL: nobody listens. Hooks that are NULL are not called.
 * The limits are part of the machine: every node must have the same. */
struct state *state_new(const struct state_limits *limits, const struct state_hooks *hooks);
void state_free(struct state *s);
/* A new owner listens (after a restore). */
void state_set_hooks(struct state *s, const struct state_hooks *hooks);

/*
 * Apply one committed command. `index` grows from call to call. Content that
 * makes no sense (a name too long, an owner 0) is refused with a result, the
 * same on every node.
 *
 * -EBADMSG      not a Command: impossible in a log that its checksums passed; the node stops
 * -EPROTO       of a newer format than this program knows; the node stops and says so
 */
int state_apply(struct state *s, uint64_t index, const void *command, size_t len);
/* Whose command it says it is. */
struct state_origin {
	uint64_t session; /* that it is of, or that it ends; 0: SessionOpen */
	uint64_t incarnation;
	uint64_t seq;  /* 0: SessionOpen, SessionEnd */
	uint64_t node; /* SessionOpen: for which node; else 0 */
};

/* Would state_apply() take it? What it refuses must not get into the log: every node would stop
 * there. The same errors. */
int state_vet(const void *command, size_t len, struct state_origin *ret_origin);
/* Is it an open of a session that names a data directory, and which? */
bool state_names_owner(const void *command, size_t len, uint64_t *ret_node, uint8_t ret_uuid[16]);
/* Entries that are no commands move the index on. */
void state_skip(struct state *s, uint64_t index);

uint64_t state_index(const struct state *s);
uint64_t state_epoch(const struct state *s);
/* The time that the command being applied carries, or the last one did. */
uint64_t state_unix_ms(const struct state *s);

const struct session *state_session(const struct state *s, uint64_t id);
const struct session *state_session_of_node(const struct state *s, uint64_t node);
/* First of the list by id; go on with ->next. NULL: none. */
const struct session *state_sessions(const struct state *s);
size_t state_n_sessions(const struct state *s);

/* NULL: free and unknown. */
const struct lock *state_lock(const struct state *s, const void *name, size_t name_len);
const struct lock *state_locks(const struct state *s); /* all, by ->next, in order of creation */
size_t state_n_locks(const struct state *s);
/*
 * The first lock in order of creation whose serial is above `serial`; NULL: none. For listings that
 * go on while locks come and go: each step asks for what comes after the serial that the step
 * before gave. The last few listings' places are remembered, so such a step is O(1); with more
 * listings at a time than that, or after a jump, it walks the list.
 */
const struct lock *state_lock_after(const struct state *s, uint64_t serial);
/* The claim of a flock owner; NULL: none. */
const struct claim *state_claim(const struct state *s, uint64_t session, uint64_t owner);
/* Of a record owner: the waiting claim that answers acquire `seq`; NULL: it does not wait. */
const struct claim *state_record_wait(
	const struct lock *l, uint64_t session, uint64_t owner, uint64_t seq);
/* The claim by which it holds all of `range` in that mode; NULL: it does not. */
const struct claim *state_record_held(const struct lock *l, uint64_t session, uint64_t owner,
	struct core_range range, bool shared);
/* The first holder in the way of such a request; NULL: none. */
const struct claim *state_record_conflict(const struct lock *l, uint64_t session, uint64_t owner,
	struct core_range range, bool shared);

/* The data directory that a node id belongs to (16 bytes); NULL: never seen. */
const uint8_t *state_member_uuid(const struct state *s, uint64_t node);
/* Highest node id ever seen; ids are not used again. */
uint64_t state_member_max(const struct state *s);

/* The same for equal states, whatever the way to them. O(everything): for tests. */
uint64_t state_digest(const struct state *s);
/* Asserts every invariant here and in lock.h. O(everything). */
void state_check(const struct state *s);

/* --- snapshots ------------------------------------------------------------------------------
 *
 * Taken in slices between which commands go on being applied: the snapshot is of
 * the moment of state_snapshot_begin(). What is about to change and has not been
 * written yet is written first. At most one at a time. Members and sessions, one per node, are
 * written by state_snapshot_begin().
 *
 * Form: records of a 4-byte little-endian length and a packed SnapRecord; SnapHeader, SnapMembers,
 * SnapSessions, SnapLocks in any order, SnapEnd. A lock with many claims takes several records.
 */
struct state_snapshot;

struct state_snapshot *state_snapshot_begin(struct state *s);
uint64_t state_snapshot_index(const struct state_snapshot *snap);
/* Append at least one record and then up to about `budget_bytes` to `out`, with what changes have
 * forced out in between. Returns false when that was the end. */
bool state_snapshot_next(struct state_snapshot *snap, size_t budget_bytes, struct wire_buf *out);
/* Also after the end. Accepts NULL. */
void state_snapshot_free(struct state_snapshot *snap);

/* Fed with the bytes of a snapshot, in pieces of any size. Anything is survived. A snapshot above
 * the limits is taken in: they are for what is asked anew. */
struct state_restore;

struct state_restore *state_restore_new(const struct state_limits *limits);
/* -EBADMSG damaged, -EPROTO newer format. */
int state_restore_feed(struct state_restore *r, const void *data, size_t len);
/* The whole was fed: gives the state, without hooks. -EBADMSG: the end is missing. Frees `r`
 * in any case. */
int state_restore_end(struct state_restore *r, struct state **ret_state);
void state_restore_free(struct state_restore *r);

#endif
