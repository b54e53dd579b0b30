/*
 * leader.c - what the leader does for the sessions of all nodes: takes their
 * commands into the log in order, answers their keep-alives, ends the silent ones.
 *
 * Everything here is of one term and soft: a new leader starts with nothing. It
 * takes commands and keep-alives only when an entry of its own term is applied,
 * that is, when it knows every session and every end that a former leader may
 * have put into the log; before that, an answered keep-alive could prolong a lease whose
 * session is about to end by an entry that this leader inherited.
 */
#include <errno.h>
#include <utlist.h>

#include "core/node_internal.h"
#include "core/plant.h"

#define PROMOTE_EVERY_MS 250
/* An end that was refused (too much uncommitted) is proposed again. */
#define END_RETRY_MS 500

static void refuse(
	struct node *n, uint64_t to, const Wire__Propose *p, uint64_t next_seq, bool space)
{
	Wire__Refused refused = WIRE__REFUSED__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;

	refused.term = raft_term(n->raft);
	refused.leader = raft_leader(n->raft);
	refused.next_seq = next_seq;
	refused.incarnation = p->incarnation;
	refused.no_space = !space;
	if (to == n->o.raft.id) {
		submit_refused(n, to, &refused);
		return;
	}
	frame.body_case = WIRE__FRAME__BODY_REFUSED;
	frame.refused = &refused;
	node_send_frame(n, to, &frame);
}

static struct follower_session *find(struct node *n, uint64_t session)
{
	struct follower_session *f;

	HASH_FIND(hh, n->leader.sessions, &session, sizeof session, f);
	return f;
}

/* What this leader knows of a session that the state machine has; made on first sight. */
static struct follower_session *know(struct node *n, const struct session *s)
{
	struct follower_session *f = find(n, s->id);

	if (f == NULL) {
		f = xcalloc(1, sizeof *f);
		f->session = s->id;
		f->seen_ms = n->leader.since_ms;
		HASH_ADD(hh, n->leader.sessions, session, sizeof f->session, f);
	}
	if (f->incarnation != s->incarnation) {
		f->incarnation = s->incarnation;
		f->appended_seq = 0;
	}
	/* What is applied is in the log; a new leader still applies what it inherited. */
	f->appended_seq = MAX(f->appended_seq, s->last_seq);
	return f;
}

static void forget_all(struct node *n)
{
	struct leader *l = &n->leader;
	struct follower_session *f, *tmp;

	HASH_ITER (hh, l->sessions, f, tmp) {
		HASH_DEL(l->sessions, f);
		free(f);
	}
	while (l->keep_alives != NULL) {
		struct keep_alive *k = l->keep_alives;

		DL_DELETE(l->keep_alives, k);
		free(k);
	}
}

void leader_role_changed(struct node *n)
{
	struct leader *l = &n->leader;
	uint64_t term = raft_role(n->raft) == RAFT_LEADER ? raft_term(n->raft) : 0;

	if (term == l->term) {
		return;
	}
	forget_all(n);
	l->term = term;
	l->since_ms = n->now_ms;
	l->tick_ms = n->now_ms;
	if (NODE_PLANTED(PLANT_EXPIRE_EARLY)) {
		l->since_ms -= MIN(n->now_ms, n->o.ttl_ms);
	}
}

/* --- commands --------------------------------------------------------------------------------- */

/* Does the command say the same of itself as the frame it came in and the stream that brought it?
 */
static bool is_of(const struct node *n, uint64_t from, const struct state_origin *said,
	const struct state_origin *is)
{
	const struct session *s;

	if (said->seq != 0) {
		return is->session == said->session && is->incarnation == said->incarnation &&
		       is->seq == said->seq;
	}
	if (is->seq != 0 || is->session == 0) {
		return is->seq == 0 && is->node == from;
	}
	s = state_session(n->state, is->session);
	return s == NULL || s->node == from;
}

