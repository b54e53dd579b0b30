/*
 * session.c - who may command: members, their sessions, incarnations and
 * sequence numbers.
 */
#include "core/state/internal.h"

#include "core/state/plant.h"

struct session *session_find(const struct state *s, uint64_t id)
{
	struct session *found;

	HASH_FIND(hh, s->sessions_by_id, &id, sizeof id, found);
	return found;
}

struct member *member_find(const struct state *s, uint64_t node)
{
	struct member *found;

	HASH_FIND(hh, s->members, &node, sizeof node, found);
	return found;
}

struct member *member_new(struct state *s, uint64_t node)
{
	struct member *m = xcalloc(1, sizeof *m);

	m->node = node;
	HASH_ADD(hh, s->members, node, sizeof m->node, m);
	s->member_max = MAX(s->member_max, node);
	return m;
}

struct session *session_new(struct state *s, struct member *m, const struct session *from)
{
	struct session *new = xmemdup(from, sizeof *from);

	ASSERT(m->session == NULL);
	new->claims = NULL;
	new->n_claims = 0;
	m->session = new;
	DL_APPEND(s->sessions, new);
	HASH_ADD(hh, s->sessions_by_id, id, sizeof new->id, new);
	s->n_sessions++;
	return new;
}

static void session_told(
	const struct state *s, const struct session *session, enum session_event what)
{
	if (s->hooks.session != NULL) {
		s->hooks.session(s->hooks.ctx, session, what);
	}
}

static void session_gone(
	struct state *s, uint64_t index, struct session *old, enum session_event what)
{
	lock_drop_session(s, old);
	member_find(s, old->node)->session = NULL;
	HASH_DELETE(hh, s->sessions_by_id, old);
	DL_DELETE(s->sessions, old);
	s->n_sessions--;
	s->epoch = index;
	session_told(s, old, what);
	free(old);
}

/* NULL: the node id belongs to another data directory. */
static struct member *member_admit(struct state *s, const Wire__SessionOpen *open)
{
	bool has_uuid = open->uuid.len == STATE_UUID_BYTES;
	struct member *m = member_find(s, open->node);

	if (m == NULL) {
		m = member_new(s, open->node);
	}
	if (has_uuid && m->has_uuid) {
		return memcmp(m->uuid, open->uuid.data, STATE_UUID_BYTES) == 0 ? m : NULL;
	}
	if (has_uuid) {
		memcpy(m->uuid, open->uuid.data, STATE_UUID_BYTES);
		m->has_uuid = true;
	}
	return m;
}

static void session_resume(
	struct state *s, uint64_t index, struct session *live, const Wire__SessionOpen *open)
{
	lock_drop_session(s, live);
	live->incarnation = index;
	live->nonce = open->nonce;
	live->ttl_ms = open->ttl_ms;
	live->last_seq = 0;
	s->epoch = index;
	session_told(s, live, SESSION_RESUMED);
}

/* Not the open that made the live session once more, nor a delayed copy of an older one. */
static bool may_replace(const struct session *live, const Wire__SessionOpen *open)
{
	return live->nonce != open->nonce && live->incarnation == open->replaces;
}

void session_open(struct state *s, uint64_t index, const Wire__SessionOpen *open)
{
	struct member *m = open->node != 0 ? member_admit(s, open) : NULL;
	const struct session opened = {
		.id = index,
		.incarnation = index,
		.node = open->node,
		.nonce = open->nonce,
		.opened_unix_ms = s->unix_ms,
		.ttl_ms = open->ttl_ms,
	};

	if (m == NULL || (m->session != NULL && !may_replace(m->session, open))) {
		return;
	}
	if (m->session != NULL && open->resume) {
		session_resume(s, index, m->session, open);
		return;
	}
	if (m->session != NULL) {
		session_gone(s, index, m->session, SESSION_CLOSED);
	}
	s->epoch = index;
	session_told(s, session_new(s, m, &opened), SESSION_OPENED);
}

void session_end(struct state *s, uint64_t index, const Wire__SessionEnd *end)
{
	struct session *live = session_find(s, end->session);

	if (live != NULL && live->incarnation == end->incarnation) {
		session_gone(s, index, live, end->expired ? SESSION_EXPIRED : SESSION_CLOSED);
	}
}

struct session *session_accept(struct state *s, const Wire__Command *cmd)
{
	struct session *live = session_find(s, cmd->session);

	if (live == NULL || live->incarnation != cmd->incarnation) {
		return NULL;
	}
	if (cmd->seq != live->last_seq + 1 && !STATE_PLANTED(PLANT_STATE_DUPLICATE_APPLIED)) {
		return NULL;
	}
	live->last_seq = cmd->seq;
	return live;
}
