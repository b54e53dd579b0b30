/*
 * snapshots_peer.c - snapshot files from and to other nodes.
 *
 * Receiving: chunks queue up; one job at a time writes the first to
 * snap/tmp-leader and, after the last chunk, reads the whole file back before it is
 * synced and renamed. A chunk that does not follow on what is there is answered
 * with the offset that would, so that the leader resumes. Files differ between
 * nodes in their bytes, so a transfer belongs to one leader.
 * A file that arrives damaged is dropped and asked for again from offset 0.
 *
 * Sending: each read opens the file by its name, so there is nothing to keep
 * in step when a newer one replaces it; a read that finds its file unlinked at
 * the end is stale.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "core/io/snapshots_internal.h"
#include "coordfs/util.h"

/* Leaders wait for each answer; more than a few are repetitions. Arbitrary. */
#define CHUNKS_MAX 16
/* Of one read; arbitrary, above raft's snapshot_chunk_bytes and below a frame. */
#define READ_BYTES_MAX (1u << 20)
/* Raft asks once for each peer and waits; arbitrary, above RAFT_SERVERS_MAX. */
#define READS_MAX 256

/* --- receiving ------------------------------------------------------------------------------- */

enum chunk_fate {
	CHUNK_FIRST,    /* starts over */
	CHUNK_FOLLOWS,  /* on what is there */
	CHUNK_MISPLACED /* is answered only */
};

struct snap_chunk {
	struct snap_chunk *prev, *next; /* snapshots.chunks */
	struct snap_job job;
	struct snap_file *file; /* lent to the job: snapshots.incoming */
	uint64_t from;
	struct snap_id id;
	uint64_t offset;
	bool last;
	enum chunk_fate fate;
	bool damaged; /* the whole file is, says job.text */
	size_t len;
	uint8_t data[];
};

static void chunk_remove(struct snapshots *s, struct snap_chunk *c)
{
	DL_DELETE(s->chunks, c);
	s->n_chunks--;
	free(c);
}

void snap_chunks_fini(struct snapshots *s)
{
	while (s->chunks != NULL) {
		chunk_remove(s, s->chunks);
	}
	snap_file_discard(&s->incoming);
}

/* The last chunk is written: check the whole and give it its name. */
static int accept_file(struct snap_chunk *c, const struct snap_dir *dir, struct snap_err err)
{
	const struct snap_visitor nothing = {0};
	int rc = snap_file_walk(dir, c->file->fd, c->file->name, c->id, &nothing, NULL, err);

	if (rc == -EUCLEAN) {
		c->damaged = true;
		snap_file_discard(c->file);
		return 0;
	}
	return rc < 0 ? rc : snap_file_publish(c->file, c->id, err);
}

static void chunk_work(struct snap_job *j)
{
	struct snap_chunk *c = CONTAINER_OF(j, struct snap_chunk, job);
	struct snap_err err = snap_job_err(j);

	if (c->fate == CHUNK_MISPLACED) {
		return;
	}
	if (c->fate == CHUNK_FIRST) {
		snap_file_discard(c->file);
		j->error = snap_file_create(c->file, &j->s->dir, SNAP_TMP_LEADER, err);
	}
	if (j->error == 0) {
		j->error = snap_file_write_raw(c->file, c->data, c->len, err);
	}
	if (j->error == 0 && c->last) {
		j->error = accept_file(c, &j->s->dir, err);
	}
}

static bool chunk_is_of_transfer(const struct snapshots *s, const struct snap_chunk *c)
{
	return s->incoming.fd >= 0 && s->incoming_from == c->from &&
	       s->incoming_id.index == c->id.index && s->incoming_id.term == c->id.term;
}

static void chunk_answer(struct snapshots *s, const struct snap_chunk *c)
{
	bool done = c->last && c->fate != CHUNK_MISPLACED && !c->damaged;
	uint64_t next = chunk_is_of_transfer(s, c) ? s->incoming.size : 0;

	if (c->damaged) {
		TRACE(&s->trace, TRACE_ERROR, "snapshot.refused", "from=%" PRIu64 " error=\"%s\"",
			c->from, c->job.text);
	}
	if (done) {
		next = c->offset + c->len;
		snap_adopt(s, c->id, true);
	}
	s->events.received(s->events.ctx, c->from, c->id.index, next, done);
}

static void chunk_worked(struct snap_job *j)
{
	struct snap_chunk *c = CONTAINER_OF(j, struct snap_chunk, job);
	struct snapshots *s = j->s;

	s->chunk_busy = false;
	DL_DELETE(s->chunks, c);
	s->n_chunks--;
	if (j->error < 0) {
		snap_fail(s, j);
	}
	if (!snap_quiet(s)) {
		chunk_answer(s, c);
	}
	free(c);
}

