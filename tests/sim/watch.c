/*
 * watch.c - what must hold of consensus, after every turn of every node.
 *
 * Seen from outside: what nodes write to their disks, what they send, and what
 * they say of themselves.
 *
 *   election safety        one leader a term
 *   leader append-only     a leader truncates nothing
 *   log matching           the same index and term: the same entry, and the same before it
 *   leader completeness    who begins to lead has every entry that was committed in a former term
 *   state machine safety   the same index applied: the same state
 *   commitment             what one node knows as committed, no node knows otherwise, ever
 *   one vote a term        also over crashes; and only a durable vote is sent
 *   acknowledgements       only of what is durable
 *   nothing goes back      term, commit index, applied index of one process
 *
 * Logs are compared by a chain of hashes: that of an entry covers all before it.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

#include <xxhash.h>

/* An entry that some node has appended. */
struct fork {
	uint64_t term;
	uint64_t chain;
};

struct row {
	struct fork *forks; /* owned: one a term */
	size_t n_forks;
	uint64_t term;         /* of the committed entry */
	uint64_t chain;        /* of the committed entry; 0: none is known */
	uint64_t committed_in; /* the term of whoever knew that first */
	uint64_t digest;
	bool applied; /* digest is the state's after this entry */
};

struct watch {
	struct row *rows; /* owned; by index */
	size_t n;
	uint64_t committed; /* highest index known as committed */
	uint64_t *leaders;  /* owned; by term */
	size_t n_leaders;
	struct {
		uint64_t *by_term; /* owned */
		size_t n;
	} votes[SIM_IDS_MAX + 1];
};

/* More terms than any run can use up: beyond, somebody stands for election in a loop. */
#define TERMS_MAX 100000

void watch_init(struct sim *s)
{
	s->watch = xcalloc(1, sizeof *s->watch);
}

void watch_fini(struct sim *s)
{
	for (size_t i = 0; i < s->watch->n; i++) {
		free(s->watch->rows[i].forks);
	}
	free(s->watch->rows);
	free(s->watch->leaders);
	for (unsigned id = 0; id <= SIM_IDS_MAX; id++) {
		free(s->watch->votes[id].by_term);
		free(s->nodes[id].watch.log.term);
		free(s->nodes[id].watch.log.chain);
	}
	free(s->watch);
}

static struct row *row_at(struct sim *s, uint64_t index)
{
	struct watch *w = s->watch;

	if (index >= w->n) {
		size_t n = MAX(2 * w->n, index + 1024);

		w->rows = xrealloc(w->rows, n * sizeof(*w->rows));
		memset(w->rows + w->n, 0, (n - w->n) * sizeof(*w->rows));
		w->n = n;
	}
	return &w->rows[index];
}

/* Entry `term` of an array that grows, zero where nothing was written. */
static uint64_t *slot_of_term(struct sim *s, uint64_t **array, size_t *n, uint64_t term)
{
	if (term >= TERMS_MAX) {
		sim_fail(s, "terms", "term %" PRIu64 " is out of all reason", term);
	}
	if (term >= *n) {
		size_t more = term + 64;

		*array = xrealloc(*array, more * sizeof(**array));
		memset(*array + *n, 0, (more - *n) * sizeof(**array));
		*n = more;
	}
	return &(*array)[term];
}

/* --- a node's log -------------------------------------------------------------------- */

static uint64_t chain_of(uint64_t before, const struct raft_entry *e)
{
	uint64_t seed = before ^ (e->term * 8 + (uint64_t)e->kind) * UINT64_C(0x9e3779b97f4a7c15);

	return XXH3_64bits_withSeed(e->data, e->len, seed) | 1;
}

static uint64_t log_last(const struct watch_log *l)
{
	return l->prev_index + l->n;
}

static uint64_t log_chain(const struct watch_log *l, uint64_t index)
{
	return index == l->prev_index ? l->prev_chain : l->chain[index - l->prev_index - 1];
}

