/*
 * snapshots_fixture.h - snapshot files on a real file system and a real loop.
 *
 * Two nodes, "ours" and "theirs", with a directory each. The system calls that
 * make a file durable are wrapped to fail on request (see meson.build).
 */
#ifndef COORDFS_TESTS_SNAPSHOTS_FIXTURE_H
#define COORDFS_TESTS_SNAPSHOTS_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/io/snapshots.h"
#include "coordfs/util.h"

/* --- system calls that fail on request ---------------------------------------------------- */

/* fails_in n: the n-th call from now fails with `error`; 0: none does. Calls come from the pool. */
struct failing {
	atomic_int fails_in;
	int error;
};
static struct failing failing_fsync;
static struct failing failing_write;
static struct failing failing_flush;

static inline bool fails(struct failing *f)
{
	if (atomic_load(&f->fails_in) > 0 && atomic_fetch_sub(&f->fails_in, 1) == 1) {
		errno = f->error;
		return true;
	}
	return false;
}

static inline void fail_call(struct failing *f, int nth, int error)
{
	f->error = error;
	atomic_store(&f->fails_in, nth);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	return fails(&failing_fsync) ? -1 : __real_fsync(fd);
}

int __real_sync_file_range(int fd, off_t offset, off_t len, unsigned flags);
int __wrap_sync_file_range(int fd, off_t offset, off_t len, unsigned flags);
int __wrap_sync_file_range(int fd, off_t offset, off_t len, unsigned flags)
{
	return fails(&failing_flush) ? -1 : __real_sync_file_range(fd, offset, len, flags);
}

/* With 64-bit off_t asked for, pwrite is called by this other name. */
ssize_t __real_pwrite(int fd, const void *data, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset)
{
	return fails(&failing_write) ? -1 : __real_pwrite(fd, data, len, offset);
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t len, off_t offset)
{
	return __wrap_pwrite(fd, data, len, offset);
}

/* --- nodes ---------------------------------------------------------------------------------- */

struct node {
	uv_loop_t *loop;
	char dir[128];
	struct snapshots *s;
	struct snap_meta meta;
	char err[512];
	bool closed;
	unsigned n_events;

	unsigned n_written;
	size_t buffered;
	unsigned n_done;
	uint64_t done_index;

	unsigned n_received;
	uint64_t received_from;
	uint64_t received_index;
	uint64_t next_offset;
	bool installed;

	unsigned n_chunks;
	uint64_t chunk_offset;
	uint8_t *chunk; /* owned */
	size_t chunk_len;
	uint64_t total;
	int chunk_error;

	unsigned n_failed;
	int failed_error;
	char failed_text[512];

	uint8_t *loaded; /* owned */
	size_t loaded_len;
};

struct fixture {
	uv_loop_t loop;
	char root[64];
	struct node ours;
	struct node theirs;
};

static inline void on_own_written(void *ctx, size_t buffered)
{
	struct node *n = ctx;

	n->n_events++;
	n->n_written++;
	n->buffered = buffered;
}

static inline void on_own_done(void *ctx, uint64_t index)
{
	struct node *n = ctx;

	n->n_events++;
	n->n_done++;
	n->done_index = index;
}

static inline void on_received(
	void *ctx, uint64_t from, uint64_t index, uint64_t next_offset, bool done)
{
	struct node *n = ctx;

	n->n_events++;
	n->n_received++;
	n->received_from = from;
	n->received_index = index;
	n->next_offset = next_offset;
	n->installed = done;
}

static inline void on_chunk(void *ctx, uint64_t to, uint64_t index, uint64_t offset,
	const void *data, size_t len, uint64_t total, int error)
{
	struct node *n = ctx;

	n->n_events++;
	n->n_chunks++;
	n->chunk_offset = offset;
	free(n->chunk);
	n->chunk = xmemdup(data, len);
	n->chunk_len = len;
	n->total = total;
	n->chunk_error = error;
}

