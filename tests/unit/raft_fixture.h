/*
 * raft_fixture.h - a few rafts, a network and disks under the test's control.
 *
 * Servers have the ids 1, 2, 3 …; time is virtual; every message is queued and
 * delivered only by deliver(), settle() or pass(); every disk works through its queue only
 * by disk_work() and the like. A crash loses what the disk's queue still holds.
 *
 * Every effect is told to the history (raft_history.h), which fails the test when a promise is
 * broken; the logs are compared when check_logs() is called.
 */
#ifndef COORDFS_TESTS_RAFT_FIXTURE_H
#define COORDFS_TESTS_RAFT_FIXTURE_H

#include "raft_history.h"

#define KINDS (RAFT_TIMEOUT_NOW + 1)
#define ANSWERS_MAX 64

struct read_answer {
	uint64_t id;
	uint64_t index;
	bool ok;
};

struct snapshot_file {
	uint64_t index;
	uint64_t term;
	struct raft_config config;
	uint64_t digest; /* of the state machine */
};

struct disk_op;
struct packet;

struct server {
	struct fixture *f;
	uint64_t id;
	struct raft *raft; /* NULL: down */

	/* On the disk. */
	uint64_t term;
	uint64_t vote;
	struct raft_entry **entries;
	size_t n_entries;
	struct snapshot_file snapshot;
	struct disk_op *ops; /* not yet on the disk */
	bool disk_held;

	/* The state machine: a digest of everything applied. */
	uint64_t applied;
	uint64_t digest;

	uint8_t *incoming; /* a snapshot that arrives */
	size_t incoming_len;
	size_t chunks_written;

	struct read_answer answers[ANSWERS_MAX]; /* the last ones */
	size_t n_answers;
	uint64_t propose_on_apply; /* so many commands are proposed from within apply */
	size_t role_changes;
	size_t config_changes;
	uint64_t term_of_last_role;
	size_t bad_messages;
	bool was_leader;
};

struct fixture {
	uint64_t now;
	struct raft_options options; /* of servers started from now on; id and seed are set */
	struct server servers[SERVERS_MAX];
	struct packet *net;
	size_t n_net;
	bool cut[SERVERS_MAX][SERVERS_MAX]; /* from, to */
	bool muted[KINDS];                  /* kinds that are lost */

	/* What was sent last, from, to, kind: without what it points to; and how often. */
	struct raft_msg last[SERVERS_MAX][SERVERS_MAX][KINDS];
	size_t sent[SERVERS_MAX][KINDS];
	size_t entries_sent;
	size_t snapshot_bytes; /* size of a snapshot's file */

	struct history *history;
};

struct fixture *fixture_new(size_t voters);
void fixture_free(struct fixture *f);

/* --- servers ----------------------------------------------------------------------------- */

struct server *server(struct fixture *f, uint64_t id);
struct raft *raft_of(struct fixture *f, uint64_t id);
/* A new server that knows the configuration of the first start, and is not in it. */
void join(struct fixture *f, uint64_t id);
void crash(struct fixture *f, uint64_t id);
void restart(struct fixture *f, uint64_t id);

/* --- time, network, disks ---------------------------------------------------------------- */

/* Time goes on for everybody, but only this server notices. */
void tick(struct fixture *f, uint64_t id, uint64_t ms);
void flush(struct fixture *f, uint64_t id);
/* Deliver one message: the oldest, or the n-th oldest. */
void deliver(struct fixture *f, size_t nth);
void drop(struct fixture *f, size_t nth);
void duplicate(struct fixture *f, size_t nth);
/* Deliver and write until nothing is left, except on disks that are held. No time passes. */
void settle(struct fixture *f);
/* The same, and time goes on with all timers. */
void pass(struct fixture *f, uint64_t ms);
/* Both directions. */
void cut(struct fixture *f, uint64_t a, uint64_t b);
void isolate(struct fixture *f, uint64_t id);
void heal(struct fixture *f);
void hold_disk(struct fixture *f, uint64_t id);
void release_disk(struct fixture *f, uint64_t id);
/* Carries out the oldest operation; `tell`: raft is told. Returns whether there was one. */
bool disk_work(struct fixture *f, uint64_t id, bool tell);

/* --- requests ---------------------------------------------------------------------------- */

/* Make this server the leader. */
void elect(struct fixture *f, uint64_t id);
uint64_t propose(struct fixture *f, uint64_t id, const char *command);
/* Asks for a read; the answer's place is answers[n_answers - 1]. */
int ask_read(struct fixture *f, uint64_t id, uint64_t read_id);
void take_snapshot(struct fixture *f, uint64_t id);
/* A hand-made message. `to` is filled in. The disk works, unless it is held. */
void tell(struct fixture *f, uint64_t to, struct raft_msg msg);
/* APPEND_REQ with entries of these terms, behind (prev, prev_term). */
void tell_entries(struct fixture *f, uint64_t from, uint64_t to, uint64_t term, uint64_t prev,
	uint64_t prev_term, const uint64_t *terms, size_t n, uint64_t commit);

/* --- what is seen ------------------------------------------------------------------------ */

struct raft_msg *last_sent(struct fixture *f, uint64_t from, uint64_t to, enum raft_msg_kind kind);
void forget_sent(struct fixture *f);
/* 0: nobody, or more than one. */
uint64_t leader_of(struct fixture *f);
void assert_role(struct fixture *f, uint64_t id, enum raft_role role);
void assert_commit(struct fixture *f, uint64_t id, uint64_t index);
/* All running servers have applied the same, as far as this server. */
void assert_all_applied(struct fixture *f, uint64_t index);
void check_logs(struct fixture *f);

#endif
