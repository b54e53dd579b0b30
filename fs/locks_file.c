/*
 * locks_file.c - a lock's file: flock, fcntl, the value, attributes, poll.
 *
 * Everything but locking and writes is answered at once from local memory. Direct
 * I/O, so that the kernel keeps no copy of a value.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "fs/handle.h"
#include "fs/lock_op.h"
#include "fs/record.h"
#include "fs/task.h"

static void file_getattr(struct fs *fs, fuse_req_t req, struct inode *inode)
{
	struct stat st;

	lock_inode_stat(fs, lock_inode_of(inode), fuse_req_ctx(req)->uid, &st);
	(void)fuse_reply_attr(req, &st, 0); /* nobody to tell */
}

static void file_forget(struct fs *fs, struct inode *inode, uint64_t nlookup)
{
	lock_inode_forget(fs, lock_inode_of(inode), nlookup);
}

static void file_release(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	(void)inode;
	lock_handle_close(fs, lock_handle_of(fi)); /* ends a flock, too */
	(void)fuse_reply_err(req, 0);              /* nobody waits for it */
}

static void file_flock(
	struct fs *fs, fuse_req_t req, struct inode *inode, int op, struct fuse_file_info *fi)
{
	struct lock_handle *h = lock_handle_of(fi);

	(void)inode;
	if (h->lost) {
		(void)fuse_reply_err(req, EIO); /* nothing has changed */
	} else if ((op & LOCK_UN) != 0) {
		lock_handle_unlock(fs, h);
		(void)fuse_reply_err(req, 0); /* released, heard or not */
	} else {
		lock_op_flock(fs, req, h, (op & LOCK_SH) != 0, (op & LOCK_NB) == 0);
	}
}

/* --- fcntl ----------------------------------------------------------------------------------- */

/* libfuse counts from the file's beginning; length 0 is up to the last byte there may be. */
static struct core_range range_of(const struct flock *lock)
{
	return (struct core_range){
		.start = (uint64_t)lock->l_start,
		.end = lock->l_len == 0 ? CORE_RANGE_MAX
					: (uint64_t)lock->l_start + (uint64_t)lock->l_len - 1,
	};
}

static int range_errno(const struct flock *lock)
{
	if (lock->l_start < 0 || lock->l_len < 0) {
		return EINVAL;
	}
	return range_of(lock).end > CORE_RANGE_MAX ? EOVERFLOW : 0;
}

static int record_unlock_by(
	struct fs *fs, struct lock_inode *l, uint64_t lock_owner, struct core_range range)
{
	struct record_owner *o = record_owner_find(l, lock_owner);

	return o != NULL ? record_unlock(fs, o, range) : 0;
}

static void file_setlk(struct fs *fs, fuse_req_t req, struct inode *inode, const struct flock *lock,
	bool wait, struct fuse_file_info *fi)
{
	struct lock_handle *h = lock_handle_of(fi);
	struct lock_inode *l = lock_inode_of(inode);
	int bad = h->lost ? EIO : range_errno(lock);
	struct record_owner *o;

	if (bad != 0) {
		(void)fuse_reply_err(req, bad); /* nothing has changed */
	} else if (lock->l_type == F_UNLCK) {
		/* Released, heard or not. */
		(void)fuse_reply_err(req, record_unlock_by(fs, l, fi->lock_owner, range_of(lock)));
	} else {
		o = record_owner_get(fs, l, fi->lock_owner);
		lock_op_record(fs, req, h, o, range_of(lock), lock->l_type == F_RDLCK, wait);
		record_owner_put(o);
	}
}

static void file_getlk(struct fs *fs, fuse_req_t req, struct inode *inode, const struct flock *lock,
	struct fuse_file_info *fi)
{
	struct lock_handle *h = lock_handle_of(fi);
	int bad = h->lost ? EIO : range_errno(lock);
	struct record_owner *o;

	if (bad == 0 && lock->l_type == F_UNLCK) {
		bad = EINVAL; /* newer kernels: what do I hold? Nobody but they could say */
	}
	if (bad != 0) {
		(void)fuse_reply_err(req, bad); /* nothing has changed */
		return;
	}
	o = record_owner_get(fs, lock_inode_of(inode), fi->lock_owner);
	lock_op_test(fs, req, h, o, range_of(lock), lock->l_type == F_RDLCK);
	record_owner_put(o);
}

