/*
 * locks.c - operations of this node's front-ends on locks.
 *
 *   QUEUED --session live--> SUBMITTED --result: waits--> WAITING
 *     ^                          |                           |
 *     |                          +---- result, grant --------+--> DONE --> answered, freed
 *     +--- session lost ---------+---------------------------+
 *
 * The table in the state machine decides everything; here is only who asked and
 * has to be told. An operation that is given up (interrupt, timeout) is answered
 * at once, and a cancel follows its acquire through the log: whatever the acquire came
 * to, waiting or granted, the cancel undoes.
 */
#include <utlist.h>

#include "core/node_internal.h"
#include "core/plant.h"

static void submit_cancel(struct node *n, const struct core_op *op)
{
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockCancel cancel = WIRE__LOCK_CANCEL__INIT;

	if (n->lease.session == 0 || op->seq == 0 || NODE_PLANTED(PLANT_CANCEL_FORGOTTEN)) {
		return;
	}
	cancel.name.data = (uint8_t *)(uintptr_t)op->name; /* packed, not written to */
	cancel.name.len = op->name_len;
	cancel.owner = op->owner;
	cancel.acquire_seq = op->seq;
	command.op_case = WIRE__COMMAND__OP_LOCK_CANCEL;
	command.lock_cancel = &cancel;
	(void)submit_command(n, &command, NULL); /* nobody waits for it */
}

static void task_to_wire(const struct core_task *task, Wire__Task *ret_wire)
{
	wire__task__init(ret_wire);
	ret_wire->pid = task->pid;
	ret_wire->start = task->start;
	ret_wire->command = (char *)(uintptr_t)task->command; /* packed, not written to */
}

static void submit_acquire(struct node *n, struct core_op *op)
{
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockAcquire acquire = WIRE__LOCK_ACQUIRE__INIT;
	Wire__Task task;
	Wire__Task opener;

	task_to_wire(&op->task, &task);
	task_to_wire(&op->opener, &opener);
	acquire.name.data = (uint8_t *)op->name;
	acquire.name.len = op->name_len;
	acquire.owner = op->owner;
	acquire.shared = op->shared;
	acquire.wait = op->wait;
	acquire.task = &task;
	acquire.opener = &opener;
	acquire.uid = op->uid;
	command.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	command.lock_acquire = &acquire;
	op->seq = submit_command(n, &command, op);
	op->state = OP_SUBMITTED;
}

static void submit_value(struct node *n, struct core_op *op)
{
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockSetValue set = WIRE__LOCK_SET_VALUE__INIT;

	set.name.data = (uint8_t *)op->name;
	set.name.len = op->name_len;
	set.owner = op->owner;
	set.value.data = op->value;
	set.value.len = op->value_len;
	command.op_case = WIRE__COMMAND__OP_LOCK_SET_VALUE;
	command.lock_set_value = &set;
	op->seq = submit_command(n, &command, op);
	op->state = OP_SUBMITTED;
}

/* --- life of an operation ------------------------------------------------------------------- */

static struct core_op *op_new(
	struct node *n, struct core_name name, uint64_t owner, core_lock_fn *done, void *arg)
{
	struct core_op *op = xcalloc(1, sizeof *op);

	ASSERT(name.len >= 1);
	ASSERT(name.len <= CORE_NAME_MAX);
	ASSERT(owner != 0);
	op->name_len = (uint8_t)name.len;
	memcpy(op->name, name.bytes, name.len);
	op->owner = owner;
	op->done = done;
	op->arg = arg;
	op->deadline_ms = n->now_ms + n->o.timeo_ms;
	DL_APPEND(n->locks.all, op);
	return op;
}

static void op_unlink(struct node *n, struct core_op *op)
{
	submit_forget_op(op);
	if (op->counted) {
		HASH_DEL(n->locks.by_owner, op);
		op->counted = false;
	}
	if (op->state == OP_DONE) {
		DL_DELETE(n->locks.answers, op);
	} else {
		DL_DELETE(n->locks.all, op);
	}
}

static void op_free(struct core_op *op)
{
	free(op->value);
	free(op);
}

/* The answer is given at the end of the turn. */
static void finish(struct node *n, struct core_op *op, enum status st, uint64_t token)
{
	ASSERT(op->state != OP_DONE);
	submit_forget_op(op);
	DL_DELETE(n->locks.all, op);
	op->state = OP_DONE;
	op->status = st;
	op->token = token;
	DL_APPEND(n->locks.answers, op);
}

bool locks_answer(struct node *n)
{
	bool any = false;
	struct core_op *op;

	while ((op = n->locks.answers) != NULL) {
		op_unlink(n, op);
		op->done(op->arg, op->status, op->token);
		op_free(op);
		any = true;
	}
	return any;
}

/* --- what the front-ends ask ---------------------------------------------------------------- */

static enum status refusal(const struct node *n)
{
	if (n->stopping) {
		return ST_SHUTDOWN;
	}
	return n->now_ms < n->locks.no_space_ms ? ST_NO_SPACE : ST_OK;
}