/* A peer's command is looked at first: one that cannot be applied would stop every node. */
static int vet(const struct node *n, uint64_t from, const ProtobufCBinaryData *command,
	const struct state_origin *said)
{
	struct state_origin is = {0};
	int rc;

	if (from == n->o.raft.id) {
		return 0;
	}
	rc = state_vet(command->data, command->len, &is);
	if (rc == 0 && !is_of(n, from, said, &is)) {
		rc = -EPERM;
	}
	if (rc < 0) {
		TRACE(&n->o.raft.trace, TRACE_ERROR, "command.refused",
			"from=%" PRIu64 " error=%d text=\"is that node of another release?\"", from,
			-rc);
	}
	return rc;
}

static int append(struct node *n, uint64_t from, const ProtobufCBinaryData *command,
	const struct state_origin *said)
{
	uint64_t index; /* not needed: the result is seen when the entry is applied */
	int rc = vet(n, from, command, said);

	return rc < 0 ? rc : raft_propose(n->raft, command->data, command->len, &index);
}

static void take_unsequenced(struct node *n, uint64_t from, const Wire__Propose *p)
{
	const struct state_origin said = {0};

	for (size_t i = 0; i < p->n_commands; i++) {
		if (append(n, from, &p->commands[i], &said) < 0) {
			return; /* its sender sends it again */
		}
	}
}

static void take_sequenced(
	struct node *n, uint64_t from, const Wire__Propose *p, struct follower_session *f)
{
	if (p->first_seq > f->appended_seq + 1) {
		refuse(n, from, p, f->appended_seq + 1, true);
		return;
	}
	for (size_t i = 0; i < p->n_commands; i++) {
		const struct state_origin said = {.session = p->session,
			.incarnation = p->incarnation,
			.seq = p->first_seq + i};
		int rc;

		if (said.seq <= f->appended_seq) {
			if (NODE_PLANTED(PLANT_RESEND_UNDEDUPED)) {
				(void)append(n, from, &p->commands[i], &said); /* as it must not */
			}
			continue;
		}
		rc = append(n, from, &p->commands[i], &said);
		if (rc == -EAGAIN || rc == -ENOBUFS || rc == -ENOSPC) {
			refuse(n, from, p, 0, rc != -ENOSPC); /* for now */
		}
		if (rc < 0) {
			return; /* what cannot be taken at all comes again, after a while */
		}
		f->appended_seq++;
	}
}

void leader_propose(struct node *n, uint64_t from, const Wire__Propose *p)
{
	const struct session *s;

	if (!node_leads(n)) {
		refuse(n, from, p, 0, true);
		return;
	}
	if (p->session == 0) {
		take_unsequenced(n, from, p);
		return;
	}
	s = state_session(n->state, p->session);
	if (s == NULL || s->incarnation != p->incarnation || s->node != from || p->first_seq == 0) {
		return; /* of an ended session: its node learns that from the log */
	}
	take_sequenced(n, from, p, know(n, s));
}

/* --- keep-alives ---------------------------------------------------------------------------- */

static void answer(struct node *n, const struct keep_alive *k, bool gone)
{
	Wire__KeepAliveAck ack = WIRE__KEEP_ALIVE_ACK__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;

	ack.session = k->session;
	ack.incarnation = k->incarnation;
	ack.serial = k->serial;
	ack.gone = gone;
	if (k->from == n->o.raft.id) {
		lease_ack(n, &ack);
		return;
	}
	frame.body_case = WIRE__FRAME__BODY_KEEP_ALIVE_ACK;
	frame.keep_alive_ack = &ack;
	node_send_frame(n, k->from, &frame);
}

void leader_keep_alive(struct node *n, uint64_t from, const Wire__KeepAlive *ka)
{
	struct keep_alive *k;
	const struct session *s;

	if (!node_leads(n) && !(NODE_PLANTED(PLANT_EXTEND_EXPIRING) && n->leader.term != 0)) {
		return; /* sent again when its node sees who leads */
	}
	if (raft_config_find(raft_config(n->raft), from) == NULL) {
		return; /* removed: its session ends by silence */
	}
	s = state_session(n->state, ka->session);
	if (s != NULL && s->incarnation == ka->incarnation && s->node == from) {
		struct follower_session *f = know(n, s);

		if (f->ending && !NODE_PLANTED(PLANT_EXTEND_EXPIRING)) {
			return;
		}
		f->seen_ms = n->now_ms;
	}
	k = xcalloc(1, sizeof *k);
	k->read_id = ++n->leader.read_id;
	k->from = from;
	k->session = ka->session;
	k->incarnation = ka->incarnation;
	k->serial = ka->serial;
	DL_APPEND(n->leader.keep_alives, k);
	if (NODE_PLANTED(PLANT_LEASE_NO_ROUND)) {
		k->confirmed = true;
		return;
	}
	if (raft_read_index(n->raft, k->read_id) < 0) {
		DL_DELETE(n->leader.keep_alives, k);
		free(k);
	}
}