/* Any close(2) of the file by a process ends its POSIX locks. */
static void file_flush(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	record_flush(fs, lock_inode_of(inode), fi->lock_owner);
	(void)fuse_reply_err(req, 0); /* released, heard or not */
}

/* --- the value ------------------------------------------------------------------------------- */

static void end_reading(struct lock_handle *h)
{
	free(TAKE(h->read_value));
	h->reading = false;
	h->read_len = 0;
}

static void begin_reading(struct fs *fs, struct lock_handle *h)
{
	struct core_lock_info info;

	end_reading(h);
	h->reading = true;
	if (core_lock_info(fs->o.core, lock_inode_name(h->inode), &info) && info.value_len > 0) {
		h->read_value = xmemdup(info.value, info.value_len);
		h->read_len = info.value_len;
	}
}

/* A reader gets the value it found at offset 0 until it has seen the end: `cat` reads one value,
 * never the head of one and the tail of another. After that it sees what there is then. */
static void file_read(struct fs *fs, fuse_req_t req, struct inode *inode, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct lock_handle *h = lock_handle_of(fi);
	size_t from;

	(void)inode;
	if (h->lost) {
		(void)fuse_reply_err(req, EIO); /* nothing has changed */
		return;
	}
	if (off <= 0 || !h->reading) {
		begin_reading(fs, h);
	}
	from = MIN((size_t)MAX(off, 0), h->read_len);
	size = MIN(size, h->read_len - from);
	if (size == 0) {
		end_reading(h);
		(void)fuse_reply_buf(req, NULL, 0); /* nobody to tell, here and below */
	} else {
		(void)fuse_reply_buf(req, (const char *)h->read_value + from, size);
	}
}

/* Looks for the exclusive holder of this node that a process may write for. */
struct writer_search {
	uint32_t tid;
	struct core_owner owner; /* id 0: not found */
};

static bool holds_all(const struct core_holder *holder)
{
	return !holder->shared && holder->range.start == 0 && holder->range.end == CORE_RANGE_MAX;
}

static bool may_write_for(void *arg, const struct core_holder *holder)
{
	struct writer_search *s = arg;

	if (holder->here && holds_all(holder) &&
		task_descends(s->tid, holder->task, holder->opener)) {
		s->owner = holder->owner;
	}
	return s->owner.id == 0;
}

/* Is it an owner of ranges that got what it holds through the handle? */
static bool is_own_record(const struct lock_handle *h, struct core_owner owner)
{
	const struct record_use *use;

	DL_FOREACH2 (h->uses, use, h_next) {
		if (use->owner->core.id == owner.id) {
			return true;
		}
	}
	return false;
}

struct own_search {
	const struct lock_handle *h;
	struct core_owner owner;
};

static bool find_own(void *arg, const struct core_holder *holder)
{
	struct own_search *s = arg;

	if (holder->here && holds_all(holder) && holder->owner.kind == CORE_RECORD &&
		is_own_record(s->h, holder->owner)) {
		s->owner = holder->owner;
	}
	return s->owner.id == 0;
}

/* The handle of this node by which `owner` holds; NULL: it was closed just now. */
static struct lock_handle *handle_of_owner(struct lock_inode *l, struct core_owner owner)
{
	struct lock_handle *h;
	struct record_owner *o, *next;

	if (owner.kind == CORE_FLOCK) {
		DL_SEARCH_SCALAR(l->handles, h, owner, owner.id);
		return h;
	}
	HASH_ITER (hh, l->record_owners, o, next) {
		if (o->core.id == owner.id && o->uses != NULL) {
			return o->uses->h;
		}
	}
	return NULL;
}

/* The handle and owner under whose lock a request of thread `tid` on `h` (or on none) may change
 * the value: its own, or one that an ancestor holds. NULL: none. */
static struct lock_handle *writer_handle(struct fs *fs, struct lock_inode *l, struct lock_handle *h,
	uint32_t tid, struct core_owner *ret_owner)
{
	struct writer_search s = {.tid = tid};
	struct own_search own = {.h = h};

	if (h != NULL && h->held == CORE_EXCLUSIVE) {
		*ret_owner = lock_handle_owner(h);
		return h;
	}
	if (h != NULL && h->uses != NULL) {
		core_lock_holders(fs->o.core, lock_inode_name(l), find_own, &own);
		if (own.owner.id != 0) {
			*ret_owner = own.owner;
			return h;
		}
	}
	core_lock_holders(fs->o.core, lock_inode_name(l), may_write_for, &s);
	*ret_owner = s.owner;
	return s.owner.id == 0 ? NULL : handle_of_owner(l, s.owner);
}

