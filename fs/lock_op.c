/*
 * lock_op.c - one request on a lock, from the kernel's question to its answer.
 *
 * Happy path: QUEUED behind the handle's other operations (the core takes one per
 * owner at a time, where two threads may well ask on one descriptor), ASKED, answered
 * from the core's callback.
 * Failures: an interrupt, the loss of the session, a close and the end of the mount all
 * cancel. A queued operation is then answered at once; one that the core has is
 * interrupted there, which undoes it, and answered from the same callback. So does the
 * limit that the kernel may have for a request (fs->answer_within_ms): one timer, for
 * the oldest of those that wait.
 * Operations on ranges do not queue: each is the core's at once. There an interrupt only asks for
 * the end of the wait, and the answer is what the log says of it (core_lock_give_up()). A grant
 * whose caller is gone by the time of the answer (the reply says ENOENT) is given back.
 */
#include "fs/lock_op.h"

#include <errno.h>
#include <fcntl.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "fs/record.h"
#include "fs/status_errno.h"

enum lock_op_kind {
	OP_FLOCK,
	OP_RECORD,
	OP_TEST,
	OP_WRITE,
	OP_TRUNCATE,
};

enum lock_op_step {
	OP_QUEUED,
	OP_ASKED,
};

struct lock_op {
	struct fs *fs;
	struct lock_handle *h;
	struct lock_op *prev, *next;           /* h->ops or h->record_ops */
	struct lock_op *wait_prev, *wait_next; /* fs->waiting, where there is a limit */
	uint64_t answer_by_ms;                 /* uv_now() */
	fuse_req_t req;
	enum lock_op_kind kind;
	enum lock_op_step step;
	struct core_op *core_op; /* OP_ASKED: borrowed from the core */
	int cancel_errno;        /* what a cancelled operation answers; 0: not cancelled */
	bool armed;              /* an interrupt may be acted upon */
	bool interrupted;

	bool limited;            /* on fs->waiting */
	struct core_owner owner; /* for whom the core is asked */

	bool shared; /* OP_FLOCK, OP_RECORD, OP_TEST */
	bool wait;
	struct core_task asker;
	struct record_owner *record; /* kept until freed; NULL: not on a range */
	struct core_range range;
	struct core_conflict conflict; /* OP_TEST */

	enum lock_write how; /* OP_WRITE; for OP_TRUNCATE, `off` is the new size */
	size_t off;
	size_t size;
	char data[];
};

static void ops_run(struct lock_handle *h);

static void op_unlimit(struct lock_op *op)
{
	if (op->limited) {
		DL_DELETE2(op->fs->waiting, op, wait_prev, wait_next);
		op->limited = false;
	}
}

static void op_free(struct lock_op *op)
{
	op_unlimit(op);
	if (op->record != NULL) {
		DL_DELETE(op->h->record_ops, op);
		record_owner_put(op->record);
	} else {
		DL_DELETE(op->h->ops, op);
	}
	free(op);
}

static void op_refuse(struct lock_op *op, int answer)
{
	(void)fuse_reply_err(op->req, answer); /* a caller that is gone has lost nothing */
	op_free(op);
}

/* What is in the way, as fcntl(2) says it; with F_UNLCK, nothing is. */
static void reply_test(struct lock_op *op, short type)
{
	const struct core_conflict *c = &op->conflict;
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (type != F_UNLCK) {
		lock.l_start = (off_t)c->range.start;
		lock.l_len = c->range.end == CORE_RANGE_MAX
				     ? 0
				     : (off_t)(c->range.end - c->range.start + 1);
		lock.l_pid = (pid_t)c->pid;
	}
	(void)fuse_reply_lock(op->req, &lock); /* nobody to tell */
}

