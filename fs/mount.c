/*
 * mount.c - see mount.h.
 *
 * mount_open() runs before the loop serves, so it may block. What is mounted already is looked up
 * in /proc/self/mountinfo before it is touched: a mount of a former life does not answer.
 */
#include "fs/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_log.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coordfs/util.h"

#define FS_TYPE "fuse.coordfs"
#define HANDSHAKE_MS 10000          /* arbitrary; the kernel's INIT is there at once */
#define MAX_STALE 16                /* arbitrary: mounts of former lives stacked on one directory */
#define KERNEL_CHECK_S 15           /* FUSE_TIMEOUT_TIMER_FREQ of the kernel */
#define REQUEST_MARGIN_MAX_MS 10000 /* arbitrary: a loop that stands for longer is not well */

/* libfuse explains a failed mount in its log only. */
static char last_log[256];

static void keep_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)vsnprintf(last_log, sizeof(last_log), fmt, ap);
	last_log[strcspn(last_log, "\n")] = '\0';
}

/* mountinfo writes blanks, tabs, newlines and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	while (*s != '\0') {
		unsigned int c;

		if (s[0] == '\\' && sscanf(s + 1, "%3o", &c) == 1) {
			*to++ = (char)c;
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* Is the topmost mount on `path` one of our type? */
static bool is_our_mount(const char *path)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP(freep) char *line = NULL;
	size_t size = 0;
	bool ours = false;

	if (f == NULL) {
		return false;
	}
	while (getline(&line, &size, f) > 0) {
		CLEANUP(freep) char *at = NULL;
		CLEANUP(freep) char *type = NULL;

		/* 36 35 98:0 /root /mount/point options tags… - type source … */
		if (sscanf(line, "%*s %*s %*s %*s %ms", &at) != 1 || strstr(line, " - ") == NULL ||
			sscanf(strstr(line, " - "), " - %ms", &type) != 1) {
			continue;
		}
		unescape(at);
		if (strcmp(at, path) == 0) {
			ours = strcmp(type, FS_TYPE) == 0;
		}
	}
	(void)fclose(f); /* was only read */
	return ours;
}

/* The path's last component below its parent's true path. Does not touch what is mounted there. */
static int below_parent(const char *path, char **ret_path)
{
	CLEANUP(freep) char *copy = xstrdup(path);
	CLEANUP(freep) char *parent = NULL;
	size_t len = strlen(copy);
	const char *name;
	char *slash;
	size_t size;

	while (len > 1 && copy[len - 1] == '/') {
		copy[--len] = '\0';
	}
	slash = strrchr(copy, '/');
	name = slash == NULL ? copy : slash + 1;
	if (slash == NULL) {
		parent = realpath(".", NULL);
	} else {
		*slash = '\0';
		parent = realpath(slash == copy ? "/" : copy, NULL);
	}
	if (parent == NULL) {
		return -errno;
	}
	size = strlen(parent) + 1 + strlen(name) + 1;
	*ret_path = xmalloc(size);
	(void)snprintf(*ret_path, size, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name);
	return 0;
}

static int absolute_path(const char *path, char **ret_path)
{
	char *full = NULL;
	int rc;

	rc = below_parent(path, &full);
	if (rc < 0) {
		return rc;
	}
	if (!is_our_mount(full)) {
		/* Nothing of ours: then it may be a link to elsewhere. */
		free(full);
		full = realpath(path, NULL);
		if (full == NULL) {
			return -errno;
		}
	}
	*ret_path = full;
	return 0;
}

/* As a user, only the set-user-id helper may unmount. */
static int detach(const char *path)
{
	int status;
	pid_t pid;

	if (umount2(path, MNT_DETACH) == 0) {
		return 0;
	}
	if (errno != EPERM) {
		return -errno;
	}
	pid = fork();
	if (pid == 0) {
		(void)execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", path, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		return -errno;
	}
	return status == 0 ? 0 : -EPERM;
}