static inline void on_failed(void *ctx, int error, const char *text)
{
	struct node *n = ctx;

	n->n_events++;
	n->n_failed++;
	n->failed_error = error;
	(void)snprintf(n->failed_text, sizeof n->failed_text, "%s", text);
}

static inline void on_closed(void *ctx)
{
	struct node *n = ctx;

	n->s = NULL;
	n->closed = true;
}

static inline int try_open(struct node *n)
{
	const struct tracer silent = {0};
	const struct snap_events events = {
		.ctx = n,
		.own_written = on_own_written,
		.own_done = on_own_done,
		.received = on_received,
		.chunk = on_chunk,
		.failed = on_failed,
	};

	n->err[0] = '\0';
	n->closed = false;
	free(TAKE(n->meta.config));
	return snapshots_open(
		n->loop, n->dir, &events, &silent, &n->s, &n->meta, n->err, sizeof n->err);
}

static inline void open_node(struct node *n)
{
	assert_int_equal(try_open(n), 0);
}

#define WAIT_FOR(n, fact)                                                                          \
	do {                                                                                       \
		while (!(fact)) {                                                                  \
			assert_true(uv_run((n)->loop, UV_RUN_ONCE) != 0 || (fact));                \
		}                                                                                  \
	} while (0)

static inline void close_node(struct node *n)
{
	if (n->s != NULL) {
		snapshots_close(n->s, on_closed, n);
		assert_false(n->closed); /* never from inside the call */
		WAIT_FOR(n, n->closed);
	}
}

static inline void reopen(struct node *n)
{
	close_node(n);
	open_node(n);
}

/* Until nothing runs any more. */
static inline void settle(struct node *n)
{
	(void)uv_run(n->loop, UV_RUN_DEFAULT);
}

/* --- files -------------------------------------------------------------------------------- */

static inline char *path_of(const struct node *n, const char *name)
{
	static char path[256];

	(void)snprintf(path, sizeof path, "%s/snap/%s", n->dir, name);
	return path;
}

static inline bool exists(const struct node *n, const char *name)
{
	return access(path_of(n, name), F_OK) == 0;
}

static inline size_t count_files(const struct node *n)
{
	DIR *d = opendir(path_of(n, ""));
	size_t count = 0;
	const struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		count += e->d_name[0] != '.';
	}
	(void)closedir(d);
	return count;
}

static inline uint8_t *read_file(const struct node *n, const char *name, size_t *ret_len)
{
	FILE *f = fopen(path_of(n, name), "rb");
	struct stat st;
	uint8_t *data;

	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &st), 0);
	data = xmalloc((size_t)st.st_size);
	*ret_len = fread(data, 1, (size_t)st.st_size, f);
	assert_int_equal(*ret_len, st.st_size);
	(void)fclose(f);
	return data;
}

