/*
 * inode.h - inodes of locks: a node id belongs to a name.
 *
 * While the kernel remembers a name (nlookup) or has it open, every lookup and
 * create of it gets the same inode, whether the lock is free, held or waited
 * for. So all descriptors of a name meet in one inode, and nothing has to be
 * invalidated when a lock comes and goes.
 */
#ifndef COORDFS_FS_INODE_H
#define COORDFS_FS_INODE_H

#include <time.h>
#include <uthash.h>

#include "fs/session.h"

struct lock_inode {
	struct inode inode;
	uint64_t nlookup;
	struct lock_handle *handles;        /* open descriptions, utlist (prev, next) */
	struct record_owner *record_owners; /* uthash: who holds or asks for ranges */
	uid_t creator;                      /* user that made the inode known */
	struct timespec created;
	UT_hash_handle hh; /* fs->lock_inodes */
	size_t name_len;
	char name[CORE_NAME_MAX + 1];
};

static inline struct lock_inode *lock_inode_of(struct inode *inode)
{
	return CONTAINER_OF(inode, struct lock_inode, inode);
}

static inline struct core_name lock_inode_name(const struct lock_inode *l)
{
	return (struct core_name){.bytes = l->name, .len = l->name_len};
}

/* 0, or the positive errno that says why this cannot be the name of a lock. */
int lock_name_errno(const char *name);

/* NULL: the kernel does not know the name. */
struct lock_inode *lock_inode_find(struct fs *fs, const char *name);
struct lock_inode *lock_inode_of_name(struct fs *fs, struct core_name name);
/* The name's inode with one lookup more; give that back with lock_inode_forget(). */
struct lock_inode *lock_inode_get(struct fs *fs, const char *name, uid_t creator);
void lock_inode_forget(struct fs *fs, struct lock_inode *l, uint64_t nlookup);
/* The last handle has been closed: the inode goes unless the kernel remembers it. */
void lock_inode_closed(struct fs *fs, struct lock_inode *l);

/* st_ino of a name: the same on every node and at all times. */
uint64_t lock_st_ino(const void *name, size_t len);
/* As the asking user sees it (locks_dir_ops says why that matters). */
void lock_inode_stat(struct fs *fs, const struct lock_inode *l, uid_t asker, struct stat *ret_st);

#endif