static void match_log(struct sim_node *n, const struct raft_entry *e, uint64_t chain)
{
	struct row *row = row_at(n->sim, e->index);

	for (size_t i = 0; i < row->n_forks; i++) {
		if (row->forks[i].term != e->term) {
			continue;
		}
		if (row->forks[i].chain != chain) {
			sim_fail(n->sim, "log matching",
				"node %" PRIu64 " has another entry %" PRIu64 " of term %" PRIu64
				" than was there before",
				n->id, e->index, e->term);
		}
		return;
	}
	row->forks = xrealloc(row->forks, (row->n_forks + 1) * sizeof(*row->forks));
	row->forks[row->n_forks++] = (struct fork){e->term, chain};
}

static void log_push(struct sim_node *n, const struct raft_entry *e)
{
	struct watch_log *l = &n->watch.log;
	uint64_t chain = chain_of(log_chain(l, log_last(l)), e);

	match_log(n, e, chain);
	if (l->n == l->cap) {
		l->cap = MAX(2 * l->cap, 256);
		l->term = xrealloc(l->term, l->cap * sizeof(*l->term));
		l->chain = xrealloc(l->chain, l->cap * sizeof(*l->chain));
	}
	l->term[l->n] = e->term;
	l->chain[l->n++] = chain;
}

void watch_append(struct sim_node *n, struct raft_entry *const *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (entries[i]->index != log_last(&n->watch.log) + 1) {
			sim_fail(n->sim, "append",
				"node %" PRIu64 " appends entry %" PRIu64 " behind %" PRIu64, n->id,
				entries[i]->index, log_last(&n->watch.log));
		}
		log_push(n, entries[i]);
	}
}

void watch_truncate(struct sim_node *n, uint64_t from)
{
	struct watch_node *w = &n->watch;
	const struct raft *r = node_raft(n->node);

	if (from <= w->commit) {
		sim_fail(n->sim, "commitment",
			"node %" PRIu64 " truncates from %" PRIu64 " and had committed %" PRIu64,
			n->id, from, w->commit);
	}
	if (w->role == RAFT_LEADER && raft_role(r) == RAFT_LEADER && raft_term(r) == w->term) {
		sim_fail(n->sim, "leader append-only",
			"node %" PRIu64 " leads and truncates from %" PRIu64, n->id, from);
	}
	while (w->log.n > 0 && log_last(&w->log) >= from) {
		w->log.n--;
	}
}

void watch_reset(struct sim_node *n, uint64_t index, uint64_t term)
{
	const struct row *row = row_at(n->sim, index);

	if (row->chain == 0 || row->term != term) {
		sim_fail(n->sim, "snapshot",
			"node %" PRIu64 " restarts its log behind (%" PRIu64 ", %" PRIu64
			"), which nobody knows as committed",
			n->id, index, term);
	}
	n->watch.log.n = 0;
	n->watch.log.prev_index = index;
	n->watch.log.prev_chain = row->chain;
}

void watch_started(struct sim_node *n)
{
	struct watch_log *l = &n->watch.log;
	const struct disk_log *disk = &n->disk.log;

	disk_recover(n);
	l->n = 0;
	l->prev_index = disk->prev_index;
	l->prev_chain = disk->prev_index == 0 ? 0 : row_at(n->sim, disk->prev_index)->chain;
	for (size_t i = 0; i < disk->n; i++) {
		log_push(n, disk->entries[i]);
	}
	n->watch = (struct watch_node){.log = *l, .turns = n->watch.turns};
}

/* --- after a turn -------------------------------------------------------------------- */

static void check_completeness(struct sim_node *n, uint64_t term)
{
	struct sim *s = n->sim;
	const struct watch_log *l = &n->watch.log;
	uint64_t index = s->watch->committed;

	/* Votes for a leader may arrive when there is a later one, which has committed more. */
	while (index > 0 && row_at(s, index)->committed_in >= term) {
		index--;
	}
	if (index <= l->prev_index) {
		return;
	}
	if (index > log_last(l) || log_chain(l, index) != row_at(s, index)->chain) {
		sim_fail(s, "leader completeness",
			"node %" PRIu64 " leads term %" PRIu64 " without entry %" PRIu64
			", committed before",
			n->id, term, index);
	}
}

