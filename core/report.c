/*
 * report.c - what a node knows, as JSON, for status/ and the HTTP API.
 *
 * From local memory only: a report always answers, also without a leader.
 * 64-bit numbers that may pass 2^53 (tokens, ids) are written as numbers: jq and
 * Python read them; JavaScript programs should take them as text.
 */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/json.h"
#include "core/node_internal.h"

/* Rows of status/locks; the total is reported beside them. */
#define LOCKS_MAX 10000
/* Holders and waiters shown for one lock. */
#define CLAIMS_MAX 100

static void add_u64(cJSON *object, const char *name, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof text, "%" PRIu64, value);
	(void)cJSON_AddRawToObject(object, name, text); /* NULL: no memory, the field is missing */
}

static void add_bytes(cJSON *object, const char *name, const char *bytes, size_t len)
{
	char text[JSON_QUOTED_MAX(CORE_NAME_MAX) + 1];

	*json_quote(text, bytes, MIN(len, CORE_NAME_MAX)) = '\0';
	(void)cJSON_AddRawToObject(object, name, text);
}

static const char *role_name(const struct raft *r)
{
	switch (raft_role(r)) {
	case RAFT_FOLLOWER:
		return "follower";
	case RAFT_PRECANDIDATE:
		return "precandidate";
	case RAFT_CANDIDATE:
		return "candidate";
	case RAFT_LEADER:
		return "leader";
	}
	UNREACHABLE();
}

static uint64_t match_of(const struct raft_peer_report *peers, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++) {
		if (peers[i].id == id) {
			return peers[i].match;
		}
	}
	return 0;
}

static void report_servers(const struct node *n, cJSON *root)
{
	const struct raft_config *config = raft_config(n->raft);
	struct raft_peer_report peers[RAFT_SERVERS_MAX];
	size_t n_peers = raft_peers(n->raft, peers, RAFT_SERVERS_MAX);
	cJSON *list = cJSON_AddArrayToObject(root, "servers");

	for (size_t i = 0; i < config->n; i++) {
		const struct raft_server *s = &config->servers[i];
		cJSON *row = cJSON_CreateObject();

		add_u64(row, "id", s->id);
		(void)cJSON_AddStringToObject(row, "addr", s->addr);
		(void)cJSON_AddBoolToObject(row, "voter", s->voter);
		if (raft_role(n->raft) == RAFT_LEADER) {
			add_u64(row, "match",
				s->id == n->o.raft.id
					? raft_durable_index(n->raft)
					: match_of(peers, MIN(n_peers, RAFT_SERVERS_MAX), s->id));
		}
		(void)cJSON_AddItemToArray(list, row);
	}
}

static void report_raft(const struct node *n, cJSON *root)
{
	uint64_t end = node_lease_end(n);

	add_u64(root, "id", n->o.raft.id);
	(void)cJSON_AddStringToObject(root, "role", role_name(n->raft));
	add_u64(root, "term", raft_term(n->raft));
	add_u64(root, "leader", raft_leader(n->raft));
	add_u64(root, "commit", raft_commit(n->raft));
	add_u64(root, "applied", raft_applied(n->raft));
	add_u64(root, "last", raft_last_index(n->raft));
	add_u64(root, "durable", raft_durable_index(n->raft));
	add_u64(root, "snapshot", raft_snapshot_index(n->raft));
	add_u64(root, "log_bytes", raft_log_bytes(n->raft));
	add_u64(root, "session", n->lease.session);
	add_u64(root, "lease_ms", end > n->now_ms ? end - n->now_ms : 0);
	report_servers(n, root);
}

static void report_nodes(const struct node *n, cJSON *root)
{
	const struct raft_config *config = raft_config(n->raft);
	cJSON *list;

	add_u64(root, "epoch", state_epoch(n->state));
	list = cJSON_AddArrayToObject(root, "nodes");
	for (size_t i = 0; i < config->n; i++) {
		const struct raft_server *s = &config->servers[i];
		cJSON *row = cJSON_CreateObject();

		add_u64(row, "id", s->id);
		(void)cJSON_AddStringToObject(row, "addr", s->addr);
		(void)cJSON_AddBoolToObject(row, "voter", s->voter);
		(void)cJSON_AddBoolToObject(
			row, "live", state_session_of_node(n->state, s->id) != NULL);
		(void)cJSON_AddBoolToObject(row, "self", s->id == n->o.raft.id);
		(void)cJSON_AddItemToArray(list, row);
	}
}

