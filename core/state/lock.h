/*
 * lock.h - one lock: who holds it, and who waits for it.
 *
 *   (absent) --acquire--> HELD --acquire, conflicting--> CONTENDED
 *       ^                  |  ^                              |
 *       +-----release------+  +--------last waiter goes------+
 *
 * flock(2) semantics by open file description ("owner"), first come first
 * served by log order:
 *   - holders are one exclusive or any number of shared;
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
 * Token: (log index << 20) + count within the entry. Larger for every later grant
 * of the lock, for ever. The count is of the lock's grants; one beyond 2^20 in one entry is ruled
 * out by the limit on waiters.
 *
 * Always true (lock_check() asserts it):
 *   - a lock in the table has a holder; one with waiters has a holder that the first waiter
 *     conflicts with;
 *   - holders are one exclusive claim, or only shared ones;
 *   - holders have tokens, waiters have none; an owner has one claim;
 *   - holders' tokens ascend in the order of the list;
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
	/* private to state/ from here on; readers may follow prev/next within holders or waiters */
	struct lock *lock;
	struct session *of;                        /* session->id is `session` */
	struct claim *prev, *next;                 /* lock->holders or lock->waiters */
	struct claim *session_prev, *session_next; /* session->claims */
	UT_hash_handle hh;                         /* by (session, owner) */
};

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
	bool to_pump;       /* has lost claims of an ending session; waiters not looked at yet */
	uint8_t name_len;   /* 1..255 */
	char name[];        /* not NUL-terminated as a contract, but a NUL follows */
};

static inline bool lock_is_shared(const struct lock *l)
{
	return l->holders != NULL && l->holders->shared;
}

/* Asserts what is always true of a lock in the table. O(claims). */
void lock_check(const struct lock *l);

#endif
