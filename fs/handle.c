/*
 * handle.c - see handle.h.
 */
#include "fs/handle.h"

#include <errno.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "fs/lock_op.h"
#include "fs/record.h"
#include "fs/task.h"

/* For how long a thread id is taken to be the same thread: no system uses up all its ids in less.
 * A program that locks in a loop is then looked up once a second. */
#define ASKER_VALID_MS 1000

struct lock_handle *lock_handle_new(struct fs *fs, struct lock_inode *l, uint32_t opener_tid)
{
	struct lock_handle *h = xcalloc(1, sizeof(*h));

	h->inode = l;
	h->owner = ++fs->last_owner;
	h->opener_tid = opener_tid;
	h->opened_at = task_clock();
	DL_APPEND(l->handles, h);
	return h;
}

void lock_handle_close(struct fs *fs, struct lock_handle *h)
{
	struct lock_inode *l = h->inode;

	/* What is left are writes of other descriptors under this one's lock, which it gives up. */
	lock_ops_cancel(h, EPERM);
	lock_handle_unlock(fs, h);
	record_closed(fs, h);
	if (h->lost) {
		DL_DELETE2(fs->lost, h, hold_prev, hold_next);
	}
	if (h->poller != NULL) {
		fuse_pollhandle_destroy(h->poller);
	}
	DL_DELETE(l->handles, h);
	free(h->read_value);
	free(h);
	lock_inode_closed(fs, l);
}

void lock_handle_holds(struct fs *fs, struct lock_handle *h, enum core_lock_mode mode)
{
	ASSERT(!h->lost);
	if (h->held == CORE_FREE && mode != CORE_FREE) {
		DL_APPEND2(fs->holding, h, hold_prev, hold_next);
	} else if (h->held != CORE_FREE && mode == CORE_FREE) {
		DL_DELETE2(fs->holding, h, hold_prev, hold_next);
	}
	h->held = mode;
}

void lock_handle_unlock(struct fs *fs, struct lock_handle *h)
{
	if (h->known) {
		core_unlock(fs->o.core, lock_inode_name(h->inode), lock_handle_owner(h),
			CORE_RANGE_WHOLE);
		h->known = h->ops != NULL;
	}
	if (!h->lost) {
		lock_handle_holds(fs, h, CORE_FREE);
	}
}

void lock_handle_tasks(struct fs *fs, struct lock_handle *h, uint32_t tid)
{
	uint64_t now_ms = uv_now(fs->loop);

	if (h->asker_tid != tid || h->asker_at_ms + ASKER_VALID_MS < now_ms) {
		h->asker_tid = tid;
		h->asker_at_ms = now_ms;
		task_of(tid, &h->asker);
	}
	if (!h->opener_known) {
		h->opener_known = true;
		if (h->opener_tid == tid) {
			h->opener = h->asker;
		} else {
			task_of_since(h->opener_tid, h->opened_at, &h->opener);
		}
	}
}

void lock_signal_holder(
	struct fs *fs, const struct core_task *holder, const struct core_task *opener)
{
	const struct core_task *hit = NULL;

	if (fs->o.lost_signal == 0) {
		return;
	}
	if (task_signal(holder, fs->o.lost_signal)) {
		hit = holder;
	} else if (task_signal(opener, fs->o.lost_signal)) {
		hit = opener;
	}
	if (hit != NULL) {
		TRACE(&fs->o.trace, TRACE_WARN, "fs.signal", "pid=%" PRIu32 " signal=%d", hit->pid,
			fs->o.lost_signal);
	}
}

/* A name may hold any byte; a log line may not. */
static void trace_lost(struct fs *fs, const struct lock_handle *h, const struct core_task *holder)
{
	char name[sizeof(h->inode->name)];
	size_t i;

	for (i = 0; i <= h->inode->name_len; i++) {
		unsigned char c = (unsigned char)h->inode->name[i];

		name[i] = (char)(c == '\0' || (c > ' ' && c < 0x7f) ? c : '?');
	}
	TRACE(&fs->o.trace, TRACE_WARN, "fs.lost", "lock=%s pid=%" PRIu32, name, holder->pid);
}

void lock_handle_lose(struct fs *fs, struct lock_handle *h, const struct core_task *holder)
{
	if (h->lost) {
		return; /* it held more than one thing */
	}
	lock_handle_holds(fs, h, CORE_FREE);
	h->lost = true;
	DL_APPEND2(fs->lost, h, hold_prev, hold_next);
	trace_lost(fs, h, holder);
}

void lock_handles_lost(struct fs *fs)
{
	struct lock_handle *h, *next;

	DL_FOREACH_SAFE2 (fs->holding, h, next, hold_next) {
		lock_handle_lose(fs, h, &h->holder);
		lock_signal_holder(fs, &h->holder, &h->opener);
	}
	records_lost(fs);
	if (fs->lost != NULL) {
		(void)uv_async_send(&fs->lost_wake); /* fails only for a handle of another kind */
	}
}

void lock_handle_poke(struct lock_handle *h)
{
	if (h->poller != NULL) {
		(void)fuse_lowlevel_notify_poll(h->poller); /* -ENOENT: nobody polls any more */
		fuse_pollhandle_destroy(TAKE(h->poller));
	}
}

void lock_handles_contended(struct fs *fs, struct core_name name)
{
	struct lock_inode *l = lock_inode_of_name(fs, name);
	struct lock_handle *h;

	if (l == NULL) {
		return;
	}
	DL_FOREACH (l->handles, h) {
		if (h->held != CORE_FREE || h->uses != NULL) {
			lock_handle_poke(h);
		}
	}
}

void lock_handles_wake_lost(struct fs *fs)
{
	struct lock_handle *h;

	DL_FOREACH2 (fs->lost, h, hold_next) {
		lock_ops_lost(h);
		lock_handle_poke(h);
	}
}

void lock_handles_shutdown(struct fs *fs)
{
	struct lock_inode *l, *l_next;
	struct lock_handle *h, *h_next;

	lock_handles_lost(fs);
	HASH_ITER (hh, fs->lock_inodes, l, l_next) {
		l->nlookup = 1; /* ours, so that it outlives its handles */
		DL_FOREACH_SAFE (l->handles, h, h_next) {
			lock_ops_cancel(h, ESHUTDOWN);
		}
	}
	HASH_ITER (hh, fs->lock_inodes, l, l_next) {
		DL_FOREACH_SAFE (l->handles, h, h_next) {
			lock_handle_close(fs, h);
		}
		lock_inode_forget(fs, l, 1);
	}
}
