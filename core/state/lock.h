/*
 * lock.h - one lock: who holds it, and who waits for it.
 *
 *   (absent) --acquire--> HELD --acquire, conflicting--> CONTENDED
 *       ^                  |  ^                              |
 *       +-----release------+  +--------last waiter goes------+
 *
 * Two kinds of owner. A flock owner is an open file description, which has one
 * claim, on the whole lock. A record owner has any number of claims on byte
 * ranges, of fcntl(2): a process or an open file description, which FUSE does not tell
 * apart and which differ only in when their front-end releases them.
 *
 * Two claims conflict if they are of different owners, overlap, and are not both shared. First
 * come first served by log order: a request waits if it conflicts with a holder, or with a
 * waiter that came before it. But an owner that holds some range of the lock does not wait
 * for waiters: they may be waiting for what it holds, directly or behind each
 * other, and the two would never end.
 *
 * A flock owner, as flock(2):
 *   - a shared request behind a waiting exclusive one waits;
 *   - acquire with the mode already held: granted again, nothing changes, not even the token;
 *   - exclusive -> shared: in place, at once; then the head of the queue is looked at;
 *   - shared -> exclusive, sole holder: in place, at once, with a new token;
 *   - shared -> exclusive, other holders: the shared lock is given up and the
 *     request queues at the tail (or fails, with the shared lock gone, as on a local
 *     file: flock(2), "Converting a lock");
 *   - an acquire by an owner that waits already replaces that wait (it was
 *     abandoned by a cancelled call).
 *
 * A record owner, as fcntl(2):
 *   - acquire replaces what the owner has in the range, when it is granted: until then, and if
 *     the wait is cancelled, the owner keeps what it had. What was held
 *     around it stays; what touches it and is of the same mode joins it;
 *   - acquire of what is held in that mode already: granted again, nothing changes;
 *   - release takes away the range, out of the middle if need be; waits go on;
 *   - several requests of one owner may wait (a process has threads).
 * A lock with a record claim has at most state_limits.records_max claims of all kinds, for
 * each request looks at all of them. Releasing the middle of a range ignores that limit, but not
 * the session's.
 *
 * Token: (log index << 20) + count within the entry. Larger for every later grant
 * of the lock, for ever. The count is of the lock's grants; one beyond 2^20 in one entry is ruled
 * out by the limit on waiters.
 *
 * Always true (lock_check() asserts it):
 *   - a lock in the table has a holder; one with waiters has a holder that the first waiter
 *     conflicts with;
 *   - no two holders conflict, and every waiter has to wait;
 *   - holders have tokens, waiters have none; a flock owner has one claim;
 *   - holders' tokens ascend in the order of the list, where pieces of what was one range
 *     have one token and ascend by start;
 *   - ranges that one owner holds do not overlap, nor touch if they are of one mode;
 *   - the value is empty unless the lock is held: it goes with the last holder, also when a
 *     waiter is granted the lock in the same step.
 */
#ifndef COORDFS_STATE_LOCK_H
#define COORDFS_STATE_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include "coordfs/core.h"

#define LOCK_TOKEN_SHIFT 20

struct lock;
struct session;

/* A holder or a waiter. */
struct claim {
	uint64_t session;
	uint64_t owner;
	uint64_t seq;   /* of the acquire that it answers */
	uint64_t token; /* 0: waits */
	uint64_t since_unix_ms;
	struct core_task task;
	struct core_task opener;
	uint32_t uid;
	bool shared;
	bool record;
	/* private to state/ from here on; readers may follow prev/next within holders or waiters */
	struct lock *lock;
	struct session *of;                        /* session->id is `session` */
	struct claim *prev, *next;                 /* lock->holders or lock->waiters */
	struct claim *session_prev, *session_next; /* session->claims */
	UT_hash_handle hh;                         /* by (session, owner); of a flock owner only */
	struct core_range range[];                 /* one, of a record owner only */
};

static inline struct core_range claim_range(const struct claim *c)
{
	return c->record ? c->range[0] : CORE_RANGE_WHOLE;
}

static inline bool range_overlaps(struct core_range a, struct core_range b)
{
	return a.start <= b.end && b.start <= a.end;
}

static inline bool range_covers(struct core_range a, struct core_range b)
{
	return a.start <= b.start && b.end <= a.end;
}

struct lock {
	struct claim *holders; /* utlist, in order of grant */
	struct claim *waiters; /* utlist, first come first */
	size_t n_holders;
	size_t n_waiters;
	uint8_t *value; /* owned; NULL when empty */
	size_t value_len;
	struct lock *prev, *next; /* all locks, in order of creation */
	uint64_t serial;          /* how many locks had been created, with this one; never 0 */
	/* private to state/ from here on, up to the name */
	uint64_t snap_mark; /* the last snapshot that has it or was begun before it */
	UT_hash_handle hh;  /* by name */
	uint32_t n_records; /* holders and waiters that are claims on a range */
	bool to_pump;       /* has lost claims of an ending session; waiters not looked at yet */
	uint8_t name_len;   /* 1..255 */
	char name[];        /* not NUL-terminated as a contract, but a NUL follows */
};

/* Do all holders hold shared? */
bool lock_is_shared(const struct lock *l);

/* Asserts what is always true of a lock in the table. O(claims). */
void lock_check(const struct lock *l);

#endif