/* Takes nothing, whatever the flags: O_TRUNC by who may not write must not touch the holder's
 * value. By who may, it does not either, as a truncation would wait for the cluster: the next write
 * then replaces the value. */
static void file_open(struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	uint32_t tid = (uint32_t)fuse_req_ctx(req)->pid;
	struct lock_inode *l = lock_inode_of(inode);
	struct lock_handle *h = lock_handle_new(fs, l, tid);
	struct core_owner owner;

	h->truncates =
		(fi->flags & O_TRUNC) != 0 && writer_handle(fs, l, NULL, tid, &owner) != NULL;
	fi->fh = (uintptr_t)h;
	fi->direct_io = 1;
	if (fuse_reply_open(req, fi) != 0) {
		lock_handle_close(fs, h); /* interrupted: no RELEASE will come */
	}
}

static enum lock_write how_to_write(const struct lock_handle *h, const struct fuse_file_info *fi)
{
	if (h->truncates) {
		return LOCK_WRITE_INSTEAD;
	}
	return (fi->flags & O_APPEND) != 0 ? LOCK_WRITE_APPEND : LOCK_WRITE_AT;
}

static void file_write(struct fs *fs, fuse_req_t req, struct inode *inode, const char *data,
	size_t size, off_t off, struct fuse_file_info *fi)
{
	struct lock_handle *h = lock_handle_of(fi);
	struct lock_handle *holder;
	struct core_owner owner;

	if (h->lost) {
		(void)fuse_reply_err(req, EIO); /* nothing has changed */
		return;
	}
	holder = writer_handle(
		fs, lock_inode_of(inode), h, (uint32_t)fuse_req_ctx(req)->pid, &owner);
	if (holder == NULL) {
		(void)fuse_reply_err(req, EPERM); /* nothing has changed */
		return;
	}
	end_reading(h); /* it wants to see what it wrote */
	lock_op_write(fs, req, holder, owner, data, size, off, how_to_write(h, fi));
	h->truncates = false;
}

static void truncate_file(
	struct fs *fs, fuse_req_t req, struct inode *inode, off_t size, struct fuse_file_info *fi)
{
	struct lock_handle *h = fi != NULL ? lock_handle_of(fi) : NULL;
	struct lock_handle *holder;
	struct core_owner owner;

	if (h != NULL && h->lost) {
		(void)fuse_reply_err(req, EIO); /* nothing has changed */
		return;
	}
	holder = writer_handle(
		fs, lock_inode_of(inode), h, (uint32_t)fuse_req_ctx(req)->pid, &owner);
	if (holder == NULL && size == 0) {
		file_getattr(fs, req, inode); /* truncation takes nothing from the holder */
	} else if (holder == NULL) {
		(void)fuse_reply_err(req, EPERM); /* nothing has changed */
	} else if (size > CORE_LOCK_VALUE_MAX) {
		(void)fuse_reply_err(req, EFBIG); /* nothing has changed */
	} else {
		lock_op_truncate(fs, req, holder, owner, (size_t)size);
	}
}

static void file_setattr(struct fs *fs, fuse_req_t req, struct inode *inode, struct stat *attr,
	int to_set, struct fuse_file_info *fi)
{
	if ((to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0) {
		(void)fuse_reply_err(req, EOPNOTSUPP); /* would make it permanent: not yet */
	} else if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
		truncate_file(fs, req, inode, attr->st_size, fi);
	} else {
		file_getattr(fs, req, inode); /* touch: a lock's times are its own, ignoring */
	}
}

static void file_fsync(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	(void)fs;
	(void)inode;
	/* A write has returned when it is committed: nothing is left to do. */
	(void)fuse_reply_err(req, lock_handle_of(fi)->lost ? EIO : 0);
}

/* Level-triggered: urgent for as long as somebody waits for what this descriptor holds. */
static unsigned poll_events(struct fs *fs, const struct lock_handle *h)
{
	struct core_lock_info info;

	if (h->lost) {
		return POLLERR | POLLHUP;
	}
	if ((h->held != CORE_FREE || h->uses != NULL) &&
		core_lock_info(fs->o.core, lock_inode_name(h->inode), &info) &&
		info.n_waiters > 0) {
		return POLLIN | POLLOUT | POLLPRI;
	}
	return POLLIN | POLLOUT;
}

