/*
 * clients.c - processes that lock.
 *
 * A client is an open file description of a lock's file. What its process may
 * rely on runs from the answer ST_OK until it lets go, dies, or its node says
 * that the session is lost: that span, in virtual real time, is what must
 * exclude the others. While a conversion is under way a process may rely on the
 * weaker of the two modes: a shared lock that becomes exclusive may be given up
 * in between (flock(2)). After one that failed it relies on nothing, but the
 * description may still have what it had: until an unlock.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>

const char *client_state_name(enum client_state st)
{
	switch (st) {
	case CLIENT_IDLE:
		return "idle";
	case CLIENT_ASKING:
		return "asking";
	case CLIENT_HOLDING:
		return "holding";
	case CLIENT_LOST:
		return "lost";
	}
	UNREACHABLE();
}

static struct core *client_core(const struct sim_client *c)
{
	return node_core(c->sim->nodes[c->node].node);
}

static struct core_name lock_name(const struct sim_client *c)
{
	const char *name = c->sim->locks[c->lock].name;

	return (struct core_name){name, strlen(name)};
}

static void client_move(struct sim_client *c, enum client_state to, enum status why)
{
	SIM_TRACE(c->sim, c->node, "client",
		"c=%u owner=%" PRIu64 " lock=%s %s->%s status=%s holds=%s token=%" PRIu64, c->index,
		c->owner, c->sim->locks[c->lock].name, client_state_name(c->state),
		client_state_name(to), status_name(why),
		!c->holds         ? "no"
		: c->holds_shared ? "shared"
				  : "exclusive",
		c->token);
	sim_hash_u64(
		c->sim, (uint64_t)c->index << 8 | (uint64_t)to, c->token ^ (uint64_t)why << 56);
	c->state = to;
	c->last = why;
}

struct sim_client *client_new(struct sim *s, uint64_t node)
{
	struct sim_client *c;

	ASSERT(s->n_clients < SIM_CLIENTS_MAX);
	c = &s->clients[s->n_clients];
	*c = (struct sim_client){.sim = s, .index = (unsigned)s->n_clients, .node = node};
	s->n_clients++;
	return c;
}

/* --- answers ------------------------------------------------------------------------- */

static void check_held(struct sim_client *c, uint64_t token)
{
	uint64_t held_token = 0;
	enum core_lock_mode held = core_lock_held(client_core(c), c->owner, &held_token);

	if (held != (c->shared ? CORE_SHARED : CORE_EXCLUSIVE) || held_token != token) {
		sim_fail(c->sim, "held",
			"client %u on node %" PRIu64 " was granted %s with token %" PRIu64
			", but its node says mode %d, token %" PRIu64,
			c->index, c->node, c->shared ? "shared" : "exclusive", token, (int)held,
			held_token);
	}
}

static void lock_answered(void *arg, enum status st, uint64_t token)
{
	struct sim_client *c = arg;

	if (c->op == NULL) {
		return; /* the process that asked has died with its node */
	}
	c->op = NULL;
	if (st != ST_OK) {
		c->unsure |= c->converts;
		c->holds = false;
		client_move(c, CLIENT_IDLE, st);
		mind_moves(c);
		return;
	}
	check_held(c, token);
	holds_granted(c, token);
	c->holds = true;
	c->unsure = false;
	c->fresh = true;
	c->holds_shared = c->shared;
	c->token = token;
	c->sim->n_grants++;
	client_move(c, CLIENT_HOLDING, st);
	mind_moves(c);
}

static void value_answered(void *arg, enum status st, uint64_t token)
{
	struct sim_client *c = arg;
	struct core_lock_info info;

	(void)token;
	if (c->op == NULL) {
		return;
	}
	c->op = NULL;
	c->sets_value = false;
	if (st == ST_OK && c->holds &&
		(!core_lock_info(client_core(c), lock_name(c), &info) ||
			info.value_len != sizeof c->value ||
			memcmp(info.value, c->value, sizeof c->value) != 0)) {
		sim_fail(c->sim, "value",
			"client %u on node %" PRIu64 " wrote a value and reads another", c->index,
			c->node);
	}
	if (st == ST_DENIED && c->holds && !c->holds_shared) {
		sim_fail(c->sim, "value",
			"client %u on node %" PRIu64 " holds it and may not write", c->index,
			c->node);
	}
	client_move(c, c->holds ? CLIENT_HOLDING : CLIENT_LOST, st);
	mind_moves(c);
}

/* --- what a process does ------------------------------------------------------------- */

static struct core_task client_task(const struct sim_client *c)
{
	struct core_task task = {.pid = 1000 + c->index, .start = c->owner};

	(void)snprintf(task.command, sizeof task.command, "client%u", c->index);
	return task;
}

