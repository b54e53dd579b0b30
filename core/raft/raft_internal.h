/*
 * raft_internal.h - struct raft, and what its files say to each other.
 *
 *   start.c        beginning and end
 *   raft.c         events, the order of a flush
 *   report.c       what can be asked, raft_check()
 *   message.c      is a received message possible at all (rule 12)
 *   election.c     roles, terms and votes, what must be durable before it is said
 *   transfer.c     leadership given away on purpose
 *   peer.c         the leader's table of the others, majorities
 *   replication.c  leader: who gets which entries, commit
 *   follower.c     the other end: matching, acknowledging, commit
 *   snapshot.c     compaction; a snapshot on its way, both ends
 *   membership.c   configurations in force, and changing them
 *   read_index.c   linearizable reads
 *   log.c          entries in memory
 *   config.c       a configuration as a value
 *
 * An event changes this struct at once; what must leave for the disk or the
 * network is noted here and leaves in raft_flush(). Exceptions, because their
 * bytes are only borrowed: chunks of snapshots are passed on within the event.
 */
#ifndef COORDFS_RAFT_INTERNAL_H
#define COORDFS_RAFT_INTERNAL_H

#include <errno.h>

#include "coordfs/util.h"
#include "core/raft/log.h"
#include "core/raft/plant.h"
#include "core/raft/raft.h"

/* Of every index, term, round and offset, so that no sum of two overflows. */
#define RAFT_NUMBER_MAX (UINT64_C(1) << 62)
/* Small messages that wait for a flush; arbitrary, more are dropped as a network would. */
#define RAFT_OUT_MAX 1024u
/* Reads that wait for a round; arbitrary. */
#define RAFT_READS_MAX 65536u

/*
 * What the leader knows of another server.
 *
 *   PROBE      looking for the place where the logs agree, one message at a time
 *   REPLICATE  entries flow, up to inflight_max messages ahead of the answers
 *   SNAPSHOT   what it needs next is compacted away; it is being sent the snapshot
 */
enum peer_state {
	PEER_PROBE,
	PEER_REPLICATE,
	PEER_SNAPSHOT,
};

enum peer_vote {
	VOTE_OPEN,
	VOTE_YES,
	VOTE_NO,
};

/* One chunk at a time: asked of env, then on its way to the peer, then answered. */
enum chunk_state {
	CHUNK_IDLE,
	CHUNK_READING,
	CHUNK_SENT,
};

struct peer {
	uint64_t id;
	bool voter;
	enum peer_vote vote; /* in the election that is going on */

	/* Removed, but still told so: until it knows that `leave_index` is committed. */
	bool leaving;
	uint64_t leave_index;
	uint64_t leave_ms; /* when its removal was committed; 0: not yet */

	enum peer_state state;
	uint64_t match; /* durable there and equal to our log */
	uint64_t next;  /* to be sent next */
	uint64_t commit_sent;
	uint64_t round_sent;
	uint64_t round_acked;
	uint64_t heard_ms;
	bool probing; /* PROBE: one is on its way */
	uint64_t probe_ms;
	uint64_t progress_ms; /* REPLICATE: when `match` last rose, or the flow began */

	/* REPLICATE: last index of each unanswered message, a ring of inflight_max. */
	uint64_t *inflight; /* owned */
	size_t inflight_head;
	size_t n_inflight;

	enum chunk_state chunk;
	uint64_t snap_index; /* 0: none chosen */
	uint64_t snap_offset;
	uint64_t snap_total;
	uint64_t snap_ms;
};

/* A configuration and the entry that brought it; 0 or the snapshot's index for the first. */
struct config_since {
	uint64_t index;
	struct raft_config config;
};

struct pending_read {
	uint64_t id;
	uint64_t round; /* that must come back from a majority */
	uint64_t index; /* commit when it was asked */
};

