/*
 * snapshots_file.h - one snapshot file: its format, writing and reading it.
 *
 * Blocking, and about one file at a time: called by snapshots.c from uv's thread
 * pool, or at start. Nothing here knows the loop.
 *
 *   "coordsnp"                       8 bytes
 *   HEADER  format, index, term, packed wire.RaftConfig
 *   BLOCK   up to SNAP_BLOCK_BYTES of the payload, any number of times
 *   END     payload's length
 *
 * HEADER, BLOCK and END are records: {u32 kind, u32 bytes, u64 check} and that
 * many bytes, little-endian. The check is XXH3 of kind, bytes and data, seeded
 * with the check of the record before (0 at first). So END seals the whole
 * file, and damage is found, with its offset, as soon as it is read.
 */
#ifndef COORDFS_IO_SNAPSHOTS_FILE_H
#define COORDFS_IO_SNAPSHOTS_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Raised when an older reader would misread the file. */
#define SNAP_FORMAT 1u
#define SNAP_BLOCK_BYTES (256u << 10)     /* arbitrary: what is read before it can be trusted */
#define SNAP_CONFIG_BYTES_MAX (64u << 10) /* above RAFT_SERVERS_MAX addresses of RAFT_ADDR_MAX */
#define SNAP_NAME_MAX 48                  /* two numbers of 20 digits, "-", NUL */
#define SNAP_TMP_OWN "tmp-own"
#define SNAP_TMP_LEADER "tmp-leader"

/* Where snapshots are, and where a sentence about an error goes. */
struct snap_dir {
	int fd;
	char *path; /* owned; for error texts */
};
struct snap_err {
	char *text;
	size_t size;
};

struct snap_id {
	uint64_t index; /* 0: none */
	uint64_t term;
};

/* "<index>-<term>" */
void snap_name(struct snap_id id, char ret_name[SNAP_NAME_MAX]);
/* -EINVAL: not the name of a snapshot. */
int snap_name_parse(const char *name, struct snap_id *ret_id);

/* A file being written under a temporary name. */
struct snap_file {
	const struct snap_dir *dir;
	const char *name; /* static */
	int fd;           /* -1: not open */
	uint64_t size;
	uint64_t check; /* of the last record */
	uint64_t payload_bytes;
	uint64_t flushed; /* bytes known to have reached the disk */
};

/*
 * All of these return 0 or a negative errno with a sentence in `err`. After an
 * error the file can only be closed.
 */
/* Empty, whatever was there before. */
int snap_file_create(
	struct snap_file *f, const struct snap_dir *dir, const char *name, struct snap_err err);
int snap_file_write_header(struct snap_file *f, struct snap_id id, const void *config,
	size_t config_len, struct snap_err err);
int snap_file_write_payload(struct snap_file *f, const void *data, size_t len, struct snap_err err);
int snap_file_write_end(struct snap_file *f, struct snap_err err);
/* Bytes of a file that another node wrote. */
int snap_file_write_raw(struct snap_file *f, const void *data, size_t len, struct snap_err err);
/* Sync, rename to its own name, sync the directory, close. */
int snap_file_publish(struct snap_file *f, struct snap_id id, struct snap_err err);
/* Remove and close. Accepts one that is not open. */
void snap_file_discard(struct snap_file *f);
/* Who has the file open sees it shrink, but only after it is unlinked (st_nlink 0). */
int snap_dir_remove(const struct snap_dir *dir, const char *name);

/* What a walk over a file meets. Members may be NULL. Borrowed for the call; a negative errno
 * ends the walk. */
struct snap_visitor {
	void *ctx;
	int (*header)(void *ctx, const void *config, size_t config_len);
	int (*piece)(void *ctx, const void *data, size_t len);
};

/*
 * Read a whole file, from `fd` (not closed; `name` is for error texts).
 * -EUCLEAN: it is damaged, or not the snapshot `id`; `err` names file and offset. What
 * the visitor has seen before that is as it was written.
 */
int snap_file_walk(const struct snap_dir *dir, int fd, const char *name, struct snap_id id,
	const struct snap_visitor *visitor, uint64_t *ret_payload_bytes, struct snap_err err);
/* The same for the snapshot `id` in `dir`. */
int snap_dir_walk(const struct snap_dir *dir, struct snap_id id, const struct snap_visitor *visitor,
	uint64_t *ret_payload_bytes, struct snap_err err);

/* Puts "dir/name: doing: error" in `err` and returns `error`, a negative errno. */
int snap_error(const struct snap_dir *dir, const char *name, const char *doing, int error,
	struct snap_err err);

#endif
