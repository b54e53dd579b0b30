/*
 * start.c - from what was found on the disk to a raft, and its end.
 */
#include "core/raft/raft_internal.h"

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
