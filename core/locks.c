/*
 * locks.c - operations of this node's front-ends on locks.
 *
 *   QUEUED --session live--> SUBMITTED --result: waits--> WAITING
 *     ^                          |                           |
 *     |                          +---- result, grant --------+--> DONE --> answered, freed
 *     +--- session lost ---------+---------------------------+
 *
 * The table in the state machine decides everything; here is only who asked and
 * has to be told. A flock that is given up (interrupt, timeout) is answered
 * at once, and a cancel follows its acquire through the log: whatever the acquire came
 * to, waiting or granted, the cancel undoes.
 *
 * What the grant of a range has replaced could not be brought back, so there the cancel ends only
 * the wait, and the answer waits for the log to say which came first:
 *
 *   SUBMITTED --result: waits, giving up--> CANCELLING --result or grant--> DONE
 *   WAITING --------- given up -----------> CANCELLING
 */
#include <utlist.h>

#include "core/node_internal.h"
#include "core/plant.h"

static bool is_record(const struct core_op *op)
{
	return op->owner.kind == CORE_RECORD;
}

static Wire__LockKind kind_to_wire(struct core_owner owner)
{
	switch (owner.kind) {
	case CORE_FLOCK:
		return WIRE__LOCK_KIND__FLOCK;
	case CORE_RECORD:
		return WIRE__LOCK_KIND__RECORD;
	}
	UNREACHABLE();
}

/* `result_to` NULL: nobody waits for what comes of it. */
static void submit_cancel(struct node *n, const struct core_op *op, struct core_op *result_to)
{
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockCancel cancel = WIRE__LOCK_CANCEL__INIT;

	if (n->lease.session == 0 || op->seq == 0 || NODE_PLANTED(PLANT_CANCEL_FORGOTTEN)) {
		return;
	}
	cancel.name.data = (uint8_t *)(uintptr_t)op->name; /* packed, not written to */
	cancel.name.len = op->name_len;
	cancel.owner = op->owner.id;
	cancel.kind = kind_to_wire(op->owner);
	cancel.acquire_seq = op->seq;
	command.op_case = WIRE__COMMAND__OP_LOCK_CANCEL;
	command.lock_cancel = &cancel;
	(void)submit_command(n, &command, result_to);
}

static void task_to_wire(const struct core_task *task, Wire__Task *ret_wire)
{
	wire__task__init(ret_wire);
	ret_wire->pid = task->pid;
	ret_wire->start = task->start;
	ret_wire->command = (char *)(uintptr_t)task->command; /* packed, not written to */
}

static void op_count(struct node *n, struct core_op *op, uint64_t seq)
{
	ASSERT(!op->counted);
	op->key = (struct op_key){op->owner.id, seq};
	op->counted = true;
	HASH_ADD(hh, n->locks.by_owner, key, sizeof op->key, op);
}

static void op_uncount(struct node *n, struct core_op *op)
{
	if (op->counted) {
		HASH_DEL(n->locks.by_owner, op);
		op->counted = false;
	}
}

/* A flock owner's operation under way, or with `seq` the record owner's that it is of. */
static struct core_op *op_of(struct node *n, uint64_t owner, uint64_t seq)
{
	const struct op_key key = {owner, seq};
	struct core_op *op;

	HASH_FIND(hh, n->locks.by_owner, &key, sizeof key, op);
	return op;
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
	acquire.owner = op->owner.id;
	acquire.kind = kind_to_wire(op->owner);
	acquire.start = op->range.start;
	acquire.end = op->range.end;
	acquire.test = op->ret_test != NULL;
	acquire.shared = op->shared;
	acquire.wait = op->wait;
	acquire.task = &task;
	acquire.opener = &opener;
	acquire.uid = op->uid;
	command.op_case = WIRE__COMMAND__OP_LOCK_ACQUIRE;
	command.lock_acquire = &acquire;
	op->seq = submit_command(n, &command, op);
	op->state = OP_SUBMITTED;
	if (is_record(op)) {
		op_count(n, op, op->seq);
	}
}

static void submit_value(struct node *n, struct core_op *op)
{
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockSetValue set = WIRE__LOCK_SET_VALUE__INIT;

	set.name.data = (uint8_t *)op->name;
	set.name.len = op->name_len;
	set.owner = op->owner.id;
	set.kind = kind_to_wire(op->owner);
	set.value.data = op->value;
	set.value.len = op->value_len;
	command.op_case = WIRE__COMMAND__OP_LOCK_SET_VALUE;
	command.lock_set_value = &set;
	op->seq = submit_command(n, &command, op);
	op->state = OP_SUBMITTED;
}

/* --- life of an operation ------------------------------------------------------------------- */

