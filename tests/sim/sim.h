/*
 * sim.h - a whole cluster in one thread, on virtual time, out of one seed.
 *
 * The nodes are the real ones (core/node.h); their world is not: the network,
 * the disks, the clocks and the processes that lock are here, and every chance
 * is drawn from one generator. So a run is a function of its seed, and a seed
 * that fails, fails again (`sim --seed S --trace`).
 *
 * What must hold is checked as it happens: consensus in watch.c, what locks
 * promise in holds.c, and that everything is well again, in time, once the
 * faults have stopped, in heal.c. A check that does not hold ends the process
 * through sim_fail().
 *
 *     world.c     time, chance, the queue of events, the trace
 *     net.c       streams between nodes     disk.c, snapfile.c   what a node's disk keeps
 *     cluster.c   processes, their lives and clocks; struct env
 *     clients.c   processes that lock       minds.c   what they have in mind
 *     chaos.c     what a seed makes happen
 *     scenario.c  what a script makes happen
 *     main.c      many seeds, several at a time
 */
#ifndef COORDFS_SIM_H
#define COORDFS_SIM_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordfs/core.h"
#include "coordfs/util.h"
#include "core/env.h"
#include "core/node.h"
#include "core/raft/raft.h"
#include "core/state/state.h"

#define SIM_IDS_MAX 10     /* node ids 1..10: five at first, five that join */
#define SIM_CLIENTS_MAX 64 /* arbitrary */
#define SIM_LOCKS_MAX 16   /* arbitrary */
#define SIM_FAULTS_MAX 16
#define SIM_MS UINT64_C(1000)

struct sim;
struct sim_node;

/* --- chance (world.c) ---------------------------------------------------------------- */

struct rng {
	uint64_t state;
};

uint64_t rng_next(struct rng *r);
/* 0..n-1; n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* low..high, both included. */
uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high);
/* low..high with every order of magnitude as likely as the others; low > 0. */
uint64_t rng_magnitude(struct rng *r, uint64_t low, uint64_t high);
bool rng_permille(struct rng *r, unsigned permille);

/* --- events (world.c) ---------------------------------------------------------------- */

struct sim_event {
	uint64_t at_us;
	uint64_t seq; /* of two at the same time, the one put in first comes first */
	void (*run)(struct sim *s, struct sim_event *e);
	uint32_t node; /* it is an input of; 0: of nobody */
	uint32_t life; /* of that node: another life does not see it */
	uint64_t a, b;
	void *data; /* owned: free() */
	size_t len;
	struct sim_event *prev, *next; /* sim_node->parked */
};

struct sim_heap {
	struct sim_event **slot; /* owned, as are the events in it */
	size_t n, cap;
	struct sim_event **spare; /* owned; events to use again */
	size_t n_spare, spare_cap;
};

/* --- the disk of a node (disk.c, snapfile.c) ----------------------------------------- */

enum disk_op_kind {
	DISK_APPEND,
	DISK_TRUNCATE,
	DISK_COMPACT,
	DISK_RESET,
	DISK_VOTE,
};

struct disk_op {
	enum disk_op_kind kind;
	uint64_t a;                  /* gen, from, first, index, term */
	uint64_t b;                  /* term, vote */
	struct raft_entry **entries; /* owned, with a reference each */
	size_t n;
	struct disk_op *prev, *next; /* disk->queue or disk->batch */
};

/* The log's file: entries prev_index + 1 .. prev_index + n. */
struct disk_log {
	uint64_t prev_index, prev_term;
	struct raft_entry **entries; /* owned, with a reference each */
	size_t n, cap;
};

/* A snapshot's file, as it is sent to others: header, configuration, payload. */
struct snap_file {
	uint64_t index, term; /* index 0: none */
	uint8_t *bytes;       /* owned */
	size_t len, cap;
};

struct disk {
	/* What a crash leaves. */
	struct disk_log log;
	uint64_t term, vote;
	struct snap_file newest;

	/* What a crash takes. */
	struct disk_op *queue; /* utlist */
	struct disk_op *batch; /* utlist: being written and synced */
	struct snap_file own, received;
	uint64_t own_ready_us, received_ready_us;
	size_t own_buffered;
	uint32_t own_gen;

	/* How it behaves. */
	uint32_t latency_us; /* least time of a sync */
	uint32_t spread_us;  /* at most this much more */
	size_t batch_max;    /* operations in one sync */
	uint32_t sync_fails; /* fails at the n-th sync from now; 0: does not */
};