void leader_read_ready(struct node *n, uint64_t read_id, bool ok)
{
	struct keep_alive *k, *tmp;

	DL_FOREACH_SAFE (n->leader.keep_alives, k, tmp) {
		if (k->read_id != read_id) {
			continue;
		}
		if (ok) {
			k->confirmed = true;
		} else {
			DL_DELETE(n->leader.keep_alives, k);
			free(k);
		}
		return;
	}
}

/* Called when what is committed is applied: the state is at the read index or past it. */
void leader_answer(struct node *n)
{
	struct keep_alive *k, *tmp;

	DL_FOREACH_SAFE (n->leader.keep_alives, k, tmp) {
		const struct session *s;
		const struct follower_session *f;

		if (!k->confirmed) {
			continue;
		}
		DL_DELETE(n->leader.keep_alives, k);
		s = state_session(n->state, k->session);
		f = find(n, k->session);
		if (s == NULL || s->incarnation != k->incarnation) {
			answer(n, k, true);
		} else if (f == NULL || !f->ending || NODE_PLANTED(PLANT_EXTEND_EXPIRING)) {
			answer(n, k, false);
		}
		free(k);
	}
}

/* --- silence -------------------------------------------------------------------------------- */

static void end_session(struct node *n, const struct session *s, struct follower_session *f)
{
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__SessionEnd end = WIRE__SESSION_END__INIT;

	end.session = s->id;
	end.incarnation = s->incarnation;
	end.expired = true;
	command.op_case = WIRE__COMMAND__OP_SESSION_END;
	command.session_end = &end;
	TRACE(&n->o.raft.trace, TRACE_WARN, "session.silent",
		"node=%" PRIu64 " session=%" PRIu64 " ms=%" PRIu64, s->node, s->id,
		n->now_ms - MAX(f->seen_ms, n->leader.since_ms));
	f->ending = true; /* first: no keep-alive may be answered from here on */
	f->ending_ms = n->now_ms;
	(void)submit_unsequenced(n, &command); /* proposed again while the session is there */
}

static void end_silent_sessions(struct node *n)
{
	for (const struct session *s = state_sessions(n->state); s != NULL; s = s->next) {
		struct follower_session *f = know(n, s);
		bool silent = n->now_ms > MAX(f->seen_ms, n->leader.since_ms) + s->ttl_ms;

		if (f->ending ? n->now_ms > f->ending_ms + END_RETRY_MS : silent) {
			end_session(n, s, f);
		}
	}
}

void leader_tick(struct node *n)
{
	struct leader *l = &n->leader;

	if (l->term == 0) {
		return;
	}
	if (n->now_ms > l->tick_ms + n->o.raft.election_timeout_ms) {
		l->since_ms = n->now_ms; /* we slept, and with us whatever was sent to us */
	}
	l->tick_ms = n->now_ms;
	if (!node_leads(n)) {
		return;
	}
	end_silent_sessions(n);
	if (n->now_ms >= l->promote_ms + PROMOTE_EVERY_MS) {
		l->promote_ms = n->now_ms;
		members_promote(n);
	}
}

void leader_session_event(struct node *n, const struct session *s, enum session_event what)
{
	struct follower_session *f = find(n, s->id);

	if (n->leader.term == 0) {
		return;
	}
	switch (what) {
	case SESSION_OPENED:
	case SESSION_RESUMED:
		f = know(n, s);
		f->seen_ms = n->now_ms;
		f->ending = false;
		break;
	case SESSION_CLOSED:
	case SESSION_EXPIRED:
		if (f != NULL) {
			HASH_DEL(n->leader.sessions, f);
			free(f);
		}
		break;
	}
}

void leader_fini(struct node *n)
{
	forget_all(n);
}
