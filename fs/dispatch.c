/*
 * dispatch.c - from the kernel's requests to the tables of the inodes.
 *
 * What no table serves is refused here, honestly: ENOSYS would make the kernel
 * fall back to something local, such as fcntl locks that exclude nobody on
 * other nodes, and remember it for the life of the mount.
 */
#include <errno.h>
#include <poll.h>

#include "coordfs/util.h"
#include "fs/session.h"

static struct inode *inode_of(struct fs *fs, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &fs->root.inode : (struct inode *)(uintptr_t)ino;
}

/* Call `slot` of the inode's table with the rest, or refuse. */
#define DISPATCH(req, ino, slot, refusal, ...)                                                     \
	do {                                                                                       \
		struct fs *fs_ = fs_of(req);                                                       \
		struct inode *inode_ = inode_of(fs_, ino);                                         \
		if (inode_->ops->slot == NULL) {                                                   \
			(void)fuse_reply_err(req, refusal); /* nothing happened */                 \
		} else {                                                                           \
			inode_->ops->slot(fs_, req, inode_ __VA_OPT__(, ) __VA_ARGS__);            \
		}                                                                                  \
	} while (0)

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	DISPATCH(req, parent, lookup, ENOTDIR, name);
}

static void on_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	DISPATCH(req, ino, readdir, ENOTDIR, size, off);
}

static void on_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	int refusal = inode_of(fs_of(req), parent)->ops->create_errno;

	(void)mode;
	DISPATCH(req, parent, create, refusal, name, fi);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)name;
	(void)mode;
	(void)fuse_reply_err(req, inode_of(fs_of(req), parent)->ops->create_errno);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	DISPATCH(req, parent, unlink, EPERM, name);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	(void)fuse_reply_err(req, EPERM); /* the directories are there to stay */
}

/* Special files, links and renames exist nowhere in the tree: EPERM, as open(2)'s relatives say. */
static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
	(void)parent;
	(void)name;
	(void)mode;
	(void)dev;
	(void)fuse_reply_err(req, EPERM);
}

static void on_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	(void)parent;
	(void)name;
	(void)fuse_reply_err(req, EPERM);
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	(void)ino;
	(void)parent;
	(void)name;
	(void)fuse_reply_err(req, EPERM);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	const char *new_name, unsigned flags)
{
	(void)parent;
	(void)name;
	(void)new_parent;
	(void)new_name;
	(void)flags;
	(void)fuse_reply_err(req, EPERM);
}

static void forget_one(struct fs *fs, fuse_ino_t ino, uint64_t nlookup)
{
	struct inode *inode = inode_of(fs, ino);

	if (inode->ops->forget != NULL) {
		inode->ops->forget(fs, inode, nlookup);
	}
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget_one(fs_of(req), ino, nlookup);
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	size_t i;

	for (i = 0; i < count; i++) {
		forget_one(fs_of(req), (fuse_ino_t)forgets[i].ino, forgets[i].nlookup);
	}
	fuse_reply_none(req);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct inode *inode = inode_of(fs_of(req), ino);

	if (fi != NULL && inode->ops->getattr_open != NULL) {
		inode->ops->getattr_open(fs_of(req), req, inode, fi);
		return;
	}
	DISPATCH(req, ino, getattr, ENOSYS);
}

static void on_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	DISPATCH(req, ino, setattr, EPERM, attr, to_set, fi);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	DISPATCH(req, ino, open, EISDIR, fi);
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	DISPATCH(req, ino, release, 0, fi);
}

static void on_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	DISPATCH(req, ino, read, EISDIR, size, off, fi);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	DISPATCH(req, ino, write, EBADF, data, size, off, fi);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	DISPATCH(req, ino, fsync, 0, fi);
}

static void on_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	DISPATCH(req, ino, flock, EOPNOTSUPP, op, fi);
}

static void on_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	DISPATCH(req, ino, flush, 0, fi);
}

static void on_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	DISPATCH(req, ino, getlk, EOPNOTSUPP, lock, fi);
}

