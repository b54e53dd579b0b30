/*
 * internal.h - what the files of state/ share and nobody else sees.
 *
 *   state.c     the machine: commands in, by kind; reads
 *   session.c   who may command: members, sessions, incarnations, sequence numbers
 *   lock.c      what a command does to a lock
 *   record.c    the same for byte ranges: conflicts, splitting, joining
 *   table.c     locks and claims and the lists and hashes that they are on
 *   listing.c   walking the locks while they change
 *   snapshot.c, restore.c, check.c, digest.c
 *
 * Determinism: nothing may depend on the order of a hash table. Lists have an
 * order that the log gives: sessions by id, a session's claims by sequence
 * number, locks by serial; a snapshot keeps all three.
 */
#ifndef COORDFS_STATE_INTERNAL_H
#define COORDFS_STATE_INTERNAL_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "coordfs/util.h"

#define HASH_FUNCTION(key, len, ret_hash) ((ret_hash) = (unsigned)XXH3_64bits((key), (len)))
#define uthash_fatal(msg) check_failed(msg, __FILE__, __LINE__, __func__)
#include <uthash.h>
#include <utlist.h>

#include "core/state/state.h"

#define STATE_UUID_BYTES 16

/* A node that has ever opened a session. */
struct member {
	uint64_t node;
	bool has_uuid;
	uint8_t uuid[STATE_UUID_BYTES];
	struct session *session; /* the live one, or NULL; owned by state->sessions */
	UT_hash_handle hh;       /* state->members, by node */
};

/* Where a listing is: `lock` is the last one with a serial up to `serial`, NULL if there is none.
 */
struct listing {
	uint64_t serial;
	struct lock *lock; /* borrowed: lives in state->locks */
	uint64_t used;     /* state->listing_clock at the last step; the smallest is given away */
};

#define LISTINGS_MAX 8 /* arbitrary: so many `ls` of a large directory at a time are quick */

struct state {
	uint64_t index;
	uint64_t epoch;
	struct state_limits limits;
	struct state_hooks hooks;

	struct session *sessions; /* owned; utlist, ordered by id */
	struct session *sessions_by_id;
	size_t n_sessions;
	struct member *members; /* owned; by node */
	uint64_t member_max;

	struct lock *locks; /* owned; utlist, ordered by serial */
	struct lock *locks_by_name;
	size_t n_locks;
	uint64_t locks_created;
	struct claim *claims; /* of flock owners, by (session, owner); owned by their locks */

	/* Of the command being applied. */
	uint64_t unix_ms;
	uint32_t n_granted; /* of one lock: the low part of the next token */

	struct state_snapshot *snap; /* borrowed: the one in progress, or NULL */
	uint64_t snap_mark;          /* number of the newest snapshot */

	struct listing listings[LISTINGS_MAX];
	uint64_t listing_clock;
};

/* The name and owner that a command of locks speaks of. */
struct lock_ref {
	const void *name;
	size_t name_len;
	uint64_t owner;
	Wire__LockKind kind;
	struct core_range range; /* of a record owner, where the command has one */
};

/* What somebody has or asks for. */
struct lock_want {
	uint64_t session;
	uint64_t owner;
	bool record;
	bool shared;
	struct core_range range;
};

/* --- state.c ------------------------------------------------------------------------------ */

void core_task_from_wire(struct core_task *t, const Wire__Task *w);

/* --- session.c ---------------------------------------------------------------------------- */

void session_open(struct state *s, uint64_t index, const Wire__SessionOpen *open);
void session_end(struct state *s, uint64_t index, const Wire__SessionEnd *end);
/* The session whose next command this is, now counted; NULL: the command is late or came twice. */
struct session *session_accept(struct state *s, const Wire__Command *cmd);
struct session *session_find(const struct state *s, uint64_t id);
struct member *member_find(const struct state *s, uint64_t node);
/* For restore: `node` is new. */
struct member *member_new(struct state *s, uint64_t node);
/* For restore: the id is the largest so far, the member has no session. Takes the values of
 * `from`. */
struct session *session_new(struct state *s, struct member *m, const struct session *from);

/* --- lock.c: the commands ----------------------------------------------------------------- */

bool lock_ref_is_valid(const struct lock_ref *ref);
enum status lock_acquire(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token);
enum status lock_cancel(
	struct state *s, struct session *of, const struct lock_ref *ref, uint64_t acquire_seq);
