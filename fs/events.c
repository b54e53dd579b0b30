/*
 * events.c - status/events: a file that goes on for ever.
 *
 * Each open is a stream of its own: it begins with what happens from then on, a read waits for the
 * next line, and the end is never reached. Who first asks where the end is (lseek to SEEK_END,
 * as tail(1) does) gets the events that are still kept as the file's beginning, so that `tail`
 * shows the last ones and `tail -f` goes on from there.
 *
 * Programs that read lines on a file they can seek in read ahead and seek back (head, read of the
 * shell), so a stream keeps what it gave until a read at a later offset shows that it is done with:
 *
 *   0           base             given           base + len
 *   | forgotten | may be read again | not yet given | not yet asked of the core
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "fs/dir.h"

/* A blocked read, where the kernel ends the mount for requests that take too long, gets this. */
#define IDLE_LINE "{\"event\":\"events.idle\"}\n"
/* What tail(1), which asks the size each second, is told to be there when something is: more than
 * it will find, for the rest has not been written yet. Arbitrary. */
#define UNWRITTEN_BYTES 65536

/* A read that waits. */
struct stream_read {
	struct stream *stream;
	fuse_req_t req;
	uint64_t off;
	size_t size;
	bool armed; /* an interrupt may be acted upon */
	bool interrupted;
	struct stream_read *prev, *next; /* stream->reads */
};

struct stream {
	struct fs *fs;
	struct core_events *reader; /* owned */
	bool begun;
	uint64_t kept_end; /* the kept events, if they were asked for, end here */
	uint64_t base;
	uint64_t given;
	char *text; /* owned */
	size_t len;
	size_t cap;
	struct stream_read *reads;      /* owned; oldest first */
	struct fuse_pollhandle *poller; /* owned */
	struct stream *prev, *next;     /* fs->streams */
};

static struct stream *stream_of(const struct fuse_file_info *fi)
{
	return (struct stream *)(uintptr_t)fi->fh;
}

/* --- text ----------------------------------------------------------------------------------- */

static uint64_t stream_end(const struct stream *s)
{
	return s->base + s->len;
}

static void stream_append(struct stream *s, const char *text, size_t len)
{
	if (s->cap - s->len < len) {
		s->cap = MAX(2 * s->cap, s->len + len);
		s->text = xrealloc(s->text, s->cap);
	}
	memcpy(s->text + s->len, text, len);
	s->len += len;
}

/* Writes what has happened until there are `bytes` from `from` on, or nothing more happened. */
static void stream_fill(struct stream *s, uint64_t from, size_t bytes)
{
	const char *line;
	size_t len;

	while (stream_end(s) < from + bytes && (len = core_events_next(s->reader, &line)) > 0) {
		stream_append(s, line, len);
	}
}

/* Nobody will read what is before `off`; beyond the end there is nothing to skip. */
static void stream_forget(struct stream *s, uint64_t off)
{
	size_t gone = (size_t)MIN(off - MIN(off, s->base), s->len);

	if (gone > 0) {
		memmove(s->text, s->text + gone, s->len - gone);
		s->len -= gone;
	}
	s->base = MAX(s->base, off);
}

/* Whole lines, if one fits. */
static size_t cut(const char *text, size_t len)
{
	const char *last = memrchr(text, '\n', len);

	return last == NULL ? len : (size_t)(last - text) + 1;
}

/* --- reading -------------------------------------------------------------------------------- */

/* Answers if there is anything. */
static bool answer_read(struct stream *s, fuse_req_t req, uint64_t off, size_t size)
{
	uint64_t from;
	size_t n;

	if (off >= s->kept_end) {
		stream_forget(s, off);
	}
	from = MAX(off, s->base);
	stream_fill(s, from, size);
	n = (size_t)MIN(stream_end(s) - MIN(from, stream_end(s)), size);
	if (n == 0) {
		return false;
	}
	if (off >= s->kept_end) {
		n = cut(s->text + (from - s->base), n);
	}
	s->given = off + n;
	/* Who was interrupted just now reads the same again. */
	(void)fuse_reply_buf(req, s->text + (from - s->base), n);
	return true;
}

static void read_end(struct stream_read *r)
{
	DL_DELETE(r->stream->reads, r);
	free(r);
}

static void read_refuse(struct stream_read *r, int answer)
{
	(void)fuse_reply_err(r->req, answer); /* a caller that is gone has lost nothing */
	read_end(r);
}

static void read_interrupted(fuse_req_t req, void *data)
{
	struct stream_read *r = data;

	(void)req;
	r->interrupted = true;
	if (r->armed) {
		read_refuse(r, EINTR);
	}
}

static void read_wait(struct stream *s, fuse_req_t req, uint64_t off, size_t size)
{
	struct stream_read *r = xcalloc(1, sizeof(*r));

	r->stream = s;
	r->req = req;
	r->off = off;
	r->size = size;
	fuse_req_interrupt_func(req, read_interrupted, r);
	if (r->interrupted) {
		(void)fuse_reply_err(req, EINTR); /* that is what it wanted to hear */
		free(r);
		return;
	}
	r->armed = true;
	DL_APPEND(s->reads, r);
}

static void events_read(struct fs *fs, fuse_req_t req, struct inode *inode, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct stream *s = stream_of(fi);
	uint64_t from = (uint64_t)MAX(off, 0);

	(void)fs;
	(void)inode;
	s->begun = true;
	if (size == 0) {
		(void)fuse_reply_buf(req, NULL, 0); /* nobody to tell */
	} else if (answer_read(s, req, from, size)) {
		return;
	} else if ((fi->flags & O_NONBLOCK) != 0) {
		(void)fuse_reply_err(req, EAGAIN); /* nothing has changed */
	} else {
		read_wait(s, req, from, size);
	}
}

