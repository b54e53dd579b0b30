/*
 * node.c - puts the parts of a node together: events, frames, turns.
 *
 * A turn: any number of inputs, each of which only records what it leads to,
 * then node_flush(), which lets commands go to the leader, lets raft write, send and
 * apply, and last gives the answers. What an answer or an applied entry leads to (a front-end
 * asks for the next lock, a session that is live submits what waited) is carried
 * out in another pass of the same turn.
 */
#include "core/node.h"

#include <errno.h>
#include <stdio.h>

#include "core/node_internal.h"

/* Passes of one flush: an answer leads to a request, which leads to a message; more than that
 * can wait for the next turn. */
#define PASSES_MAX 8

/* --- raft's world --------------------------------------------------------------------------- */

static void on_append(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t count)
{
	struct node *n = ctx;

	n->env->log_append(n->env->ctx, gen, entries, count);
}

static void on_truncate(void *ctx, uint64_t from)
{
	struct node *n = ctx;

	n->env->log_truncate(n->env->ctx, from);
}

static void on_save_vote(void *ctx, uint64_t term, uint64_t vote)
{
	struct node *n = ctx;

	n->env->save_vote(n->env->ctx, term, vote);
}

static void on_send(void *ctx, const struct raft_msg *msg)
{
	struct node *n = ctx;

	n->out.len = 0;
	wire_encode_raft(msg, &n->out);
	n->env->send(n->env->ctx, msg->to, n->out.data, n->out.len);
}

static void on_apply(void *ctx, const struct raft_entry *e)
{
	struct node *n = ctx;
	int rc = 0;

	if (n->failed) {
		return;
	}
	switch (e->kind) {
	case RAFT_COMMAND:
		rc = state_apply(n->state, e->index, e->data, e->len);
		break;
	case RAFT_CONFIG:
		state_skip(n->state, e->index);
		members_applied(n, e->index, e->term);
		news_members(n, e->index);
		members_self(n, e->index);
		break;
	case RAFT_NOOP:
		state_skip(n->state, e->index);
		break;
	}
	if (rc < 0) {
		node_fatal(n,
			rc == -EPROTO ? "the log has an entry of a newer release"
				      : "the log has an entry that is no command",
			rc);
		return;
	}
	compaction_applied(n, sizeof *e + e->len);
}

static void on_read_ready(void *ctx, uint64_t read_id, uint64_t index, bool ok)
{
	leader_read_ready(ctx, read_id, ok);
}

static void on_role_changed(void *ctx)
{
	leader_role_changed(ctx);
	news_leader(ctx);
}

static void on_config_changed(void *ctx, const struct raft_config *config)
{
	contacts_keep_streams(ctx);
}

static void on_snapshot_read(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
	struct node *n = ctx;

	n->env->snap_read(n->env->ctx, to, index, offset, max);
}

static void on_snapshot_write(void *ctx, const struct raft_msg *msg)
{
	compaction_receive(ctx, msg);
}

/* --- the state machine's news --------------------------------------------------------------- */

static void on_result(void *ctx, uint64_t incarnation, uint64_t seq, enum status st, uint64_t token)
{
	struct node *n = ctx;
	struct core_op *op;

	if (n->lease.session == 0 || incarnation != n->lease.incarnation) {
		return;
	}
	op = submit_applied(n, seq);
	if (op != NULL) {
		locks_result(n, op, st, token);
	}
}

static void on_granted(void *ctx, const struct lock *lock, const struct claim *claim)
{
	locks_granted(ctx, claim);
	news_lock(ctx, EVENT_GRANTED, lock, claim);
}

static void on_claimed(void *ctx, const struct lock *lock, const struct claim *claim)
{
	news_lock(ctx, claim->token != 0 ? EVENT_GRANTED : EVENT_WAITING, lock, claim);
	if (claim->token == 0) {
		locks_contended(ctx, lock);
	}
}

static void on_released(void *ctx, const struct lock *lock, const struct claim *claim)
{
	news_lock(ctx, claim->token != 0 ? EVENT_RELEASED : EVENT_CANCELLED, lock, claim);
}

static void on_dropped(void *ctx, const struct lock *lock, const struct claim *claim)
{
	lease_dropped(ctx, claim);
	news_dropped(ctx, lock, claim);
}

static void on_session(void *ctx, const struct session *s, enum session_event what)
{
	news_session(ctx, s, what);
	leader_session_event(ctx, s, what);
	lease_session_event(ctx, s, what);
}

/* --- what the parts share ------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood, 2014). */
uint64_t node_draw(struct node *n)
{
	uint64_t z = n->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return z != 0 ? z : 1;
}

void node_send_frame(struct node *n, uint64_t to, const Wire__Frame *frame)
{
	n->out.len = 0;
	wire_encode_frame(frame, &n->out);
	n->env->send(n->env->ctx, to, n->out.data, n->out.len);
}

