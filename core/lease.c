/*
 * lease.c - this node's session, and the lease that lets it believe in it.
 *
 *   NONE --leader known--> OPENING --applied--> OPENED --first answer--> LIVE
 *     ^                                           |                       |
 *     +-------- ended in the log, or the lease ran out -------------------+
 *
 * The lease runs from the moment a keep-alive was *sent* and ends a margin
 * before the leader's timer could: the leader answers only after a heartbeat
 * round that began after the arrival, and its timer (or that of a later leader,
 * which starts at its election) runs from then. So when the others may be granted what
 * this node held, this node has known for the length of the margin that it
 * lost it. (Gray and Cheriton, "Leases", 1989; clocks here may differ in rate by
 * less than margin / TTL, one in ten.)
 *
 * Time is CLOCK_BOOTTIME: it goes on while the machine or the process sleeps.
 */
#include <utlist.h>

#include "core/node_internal.h"
#include "core/plant.h"

/* Keep-alives per TTL: several may be lost, and a leader die, before the lease is in danger. */
#define KEEP_ALIVES_PER_TTL 10
#define OPEN_RETRY_MS 300
#define KEEP_ALIVE_MIN_MS 10

static uint64_t margin_ms(const struct node *n)
{
	return MAX(n->o.ttl_ms / 10, 50);
}

static void orphans_clear(struct lease *l)
{
	while (l->orphans != NULL) {
		struct orphan *o = l->orphans;

		LL_DELETE(l->orphans, o);
		free(o);
	}
}

/* Whatever this process held or had under way in its session is void. */
static void lose(struct node *n, const char *why)
{
	struct lease *l = &n->lease;
	bool held = l->state == LEASE_LIVE;

	TRACE(&n->o.raft.trace, TRACE_WARN, "session.lost", "session=%" PRIu64 " why=%s",
		l->session, why);
	news_session_lost(n, l->session, why);
	l->state = LEASE_NONE;
	l->session = 0;
	l->incarnation = 0;
	l->end_ms = 0;
	l->nonce = 0;
	l->sent_ms = 0;
	submit_drop_all(n);
	locks_session_lost(n);
	if (held && n->listener.session_lost != NULL) {
		n->listener.session_lost(n->listener.ctx);
	}
}

void lease_set_now(struct node *n)
{
	struct lease *l = &n->lease;

	if (l->state == LEASE_LIVE && n->now_ms >= l->end_ms && !NODE_PLANTED(PLANT_NO_FAILSTOP)) {
		lose(n, "lease-ran-out");
	}
}

static void send_open(struct node *n)
{
	struct lease *l = &n->lease;
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__SessionOpen open = WIRE__SESSION_OPEN__INIT;
	const struct session *live = state_session_of_node(n->state, n->o.raft.id);

	if (l->nonce == 0) {
		l->nonce = node_draw(n);
	}
	open.node = n->o.raft.id;
	open.nonce = l->nonce;
	open.ttl_ms = n->o.ttl_ms;
	open.resume = l->resume;
	open.replaces = live == NULL ? 0 : live->incarnation;
	open.uuid.data = n->o.uuid;
	open.uuid.len = sizeof n->o.uuid;
	command.op_case = WIRE__COMMAND__OP_SESSION_OPEN;
	command.session_open = &open;
	if (submit_unsequenced(n, &command)) {
		l->state = LEASE_OPENING;
		l->sent_ms = n->now_ms;
		l->leader = raft_leader(n->raft);
	}
}

static void send_keep_alive(struct node *n)
{
	struct lease *l = &n->lease;
	uint64_t leader = raft_leader(n->raft);
	Wire__KeepAlive ka = WIRE__KEEP_ALIVE__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;

	if (leader == 0) {
		return;
	}
	l->sent_ms = n->now_ms;
	l->leader = leader;
	l->serial++;
	l->serial_sent_ms[l->serial % LEASE_SERIALS] = n->now_ms;
	ka.session = l->session;
	ka.incarnation = l->incarnation;
	ka.serial = l->serial;
	if (leader == n->o.raft.id) {
		leader_keep_alive(n, leader, &ka);
		return;
	}
	frame.body_case = WIRE__FRAME__BODY_KEEP_ALIVE;
	frame.keep_alive = &ka;
	node_send_frame(n, leader, &frame);
}

static void keep_alive_if_due(struct node *n)
{
	struct lease *l = &n->lease;
	uint64_t every = MAX(n->o.ttl_ms / KEEP_ALIVES_PER_TTL, KEEP_ALIVE_MIN_MS);

	if (n->now_ms >= l->sent_ms + every || l->leader != raft_leader(n->raft)) {
		send_keep_alive(n);
	}
}