static inline void write_file(const struct node *n, const char *name, const void *data, size_t len)
{
	FILE *f = fopen(path_of(n, name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* --- verbs ----------------------------------------------------------------------------------- */

#define CONFIG "packed configuration"

/* Bytes that differ from place to place and from one `salt` to the next. */
static inline uint8_t *payload(size_t len, uint32_t salt)
{
	uint8_t *p = xmalloc(len);
	uint32_t x = salt * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = (uint8_t)(x >> 24);
	}
	return p;
}

static inline void append(struct node *n, size_t len, uint32_t salt)
{
	uint8_t *p = payload(len, salt);

	snapshots_own_append(n->s, p, len);
	free(p);
}

static inline void begin(struct node *n, uint64_t index)
{
	snapshots_own_begin(n->s, index, 7, CONFIG, sizeof CONFIG);
}

static inline void take_snapshot(struct node *n, uint64_t index, size_t len)
{
	unsigned before = n->n_done;

	begin(n, index);
	append(n, len, (uint32_t)index);
	snapshots_own_finish(n->s);
	assert_int_equal(n->n_done, before); /* never from inside the call */
	WAIT_FOR(n, n->n_done > before);
	assert_int_equal(n->done_index, index);
}

static inline int keep_piece(void *ctx, const void *data, size_t len)
{
	struct node *n = ctx;

	n->loaded = xrealloc(n->loaded, n->loaded_len + len);
	memcpy(n->loaded + n->loaded_len, data, len);
	n->loaded_len += len;
	return 0;
}

static inline int load(struct node *n)
{
	free(TAKE(n->loaded));
	n->loaded_len = 0;
	return snapshots_load(n->s, keep_piece, n, n->err, sizeof n->err);
}

static inline void assert_loads(struct node *n, size_t len, uint32_t salt)
{
	uint8_t *p = payload(len, salt);

	assert_int_equal(load(n), 0);
	assert_int_equal(n->loaded_len, len);
	if (len > 0) {
		assert_memory_equal(n->loaded, p, len);
	}
	free(p);
}

/* What `to` says of it is known when this returns. */
static inline void send_chunk(struct node *to, uint64_t from, uint64_t index, uint64_t offset,
	const void *data, size_t len, bool last)
{
	unsigned before = to->n_received;

	snapshots_receive(to->s, from, index, 7, offset, data, len, last);
	assert_int_equal(to->n_received, before); /* never from inside the call */
	WAIT_FOR(to, to->n_received > before || to->n_failed > 0);
}

static inline void read_chunk(struct node *n, uint64_t index, uint64_t offset, size_t max)
{
	unsigned before = n->n_chunks;

	snapshots_read(n->s, 2, index, offset, max);
	assert_int_equal(n->n_chunks, before); /* never from inside the call */
	WAIT_FOR(n, n->n_chunks > before);
}

static inline void transfer(
	struct node *from, struct node *to, uint64_t index, uint64_t offset, size_t max)
{
	do {
		read_chunk(from, index, offset, max);
		assert_int_equal(from->chunk_error, 0);
		assert_int_equal(from->chunk_offset, offset);
		send_chunk(to, 1, index, offset, from->chunk, from->chunk_len,
			offset + from->chunk_len == from->total);
		offset += from->chunk_len;
		assert_int_equal(to->next_offset, offset);
	} while (offset < from->total);
}

static inline void assert_failed(struct node *n, int error, const char *word)
{
	WAIT_FOR(n, n->n_failed > 0);
	settle(n);
	assert_int_equal(n->n_failed, 1);
	assert_int_equal(n->failed_error, error);
	assert_non_null(strstr(n->failed_text, word));
	assert_non_null(strstr(n->failed_text, "/snap/"));
	assert_non_null(strstr(n->failed_text, strerror(-error)));
}

static inline void assert_damaged(struct node *n, const char *name)
{
	assert_int_equal(try_open(n), -EUCLEAN);
	assert_non_null(strstr(n->err, name));
	assert_non_null(strstr(n->err, "offset "));
}

/* --- fixture -------------------------------------------------------------------------------- */

static inline void init_node(struct fixture *f, struct node *n, const char *name)
{
	n->loop = &f->loop;
	(void)snprintf(n->dir, sizeof n->dir, "%s/%s", f->root, name);
	assert_int_equal(mkdir(n->dir, 0700), 0);
	open_node(n);
}

static inline int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	const char *tmp = getenv("TMPDIR");

	assert_int_equal(uv_loop_init(&f->loop), 0);
	(void)snprintf(f->root, sizeof f->root, "%s/snapshots.XXXXXX", tmp != NULL ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->root));
	init_node(f, &f->ours, "ours");
	init_node(f, &f->theirs, "theirs");
	*state = f;
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline void fini_node(struct node *n)
{
	close_node(n);
	free(n->meta.config);
	free(n->chunk);
	free(n->loaded);
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	fini_node(&f->ours);
	fini_node(&f->theirs);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	assert_int_equal(nftw(f->root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	fail_call(&failing_fsync, 0, 0);
	fail_call(&failing_write, 0, 0);
	fail_call(&failing_flush, 0, 0);
	free(f);
	return 0;
}

#define SNAP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