static void file_poll(struct fs *fs, fuse_req_t req, struct inode *inode,
	struct fuse_pollhandle *ph, struct fuse_file_info *fi)
{
	struct lock_handle *h = lock_handle_of(fi);

	(void)inode;
	if (ph != NULL) {
		if (h->poller != NULL) {
			fuse_pollhandle_destroy(h->poller); /* the new one is of the same file */
		}
		h->poller = ph;
	}
	(void)fuse_reply_poll(req, poll_events(fs, h));
}

/* --- extended attributes --------------------------------------------------------------------- */

enum lock_xattr {
	XATTR_TOKEN,
	XATTR_MODE,
	XATTR_HOLDERS,
	XATTR_WAITERS,
	XATTR_MAX_,
};

static const char *const xattr_names[XATTR_MAX_] = {
	[XATTR_TOKEN] = "user.coordfs.token",
	[XATTR_MODE] = "user.coordfs.mode",
	[XATTR_HOLDERS] = "user.coordfs.holders",
	[XATTR_WAITERS] = "user.coordfs.waiters",
};

static const char *mode_name(enum core_lock_mode mode)
{
	switch (mode) {
	case CORE_FREE:
		return "free";
	case CORE_SHARED:
		return "shared";
	case CORE_EXCLUSIVE:
		return "exclusive";
	}
	UNREACHABLE();
}

/* Length of the text, or -ENODATA. */
static int xattr_text(enum lock_xattr x, const struct core_lock_info *info, char *text, size_t size)
{
	switch (x) {
	case XATTR_TOKEN:
		return info->mode == CORE_FREE ? -ENODATA
					       : snprintf(text, size, "%" PRIu64, info->token);
	case XATTR_MODE:
		return snprintf(text, size, "%s", mode_name(info->mode));
	case XATTR_HOLDERS:
		return snprintf(text, size, "%zu", info->n_holders);
	case XATTR_WAITERS:
		return snprintf(text, size, "%zu", info->n_waiters);
	case XATTR_MAX_:
		break;
	}
	return -ENODATA;
}

/* size 0 asks for the length. */
static void reply_xattr(fuse_req_t req, const char *bytes, size_t len, size_t size)
{
	if (size == 0) {
		(void)fuse_reply_xattr(req, len); /* nobody to tell, here and below */
	} else if (size < len) {
		(void)fuse_reply_err(req, ERANGE);
	} else {
		(void)fuse_reply_buf(req, bytes, len);
	}
}

static void file_getxattr(
	struct fs *fs, fuse_req_t req, struct inode *inode, const char *name, size_t size)
{
	struct core_lock_info info = {.mode = CORE_FREE};
	struct core_lock_info now;
	enum lock_xattr x = 0;
	char text[32];
	int len;

	while (x < XATTR_MAX_ && strcmp(xattr_names[x], name) != 0) {
		x++;
	}
	if (core_lock_info(fs->o.core, lock_inode_name(lock_inode_of(inode)), &now)) {
		info = now;
	}
	len = xattr_text(x, &info, text, sizeof(text));
	if (len < 0) {
		(void)fuse_reply_err(req, -len); /* nobody to tell */
	} else {
		reply_xattr(req, text, (size_t)len, size);
	}
}

static void file_listxattr(struct fs *fs, fuse_req_t req, struct inode *inode, size_t size)
{
	char list[128];
	size_t len = 0;
	size_t i;

	(void)fs;
	(void)inode;
	for (i = 0; i < XATTR_MAX_; i++) {
		size_t n = strlen(xattr_names[i]) + 1;

		ASSERT(len + n <= sizeof(list));
		memcpy(list + len, xattr_names[i], n);
		len += n;
	}
	reply_xattr(req, list, len, size);
}

const struct inode_ops lock_file_ops = {
	.getattr = file_getattr,
	.forget = file_forget,
	.setattr = file_setattr,
	.getxattr = file_getxattr,
	.listxattr = file_listxattr,
	.open = file_open,
	.release = file_release,
	.read = file_read,
	.write = file_write,
	.fsync = file_fsync,
	.flush = file_flush,
	.getlk = file_getlk,
	.setlk = file_setlk,
	.flock = file_flock,
	.poll = file_poll,
};