void disk_init(struct disk *d);
void disk_fini(struct disk *d);
/* The machine or the process goes down: what was not synced is lost, or a part of it. */
void disk_crash(struct sim_node *n);
/* What the daemon does at start: a log that the newest snapshot makes useless is dropped. */
void disk_recover(struct sim_node *n);
/* The last entry that is durable in the log's file. */
uint64_t disk_last(const struct disk *d);
/* Entry at `index`; NULL: not in the file. */
const struct raft_entry *disk_entry(const struct disk *d, uint64_t index);
/* The functions of struct env that are the disk's. */
void disk_env(struct env *env);
void snapfile_env(struct env *env);
void snap_file_clear(struct snap_file *f);
/* The configuration in the file; false: it is not a snapshot. */
bool snap_file_config(const struct snap_file *f, struct raft_config *ret_config);

/* --- the network (net.c) ------------------------------------------------------------- */

struct held_frame {
	void *data; /* owned */
	size_t len;
	struct held_frame *prev, *next; /* link->held */
};

/* One direction between two nodes. */
struct link {
	bool wanted;    /* the sender keeps a stream to it */
	bool connected; /* there is one */
	uint32_t gen;   /* of the connection: what was under way in a former one is lost */
	bool cut;
	bool hold; /* what is sent while it is cut arrives afterwards, as TCP may do; else is lost
		    */
	uint64_t last_us; /* arrival of the last frame: a stream keeps the order */
	uint32_t delay_us, spread_us;
	struct held_frame *held; /* utlist */
};

struct net {
	struct link link[SIM_IDS_MAX + 1][SIM_IDS_MAX + 1]; /* [from][to] */
	uint32_t delay_us, spread_us;                       /* what links have when they are well */
	bool ordered; /* a stream keeps the order of its frames */
	unsigned loss_permille;
	unsigned doubling_permille;
};

void net_init(struct sim *s);
void net_fini(struct sim *s);
void net_send(struct sim *s, uint64_t from, uint64_t to, const void *frame, size_t len);
void net_wanted(struct sim *s, uint64_t from, const struct raft_config *config);
/* The process at `id` has come or gone. */
void net_node_gone(struct sim *s, uint64_t id);
/* One direction. */
void net_cut(struct sim *s, uint64_t from, uint64_t to, bool hold);
void net_heal(struct sim *s, uint64_t from, uint64_t to);
void net_heal_all(struct sim *s);
/* The stream breaks, with what is under way, and is made again. */
void net_break(struct sim *s, uint64_t from, uint64_t to);

/* --- nodes (cluster.c) --------------------------------------------------------------- */

enum sim_presence {
	SIM_ABSENT, /* has never been, or was removed for good */
	SIM_UP,
	SIM_PAUSED,
	SIM_DOWN,
};

/* What watch.c remembers of a node's log: the chain of hashes up to each entry. */
struct watch_log {
	uint64_t prev_index;
	uint64_t *term;  /* owned */
	uint64_t *chain; /* owned */
	size_t n, cap;
	uint64_t prev_chain;
};

struct watch_node {
	struct watch_log log;
	enum raft_role role;
	uint64_t term;
	uint64_t commit;
	uint64_t applied;
	uint64_t last;
	uint64_t turns;
};

struct sim_node {
	struct sim *sim;
	uint64_t id;
	enum sim_presence presence;
	struct node *node; /* owned; NULL unless UP or PAUSED */
	struct env env;
	struct node_options options;
	struct raft_config boot; /* owned: what it was started with for the first time */
	struct membership_change {
		bool under_way;
		enum raft_change kind;
		uint64_t id;
	} change; /* asked for at this node */
	uint32_t life;
	bool started_before;
	bool in_turn;
	bool dying;               /* at the end of this turn the process ends */
	bool stopping;            /* told to shut down */
	struct sim_event *parked; /* utlist; owned: what comes while it is paused */
	uint64_t next_owner;
	struct disk disk;
	struct watch_node watch;

	/* CLOCK_BOOTTIME = offset + virtual time, faster by drift_ppm */
	int64_t clock_offset_us;
	int32_t drift_ppm;
	int64_t wall_offset_ms;
};

