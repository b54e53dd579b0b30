/*
 * wal.h - the replicated log on disk, and the vote.
 *
 * One directory per node:
 *
 *   log/<number>.seg     segments of `segment_bytes`, zeroed before use or recycled
 *   log/spare-<n>.seg    files for the next segments, prepared off the hot path
 *   vote                 term and vote, two checksummed slots written one after the other
 *   mark                 up to where the log is known to be durable, written now and then
 *   reserve              ballast: its blocks let a full disk be seen early
 *
 * A record is {length, index, term, kind, checksum, payload}; the checksum
 * covers the header and the payload and is seeded with the checksum of the
 * record before, so a record belongs to one place in one log. The first record of
 * a segment is chained to its header, which carries the index and term before it
 * and the checksum of the last record of the segment before.
 *
 * All writes are carried out in order by one helper thread: what has queued up
 * is written and made durable with one fdatasync (within a byte limit), then
 * the callbacks run on the loop. Nothing is retried: the first error of a write
 * or fsync reports wal_events.failed, after which nothing becomes durable any
 * more and the process must end.
 *
 * Opening: a torn tail, that is, damage after the last record that an fdatasync
 * can have covered, is cut off (and written over with zeros). Anything else
 * refuses, naming file and offset: -EUCLEAN, with the sentence in `err`. What tells the two
 * apart is said at the head of wal.c.
 */
#ifndef COORDFS_IO_WAL_H
#define COORDFS_IO_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "coordfs/trace.h"
#include "core/raft/entry.h"

struct wal;

struct wal_events {
	void *ctx;
	/* Everything appended with `gen`, up to `index`, is durable. */
	void (*durable)(void *ctx, uint64_t gen, uint64_t index);
	void (*vote_durable)(void *ctx, uint64_t term, uint64_t vote);
	/* The log is restarted behind the snapshot given to wal_reset(). */
	void (*reset_done)(void *ctx, uint64_t index);
	/* The disk is short of space (the reserve had to be used), or has space again. */
	void (*low_space)(void *ctx, bool low);
	/* A write or fsync failed: stop the process. `error` is a negative errno; `text` names
	 * file, operation and reason. */
	void (*failed)(void *ctx, int error, const char *text);
};

struct wal_options {
	const char *dir;      /* exists */
	size_t segment_bytes; /* default (0): 16 MiB; an entry larger than a segment fails the log
			       */
	size_t reserve_bytes; /* default (0): two segments */
	size_t batch_bytes;   /* of one fdatasync; default (0): 4 MiB */
	bool create; /* the directory is new: make an empty log; else its absence refuses */
	struct tracer trace;
};

/* What was on the disk. Owned by the caller: wal_recovered_fini(). */
struct wal_recovered {
	uint64_t term;
	uint64_t vote;
	struct raft_entry **entries; /* one reference each */
	size_t n_entries;
	uint64_t prev_index; /* of the entry before the first one: 0, or covered by a snapshot */
	uint64_t prev_term;
	bool truncated_tail; /* a torn tail was cut off */
};

void wal_recovered_fini(struct wal_recovered *r);

/*
 * Read the log, then start the thread. Callbacks run on `loop`.
 * -EUCLEAN damaged; -ENOENT not created; -EEXIST create, but there is a log; -EBUSY open in another
 * process; -EINVAL segment_bytes; -ENOSPC; others from the system. `err` gets one sentence for the
 * operator. An unfinished creation is begun anew.
 */
int wal_open(uv_loop_t *loop, const struct wal_options *o, const struct wal_events *events,
	struct wal **ret_wal, struct wal_recovered *ret_recovered, char *err, size_t err_size);

/* Queue; the entries are referenced until they are written. */
void wal_append(struct wal *w, uint64_t gen, struct raft_entry *const *entries, size_t n);
/* Queue: drop the entries from `from` on, durably before anything appended later is. */
void wal_truncate(struct wal *w, uint64_t from);
void wal_save_vote(struct wal *w, uint64_t term, uint64_t vote);
/* Queue: forget the whole log; it goes on behind (index, term), which a durable snapshot covers. */
void wal_reset(struct wal *w, uint64_t index, uint64_t term);
/* Queue: entries below `first` are no longer needed; whole segments are recycled. */
void wal_compact(struct wal *w, uint64_t first);

struct wal_stats {
	uint64_t bytes_written;
	uint64_t syncs;
	uint64_t segments;
	uint64_t sync_us_sum; /* time in fdatasync */
	uint64_t sync_us_max;
};
void wal_stats(const struct wal *w, struct wal_stats *ret_stats);

/* Finish what is queued, stop the thread, then `closed`. The wal is freed after it returns. */
void wal_close(struct wal *w, void (*closed)(void *ctx), void *ctx);

#endif