/* A mount without a daemon answers ENOTCONN (to statfs, which no cache answers). */
static bool is_dead(const char *path)
{
	struct statvfs st;

	return statvfs(path, &st) < 0 && errno == ENOTCONN;
}

/* What a killed daemon left behind. */
static int remove_stale(struct fs *fs, const char *path, char *err, size_t err_size)
{
	int i, rc;

	for (i = 0; i < MAX_STALE && is_our_mount(path); i++) {
		if (!is_dead(path)) {
			(void)snprintf(err, err_size,
				"%s is mounted by another coordd: stop that one, or choose another "
				"mount point",
				path);
			return -EBUSY;
		}
		rc = detach(path);
		if (rc < 0) {
			(void)snprintf(err, err_size,
				"cannot unmount what a former coordd left at %s (%s): run "
				"fusermount3 -uz %s",
				path, strerror(-rc), path);
			return rc;
		}
		TRACE(&fs->o.trace, TRACE_INFO, "fs.stale_unmounted", "path=%s", path);
	}
	return 0;
}

static int check_empty(const char *path, char *err, size_t err_size)
{
	const struct dirent *e;
	int rc = 0;
	DIR *d = opendir(path);

	if (d == NULL) {
		rc = -errno;
		(void)snprintf(
			err, err_size, "cannot use the mount point %s: %s", path, strerror(-rc));
		return rc;
	}
	while (rc == 0 && (e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
			(void)snprintf(err, err_size,
				"the mount point %s is not empty: choose an empty directory", path);
			rc = -ENOTEMPTY;
		}
	}
	(void)closedir(d); /* was only read */
	return rc;
}

static int check_device(char *err, size_t err_size)
{
	int rc = access("/dev/fuse", F_OK) == 0 ? 0 : -ENODEV;

	if (rc < 0) {
		(void)snprintf(err, err_size,
			"/dev/fuse is missing: load the fuse module (modprobe fuse), or give the "
			"container the device");
	}
	return rc;
}

static struct fuse_session *new_session(struct fs *fs)
{
	char options[128];
	char program[] = "coordd";
	char dash_o[] = "-o";
	char *argv[] = {program, dash_o, options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *se;

	(void)snprintf(options, sizeof(options),
		"fsname=coordfs,subtype=coordfs,default_permissions%s%s",
		fs->o.allow_other || geteuid() == 0 ? ",allow_other" : "",
		fs->o.read_only ? ",ro" : "");
	se = fuse_session_new(&args, &dispatch_ops, sizeof(dispatch_ops), fs);
	fuse_opt_free_args(&args);
	return se;
}

/* Answer the kernel's INIT, which it has sent by the time mount(2) returns. */
static int handshake(struct fs *fs)
{
	struct pollfd p = {.fd = fuse_session_fd(fs->se), .events = POLLIN};
	int n;

	fs->init_rc = 1;
	while (fs->init_rc == 1) {
		n = poll(&p, 1, HANDSHAKE_MS);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return -ETIMEDOUT;
		}
		n = fuse_session_receive_buf(fs->se, &fs->buf);
		if (n > 0) {
			fuse_session_process_buf(fs->se, &fs->buf);
		} else if (n != -EINTR && n != -EAGAIN) {
			return -ENODEV;
		}
		if (fs->init_rc == 1 && fuse_session_exited(fs->se)) {
			return -EPROTO; /* a kernel that libfuse does not speak to */
		}
	}
	return fs->init_rc;
}

static uint64_t read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0) {
		return 0; /* an older kernel has no such limit */
	}
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd); /* was only read */
	return n > 0 ? strtoull(text, NULL, 10) : 0;
}

/*
 * The kernel aborts the whole mount when one request takes longer than this, 0: it never does. It
 * read both numbers when it was answered INIT (init_server_timeout() in fs/fuse/inode.c, since
 * 6.15). Every 15 s it looks for requests that are over the limit, and takes a lower limit for 15
 * s.
 */