/* A cluster of nodes 1..n, all down. */
void cluster_init(struct sim *s, unsigned n);
void cluster_fini(struct sim *s);
struct sim_node *cluster_node(struct sim *s, uint64_t id);
uint64_t node_clock_ms(const struct sim_node *n);
void cluster_start(struct sim_node *n);
/* A process for a server that was added to the configuration. */
void cluster_join(struct sim *s, uint64_t id, const struct raft_config *config);
/* reboot: the machine went down, so its clock starts over. */
void cluster_crash(struct sim_node *n, bool reboot);
void cluster_pause(struct sim_node *n);
void cluster_resume(struct sim_node *n);
/* Clean shutdown; the node is DOWN when it has come to its end. */
void cluster_stop(struct sim_node *n);
/* For good: the disk is gone too. */
void cluster_forget(struct sim_node *n);
/* Bring the process to notice the time, as any call of a client would. */
void cluster_probe(struct sim_node *n);
bool cluster_runs(const struct sim_node *n); /* UP or PAUSED */
/* The node that leads with the highest term; NULL: none. */
struct sim_node *cluster_leader(struct sim *s);
void cluster_change(struct sim_node *at, enum raft_change change, uint64_t id);
/* A turn: everything that happens to a node happens in one. */
bool turn_begin(struct sim_node *n);
void turn_end(struct sim_node *n);

/* --- clients (clients.c) ------------------------------------------------------------- */

enum client_state {
	CLIENT_IDLE,
	CLIENT_ASKING,
	CLIENT_HOLDING,
	CLIENT_LOST, /* held when the session was lost: every call answers EIO */
};

/* An open file description of a lock's file, and the process that has it. */
struct sim_client {
	struct sim *sim;
	unsigned index;
	uint64_t node;
	uint64_t owner; /* 0: not open */
	unsigned lock;
	enum client_state state;
	bool shared; /* asked for */
	bool wait;
	bool converts;      /* it held something when it asked */
	bool stubborn;      /* does not let go until the table was compared with the clients */
	struct core_op *op; /* borrowed: NULL unless one is under way */
	bool sets_value;    /* what is under way is core_lock_set_value() */
	uint8_t value[16];
	uint64_t plan; /* of the wake-ups scheduled, only the newest counts */

	/* What the process may rely on, from the answer until it lets go. */
	bool holds;
	bool holds_shared;
	bool fresh;  /* the hold began in this turn: to be checked at its end */
	bool unsure; /* a conversion was interrupted or failed: it may have what it had before */
	uint64_t token;

	enum status last;
};

struct sim_client *client_new(struct sim *s, uint64_t node);
/* Each of these is part of a turn of the client's node. */
void client_lock(struct sim_client *c, unsigned lock, bool shared, bool wait);
void client_unlock(struct sim_client *c);
void client_interrupt(struct sim_client *c);
void client_set_value(struct sim_client *c, const void *value, size_t len);
/* The last close, or the death of the process. */
void client_close(struct sim_client *c);
/* The node's process is gone, with the mount and what was open there. */
void clients_node_gone(struct sim *s, uint64_t node);
/* What its clients hold is gone. */
void clients_session_lost(struct sim_node *n);
void clients_listener(struct sim_node *n, struct core_listener *ret_listener);
const char *client_state_name(enum client_state st);

/* --- what must hold (watch.c, holds.c, heal.c) --------------------------------------- */

struct watch; /* of the whole cluster */

void watch_init(struct sim *s);
void watch_fini(struct sim *s);
/* A new life of the node: what it may have forgotten is forgotten here too. */
void watch_started(struct sim_node *n);
/* After every turn of a node. */
void watch_turn(struct sim_node *n);
void watch_append(struct sim_node *n, struct raft_entry *const *entries, size_t count);
void watch_truncate(struct sim_node *n, uint64_t from);
void watch_reset(struct sim_node *n, uint64_t index, uint64_t term);
void watch_vote_durable(struct sim_node *n, uint64_t term, uint64_t vote);
void watch_frame(struct sim_node *n, uint64_t to, const uint8_t *body, size_t len);
/* All nodes that run have applied the same, and have come to the same state. */
bool watch_agree(struct sim *s);

/* A grant is about to be told to the client. */
void holds_granted(struct sim_client *c, uint64_t token);
/* Nobody holds what somebody else holds: for holds that began in this turn, or all. */
void holds_check(struct sim *s, uint64_t node, bool all);
void holds_check_all(struct sim *s);
/* The table of every node says what the clients say. `why` gets a sentence if not. */
bool holds_match(struct sim *s, char *why, size_t size);

/* Faults stop, everything is repaired; then all must come right in time. */
void heal_run(struct sim *s);

/* --- what clients want (minds.c) ----------------------------------------------------- */

/* It has an answer, or has lost what it held: go on. */
void mind_moves(struct sim_client *c);
/* The mount is there (again). */
void mind_node_up(struct sim_node *n);

