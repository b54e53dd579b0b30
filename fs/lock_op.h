/*
 * lock_op.h - requests on a lock that wait for the cluster.
 */
#ifndef COORDFS_FS_LOCK_OP_H
#define COORDFS_FS_LOCK_OP_H

#include "fs/handle.h"

enum lock_write {
	LOCK_WRITE_AT,
	LOCK_WRITE_APPEND,  /* at the end that the value has then */
	LOCK_WRITE_INSTEAD, /* of the value it has */
};

/* Each takes `req`, and `h` is the handle whose owner the core is asked for. */
void lock_op_flock(struct fs *fs, fuse_req_t req, struct lock_handle *h, bool shared, bool wait);
/* As into a file: what is before and behind `data` stays, a gap becomes zeros. */
void lock_op_write(struct fs *fs, fuse_req_t req, struct lock_handle *h, const char *data,
	size_t size, off_t off, enum lock_write how);
void lock_op_truncate(struct fs *fs, fuse_req_t req, struct lock_handle *h, size_t size);

/* Answers every operation of the handle with the (positive) errno. */
void lock_ops_cancel(struct lock_handle *h, int answer);

#endif