static uint64_t request_limit_s(void)
{
	uint64_t most = read_number("/proc/sys/fs/fuse/max_request_timeout");
	uint64_t usual = read_number("/proc/sys/fs/fuse/default_request_timeout");
	uint64_t limit_s = most != 0 && usual != 0 ? MIN(most, usual) : MAX(most, usual);

	return limit_s == 0 ? 0 : MAX(limit_s, KERNEL_CHECK_S);
}

/* A look of the kernel may come the moment after the limit, and its clock began to run before we
 * saw the request: a quarter is kept for that, as far as it can help. */
static void read_request_limit(struct fs *fs)
{
	uint64_t limit_ms = request_limit_s() * 1000;

	fs->answer_within_ms = limit_ms - MIN(limit_ms / 4, REQUEST_MARGIN_MAX_MS);
	if (limit_ms != 0) {
		TRACE(&fs->o.trace, TRACE_WARN, "fs.request_timeout",
			"limit_ms=%" PRIu64 " wait_ms=%" PRIu64
			" effect=\"a longer wait for a lock ends with ETIMEDOUT: set"
			" fs.fuse.max_request_timeout and default_request_timeout to 0\"",
			limit_ms, fs->answer_within_ms);
	}
}

static int mount_and_shake(struct fs *fs, char *err, size_t err_size)
{
	int rc;

	last_log[0] = '\0';
	fuse_set_log_func(keep_log);
	fs->se = new_session(fs);
	rc = fs->se == NULL ? -EINVAL : fuse_session_mount(fs->se, fs->o.mountpoint);
	fuse_set_log_func(NULL);
	if (rc != 0) {
		(void)snprintf(err, err_size, "cannot mount %s: %s", fs->o.mountpoint,
			last_log[0] != '\0' ? last_log : "see the message of fusermount3 above");
		return fs->se == NULL ? -EINVAL : -EPERM;
	}
	rc = handshake(fs);
	if (rc == -ENOTSUP) {
		(void)snprintf(err, err_size,
			"the kernel's FUSE lacks %s locks, without which locks/ cannot work",
			fs->init_lacks);
	} else if (rc < 0) {
		(void)snprintf(err, err_size, "the kernel's FUSE did not answer at %s: %s",
			fs->o.mountpoint, strerror(-rc));
	}
	if (rc < 0) {
		fuse_session_unmount(fs->se);
	}
	return rc;
}

int mount_open(struct fs *fs, char *err, size_t err_size)
{
	char *path = NULL;
	int rc;

	rc = absolute_path(fs->o.mountpoint, &path);
	if (rc < 0) {
		(void)snprintf(err, err_size, "cannot use the mount point %s: %s", fs->o.mountpoint,
			strerror(-rc));
		return rc;
	}
	free((char *)fs->o.mountpoint);
	fs->o.mountpoint = path;

	rc = remove_stale(fs, path, err, err_size);
	rc = rc < 0 ? rc : check_empty(path, err, err_size);
	rc = rc < 0 ? rc : check_device(err, err_size);
	rc = rc < 0 ? rc : mount_and_shake(fs, err, err_size);
	if (rc < 0) {
		if (fs->se != NULL) {
			fuse_session_destroy(TAKE(fs->se));
		}
		free(TAKE(fs->buf.mem));
		return rc;
	}
	read_request_limit(fs);
	return 0;
}

void mount_close(struct fs *fs)
{
	fuse_session_unmount(fs->se);
	fuse_session_destroy(TAKE(fs->se));
	free(TAKE(fs->buf.mem));
	/* libfuse leaves a mount alone whose connection was aborted. */
	if (is_our_mount(fs->o.mountpoint) && is_dead(fs->o.mountpoint)) {
		(void)detach(fs->o.mountpoint); /* then the next start takes it away */
	}
}