/* --- what happens (chaos.c) ---------------------------------------------------------- */

/* Draw the seed's profile, make its cluster, start it. */
void chaos_start(struct sim *s);
void chaos_stop(struct sim *s);
/* The process ended by itself: its disk failed, or it was told to stop. */
void chaos_node_down(struct sim_node *n);
void chaos_membership_changed(
	struct sim_node *at, const struct membership_change *change, int error);

/* --- the world (world.c) ------------------------------------------------------------- */

enum sim_bias {
	BIAS_NONE,
	BIAS_SHORT_LEADERS,
	BIAS_LEASES,
};

struct sim_options {
	uint64_t seed;
	uint64_t chaos_ms;
	bool print;  /* the trace, as it happens */
	size_t tail; /* lines of the trace that are printed on failure */
	enum sim_bias bias;
	/* Told of a failure, before the process ends. */
	void (*failed)(const struct sim *s, const char *check, const char *text);
};

/* How a seed is set up; chaos.c draws them, a script sets them. */
struct sim_profile {
	unsigned nodes;
	unsigned clients_per_node;
	unsigned locks;
	uint32_t ttl_ms;
	uint32_t timeo_ms;
	uint64_t think_us;       /* at most, between two operations of a client */
	uint64_t hold_us;        /* at most, usually */
	uint64_t fault_every_us; /* mean */
	uint64_t fault_most_ms;  /* they last so long at most, usually */
	uint64_t turn_us;        /* inputs of a node within this time are one turn */
	uint64_t snapshot_bytes; /* of log, for a script; 0: the default */
	uint64_t trailing;
	unsigned weight[SIM_FAULTS_MAX]; /* of each fault */
};

struct sim {
	struct sim_options options;
	struct sim_profile profile;
	struct rng rng;
	uint64_t now_us;
	uint64_t next_seq;
	struct sim_heap heap;
	struct net net;
	struct sim_node nodes[SIM_IDS_MAX + 1]; /* by id */
	uint64_t next_id;                       /* that has never been a server */
	struct sim_client clients[SIM_CLIENTS_MAX];
	size_t n_clients;
	struct watch *watch; /* owned */
	struct sim_lock {
		char name[64];
		uint64_t exclusive; /* largest token of an exclusive grant so far */
		uint64_t any;       /* of any grant */
	} locks[SIM_LOCKS_MAX];
	bool scripted;   /* chaos.c lets everything be: a script says what happens */
	bool chaos;      /* faults and clients go on */
	bool letting_go; /* clients end what they have */

	/* Determinism: the hash of everything that happened. */
	uint64_t hash;
	uint64_t n_events;
	uint64_t n_grants;
	uint64_t n_lost;

	char **tail; /* owned ring of options.tail lines */
	size_t tail_next;
};

struct sim *sim_new(const struct sim_options *o);
void sim_free(struct sim *s);
/* A run of chaos and healing. */
void sim_run_chaos(struct sim *s);

/* The event is the world's; `data` is taken over. */
struct sim_event *sim_at(struct sim *s, uint64_t at_us, uint64_t node,
	void (*run)(struct sim *s, struct sim_event *e));
/* What was parked comes at once; or, if the process is no more, never. */
void sim_unpark(struct sim_node *n);
/* Run the next event. false: there is none up to that time, which is now the time. */
bool sim_step(struct sim *s, uint64_t until_us);
void sim_run_until(struct sim *s, uint64_t until_us);

bool sim_tracing(const struct sim *s);
/* node 0: the world. Costs nothing unless somebody reads it: use SIM_TRACE. */
void sim_trace(struct sim *s, uint64_t node, const char *event, const char *fmt, ...)
	PRINTF_LIKE(4, 5);
#define SIM_TRACE(s, node, event, ...)                                                             \
	do {                                                                                       \
		if (sim_tracing(s)) {                                                              \
			sim_trace((s), (node), (event), __VA_ARGS__);                              \
		}                                                                                  \
	} while (0)
/* It happened: part of what a replay must come to again. */
void sim_hash(struct sim *s, const void *data, size_t len);
void sim_hash_u64(struct sim *s, uint64_t a, uint64_t b);
void sim_print_tail(const struct sim *s);

_Noreturn void sim_fail(struct sim *s, const char *check, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* --- scripts (scenario.c) ------------------------------------------------------------ */

/* Returns 0, or 1 after a sentence on stderr. */
int scenario_run(const char *path, bool print);

#endif
