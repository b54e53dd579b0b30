/*
 * log.c - the log in memory.
 */
#include "core/raft/log.h"

#define RLOG_CAP_MIN 256 /* arbitrary */

void rlog_init(struct rlog *l, uint64_t prev_index, uint64_t prev_term)
{
	*l = (struct rlog){.prev_index = prev_index, .prev_term = prev_term};
}

void rlog_fini(struct rlog *l)
{
	rlog_truncate(l, l->prev_index + 1);
	free(l->slots);
	l->slots = NULL;
	l->cap = 0;
}

void rlog_restart(struct rlog *l, uint64_t index, uint64_t term)
{
	rlog_fini(l);
	rlog_init(l, index, term);
}

/* Room for one more: give up the compacted front if it is half of all, else double. */
static void make_room(struct rlog *l)
{
	if (l->head + l->n < l->cap) {
		return;
	}
	if (l->head < l->cap / 2 || l->cap == 0) {
		l->cap = MAX(l->cap * 2, (size_t)RLOG_CAP_MIN);
		l->slots = xrealloc(l->slots, l->cap * sizeof l->slots[0]);
		return;
	}
	memmove(l->slots, l->slots + l->head, l->n * sizeof l->slots[0]);
	l->head = 0;
}

void rlog_push(struct rlog *l, struct raft_entry *e)
{
	ASSERT(e->index == rlog_last(l) + 1);
	make_room(l);
	l->slots[l->head + l->n++] = e;
	l->bytes += rlog_entry_bytes(e);
}

void rlog_truncate(struct rlog *l, uint64_t from)
{
	ASSERT(from > l->prev_index);
	while (rlog_last(l) >= from) {
		struct raft_entry *e = l->slots[l->head + --l->n];

		l->bytes -= rlog_entry_bytes(e);
		raft_entry_unref(e);
	}
}

void rlog_compact(struct rlog *l, uint64_t index)
{
	uint64_t term = rlog_term(l, index);

	ASSERT(index >= l->prev_index);
	ASSERT(index <= rlog_last(l));
	while (l->prev_index < index) {
		struct raft_entry *e = l->slots[l->head++];

		l->n--;
		l->prev_index++;
		l->bytes -= rlog_entry_bytes(e);
		raft_entry_unref(e);
	}
	l->prev_term = term;
}

uint64_t rlog_last_at_most(const struct rlog *l, uint64_t index, uint64_t term)
{
	uint64_t low = l->prev_index; /* the answer, if it is known at all, is not below */
	uint64_t high = MIN(index, rlog_last(l));

	if (high < low) {
		return high;
	}
	if (l->prev_term > term) {
		return low > 0 ? low - 1 : 0;
	}
	while (low < high) {
		uint64_t mid = high - (high - low) / 2;

		if (rlog_term(l, mid) <= term) {
			low = mid;
		} else {
			high = mid - 1;
		}
	}
	return low;
}