void node_fatal(struct node *n, const char *what, int rc)
{
	char text[256];

	n->failed = true;
	(void)snprintf(text, sizeof text, "%s (error %d)", what, -rc);
	n->env->fatal(n->env->ctx, text);
}

/* The state was replaced by a leader's snapshot. */
void node_restored(struct node *n)
{
	uint64_t session = n->lease.session;

	news_restored(n);
	leader_role_changed(n);
	lease_restored(n);
	if (session != 0 && n->lease.session == session) {
		const struct session *s = state_session(n->state, session);

		submit_skipped(n, s->last_seq, locks_restored);
		locks_reconcile_waits(n);
	}
}

/* --- life ----------------------------------------------------------------------------------- */

void node_options_default(struct node_options *o)
{
	memset(o, 0, sizeof *o);
	raft_options_default(&o->raft);
	state_limits_default(&o->limits);
	o->ttl_ms = 5000;
	o->timeo_ms = 30000;
	o->snapshot_log_bytes = 64u << 20;
	o->snapshot_slice_bytes = 8u << 10;
	o->voters_wanted = 5;
	o->version = "";
}

static void wire_up(struct node *n)
{
	n->raft_env = (struct raft_env){
		.ctx = n,
		.append = on_append,
		.truncate = on_truncate,
		.save_vote = on_save_vote,
		.send = on_send,
		.apply = on_apply,
		.read_ready = on_read_ready,
		.role_changed = on_role_changed,
		.config_changed = on_config_changed,
		.snapshot_read = on_snapshot_read,
		.snapshot_write = on_snapshot_write,
	};
	n->hooks = (struct state_hooks){
		.ctx = n,
		.result = on_result,
		.granted = on_granted,
		.claimed = on_claimed,
		.released = on_released,
		.dropped = on_dropped,
		.session = on_session,
	};
}

int node_new(const struct node_options *o, const struct env *env, const struct node_start *start,
	uint64_t now_ms, struct node **ret_node)
{
	struct node *n = xcalloc(1, sizeof *n);
	const struct raft_server *self;
	int rc = 0;

	n->o = *o;
	n->o.raft.trace = env->trace;
	n->env = env;
	n->now_ms = now_ms;
	n->random = o->raft.seed;
	n->member_serial = node_draw(n);
	n->lease.resume = start->resume;
	wire_up(n);
	if (start->snapshot) {
		rc = node_load_snapshot(n, &n->state);
	} else {
		n->state = state_new(&n->o.limits, &n->hooks);
	}
	if (rc == 0) {
		state_set_hooks(n->state, &n->hooks);
		rc = raft_new(&n->o.raft, &n->raft_env, &start->raft, now_ms, &n->raft);
	}
	if (rc < 0) {
		node_free(n);
		return rc;
	}
	admission_learn(n, start->raft.entries, start->raft.n_entries);
	news_init(n, start->raft.config);
	contacts_keep_streams(n);
	self = raft_config_find(start->raft.config, o->raft.id);
	n->member_seen = self != NULL && (self->voter || start->snapshot);
	*ret_node = n;
	return 0;
}

void node_free(struct node *n)
{
	if (n == NULL) {
		return;
	}
	submit_drop_all(n);
	locks_fini(n);
	lease_fini(n);
	leader_fini(n);
	compaction_fini(n);
	members_fini(n);
	contacts_fini(n);
	admission_fini(n);
	news_fini(n);
	raft_free(n->raft);
	state_free(n->state);
	wire_buf_fini(&n->out);
	free(n);
}

struct core *node_core(struct node *n)
{
	return (struct core *)(void *)n;
}

void core_listen(struct core *c, const struct core_listener *l)
{
	node_of_core(c)->listener = *l;
}

void node_set_now(struct node *n, uint64_t now_ms, uint64_t unix_ms)
{
	n->now_ms = MAX(n->now_ms, now_ms);
	n->unix_ms = unix_ms;
	if (!n->news.started) {
		news_started(n);
	}
	lease_set_now(n);
}

/* --- shutdown ------------------------------------------------------------------------------- */

void node_shutdown(struct node *n, uint32_t max_ms)
{
	n->stopping = true;
	n->stop_ms = n->now_ms + max_ms;
	locks_shutdown(n);
	lease_close(n);
}

static bool alone(const struct node *n)
{
	const struct raft_config *config = raft_config(n->raft);
	size_t voters = 0;

	for (size_t i = 0; i < config->n; i++) {
		voters += config->servers[i].voter;
	}
	return voters <= 1;
}

