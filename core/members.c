/*
 * members.c - changes of the membership, asked of any node, made by the leader.
 *
 * A request is kept by the node that was asked until the leader has answered,
 * and by the leader until the configuration is committed. A leader that dies with
 * it is replaced by asking the next one: each change can be asked for twice
 * (it is then there already, which is an answer too).
 */
#include <errno.h>
#include <stdio.h>
#include <utlist.h>

#include "core/node_internal.h"

#define ASK_AGAIN_MS 500
/* For a removed node to end its session; the cluster ends it for it, later. */
#define REMOVED_MS 2000

static void answer(struct node *n, struct member_request *r, int error, const char *text)
{
	DL_DELETE(n->member_requests, r);
	if (r->done != NULL) {
		r->done(r->arg, error, r->id, text);
	} else {
		Wire__MemberChanged changed = WIRE__MEMBER_CHANGED__INIT;
		Wire__Frame frame = WIRE__FRAME__INIT;

		changed.request = r->request;
		changed.error = error;
		changed.id = r->id;
		changed.leader = raft_leader(n->raft);
		changed.text = (char *)(uintptr_t)text; /* packed, not written to */
		frame.body_case = WIRE__FRAME__BODY_MEMBER_CHANGED;
		frame.member_changed = &changed;
		node_send_frame(n, r->from, &frame);
	}
	free(r);
}

static const char *explain(int error)
{
	switch (error) {
	case 0:
		return "done";
	case EBUSY:
		return "another change is under way";
	case EEXIST:
		return "it is there already";
	case ENOENT:
		return "there is no such node";
	case ENOBUFS:
		return "there are as many nodes or voters as there may be";
	case EPROTO:
		return "the learner has not caught up yet";
	case EPERM:
		return "the last voter cannot be removed";
	case ETIMEDOUT:
		return "the cluster did not answer in time; the change may still happen";
	case ESHUTDOWN:
		return "this node is stopping";
	default:
		return "refused";
	}
}

static uint64_t next_free_id(const struct node *n)
{
	const struct raft_config *config = raft_config(n->raft);
	uint64_t id = state_member_max(n->state);

	for (size_t i = 0; i < config->n; i++) {
		id = MAX(id, config->servers[i].id);
	}
	return id + 1;
}

/* An address that is there already names its node: asking twice gives the same id. */
static uint64_t id_of_addr(const struct node *n, const char *addr)
{
	const struct raft_config *config = raft_config(n->raft);

	for (size_t i = 0; i < config->n; i++) {
		if (strcmp(config->servers[i].addr, addr) == 0) {
			return config->servers[i].id;
		}
	}
	return 0;
}

static void make_change(struct node *n, struct member_request *r)
{
	const struct raft_config *committed = raft_config_at(n->raft, raft_commit(n->raft));
	int rc;

	if (r->any_id) { /* also if one was found before: it may have been taken since */
		r->id = id_of_addr(n, r->addr);
		if (r->id != 0 && raft_config_find(committed, r->id) == NULL) {
			return; /* it may yet be lost; the tick looks again */
		}
		if (r->id != 0 && state_member_uuid(n->state, r->id) != NULL) {
			answer(n, r, EEXIST,
				"a node with this address is a member; remove it first");
			return;
		}
		if (r->id != 0) {
			answer(n, r, 0, "added before, and not yet seen");
			return;
		}
		r->id = next_free_id(n);
	}
	rc = raft_change_config(n->raft, r->change, r->id, r->addr);
	if (rc == -EBUSY || rc == -EAGAIN) {
		return; /* the tick tries again */
	}
	if (rc < 0) {
		answer(n, r, -rc, explain(-rc));
		return;
	}
	r->index = raft_last_index(n->raft);
	r->term = raft_term(n->raft);
}

static void ask_leader(struct node *n, struct member_request *r, uint64_t leader)
{
	Wire__MemberChange m = WIRE__MEMBER_CHANGE__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;

	r->asked = leader;
	r->asked_ms = n->now_ms;
	m.op = (Wire__MemberChange__Op)r->change;
	m.id = r->any_id ? 0 : r->id;
	m.addr = r->addr;
	m.request = r->request;
	frame.body_case = WIRE__FRAME__BODY_MEMBER_CHANGE;
	frame.member_change = &m;
	node_send_frame(n, leader, &frame);
}