static void op_succeed(struct lock_op *op)
{
	struct lock_handle *h = op->h;
	struct stat st;

	switch (op->kind) {
	case OP_FLOCK:
		h->holder = op->asker;
		lock_handle_holds(op->fs, h, op->shared ? CORE_SHARED : CORE_EXCLUSIVE);
		if (fuse_reply_err(op->req, 0) != 0) {
			lock_handle_unlock(op->fs, h);
		}
		lock_handle_poke(h); /* others may wait for it already */
		break;
	case OP_RECORD:
		record_granted(op->fs, op->record, h, op->range, &op->asker);
		if (fuse_reply_err(op->req, 0) != 0) {
			(void)record_unlock(op->fs, op->record, op->range); /* kept by us */
		}
		break;
	case OP_TEST:
		reply_test(op, F_UNLCK);
		break;
	case OP_WRITE:
		(void)fuse_reply_write(op->req, op->size); /* committed, heard or not */
		break;
	case OP_TRUNCATE:
		lock_inode_stat(op->fs, h->inode, fuse_req_ctx(op->req)->uid, &st);
		(void)fuse_reply_attr(op->req, &st, 0); /* committed, heard or not */
		break;
	}
	op_free(op);
}

/*
 * A conversion that failed may have cost the lock it came from. Refused by the log: the table says.
 * Given up by us: its cancel undoes whatever it comes to, and with it the lock that it converts; a
 * request for the mode that is held already changes nothing.
 */
static enum core_lock_mode held_after(const struct lock_op *op, enum status st)
{
	const struct lock_handle *h = op->h;
	enum core_lock_mode asked = op->shared ? CORE_SHARED : CORE_EXCLUSIVE;

	if (st != ST_CANCELLED && st != ST_TIMEOUT) {
		return core_lock_held(op->fs->o.core, h->owner, NULL);
	}
	return h->held == asked ? h->held : CORE_FREE;
}

static void flock_failed(struct lock_op *op, enum status st)
{
	struct lock_handle *h = op->h;

	if (st == ST_OK) {
		lock_handle_unlock(op->fs, h); /* granted to a descriptor that says EIO by now */
		return;
	}
	if (!h->lost && h->held != CORE_FREE) {
		lock_handle_holds(op->fs, h, held_after(op, st));
	}
	/* Decided by the log, and nothing is held: a close has nothing to give up. */
	h->known = st != ST_BUSY || h->held != CORE_FREE;
}

static void op_fail(struct lock_op *op, enum status st)
{
	struct lock_handle *h = op->h;

	if (op->kind == OP_FLOCK) {
		flock_failed(op, st);
	} else if (op->kind == OP_RECORD && st == ST_OK) {
		/* Granted to a descriptor that says EIO by now. */
		core_unlock(op->fs->o.core, lock_inode_name(h->inode), op->owner, op->range);
	}
	if (op->kind == OP_TEST && st == ST_BUSY && !h->lost) {
		reply_test(op, op->conflict.shared ? F_RDLCK : F_WRLCK);
		op_free(op);
	} else if (op->cancel_errno != 0) {
		op_refuse(op, op->cancel_errno);
	} else if (h->lost) {
		op_refuse(op, EIO);
	} else {
		/* ST_CANCELLED without an interrupt cannot be EINTR: the kernel would restart. */
		op_refuse(op, st == ST_CANCELLED ? ESHUTDOWN : errno_of(st));
	}
}

static void op_done(void *arg, enum status st, uint64_t token)
{
	struct lock_op *op = arg;
	struct lock_handle *h = op->h;
	bool came_first =
		op->record != NULL; /* what was granted on a range is, interrupted or not */

	(void)token;
	op->core_op = NULL;
	if (st == ST_OK && (op->cancel_errno == 0 || came_first) && !h->lost) {
		op_succeed(op);
	} else {
		op_fail(op, st);
	}
	ops_run(h);
}

static void ask_lock(struct lock_op *op)
{
	struct lock_handle *h = op->h;
	struct core_lock_request request = {
		.name = lock_inode_name(h->inode),
		.owner = op->owner,
		.range = op->range,
		.ret_test = op->kind == OP_TEST ? &op->conflict : NULL,
		.shared = op->shared,
		.wait = op->wait,
		.task = op->asker,
		.opener = h->opener,
		.uid = fuse_req_ctx(op->req)->uid,
	};

	h->known = h->known || op->kind == OP_FLOCK;
	op->core_op = core_lock(op->fs->o.core, &request, op_done, op);
}

