/*
 * raft.c - life, events, and the order in which effects leave.
 */
#include "core/raft/raft_internal.h"

/* --- life -------------------------------------------------------------------------------- */

void raft_options_default(struct raft_options *o)
{
	*o = (struct raft_options){
		.election_timeout_ms = 300,
		.heartbeat_ms = 100,
		.append_bytes_max = 256u << 10,
		.append_entries_max = 1024,
		.inflight_max = 64,
		.uncommitted_bytes_max = 32u << 20,
		.snapshot_chunk_bytes = 256u << 10,
		.trailing_entries = 8192,
	};
}

static bool options_are_sane(const struct raft_options *o)
{
	return o->id != 0 && o->heartbeat_ms >= 1 && o->election_timeout_ms > o->heartbeat_ms &&
	       o->append_bytes_max >= 1 && o->append_entries_max >= 1 && o->inflight_max >= 1 &&
	       o->uncommitted_bytes_max >= 1 && o->snapshot_chunk_bytes >= 1;
}

static bool entry_follows(const struct raft_entry *e, uint64_t index, uint64_t term)
{
	struct raft_config config;

	if (e->index != index || e->term == 0 || e->term < term) {
		return false;
	}
	if (e->kind == RAFT_CONFIG) {
		if (raft_config_decode(e->data, e->len, &config) < 0) {
			return false;
		}
		raft_config_fini(&config);
	}
	return e->kind == RAFT_NOOP || e->kind == RAFT_COMMAND || e->kind == RAFT_CONFIG;
}

static bool start_is_a_log(const struct raft_start *s)
{
	uint64_t index = s->n_entries > 0 ? s->entries[0]->index : 1;
	uint64_t term = index == s->snapshot_index + 1 ? s->snapshot_term : 0;

	if ((s->snapshot_index == 0) != (s->snapshot_term == 0)) {
		return false;
	}
	if (index == 0 || (s->n_entries > 0 && index > s->snapshot_index + 1)) {
		return false;
	}
	for (size_t i = 0; i < s->n_entries; i++) {
		if (!entry_follows(s->entries[i], index + i, term)) {
			return false;
		}
		term = s->entries[i]->term;
	}
	return term <= MAX(s->term, s->snapshot_term);
}

/* Of entries from before the snapshot the first serves as the one before the log. */
static void load_entries(struct raft *r, const struct raft_start *s)
{
	struct rlog *l = &r->log;
	size_t i = 0;

	rlog_init(l, s->snapshot_index, s->snapshot_term);
	if (s->n_entries > 0 && s->entries[0]->index == 1) {
		rlog_init(l, 0, 0);
	} else if (s->n_entries > 0 && s->entries[0]->index <= s->snapshot_index) {
		rlog_init(l, s->entries[0]->index, s->entries[0]->term);
		i = 1;
	}
	for (; i < s->n_entries; i++) {
		rlog_push(l, raft_entry_ref(s->entries[i]));
	}
	if (rlog_term(l, s->snapshot_index) != s->snapshot_term) {
		rlog_restart(l, s->snapshot_index, s->snapshot_term);
	}
}

static int load_configs(struct raft *r, const struct raft_start *s)
{
	struct raft_config config;

	if (s->config == NULL || raft_config_copy(s->config, &config) < 0) {
		return -EINVAL;
	}
	raft_config_push(r, s->snapshot_index, &config);
	for (uint64_t i = s->snapshot_index + 1; i <= rlog_last(&r->log); i++) {
		const struct raft_entry *e = *rlog_at(&r->log, i);

		if (e->kind == RAFT_CONFIG) {
			raft_config_appended(r, e);
		}
	}
	r->config_changed = false; /* nobody was told another one */
	return 0;
}

int raft_new(const struct raft_options *o, const struct raft_env *env,
	const struct raft_start *start, uint64_t now_ms, struct raft **ret_raft)
{
	struct raft *r;

	if (!options_are_sane(o) || !start_is_a_log(start)) {
		return -EINVAL;
	}
	r = xcalloc(1, sizeof *r);
	r->o = *o;
	r->env = *env;
	r->random = o->seed;
	r->now_ms = now_ms;
	r->last_tick_ms = now_ms;
	r->term = r->durable_term = start->term;
	r->vote = r->durable_vote = start->vote;
	if (start->snapshot_term > start->term) {
		/* A leader's snapshot, durable before the term it came in: no vote in that term
		 * was, so none was sent. */
		r->term = start->snapshot_term;
		r->vote = 0;
		r->vote_changed = true;
	}
	load_entries(r, start);
	r->queued = r->durable = rlog_last(&r->log);
	r->snapshot_index = r->commit = r->applied = start->snapshot_index;
	r->snapshot_term = start->snapshot_term;
	if (load_configs(r, start) < 0) {
		raft_free(r);
		return -EINVAL;
	}
	raft_reset_election_timer(r);
	*ret_raft = r;
	return 0;
}

