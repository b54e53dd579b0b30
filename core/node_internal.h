/*
 * node_internal.h - the parts of a node, and what they may ask of each other.
 *
 *   submit.c     commands of this node's session on their way into the log, in order
 *   lease.c      this node's session: open, keep alive, lose
 *   leader.c     what a leader does for the sessions of all nodes
 *   locks.c      operations of the front-ends on locks
 *   compaction.c snapshots: taking our own, installing the leader's
 *   members.c    changes of the membership
 *   admission.c  which data directory is let in under which id
 *   contacts.c   streams to those whom an old configuration does not name
 *   report.c     JSON for status/ and the HTTP API
 *   news.c       what is told to those who read the node's events
 *   node.c       puts them together: events, frames, turns
 */
#ifndef COORDFS_NODE_INTERNAL_H
#define COORDFS_NODE_INTERNAL_H

#include <uthash.h>

#include "core/events.h"
#include "core/node.h"
#include "core/wire.h"

/* --- submit: this node's commands ----------------------------------------------------------- */

/* A command that has not been seen applied. */
struct pending {
	uint64_t seq;
	struct core_op *op; /* borrowed; NULL: nobody waits for the result */
	uint8_t *command;   /* owned, packed */
	size_t len;
	struct pending *prev, *next; /* submit->queue */
};

struct submit {
	struct pending *queue;  /* by seq, without gaps; owned */
	struct pending *unsent; /* first of the queue that was not sent to this leader; borrowed */
	uint64_t next_seq;
	uint64_t leader;      /* to whom the sent ones were sent */
	uint64_t progress_ms; /* when the head last changed or was sent again */
	bool held;            /* the leader takes none for now: nothing goes out before a resend */
	bool retry;           /* it was not ready: send again at the next tick */
};

/* --- lease: this node's session ------------------------------------------------------------- */

enum lease_state {
	LEASE_NONE,    /* no session; an open will be sent when a leader is known */
	LEASE_OPENING, /* an open with `nonce` is under way */
	LEASE_OPENED,  /* in the log; no keep-alive answered yet: nothing may be held */
	LEASE_LIVE,    /* until `end_ms` */
	LEASE_CLOSED,  /* shutting down: none will be opened any more */
};

#define LEASE_SERIALS 64 /* keep-alives whose sending time is remembered; arbitrary */

struct orphan {
	struct core_task task;
	struct core_task opener;
	struct orphan *next;
};

struct lease {
	enum lease_state state;
	bool resume;
	uint64_t nonce;
	uint64_t session;
	uint64_t incarnation;
	uint64_t end_ms;
	uint64_t sent_ms; /* of the last open or keep-alive */
	uint64_t leader;  /* it was sent to */
	uint64_t serial;
	uint64_t serial_sent_ms[LEASE_SERIALS];
	struct orphan *orphans; /* owned; claims dropped by the resume that is being applied */
};

/* --- leader: sessions of all nodes ---------------------------------------------------------- */

/* What a leader remembers of a session, in its own term only. */
struct follower_session {
	uint64_t session;
	uint64_t incarnation;
	uint64_t appended_seq; /* of the last command of it in the leader's log */
	uint64_t seen_ms;
	bool ending;        /* its end is in the log, perhaps not committed */
	uint64_t ending_ms; /* when that was proposed last */
	UT_hash_handle hh;
};

/* A keep-alive that waits for its heartbeat round. */
struct keep_alive {
	uint64_t read_id;
	uint64_t from;
	uint64_t session;
	uint64_t incarnation;
	uint64_t serial;
	bool confirmed;
	struct keep_alive *prev, *next;
};

struct leader {
	uint64_t term;     /* that the rest is of; 0: not leader */
	uint64_t since_ms; /* timers run from here at the earliest */
	uint64_t tick_ms;
	uint64_t promote_ms; /* when learners were last looked at */
	uint64_t read_id;
	struct follower_session *sessions; /* uthash by session; owned */
	struct keep_alive *keep_alives;    /* utlist by read_id; owned */
};

/* --- locks: operations under way ------------------------------------------------------------ */

enum op_state {
	OP_QUEUED,     /* no session: submitted when there is one */
	OP_SUBMITTED,  /* on its way into the log, or there with its result unknown */
	OP_WAITING,    /* in the table's queue */
	OP_CANCELLING, /* there too, and its cancel is on its way into the log */
	OP_DONE,       /* on the list of answers */
};

/* A flock owner has one operation under way, of any number (0 here); a record owner's are told
 * apart by what their acquires are. */
struct op_key {
	uint64_t owner;
	uint64_t seq;
};