static void report_sessions(const struct node *n, cJSON *root)
{
	cJSON *list = cJSON_AddArrayToObject(root, "sessions");

	for (const struct session *s = state_sessions(n->state); s != NULL; s = s->next) {
		cJSON *row = cJSON_CreateObject();

		add_u64(row, "id", s->id);
		add_u64(row, "incarnation", s->incarnation);
		add_u64(row, "node", s->node);
		add_u64(row, "ttl_ms", s->ttl_ms);
		add_u64(row, "opened", s->opened_unix_ms);
		add_u64(row, "claims", s->n_claims);
		(void)cJSON_AddItemToArray(list, row);
	}
}

static void report_claims(
	const struct node *n, cJSON *lock, const char *name, const struct claim *first)
{
	cJSON *list = cJSON_AddArrayToObject(lock, name);
	size_t rows = 0;

	for (const struct claim *c = first; c != NULL && rows < CLAIMS_MAX; c = c->next, rows++) {
		const struct session *s = state_session(n->state, c->session);
		cJSON *row = cJSON_CreateObject();

		add_u64(row, "node", s == NULL ? 0 : s->node);
		add_u64(row, "pid", c->task.pid);
		add_bytes(row, "command", c->task.command,
			strnlen(c->task.command, sizeof c->task.command));
		(void)cJSON_AddStringToObject(row, "mode", c->shared ? "shared" : "exclusive");
		(void)cJSON_AddStringToObject(row, "kind", c->record ? "fcntl" : "flock");
		if (c->record) {
			add_u64(row, "start", c->range[0].start);
			add_u64(row, "end", c->range[0].end);
		}
		if (c->token != 0) {
			add_u64(row, "token", c->token);
		}
		add_u64(row, "since", c->since_unix_ms);
		add_u64(row, "uid", c->uid);
		(void)cJSON_AddItemToArray(list, row);
	}
}

static void report_lock(const struct node *n, cJSON *row, const struct lock *l)
{
	add_bytes(row, "name", l->name, l->name_len);
	(void)cJSON_AddStringToObject(row, "mode", lock_is_shared(l) ? "shared" : "exclusive");
	if (l->holders != NULL) {
		add_u64(row, "token", l->holders->prev->token);
	}
	add_u64(row, "value_bytes", l->value_len);
	add_u64(row, "n_holders", l->n_holders);
	add_u64(row, "n_waiters", l->n_waiters);
	report_claims(n, row, "holders", l->holders);
	report_claims(n, row, "waiters", l->waiters);
}

static void report_locks(const struct node *n, cJSON *root)
{
	cJSON *list;
	size_t rows = 0;

	add_u64(root, "total", state_n_locks(n->state));
	list = cJSON_AddArrayToObject(root, "locks");
	for (const struct lock *l = state_locks(n->state); l != NULL && rows < LOCKS_MAX;
		l = l->next, rows++) {
		cJSON *row = cJSON_CreateObject();

		report_lock(n, row, l);
		(void)cJSON_AddItemToArray(list, row);
	}
}

static void report_version(const struct node *n, cJSON *root)
{
	(void)cJSON_AddStringToObject(root, "version", n->o.version);
	add_u64(root, "format", WIRE_FORMAT);
}

static const struct {
	const char *name;
	void (*fill)(const struct node *n, cJSON *root);
} reports[CORE_REPORT_MAX_] = {
	[CORE_REPORT_RAFT] = {"raft", report_raft},
	[CORE_REPORT_NODES] = {"nodes", report_nodes},
	[CORE_REPORT_SESSIONS] = {"sessions", report_sessions},
	[CORE_REPORT_LOCKS] = {"locks", report_locks},
	[CORE_REPORT_VERSION] = {"version", report_version},
};

const char *core_report_name(enum core_report r)
{
	return reports[r].name;
}

char *core_report(struct core *c, enum core_report r)
{
	cJSON *root = cJSON_CreateObject();
	char *text;
	size_t len;

	ASSERT(root != NULL);
	reports[r].fill(node_of_core(c), root);
	text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	ASSERT(text != NULL);
	len = strlen(text);
	text = xrealloc(text, len + 2);
	text[len] = '\n';
	text[len + 1] = '\0';
	return text;
}
