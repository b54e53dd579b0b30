/*
 * node_fixture.h - a few nodes wired in memory, for tests of core/node.
 *
 * Nodes have the ids 1 to NODES_MAX - 1. Time is virtual and goes on only when a test says so;
 * frames wait until deliver() or settle() and can be kept back by kind, lost or given
 * twice; a disk carries out its queue when the frames are delivered, and a crash loses
 * what still waits. As in the daemon, frames go only where env->peers() keeps a stream and the
 * receiver admits the sender.
 */
#ifndef COORDFS_TESTS_NODE_FIXTURE_H
#define COORDFS_TESTS_NODE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordfs/util.h"
#include "core/node.h"

#define NODES_MAX 8
#define TTL_MS 5000u
#define MARGIN_MS 500u /* of the lease: a tenth */

struct disk_op;
struct frame;

struct box {
	struct world *w;
	uint64_t id;
	struct node *node; /* NULL: down */
	struct env env;
	uint8_t uuid[16];
	struct raft_config boot;
	struct raft_config streams; /* as env->peers() has said */

	/* On the disk. */
	uint64_t term;
	uint64_t vote;
	uint64_t prev_index; /* of the entry before the first */
	uint64_t prev_term;
	struct raft_entry **entries;
	size_t n_entries;
	uint8_t *snapshot; /* owned: file of snapshot_index; see file_new() */
	size_t snapshot_len;
	uint64_t snapshot_index;
	uint64_t snapshot_term;

	struct disk_op *ops; /* not yet on the disk */
	struct wire_buf own; /* the snapshot being taken */
	uint64_t own_index;
	uint64_t own_term;
	struct wire_buf incoming; /* the one being received */

	unsigned lost;    /* calls of session_lost */
	unsigned orphans; /* calls of orphan */
	bool stopped;
	bool fatal;
};

struct world {
	uint64_t now;
	struct node_options options;
	struct box boxes[NODES_MAX];
	struct frame *net;
	bool cut[NODES_MAX][NODES_MAX]; /* from, to */
	/* Of this kind (of Wire__Frame, 0: none), from one to another: kept back. */
	int kept[NODES_MAX][NODES_MAX];
	size_t n_frames; /* that were sent, ever */
	uint64_t lives;  /* of processes: each has a seed of its own */
};

/* Servers 1 to n, all voters, running. */
struct world *world_new(uint64_t n);
void world_free(struct world *w);

/* --- disks, for node_fixture.c: node_disk.c ---------------------------------------------- */

void disk_env(struct env *env);
/* Carries out what was asked until now. Returns whether that was anything. */
bool disk_work(struct box *b);
/* Of the snapshot, which is there. */
void disk_snapshot_config(const struct box *b, struct raft_config *ret_config);
/* What was not carried out is lost; everything is. */
void disk_crash(struct box *b);
void disk_clear(struct box *b);

/* --- nodes ------------------------------------------------------------------------------- */

struct node *node_at(struct world *w, uint64_t id);
struct core *core_at(struct world *w, uint64_t id);
void crash(struct world *w, uint64_t id);
void restart(struct world *w, uint64_t id);
/* What happens to an empty directory that is started as this node again. */
void wipe(struct world *w, uint64_t id);
/* A node that joins: knows these servers and is not a voter. */
void join(struct world *w, uint64_t id);

/* --- time, frames ------------------------------------------------------------------------ */

/* Time goes on and nobody notices. */
void sleep_ms(struct world *w, uint64_t ms);
/* The node notices the time; `tick` also with its timers. */
void notice(struct world *w, uint64_t id);
void tick(struct world *w, uint64_t id);
void flush(struct world *w, uint64_t id);
/* Frames and disks until nothing is left to do. No time passes. */
void settle(struct world *w);
/* The same, and time goes on with all timers. */
void pass(struct world *w, uint64_t ms);
/* Until a leader is ready and every running node has a lease. Returns the leader. */
uint64_t settled_leader(struct world *w);
uint64_t leader_of(struct world *w); /* 0: none that is ready */
void elect(struct world *w, uint64_t id);
void cut(struct world *w, uint64_t a, uint64_t b);
void isolate(struct world *w, uint64_t id);
void heal(struct world *w);
/* Frames of this kind wait until release(), which returns how many there were. */
void keep(struct world *w, uint64_t from, uint64_t to, int kind);
size_t release(struct world *w, uint64_t from, uint64_t to);
/* The kept ones: how many; lose them; give them (again), in the receiver's turn, and keep them. */
size_t n_kept(struct world *w, uint64_t from, uint64_t to);
void lose(struct world *w, uint64_t from, uint64_t to);
void give_copies(struct world *w, uint64_t from, uint64_t to);
/* Hand what waits for this node to it, without the end of its turn. */
void hand_over(struct world *w, uint64_t to);

/* --- requests ---------------------------------------------------------------------------- */

/* A request and its answer; lives as long as the test likes. */
struct ask {
	struct core_op *op; /* NULL: answered */
	unsigned answers;
	enum status status;
	uint64_t token;
};

enum how {
	EX,
	SH,
	EX_NB,
	SH_NB,
};

void lock(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how,
	struct ask *ret_ask);
void unlock(struct world *w, uint64_t id, const char *name, uint64_t owner);
void set_value(struct world *w, uint64_t id, const char *name, uint64_t owner, const char *value,
	struct ask *ret_ask);
void interrupt(struct world *w, uint64_t id, struct ask *ask);

/* The same of byte ranges; `owner` is another than the one above. */
void lock_range(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how,
	struct core_range range, struct ask *ret_ask);
void unlock_range(
	struct world *w, uint64_t id, const char *name, uint64_t owner, struct core_range range);
/* What is in the way is told in *ret_conflict. */
void test_range(struct world *w, uint64_t id, const char *name, uint64_t owner, enum how how,
	struct core_range range, struct core_conflict *ret_conflict, struct ask *ret_ask);
void give_up(struct world *w, uint64_t id, struct ask *ask);

#define assert_waits(ask)                                                                          \
	do {                                                                                       \
		assert_int_equal((ask)->answers, 0);                                               \
		assert_non_null((ask)->op);                                                        \
	} while (0)
#define assert_answer(ask, st)                                                                     \
	do {                                                                                       \
		assert_int_equal((ask)->answers, 1);                                               \
		assert_string_equal(status_name((ask)->status), status_name(st));                  \
	} while (0)

/* As every running node sees it: holders and waiters of the lock. */
void assert_lock(struct world *w, const char *name, size_t holders, size_t waiters);
uint64_t holder_node(struct world *w, uint64_t at, const char *name); /* 0: nobody */

#endif