void raft_free(struct raft *r)
{
	if (r == NULL) {
		return;
	}
	raft_incoming_fini(r);
	raft_configs_clear(r);
	raft_peers_fini(r);
	rlog_fini(&r->log);
	free(r->configs);
	free(r->reads);
	free(r->out);
	free(r);
}

/* splitmix64 (Steele, Lea, Flood 2014): small, and any seed will do. */
uint64_t raft_random(struct raft *r)
{
	uint64_t z = r->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* --- the log ----------------------------------------------------------------------------- */

void raft_append_entry(struct raft *r, struct raft_entry *e)
{
	rlog_push(&r->log, e);
	if (r->role == RAFT_LEADER) {
		r->uncommitted_bytes += rlog_entry_bytes(e);
	}
	if (e->kind == RAFT_CONFIG) {
		raft_config_appended(r, e);
	}
}

void raft_truncate(struct raft *r, uint64_t from)
{
	ASSERT(r->role != RAFT_LEADER);
	ASSERT(from > r->commit);
	TRACE(&r->o.trace, TRACE_INFO, "raft.truncate",
		"id=%" PRIu64 " term=%" PRIu64 " from=%" PRIu64 " last=%" PRIu64, r->o.id, r->term,
		from, rlog_last(&r->log));
	rlog_truncate(&r->log, from);
	r->gen++;
	if (from <= r->queued) {
		r->truncate_from = r->truncate_from == 0 ? from : MIN(from, r->truncate_from);
		r->queued = from - 1;
	}
	r->durable = MIN(r->durable, from - 1);
	raft_config_undo(r, from);
}

void raft_set_commit(struct raft *r, uint64_t index)
{
	ASSERT(index > r->commit);
	ASSERT(index <= rlog_last(&r->log));
	r->commit = index;
	TRACE(&r->o.trace, TRACE_DEBUG, "raft.commit", "id=%" PRIu64 " index=%" PRIu64, r->o.id,
		index);
}

int raft_propose(struct raft *r, const void *data, size_t len, uint64_t *ret_index)
{
	struct raft_entry *e;

	if (r->role != RAFT_LEADER || r->transfer_to != 0) {
		return -EAGAIN;
	}
	if (r->readonly) {
		return -ENOSPC;
	}
	if (len > RAFT_ENTRY_BYTES_MAX) {
		return -EFBIG;
	}
	if (r->uncommitted_bytes >= r->o.uncommitted_bytes_max) {
		return -ENOBUFS;
	}
	e = raft_entry_new(rlog_last(&r->log) + 1, r->term, RAFT_COMMAND, data, len);
	*ret_index = e->index;
	raft_append_entry(r, e);
	return 0;
}

void raft_log_durable(struct raft *r, uint64_t gen, uint64_t index)
{
	if (gen != r->gen || index <= r->durable) {
		return; /* of entries that were truncated since */
	}
	r->durable = MIN(index, r->queued);
	raft_follower_durable(r);
}

/* --- time -------------------------------------------------------------------------------- */

void raft_clock(struct raft *r, uint64_t now_ms)
{
	r->now_ms = MAX(r->now_ms, now_ms);
	if (r->role == RAFT_LEADER && r->now_ms - r->last_tick_ms > r->o.election_timeout_ms) {
		r->last_tick_ms = r->now_ms;
		raft_check_quorum(r);
	}
}

void raft_tick(struct raft *r, uint64_t now_ms)
{
	raft_clock(r, now_ms);
	r->last_tick_ms = r->now_ms;
	if (r->role == RAFT_LEADER) {
		raft_check_quorum(r);
	}
	if (r->role == RAFT_LEADER) {
		raft_replication_tick(r);
		raft_transfer_tick(r);
	} else {
		raft_election_tick(r);
	}
}

/* --- messages in ------------------------------------------------------------------------- */

static bool names_a_term_to_come(const struct raft_msg *m)
{
	return m->kind == RAFT_PREVOTE_REQ || (m->kind == RAFT_PREVOTE_RESP && m->ok);
}

/* False: it has no business here while a leader is alive (thesis 4.2.3). */
static bool adopt_term(struct raft *r, const struct raft_msg *m)
{
	if (m->kind == RAFT_VOTE_REQ && !m->transfer && raft_leader_is_alive(r)) {
		TRACE(&r->o.trace, TRACE_DEBUG, "raft.vote_ignored",
			"id=%" PRIu64 " from=%" PRIu64 " term=%" PRIu64, r->o.id, m->from, m->term);
		return false;
	}
	raft_become_follower(r, m->term, 0);
	return true;
}

/* Whoever lives in the past is told the present term. */
static void answer_old_term(struct raft *r, const struct raft_msg *m)
{
	struct raft_msg answer = {.kind = RAFT_APPEND_RESP, .to = m->from, .term = r->term};

	if (m->kind == RAFT_VOTE_REQ) {
		answer.kind = RAFT_VOTE_RESP;
		raft_post(r, &answer);
	} else if (m->kind == RAFT_APPEND_REQ || m->kind == RAFT_SNAPSHOT_REQ) {
		raft_post(r, &answer);
	}
}

static void dispatch(struct raft *r, const struct raft_msg *m)
{
	switch (m->kind) {
	case RAFT_PREVOTE_REQ:
		raft_on_prevote_req(r, m);
		break;
	case RAFT_PREVOTE_RESP:
		raft_on_prevote_resp(r, m);
		break;
	case RAFT_VOTE_REQ:
		raft_on_vote_req(r, m);
		break;
	case RAFT_VOTE_RESP:
		raft_on_vote_resp(r, m);
		break;
	case RAFT_APPEND_REQ:
		raft_on_append_req(r, m);
		break;
	case RAFT_APPEND_RESP:
		raft_on_append_resp(r, m);
		break;
	case RAFT_SNAPSHOT_REQ:
		raft_on_snapshot_req(r, m);
		break;
	case RAFT_SNAPSHOT_RESP:
		raft_on_snapshot_resp(r, m);
		break;
	case RAFT_TIMEOUT_NOW:
		raft_on_timeout_now(r, m);
		break;
	}
}

void raft_recv(struct raft *r, const struct raft_msg *m, uint64_t now_ms)
{
	const char *fault = raft_message_fault(r, m);

	raft_clock(r, now_ms);
	if (fault != NULL) {
		TRACE(&r->o.trace, TRACE_WARN, "raft.bad_message",
			"id=%" PRIu64 " from=%" PRIu64 " kind=%d term=%" PRIu64 " index=%" PRIu64
			" fault=\"%s\"",
			r->o.id, m->from, (int)m->kind, m->term, m->index, fault);
		return;
	}
	if (names_a_term_to_come(m)) {
		dispatch(r, m);
		return;
	}
	if (m->term > r->term && !adopt_term(r, m)) {
		return;
	}
	if (m->term < r->term && m->kind != RAFT_PREVOTE_RESP) {
		answer_old_term(r, m);
		return;
	}
	dispatch(r, m);
}

/* --- effects out ------------------------------------------------------------------------- */

void raft_post(struct raft *r, const struct raft_msg *m)
{
	if (r->n_out == RAFT_OUT_MAX) {
		TRACE(&r->o.trace, TRACE_WARN, "raft.out_full", "id=%" PRIu64 " to=%" PRIu64,
			r->o.id, m->to);
		return;
	}
	if (r->n_out == r->out_cap) {
		r->out_cap = MAX(r->out_cap * 2, (size_t)16); /* arbitrary */
		r->out = xrealloc(r->out, r->out_cap * sizeof r->out[0]);
	}
	r->out[r->n_out] = *m;
	r->out[r->n_out++].from = r->o.id;
}

static void tell_changes(struct raft *r)
{
	if (r->config_changed) {
		r->config_changed = false;
		r->env.config_changed(r->env.ctx, raft_config(r));
	}
	if (r->role_changed) {
		r->role_changed = false;
		r->env.role_changed(r->env.ctx);
	}
}

/* Term and vote first: an entry of a term must not be on a disk that does not know the term. */
static void flush_disk(struct raft *r)
{
	uint64_t last = rlog_last(&r->log);

	if (r->vote_changed) {
		bool forget = PLANTED(PLANT_VOTE_NOT_PERSISTED) && r->vote != r->o.id;

		r->vote_changed = false;
		r->env.save_vote(r->env.ctx, r->term, forget ? 0 : r->vote);
	}
	if (r->truncate_from != 0) {
		r->env.truncate(r->env.ctx, r->truncate_from);
		r->truncate_from = 0;
	}
	if (r->queued < last) {
		r->env.append(r->env.ctx, r->gen, rlog_at(&r->log, r->queued + 1),
			(size_t)(last - r->queued));
		r->queued = last;
	}
}

static bool is_outdated(const struct raft *r, const struct raft_msg *m)
{
	return m->term < r->term && m->kind != RAFT_PREVOTE_REQ && m->kind != RAFT_PREVOTE_RESP;
}

/* Rule 3: nothing of a term is said before the term is durable, no vote before the vote is. */
static bool may_leave(const struct raft *r, const struct raft_msg *m)
{
	if (names_a_term_to_come(m)) {
		return true;
	}
	if (m->kind == RAFT_VOTE_RESP && m->ok) {
		return raft_vote_is_durable(r, m->to);
	}
	return r->durable_term >= m->term;
}

static void flush_out(struct raft *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->n_out; i++) {
		const struct raft_msg *m = &r->out[i];

		if (is_outdated(r, m)) {
			continue;
		}
		if (may_leave(r, m)) {
			r->env.send(r->env.ctx, m);
		} else {
			r->out[kept++] = *m;
		}
	}
	r->n_out = kept;
}

