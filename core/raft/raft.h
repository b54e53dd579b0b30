/*
 * raft.h - consensus: one log, the same on every server.
 *
 * Pure: a step function. Events come in as calls (a message, a tick, a
 * proposal, "this is on the disk now"), with the time; effects go out through
 * struct raft_env. Nothing here reads a clock, draws a random number that does
 * not come from the seed, or does I/O, so a run replays exactly.
 *
 * Names and rules are those of Diego Ongaro's thesis "Consensus: Bridging
 * Theory and Practice" (2014): pre-vote (9.6), check-quorum and ReadIndex
 * (6.4), leadership transfer (3.10), one-at-a-time membership change (4.1) with
 * learners (4.2.1), log compaction (5), writing to the leader's disk in
 * parallel (10.2.1), batching and pipelining (10.2.2).
 *
 * How it is driven: any number of events, then one raft_flush(), which carries
 * out the effects in this order: append and vote go to the disk queue, messages
 * leave, committed entries are applied. Whoever drives it calls raft_flush() at
 * the end of each turn of its loop; everything proposed within a turn leaves in
 * one message and one disk batch. Chunks of snapshots are only borrowed and do not wait:
 * they are passed on within raft_recv() and raft_snapshot_chunk(). The env's functions must not
 * call back into raft, except raft_propose() and raft_read_index() from env->apply and
 * env->read_ready, which take effect in the same flush.
 *
 * The disk queue is in order: a later append is durable only after an earlier
 * vote, truncation or append is.
 *
 * Always true (raft_check() asserts what one server can see):
 *   - commit <= durable on this server, for entries it acknowledged (rule 2);
 *   - applied <= commit; commit and applied never go back;
 *   - terms in the log never decrease; term >= term of the last entry;
 *   - a leader's log only grows (leader append-only).
 */
#ifndef COORDFS_RAFT_H
#define COORDFS_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordfs/trace.h"
#include "core/raft/entry.h"

#define RAFT_ADDR_MAX 256 /* bytes with the NUL; host names are at most 253 */
#define RAFT_VOTERS_MAX 7
#define RAFT_SERVERS_MAX 64 /* voters and learners; arbitrary, a limit there must be */

struct raft_server {
	uint64_t id; /* never 0, never used again after a removal */
	bool voter;  /* else a learner: receives the log, counts for nothing */
	char addr[RAFT_ADDR_MAX];
};

struct raft_config {
	size_t n;
	struct raft_server *servers; /* owned; ordered by id */
};

void raft_config_fini(struct raft_config *c);
/* -EBADMSG as for raft_config_decode(). */
int raft_config_copy(const struct raft_config *from, struct raft_config *ret_to);
const struct raft_server *raft_config_find(const struct raft_config *c, uint64_t id);
/* Packed wire.RaftConfig. The buffer is the caller's (free). */
void raft_config_encode(const struct raft_config *c, uint8_t **ret_data, size_t *ret_len);
/* -EBADMSG: not a configuration (no voter, too many, an id twice or 0, an address too long). */
int raft_config_decode(const void *data, size_t len, struct raft_config *ret_config);

enum raft_role {
	RAFT_FOLLOWER, /* learners too */
	RAFT_PRECANDIDATE,
	RAFT_CANDIDATE,
	RAFT_LEADER,
};

/*
 *   kind           from       fields that count, beside term
 *   PREVOTE_REQ    candidate  index, log_term: its last entry. term: the one it would stand in
 *   PREVOTE_RESP   any        ok; term: the asked-for one if ok, else the answerer's own
 *   VOTE_REQ       candidate  index, log_term: its last entry; transfer: leader told it to stand
 *   VOTE_RESP      any        ok
 *   APPEND_REQ     leader     index, log_term: entry before; commit; round; entries
 *   APPEND_RESP    follower   ok: index = durable match, round echoed. Not ok: index, log_term =
 *                             a hint where the logs may still agree (thesis 3.5.., last page)
 *   SNAPSHOT_REQ   leader     index, log_term, config: of the snapshot; offset, data, done; round
 *   SNAPSHOT_RESP  follower   index: of the snapshot; offset: bytes wanted next; done: installed
 *   TIMEOUT_NOW    leader     (stand for election at once)
 */
enum raft_msg_kind {
	RAFT_PREVOTE_REQ = 1,
	RAFT_PREVOTE_RESP,
	RAFT_VOTE_REQ,
	RAFT_VOTE_RESP,
	RAFT_APPEND_REQ,
	RAFT_APPEND_RESP,
	RAFT_SNAPSHOT_REQ,
	RAFT_SNAPSHOT_RESP,
	RAFT_TIMEOUT_NOW,
};

