/*
 * entry.c - allocation and reference counts of log entries.
 */
#include "core/raft/entry.h"

#include "coordfs/util.h"

struct raft_entry *raft_entry_new(
	uint64_t index, uint64_t term, enum raft_entry_kind kind, const void *data, size_t len)
{
	struct raft_entry *e;

	ASSERT(len <= RAFT_ENTRY_BYTES_MAX);
	e = xmalloc(sizeof *e + len);
	e->index = index;
	e->term = term;
	e->refs = 1;
	e->len = (uint32_t)len;
	e->kind = kind;
	if (data != NULL && len > 0) {
		memcpy(e->data, data, len);
	}
	return e;
}

struct raft_entry *raft_entry_ref(struct raft_entry *e)
{
	ASSERT(e->refs > 0);
	e->refs++;
	return e;
}

void raft_entry_unref(struct raft_entry *e)
{
	if (e == NULL) {
		return;
	}
	ASSERT(e->refs > 0);
	if (--e->refs == 0) {
		free(e);
	}
}
