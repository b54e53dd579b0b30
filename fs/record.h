/*
 * record.h - who holds byte ranges of a lock through fcntl(2), and how that ends.
 *
 *            granted                           session lost
 *   (none) ----------> fs->recording -----------------------> its handles lost, (none)
 *      ^                     |
 *      +--- F_UNLCK of all --+
 *           FLUSH by it
 *           RELEASE of a handle it uses
 *
 * The kernel names an owner by `lock_owner`: of POSIX locks a process's table of descriptors, of
 * OFD locks an open file description. It does not say which, and need not: a process
 * sends FLUSH with its name at every close(2), also when it dies, and POSIX wants
 * all its locks of the file gone then; a description is never named in a FLUSH, and ends with the
 * RELEASE of its one handle. By then every process that used the handle has sent its FLUSH.
 *
 * What an owner holds is remembered here also, without modes: a release is answered before it is
 * in the log, and who has released everything must not be told of a loss.
 */
#ifndef COORDFS_FS_RECORD_H
#define COORDFS_FS_RECORD_H

#include "fs/handle.h"

/* Of one owner on one lock; arbitrary. Beyond it, an unlock that would split one more: ENOLCK. */
#define RECORD_RANGES_MAX 1024

/* An owner has locked through a handle. */
struct record_use {
	struct record_owner *owner;
	struct lock_handle *h;
	struct record_use *owner_prev, *owner_next; /* owner->uses */
	struct record_use *h_prev, *h_next;         /* h->uses */
};

struct record_owner {
	uint64_t lock_owner; /* the kernel's name of it */
	struct core_owner core;
	struct lock_inode *inode; /* borrowed: has a handle while it has an owner */
	struct core_range *held;  /* owned; ascending, with gaps between them */
	size_t n_held;
	size_t cap_held;
	struct record_use *uses; /* owned; handles through which it got what it holds */
	size_t n_ops;            /* requests under way, which keep it */
	struct core_task holder; /* who asked last */
	struct core_task opener;
	struct record_owner *hold_prev, *hold_next; /* fs->recording, while it holds something */
	UT_hash_handle hh;                          /* inode->record_owners, by lock_owner */
};

/* NULL: it neither holds nor waits. */
struct record_owner *record_owner_find(struct lock_inode *l, uint64_t lock_owner);
/* Found or made, and kept until record_owner_put(). */
struct record_owner *record_owner_get(struct fs *fs, struct lock_inode *l, uint64_t lock_owner);
void record_owner_put(struct record_owner *o);

/* The core has granted it `range`, through `h`, to h->opener's or another's task `asker`. */
void record_granted(struct fs *fs, struct record_owner *o, struct lock_handle *h,
	struct core_range range, const struct core_task *asker);
/* Gives up the range. 0 or ENOLCK; then nothing has changed. May free `o`. */
int record_unlock(struct fs *fs, struct record_owner *o, struct core_range range);
/* close(2) by the owner of that name. */
void record_flush(struct fs *fs, struct lock_inode *l, uint64_t lock_owner);
/* The handle goes. */
void record_closed(struct fs *fs, struct lock_handle *h);
/* The session has taken everything: handles become lost, holders are signalled. */
void records_lost(struct fs *fs);

#endif