void lease_tick(struct node *n)
{
	struct lease *l = &n->lease;

	switch (l->state) {
	case LEASE_NONE:
		send_open(n);
		break;
	case LEASE_OPENING:
		if (n->now_ms >= l->sent_ms + OPEN_RETRY_MS || l->leader != raft_leader(n->raft)) {
			send_open(n);
		}
		break;
	case LEASE_OPENED:
	case LEASE_LIVE:
		keep_alive_if_due(n);
		break;
	case LEASE_CLOSED:
		break;
	}
}

void lease_leader_changed(struct node *n)
{
	if (raft_leader(n->raft) != 0 && raft_leader(n->raft) != n->lease.leader) {
		lease_tick(n);
	}
}

void lease_ack(struct node *n, const Wire__KeepAliveAck *ack)
{
	struct lease *l = &n->lease;
	uint64_t from;

	if (l->session == 0 || ack->session != l->session || ack->incarnation != l->incarnation) {
		return;
	}
	if (ack->gone) {
		lose(n, "ended-by-the-cluster");
		return;
	}
	if (ack->serial == 0 || ack->serial > l->serial ||
		ack->serial + LEASE_SERIALS <= l->serial) {
		return; /* too old to remember when it was sent */
	}
	from = l->serial_sent_ms[ack->serial % LEASE_SERIALS];
	if (NODE_PLANTED(PLANT_LEASE_FROM_RECEIVE)) {
		from = n->now_ms;
	}
	l->end_ms = MAX(l->end_ms, from + n->o.ttl_ms - margin_ms(n));
	if (l->state == LEASE_OPENED && n->now_ms < l->end_ms) {
		l->state = LEASE_LIVE;
		TRACE(&n->o.raft.trace, TRACE_INFO, "session.live", "session=%" PRIu64, l->session);
		locks_session_live(n);
	}
}

static void report_orphans(struct node *n)
{
	struct orphan *o;

	LL_FOREACH (n->lease.orphans, o) {
		if (n->listener.orphan != NULL) {
			n->listener.orphan(n->listener.ctx, &o->task, &o->opener);
		}
	}
}

static void opened(struct node *n, const struct session *s)
{
	struct lease *l = &n->lease;

	l->state = LEASE_OPENED;
	l->resume = false;
	l->session = s->id;
	l->incarnation = s->incarnation;
	l->end_ms = 0;
	l->serial = 0;
	submit_drop_all(n);
	n->submit.next_seq = s->last_seq;
	TRACE(&n->o.raft.trace, TRACE_INFO, "session.open",
		"session=%" PRIu64 " incarnation=%" PRIu64, s->id, s->incarnation);
	send_keep_alive(n);
}

void lease_session_event(struct node *n, const struct session *s, enum session_event what)
{
	struct lease *l = &n->lease;

	if (s->node != n->o.raft.id) {
		return;
	}
	switch (what) {
	case SESSION_OPENED:
	case SESSION_RESUMED:
		if (l->state == LEASE_OPENING && s->nonce == l->nonce) {
			report_orphans(n);
			opened(n, s);
		} else if (l->session == s->id) {
			lose(n, "taken-up-by-another-process");
		}
		orphans_clear(l);
		break;
	case SESSION_CLOSED:
	case SESSION_EXPIRED:
		if (l->session == s->id) {
			lose(n, "ended-in-the-log");
		}
		orphans_clear(l);
		break;
	}
}

void lease_dropped(struct node *n, const struct claim *claim)
{
	const struct session *s = state_session(n->state, claim->session);
	struct orphan *o;

	if (n->lease.state != LEASE_OPENING || s == NULL || s->node != n->o.raft.id ||
		claim->token == 0) {
		return;
	}
	o = xcalloc(1, sizeof *o);
	o->task = claim->task;
	o->opener = claim->opener;
	LL_PREPEND(n->lease.orphans, o);
}

/* A leader's snapshot has replaced the state: is our session still in it, or in it at last? */
void lease_restored(struct node *n)
{
	struct lease *l = &n->lease;
	const struct session *s = state_session_of_node(n->state, n->o.raft.id);

	if (l->state == LEASE_OPENING && s != NULL && s->nonce == l->nonce) {
		opened(n, s);
		return;
	}
	if (l->session != 0 &&
		(s == NULL || s->id != l->session || s->incarnation != l->incarnation)) {
		lose(n, "ended-in-a-snapshot");
	}
}

void lease_close(struct node *n)
{
	struct lease *l = &n->lease;
	Wire__Command command = WIRE__COMMAND__INIT;
	Wire__SessionEnd end = WIRE__SESSION_END__INIT;
	const struct session *s = state_session_of_node(n->state, n->o.raft.id);

	if (l->session != 0) {
		lose(n, "clean-shutdown");
	}
	l->state = LEASE_CLOSED;
	if (s == NULL) {
		return;
	}
	end.session = s->id;
	end.incarnation = s->incarnation;
	command.op_case = WIRE__COMMAND__OP_SESSION_END;
	command.session_end = &end;
	(void)submit_unsequenced(n, &command); /* the shutdown's tick sends it again */
}

void lease_fini(struct node *n)
{
	orphans_clear(&n->lease);
}
