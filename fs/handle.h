/*
 * handle.h - an open file description of a lock, and the operations it waits for.
 *
 *            flock granted                     session lost
 *   (none) ----------------> fs->holding ----------------------> fs->lost
 *      ^                          |                                  |
 *      +--- LOCK_UN, refused -----+            last close: freed  <--+
 *           conversion
 *
 * The list is the state: a handle is on fs->holding exactly while it holds a flock
 * as far as its owner has been told, and on fs->lost from the moment it held one
 * that the session took with it, by flock or by fcntl (record.h). A lost handle answers EIO to
 * everything but close.
 */
#ifndef COORDFS_FS_HANDLE_H
#define COORDFS_FS_HANDLE_H

#include "fs/inode.h"

struct lock_op;
struct record_use;

struct lock_handle {
	struct lock_inode *inode;                  /* borrowed: lives while it has handles */
	struct lock_handle *prev, *next;           /* inode->handles */
	struct lock_handle *hold_prev, *hold_next; /* fs->holding or fs->lost */
	uint64_t owner;                            /* its name in the core */
	struct lock_op *ops; /* the first is under way in the core, the others wait for it */
	struct lock_op
		*record_ops;     /* all under way in the core: threads may ask on one descriptor */
	struct record_use *uses; /* by owners of ranges */
	struct fuse_pollhandle *poller; /* owned; who polls for loss or contention, or NULL */
	enum core_lock_mode held;
	bool known; /* the core may hold something for the owner */
	bool lost;
	bool truncates; /* its next write replaces the value */

	/* Who opened it: looked up in /proc only when a lock is asked for. */
	uint32_t opener_tid;
	uint64_t opened_at; /* task_clock() */
	bool opener_known;
	struct core_task opener;
	/* Who asked last: kept for a moment, as programs lock in loops. */
	uint32_t asker_tid;
	uint64_t asker_at_ms;
	struct core_task asker;
	struct core_task holder; /* asker of the lock held */

	/* The value as a reader found it at offset 0, until it has seen the end. */
	bool reading;
	size_t read_len;
	uint8_t *read_value; /* owned */
};

static inline struct lock_handle *lock_handle_of(const struct fuse_file_info *fi)
{
	return (struct lock_handle *)(uintptr_t)fi->fh;
}

struct lock_handle *lock_handle_new(struct fs *fs, struct lock_inode *l, uint32_t opener_tid);
/* Gives up what it holds or waits for. May free the inode. */
void lock_handle_close(struct fs *fs, struct lock_handle *h);

/* The only place where `held` and the lists change. */
void lock_handle_holds(struct fs *fs, struct lock_handle *h, enum core_lock_mode mode);

/* Gives up what it holds; requests that wait go on waiting. */
void lock_handle_unlock(struct fs *fs, struct lock_handle *h);

/* Fills in h->asker and h->opener for a request of thread `tid`. */
void lock_handle_tasks(struct fs *fs, struct lock_handle *h, uint32_t tid);

/* core_listener: somebody begins to wait for the lock. Tells its holders that poll. Runs from the
 * loop, outside any request. */
void lock_handles_contended(struct fs *fs, struct core_name name);
static inline struct core_owner lock_handle_owner(const struct lock_handle *h)
{
	return core_flock_owner(h->owner);
}

/* The session took what `holder` had got through it. */
void lock_handle_lose(struct fs *fs, struct lock_handle *h, const struct core_task *holder);

/* core_listener: the session is lost. Marks and signals; waiters hear of it from lost_wake. */
void lock_handles_lost(struct fs *fs);
/* Whoever polls the handle looks again. Not from inside a request. */
void lock_handle_poke(struct lock_handle *h);
/* Tells requests and pollers of lost handles. Runs from the loop, outside any request. */
void lock_handles_wake_lost(struct fs *fs);
/* The lost_signal to who held a lock: who asked for it if alive, else who opened the file. */
void lock_signal_holder(
	struct fs *fs, const struct core_task *holder, const struct core_task *opener);
/* The mount ends: holders are signalled, waiting requests answered, everything is freed. */
void lock_handles_shutdown(struct fs *fs);

#endif