static struct core_op *op_new(struct node *n, struct core_name name, struct core_owner owner,
	core_lock_fn *done, void *arg)
{
	struct core_op *op = xcalloc(1, sizeof *op);

	ASSERT(name.len >= 1);
	ASSERT(name.len <= CORE_NAME_MAX);
	ASSERT(owner.id != 0);
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
	op_uncount(n, op);
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

	ASSERT(req->ret_test == NULL || (!req->wait && is_record(op)));
	op->acquire = true;
	op->range = req->range;
	op->ret_test = req->ret_test;
	op->shared = req->shared;
	op->wait = req->wait;
	op->task = req->task;
	op->opener = req->opener;
	op->uid = req->uid;
	if (!is_record(op)) {
		if (op_of(n, op->owner.id, 0) != NULL) {
			finish(n, op, ST_BUSY, 0);
			return op;
		}
		op_count(n, op, 0);
	}
	submit_or_queue(n, op);
	return op;
}

struct core_op *core_lock_set_value(struct core *c, struct core_name name, struct core_owner owner,
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
		submit_cancel(n, op, NULL); /* nobody waits for it */
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

static void cancel_wait(struct node *n, struct core_op *op)
{
	op->state = OP_CANCELLING;
	submit_cancel(n, op, op);
}

void core_lock_give_up(struct core *c, struct core_op *op)
{
	struct node *n = node_of_core(c);

	ASSERT(is_record(op));
	op->giving_up = op->acquire; /* a value is set, or it is not: the log says it soon */
	if (op->state == OP_QUEUED) {
		finish(n, op, ST_CANCELLED, 0);
	} else if (op->state == OP_WAITING) {
		cancel_wait(n, op);
	}
}

void core_unlock(
	struct core *c, struct core_name name, struct core_owner owner, struct core_range range)
{
	struct node *n = node_of_core(c);
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__LockRelease release = WIRE__LOCK_RELEASE__INIT;

	if (n->lease.session == 0 || (owner.kind == CORE_FLOCK && op_of(n, owner.id, 0) != NULL)) {
		return; /* nothing can be held: a request under way has given up what there was */
	}
	release.name.data = (uint8_t *)(uintptr_t)name.bytes; /* packed, not written to */
	release.name.len = name.len;
	release.owner = owner.id;
	release.kind = kind_to_wire(owner);
	release.start = range.start;
	release.end = range.end;
	command.op_case = WIRE__COMMAND__OP_LOCK_RELEASE;
	command.lock_release = &release;
	(void)submit_command(n, &command, NULL); /* commits behind */
}

/* --- what the log says ---------------------------------------------------------------------- */

static void op_waits(struct node *n, struct core_op *op)
{
	op->state = OP_WAITING;
	if (op->giving_up) {
		cancel_wait(n, op);
	}
}

static const struct claim *held_by(const struct node *n, const struct core_op *op)
{
	const struct lock *l = state_lock(n->state, op->name, op->name_len);

	return l == NULL ? NULL
			 : state_record_held(
				   l, n->lease.session, op->owner.id, op->range, op->shared);
}

/* Of this moment of the log, which is the one that the command was applied at. */
static void finish_test(struct node *n, struct core_op *op)
{
	const struct lock *l = state_lock(n->state, op->name, op->name_len);
	const struct claim *c = l == NULL ? NULL
					  : state_record_conflict(l, n->lease.session, op->owner.id,
						    op->range, op->shared);

	if (c != NULL) {
		op->ret_test->shared = c->shared;
		op->ret_test->range = claim_range(c);
		op->ret_test->pid = c->session == n->lease.session ? c->task.pid : 0;
	}
	finish(n, op, c != NULL ? ST_BUSY : ST_OK, 0);
}

void locks_result(struct node *n, struct core_op *op, enum status st, uint64_t token)
{
	if (st == ST_WAITING) {
		op_waits(n, op);
	} else if (op->ret_test != NULL && (st == ST_OK || st == ST_BUSY)) {
		finish_test(n, op);
	} else {
		finish(n, op, st, token);
	}
}

void locks_granted(struct node *n, const struct claim *claim)
{
	struct core_op *op;

	if (claim->session != n->lease.session) {
		return;
	}
	op = op_of(n, claim->owner, claim->record ? claim->seq : 0);
	if (op != NULL && (op->state == OP_WAITING || op->state == OP_CANCELLING) &&
		op->seq == claim->seq) {
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

/* The value was set, or it was not. */
static void value_restored(struct node *n, struct core_op *op)
{
	const struct lock *l = state_lock(n->state, op->name, op->name_len);
	bool there = l != NULL && l->value_len == op->value_len &&
		     (op->value_len == 0 || memcmp(l->value, op->value, op->value_len) == 0);

	finish(n, op, there ? ST_OK : ST_DENIED, 0);
}

static bool record_waits(const struct node *n, const struct core_op *op)
{
	const struct lock *l = state_lock(n->state, op->name, op->name_len);

	return l != NULL && state_record_wait(l, n->lease.session, op->owner.id, op->seq) != NULL;
}

/* The acquire was applied, or the cancel after it. */
static void record_restored(struct node *n, struct core_op *op)
{
	const struct claim *held = held_by(n, op);

	if (op->ret_test != NULL) {
		finish_test(n, op);
	} else if (record_waits(n, op)) {
		op_waits(n, op);
	} else if (held != NULL) {
		finish(n, op, ST_OK, held->token);
	} else if (op->state == OP_CANCELLING) {
		finish(n, op, ST_CANCELLED, 0);
	} else {
		finish(n, op, op->wait ? ST_NO_SPACE : ST_BUSY, 0); /* it was refused */
	}
}

static void flock_restored(struct node *n, struct core_op *op, uint64_t seq)
{
	const struct claim *claim = state_claim(n->state, n->lease.session, op->owner.id);

	if (claim == NULL || (claim->seq != seq && claim->shared != op->shared)) {
		finish(n, op, op->wait ? ST_NO_SPACE : ST_BUSY, 0); /* it was refused */
	} else if (claim->token != 0) {
		finish(n, op, ST_OK, claim->token);
	} else {
		op->state = OP_WAITING;
	}
}

/* The operation's command was applied, but only the state after it is known. */
void locks_restored(struct node *n, struct core_op *op, uint64_t seq)
{
	if (!op->acquire) {
		value_restored(n, op);
	} else if (is_record(op)) {
		record_restored(n, op);
	} else {
		flock_restored(n, op, seq);
	}
}

/* Only its own cancel, which is still to be applied, or the session's end takes a wait away: one
 * that is no more was granted. */
static void reconcile_record(struct node *n, struct core_op *op)
{
	const struct claim *held = held_by(n, op);

	if (!record_waits(n, op)) {
		finish(n, op, ST_OK, held == NULL ? 0 : held->token);
	}
}

void locks_reconcile_waits(struct node *n)
{
	struct core_op *op, *tmp;

	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		const struct claim *claim;

		if (op->state != OP_WAITING && op->state != OP_CANCELLING) {
			continue;
		}
		if (is_record(op)) {
			reconcile_record(n, op);
			continue;
		}
		claim = state_claim(n->state, n->lease.session, op->owner.id);
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
			DL_APPEND(n->locks.all, op); /* a test is asked again */
		}
	}
}

void locks_session_lost(struct node *n)
{
	struct core_op *op, *tmp;

	recall_answers(n);
	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		op->seq = 0;
		if (is_record(op)) {
			op_uncount(n, op);
		}
		if (!op->acquire && op->state != OP_QUEUED) {
			finish(n, op, ST_LOST, 0);
		} else if (op->giving_up) {
			finish(n, op, ST_CANCELLED, 0);
		} else {
			op->state = OP_QUEUED;
		}
	}
}

