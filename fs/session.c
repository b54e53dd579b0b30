/*
 * session.c - the mount in the uv loop: its life, and reading its requests.
 *
 * Life: fs_open() mounts and polls /dev/fuse; requests are read in batches; fs_close() stops
 * polling, answers what waits, unmounts, and the struct goes when its uv handles are closed.
 * If the mount goes away under us (ENODEV: umount, or an abort), polling stops and `unmounted`
 * asks whoever opened it to call fs_close().
 */
#include "fs/session.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "coordfs/util.h"
#include "fs/handle.h"
#include "fs/mount.h"

/* Requests read at one wake-up: enough to share one commit, few enough that peers and disk are
 * looked at in between. Arbitrary. */
#define BATCH 64

static void serve_batch(struct fs *fs)
{
	int i, n;

	for (i = 0; i < BATCH; i++) {
		n = fuse_session_receive_buf(fs->se, &fs->buf);
		if (n <= 0) {
			return; /* nothing there, or ENODEV: then the session has exited */
		}
		fuse_session_process_buf(fs->se, &fs->buf);
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct fs *fs = CONTAINER_OF(poll, struct fs, poll);

	(void)events;
	fs->o.begin(fs->o.ctx);
	serve_batch(fs);
	fs->o.end(fs->o.ctx);
	/* An error status comes with the end of the connection. */
	if (!fs->closing && (status < 0 || fuse_session_exited(fs->se))) {
		(void)uv_poll_stop(&fs->poll); /* cannot fail */
		TRACE(&fs->o.trace, TRACE_WARN, "fs.unmounted", "path=%s", fs->o.mountpoint);
		fs->o.unmounted(fs->o.ctx);
	}
}

static void on_lost_wake(uv_async_t *async)
{
	struct fs *fs = CONTAINER_OF(async, struct fs, lost_wake);

	fs->o.begin(fs->o.ctx);
	lock_handles_wake_lost(fs);
	fs->o.end(fs->o.ctx);
}

static void on_session_lost(void *ctx)
{
	lock_handles_lost(ctx);
}

static void on_orphan(void *ctx, const struct core_task *task, const struct core_task *opener)
{
	lock_signal_holder(ctx, task, opener);
}

static void on_contended(void *ctx, struct core_name name)
{
	lock_handles_contended(ctx, name);
}

static void fs_free(struct fs *fs)
{
	free((char *)fs->o.mountpoint);
	free(fs);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct fs *fs = handle->data;
	void (*closed)(void *ctx) = fs->closed;
	void *ctx = fs->closed_ctx;

	if (--fs->handles_open > 0) {
		return;
	}
	fs_free(fs);
	if (closed != NULL) {
		closed(ctx);
	}
}

/* /dev/fuse must be out of the loop before it is closed by the unmount. */
static void close_handles(struct fs *fs)
{
	if (fs->poll.loop != NULL) {
		uv_close((uv_handle_t *)&fs->poll, on_handle_closed);
	}
	uv_close((uv_handle_t *)&fs->lost_wake, on_handle_closed);
	uv_close((uv_handle_t *)&fs->overdue, on_handle_closed);
	uv_close((uv_handle_t *)&fs->idle, on_handle_closed);
}

/* On failure the struct is freed, now or by the loop. */
static int start_serving(struct fs *fs)
{
	int rc;

	rc = uv_async_init(fs->loop, &fs->lost_wake, on_lost_wake);
	if (rc < 0) {
		mount_close(fs);
		fs_free(fs);
		return rc;
	}
	fs->lost_wake.data = fs;
	fs->handles_open++;
	(void)uv_timer_init(fs->loop, &fs->overdue); /* cannot fail */
	fs->overdue.data = fs;
	fs->handles_open++;
	(void)uv_timer_init(fs->loop, &fs->idle); /* cannot fail */
	fs->idle.data = fs;
	fs->handles_open++;
	rc = uv_poll_init(fs->loop, &fs->poll, fuse_session_fd(fs->se)); /* sets O_NONBLOCK */
	if (rc == 0) {
		fs->poll.data = fs;
		fs->handles_open++;
		rc = uv_poll_start(&fs->poll, UV_READABLE, on_readable);
	} else {
		fs->poll.loop = NULL;
	}
	if (rc < 0) {
		fs->closing = true;
		close_handles(fs);
		mount_close(fs);
	}
	return rc;
}

int fs_open(
	uv_loop_t *loop, const struct fs_options *o, struct fs **ret_fs, char *err, size_t err_size)
{
	struct core_listener listener = {
		.session_lost = on_session_lost,
		.orphan = on_orphan,
		.contended = on_contended,
	};
	struct fs *fs = xcalloc(1, sizeof(*fs));
	int rc;

	fs->loop = loop;
	fs->o = *o;
	fs->o.mountpoint = xstrdup(o->mountpoint);
	fs->uid = geteuid();
	fs->gid = getegid();
	(void)clock_gettime(CLOCK_REALTIME, &fs->born); /* cannot fail */
	fixed_tree_init(fs);

	rc = mount_open(fs, err, err_size);
	if (rc < 0) {
		fs_free(fs);
		return rc;
	}
	rc = start_serving(fs);
	if (rc < 0) {
		(void)snprintf(err, err_size, "cannot watch /dev/fuse: %s", uv_strerror(rc));
		return rc;
	}
	listener.ctx = fs;
	core_listen(fs->o.core, &listener);
	TRACE(&fs->o.trace, TRACE_INFO, "fs.mounted", "path=%s", fs->o.mountpoint);
	*ret_fs = fs;
	return 0;
}

void fs_close(struct fs *fs, void (*closed)(void *ctx), void *ctx)
{
	struct core_listener nobody = {.ctx = NULL};

	ASSERT(!fs->closing);
	fs->closing = true;
	fs->closed = closed;
	fs->closed_ctx = ctx;
	core_listen(fs->o.core, &nobody);
	lock_handles_shutdown(fs);
	streams_shutdown(fs);
	close_handles(fs);
	mount_close(fs);
}
