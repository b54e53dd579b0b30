/*
 * session.h - what the rooms of fs/ share: the mount, its inodes, its holders.
 *
 * The kernel knows an inode by its address (the root by FUSE_ROOT_ID). The
 * directories and reports live as long as the mount; a lock's inode lives as long as
 * the kernel remembers it or has it open (inode.h).
 *
 * `struct inode_ops` is one table per kind of inode: dispatch.c turns a request of the
 * kernel into a call of the table, and answers itself where a slot is empty.
 */
#ifndef COORDFS_FS_SESSION_H
#define COORDFS_FS_SESSION_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <uv.h>

#include "coordfs/core.h"
#include "fs/fs.h"

/* The fixed tree never changes, and a path walk need not ask for it each time. Not longer, or
 * stat(2) of a mount whose daemon has died would go on looking well. */
#define FIXED_TREE_TIMEOUT_S 1.0

struct inode;
struct lock_inode;
struct lock_handle;
struct lock_op;
struct stream;
struct record_owner;

/* Each function answers `req` exactly once, now or later. An empty slot is a refusal. */
struct inode_ops {
	/* directories */
	void (*lookup)(struct fs *fs, fuse_req_t req, struct inode *dir, const char *name);
	void (*readdir)(struct fs *fs, fuse_req_t req, struct inode *dir, size_t size, off_t off);
	void (*create)(struct fs *fs, fuse_req_t req, struct inode *dir, const char *name,
		struct fuse_file_info *fi);
	void (*unlink)(struct fs *fs, fuse_req_t req, struct inode *dir, const char *name);
	int create_errno; /* of O_CREAT (without a create slot) and mkdir */

	/* all */
	void (*getattr)(struct fs *fs, fuse_req_t req, struct inode *inode);
	/* The same where the kernel says on which descriptor; may be empty. */
	void (*getattr_open)(
		struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi);
	void (*forget)(struct fs *fs, struct inode *inode, uint64_t nlookup);
	void (*setattr)(struct fs *fs, fuse_req_t req, struct inode *inode, struct stat *attr,
		int to_set, struct fuse_file_info *fi);
	void (*getxattr)(
		struct fs *fs, fuse_req_t req, struct inode *inode, const char *name, size_t size);
	void (*listxattr)(struct fs *fs, fuse_req_t req, struct inode *inode, size_t size);

	/* files */
	void (*open)(struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi);
	void (*release)(
		struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi);
	void (*read)(struct fs *fs, fuse_req_t req, struct inode *inode, size_t size, off_t off,
		struct fuse_file_info *fi);
	void (*write)(struct fs *fs, fuse_req_t req, struct inode *inode, const char *data,
		size_t size, off_t off, struct fuse_file_info *fi);
	void (*fsync)(
		struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi);
	/* close(2) of one descriptor by fi->lock_owner. */
	void (*flush)(
		struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi);
	void (*getlk)(struct fs *fs, fuse_req_t req, struct inode *inode, const struct flock *lock,
		struct fuse_file_info *fi);
	void (*setlk)(struct fs *fs, fuse_req_t req, struct inode *inode, const struct flock *lock,
		bool wait, struct fuse_file_info *fi);
	void (*flock)(struct fs *fs, fuse_req_t req, struct inode *inode, int op,
		struct fuse_file_info *fi);
	/* Takes `ph`, which may be NULL. */
	void (*poll)(struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_pollhandle *ph,
		struct fuse_file_info *fi);
};

struct inode {
	const struct inode_ops *ops;
	uint64_t st_ino;
};

/* A directory whose entries never change. */
struct fixed_dir {
	struct inode inode;
	mode_t mode;
	const struct fixed_entry {
		const char *name;
		struct inode *inode;
		mode_t type;
	} * entries; /* borrowed: lives in struct fs */
	size_t n_entries;
};

/* A file in status/. */
struct report {
	struct inode inode;
	size_t len;           /* of the text made last */
	struct timespec made; /* when */
};

enum fixed_child {
	CHILD_LOCKS,
	CHILD_QUEUES,
	CHILD_CACHE,
	CHILD_STATUS,
	CHILD_MAX_,
};

struct fs {
	struct fs_options o; /* o.mountpoint: owned */
	uv_loop_t *loop;     /* borrowed */
	uv_poll_t poll;
	uv_async_t lost_wake; /* a lost session's handles have something to be told */
	int handles_open;     /* of those above, `overdue` and `idle`; at 0 the struct goes */
	struct fuse_session *se;
	struct fuse_buf buf; /* buf.mem: owned, from libfuse's malloc */
	int init_rc;         /* INIT: 1 not seen, 0 fine, -errno refused */
	const char *init_lacks;
	bool closing;
	uint64_t answer_within_ms; /* the kernel ends the mount soon after that; 0: it does not */
	uv_timer_t overdue;        /* runs for the oldest of `waiting` */
	struct lock_op *waiting;   /* oldest first (wait_prev, wait_next); unused without a limit */
	uv_timer_t idle;           /* for reads of `streams`, likewise */
	void (*closed)(void *ctx);
	void *closed_ctx;

	uid_t uid; /* owner of the fixed tree */
	gid_t gid;
	struct timespec born;

	struct fixed_dir root;
	struct fixed_dir queues;
	struct fixed_dir cache;
	struct fixed_dir status;
	struct inode locks;
	struct report reports[CORE_REPORT_MAX_];
	struct fixed_entry root_entries[CHILD_MAX_];
	struct report events; /* beside the reports */
	struct fixed_entry status_entries[CORE_REPORT_MAX_ + 1];

	struct lock_inode *lock_inodes; /* uthash by name */
	struct lock_handle *holding;    /* handles that hold a lock (hold_prev, hold_next) */
	struct lock_handle *lost;       /* handles whose lock is lost, until closed (same links) */
	struct record_owner *recording; /* owners that hold ranges (hold_prev, hold_next) */
	uint64_t last_owner;
	struct stream *streams; /* open descriptions of status/events */
};

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The table of the kernel's requests, for fuse_session_new(). */
extern const struct fuse_lowlevel_ops dispatch_ops;

/* dir.c: fills in struct fs's fixed part. */
void fixed_tree_init(struct fs *fs);
extern const struct inode_ops root_ops, empty_dir_ops, status_dir_ops;

/* status.c */
extern const struct inode_ops report_ops;
void report_stat(struct fs *fs, const struct inode *inode, struct stat *ret_st);

/* events.c */
extern const struct inode_ops events_ops;
/* The mount ends: reads that wait are answered, everything is freed. */
void streams_shutdown(struct fs *fs);

/* locks.c, the directory; locks_file.c, what is in it */
extern const struct inode_ops locks_dir_ops;
extern const struct inode_ops lock_file_ops;

#endif