/* What comes of a range that is in the log's hands cannot be undone: the caller hears of it, and
 * before the session ends. */
static bool may_time_out(const struct core_op *op)
{
	return !is_record(op) || !op->acquire || op->ret_test != NULL || op->state == OP_QUEUED;
}

void locks_tick(struct node *n)
{
	struct core_op *op, *tmp;

	DL_FOREACH_SAFE (n->locks.all, op, tmp) {
		if (!op->wait && n->now_ms >= op->deadline_ms && may_time_out(op)) {
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

static enum core_lock_mode mode_of_lock(const struct lock *l)
{
	if (l->holders == NULL) {
		return CORE_FREE;
	}
	return lock_is_shared(l) ? CORE_SHARED : CORE_EXCLUSIVE;
}

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
	ret_info->mode = mode_of_lock(l);
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
	bool (*fn)(void *arg, const struct core_holder *holder), void *arg)
{
	struct node *n = node_of_core(c);
	const struct lock *l = state_lock(n->state, name.bytes, name.len);

	for (const struct claim *h = l == NULL ? NULL : l->holders; h != NULL; h = h->next) {
		const struct core_holder holder = {
			.owner = {h->record ? CORE_RECORD : CORE_FLOCK, h->owner},
			.range = claim_range(h),
			.shared = h->shared,
			.here = n->lease.state == LEASE_LIVE && h->session == n->lease.session,
			.task = &h->task,
			.opener = &h->opener,
		};

		if (!fn(arg, &holder)) {
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