static void answer_reads(struct stream *s)
{
	struct stream_read *r, *next;

	DL_FOREACH_SAFE (s->reads, r, next) {
		if (answer_read(s, r->req, r->off, r->size)) {
			read_end(r);
		}
	}
}

static bool stream_has_more(struct stream *s)
{
	return core_events_pending(s->reader) || s->given < stream_end(s);
}

static void events_poll(struct fs *fs, fuse_req_t req, struct inode *inode,
	struct fuse_pollhandle *ph, struct fuse_file_info *fi)
{
	struct stream *s = stream_of(fi);

	(void)fs;
	(void)inode;
	if (ph != NULL) {
		if (s->poller != NULL) {
			fuse_pollhandle_destroy(s->poller); /* the new one is of the same file */
		}
		s->poller = ph;
	}
	(void)fuse_reply_poll(req, stream_has_more(s) ? POLLIN | POLLRDNORM : 0);
}

/* From the core, outside any request. */
static void on_wake(void *arg)
{
	struct stream *s = arg;

	(void)clock_gettime(CLOCK_REALTIME, &s->fs->events.made); /* cannot fail */
	answer_reads(s);
	if (s->poller != NULL) {
		(void)fuse_lowlevel_notify_poll(s->poller); /* -ENOENT: nobody polls any more */
		fuse_pollhandle_destroy(TAKE(s->poller));
	}
}

/* --- opening and closing -------------------------------------------------------------------- */

static void on_idle(uv_timer_t *timer)
{
	struct fs *fs = timer->data;
	struct stream *s;

	DL_FOREACH (fs->streams, s) {
		if (s->reads != NULL) {
			stream_append(s, IDLE_LINE, strlen(IDLE_LINE));
			answer_reads(s);
		}
	}
}

static void stream_close(struct fs *fs, struct stream *s)
{
	while (s->reads != NULL) {
		read_refuse(s->reads, ESHUTDOWN);
	}
	if (s->poller != NULL) {
		fuse_pollhandle_destroy(s->poller);
	}
	DL_DELETE(fs->streams, s);
	core_events_close(s->reader);
	free(s->text);
	free(s);
	if (fs->streams == NULL) {
		(void)uv_timer_stop(&fs->idle); /* cannot fail */
	}
}

static void events_open(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	struct stream *s;

	(void)inode;
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		(void)fuse_reply_err(req, EACCES); /* root, whom the mode does not stop */
		return;
	}
	s = xcalloc(1, sizeof(*s));
	s->fs = fs;
	s->reader = core_events_open(fs->o.core, on_wake, s);
	DL_APPEND(fs->streams, s);
	if (fs->answer_within_ms != 0 && !uv_is_active((uv_handle_t *)&fs->idle)) {
		/* Fails only while it closes, when nobody opens any more. */
		(void)uv_timer_start(
			&fs->idle, on_idle, fs->answer_within_ms, fs->answer_within_ms);
	}
	fi->fh = (uintptr_t)s;
	fi->direct_io = 1;
	if (fuse_reply_open(req, fi) != 0) {
		stream_close(fs, s); /* interrupted: no RELEASE will come */
	}
}

static void events_release(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	(void)inode;
	stream_close(fs, stream_of(fi));
	(void)fuse_reply_err(req, 0); /* nobody waits for it */
}

void streams_shutdown(struct fs *fs)
{
	while (fs->streams != NULL) {
		stream_close(fs, fs->streams);
	}
}

/* --- attributes ----------------------------------------------------------------------------- */

static void reply_attr(struct fs *fs, fuse_req_t req, const struct inode *inode, uint64_t size)
{
	struct stat st;

	fs->events.len = (size_t)size;
	report_stat(fs, inode, &st);
	(void)fuse_reply_attr(req, &st, 0); /* nobody to tell */
}

/* fstat(2) does not say on which descriptor it was called: none is told too little. */
static void events_getattr(struct fs *fs, fuse_req_t req, struct inode *inode)
{
	struct stream *s;
	uint64_t size = 0;

	DL_FOREACH (fs->streams, s) {
		uint64_t more = core_events_pending(s->reader) ? UNWRITTEN_BYTES : 0;

		size = MAX(size, stream_end(s) + more);
	}
	reply_attr(fs, req, inode, size);
}

/* lseek(2) to the end does. */
static void events_getattr_open(
	struct fs *fs, fuse_req_t req, struct inode *inode, struct fuse_file_info *fi)
{
	struct stream *s = stream_of(fi);

	if (!s->begun) {
		s->begun = true;
		core_events_rewind(s->reader);
		stream_fill(s, 0, SIZE_MAX);
		s->kept_end = stream_end(s);
		s->given = s->kept_end;
	}
	reply_attr(fs, req, inode, stream_end(s));
}

static void events_setattr(struct fs *fs, fuse_req_t req, struct inode *inode, struct stat *attr,
	int to_set, struct fuse_file_info *fi)
{
	(void)fs;
	(void)inode;
	(void)attr;
	(void)to_set;
	(void)fi;
	(void)fuse_reply_err(req, EACCES); /* nothing has changed */
}

const struct inode_ops events_ops = {
	.getattr = events_getattr,
	.getattr_open = events_getattr_open,
	.setattr = events_setattr,
	.open = events_open,
	.release = events_release,
	.read = events_read,
	.poll = events_poll,
};