/* A snapshot that comes in. `from` 0: none. */
struct incoming {
	uint64_t from;
	uint64_t index;
	uint64_t term;
	uint64_t next;    /* bytes passed to env */
	uint64_t written; /* bytes that env says it keeps */
	bool installing;  /* the last chunk was passed on: log, commit and vote stand still */
	struct raft_config config;
};

struct raft {
	struct raft_options o;
	struct raft_env env;
	uint64_t random;
	uint64_t now_ms;
	uint64_t last_tick_ms;

	/* Term and vote, and what of them is durable (rule 3). */
	uint64_t term;
	uint64_t vote;
	uint64_t durable_term;
	uint64_t durable_vote;
	bool vote_changed;

	struct rlog log;
	uint64_t queued;        /* given to env->append up to here */
	uint64_t durable;       /* on the disk up to here */
	uint64_t gen;           /* of appends: counts truncations */
	uint64_t truncate_from; /* env has these and must drop them; 0: nothing */
	uint64_t commit;
	uint64_t applied;
	uint64_t snapshot_index;
	uint64_t snapshot_term;

	struct config_since *configs; /* owned; by index, the last one is in force */
	size_t n_configs;
	bool self_voter; /* by the configuration in force */

	enum raft_role role;
	uint64_t leader;
	uint64_t deadline_ms; /* of the election timer */
	bool role_changed;    /* env is to be told, in the next flush */
	bool config_changed;
	bool readonly;

	/* Follower. All but contact_ms begin anew with each term. */
	uint64_t contact_ms;    /* last word of the leader */
	uint64_t matched;       /* the log equals the leader's up to here */
	uint64_t leader_commit; /* largest heard of */
	uint64_t round_seen;
	uint64_t round_acked;
	uint64_t acked; /* largest index acknowledged */
	bool ack_due;
	struct incoming incoming;

	/* Candidate. */
	bool stood;   /* own vote is durable and the others have been asked */
	bool told_to; /* by TIMEOUT_NOW */

	/* The others: votes for a candidate, progress for a leader. */
	struct peer *peers; /* owned */
	size_t n_peers;

	/* Leader. */
	uint64_t term_start; /* index of the no-op of this term */
	uint64_t elected_ms;
	uint64_t round;
	bool round_wanted;
	bool heartbeat_due;
	uint64_t heartbeat_ms; /* when the next one is due */
	size_t uncommitted_bytes;
	uint64_t transfer_to; /* 0: none */
	uint64_t transfer_deadline_ms;
	uint64_t transfer_sent_ms;
	struct pending_read *reads; /* owned */
	size_t n_reads;
	size_t reads_cap;

	struct raft_msg *out; /* owned; without payload, waiting for a flush or for the disk */
	size_t n_out;
	size_t out_cap;
};

/* --- start.c ----------------------------------------------------------------------------- */

uint64_t raft_random(struct raft *r);

/* --- raft.c ------------------------------------------------------------------------------ */

/* The time goes on. A leader that was stopped for long does not believe what it knew before. */
void raft_clock(struct raft *r, uint64_t now_ms);
/* Queue a message without payload. It leaves when what it says is durable here. */
void raft_post(struct raft *r, const struct raft_msg *msg);
/* Takes the reference. */
void raft_append_entry(struct raft *r, struct raft_entry *e);
void raft_truncate(struct raft *r, uint64_t from);
void raft_set_commit(struct raft *r, uint64_t index);

/* --- message.c --------------------------------------------------------------------------- */

/* NULL: possible. Else what is wrong with it. */
const char *raft_message_fault(const struct raft *r, const struct raft_msg *msg);

/* --- election.c -------------------------------------------------------------------------- */