struct core_op {
	enum op_state state;
	bool acquire; /* else: sets the value */
	bool shared;
	bool wait;
	bool counted;   /* in locks->by_owner */
	bool giving_up; /* to be cancelled when the log has it waiting */
	uint8_t name_len;
	char name[CORE_NAME_MAX];
	struct core_owner owner;
	struct core_range range;        /* of a record owner */
	struct core_conflict *ret_test; /* borrowed; NULL: it takes the range */
	struct op_key key;              /* with `counted` */
	uint64_t seq;                   /* of its command in the live incarnation; 0: none */
	struct pending *pending;        /* borrowed: that command, until it is applied */
	uint64_t deadline_ms;
	struct core_task task;
	struct core_task opener;
	uint32_t uid;
	uint8_t *value; /* owned */
	size_t value_len;
	enum status status; /* with OP_DONE */
	uint64_t token;
	core_lock_fn *done;
	void *arg;
	struct core_op *prev, *next; /* locks->all, or locks->answers when OP_DONE */
	UT_hash_handle hh; /* locks->by_owner; acquires only, a record owner's when submitted */
};

struct locks {
	struct core_op *all;      /* utlist in order of arrival; owned */
	struct core_op *answers;  /* utlist; owned */
	struct core_op *by_owner; /* uthash */
	uint64_t no_space_ms;     /* refused for want of space until then */
};

/* --- compaction ----------------------------------------------------------------------------- */

struct compaction {
	struct state_snapshot *taking; /* owned; NULL: none is being taken */
	bool finishing;                /* handed over, not durable yet */
	size_t buffered;               /* bytes that wait for the disk */
	uint64_t bytes_since;          /* of log entries applied since the last one was begun */
	uint64_t due_bytes;            /* begin the next at this many */
	uint64_t install_from;         /* a leader's snapshot is durable, the log is being reset */
	uint64_t install_index;
	uint64_t install_term;
	uint64_t install_offset;
	bool reset_due; /* the log on disk is to be restarted behind it */
};

/* --- members -------------------------------------------------------------------------------- */

struct member_request {
	uint64_t request;
	enum raft_change change;
	uint64_t id;
	bool any_id; /* the leader is to choose it */
	uint64_t deadline_ms;
	char addr[RAFT_ADDR_MAX];
	uint64_t asked; /* the leader it was sent to; 0: not yet */
	uint64_t asked_ms;
	uint64_t from;        /* on the leader: who asked; 0: ourselves */
	uint64_t index;       /* on the leader: of the configuration entry; 0: not appended */
	uint64_t term;        /* of that entry */
	node_member_fn *done; /* NULL: answered by a frame */
	void *arg;
	struct member_request *prev, *next;
};

/* --- contacts ------------------------------------------------------------------------------- */

struct contact {
	uint64_t id; /* not in the configuration */
	char addr[RAFT_ADDR_MAX];
	uint64_t heard_ms;
	struct contact *prev, *next; /* node->contacts */
};

/* --- admission ------------------------------------------------------------------------------ */

/* Whose directory a node id is, although no applied entry has said so yet. */
struct owner {
	uint64_t id;
	uint8_t uuid[16];
	UT_hash_handle hh; /* node->owners */
};

/* --- news ----------------------------------------------------------------------------------- */

struct news {
	struct events events;
	bool started;
	bool low_space;
	uint64_t leader; /* told last */
	uint64_t term;
	uint64_t dropped;     /* holders whose session is just ending */
	uint64_t known_index; /* the log's end when this process began: told in a former life */
	struct raft_config members; /* committed; owned */
};

struct node {
	struct node_options o;
	const struct env *env;
	struct raft_env raft_env;
	struct state_hooks hooks;
	struct core_listener listener;
	struct raft *raft;   /* owned */
	struct state *state; /* owned */
	uint64_t now_ms;
	uint64_t unix_ms;
	uint64_t random; /* state of the generator */
	struct submit submit;
	struct lease lease;
	struct leader leader;
	struct locks locks;
	struct compaction compaction;
	struct member_request *member_requests; /* utlist; owned */
	uint64_t member_serial;   /* begins anywhere: an answer to a former process is none to us */
	struct contact *contacts; /* utlist; owned */
	struct news news;
	struct raft_config streams; /* the configuration that streams were last kept for */
	bool member_seen;           /* the log, or the beginning, has had this node as a member */
	struct owner *owners;       /* uthash by id; owned */
	uint64_t said_ms;           /* when our own address was last told */
	struct wire_buf out;        /* scratch for one frame */
	bool failed;                /* env->fatal was called: nothing goes out any more */
	bool stopping;
	bool stopped;
	uint64_t stop_ms; /* at the latest */
	uint64_t handed_over_ms;
};

static inline struct node *node_of_core(struct core *c)
{
	return (struct node *)(void *)c;
}

/* node.c */
uint64_t node_draw(struct node *n);
void node_send_frame(struct node *n, uint64_t to, const Wire__Frame *frame);
void node_fatal(struct node *n, const char *what, int rc);
void node_restored(struct node *n);
static inline bool node_leads(const struct node *n)
{
	return raft_leader_ready(n->raft);
}