struct raft_msg {
	enum raft_msg_kind kind;
	uint64_t from; /* from the authenticated stream, never from the frame */
	uint64_t to;
	uint64_t term;
	uint64_t index;
	uint64_t log_term;
	uint64_t commit;
	uint64_t round;
	bool ok;
	bool transfer;
	struct raft_entry **entries; /* the receiver refs what it keeps */
	size_t n_entries;
	uint64_t offset; /* bytes into the snapshot */
	bool done;
	const uint8_t *data; /* a chunk of the snapshot */
	size_t data_len;
	const struct raft_config *config;
};

struct raft_env {
	void *ctx;

	/* --- the disk queue, in order ------------------------------------------------- */

	/* Make these entries durable; the env refs what it keeps. They follow on what was
	 * appended before. `gen` comes back in raft_log_durable(). */
	void (*append)(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t n);
	/* Drop the entries from index `from` on: they conflicted with the leader's. */
	void (*truncate)(void *ctx, uint64_t from);
	/* Make term and vote (0: nobody) durable; answered by raft_vote_durable(). */
	void (*save_vote)(void *ctx, uint64_t term, uint64_t vote);

	/* --- messages -------------------------------------------------------------------- */

	/* Fire and forget. `msg` and what it points to are borrowed for the call. */
	void (*send)(void *ctx, const struct raft_msg *msg);

	/* --- results ---------------------------------------------------------------------- */

	/* A committed entry, in order, each once per process life (also NOOP and CONFIG). */
	void (*apply)(void *ctx, const struct raft_entry *e);
	/* raft_read_index() is answered: what is applied at `index` or later is linearizable.
	 * ok = false: leadership was lost before that was known. */
	void (*read_ready)(void *ctx, uint64_t read_id, uint64_t index, bool ok);
	/* Role, term or known leader changed; ask raft_role() and friends. */
	void (*role_changed)(void *ctx);
	/* A configuration is in force now (on append, or undone on truncation). */
	void (*config_changed)(void *ctx, const struct raft_config *config);

	/* --- snapshots ---------------------------------------------------------------------- */

	/* Read up to `max` bytes of the newest durable snapshot, whose index is `index`, for
	 * `to`; answered by raft_snapshot_chunk(). */
	void (*snapshot_read)(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max);
	/* A chunk has come from the leader, in order of offsets, starting over at 0 when another
	 * snapshot begins. Keep it; after `done` make it durable, restart the log on disk
	 * behind it, restore the state machine. Answered, chunk by chunk, by
	 * raft_snapshot_written(). `msg` is borrowed. Between `done` and the answer nothing is
	 * appended and nothing applied. */
	void (*snapshot_write)(void *ctx, const struct raft_msg *msg);
};

struct raft_options {
	uint64_t id;
	uint64_t seed;                /* for election timeouts */
	uint32_t election_timeout_ms; /* least; each wait is drawn from [t, 2t). Default 300 */
	uint32_t heartbeat_ms;        /* default 100 */
	size_t append_bytes_max;      /* of one APPEND_REQ; default 256 KiB */
	size_t append_entries_max;    /* of one APPEND_REQ; default 1024 */
	size_t inflight_max;          /* APPEND_REQs unanswered by one follower; default 64 */
	size_t uncommitted_bytes_max; /* raft_propose() answers -ENOBUFS beyond; default 32 MiB */
	size_t snapshot_chunk_bytes;  /* default 256 KiB */
	uint64_t trailing_entries;    /* kept behind a snapshot for slow followers; default 8192 */
	struct tracer trace;
};

/*
 * What was found on the disk. Entries must follow on the snapshot without a gap;
 * they may begin before it. Entries that the snapshot makes obsolete are
 * dropped: those of a log that ends before it, or that differs from it there (the
 * power went between the renaming of a received snapshot and the restart of the log). The
 * log on the disk must then be restarted behind the snapshot too, which is the
 * case if raft_term_at(), asked for the last of the entries, does not know its term.
 */
struct raft_start {
	uint64_t term;
	uint64_t vote;
	uint64_t snapshot_index; /* 0: none */
	uint64_t snapshot_term;
	const struct raft_config *config; /* of the snapshot, or of the bootstrap; borrowed */
	struct raft_entry **entries;      /* referenced for the log by raft_new() */
	size_t n_entries;
};

struct raft;

void raft_options_default(struct raft_options *o);
/* -EINVAL: `start` is not a log (a gap, a term that falls, no configuration). */
int raft_new(const struct raft_options *o, const struct raft_env *env,
	const struct raft_start *start, uint64_t now_ms, struct raft **ret_raft);
void raft_free(struct raft *r);

/* --- events ------------------------------------------------------------------------------- */

void raft_tick(struct raft *r, uint64_t now_ms);
/* Any content is survived; what makes no sense is dropped and traced. Messages of servers
 * that are not in the configuration are accepted as the thesis asks, except requests for votes
 * while a leader is heard (4.1, 4.2.3). */