static void chunk_start(struct snapshots *s, struct snap_chunk *c)
{
	if (c->offset == 0) {
		c->fate = CHUNK_FIRST;
		s->incoming_from = c->from;
		s->incoming_id = c->id;
	} else if (chunk_is_of_transfer(s, c) && c->offset == s->incoming.size) {
		c->fate = CHUNK_FOLLOWS;
	} else {
		c->fate = CHUNK_MISPLACED;
	}
	c->file = &s->incoming;
	s->chunk_busy = true;
	snap_job_start(s, &c->job, chunk_work, chunk_worked);
}

void snap_chunks_run(struct snapshots *s)
{
	while (s->chunks != NULL && !s->chunk_busy && !snap_quiet(s)) {
		struct snap_chunk *c = s->chunks;

		if (c->id.index < s->newest.index) { /* what it would bring is here already */
			TRACE(&s->trace, TRACE_DEBUG, "snapshot.old_chunk",
				"from=%" PRIu64 " index=%" PRIu64, c->from, c->id.index);
			chunk_remove(s, c);
		} else {
			chunk_start(s, c);
		}
	}
}

void snapshots_receive(struct snapshots *s, uint64_t from, uint64_t index, uint64_t term,
	uint64_t offset, const void *data, size_t len, bool done)
{
	struct snap_chunk *c;

	if (snap_quiet(s) || s->n_chunks >= CHUNKS_MAX) {
		return; /* the leader asks again */
	}
	c = xcalloc(1, sizeof *c + len);
	c->from = from;
	c->id = (struct snap_id){.index = index, .term = term};
	c->offset = offset;
	c->last = done;
	c->len = len;
	if (len > 0) {
		memcpy(c->data, data, len);
	}
	DL_APPEND(s->chunks, c);
	s->n_chunks++;
	snap_chunks_run(s);
}

/* --- sending -------------------------------------------------------------------------------- */

struct read_job {
	struct snap_job job;
	uint64_t to;
	struct snap_id id;
	bool is_newest;
	uint64_t offset;
	size_t max;
	uint64_t total;
	size_t len;
	uint8_t *data; /* owned */
};

static int read_all(int fd, uint8_t *to, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t n = pread(fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		to += n;
		offset += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_from(struct read_job *r, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	r->total = (uint64_t)st.st_size;
	if (r->offset >= r->total) {
		return -ESTALE; /* a peer wants what never was */
	}
	r->len = (size_t)MIN(r->total - r->offset, r->max);
	r->data = xmalloc(r->len);
	return read_all(fd, r->data, r->len, r->offset);
}

static bool is_unlinked(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_nlink == 0;
}

static void read_work(struct snap_job *j)
{
	struct read_job *r = CONTAINER_OF(j, struct read_job, job);
	char name[SNAP_NAME_MAX];
	int fd;

	if (!r->is_newest) {
		j->error = -ESTALE;
		return;
	}
	snap_name(r->id, name);
	fd = openat(j->s->dir.fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		j->error = errno == ENOENT ? -ESTALE : -errno; /* replaced meanwhile */
		return;
	}
	j->error = read_from(r, fd);
	if (is_unlinked(fd)) {
		j->error = -ESTALE; /* and it may have been shorter already than it was */
	}
	(void)close(fd); /* read only */
}

static void read_done(struct snap_job *j)
{
	struct read_job *r = CONTAINER_OF(j, struct read_job, job);
	struct snapshots *s = j->s;

	s->n_reads--;
	if (j->error < 0 && j->error != -ESTALE) {
		TRACE(&s->trace, TRACE_WARN, "snapshot.read", "index=%" PRIu64 " error=\"%s\"",
			r->id.index, strerror(-j->error));
	}
	if (!snap_quiet(s)) {
		s->events.chunk(s->events.ctx, r->to, r->id.index, r->offset,
			j->error < 0 ? NULL : r->data, j->error < 0 ? 0 : r->len, r->total,
			j->error);
	}
	free(r->data);
	free(r);
}

void snapshots_read(struct snapshots *s, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
	struct read_job *r;

	if (snap_quiet(s)) {
		return;
	}
	if (s->n_reads >= READS_MAX) {
		TRACE(&s->trace, TRACE_WARN, "snapshot.reads", "to=%" PRIu64 " too many, ignoring",
			to);
		return;
	}
	r = xcalloc(1, sizeof *r);
	r->to = to;
	r->id = (struct snap_id){.index = index, .term = s->newest.term};
	r->is_newest = index == s->newest.index && index != 0;
	r->offset = offset;
	r->max = MIN(max, READ_BYTES_MAX);
	s->n_reads++;
	snap_job_start(s, &r->job, read_work, read_done);
}