/* submit.c */
/* Pack and queue a command of the live session; seq, session and incarnation are filled in. Returns
 * the sequence number. */
uint64_t submit_command(struct node *n, Wire__Command *command, struct core_op *op);
/* A command without a session (SessionOpen, SessionEnd): goes to the leader at once, if one is
 * known; who needs it sends it again. False: no leader is known. */
bool submit_unsequenced(struct node *n, Wire__Command *command);
/* The result of the oldest command came; returns its operation, or NULL. */
struct core_op *submit_applied(struct node *n, uint64_t seq);
/* A restored state has applied everything up to `seq`: calls fn for each, oldest first. */
void submit_skipped(
	struct node *n, uint64_t seq, void (*fn)(struct node *n, struct core_op *op, uint64_t seq));
void submit_forget_op(struct core_op *op);
void submit_refused(struct node *n, uint64_t from, const Wire__Refused *refused);
void submit_resend(struct node *n); /* from the first one, to whoever leads */
void submit_tick(struct node *n);
void submit_flush(struct node *n);
bool submit_has_unsent(const struct node *n);
void submit_drop_all(struct node *n);

/* lease.c */
void lease_tick(struct node *n);
void lease_set_now(struct node *n);
void lease_leader_changed(struct node *n);
void lease_ack(struct node *n, const Wire__KeepAliveAck *ack);
void lease_session_event(struct node *n, const struct session *s, enum session_event what);
void lease_dropped(struct node *n, const struct claim *claim);
void lease_restored(struct node *n);
void lease_close(struct node *n); /* give up whatever is held, end the session, open none again */
void lease_fini(struct node *n);

/* leader.c */
void leader_role_changed(struct node *n);
void leader_tick(struct node *n);
/* `commands` of `from`; those already in the log are skipped. */
void leader_propose(struct node *n, uint64_t from, const Wire__Propose *p);
void leader_keep_alive(struct node *n, uint64_t from, const Wire__KeepAlive *ka);
void leader_read_ready(struct node *n, uint64_t read_id, bool ok);
void leader_answer(struct node *n); /* keep-alives whose round is complete */
void leader_session_event(struct node *n, const struct session *s, enum session_event what);
void leader_fini(struct node *n);

/* locks.c */
void locks_session_live(struct node *n);
void locks_session_lost(struct node *n);
void locks_result(struct node *n, struct core_op *op, enum status st, uint64_t token);
void locks_granted(struct node *n, const struct claim *claim);
void locks_contended(struct node *n, const struct lock *lock); /* somebody begins to wait */
void locks_restored(struct node *n, struct core_op *op, uint64_t seq);
void locks_reconcile_waits(struct node *n);
void locks_tick(struct node *n);
void locks_shutdown(struct node *n);
bool locks_answer(struct node *n); /* true: something was answered */
void locks_fini(struct node *n);

/* compaction.c */
void compaction_applied(struct node *n, size_t bytes);
void compaction_turn(struct node *n);
void compaction_receive(struct node *n, const struct raft_msg *msg);
int node_load_snapshot(struct node *n, struct state **ret_state);
void compaction_fini(struct node *n);

/* members.c */
void members_frame(struct node *n, uint64_t from, const Wire__MemberChange *m);
void members_answer_frame(struct node *n, uint64_t from, const Wire__MemberChanged *m);
/* The configuration in force at `index` is committed: does it still name this node? */
void members_self(struct node *n, uint64_t index);
void members_applied(struct node *n, uint64_t index, uint64_t term);
void members_tick(struct node *n);
void members_promote(struct node *n);
void members_fini(struct node *n);

/* admission.c */
void admission_learn(struct node *n, struct raft_entry *const *entries, size_t count);
void admission_fini(struct node *n);

/* contacts.c */
void contacts_keep_streams(struct node *n);
void contacts_peer_up(struct node *n, uint64_t id);
void contacts_frame(struct node *n, uint64_t from, const Wire__Contact *w);
void contacts_tick(struct node *n);
void contacts_fini(struct node *n);

/* news.c */
void news_init(struct node *n, const struct raft_config *members);
void news_started(struct node *n);
void news_lock(struct node *n, enum event_kind kind, const struct lock *l, const struct claim *c);
void news_dropped(struct node *n, const struct lock *l, const struct claim *c);
void news_session(struct node *n, const struct session *s, enum session_event what);
void news_session_lost(struct node *n, uint64_t session, const char *why);
void news_leader(struct node *n);
/* The configuration at `index` is committed. */
void news_members(struct node *n, uint64_t index);
void news_low_space(struct node *n, bool low);
void news_restored(struct node *n);
void news_fini(struct node *n);

#endif
