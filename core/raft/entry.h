/*
 * entry.h - one entry of the replicated log, shared by reference.
 *
 * The log in memory, messages on their way out and batches on their way to the
 * disk hold the same entry. References are counted without atomics: only the
 * loop's thread refs and unrefs; the log's thread reads what the loop holds
 * for it. Nothing of an entry changes once it is in the log.
 */
#ifndef COORDFS_RAFT_ENTRY_H
#define COORDFS_RAFT_ENTRY_H

#include <stddef.h>
#include <stdint.h>

enum raft_entry_kind {
	RAFT_NOOP = 0,    /* a leader's first entry (thesis 6.4) */
	RAFT_COMMAND = 1, /* for the state machine */
	RAFT_CONFIG = 2,  /* the servers of the cluster, in force from the append on */
};

/* Limit of one entry's payload; a frame or a log record over it is refused. */
#define RAFT_ENTRY_BYTES_MAX (1u << 20)

struct raft_entry {
	uint64_t index;
	uint64_t term;
	uint32_t refs;
	uint32_t len; /* bytes of data */
	enum raft_entry_kind kind;
	uint8_t data[];
};

/* A new entry with one reference. `data` is copied; NULL leaves it unset. */
struct raft_entry *raft_entry_new(
	uint64_t index, uint64_t term, enum raft_entry_kind kind, const void *data, size_t len);
struct raft_entry *raft_entry_ref(struct raft_entry *e);
/* Accepts NULL. */
void raft_entry_unref(struct raft_entry *e);

#endif