void client_lock(struct sim_client *c, unsigned lock, bool shared, bool wait)
{
	struct sim_node *n = &c->sim->nodes[c->node];
	struct core_lock_request request;

	ASSERT(n->in_turn);
	ASSERT(c->op == NULL);
	if (c->owner == 0) {
		c->owner = n->next_owner++;
	} else {
		ASSERT(c->lock == lock); /* a description is of one file */
	}
	c->converts = c->holds || c->unsure;
	if (c->holds && c->holds_shared != shared) {
		c->holds = c->holds_shared ? false : true;
		c->holds_shared = true;
	}
	c->lock = lock;
	c->shared = shared;
	c->wait = wait;
	request = (struct core_lock_request){
		.name = lock_name(c),
		.owner = core_flock_owner(c->owner),
		.shared = shared,
		.wait = wait,
		.task = client_task(c),
		.opener = client_task(c),
		.uid = c->index,
	};
	SIM_TRACE(c->sim, c->node, "client.lock", "c=%u owner=%" PRIu64 " lock=%s mode=%s wait=%d",
		c->index, c->owner, c->sim->locks[lock].name, shared ? "shared" : "exclusive",
		wait);
	c->op = core_lock(node_core(n->node), &request, lock_answered, c);
	ASSERT(c->op != NULL);
	client_move(c, CLIENT_ASKING, ST_WAITING);
}

void client_unlock(struct sim_client *c)
{
	ASSERT(c->op == NULL);
	c->holds = false;
	c->unsure = false;
	core_unlock(client_core(c), lock_name(c), core_flock_owner(c->owner), CORE_RANGE_WHOLE);
	client_move(c, CLIENT_IDLE, ST_OK);
}

void client_interrupt(struct sim_client *c)
{
	ASSERT(c->op != NULL);
	SIM_TRACE(c->sim, c->node, "client.interrupt", "c=%u owner=%" PRIu64, c->index, c->owner);
	core_interrupt(client_core(c), c->op);
	ASSERT(c->op == NULL);
	if (c->last != ST_CANCELLED) {
		sim_fail(c->sim, "interrupt", "client %u was interrupted and told %s", c->index,
			status_name(c->last));
	}
}

void client_set_value(struct sim_client *c, const void *value, size_t len)
{
	ASSERT(c->op == NULL);
	ASSERT(len <= sizeof c->value);
	memset(c->value, 0, sizeof c->value);
	memcpy(c->value, value, len);
	c->op = core_lock_set_value(client_core(c), lock_name(c), core_flock_owner(c->owner),
		c->value, sizeof c->value, value_answered, c);
	ASSERT(c->op != NULL);
	c->sets_value = true;
	client_move(c, CLIENT_ASKING, ST_WAITING);
}

void client_close(struct sim_client *c)
{
	if (c->op != NULL) {
		client_interrupt(c);
	}
	if (c->owner != 0) {
		client_unlock(c);
	}
	c->owner = 0;
}

/* --- what happens to it -------------------------------------------------------------- */

void clients_node_gone(struct sim *s, uint64_t node)
{
	for (size_t i = 0; i < s->n_clients; i++) {
		struct sim_client *c = &s->clients[i];

		if (c->node == node) {
			c->op = NULL;
			c->sets_value = false;
			c->holds = false;
			c->unsure = false;
			c->fresh = false;
			c->owner = 0;
			c->plan++;
			client_move(c, CLIENT_IDLE, ST_SHUTDOWN);
		}
	}
}

void clients_session_lost(struct sim_node *n)
{
	struct sim *s = n->sim;

	s->n_lost++;
	SIM_TRACE(s, n->id, "client.session_lost", "clock=%" PRIu64, node_clock_ms(n));
	for (size_t i = 0; i < s->n_clients; i++) {
		struct sim_client *c = &s->clients[i];

		if (c->node != n->id || !c->holds) {
			continue;
		}
		c->holds = false;
		c->fresh = false;
		if (c->state == CLIENT_HOLDING) {
			client_move(c, CLIENT_LOST, ST_LOST);
			mind_moves(c);
		}
	}
}

static void session_lost(void *ctx)
{
	clients_session_lost(ctx);
}

static void orphan(void *ctx, const struct core_task *task, const struct core_task *opener)
{
	struct sim_node *n = ctx;

	(void)opener;
	SIM_TRACE(n->sim, n->id, "client.orphan", "pid=%" PRIu32, task->pid);
	sim_hash_u64(n->sim, task->pid, task->start);
}

void clients_listener(struct sim_node *n, struct core_listener *ret_listener)
{
	*ret_listener = (struct core_listener){n, session_lost, orphan};
}
