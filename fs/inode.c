/*
 * inode.c - see inode.h.
 */
#include "fs/inode.h"

#include <errno.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "coordfs/util.h"

int lock_name_errno(const char *name)
{
	if (strlen(name) > CORE_NAME_MAX) {
		return ENAMETOOLONG;
	}
	return strchr(name, '@') != NULL ? EINVAL : 0;
}

struct lock_inode *lock_inode_of_name(struct fs *fs, struct core_name name)
{
	struct lock_inode *l;

	HASH_FIND(hh, fs->lock_inodes, name.bytes, name.len, l);
	return l;
}

struct lock_inode *lock_inode_find(struct fs *fs, const char *name)
{
	return lock_inode_of_name(fs, (struct core_name){.bytes = name, .len = strlen(name)});
}

struct lock_inode *lock_inode_get(struct fs *fs, const char *name, uid_t creator)
{
	struct lock_inode *l = lock_inode_find(fs, name);

	if (l == NULL) {
		l = xcalloc(1, sizeof(*l));
		l->inode.ops = &lock_file_ops;
		l->name_len = strlen(name);
		ASSERT(l->name_len <= CORE_NAME_MAX);
		memcpy(l->name, name, l->name_len);
		l->inode.st_ino = lock_st_ino(name, l->name_len);
		l->creator = creator;
		(void)clock_gettime(CLOCK_REALTIME, &l->created); /* cannot fail */
		HASH_ADD_KEYPTR(hh, fs->lock_inodes, l->name, l->name_len, l);
	}
	l->nlookup++;
	return l;
}

static void free_if_unknown(struct fs *fs, struct lock_inode *l)
{
	if (l->nlookup == 0 && l->handles == NULL) {
		HASH_DEL(fs->lock_inodes, l);
		free(l);
	}
}

void lock_inode_forget(struct fs *fs, struct lock_inode *l, uint64_t nlookup)
{
	/* The kernel never forgets more than it looked up; if it does, zero is the answer. */
	l->nlookup -= MIN(nlookup, l->nlookup);
	free_if_unknown(fs, l);
}

void lock_inode_closed(struct fs *fs, struct lock_inode *l)
{
	free_if_unknown(fs, l);
}

uint64_t lock_st_ino(const void *name, size_t len)
{
	/* Away from the small numbers of the fixed tree. */
	return XXH3_64bits(name, len) | UINT64_C(1) << 32;
}

void lock_inode_stat(struct fs *fs, const struct lock_inode *l, uid_t asker, struct stat *ret_st)
{
	struct core_lock_info info;
	uid_t owner = l->creator;

	*ret_st = (struct stat){
		.st_ino = l->inode.st_ino,
		.st_mode = S_IFREG | 0666,
		.st_nlink = 1,
		.st_gid = fs->gid,
		.st_blksize = CORE_LOCK_VALUE_MAX,
		.st_mtim = l->created,
	};
	if (core_lock_info(fs->o.core, lock_inode_name(l), &info)) {
		owner = info.uid;
		ret_st->st_size = (off_t)info.value_len;
		ret_st->st_mtim.tv_sec = (time_t)(info.since_unix_ms / 1000);
		ret_st->st_mtim.tv_nsec = (long)(info.since_unix_ms % 1000) * 1000000;
	}
	ret_st->st_uid = owner == asker ? owner : fs->uid;
	ret_st->st_blocks = (ret_st->st_size + 511) / 512;
	ret_st->st_atim = ret_st->st_mtim;
	ret_st->st_ctim = ret_st->st_mtim;
}
