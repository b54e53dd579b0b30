/*
 * lock_op.h - requests on a lock that wait for the cluster.
 */
#ifndef COORDFS_FS_LOCK_OP_H
#define COORDFS_FS_LOCK_OP_H

#include "fs/handle.h"

/* Each takes `req`, and `h` is the handle whose owner the core is asked for. */
void lock_op_flock(struct fs *fs, fuse_req_t req, struct lock_handle *h, bool shared, bool wait);
/* Replaces the value (`off` 0) or puts `data` at `off`; `append`: at the end it has then. */
void lock_op_write(struct fs *fs, fuse_req_t req, struct lock_handle *h, const char *data,
	size_t size, off_t off, bool append);
void lock_op_truncate(struct fs *fs, fuse_req_t req, struct lock_handle *h, size_t size);

/* Answers every operation of the handle with the (positive) errno. */
void lock_ops_cancel(struct lock_handle *h, int answer);

#endif
