/*
 * raft_history.c - what was ever seen of a cluster.
 */
#include "raft_history.h"

#include <uthash.h>

#include "coordfs/util.h"

#define TERMS_MAX 4096
#define INDEX_MAX 65536

struct content {
	struct {
		uint64_t index;
		uint64_t term;
	} key;
	uint64_t digest;
	UT_hash_handle hh;
};

struct asked {
	uint64_t id;
	uint64_t server;
	uint64_t applied;
	UT_hash_handle hh;
};

struct history {
	uint64_t leader[TERMS_MAX];
	uint64_t vote[SERVERS_MAX][TERMS_MAX];
	uint64_t applied_term[INDEX_MAX];
	uint64_t applied_digest[INDEX_MAX]; /* of the state machine after that entry */
	uint64_t max_applied;
	struct content *contents;
	struct asked *asked;
};

struct history *history_new(void)
{
	return xcalloc(1, sizeof(struct history));
}

void history_free(struct history *h)
{
	struct content *c, *next;

	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		history_crashed(h, id);
	}
	HASH_ITER (hh, h->contents, c, next) {
		HASH_DEL(h->contents, c);
		free(c);
	}
	free(h);
}

uint64_t digest_mix(uint64_t digest, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++) { /* FNV-1a */
		digest = (digest ^ p[i]) * UINT64_C(0x100000001b3);
	}
	return digest;
}

uint64_t digest_of_entry(const struct raft_entry *e)
{
	uint64_t head[2] = {e->term, e->kind};

	return digest_mix(
		digest_mix(UINT64_C(0xcbf29ce484222325), head, sizeof head), e->data, e->len);
}

void history_saw_entry(struct history *h, const struct raft_entry *e)
{
	struct content *c;
	struct content fresh = {.digest = digest_of_entry(e)};

	fresh.key.index = e->index;
	fresh.key.term = e->term;
	HASH_FIND(hh, h->contents, &fresh.key, sizeof fresh.key, c);
	if (c == NULL) {
		c = xmemdup(&fresh, sizeof fresh);
		HASH_ADD(hh, h->contents, key, sizeof c->key, c);
	}
	assert_int_equal(c->digest, fresh.digest);
}

void history_saw_leader(struct history *h, uint64_t id, const struct raft *r)
{
	uint64_t term = raft_term(r);

	assert_true(term < TERMS_MAX);
	assert_true(h->leader[term] == 0 || h->leader[term] == id);
	if (h->leader[term] == id) {
		return;
	}
	h->leader[term] = id;
	for (uint64_t i = raft_snapshot_index(r) + 1; i <= h->max_applied; i++) {
		assert_int_equal(raft_term_at(r, i), h->applied_term[i]);
	}
}

void history_saw_vote(struct history *h, const struct raft_msg *m)
{
	uint64_t *vote = &h->vote[m->from][m->term];

	assert_true(m->term < TERMS_MAX);
	assert_true(*vote == 0 || *vote == m->to);
	*vote = m->to;
}

void history_saw_applied(struct history *h, uint64_t index, uint64_t term, uint64_t digest)
{
	assert_true(index < INDEX_MAX);
	if (index > h->max_applied) {
		assert_int_equal(index, h->max_applied + 1);
		h->max_applied = index;
		h->applied_term[index] = term;
		h->applied_digest[index] = digest;
	}
	assert_int_equal(h->applied_term[index], term);
	assert_int_equal(h->applied_digest[index], digest);
}

uint64_t history_digest_at(const struct history *h, uint64_t index)
{
	return h->applied_digest[index];
}

void history_read_asked(struct history *h, uint64_t id, uint64_t read_id)
{
	struct asked *a = xcalloc(1, sizeof *a);

	a->server = id;
	a->id = read_id;
	a->applied = h->max_applied;
	HASH_ADD(hh, h->asked, id, sizeof a->id, a);
}

void history_read_answered(struct history *h, uint64_t read_id, uint64_t index, bool ok)
{
	struct asked *a;

	HASH_FIND(hh, h->asked, &read_id, sizeof read_id, a);
	assert_non_null(a); /* asked, and not yet answered */
	assert_true(!ok || index >= a->applied);
	HASH_DEL(h->asked, a);
	free(a);
}

void history_crashed(struct history *h, uint64_t id)
{
	struct asked *a, *next;

	HASH_ITER (hh, h->asked, a, next) {
		if (a->server == id) {
			HASH_DEL(h->asked, a);
			free(a);
		}
	}
}

/* Two logs that have an entry of one term at one index are the same before it. */
void history_check_logs(const struct raft *a, const struct raft *b)
{
	uint64_t i = MIN(raft_last_index(a), raft_last_index(b));
	uint64_t stop = MAX(raft_snapshot_index(a), raft_snapshot_index(b));

	while (i > stop && raft_term_at(a, i) != raft_term_at(b, i)) {
		i--;
	}
	for (; i > stop; i--) {
		assert_int_equal(raft_term_at(a, i), raft_term_at(b, i));
	}
}
