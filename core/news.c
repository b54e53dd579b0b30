/*
 * news.c - what of a node's life is told to those who read its events.
 *
 * What the log says has the time that the log gives it, the same on every node; what the node
 * itself notices (a leader, its lease, its disk) has this node's time.
 */
#include "core/node_internal.h"

/* Names of lost locks in one line; the total is beside them. */
#define NAMES_MAX 100

static uint64_t node_of_claim(const struct node *n, const struct claim *c)
{
	const struct session *s = state_session(n->state, c->session);

	return s == NULL ? 0 : s->node;
}

void news_lock(struct node *n, enum event_kind kind, const struct lock *l, const struct claim *c)
{
	if (events_watched(&n->news.events)) {
		events_lock(
			&n->news.events, state_unix_ms(n->state), kind, node_of_claim(n, c), l, c);
	}
}

/* The session's event follows, with how many there were. */
void news_dropped(struct node *n, const struct lock *l, const struct claim *c)
{
	n->news.dropped += c->token != 0;
	news_lock(n, c->token != 0 ? EVENT_LOST : EVENT_CANCELLED, l, c);
}

void news_session(struct node *n, const struct session *s, enum session_event what)
{
	bool opened = what == SESSION_OPENED || what == SESSION_RESUMED;
	struct json *j = events_begin(&n->news.events, state_unix_ms(n->state),
		opened ? "session.open" : "session.ended");

	json_u64(j, "node", s->node);
	json_u64(j, "session", s->id);
	if (opened) {
		json_bool(j, "resumed", what == SESSION_RESUMED);
	} else {
		json_string(j, "why", what == SESSION_EXPIRED ? "expired" : "closed");
	}
	if (what != SESSION_OPENED) {
		json_u64(j, "locks_lost", n->news.dropped);
	}
	n->news.dropped = 0;
	events_end(&n->news.events);
}

/* Of this node, as soon as it knows; what it held, as far as the state still has it. */
void news_session_lost(struct node *n, uint64_t session, const char *why)
{
	const struct session *s = state_session(n->state, session);
	struct json *j = events_begin(&n->news.events, n->unix_ms, "session.lost");
	const struct claim *c;
	uint64_t held = 0;

	json_u64(j, "node", n->o.raft.id);
	json_u64(j, "session", session);
	json_string(j, "why", why);
	json_open(j, "locks", '[');
	for (c = s == NULL ? NULL : s->claims; c != NULL; c = c->session_next) {
		held += c->token != 0;
		if (c->token != 0 && held <= NAMES_MAX) {
			json_bytes(j, NULL, c->lock->name, c->lock->name_len);
		}
	}
	json_close(j, ']');
	json_u64(j, "locks_lost", held);
	events_end(&n->news.events);
}

void news_leader(struct node *n)
{
	struct news *w = &n->news;
	uint64_t leader = raft_leader(n->raft);
	uint64_t term = raft_term(n->raft);
	struct json *j;

	if (leader == w->leader && (leader == 0 || term == w->term)) {
		return;
	}
	w->leader = leader;
	w->term = term;
	j = events_begin(&w->events, n->unix_ms, "leader.changed");
	json_u64(j, "leader", leader);
	json_u64(j, "term", term);
	events_end(&w->events);
}

static void tell_member(struct node *n, const char *event, const struct raft_server *s)
{
	struct json *j = events_begin(&n->news.events, n->unix_ms, event);

	json_u64(j, "node", s->id);
	json_string(j, "addr", s->addr);
	json_bool(j, "voter", s->voter);
	events_end(&n->news.events);
}

static void tell_changes(
	struct node *n, const struct raft_config *before, const struct raft_config *now)
{

	for (size_t i = 0; i < now->n; i++) {
		const struct raft_server *s = &now->servers[i];
		const struct raft_server *old = raft_config_find(before, s->id);

		if (old == NULL) {
			tell_member(n, "member.added", s);
		} else if (s->voter && !old->voter) {
			tell_member(n, "member.promoted", s);
		}
	}
	for (size_t i = 0; i < before->n; i++) {
		if (raft_config_find(now, before->servers[i].id) == NULL) {
			tell_member(n, "member.removed", &before->servers[i]);
		}
	}
}

static void know_members(struct node *n, const struct raft_config *now)
{
	raft_config_fini(&n->news.members);
	(void)raft_config_copy(now, &n->news.members); /* raft has checked it */
}

void news_members(struct node *n, uint64_t index)
{
	const struct raft_config *now = raft_config_at(n->raft, index);

	if (index > n->news.known_index) {
		tell_changes(n, &n->news.members, now);
	}
	know_members(n, now);
}

void news_low_space(struct node *n, bool low)
{
	struct json *j;

	if (low == n->news.low_space) {
		return;
	}
	n->news.low_space = low;
	j = events_begin(&n->news.events, n->unix_ms, "node.low_space");
	json_bool(j, "low", low);
	events_end(&n->news.events);
}

/* What happened up to the snapshot is not told. */
void news_restored(struct node *n)
{
	struct json *j = events_begin(&n->news.events, n->unix_ms, "node.restored");

	json_u64(j, "index", state_index(n->state));
	events_end(&n->news.events);
	tell_changes(n, &n->news.members, raft_config(n->raft));
	know_members(n, raft_config(n->raft));
}

void news_init(struct node *n, const struct raft_config *members)
{
	know_members(n, members);
	n->news.known_index = raft_last_index(n->raft);
}

/* The first time that the node is told what time it is. */
void news_started(struct node *n)
{
	struct json *j = events_begin(&n->news.events, n->unix_ms, "node.started");

	json_u64(j, "node", n->o.raft.id);
	json_string(j, "version", n->o.version);
	events_end(&n->news.events);
	n->news.started = true;
}

void news_fini(struct node *n)
{
	events_fini(&n->news.events);
	raft_config_fini(&n->news.members);
}

struct core_events *core_events_open(struct core *c, void (*wake)(void *arg), void *arg)
{
	return events_open(&node_of_core(c)->news.events, wake, arg);
}
