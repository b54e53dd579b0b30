/*
 * core.h - what a front-end may ask of the node: the only interface between
 * fs/, core/api/ and the core.
 *
 * Asynchronous: an operation that needs the cluster is answered through its
 * callback, exactly once, never from inside the call that started it. All calls
 * come from the loop's thread. The time is the loop's: whoever delivers an
 * input from outside (a request, a frame, a timer) has told the core the time
 * before (node_set_now()), and has thereby let it notice that its lease ran out.
 */
#ifndef COORDFS_CORE_H
#define COORDFS_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordfs/status.h"

#define CORE_NAME_MAX 255        /* bytes of a lock's name */
#define CORE_LOCK_VALUE_MAX 4096 /* bytes */
#define CORE_COMMAND_MAX 16      /* bytes of a task's name, with the NUL */

struct core;
struct core_op;

/* Who asked: for signals and reports. pid 0: unknown (another pid namespace). */
struct core_task {
	uint32_t pid;
	uint64_t start; /* /proc/PID/stat field 22, tells a reused pid apart; 0: unknown */
	char command[CORE_COMMAND_MAX];
};

struct core_name {
	const void *bytes; /* borrowed for the call */
	size_t len;        /* 1..CORE_NAME_MAX */
};

/* --- locks ---------------------------------------------------------------------------------- */

/* Bytes from `start` to `end`, both included. */
struct core_range {
	uint64_t start;
	uint64_t end; /* at most CORE_RANGE_MAX */
};

#define CORE_RANGE_MAX ((uint64_t)INT64_MAX)
#define CORE_RANGE_WHOLE ((struct core_range){0, CORE_RANGE_MAX})

enum core_lock_kind {
	CORE_FLOCK,  /* an open file description, on the whole lock */
	CORE_RECORD, /* fcntl(2), on byte ranges: a process, or a description */
};

/* Who holds or waits. Owners of different kinds are different, whatever their ids. */
struct core_owner {
	enum core_lock_kind kind;
	uint64_t id; /* not 0, never used again in a process life */
};

static inline struct core_owner core_flock_owner(uint64_t id)
{
	return (struct core_owner){CORE_FLOCK, id};
}

/* What is in the way of a range. */
struct core_conflict {
	bool shared;
	struct core_range range;
	uint32_t pid; /* 0: unknown, or of another node */
};

struct core_lock_request {
	struct core_name name;
	struct core_owner owner;
	struct core_range range; /* of a CORE_RECORD owner */
	bool shared;
	bool wait; /* for as long as it takes; else ST_BUSY, and ST_TIMEOUT after `timeo` */
	/* Not NULL (a CORE_RECORD owner that does not wait): takes nothing. ST_BUSY: a holder is in
	 * the way, told here before the callback is called. */
	struct core_conflict *ret_test;
	struct core_task task;   /* that asks */
	struct core_task opener; /* that opened the file */
	uint32_t uid;
};

/* token: of the grant with ST_OK, else 0. */
typedef void core_lock_fn(void *arg, enum status st, uint64_t token);

/*
 * flock(2) for an open file description, fcntl(2) for an owner of ranges. A wait survives
 * changes of leader and the loss of the node's session (it queues again at the tail). One
 * operation per CORE_FLOCK owner at a time: a second one while the first is under way is
 * answered ST_BUSY. A CORE_RECORD owner may have any number under way, as a process has
 * threads.
 */
struct core_op *core_lock(
	struct core *c, const struct core_lock_request *req, core_lock_fn *done, void *arg);

/* The caller of a lock operation was interrupted. Its callback is called with ST_CANCELLED before
 * this returns (the one exception to "never from inside"), and whatever the log makes of the
 * request is undone. `op` is gone. */
void core_interrupt(struct core *c, struct core_op *op);
/*
 * The same for an operation of a CORE_RECORD owner, where an undo could not tell what the grant
 * has replaced: the log decides which came first, and the callback is called with that, later:
 * ST_CANCELLED (nothing has changed) or what came of the request. At the latest when the session
 * is lost. `op` lives until then; asking again is fine.
 */
void core_lock_give_up(struct core *c, struct core_op *op);

/* Give up what the owner holds; for CORE_RECORD, of `range` (else unused). Answers at once and
 * commits behind; later requests of this node take effect after it. An owner that holds nothing
 * is fine. Waits of a CORE_RECORD owner go on. */