static void submit_or_queue(struct node *n, struct core_op *op)
{
	enum status st = refusal(n);

	if (st != ST_OK) {
		finish(n, op, st, 0);
	} else if (n->lease.state != LEASE_LIVE) {
		op->state = OP_QUEUED;
	} else if (op->acquire) {
		submit_acquire(n, op);
	} else {
		submit_value(n, op);
	}
}

struct core_op *core_lock(
	struct core *c, const struct core_lock_request *req, core_lock_fn *done, void *arg)
{
	struct node *n = node_of_core(c);
	struct core_op *op = op_new(n, req->name, req->owner, done, arg);
	struct core_op *other;

	op->acquire = true;
	op->shared = req->shared;
	op->wait = req->wait;
	op->task = req->task;
	op->opener = req->opener;
	op->uid = req->uid;
	HASH_FIND(hh, n->locks.by_owner, &op->owner, sizeof op->owner, other);
	if (other != NULL) {
		finish(n, op, ST_BUSY, 0);
		return op;
	}
	HASH_ADD(hh, n->locks.by_owner, owner, sizeof op->owner, op);
	op->counted = true;
	submit_or_queue(n, op);
	return op;
}

struct core_op *core_lock_set_value(struct core *c, struct core_name name, uint64_t owner,
	const void *value, size_t len, core_lock_fn *done, void *arg)
{
	struct node *n = node_of_core(c);
	struct core_op *op = op_new(n, name, owner, done, arg);

	if (len > CORE_LOCK_VALUE_MAX) {
		finish(n, op, ST_TOO_BIG, 0);
		return op;
	}
	op->value = xmemdup(value, len);
	op->value_len = len;
	submit_or_queue(n, op);
	return op;
}

/* Answered already or not: the caller does not get it, so nobody may hold it. */
static void give_up(struct node *n, struct core_op *op)
{
	if (op->acquire) {
		submit_cancel(n, op);
	}
}

void core_interrupt(struct core *c, struct core_op *op)
{
	struct node *n = node_of_core(c);

	give_up(n, op);
	op_unlink(n, op);
	op->done(op->arg, ST_CANCELLED, 0);
	op_free(op);
}

void core_unlock(struct core *c, struct core_name name, uint64_t owner)
{
	struct node *n = node_of_core(c);
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockRelease release = WIRE__LOCK_RELEASE__INIT;
	struct core_op *op;

	HASH_FIND(hh, n->locks.by_owner, &owner, sizeof owner, op);
	if (n->lease.session == 0 || op != NULL) {
		return; /* nothing can be held: a request under way has given up what there was */
	}
	release.name.data = (uint8_t *)(uintptr_t)name.bytes; /* packed, not written to */
	release.name.len = name.len;
	release.owner = owner;
	command.op_case = WIRE__COMMAND__OP_LOCK_RELEASE;
	command.lock_release = &release;
	(void)submit_command(n, &command, NULL); /* commits behind */
}

/* --- what the log says ---------------------------------------------------------------------- */

void locks_result(struct node *n, struct core_op *op, enum status st, uint64_t token)
{
	if (st == ST_WAITING) {
		op->state = OP_WAITING;
		return;
	}
	finish(n, op, st, token);
}

static struct core_op *acquire_of(struct node *n, uint64_t owner)
{
	struct core_op *op;

	HASH_FIND(hh, n->locks.by_owner, &owner, sizeof owner, op);
	return op;
}

void locks_granted(struct node *n, const struct claim *claim)
{
	struct core_op *op;

	if (claim->session != n->lease.session) {
		return;
	}
	op = acquire_of(n, claim->owner);
	if (op != NULL && op->state == OP_WAITING && op->seq == claim->seq) {
		finish(n, op, ST_OK, claim->token);
	} /* else it was given up, and its cancel is on the way */
}

void locks_contended(struct node *n, const struct lock *lock)
{
	if (n->listener.contended != NULL) {
		n->listener.contended(n->listener.ctx,
			(struct core_name){.bytes = lock->name, .len = lock->name_len});
	}
}

/* The operation's command was applied, but only the state after it is known. */
void locks_restored(struct node *n, struct core_op *op, uint64_t seq)
{
	const struct claim *claim = state_claim(n->state, n->lease.session, op->owner);

	if (!op->acquire) {
		const struct lock *l = state_lock(n->state, op->name, op->name_len);
		bool there =
			l != NULL && l->value_len == op->value_len &&
			(op->value_len == 0 || memcmp(l->value, op->value, op->value_len) == 0);

		finish(n, op, there ? ST_OK : ST_DENIED, 0);
	} else if (claim == NULL || (claim->seq != seq && claim->shared != op->shared)) {
		finish(n, op, op->wait ? ST_NO_SPACE : ST_BUSY, 0); /* it was refused */
	} else if (claim->token != 0) {
		finish(n, op, ST_OK, claim->token);
	} else {
		op->state = OP_WAITING;
	}
}