static void on_setlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	DISPATCH(req, ino, setlk, EOPNOTSUPP, lock, sleep != 0, fi);
}

static void on_poll(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct inode *inode = inode_of(fs_of(req), ino);

	if (inode->ops->poll == NULL) {
		if (ph != NULL) {
			fuse_pollhandle_destroy(ph);
		}
		(void)fuse_reply_poll(req, POLLIN | POLLOUT); /* as for any regular file */
		return;
	}
	inode->ops->poll(fs_of(req), req, inode, ph, fi);
}

/* The kernel asks for security.capability at every write, `ls -l` for others: there are none. */
static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (strncmp(name, "user.", strlen("user.")) != 0) {
		(void)fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	DISPATCH(req, ino, getxattr, ENODATA, name, size);
}

static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct inode *inode = inode_of(fs_of(req), ino);

	if (inode->ops->listxattr != NULL) {
		inode->ops->listxattr(fs_of(req), req, inode, size);
	} else if (size == 0) {
		(void)fuse_reply_xattr(req, 0);
	} else {
		(void)fuse_reply_buf(req, NULL, 0);
	}
}

static int xattr_refusal(const char *name)
{
	return strncmp(name, "user.coordfs.", strlen("user.coordfs.")) == 0 ? EPERM : EOPNOTSUPP;
}

static void on_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino;
	(void)value;
	(void)size;
	(void)flags;
	(void)fuse_reply_err(req, xattr_refusal(name));
}

static void on_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino;
	(void)fuse_reply_err(req, xattr_refusal(name));
}

static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct core_usage usage;
	struct statvfs st;
	uint64_t room;

	(void)ino;
	core_usage(fs->o.core, &usage);
	room = usage.locks_max - MIN(usage.locks, usage.locks_max);
	/* A block per lock: a value never needs more. */
	st = (struct statvfs){
		.f_bsize = CORE_LOCK_VALUE_MAX,
		.f_frsize = CORE_LOCK_VALUE_MAX,
		.f_blocks = MAX(usage.locks_max, 1),
		.f_bfree = room,
		.f_bavail = room,
		.f_files = usage.locks_max,
		.f_ffree = room,
		.f_favail = room,
		.f_namemax = CORE_NAME_MAX,
	};
	(void)fuse_reply_statfs(req, &st); /* nobody to tell */
}

/* Everything the later lock code relies on; mount_open() reads what was found. */
static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	fs->init_rc = 0;
	if ((conn->capable & FUSE_CAP_FLOCK_LOCKS) == 0) {
		fs->init_rc = -ENOTSUP;
		fs->init_lacks = "flock";
	} else if ((conn->capable & FUSE_CAP_POSIX_LOCKS) == 0) {
		fs->init_rc = -ENOTSUP;
		fs->init_lacks = "POSIX";
	}
	conn->want &= ~(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_READDIRPLUS);
	conn->want |= conn->capable & FUSE_CAP_ATOMIC_O_TRUNC;
	/* RELEASE and FORGET are background requests: they must not queue behind others that wait
	 * for the cluster. Arbitrary, thousands. */
	conn->max_background = 16384;
	conn->congestion_threshold = 12288;
}

const struct fuse_lowlevel_ops dispatch_ops = {
	.init = on_init,
	.lookup = on_lookup,
	.forget = on_forget,
	.forget_multi = on_forget_multi,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.mknod = on_mknod,
	.mkdir = on_mkdir,
	.unlink = on_unlink,
	.rmdir = on_rmdir,
	.symlink = on_symlink,
	.rename = on_rename,
	.link = on_link,
	.create = on_create,
	.open = on_open,
	.read = on_read,
	.write = on_write,
	.flush = on_flush,
	.release = on_release,
	.fsync = on_fsync,
	.readdir = on_readdir,
	.statfs = on_statfs,
	.getxattr = on_getxattr,
	.setxattr = on_setxattr,
	.listxattr = on_listxattr,
	.removexattr = on_removexattr,
	.getlk = on_getlk,
	.setlk = on_setlk,
	.flock = on_flock,
	.poll = on_poll,
};