/* The value as it will be, from what it is now. */
static void ask_value(struct lock_op *op)
{
	struct core *core = op->fs->o.core;
	struct core_name name = lock_inode_name(op->h->inode);
	uint8_t value[CORE_LOCK_VALUE_MAX] = {0};
	struct core_lock_info info;
	size_t len = 0;

	if (op->how != LOCK_WRITE_INSTEAD && core_lock_info(core, name, &info)) {
		len = MIN(info.value_len, sizeof(value));
	}
	if (len > 0) {
		memcpy(value, info.value, len);
	}
	if (op->how == LOCK_WRITE_APPEND) {
		op->off = len;
	}
	if (op->off + op->size > sizeof(value)) {
		op_refuse(op, EFBIG);
		return;
	}
	if (op->kind == OP_TRUNCATE) {
		len = op->off;
	} else {
		memcpy(value + op->off, op->data, op->size);
		len = MAX(len, op->off + op->size);
	}
	op->core_op = core_lock_set_value(core, name, op->owner, value, len, op_done, op);
}

static void op_ask(struct lock_op *op)
{
	op->step = OP_ASKED;
	if (op->h->lost) {
		op_refuse(op, EIO);
	} else if (op->kind == OP_WRITE || op->kind == OP_TRUNCATE) {
		ask_value(op);
	} else {
		ask_lock(op);
	}
}

static void ops_run(struct lock_handle *h)
{
	while (h->ops != NULL && h->ops->step == OP_QUEUED) {
		op_ask(h->ops);
	}
}

static void op_cancel(struct lock_op *op, int answer)
{
	op->cancel_errno = answer;
	if (op->step == OP_QUEUED) {
		op_refuse(op, answer);
	} else if (op->record != NULL) {
		op_unlimit(op); /* once is enough */
		core_lock_give_up(op->fs->o.core, op->core_op);
	} else {
		core_interrupt(op->fs->o.core, op->core_op); /* answers from op_done() */
	}
}

/* libfuse may call this from inside fuse_req_interrupt_func(), where the request must not be
 * answered yet. */
static void op_interrupted(fuse_req_t req, void *data)
{
	struct lock_op *op = data;

	(void)req;
	op->interrupted = true;
	if (op->armed) {
		op_cancel(op, EINTR);
	}
}

static void overdue_start(struct fs *fs);

static void on_overdue(uv_timer_t *timer)
{
	struct fs *fs = timer->data;

	fs->o.begin(fs->o.ctx);
	while (fs->waiting != NULL && fs->waiting->answer_by_ms <= uv_now(fs->loop)) {
		op_cancel(fs->waiting, ETIMEDOUT);
	}
	overdue_start(fs);
	fs->o.end(fs->o.ctx);
}

/* All have the same time, so the oldest is the first. */
static void overdue_start(struct fs *fs)
{
	uint64_t now_ms = uv_now(fs->loop);

	if (fs->waiting != NULL) {
		uint64_t by_ms = MAX(fs->waiting->answer_by_ms, now_ms);

		/* Fails only while it closes, when nobody asks any more. */
		(void)uv_timer_start(&fs->overdue, on_overdue, by_ms - now_ms, 0);
	}
}

static void op_limit(struct lock_op *op)
{
	struct fs *fs = op->fs;

	if (fs->answer_within_ms == 0) {
		return;
	}
	op->answer_by_ms = uv_now(fs->loop) + fs->answer_within_ms;
	op->limited = true;
	DL_APPEND2(fs->waiting, op, wait_prev, wait_next);
	if (!uv_is_active((uv_handle_t *)&fs->overdue)) {
		overdue_start(fs);
	}
}

static struct lock_op *op_new(
	struct fs *fs, fuse_req_t req, struct lock_handle *h, enum lock_op_kind kind, size_t data)
{
	struct lock_op *op = xcalloc(1, sizeof(*op) + data);

	op->fs = fs;
	op->h = h;
	op->req = req;
	op->kind = kind;
	op->owner = lock_handle_owner(h);
	return op;
}

/* Another thread waits for a lock on the same descriptor, and this one would not wait, not for that
 * one either. (That it may be granted in a moment is not known here.) */
static bool waits_behind(const struct lock_op *op)
{
	const struct lock_op *ahead;

	if (op->kind != OP_FLOCK || op->wait) {
		return false;
	}
	DL_SEARCH_SCALAR(op->h->ops, ahead, wait, true);
	return ahead != NULL;
}

