/*
 * dir.c - the part of the tree that never changes: the root, status/ and, as long
 * as nothing can be in them, queues/ and cache/. Everything here is answered from
 * memory at once, whatever the cluster does, and the kernel may cache it.
 */
#include "fs/dir.h"

#include <errno.h>

#include "coordfs/util.h"

enum {
	INO_ROOT = FUSE_ROOT_ID,
	INO_QUEUES,
	INO_CACHE,
	INO_STATUS,
	INO_LOCKS,
	INO_REPORTS, /* and one for each report */
};

void fixed_stat(
	struct fs *fs, const struct inode *inode, mode_t mode, nlink_t nlink, struct stat *ret_st)
{
	*ret_st = (struct stat){
		.st_ino = inode->st_ino,
		.st_mode = mode,
		.st_nlink = nlink,
		.st_uid = fs->uid,
		.st_gid = fs->gid,
		.st_blksize = 4096,
		.st_atim = fs->born,
		.st_mtim = fs->born,
		.st_ctim = fs->born,
	};
}

void dir_listing_begin(struct dir_listing *l, fuse_req_t req, size_t size)
{
	*l = (struct dir_listing){.req = req, .buf = xmalloc(size), .size = size};
}

bool dir_listing_add(
	struct dir_listing *l, const char *name, uint64_t st_ino, mode_t type, off_t next)
{
	struct stat st = {.st_ino = st_ino, .st_mode = type};
	size_t room = l->size - l->used;
	size_t need = fuse_add_direntry(l->req, l->buf + l->used, room, name, &st, next);

	if (need > room) {
		return false;
	}
	l->used += need;
	return true;
}

bool dir_listing_add_dots(struct dir_listing *l, const struct inode *dir, off_t off)
{
	if (off < 1 && !dir_listing_add(l, ".", dir->st_ino, S_IFDIR, 1)) {
		return false;
	}
	return off >= 2 || dir_listing_add(l, "..", INO_ROOT, S_IFDIR, 2);
}

void dir_listing_reply(struct dir_listing *l)
{
	(void)fuse_reply_buf(l->req, l->buf, l->used); /* nobody to tell if the caller is gone */
	free(TAKE(l->buf));
}

static struct fixed_dir *fixed_dir_of(struct inode *inode)
{
	return CONTAINER_OF(inode, struct fixed_dir, inode);
}

static void child_stat(struct fs *fs, const struct fixed_entry *e, struct stat *ret_st)
{
	if (S_ISREG(e->type)) {
		report_stat(fs, e->inode, ret_st);
	} else if (e->inode == &fs->locks) {
		fixed_stat(fs, e->inode, PUBLIC_DIR_MODE, 2, ret_st);
	} else {
		fixed_stat(fs, e->inode, fixed_dir_of(e->inode)->mode, 2, ret_st);
	}
}

static void fixed_lookup(struct fs *fs, fuse_req_t req, struct inode *inode, const char *name)
{
	const struct fixed_dir *dir = fixed_dir_of(inode);
	size_t i;

	for (i = 0; i < dir->n_entries; i++) {
		const struct fixed_entry *e = &dir->entries[i];
		struct fuse_entry_param entry = {
			.ino = (fuse_ino_t)(uintptr_t)e->inode,
			.entry_timeout = FIXED_TREE_TIMEOUT_S,
		};

		if (strcmp(e->name, name) == 0) {
			child_stat(fs, e, &entry.attr);
			entry.attr_timeout = S_ISREG(e->type) ? 0 : FIXED_TREE_TIMEOUT_S;
			(void)fuse_reply_entry(req, &entry); /* not counted, so nothing to undo */
			return;
		}
	}
	(void)fuse_reply_err(req, ENOENT);
}

static void fixed_readdir(
	struct fs *fs, fuse_req_t req, struct inode *inode, size_t size, off_t off)
{
	const struct fixed_dir *dir = fixed_dir_of(inode);
	struct dir_listing l;
	bool room;
	off_t i;

	(void)fs;
	dir_listing_begin(&l, req, size);
	room = dir_listing_add_dots(&l, inode, off);
	for (i = MAX(off - 2, 0); room && i < (off_t)dir->n_entries; i++) {
		const struct fixed_entry *e = &dir->entries[i];

		room = dir_listing_add(&l, e->name, e->inode->st_ino, e->type, i + 3);
	}
	dir_listing_reply(&l);
}

static void fixed_getattr(struct fs *fs, fuse_req_t req, struct inode *inode)
{
	const struct fixed_dir *dir = fixed_dir_of(inode);
	struct stat st;

	fixed_stat(fs, inode, dir->mode, inode == &fs->root.inode ? 2 + CHILD_MAX_ : 2, &st);
	(void)fuse_reply_attr(req, &st, FIXED_TREE_TIMEOUT_S); /* nobody to tell */
}

const struct inode_ops root_ops = {
	.lookup = fixed_lookup,
	.readdir = fixed_readdir,
	.getattr = fixed_getattr,
	.create_errno = EPERM,
};

/* A queue or value cannot be made in this release. */
const struct inode_ops empty_dir_ops = {
	.lookup = fixed_lookup,
	.readdir = fixed_readdir,
	.getattr = fixed_getattr,
	.create_errno = EOPNOTSUPP,
};

const struct inode_ops status_dir_ops = {
	.lookup = fixed_lookup,
	.readdir = fixed_readdir,
	.getattr = fixed_getattr,
	.create_errno = EACCES,
};

void fixed_tree_init(struct fs *fs)
{
	size_t i;

	fs->locks = (struct inode){&locks_dir_ops, INO_LOCKS};
	fs->queues = (struct fixed_dir){{&empty_dir_ops, INO_QUEUES}, PUBLIC_DIR_MODE, NULL, 0};
	fs->cache = (struct fixed_dir){{&empty_dir_ops, INO_CACHE}, PUBLIC_DIR_MODE, NULL, 0};
	fs->status = (struct fixed_dir){{&status_dir_ops, INO_STATUS}, S_IFDIR | 0755,
		fs->status_entries, CORE_REPORT_MAX_ + 1};
	fs->root = (struct fixed_dir){
		{&root_ops, INO_ROOT}, S_IFDIR | 0755, fs->root_entries, CHILD_MAX_};

	fs->root_entries[CHILD_LOCKS] = (struct fixed_entry){"locks", &fs->locks, S_IFDIR};
	fs->root_entries[CHILD_QUEUES] = (struct fixed_entry){"queues", &fs->queues.inode, S_IFDIR};
	fs->root_entries[CHILD_CACHE] = (struct fixed_entry){"cache", &fs->cache.inode, S_IFDIR};
	fs->root_entries[CHILD_STATUS] = (struct fixed_entry){"status", &fs->status.inode, S_IFDIR};
	for (i = 0; i < CORE_REPORT_MAX_; i++) {
		fs->reports[i] = (struct report){{&report_ops, INO_REPORTS + i}, 0, fs->born};
		fs->status_entries[i] = (struct fixed_entry){
			core_report_name((enum core_report)i), &fs->reports[i].inode, S_IFREG};
	}
	fs->events = (struct report){{&events_ops, INO_REPORTS + CORE_REPORT_MAX_}, 0, fs->born};
	fs->status_entries[CORE_REPORT_MAX_] =
		(struct fixed_entry){"events", &fs->events.inode, S_IFREG};
}