/* Same term or a later one. `leader` 0: unknown. */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
/* A message of the leader of this term has come. False: it cannot be the leader. */
bool raft_follow(struct raft *r, uint64_t leader);
/* Has a leader been heard of so lately that nobody may unseat it (thesis 4.2.3)? */
bool raft_leader_is_alive(const struct raft *r);
void raft_reset_election_timer(struct raft *r);
void raft_election_tick(struct raft *r);
void raft_check_quorum(struct raft *r);
/* Stand for the next term without asking first. */
void raft_campaign(struct raft *r, bool told_to);
/* Nothing here would be lost by a crash, so this server may stand. */
bool raft_may_stand(const struct raft *r);
/* Term and vote `to` got in this term are durable. */
bool raft_vote_is_durable(const struct raft *r, uint64_t to);
void raft_on_prevote_req(struct raft *r, const struct raft_msg *msg);
void raft_on_prevote_resp(struct raft *r, const struct raft_msg *msg);
void raft_on_vote_req(struct raft *r, const struct raft_msg *msg);
void raft_on_vote_resp(struct raft *r, const struct raft_msg *msg);

/* --- transfer.c -------------------------------------------------------------------------- */

void raft_on_timeout_now(struct raft *r, const struct raft_msg *msg);
void raft_transfer_tick(struct raft *r);
void raft_transfer_flush(struct raft *r);
/* Once the removal of this leader is committed: name a successor and step down. */
void raft_leave_if_removed(struct raft *r);

/* --- peer.c ------------------------------------------------------------------------------ */

struct peer *raft_peer_find(const struct raft *r, uint64_t id);
/* Heard of within an election timeout, or the term is younger than that. */
bool raft_peer_is_alive(const struct raft *r, const struct peer *p);
/* Bring the table in line with the configuration. */
void raft_peers_sync(struct raft *r);
/* A term of leadership begins. */
void raft_peers_start(struct raft *r);
/* Not leader any more: nobody is seen off any longer. */
void raft_peers_stop(struct raft *r);
void raft_peers_fini(struct raft *r);
/* Let go of removed peers that know it, or did not want to. */
void raft_peers_see_off(struct raft *r);
void raft_peer_probe(struct raft *r, struct peer *p, uint64_t next);
/* The largest value that a majority of the voters has reached. */
uint64_t raft_quorum_match(const struct raft *r);
uint64_t raft_quorum_round(const struct raft *r);
size_t raft_majority(const struct raft *r);

/* --- replication.c ----------------------------------------------------------------------- */

void raft_replication_tick(struct raft *r);
void raft_replicate(struct raft *r);
void raft_leader_commit(struct raft *r);
void raft_on_append_resp(struct raft *r, const struct raft_msg *msg);

/* --- follower.c -------------------------------------------------------------------------- */

void raft_on_append_req(struct raft *r, const struct raft_msg *msg);
void raft_follower_commit(struct raft *r);
void raft_follower_durable(struct raft *r);
void raft_follower_ack(struct raft *r);
/* A new term: nothing is matched, no round seen. */
void raft_follower_reset(struct raft *r);

/* --- snapshot.c -------------------------------------------------------------------------- */

void raft_send_snapshot(struct raft *r, struct peer *p);
void raft_peer_start_snapshot(struct raft *r, struct peer *p);
void raft_on_snapshot_req(struct raft *r, const struct raft_msg *msg);
void raft_on_snapshot_resp(struct raft *r, const struct raft_msg *msg);
void raft_incoming_fini(struct raft *r);

/* --- membership.c ------------------------------------------------------------------------ */

/* Takes the configuration: it is in force from `index` on. */
void raft_config_push(struct raft *r, uint64_t index, struct raft_config *config);
/* A configuration entry is in the log: it is in force. */
void raft_config_appended(struct raft *r, const struct raft_entry *e);
void raft_config_undo(struct raft *r, uint64_t from);
/* Those that no index from `index` on needs. */
void raft_config_forget(struct raft *r, uint64_t index);
void raft_configs_clear(struct raft *r);
uint64_t raft_config_index(const struct raft *r);

/* --- read_index.c ------------------------------------------------------------------------ */

/* Those that a majority has confirmed; all of them, with ok = false, once leadership is lost. */
void raft_answer_reads(struct raft *r);

#endif
