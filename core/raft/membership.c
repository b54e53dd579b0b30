/*
 * membership.c - which configuration is in force, and changing it.
 *
 * A configuration is in force from the moment its entry is in the log (thesis
 * 4.1), and is undone when the entry is truncated. So all of them since the
 * snapshot are kept, by index.
 */
#include "core/raft/raft_internal.h"

const struct raft_config *raft_config(const struct raft *r)
{
	return &r->configs[r->n_configs - 1].config;
}

uint64_t raft_config_index(const struct raft *r)
{
	return r->configs[r->n_configs - 1].index;
}

const struct raft_config *raft_config_at(const struct raft *r, uint64_t index)
{
	size_t i = r->n_configs - 1;

	while (i > 0 && r->configs[i].index > index) {
		i--;
	}
	return &r->configs[i].config;
}

/* --- what is in force -------------------------------------------------------------------- */

static void in_force(struct raft *r)
{
	r->config_changed = true;
	raft_peers_sync(r);
	TRACE(&r->o.trace, TRACE_INFO, "raft.config",
		"id=%" PRIu64 " index=%" PRIu64 " servers=%zu majority=%zu voter=%d", r->o.id,
		raft_config_index(r), raft_config(r)->n, raft_majority(r), r->self_voter);
}

void raft_config_push(struct raft *r, uint64_t index, struct raft_config *config)
{
	r->configs = xrealloc(r->configs, (r->n_configs + 1) * sizeof r->configs[0]);
	r->configs[r->n_configs++] = (struct config_since){.index = index, .config = *config};
	*config = (struct raft_config){.n = 0};
	in_force(r);
}

void raft_config_appended(struct raft *r, const struct raft_entry *e)
{
	struct raft_config config;
	int rc = raft_config_decode(e->data, e->len, &config);

	ASSERT(rc == 0); /* it was asked before the entry was let in */
	raft_config_push(r, e->index, &config);
}

void raft_config_undo(struct raft *r, uint64_t from)
{
	bool undone = false;

	while (raft_config_index(r) >= from && !PLANTED(PLANT_CONFIG_NOT_UNDONE)) {
		ASSERT(r->n_configs > 1);
		raft_config_fini(&r->configs[--r->n_configs].config);
		undone = true;
	}
	if (undone) {
		in_force(r);
	}
}

void raft_config_forget(struct raft *r, uint64_t index)
{
	size_t n = 0;

	while (n + 1 < r->n_configs && r->configs[n + 1].index <= index) {
		raft_config_fini(&r->configs[n++].config);
	}
	r->n_configs -= n;
	memmove(r->configs, r->configs + n, r->n_configs * sizeof r->configs[0]);
}

void raft_configs_clear(struct raft *r)
{
	while (r->n_configs > 0) {
		raft_config_fini(&r->configs[--r->n_configs].config);
	}
}

/* --- changing it ------------------------------------------------------------------------- */

static int add_learner(struct raft_config *c, uint64_t id, const char *addr)
{
	struct raft_server *s;

	if (id == 0 || addr == NULL || strlen(addr) >= RAFT_ADDR_MAX) {
		return -EINVAL;
	}
	if (raft_config_find(c, id) != NULL) {
		return -EEXIST;
	}
	if (c->n == RAFT_SERVERS_MAX) {
		return -ENOBUFS;
	}
	c->servers = xrealloc(c->servers, (c->n + 1) * sizeof *s);
	s = &c->servers[c->n++];
	*s = (struct raft_server){.id = id};
	memcpy(s->addr, addr, strlen(addr));
	return 0;
}

static size_t count_voters(const struct raft_config *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		n += c->servers[i].voter;
	}
	return n;
}

/* One batch behind is as close as a server under load can be. */
static bool has_caught_up(const struct raft *r, uint64_t id)
{
	const struct peer *p = raft_peer_find(r, id);

	return p != NULL && p->state == PEER_REPLICATE && raft_peer_is_alive(r, p) &&
	       p->match + r->o.append_entries_max >= rlog_last(&r->log);
}

static int promote(const struct raft *r, struct raft_config *c, uint64_t id)
{
	for (size_t i = 0; i < c->n; i++) {
		if (c->servers[i].id != id) {
			continue;
		}
		if (c->servers[i].voter) {
			return -EEXIST;
		}
		if (count_voters(c) == RAFT_VOTERS_MAX) {
			return -ENOBUFS;
		}
		if (!has_caught_up(r, id)) {
			return -EPROTO;
		}
		c->servers[i].voter = true;
		return 0;
	}
	return -ENOENT;
}

static int remove_server(struct raft_config *c, uint64_t id)
{
	const struct raft_server *s = raft_config_find(c, id);

	if (s == NULL) {
		return -ENOENT;
	}
	if (s->voter && count_voters(c) == 1) {
		return -EPERM;
	}
	for (size_t i = (size_t)(s - c->servers); i + 1 < c->n; i++) {
		c->servers[i] = c->servers[i + 1];
	}
	c->n--;
	return 0;
}

static int change(const struct raft *r, struct raft_config *c, enum raft_change change, uint64_t id,
	const char *addr)
{
	switch (change) {
	case RAFT_ADD_LEARNER:
		return add_learner(c, id, addr);
	case RAFT_PROMOTE:
		return promote(r, c, id);
	case RAFT_REMOVE:
		return remove_server(c, id);
	}
	return -EINVAL;
}

static void append_config(struct raft *r, const struct raft_config *c)
{
	uint8_t *data;
	size_t len;
	struct raft_entry *e;

	raft_config_encode(c, &data, &len);
	e = raft_entry_new(rlog_last(&r->log) + 1, r->term, RAFT_CONFIG, data, len);
	free(data);
	raft_append_entry(r, e);
}

int raft_change_config(struct raft *r, enum raft_change what, uint64_t id, const char *addr)
{
	struct raft_config c;
	int rc;

	if (r->role != RAFT_LEADER || r->transfer_to != 0) {
		return -EAGAIN;
	}
	/* Rule 11; without the second half a change could be lost unnoticed (Ongaro, 2015). */
	if (raft_config_index(r) > r->commit || r->commit < r->term_start) {
		return -EBUSY;
	}
	rc = raft_config_copy(raft_config(r), &c);
	ASSERT(rc == 0);
	rc = change(r, &c, what, id, addr);
	if (rc == 0) {
		append_config(r, &c);
	}
	raft_config_fini(&c);
	return rc;
}