static void advance(struct node *n, struct member_request *r)
{
	uint64_t leader = raft_leader(n->raft);

	if (n->now_ms >= r->deadline_ms) {
		answer(n, r, ETIMEDOUT, explain(ETIMEDOUT));
	} else if (node_leads(n)) {
		/* One of a former term that was not answered until now has been lost. */
		if (r->index == 0 || r->term != raft_term(n->raft)) {
			make_change(n, r);
		}
	} else if (r->done == NULL) {
		answer(n, r, EAGAIN, "this node does not lead any more");
	} else if (leader != 0 && leader != n->o.raft.id &&
		   (r->asked != leader || n->now_ms >= r->asked_ms + ASK_AGAIN_MS)) {
		r->index = 0;
		ask_leader(n, r, leader);
	}
}

void node_change_member(struct node *n, enum raft_change change, uint64_t id, const char *addr,
	node_member_fn *done, void *arg)
{
	struct member_request *r = xcalloc(1, sizeof *r);

	r->request = ++n->member_serial;
	r->change = change;
	r->id = id;
	r->any_id = change == RAFT_ADD_LEARNER && id == 0;
	r->done = done;
	r->arg = arg;
	r->deadline_ms = n->now_ms + n->o.timeo_ms;
	if (addr != NULL) {
		(void)snprintf(r->addr, sizeof r->addr, "%s", addr); /* checked by the caller */
	}
	DL_APPEND(n->member_requests, r); /* the tick begins it */
}

void members_frame(struct node *n, uint64_t from, const Wire__MemberChange *m)
{
	struct member_request *r;

	DL_FOREACH (n->member_requests, r) {
		if (r->from == from && r->request == m->request && r->done == NULL) {
			return; /* asked again; it is under way */
		}
	}
	if ((int)m->op < RAFT_ADD_LEARNER || (int)m->op > RAFT_REMOVE ||
		strlen(m->addr) >= RAFT_ADDR_MAX) {
		return;
	}
	r = xcalloc(1, sizeof *r);
	r->request = m->request;
	r->change = (enum raft_change)m->op;
	r->id = m->id;
	r->any_id = r->change == RAFT_ADD_LEARNER && m->id == 0;
	r->from = from;
	r->deadline_ms = n->now_ms + n->o.timeo_ms;
	(void)snprintf(r->addr, sizeof r->addr, "%s", m->addr);
	DL_APPEND(n->member_requests, r);
	advance(n, r);
}

void members_answer_frame(struct node *n, uint64_t from, const Wire__MemberChanged *m)
{
	struct member_request *r;

	DL_FOREACH (n->member_requests, r) {
		if (r->done == NULL || r->request != m->request || r->asked != from) {
			continue;
		}
		if (m->error == EAGAIN) {
			r->asked = 0;
		} else {
			r->id = m->id;
			answer(n, r, m->error, m->text);
		}
		return;
	}
}

/* A configuration entry was committed: the one that a request waits for, or, with another term,
 * one of a later leader in its place. */
void members_applied(struct node *n, uint64_t index, uint64_t term)
{
	struct member_request *r, *tmp;

	DL_FOREACH_SAFE (n->member_requests, r, tmp) {
		if (r->index == index && r->term == term) {
			answer(n, r, 0, explain(0));
		}
	}
}

/* A node that was removed ends by itself, cleanly. One that joins reads the log from before it was
 * added: only who was in can be out. */
void members_self(struct node *n, uint64_t index)
{
	const struct raft_config *config = raft_config_at(n->raft, index);

	if (raft_config_find(config, n->o.raft.id) != NULL) {
		n->member_seen = true;
	} else if (n->member_seen && !n->stopping) {
		TRACE(&n->o.raft.trace, TRACE_ERROR, "node.removed",
			"id=%" PRIu64 " text=\"this node is no member of the cluster any more\"",
			n->o.raft.id);
		node_shutdown(n, REMOVED_MS);
	}
}

void members_tick(struct node *n)
{
	struct member_request *r, *tmp;

	DL_FOREACH_SAFE (n->member_requests, r, tmp) {
		advance(n, r);
	}
}

/* Learners that have caught up become voters while more of these are wanted. */
void members_promote(struct node *n)
{
	const struct raft_config *config = raft_config(n->raft);
	uint32_t voters = 0;

	for (size_t i = 0; i < config->n; i++) {
		voters += config->servers[i].voter;
	}
	for (size_t i = 0; i < config->n && voters < n->o.voters_wanted; i++) {
		uint64_t id = config->servers[i].id;

		if (!config->servers[i].voter && state_member_uuid(n->state, id) != NULL &&
			raft_change_config(n->raft, RAFT_PROMOTE, id, NULL) == 0) {
			return; /* one at a time */
		}
	}
}

void members_fini(struct node *n)
{
	struct member_request *r, *tmp;

	DL_FOREACH_SAFE (n->member_requests, r, tmp) {
		DL_DELETE(n->member_requests, r);
		free(r);
	}
}