static void watch_leader(struct sim_node *n, const struct raft *r)
{
	struct watch *w = n->sim->watch;
	uint64_t term = raft_term(r);
	uint64_t *leader = slot_of_term(n->sim, &w->leaders, &w->n_leaders, term);

	if (*leader != 0 && *leader != n->id) {
		sim_fail(n->sim, "election safety",
			"nodes %" PRIu64 " and %" PRIu64 " both lead term %" PRIu64, *leader, n->id,
			term);
	}
	*leader = n->id;
	if (n->watch.role != RAFT_LEADER || n->watch.term != term) {
		SIM_TRACE(n->sim, n->id, "watch.leader", "term=%" PRIu64, term);
		check_completeness(n, term);
	} else if (raft_last_index(r) < n->watch.last) {
		sim_fail(n->sim, "leader append-only",
			"the log of node %" PRIu64 ", which leads, has become shorter", n->id);
	}
}

static void commit_one(struct sim_node *n, uint64_t index)
{
	struct sim *s = n->sim;
	const struct watch_log *l = &n->watch.log;
	struct row *row = row_at(s, index);

	if (index <= l->prev_index) {
		if (row->chain == 0) {
			sim_fail(s, "commitment",
				"node %" PRIu64 " has committed entry %" PRIu64
				" without having had it",
				n->id, index);
		}
		return;
	}
	if (index > log_last(l)) {
		sim_fail(s, "commitment", "node %" PRIu64 " commits entry %" PRIu64 " of %" PRIu64,
			n->id, index, log_last(l));
	}
	if (row->chain == 0) {
		row->chain = log_chain(l, index);
		row->term = l->term[index - l->prev_index - 1];
		row->committed_in = raft_term(node_raft(n->node));
		s->watch->committed = MAX(s->watch->committed, index);
	} else if (row->chain != log_chain(l, index)) {
		sim_fail(s, "commitment",
			"node %" PRIu64 " commits another entry %" PRIu64 " (term %" PRIu64
			") than was committed (term %" PRIu64 ")",
			n->id, index, l->term[index - l->prev_index - 1], row->term);
	}
}

static void watch_state(struct sim_node *n)
{
	const struct state *st = node_state(n->node);
	struct row *row = row_at(n->sim, state_index(st));
	uint64_t digest = state_digest(st);

	if (row->applied && row->digest != digest) {
		sim_fail(n->sim, "state machine safety",
			"node %" PRIu64 " has come to another state at %" PRIu64, n->id,
			state_index(st));
	}
	row->applied = true;
	row->digest = digest;
}

static void check_monotonic(struct sim_node *n, const char *what, uint64_t before, uint64_t now)
{
	if (now < before) {
		sim_fail(n->sim, "nothing goes back",
			"%s of node %" PRIu64 " was %" PRIu64 " and is %" PRIu64, what, n->id,
			before, now);
	}
}

void watch_turn(struct sim_node *n)
{
	struct watch_node *w = &n->watch;
	const struct raft *r = node_raft(n->node);
	uint64_t commit = raft_commit(r);
	uint64_t applied = raft_applied(r);

	sim_hash_u64(n->sim, raft_term(r) << 8 | (uint64_t)raft_role(r), commit);
	check_monotonic(n, "the term", w->term, raft_term(r));
	check_monotonic(n, "the commit index", w->commit, commit);
	check_monotonic(n, "the applied index", w->applied, applied);
	check_monotonic(n, "commit against applied index", applied, commit);
	for (uint64_t i = w->commit + 1; i <= commit; i++) {
		commit_one(n, i);
	}
	if (raft_role(r) == RAFT_LEADER) {
		watch_leader(n, r);
	}
	if (applied != w->applied) {
		watch_state(n);
	}
	/* A walk over everything: not after every turn. */
	if (++w->turns % 32 == 0) {
		raft_check(r);
		state_check(node_state(n->node));
	}
	w->role = raft_role(r);
	w->term = raft_term(r);
	w->commit = commit;
	w->applied = applied;
	w->last = raft_last_index(r);
}

