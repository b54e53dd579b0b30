/*
 * fs.h - the mounted tree: locks/, queues/, cache/, status/.
 *
 * Low-level FUSE in the uv loop: every request that can wait keeps its
 * fuse_req_t and is answered later, so ten thousand blocked flocks cost memory,
 * not threads. Knows only include/coordfs/.
 */
#ifndef COORDFS_FS_H
#define COORDFS_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "coordfs/core.h"
#include "coordfs/trace.h"

struct fs;

struct fs_options {
	const char *mountpoint;
	struct core *core;
	bool read_only;
	bool allow_other; /* default when root */
	int lost_signal;  /* to holders of lost locks; 0: none */
	struct tracer trace;
	void *ctx;
	/* Before requests of a wake-up are delivered: tells the core the time. */
	void (*begin)(void *ctx);
	/* After them: the end of the turn (node_flush, peers_flush). */
	void (*end)(void *ctx);
	/* The mount went away under us (umount, abort): the process should end cleanly. */
	void (*unmounted)(void *ctx);
};

/*
 * Mount and start serving. A stale mount of our own (ENOTCONN) at the mount point is
 * taken away first. -ENODEV no /dev/fuse, -EPERM, -ENOTDIR, -ENOTEMPTY, -ENOTSUP (the kernel lacks
 * flock or POSIX lock support) …; `err` gets one sentence that says what to do.
 */
int fs_open(uv_loop_t *loop, const struct fs_options *o, struct fs **ret_fs, char *err,
	size_t err_size);

/* Unmount (lazily if busy), answer what still waits with ESHUTDOWN, then `closed`. */
void fs_close(struct fs *fs, void (*closed)(void *ctx), void *ctx);

#endif
