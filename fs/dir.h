/*
 * dir.h - directories: the fixed tree, and one READDIR's answer.
 */
#ifndef COORDFS_FS_DIR_H
#define COORDFS_FS_DIR_H

#include "fs/session.h"

/* Three directories are for everybody, as /tmp is. */
#define PUBLIC_DIR_MODE (S_IFDIR | S_ISVTX | 0777)

void fixed_stat(
	struct fs *fs, const struct inode *inode, mode_t mode, nlink_t nlink, struct stat *ret_st);

/* Entries of one READDIR, as many as the kernel has room for. Memory only: never waits. */
struct dir_listing {
	fuse_req_t req;
	char *buf; /* owned */
	size_t size;
	size_t used;
};

void dir_listing_begin(struct dir_listing *l, fuse_req_t req, size_t size);
/* false: no room. `next` is the offset that continues after this entry. */
bool dir_listing_add(
	struct dir_listing *l, const char *name, uint64_t st_ino, mode_t type, off_t next);
/* "." at offset 0 and ".." at offset 1, where `off` asks for them; false: no room. */
bool dir_listing_add_dots(struct dir_listing *l, const struct inode *dir, off_t off);
void dir_listing_reply(struct dir_listing *l);

#endif
