/*
 * log.h - the log in memory: entries behind a point that is compacted away.
 *
 *      prev_index                              rlog_last()
 *          |  first ... ... ... ... ... ... ... last
 *          +-- its term is known, the entry is not
 *
 * A vector whose front can be given up, so that any run of entries is one
 * array: messages and disk batches point straight into it.
 */
#ifndef COORDFS_RAFT_LOG_H
#define COORDFS_RAFT_LOG_H

#include "coordfs/util.h"
#include "core/raft/entry.h"

struct rlog {
	struct raft_entry **slots; /* owned, with one reference to each entry */
	size_t cap;
	size_t head; /* slots[head .. head + n) are in use */
	size_t n;
	uint64_t prev_index;
	uint64_t prev_term;
	size_t bytes; /* of rlog_entry_bytes() */
};

void rlog_init(struct rlog *l, uint64_t prev_index, uint64_t prev_term);
void rlog_fini(struct rlog *l);
/* Forget everything and go on behind (index, term). */
void rlog_restart(struct rlog *l, uint64_t index, uint64_t term);
/* Takes the reference. The index must be the next one. */
void rlog_push(struct rlog *l, struct raft_entry *e);
/* Drop the entries from `from` on. */
void rlog_truncate(struct rlog *l, uint64_t from);
/* Drop the entries up to `index`, which must be in the log. */
void rlog_compact(struct rlog *l, uint64_t index);
/*
 * The largest index not above `index` whose term is not above `term`: the last
 * place where two logs may agree (thesis 3.5). Below prev_index nothing is
 * known and the answer is a guess. By bisection: terms never decrease.
 */
uint64_t rlog_last_at_most(const struct rlog *l, uint64_t index, uint64_t term);

/* What an entry costs in memory. */
static inline size_t rlog_entry_bytes(const struct raft_entry *e)
{
	return sizeof *e + e->len;
}

static inline uint64_t rlog_last(const struct rlog *l)
{
	return l->prev_index + l->n;
}

/* Pointer to the entry `index` and all that follow it. */
static inline struct raft_entry **rlog_at(const struct rlog *l, uint64_t index)
{
	return &l->slots[l->head + (size_t)(index - l->prev_index - 1)];
}

/* 0: not known here. */
static inline uint64_t rlog_term(const struct rlog *l, uint64_t index)
{
	if (index == l->prev_index) {
		return l->prev_term;
	}
	if (index < l->prev_index || index > rlog_last(l)) {
		return 0;
	}
	return (*rlog_at(l, index))->term;
}

static inline uint64_t rlog_last_term(const struct rlog *l)
{
	return rlog_term(l, rlog_last(l));
}

#endif