enum status lock_release(struct state *s, struct session *of, const struct lock_ref *ref);
enum status lock_set_value(struct state *s, struct session *of, const struct lock_ref *ref,
	const ProtobufCBinaryData *value);
/* All claims of the session go, hooks told; then those that waited for them are granted. */
void lock_drop_session(struct state *s, struct session *of);
/* A claim of the lock has gone or has become weaker. Frees the lock when nobody is left. */
void lock_pump(struct state *s, struct lock *l);
/* `c` is new or renewed: who asked. */
void claim_describe(struct claim *c, const Wire__LockAcquire *cmd);
/* The hooks hear of what a command has made or changed, and is about to end. */
void claim_told(const struct state *s, const struct claim *c);
void claim_ends_told(const struct state *s, const struct claim *c);
uint64_t lock_next_token(struct state *s, const struct session *of);
/* A lock without record claims: may a request of this mode join the holders? */
static inline bool lock_admits(const struct lock *l, bool shared)
{
	return l->holders == NULL || (shared && l->holders->shared);
}

/* --- record.c ----------------------------------------------------------------------------- */

static inline bool range_is_valid(struct core_range r)
{
	return r.start <= r.end && r.end <= CORE_RANGE_MAX;
}

struct lock_want want_of(const struct claim *c);
/* `c` is the owner's own, and overlaps it or is one with it (touches it, in the same mode). */
bool want_joins(const struct lock_want *want, const struct claim *c);
bool want_conflicts(const struct lock_want *want, const struct claim *c);
/* Must it wait, with those waiters before it that come before `end` (NULL: all)? */
bool lock_blocks(const struct lock *l, const struct lock_want *want, const struct claim *end);
enum status record_acquire(struct state *s, struct session *of, uint64_t seq,
	const Wire__LockAcquire *cmd, uint64_t *ret_token);
enum status record_cancel(
	struct state *s, struct session *of, const struct lock_ref *ref, uint64_t acquire_seq);
enum status record_release(struct state *s, struct session *of, const struct lock_ref *ref);
/* `c` is a record claim, on no list of its lock: it becomes a holder, in the place of what its
 * owner had in the range. */
void record_hold(struct state *s, struct claim *c);

/* --- table.c ------------------------------------------------------------------------------ */

struct lock *lock_find(const struct state *s, const void *name, size_t name_len);
/* The name is new. The lock has no claims yet, and must get a holder. */
struct lock *lock_new(struct state *s, const void *name, size_t name_len, uint64_t serial);
/* It has no claims. */
void lock_free(struct state *s, struct lock *l);
void lock_clear_value(struct lock *l);

struct claim *claim_find(const struct state *s, uint64_t session, uint64_t owner);
/* A claim of a session, on no list of the lock yet. `range` NULL: of a flock owner, which is new;
 * else it is copied. */
struct claim *claim_new(struct state *s, struct session *of, uint64_t owner, uint64_t seq,
	struct lock *l, const struct core_range *range);
/* A record claim that holds becomes two, with `range` the later. */
void claim_split(struct state *s, struct claim *c, struct core_range range);
void claim_free(struct state *s, struct claim *c);
/* Off the hash and the lock's list; it stays on its session's. */
void claim_unlink(struct state *s, struct claim *c);
void claim_to_waiters(struct claim *c);
void claim_to_holders(struct claim *c, uint64_t token);
/* It answers a newer command now: the last of its session's claims. */
void claim_renew(struct claim *c, uint64_t seq);

/* --- listing.c ---------------------------------------------------------------------------- */

/* `l` is about to leave the list. */
void listing_forget(struct state *s, const struct lock *l);

/* --- snapshot.c --------------------------------------------------------------------------- */

/* One record. Larger ones are damage: lock values, names and SNAP_CLAIMS_MAX claims fit well. */
#define SNAP_RECORD_BYTES_MAX 65536u
#define SNAP_RECORD_HEADER_BYTES 4u
#define SNAP_CLAIMS_MAX 64u /* of a lock in one record */

void snapshot_write(struct state_snapshot *snap, struct lock *l);
void snapshot_forget(struct state_snapshot *snap, const struct lock *l);
void snapshot_orphan(struct state_snapshot *snap);

/* Before every change of a lock or its claims. */
static inline void lock_touch(struct state *s, struct lock *l)
{
	if (s->snap != NULL && l->snap_mark != s->snap_mark) {
		snapshot_write(s->snap, l);
	}
}

#endif
