/*
 * wal_file.c - system calls on files that know their names.
 *
 * Everything that fails here ends up as the last line of a log, so each error
 * names the file, the operation and the reason. Nothing is retried but EINTR
 * and the rest of a partial write; a sync least of all, because after a
 * failed one the kernel may have dropped the pages and the next one succeeds.
 */
#include "core/io/wal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int wal_error_set(struct wal_error *e, int code, const char *fmt, ...)
{
	va_list args;

	e->code = code;
	va_start(args, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, args); /* cut if too long: a path may be */
	va_end(args);
	return code;
}

int wal_damage(struct wal_error *e, const struct wal_dir *dir, const char *name, uint64_t offset,
	const char *fmt, ...)
{
	char what[256];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, args); /* cut if too long */
	va_end(args);
	return wal_error_set(
		e, -EUCLEAN, "%s/%s: offset %" PRIu64 ": %s", dir->path, name, offset, what);
}

int wal_error_sys(struct wal_error *e, const struct wal_dir *dir, const char *name,
	const char *operation, int error)
{
	return wal_error_set(
		e, -error, "%s/%s: %s: %s", dir->path, name, operation, strerror(error));
}

bool wal_error_is_space(int code)
{
	return code == -ENOSPC || code == -EDQUOT;
}

int wal_file_open(const struct wal_dir *dir, const char *name, int flags, struct wal_file *ret_file,
	struct wal_error *e)
{
	struct wal_file f = {.dir = dir};

	(void)snprintf(f.name, sizeof(f.name), "%s", name);
	f.fd = openat(dir->fd, name, flags | O_CLOEXEC, 0600);
	if (f.fd < 0) {
		return wal_error_sys(e, dir, name, "open", errno);
	}
	*ret_file = f;
	return 0;
}

void wal_file_close(struct wal_file *f)
{
	if (f->fd >= 0) {
		(void)close(f->fd); /* what counts was synced before */
		f->fd = -1;
	}
}

int wal_file_size(const struct wal_file *f, uint64_t *ret_bytes, struct wal_error *e)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0) {
		return wal_error_sys(e, f->dir, f->name, "stat", errno);
	}
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int wal_file_read(const struct wal_file *f, void *buf, size_t len, uint64_t offset, size_t *ret_got,
	struct wal_error *e)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = pread(f->fd, (char *)buf + got, len - got, (off_t)(offset + got));

		if (n < 0 && errno != EINTR) {
			return wal_error_sys(e, f->dir, f->name, "read", errno);
		}
		if (n == 0) {
			break;
		}
		got += n > 0 ? (size_t)n : 0;
	}
	*ret_got = got;
	return 0;
}

int wal_file_write(
	const struct wal_file *f, const void *buf, size_t len, uint64_t offset, struct wal_error *e)
{
	size_t put = 0;

	while (put < len) {
		ssize_t n =
			pwrite(f->fd, (const char *)buf + put, len - put, (off_t)(offset + put));

		if (n < 0 && errno != EINTR) {
			return wal_error_sys(e, f->dir, f->name, "write", errno);
		}
		if (n == 0) {
			return wal_error_sys(e, f->dir, f->name, "write", EIO);
		}
		put += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int wal_file_zero(const struct wal_file *f, uint64_t from, uint64_t to, struct wal_error *e)
{
	static const uint8_t zeros[256 << 10];
	int rc = 0;

	while (from < to && rc == 0) {
		size_t len = (size_t)MIN(to - from, sizeof(zeros));

		rc = wal_file_write(f, zeros, len, from, e);
		from += len;
	}
	return rc;
}

int wal_file_sync(const struct wal_file *f, struct wal_error *e)
{
	if (fdatasync(f->fd) < 0) {
		return wal_error_sys(e, f->dir, f->name, "fdatasync", errno);
	}
	return 0;
}

int wal_file_rename(
	const struct wal_dir *dir, const char *from, const char *to, struct wal_error *e)
{
	if (renameat(dir->fd, from, dir->fd, to) < 0) {
		return wal_error_sys(e, dir, from, "rename", errno);
	}
	return 0;
}

int wal_file_unlink(const struct wal_dir *dir, const char *name, struct wal_error *e)
{
	if (unlinkat(dir->fd, name, 0) < 0) {
		return wal_error_sys(e, dir, name, "unlink", errno);
	}
	return 0;
}

int wal_dir_sync(const struct wal_dir *dir, struct wal_error *e)
{
	if (fsync(dir->fd) < 0) {
		return wal_error_sys(e, dir, ".", "fsync", errno);
	}
	return 0;
}

int wal_dir_sync_log(const struct wal_dir *dir, struct wal_error *e)
{
	if (fsync(dir->log_fd) < 0) {
		return wal_error_sys(e, dir, "log", "fsync", errno);
	}
	return 0;
}