bool watch_agree(struct sim *s)
{
	const struct sim_node *leader = cluster_leader(s);
	uint64_t index = raft_last_index(node_raft(leader->node));
	uint64_t digest = state_digest(node_state(leader->node));

	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		const struct sim_node *n = &s->nodes[id];

		if (!cluster_runs(n)) {
			continue;
		}
		if (raft_applied(node_raft(n->node)) != index ||
			raft_last_index(node_raft(n->node)) != index) {
			return false;
		}
		if (state_digest(node_state(n->node)) != digest) {
			sim_fail(s, "state machine safety",
				"nodes %" PRIu64 " and %u differ at %" PRIu64, leader->id, id,
				index);
		}
	}
	return true;
}

/* --- votes and acknowledgements ------------------------------------------------------ */

void watch_vote_durable(struct sim_node *n, uint64_t term, uint64_t vote)
{
	struct watch *w = n->sim->watch;
	uint64_t *before = slot_of_term(n->sim, &w->votes[n->id].by_term, &w->votes[n->id].n, term);

	if (*before != 0 && vote != *before) {
		sim_fail(n->sim, "one vote a term",
			"node %" PRIu64 " voted in term %" PRIu64 " for %" PRIu64
			" and then for %" PRIu64,
			n->id, term, *before, vote);
	}
	*before = vote;
}

/* What it says of its vote is on its disk. */
static void check_vote(struct sim_node *n, uint64_t term, uint64_t candidate)
{
	struct watch *w = n->sim->watch;
	uint64_t vote = *slot_of_term(n->sim, &w->votes[n->id].by_term, &w->votes[n->id].n, term);

	if (vote != candidate) {
		sim_fail(n->sim, "durable votes",
			"node %" PRIu64 " votes for %" PRIu64 " in term %" PRIu64
			"; on its disk it is %" PRIu64,
			n->id, candidate, term, vote);
	}
}

/* The whole numbers of a packed wire.Raft, by field number: enough to look at what is sent without
 * decoding every frame twice. */
#define RAFT_FIELDS 9

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *ret_v)
{
	unsigned shift = 0;

	*ret_v = 0;
	while (*p < end && shift < 64) {
		*ret_v |= (uint64_t)(**p & 0x7f) << shift;
		shift += 7;
		if ((*(*p)++ & 0x80) == 0) {
			return true;
		}
	}
	return false;
}

/* false: not a frame of raft, or not a short one. */
static bool peek_raft(const uint8_t *p, size_t len, uint64_t field[RAFT_FIELDS])
{
	const uint8_t *end = p + len;
	uint64_t v;

	memset(field, 0, RAFT_FIELDS * sizeof(*field));
	if (len < 2 || *p++ != (1 << 3 | 2) || !varint(&p, end, &v)) {
		return false;
	}
	while (p < end && (*p & 7) == 0 && *p >> 3 < RAFT_FIELDS) {
		unsigned number = *p++ >> 3;

		if (!varint(&p, end, &field[number])) {
			return false;
		}
	}
	return true;
}

void watch_frame(struct sim_node *n, uint64_t to, const uint8_t *body, size_t len)
{
	const struct disk *d = &n->disk;
	uint64_t field[RAFT_FIELDS];
	uint64_t kind, index, ok;

	if (!peek_raft(body, len, field)) {
		return;
	}
	kind = field[1];
	index = field[3];
	ok = field[7];
	if (kind == RAFT_VOTE_REQ) {
		check_vote(n, field[2], n->id);
	} else if (kind == RAFT_VOTE_RESP && ok) {
		check_vote(n, field[2], to);
	} else if (kind == RAFT_APPEND_RESP && ok && index > MAX(disk_last(d), d->newest.index)) {
		sim_fail(n->sim, "acknowledgements",
			"node %" PRIu64 " acknowledges entry %" PRIu64
			"; on its disk it is %" PRIu64,
			n->id, index, disk_last(d));
	}
}