void locks_reconcile_waits(struct node *n)
{
	struct core_op *op, *tmp;

	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		const struct claim *claim;

		if (op->state != OP_WAITING) {
			continue;
		}
		claim = state_claim(n->state, n->lease.session, op->owner);
		ASSERT(claim != NULL); /* only its own cancel or the session's end takes it away */
		if (claim->token != 0) {
			finish(n, op, ST_OK, claim->token);
		}
	}
}

void locks_session_live(struct node *n)
{
	struct core_op *op, *tmp;

	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		if (op->state == OP_QUEUED) {
			submit_or_queue(n, op);
		}
	}
}

/* An answer that was not given yet must not be: what it says is no longer so. */
static void recall_answers(struct node *n)
{
	struct core_op *op, *tmp;

	DL_FOREACH_SAFE (n->locks.answers, op, tmp) {
		if (op->acquire && op->status == ST_OK) {
			DL_DELETE(n->locks.answers, op);
			op->state = OP_QUEUED;
			DL_APPEND(n->locks.all, op);
		}
	}
}

void locks_session_lost(struct node *n)
{
	struct core_op *op, *tmp;

	recall_answers(n);
	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		op->seq = 0;
		if (!op->acquire && op->state != OP_QUEUED) {
			finish(n, op, ST_LOST, 0);
		} else {
			op->state = OP_QUEUED;
		}
	}
}

void locks_tick(struct node *n)
{
	struct core_op *op, *tmp;

	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		if (!op->wait && n->now_ms >= op->deadline_ms) {
			give_up(n, op);
			finish(n, op, ST_TIMEOUT, 0);
		}
	}
}

void locks_shutdown(struct node *n)
{
	struct core_op *op, *tmp;

	recall_answers(n);
	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		finish(n, op, ST_SHUTDOWN, 0);
	}
}

/* Without answers: the process ends, or did so for the simulator. */
void locks_fini(struct node *n)
{
	struct core_op *op, *tmp;

	HASH_CLEAR(hh, n->locks.by_owner);
	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		DL_DELETE(n->locks.all, op);
		op_free(op);
	}
	DL_FOREACH_SAFE (n->locks.answers, op, tmp) {
		DL_DELETE(n->locks.answers, op);
		op_free(op);
	}
}

/* --- what this node knows ------------------------------------------------------------------- */

static enum core_lock_mode mode_of(const struct claim *holder)
{
	if (holder == NULL || holder->token == 0) {
		return CORE_FREE;
	}
	return holder->shared ? CORE_SHARED : CORE_EXCLUSIVE;
}

bool core_lock_info(struct core *c, struct core_name name, struct core_lock_info *ret_info)
{
	const struct lock *l = state_lock(node_of_core(c)->state, name.bytes, name.len);

	memset(ret_info, 0, sizeof *ret_info);
	if (l == NULL) {
		return false;
	}
	ret_info->mode = mode_of(l->holders);
	ret_info->n_holders = l->n_holders;
	ret_info->n_waiters = l->n_waiters;
	ret_info->value = l->value;
	ret_info->value_len = l->value_len;
	if (l->holders != NULL) {
		ret_info->token = l->holders->prev->token; /* utlist: the head's prev is the tail */
		ret_info->uid = l->holders->uid;
		ret_info->since_unix_ms = l->holders->since_unix_ms;
	}
	return true;
}

enum core_lock_mode core_lock_held(struct core *c, uint64_t owner, uint64_t *ret_token)
{
	struct node *n = node_of_core(c);
	const struct claim *claim = n->lease.state == LEASE_LIVE
					    ? state_claim(n->state, n->lease.session, owner)
					    : NULL;

	if (ret_token != NULL) {
		*ret_token = claim == NULL ? 0 : claim->token;
	}
	return mode_of(claim);
}

void core_lock_holders(struct core *c, struct core_name name,
	bool (*fn)(void *arg, uint64_t owner, bool shared, bool here, const struct core_task *task,
		const struct core_task *opener),
	void *arg)
{
	struct node *n = node_of_core(c);
	const struct lock *l = state_lock(n->state, name.bytes, name.len);

	for (const struct claim *h = l == NULL ? NULL : l->holders; h != NULL; h = h->next) {
		bool here = n->lease.state == LEASE_LIVE && h->session == n->lease.session;

		if (!fn(arg, h->owner, h->shared, here, &h->task, &h->opener)) {
			return;
		}
	}
}

bool core_lock_next(struct core *c, uint64_t *cursor, struct core_name *ret_name)
{
	const struct lock *l = state_lock_after(node_of_core(c)->state, *cursor);

	if (l == NULL) {
		return false;
	}
	*cursor = l->serial;
	ret_name->bytes = l->name;
	ret_name->len = l->name_len;
	return true;
}

void core_usage(struct core *c, struct core_usage *ret_usage)
{
	struct node *n = node_of_core(c);

	ret_usage->locks = state_n_locks(n->state);
	ret_usage->locks_max = n->o.limits.locks_max;
}