static void op_start(struct lock_op *op)
{
	fuse_req_t req = op->req;

	fuse_req_interrupt_func(req, op_interrupted, op);
	if (op->interrupted) {
		(void)fuse_reply_err(req, EINTR); /* that is what it wanted to hear */
		if (op->record != NULL) {
			record_owner_put(op->record);
		}
		free(op);
		return;
	}
	if (waits_behind(op)) {
		(void)fuse_reply_err(req, EWOULDBLOCK); /* nothing was asked */
		free(op);
		return;
	}
	op->armed = true;
	op_limit(op);
	if (op->record != NULL) {
		DL_APPEND(op->h->record_ops, op);
		op_ask(op);
	} else {
		DL_APPEND(op->h->ops, op);
		ops_run(op->h);
	}
}

void lock_op_flock(struct fs *fs, fuse_req_t req, struct lock_handle *h, bool shared, bool wait)
{
	struct lock_op *op = op_new(fs, req, h, OP_FLOCK, 0);

	lock_handle_tasks(fs, h, (uint32_t)fuse_req_ctx(req)->pid);
	op->asker = h->asker;
	op->shared = shared;
	op->wait = wait;
	op_start(op);
}

static struct lock_op *range_op_new(struct fs *fs, fuse_req_t req, struct lock_handle *h,
	struct record_owner *o, enum lock_op_kind kind)
{
	struct lock_op *op = op_new(fs, req, h, kind, 0);

	lock_handle_tasks(fs, h, (uint32_t)fuse_req_ctx(req)->pid);
	op->asker = h->asker;
	op->record = record_owner_get(fs, o->inode, o->lock_owner);
	op->owner = o->core;
	return op;
}

void lock_op_record(struct fs *fs, fuse_req_t req, struct lock_handle *h, struct record_owner *o,
	struct core_range range, bool shared, bool wait)
{
	struct lock_op *op = range_op_new(fs, req, h, o, OP_RECORD);

	op->range = range;
	op->shared = shared;
	op->wait = wait;
	op_start(op);
}

void lock_op_test(struct fs *fs, fuse_req_t req, struct lock_handle *h, struct record_owner *o,
	struct core_range range, bool shared)
{
	struct lock_op *op = range_op_new(fs, req, h, o, OP_TEST);

	op->range = range;
	op->shared = shared;
	op_start(op);
}

void lock_op_write(struct fs *fs, fuse_req_t req, struct lock_handle *h, struct core_owner owner,
	const char *data, size_t size, off_t off, enum lock_write how)
{
	struct lock_op *op;

	if (size > CORE_LOCK_VALUE_MAX || off < 0 || off > CORE_LOCK_VALUE_MAX) {
		(void)fuse_reply_err(req, EFBIG); /* nothing was written */
		return;
	}
	op = op_new(fs, req, h, OP_WRITE, size);
	memcpy(op->data, data, size);
	op->owner = owner;
	op->size = size;
	op->off = (size_t)off;
	op->how = how;
	op_start(op);
}

void lock_op_truncate(
	struct fs *fs, fuse_req_t req, struct lock_handle *h, struct core_owner owner, size_t size)
{
	struct lock_op *op = op_new(fs, req, h, OP_TRUNCATE, 0);

	op->owner = owner;
	op->off = size;
	op_start(op);
}

/* The queued ones first: none of them shall start when the one before it ends. */
static void cancel_queue(struct lock_handle *h, int answer)
{
	struct lock_op *op, *next;

	DL_FOREACH_SAFE (h->ops, op, next) {
		if (op->step == OP_QUEUED) {
			op_cancel(op, answer);
		}
	}
	if (h->ops != NULL) {
		op_cancel(h->ops, answer);
	}
}

void lock_ops_lost(struct lock_handle *h)
{
	struct lock_op *op, *next;

	cancel_queue(h, EIO);
	DL_FOREACH_SAFE (h->record_ops, op, next) {
		op_cancel(op, EIO);
	}
}

void lock_ops_cancel(struct lock_handle *h, int answer)
{
	struct lock_op *op, *next;

	cancel_queue(h, answer);
	/* Only the end of the mount finds a request on a handle that closes. */
	DL_FOREACH_SAFE (h->record_ops, op, next) {
		op->cancel_errno = answer;
		core_interrupt(op->fs->o.core, op->core_op); /* answers from op_done() */
	}
}