static void flush_messages(struct raft *r)
{
	flush_out(r);
	if (r->role == RAFT_LEADER) {
		raft_replicate(r);
		raft_transfer_flush(r);
	} else {
		raft_follower_ack(r);
	}
}

static void apply_committed(struct raft *r)
{
	while (r->applied < r->commit) {
		r->applied++;
		r->env.apply(r->env.ctx, *rlog_at(&r->log, r->applied));
	}
}

/* What apply and read_ready asked for, and stepping down, take effect in the same flush. */
static bool has_more(const struct raft *r)
{
	return r->queued < rlog_last(&r->log) || r->role_changed ||
	       (r->role == RAFT_LEADER && r->round_wanted);
}

void raft_flush(struct raft *r, uint64_t now_ms)
{
	raft_clock(r, now_ms);
	do {
		if (r->role == RAFT_LEADER) {
			raft_leader_commit(r);
		} else {
			raft_follower_commit(r);
		}
		tell_changes(r);
		flush_disk(r);
		flush_messages(r);
		apply_committed(r);
		raft_leave_if_removed(r);
		raft_answer_reads(r);
	} while (has_more(r));
}

/* --- what it knows ----------------------------------------------------------------------- */

enum raft_role raft_role(const struct raft *r)
{
	return r->role;
}