/* First the session's end, then leadership, then the end. */
static void shutdown_tick(struct node *n)
{
	bool overdue = n->now_ms >= n->stop_ms;

	if (n->stopped) {
		return;
	}
	if (!overdue && state_session_of_node(n->state, n->o.raft.id) != NULL) {
		lease_close(n);
		return;
	}
	if (!overdue && raft_role(n->raft) == RAFT_LEADER && !alone(n)) {
		if (n->handed_over_ms == 0 ||
			n->now_ms > n->handed_over_ms + n->o.raft.election_timeout_ms) {
			n->handed_over_ms = n->now_ms;
			(void)raft_transfer(n->raft, 0, n->now_ms); /* tried again */
		}
		return;
	}
	n->stopped = true;
	n->env->stopped(n->env->ctx);
}

/* --- turns ---------------------------------------------------------------------------------- */

void node_tick(struct node *n)
{
	raft_tick(n->raft, n->now_ms);
	leader_tick(n);
	lease_tick(n);
	submit_tick(n);
	locks_tick(n);
	members_tick(n);
	contacts_tick(n);
	if (n->stopping) {
		shutdown_tick(n);
	}
}

void node_flush(struct node *n)
{
	bool again = true;

	for (int pass = 0; again && pass < PASSES_MAX && !n->failed; pass++) {
		submit_flush(n);
		raft_flush(n->raft, n->now_ms);
		lease_leader_changed(n);
		leader_answer(n);
		again = locks_answer(n) || submit_has_unsent(n);
	}
	if (!n->failed) {
		compaction_turn(n);
		events_wake(&n->news.events);
	}
}

/* --- events --------------------------------------------------------------------------------- */

static void on_raft_frame(struct node *n, uint64_t from, struct wire_frame *frame)
{
	struct raft_msg *msg = wire_frame_raft(frame);

	if (msg != NULL) {
		msg->from = from;
		msg->to = n->o.raft.id;
		raft_recv(n->raft, msg, n->now_ms);
	}
}

void node_frame(struct node *n, uint64_t from, const void *body, size_t len)
{
	struct wire_frame *frame = NULL;
	const Wire__Frame *f;
	int rc = wire_decode_frame(body, len, &frame);

	if (rc < 0) {
		TRACE(&n->o.raft.trace, TRACE_WARN, "frame.bad", "from=%" PRIu64 " bytes=%zu", from,
			len);
		return;
	}
	f = wire_frame_body(frame);
	switch (f->body_case) {
	case WIRE__FRAME__BODY_RAFT:
		on_raft_frame(n, from, frame);
		break;
	case WIRE__FRAME__BODY_PROPOSE:
		leader_propose(n, from, f->propose);
		break;
	case WIRE__FRAME__BODY_REFUSED:
		submit_refused(n, from, f->refused);
		break;
	case WIRE__FRAME__BODY_KEEP_ALIVE:
		leader_keep_alive(n, from, f->keep_alive);
		break;
	case WIRE__FRAME__BODY_KEEP_ALIVE_ACK:
		lease_ack(n, f->keep_alive_ack);
		break;
	case WIRE__FRAME__BODY_MEMBER_CHANGE:
		members_frame(n, from, f->member_change);
		break;
	case WIRE__FRAME__BODY_MEMBER_CHANGED:
		members_answer_frame(n, from, f->member_changed);
		break;
	case WIRE__FRAME__BODY_CONTACT:
		contacts_frame(n, from, f->contact);
		break;
	case WIRE__FRAME__BODY__NOT_SET:
	case _WIRE__FRAME__BODY__CASE_IS_INT_SIZE:
		break; /* of a newer release */
	}
	wire_frame_free(frame);
}

void node_peer_up(struct node *n, uint64_t id)
{
	contacts_peer_up(n, id);
	if (id == raft_leader(n->raft)) {
		submit_resend(n);
	}
}

void node_log_durable(struct node *n, uint64_t gen, uint64_t index)
{
	raft_log_durable(n->raft, gen, index);
}

void node_vote_durable(struct node *n, uint64_t term, uint64_t vote)
{
	raft_vote_durable(n->raft, term, vote);
}

void node_low_space(struct node *n, bool low)
{
	raft_set_readonly(n->raft, low, n->now_ms);
	news_low_space(n, low);
}

void node_snap_chunk(struct node *n, uint64_t to, uint64_t index, uint64_t offset, const void *data,
	size_t len, uint64_t total, int error)
{
	raft_snapshot_chunk(n->raft, to, index, offset, data, len, total, error);
}

/* --- what it knows -------------------------------------------------------------------------- */

const struct raft *node_raft(const struct node *n)
{
	return n->raft;
}

const struct state *node_state(const struct node *n)
{
	return n->state;
}

uint64_t node_session(const struct node *n)
{
	return n->lease.session;
}

uint64_t node_lease_end(const struct node *n)
{
	return n->lease.state == LEASE_LIVE ? n->lease.end_ms : 0;
}
