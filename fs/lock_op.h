/*
 * lock_op.h - requests on a lock that wait for the cluster.
 */
#ifndef COORDFS_FS_LOCK_OP_H
#define COORDFS_FS_LOCK_OP_H

#include "fs/handle.h"

struct record_owner;

enum lock_write {
	LOCK_WRITE_AT,
	LOCK_WRITE_APPEND,  /* at the end that the value has then */
	LOCK_WRITE_INSTEAD, /* of the value it has */
};

/* Each takes `req`, and `h` is the handle behind whose other operations it queues. */
void lock_op_flock(struct fs *fs, fuse_req_t req, struct lock_handle *h, bool shared, bool wait);
/* fcntl(2): F_SETLK or F_SETLKW of an F_RDLCK (`shared`) or F_WRLCK; F_GETLK of one. `o` is not
 * taken. */
void lock_op_record(struct fs *fs, fuse_req_t req, struct lock_handle *h, struct record_owner *o,
	struct core_range range, bool shared, bool wait);
void lock_op_test(struct fs *fs, fuse_req_t req, struct lock_handle *h, struct record_owner *o,
	struct core_range range, bool shared);
/* Under the exclusive lock that `owner` holds. As into a file: what is before and behind `data`
 * stays, a gap becomes zeros. */
void lock_op_write(struct fs *fs, fuse_req_t req, struct lock_handle *h, struct core_owner owner,
	const char *data, size_t size, off_t off, enum lock_write how);
void lock_op_truncate(
	struct fs *fs, fuse_req_t req, struct lock_handle *h, struct core_owner owner, size_t size);

/* Answers every operation of the handle with the (positive) errno. */
void lock_ops_cancel(struct lock_handle *h, int answer);
/* The handle is lost: they are answered EIO, those on ranges perhaps later. */
void lock_ops_lost(struct lock_handle *h);

#endif