void core_unlock(
	struct core *c, struct core_name name, struct core_owner owner, struct core_range range);

/* Replace the lock's value. ST_DENIED: the owner does not hold all of it exclusively. `value` is
 * copied. */
struct core_op *core_lock_set_value(struct core *c, struct core_name name, struct core_owner owner,
	const void *value, size_t len, core_lock_fn *done, void *arg);

enum core_lock_mode {
	CORE_FREE,
	CORE_SHARED,
	CORE_EXCLUSIVE
};

struct core_lock_info {
	enum core_lock_mode mode;
	size_t n_holders;
	size_t n_waiters;
	uint64_t token;    /* of the newest holder */
	const void *value; /* borrowed until the next call that changes anything */
	size_t value_len;
	uint32_t uid; /* of the first holder */
	uint64_t since_unix_ms;
};

/* From local memory. false: nobody holds it or waits for it. */
bool core_lock_info(struct core *c, struct core_name name, struct core_lock_info *ret_info);
/* What a CORE_FLOCK owner holds as far as this node knows. CORE_FREE also when its session was
 * lost. */
enum core_lock_mode core_lock_held(struct core *c, uint64_t owner, uint64_t *ret_token);

struct core_holder {
	struct core_owner owner;
	struct core_range range;
	bool shared;
	bool here; /* of this node's session */
	const struct core_task *task;
	const struct core_task *opener;
};

/* Who holds it (for writes through another descriptor): calls fn until it returns false. */
void core_lock_holders(struct core *c, struct core_name name,
	bool (*fn)(void *arg, const struct core_holder *holder), void *arg);

/* Names in locks/, from local memory, for readdir. `cursor` starts at 0 and is moved on; names
 * that exist during the whole listing are listed once. Returns false at the end. The name is
 * borrowed until the next call. */
bool core_lock_next(struct core *c, uint64_t *cursor, struct core_name *ret_name);

/* --- what happens to a front-end ------------------------------------------------------------ */

struct core_listener {
	void *ctx;
	/* The session is lost: whatever owners of this process hold is gone, now. Called before any
	 * other node can have been granted it. The front-end answers EIO on those descriptions from
	 * here on and signals their holders. */
	void (*session_lost)(void *ctx);
	/* A former process of this node held this when it died (restart within the TTL): its
	 * descriptor is gone. The front-end signals the holder if it still lives. */
	void (*orphan)(void *ctx, const struct core_task *task, const struct core_task *opener);
	/* Somebody, here or elsewhere, begins to wait for this lock. */
	void (*contended)(void *ctx, struct core_name name);
};

void core_listen(struct core *c, const struct core_listener *l);

/* --- reports -------------------------------------------------------------------------------- */

enum core_report {
	CORE_REPORT_RAFT,
	CORE_REPORT_NODES,
	CORE_REPORT_SESSIONS,
	CORE_REPORT_LOCKS,
	CORE_REPORT_VERSION,
	CORE_REPORT_MAX_,
};

/* File name under status/ and last part of the HTTP path. */
const char *core_report_name(enum core_report r);
/* JSON text with a newline at the end, from local memory. The caller frees it. */
char *core_report(struct core *c, enum core_report r);

/* --- events --------------------------------------------------------------------------------- */

/*
 * A reader of what happens, from now on, as lines of JSON. `wake` is called, once and never from
 * inside a call, when there is something to read again after core_events_next() or
 * core_events_pending() has said that there is nothing. It may read and may close the reader.
 */
struct core_events;

struct core_events *core_events_open(struct core *c, void (*wake)(void *arg), void *arg);
void core_events_close(struct core_events *r);
/* Begin with the oldest event that is still kept: only of the rare kinds. */
void core_events_rewind(struct core_events *r);
bool core_events_pending(struct core_events *r);
/* The next line, newline included, and its length; 0: nothing now. Borrowed until the next call.
 * What a slow reader has missed is a line as well. */
size_t core_events_next(struct core_events *r, const char **ret_line);

/* --- limits for statfs ---------------------------------------------------------------------- */

struct core_usage {
	uint64_t locks;
	uint64_t locks_max;
};

void core_usage(struct core *c, struct core_usage *ret_usage);

#endif
