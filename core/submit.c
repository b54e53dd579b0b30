/*
 * submit.c - this node's commands on their way into the log.
 *
 * Each command of the session has a sequence number; they take effect in that
 * order, each once. A command stays queued until this node itself applies it,
 * and whatever happened to its first sending (a lost frame, a leader that died
 * with it) is mended by sending everything again from the oldest one: the
 * leader skips what its log has, the state machine what it has applied.
 */
#include <utlist.h>

#include "core/node_internal.h"

/* What one Propose frame carries at most; arbitrary, well under a frame's limit. */
#define PROPOSE_COMMANDS_MAX 1024
#define PROPOSE_BYTES_MAX (256u << 10)
/* A round trip and a disk write take far less; an election takes about as long. */
#define RESEND_MS 500

static struct pending *queue_head(const struct node *n)
{
	return n->submit.queue;
}

uint64_t submit_command(struct node *n, Wire__Command *command, struct core_op *op)
{
	struct submit *s = &n->submit;
	struct pending *p = xcalloc(1, sizeof *p);

	ASSERT(n->lease.session != 0);
	if (s->queue == NULL) {
		s->progress_ms = n->now_ms;
	}
	p->seq = ++s->next_seq;
	p->op = op;
	if (op != NULL) {
		op->pending = p;
	}
	command->format = WIRE_FORMAT;
	command->session = n->lease.session;
	command->incarnation = n->lease.incarnation;
	command->seq = p->seq;
	command->unix_ms = n->unix_ms;
	p->len = wire__command__get_packed_size(command);
	p->command = xmalloc(p->len);
	(void)wire__command__pack(command, p->command); /* the size it has just told */
	DL_APPEND(s->queue, p);
	if (s->unsent == NULL) {
		s->unsent = p;
	}
	return p->seq;
}

bool submit_unsequenced(struct node *n, Wire__Command *command)
{
	uint8_t packed[512]; /* a SessionOpen or SessionEnd is below 100 bytes */
	ProtobufCBinaryData data = {.data = packed};
	Wire__Propose propose = WIRE__PROPOSE__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;
	uint64_t leader = raft_leader(n->raft);

	if (leader == 0) {
		return false;
	}
	command->format = WIRE_FORMAT;
	command->unix_ms = n->unix_ms;
	ASSERT(wire__command__get_packed_size(command) <= sizeof packed);
	data.len = wire__command__pack(command, packed);
	propose.n_commands = 1;
	propose.commands = &data;
	if (leader == n->o.raft.id) {
		leader_propose(n, leader, &propose);
		return true;
	}
	frame.body_case = WIRE__FRAME__BODY_PROPOSE;
	frame.propose = &propose;
	node_send_frame(n, leader, &frame);
	return true;
}

static void pending_remove(struct node *n, struct pending *p)
{
	struct submit *s = &n->submit;

	if (s->unsent == p) {
		s->unsent = p->next;
	}
	if (p->op != NULL) {
		p->op->pending = NULL;
	}
	DL_DELETE(s->queue, p);
	free(p->command);
	free(p);
}

struct core_op *submit_applied(struct node *n, uint64_t seq)
{
	struct pending *p = queue_head(n);
	struct core_op *op;

	ASSERT(p != NULL);
	ASSERT(p->seq == seq);
	op = p->op;
	pending_remove(n, p);
	n->submit.progress_ms = n->now_ms;
	return op;
}

void submit_skipped(
	struct node *n, uint64_t seq, void (*fn)(struct node *n, struct core_op *op, uint64_t seq))
{
	struct pending *p;

	while ((p = queue_head(n)) != NULL && p->seq <= seq) {
		struct core_op *op = p->op;
		uint64_t at = p->seq;

		pending_remove(n, p);
		if (op != NULL) {
			fn(n, op, at);
		}
	}
	n->submit.progress_ms = n->now_ms;
}

void submit_forget_op(struct core_op *op)
{
	if (op->pending != NULL) {
		op->pending->op = NULL;
		op->pending = NULL;
	}
}

void submit_resend(struct node *n)
{
	n->submit.unsent = queue_head(n);
	n->submit.held = false;
	n->submit.retry = false;
	n->submit.progress_ms = n->now_ms;
}

void submit_refused(struct node *n, uint64_t from, const Wire__Refused *refused)
{
	struct submit *s = &n->submit;
	struct pending *p;

	if (refused->no_space) {
		n->locks.no_space_ms = n->now_ms + RESEND_MS;
	}
	if (refused->incarnation != n->lease.incarnation || from != s->leader) {
		return; /* the tick, or the next leader, sees to it */
	}
	if (refused->no_space || refused->next_seq == 0) {
		s->held = true; /* what follows would only be refused for its gap */
		s->retry = refused->leader == from && !refused->no_space; /* not ready yet */
		return;
	}
	DL_FOREACH (s->queue, p) {
		if (p->seq >= refused->next_seq) {
			s->unsent = p;
			return;
		}
	}
}

void submit_tick(struct node *n)
{
	struct submit *s = &n->submit;

	if (s->queue != NULL && (s->held || s->unsent != s->queue) &&
		(s->retry || n->now_ms >= s->progress_ms + RESEND_MS)) {
		TRACE(&n->o.raft.trace, TRACE_DEBUG, "submit.resend", "first=%" PRIu64,
			s->queue->seq);
		submit_resend(n);
	}
}

/* Take commands from the unsent end into one Propose. */
static size_t next_batch(
	struct submit *s, ProtobufCBinaryData *commands, struct pending **ret_after)
{
	struct pending *p = s->unsent;
	size_t count = 0;
	size_t bytes = 0;

	while (p != NULL && count < PROPOSE_COMMANDS_MAX &&
		(count == 0 || bytes + p->len <= PROPOSE_BYTES_MAX)) {
		commands[count].data = p->command;
		commands[count].len = p->len;
		bytes += p->len;
		count++;
		p = p->next;
	}
	*ret_after = p;
	return count;
}

static void send_batch(struct node *n, uint64_t leader)
{
	ProtobufCBinaryData commands[PROPOSE_COMMANDS_MAX];
	Wire__Propose propose = WIRE__PROPOSE__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;
	struct pending *after;

	propose.session = n->lease.session;
	propose.incarnation = n->lease.incarnation;
	propose.first_seq = n->submit.unsent->seq;
	propose.n_commands = next_batch(&n->submit, commands, &after);
	propose.commands = commands;
	n->submit.unsent = after;
	if (leader == n->o.raft.id) {
		leader_propose(n, leader, &propose);
		return;
	}
	frame.body_case = WIRE__FRAME__BODY_PROPOSE;
	frame.propose = &propose;
	node_send_frame(n, leader, &frame);
}

bool submit_has_unsent(const struct node *n)
{
	uint64_t leader = raft_leader(n->raft);

	return n->submit.unsent != NULL && !n->submit.held && leader != 0 &&
	       (leader != n->o.raft.id || node_leads(n));
}

void submit_flush(struct node *n)
{
	struct submit *s = &n->submit;
	uint64_t leader = raft_leader(n->raft);

	if (leader != 0 && leader != s->leader) {
		s->leader = leader;
		submit_resend(n);
	}
	while (submit_has_unsent(n)) {
		struct pending *before = s->unsent;

		send_batch(n, leader);
		if (s->unsent == before) {
			return; /* refused by ourselves, for now */
		}
	}
}

void submit_drop_all(struct node *n)
{
	while (queue_head(n) != NULL) {
		pending_remove(n, queue_head(n));
	}
	n->submit.next_seq = 0;
	n->submit.held = false;
	n->submit.retry = false;
}
