/*
 * status.c - status/: the core's reports as files to read.
 *
 * The text is made when a file is opened and stays with that descriptor, so a
 * reader sees one moment however it reads. The size is that of the text made last,
 * which is the reader's own unless another came in between: direct I/O makes every
 * reader ask until the end, whatever the size says.
 */
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "coordfs/util.h"
#include "fs/dir.h"

struct report_text {
	size_t len;
	char *text; /* owned */
};

static struct report *report_of(const struct inode *inode)
{
	return CONTAINER_OF(inode, struct report, inode);
}

void report_stat(struct fs *fs, const struct inode *inode, struct stat *ret_st)
{
	const struct report *r = report_of(inode);

	fixed_stat(fs, inode, S_IFREG | 0444, 1, ret_st);
	ret_st->st_size = (off_t)r->len;
	ret_st->st_blocks = (ret_st->st_size + 511) / 512;
	ret_st->st_mtim = r->made;
	ret_st->st_ctim = r->made;
}

static void report_getattr(struct fs *fs, fuse_req_t req, struct inode *inode)
{
	struct stat st;

	report_stat(fs, inode, &st);
	(void)fuse_reply_attr(req, &st, 0); /* nobody to tell */
}

static void text_free(struct report_text *t)
{
	free(t->text);
	free(t);
}

static void report_open(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	struct report *r = report_of(inode);
	struct report_text *t;
	char *text;

	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		(void)fuse_reply_err(req, EACCES); /* root, whom the mode does not stop */
		return;
	}
	text = core_report(fs->o.core, (enum core_report)(r - fs->reports));
	if (text == NULL) {
		(void)fuse_reply_err(req, EIO); /* nothing was opened */
		return;
	}
	t = xmalloc(sizeof(*t));
	*t = (struct report_text){.len = strlen(text), .text = text};
	r->len = t->len;
	(void)clock_gettime(CLOCK_REALTIME, &r->made); /* cannot fail */
	fi->fh = (uintptr_t)t;
	fi->direct_io = 1;
	if (fuse_reply_open(req, fi) != 0) {
		text_free(t); /* the open was interrupted: no RELEASE will come */
	}
}

static void report_read(struct fs *fs, fuse_req_t req, struct inode *inode, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	const struct report_text *t = (struct report_text *)(uintptr_t)fi->fh;
	size_t from = off < 0 ? t->len : MIN((size_t)off, t->len);

	(void)fs;
	(void)inode;
	(void)fuse_reply_buf(req, t->text + from, MIN(size, t->len - from)); /* nobody to tell */
}

static void report_release(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	(void)fs;
	(void)inode;
	text_free((struct report_text *)(uintptr_t)fi->fh);
	(void)fuse_reply_err(req, 0); /* nobody waits for it */
}

static void report_setattr(struct fs *fs, fuse_req_t req, struct inode *inode, struct stat *attr,
	int to_set, struct fuse_file_info *fi)
{
	(void)fs;
	(void)inode;
	(void)attr;
	(void)to_set;
	(void)fi;
	(void)fuse_reply_err(req, EACCES); /* nothing has changed */
}

const struct inode_ops report_ops = {
	.getattr = report_getattr,
	.setattr = report_setattr,
	.open = report_open,
	.read = report_read,
	.release = report_release,
};
