/*
 * fuse_floor.c - an empty FUSE file system: every name is a file, every request is
 * answered at once, from one thread. What a lock costs here is what the kernel and the
 * way to a daemon and back cost; no file system behind FUSE can be faster.
 *
 *   bench-fuse-floor DIR      runs until it is told to stop or DIR is unmounted
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define CACHE_SECONDS 1.0

static struct stat attr_of(fuse_ino_t ino)
{
	return (struct stat){.st_ino = ino,
		.st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666,
		.st_nlink = 1,
		.st_uid = geteuid(),
		.st_gid = getegid()};
}

static void on_init(void *arg, struct fuse_conn_info *conn)
{
	conn->want |= conn->capable & FUSE_CAP_FLOCK_LOCKS;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	/* Never 0 or the root's, and all but surely another one for another name. */
	struct fuse_entry_param e = {.ino = XXH3_64bits(name, strlen(name)) | (fuse_ino_t)1 << 32,
		.attr_timeout = CACHE_SECONDS,
		.entry_timeout = CACHE_SECONDS};

	e.attr = attr_of(e.ino);
	(void)fuse_reply_entry(
		req, &e); /* as all replies: the kernel drops it if the caller left */
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = attr_of(ino);

	(void)fuse_reply_attr(req, &st, CACHE_SECONDS);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fuse_reply_open(req, fi);
}

static void on_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	(void)fuse_reply_err(req, 0);
}

static void on_close(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.open = on_open,
	.flock = on_flock,
	.flush = on_close,
	.release = on_close,
};

int main(int argc, char **argv)
{
	char *mount_argv[] = {argv[0], (char *)(uintptr_t) "-ofsname=fuse-floor", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, mount_argv);
	struct fuse_session *session;
	int rc;

	if (argc != 2) {
		(void)fprintf(stderr, "usage: bench-fuse-floor DIR\n");
		return 2;
	}
	session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	if (session == NULL || fuse_set_signal_handlers(session) < 0 ||
		fuse_session_mount(session, argv[1]) < 0) {
		(void)fprintf(stderr, "bench-fuse-floor: %s cannot be mounted\n", argv[1]);
		return 1;
	}
	rc = fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return rc < 0 ? 1 : 0;
}