uint64_t raft_term(const struct raft *r)
{
	return r->term;
}

uint64_t raft_leader(const struct raft *r)
{
	return r->leader;
}

bool raft_leader_ready(const struct raft *r)
{
	return r->role == RAFT_LEADER && r->applied >= r->term_start;
}

uint64_t raft_commit(const struct raft *r)
{
	return r->commit;
}

uint64_t raft_applied(const struct raft *r)
{
	return r->applied;
}

uint64_t raft_last_index(const struct raft *r)
{
	return rlog_last(&r->log);
}

uint64_t raft_durable_index(const struct raft *r)
{
	return r->durable;
}

uint64_t raft_snapshot_index(const struct raft *r)
{
	return r->snapshot_index;
}

uint64_t raft_term_at(const struct raft *r, uint64_t index)
{
	return rlog_term(&r->log, index);
}

size_t raft_log_bytes(const struct raft *r)
{
	return r->log.bytes;
}

size_t raft_peers(const struct raft *r, struct raft_peer_report *ret_rows, size_t max)
{
	size_t n = 0;

	if (r->role != RAFT_LEADER) {
		return 0;
	}
	for (size_t i = 0; i < r->n_peers; i++) {
		const struct peer *p = &r->peers[i];

		if (p->leaving) {
			continue;
		}
		if (n < max) {
			ret_rows[n] = (struct raft_peer_report){.id = p->id,
				.match = p->match,
				.next = p->next,
				.heard_ms = p->heard_ms,
				.snapshot = p->state == PEER_SNAPSHOT};
		}
		n++;
	}
	return n;
}

static void check_log(const struct raft *r)
{
	uint64_t term = r->log.prev_term;

	for (uint64_t i = r->log.prev_index + 1; i <= rlog_last(&r->log); i++) {
		const struct raft_entry *e = *rlog_at(&r->log, i);

		ASSERT(e->index == i);
		ASSERT(e->term >= term);
		ASSERT(e->refs > 0);
		term = e->term;
	}
	ASSERT(r->term >= term);
}

void raft_check(const struct raft *r)
{
	check_log(r);
	ASSERT(r->applied <= r->commit);
	ASSERT(r->commit <= rlog_last(&r->log));
	ASSERT(r->durable <= r->queued);
	ASSERT(r->queued <= rlog_last(&r->log));
	ASSERT(r->snapshot_index <= r->applied);
	ASSERT(r->log.prev_index <= r->snapshot_index);
	ASSERT(r->durable_term <= r->term);
	ASSERT(r->matched <= rlog_last(&r->log));
	ASSERT(raft_config_index(r) <= rlog_last(&r->log));
	ASSERT(r->role != RAFT_LEADER || r->leader == r->o.id);
	ASSERT(r->role == RAFT_LEADER || r->leader != r->o.id);
	ASSERT(r->role == RAFT_LEADER || r->transfer_to == 0);
	ASSERT(r->role != RAFT_LEADER || r->durable_vote == r->o.id);
}