void raft_recv(struct raft *r, const struct raft_msg *msg, uint64_t now_ms);
/* Entries up to `index` that were given with `gen` are durable. */
void raft_log_durable(struct raft *r, uint64_t gen, uint64_t index);
void raft_vote_durable(struct raft *r, uint64_t term, uint64_t vote);
/* `data` is borrowed. total: bytes of the whole file. len 0 with error != 0: it could not be
 * read (the snapshot was replaced); the transfer starts over with the newest. */
void raft_snapshot_chunk(struct raft *r, uint64_t to, uint64_t index, uint64_t offset,
	const void *data, size_t len, uint64_t total, int error);
/* The chunk that ends at `next_offset` is kept; installed: the whole snapshot is durable, the
 * log on disk starts behind it, the state machine is restored from it. An offset that does not
 * go on from the one before (0: what came is damaged) asks for the bytes from there again. */
void raft_snapshot_written(
	struct raft *r, uint64_t from, uint64_t index, uint64_t next_offset, bool installed);
/* This server's own snapshot up to `index` (<= applied) is durable; older entries may go,
 * except the trailing ones. Returns the first index that the disk log must keep. */
uint64_t raft_snapshot_taken(struct raft *r, uint64_t index);
/* See above. */
void raft_flush(struct raft *r, uint64_t now_ms);

/* --- requests --------------------------------------------------------------------------------- */

/*
 * Append a command to the log. `data` is copied. Whether it commits is seen
 * from env->apply of the entry with this index and term only.
 *
 * -EAGAIN   not the leader, or leadership is being transferred
 * -ENOBUFS  too much uncommitted
 * -ENOSPC   raft_set_readonly() is in force
 * -EFBIG    larger than RAFT_ENTRY_BYTES_MAX
 */
int raft_propose(struct raft *r, const void *data, size_t len, uint64_t *ret_index);

enum raft_change {
	RAFT_ADD_LEARNER,
	RAFT_PROMOTE,
	RAFT_REMOVE
};
/*
 * Change the configuration by one server. `addr` counts for RAFT_ADD_LEARNER.
 *
 * -EAGAIN  not the leader, or leadership is being transferred
 * -EBUSY   a change is under way, or no entry of this term is committed yet
 * -EEXIST  it is there already, with this role     -ENOENT  no such server
 * -ENOBUFS too many servers    -EPROTO  promotion of a learner that has not caught up
 * -EPERM   the last voter cannot be removed     -EINVAL  id 0, address missing or too long
 */
int raft_change_config(struct raft *r, enum raft_change change, uint64_t id, const char *addr);

/* Hand leadership over; to = 0: to the voter with the longest log. -EAGAIN: not the leader,
 * nobody to hand it to. Until it happened or an election timeout passed, proposals are refused. */
int raft_transfer(struct raft *r, uint64_t to, uint64_t now_ms);

/* Ask whether this leader still leads, for a linearizable read; answered by env->read_ready
 * after a heartbeat round begun after this call has reached a majority, and never before an
 * entry of the own term is committed. -EAGAIN: not the leader. -ENOBUFS: too many wait. */
int raft_read_index(struct raft *r, uint64_t read_id);

/* The disk is nearly full: hand leadership over if possible and refuse proposals. */
void raft_set_readonly(struct raft *r, bool readonly, uint64_t now_ms);

/* --- what it knows -------------------------------------------------------------------------- */

enum raft_role raft_role(const struct raft *r);
uint64_t raft_term(const struct raft *r);
uint64_t raft_leader(const struct raft *r); /* 0: unknown */
/* Leader, and an entry of its own term is committed and applied: it knows the present. */
bool raft_leader_ready(const struct raft *r);
uint64_t raft_commit(const struct raft *r);
uint64_t raft_applied(const struct raft *r);
uint64_t raft_last_index(const struct raft *r);
uint64_t raft_durable_index(const struct raft *r);
uint64_t raft_snapshot_index(const struct raft *r);
/* 0 if the entry is not in memory (compacted, or past the end). */
uint64_t raft_term_at(const struct raft *r, uint64_t index);
const struct raft_config *raft_config(const struct raft *r);
/* The configuration that was in force at `index` (snapshot <= index <= last). */
const struct raft_config *raft_config_at(const struct raft *r, uint64_t index);
/* Bytes of entries in memory: what a snapshot would let go. */
size_t raft_log_bytes(const struct raft *r);

struct raft_peer_report {
	uint64_t id;
	uint64_t match; /* 0 unless leader */
	uint64_t next;
	uint64_t heard_ms; /* now_ms of its last answer, 0: never */
	bool snapshot;     /* is being sent one */
};
/* Only on a leader, else returns 0. Up to `max` rows; returns how many there are. */
size_t raft_peers(const struct raft *r, struct raft_peer_report *ret_rows, size_t max);

/* Asserts the invariants above. For simulations: costs a walk over the log. */
void raft_check(const struct raft *r);

#endif
