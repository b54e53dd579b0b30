/*
 * locks.c - locks/: names come and go with the locks, opening takes nothing.
 *
 * A name is there while its lock is held or waited for; creating always works and
 * gives the inode of the name, so every idiom of flock(1) and the shell does. No
 * entry is cached: each path walk asks, from memory.
 *
 * To whom a lock belongs. The directory is sticky, and there the kernel lets
 * only a file's owner rm it, and (fs.protected_regular, on by default in many systems)
 * only its owner open it with O_CREAT, root included, unless it belongs to the
 * directory's owner. A lock that belonged to its holder's user could not be asked for by any
 * other user; one that did not could not be removed by its holder at the end of a
 * script. So it is shown as the asking user's own if that user holds it, and as the
 * directory owner's to everybody else.
 */
#include <errno.h>
#include <fcntl.h>

#include "coordfs/util.h"
#include "fs/dir.h"
#include "fs/handle.h"

static void locks_getattr(struct fs *fs, fuse_req_t req, struct inode *inode)
{
	struct stat st;

	fixed_stat(fs, inode, PUBLIC_DIR_MODE, 2, &st);
	(void)fuse_reply_attr(req, &st, FIXED_TREE_TIMEOUT_S); /* nobody to tell */
}

static void entry_of(
	struct fs *fs, fuse_req_t req, struct lock_inode *l, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){.ino = (fuse_ino_t)(uintptr_t)&l->inode};
	lock_inode_stat(fs, l, fuse_req_ctx(req)->uid, &ret_entry->attr);
}

static void locks_lookup(struct fs *fs, fuse_req_t req, struct inode *dir, const char *name)
{
	struct core_name cname = {.bytes = name, .len = strlen(name)};
	struct fuse_entry_param entry;
	struct core_lock_info info;
	struct lock_inode *l;
	int bad = lock_name_errno(name);

	(void)dir;
	if (bad == 0 && !core_lock_info(fs->o.core, cname, &info)) {
		bad = ENOENT;
	}
	if (bad != 0) {
		(void)fuse_reply_err(req, bad); /* nothing was looked up */
		return;
	}
	l = lock_inode_get(fs, name, fuse_req_ctx(req)->uid);
	entry_of(fs, req, l, &entry);
	if (fuse_reply_entry(req, &entry) != 0) {
		lock_inode_forget(fs, l, 1); /* the kernel never saw it */
	}
}

static void locks_create(struct fs *fs, fuse_req_t req, struct inode *dir, const char *name,
	struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;
	struct lock_handle *h;
	struct lock_inode *l;
	int bad = lock_name_errno(name);

	(void)dir;
	if (bad == 0 && (fi->flags & O_EXCL) != 0) {
		bad = EOPNOTSUPP; /* would have to take the lock: not in this release */
	}
	if (bad != 0) {
		(void)fuse_reply_err(req, bad); /* nothing was created */
		return;
	}
	l = lock_inode_get(fs, name, fuse_req_ctx(req)->uid);
	h = lock_handle_new(fs, l, (uint32_t)fuse_req_ctx(req)->pid);
	fi->fh = (uintptr_t)h;
	fi->direct_io = 1;
	entry_of(fs, req, l, &entry);
	if (fuse_reply_create(req, &entry, fi) != 0) {
		lock_handle_close(fs, h); /* interrupted: neither RELEASE nor FORGET will come */
		lock_inode_forget(fs, l, 1);
	}
}

static bool is_held_here(void *arg, const struct core_holder *holder)
{
	bool *ret_here = arg;

	*ret_here = *ret_here || holder->here;
	return !*ret_here;
}

/* A script's `rm -f` at the end: the name goes with the lock, not before. */
static void locks_unlink(struct fs *fs, fuse_req_t req, struct inode *dir, const char *name)
{
	struct core_name cname = {.bytes = name, .len = strlen(name)};
	struct core_lock_info info;
	bool here = false;
	int answer = lock_name_errno(name);

	(void)dir;
	if (answer != 0) {
		(void)fuse_reply_err(req, answer); /* nothing was removed */
		return;
	}
	if (core_lock_info(fs->o.core, cname, &info) && info.mode != CORE_FREE) {
		core_lock_holders(fs->o.core, cname, is_held_here, &here);
		answer = here ? 0 : EBUSY;
	} else {
		answer = lock_inode_find(fs, name) != NULL ? 0 : ENOENT;
	}
	(void)fuse_reply_err(req, answer); /* nothing has changed */
}

/* The offset that continues after a name is the core's cursor, after those of the dots. */
static void locks_readdir(struct fs *fs, fuse_req_t req, struct inode *dir, size_t size, off_t off)
{
	uint64_t cursor = (uint64_t)MAX(off - 2, 0);
	char text[CORE_NAME_MAX + 1];
	struct core_name name;
	struct dir_listing l;
	bool room;

	dir_listing_begin(&l, req, size);
	room = dir_listing_add_dots(&l, dir, off);
	while (room && core_lock_next(fs->o.core, &cursor, &name)) {
		memcpy(text, name.bytes, name.len);
		text[name.len] = '\0';
		room = dir_listing_add(
			&l, text, lock_st_ino(text, name.len), S_IFREG, (off_t)(cursor + 2));
	}
	dir_listing_reply(&l);
}

const struct inode_ops locks_dir_ops = {
	.getattr = locks_getattr,
	.lookup = locks_lookup,
	.create = locks_create,
	.unlink = locks_unlink,
	.readdir = locks_readdir,
	.create_errno = EOPNOTSUPP, /* mkdir would have to take the lock: not in this release */
};
