/*
 * wal_internal.h - what the files of the log share; see the head of wal.c.
 *
 *   wal.c          the interface: queue, callbacks on the loop, open, create, close
 *   wal_writer.c   the thread that writes and syncs, in order
 *   wal_keeper.c   the low-priority thread: next segments, recycling, mark, reserve
 *   wal_recover.c  what is on the disk, and whether it is whole
 *   wal_format.c   segment headers, records, vote and mark: bytes and checksums
 *   wal_file.c     system calls on files that know their names
 *
 * Three threads, and what each may touch: the loop's thread has struct wal's
 * "loop" fields, the writer struct wal_writer, the keeper the "own" fields of
 * struct wal_keeper. They meet under wal.lock (jobs down, results up) and under
 * wal_keeper.lock (segments and the synced place); nobody holds both.
 */
#ifndef COORDFS_IO_WAL_INTERNAL_H
#define COORDFS_IO_WAL_INTERNAL_H

#include <stdatomic.h>

#include "core/io/wal.h"

/* --- errors and files (wal_file.c) ---------------------------------------------------------- */

struct wal_error {
	int code;
	char text[512];
};

/* Sets the sentence, returns `code`. */
int wal_error_set(struct wal_error *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

struct wal_dir {
	char *path; /* owned; as the operator knows it */
	int fd;
	int log_fd; /* of log/, -1: not open */
};

#define WAL_NAME_BYTES 40

/* fd -1: not open. `name` is relative to the directory, "log/0000000001.seg". */
struct wal_file {
	const struct wal_dir *dir; /* borrowed: lives as long as the wal */
	int fd;
	char name[WAL_NAME_BYTES];
};

/* -EUCLEAN, with "<file>: offset <n>: <what>". */
int wal_damage(struct wal_error *e, const struct wal_dir *dir, const char *name, uint64_t offset,
	const char *fmt, ...) PRINTF_LIKE(5, 6);
/* -error, with "<file>: <operation>: <strerror>". */
int wal_error_sys(struct wal_error *e, const struct wal_dir *dir, const char *name,
	const char *operation, int error);
bool wal_error_is_space(int code);

int wal_file_open(const struct wal_dir *dir, const char *name, int flags, struct wal_file *ret_file,
	struct wal_error *e);
void wal_file_close(struct wal_file *f);
int wal_file_size(const struct wal_file *f, uint64_t *ret_bytes, struct wal_error *e);
/* Reads what there is, up to `len`. */
int wal_file_read(const struct wal_file *f, void *buf, size_t len, uint64_t offset, size_t *ret_got,
	struct wal_error *e);
int wal_file_write(const struct wal_file *f, const void *buf, size_t len, uint64_t offset,
	struct wal_error *e);
int wal_file_zero(const struct wal_file *f, uint64_t from, uint64_t to, struct wal_error *e);
/* fdatasync, once: an error is final. */
int wal_file_sync(const struct wal_file *f, struct wal_error *e);
/* Neither is durable before wal_dir_sync(). */
int wal_file_rename(
	const struct wal_dir *dir, const char *from, const char *to, struct wal_error *e);
int wal_file_unlink(const struct wal_dir *dir, const char *name, struct wal_error *e);
int wal_dir_sync(const struct wal_dir *dir, struct wal_error *e);
int wal_dir_sync_log(const struct wal_dir *dir, struct wal_error *e);

/* --- format (wal_format.c) -------------------------------------------------------------------- */

#define WAL_HEADER_BYTES 4096u /* one block: the first record starts on the next */
#define WAL_RECORD_BYTES 56u   /* a record's header; the payload is padded to 8 */
#define WAL_RECORD_MAX (WAL_RECORD_BYTES + RAFT_ENTRY_BYTES_MAX)
#define WAL_SEGMENT_MIN (16u << 10)
#define WAL_SEGMENT_MAX (1u << 30) /* offsets in records are 32 bits */

void wal_segment_name(uint64_t number, char ret_name[WAL_NAME_BYTES]);
void wal_spare_name(uint64_t number, char ret_name[WAL_NAME_BYTES]);

struct wal_header {
	uint64_t number;     /* of the file's name: a header belongs to one file */
	uint64_t bytes;      /* of the file */
	uint64_t prev_index; /* the log's last entry when the segment was begun */
	uint64_t prev_term;
	uint64_t prev_end; /* where the segment before ends */
	uint64_t prev_sum; /* and the checksum of its last record */
	bool reset;        /* wal_reset(): what came before is forgotten */
};

/* `buf` has WAL_HEADER_BYTES. Returns the checksum, which the first record is chained to. */
uint64_t wal_header_encode(const struct wal_header *h, uint8_t *buf);
bool wal_header_decode(const uint8_t *buf, struct wal_header *ret_header, uint64_t *ret_sum);

/* Entries' kinds are those of raft shifted by one: a zeroed header is no record. */
enum wal_kind {
	WAL_NOOP = 1,
	WAL_COMMAND = 2,
	WAL_CONFIG = 3,
	WAL_TRUNCATE = 16, /* no payload: the log ends at (index, term) now */
};

struct wal_record {
	uint64_t index;
	uint64_t term;
	uint64_t segment; /* where it is: a record belongs to one place */
	uint32_t offset;
	uint32_t synced; /* the segment was durable up to here before this was written */
	uint32_t len;
	uint8_t kind;  /* enum wal_kind; as read, not checked */
	uint64_t prev; /* the checksum before, which seeds this one */
	uint64_t sum;
};

size_t wal_record_size(uint32_t len);
/* Writes wal_record_size() bytes and sets `r->sum`. */
void wal_record_encode(struct wal_record *r, const void *data, uint8_t *buf);
void wal_record_decode(const uint8_t *buf, struct wal_record *ret_record);
/* Does the checksum match what `buf` (header and payload) holds? */
bool wal_record_whole(const struct wal_record *r, const uint8_t *buf);

/*
 * A few numbers in a file of their own, twice. A write goes to one slot, is
 * synced, goes to the other slot, is synced, and only then is it reported. So a
 * crash at any moment leaves a whole slot, and damage to one slot leaves the
 * other, which holds all that was ever reported.
 */
#define WAL_TWIN_VALUES 4

struct wal_twin {
	struct wal_file file;
	uint64_t gen;
	uint64_t v[WAL_TWIN_VALUES];
};

enum wal_twin_kind {
	WAL_TWIN_VOTE,
	WAL_TWIN_MARK
};
#define WAL_VOTE_FILE "vote"
#define WAL_MARK_FILE "mark"
#define WAL_RESERVE_FILE "reserve"

/* -ENOENT; -EUCLEAN: both slots are damaged. ret_repaired: one was, and is written again. */
int wal_twin_open(const struct wal_dir *dir, enum wal_twin_kind kind, struct wal_twin *ret_twin,
	bool *ret_repaired, struct wal_error *e);
/* Make the file anew, aside, and rename it; durable. */
int wal_twin_create(const struct wal_dir *dir, enum wal_twin_kind kind,
	const uint64_t v[WAL_TWIN_VALUES], struct wal_error *e);
int wal_twin_write(struct wal_twin *t, enum wal_twin_kind kind, const uint64_t v[WAL_TWIN_VALUES],
	struct wal_error *e);

/* --- the keeper (wal_keeper.c) -------------------------------------------------------------- */

/* A place in the log: the end of a record, and its checksum. */
struct wal_place {
	uint64_t segment;
	uint64_t offset;
	uint64_t sum;
};

/* The mark: every log found later reaches from `first` to `place` at least. */
enum {
	WAL_MARK_FIRST,
	WAL_MARK_SEGMENT,
	WAL_MARK_OFFSET,
	WAL_MARK_SUM
};
/* The vote. */
enum {
	WAL_VOTE_TERM,
	WAL_VOTE_VOTE
};

#define WAL_READY_MAX 2 /* segments prepared ahead; two, so that one turnover never waits */
#define WAL_SPARE_MAX 2 /* recycled files kept beyond those */

struct wal_ready {
	uint64_t number;
	struct wal_file file;
};

struct wal_keeper {
	uv_thread_t thread;
	uv_mutex_t lock;
	uv_cond_t wake;   /* the keeper waits for work */
	uv_cond_t handed; /* the writer waits for a segment */

	/* under `lock` */
	struct wal_place synced;
	uint64_t synced_ns; /* when */
	uint64_t first;     /* segments before it are no longer needed */
	struct wal_ready ready[WAL_READY_MAX];
	size_t n_ready;
	bool exhausted; /* no segment ready, and no room for one */
	bool broken;    /* the keeper has ended with an error */
	bool stop;
	bool asleep; /* waits without a timeout */

	/* own */
	struct wal_twin mark;
	uint64_t oldest; /* segments from here to mark.first are leftovers to recycle */
	uint64_t next;   /* number of the next segment to prepare */
	uint64_t spares[WAL_SPARE_MAX];
	size_t n_spares;
	uint64_t reserve_bytes; /* that the file has now */
	bool low;
	uint64_t retry_ns; /* no attempt to get space before */
};

int wal_keeper_start(struct wal *w);
/* From the writer: `place` is durable. */
void wal_keeper_synced(struct wal *w, const struct wal_place *place);
/* From the writer: segments before `first` may go. */
void wal_keeper_release(struct wal *w, uint64_t first);
/* From the writer: the next segment. Waits for it. -ENOSPC, -EPIPE: the keeper has failed. */
int wal_keeper_take(struct wal *w, struct wal_ready *ret_ready, struct wal_error *e);
/* Writes the last mark, ends and joins the thread. */
void wal_keeper_stop(struct wal *w);
/* A whole file of zeros, durable; `stop` (may be NULL) ends it early with -ECANCELED. */
int wal_make_zeroed(const struct wal_dir *dir, const char *name, uint64_t bytes,
	bool (*stop)(void *ctx), void *ctx, struct wal_file *ret_file, struct wal_error *e);
/* Bring the reserve to `bytes`. */
int wal_reserve_resize(const struct wal_dir *dir, uint64_t bytes, struct wal_error *e);

/* --- the writer (wal_writer.c) -------------------------------------------------------------- */

enum wal_job_kind {
	WAL_JOB_APPEND,
	WAL_JOB_TRUNCATE, /* the log ends at (a, b) = (index, term) now */
	WAL_JOB_VOTE,     /* (a, b) = (term, vote) */
	WAL_JOB_RESET,    /* (a, b) = (index, term) */
	WAL_JOB_COMPACT,  /* a = first index needed */
	WAL_JOB_CLOSE,
};

struct wal_job {
	struct wal_job *prev, *next; /* utlist: queue, then the writer's lists, then done */
	enum wal_job_kind kind;
	bool ok; /* carried out; else the log has failed before */
	uint64_t gen;
	uint64_t a, b;
	size_t n;
	struct raft_entry *entries[]; /* one reference each */
};

struct wal_writer {
	uv_thread_t thread;
	struct wal_file file; /* the current segment */
	uint64_t number;
	uint64_t bytes;  /* of the file */
	uint64_t synced; /* durable up to here */
	uint64_t sum;    /* of the last record, written or in buf */
	uint64_t last_index;
	uint64_t last_term;

	uint8_t *buf; /* what is to be written at buf_at */
	uint64_t buf_at;
	size_t buf_len;
	struct wal_job *encoded; /* in buf, or done with the next sync */

	/* Segments first … number: the largest index that each has ever held. */
	uint64_t first;
	uint64_t *max_index;
	size_t n_live;
	size_t cap_live;

	struct wal_twin vote;
};

/* Note a segment after the last one. */
void wal_writer_add_live(struct wal_writer *wr, uint64_t max_index);
int wal_writer_start(struct wal *w);

/* --- the whole ------------------------------------------------------------------------------ */

/* Indexes from `first` on have `term`, up to the next run. */
struct wal_run {
	uint64_t first;
	uint64_t term;
};

struct wal {
	/* fixed */
	struct wal_dir dir;
	uint64_t segment_bytes;
	uint64_t reserve_bytes;
	size_t batch_bytes;
	int bell_fd; /* an eventfd; not a uv_async_t: see wal_ring() */
	struct wal_events events;
	struct tracer trace;

	/* loop */
	uv_poll_t bell;
	uint64_t last_index;  /* of what was queued */
	struct wal_run *runs; /* owned; terms of the log, for truncations */
	size_t n_runs, cap_runs;
	bool low_reported;
	bool fail_reported;
	bool closing;
	void (*closed)(void *ctx);
	void *closed_ctx;

	uv_mutex_t lock;
	uv_cond_t wake; /* the writer waits for jobs */
	/* under `lock` */
	struct wal_job *queue;
	struct wal_job *done;
	struct wal_error failure; /* code 0: none */
	bool low;
	bool finished; /* the writer has ended */

	struct wal_writer writer;
	struct wal_keeper keeper;

	_Atomic uint64_t bytes_written, syncs, segments, sync_us_sum, sync_us_max;
};

/* From any thread: there is news for the loop. Not uv_async_send(), for whose end the woken loop
 * spins: where the wake-up takes the sender's processor, that is tens of microseconds, of each
 * commit. */
void wal_ring(struct wal *w);
/* From any thread: the first error counts, the loop is told. */
void wal_fail(struct wal *w, const struct wal_error *e);
bool wal_failed(struct wal *w);
void wal_set_low(struct wal *w, bool low);

/* Fills `r`, and the places in w->writer and w->keeper where the log goes on. */
int wal_recover(struct wal *w, struct wal_recovered *r, struct wal_error *e);

#endif
