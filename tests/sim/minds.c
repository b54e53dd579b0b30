/*
 * minds.c - what the clients of a chaotic run have in mind.
 *
 * Each asks for a lock, perhaps loses patience, holds it for a while, converts
 * it, writes a value, unlocks, or is killed; then begins again. Once the faults
 * have stopped nobody begins anything; the stubborn keep what they hold until
 * they are told to let go (heal.c).
 */
#include "tests/sim/sim.h"

static void client_wakes(struct sim *s, struct sim_event *e);

static void client_plan(struct sim_client *c, uint64_t in_us)
{
	struct sim *s = c->sim;
	struct sim_event *e;

	c->plan++;
	if (cluster_runs(&s->nodes[c->node])) {
		e = sim_at(s, s->now_us + in_us, c->node, client_wakes);
		e->a = c->index;
		e->b = c->plan;
	}
}

/* What it asks may take for ever: perhaps it will lose patience. */
static void asked(struct sim_client *c)
{
	struct sim *s = c->sim;

	if (c->op != NULL && rng_permille(&s->rng, 250)) {
		client_plan(c, rng_magnitude(&s->rng, 100, 4000 * SIM_MS));
	}
}

static void idle_client_acts(struct sim_client *c)
{
	struct sim *s = c->sim;
	unsigned lock = s->chaos ? (unsigned)rng_below(&s->rng, s->profile.locks) : c->lock;

	if (c->unsure && (!s->chaos || lock != c->lock || rng_permille(&s->rng, 700))) {
		client_close(c);
	}
	if (!s->chaos) {
		return;
	}
	if (!c->unsure && (lock != c->lock || rng_permille(&s->rng, 300))) {
		c->owner = 0; /* a description that holds nothing is closed, another one opened */
	}
	client_lock(c, lock, rng_permille(&s->rng, 400), rng_permille(&s->rng, 800));
	asked(c);
}

static void holding_client_acts(struct sim_client *c)
{
	struct sim *s = c->sim;
	unsigned dice = (unsigned)rng_below(&s->rng, 100);

	if (!s->chaos || dice < 20) {
		client_close(c);
	} else if (dice < 70) {
		client_unlock(c);
	} else if (dice < 85) {
		client_lock(c, c->lock, !c->holds_shared, rng_permille(&s->rng, 700));
	} else if (dice < 90) {
		client_lock(c, c->lock, c->holds_shared, rng_permille(&s->rng, 500));
	} else {
		uint64_t value = rng_next(&s->rng);

		client_set_value(c, &value, sizeof value);
	}
	asked(c);
	if (c->state == CLIENT_IDLE) {
		mind_moves(c);
	}
}

static void client_acts(struct sim_client *c)
{
	struct sim *s = c->sim;

	switch (c->state) {
	case CLIENT_IDLE:
		idle_client_acts(c);
		break;
	case CLIENT_ASKING:
		if (c->sets_value || rng_permille(&s->rng, 300)) {
			client_close(c); /* killed */
			mind_moves(c);
		} else {
			client_interrupt(c);
		}
		break;
	case CLIENT_HOLDING:
		if (!c->stubborn) {
			holding_client_acts(c);
		}
		break;
	case CLIENT_LOST:
		if (rng_permille(&s->rng, 700)) {
			client_close(c);
		} else {
			c->owner =
				0; /* closed, and the node is not told: there is nothing to tell */
			c->state = CLIENT_IDLE;
		}
		mind_moves(c);
		break;
	}
}

static void client_wakes(struct sim *s, struct sim_event *e)
{
	struct sim_client *c = &s->clients[e->a];

	if (c->plan == e->b && !s->nodes[c->node].stopping) {
		client_acts(c);
	}
}

void mind_moves(struct sim_client *c)
{
	struct sim *s = c->sim;
	const struct sim_profile *p = &s->profile;

	if (s->scripted) {
		return;
	}
	switch (c->state) {
	case CLIENT_IDLE:
		client_plan(c,
			rng_permille(&s->rng, 100) ? 0 : rng_magnitude(&s->rng, 50, p->think_us));
		break;
	case CLIENT_HOLDING:
		client_plan(c, rng_magnitude(&s->rng, 50,
				       !s->chaos                   ? 300 * SIM_MS
				       : rng_permille(&s->rng, 50) ? 2 * p->ttl_ms * SIM_MS
								   : p->hold_us));
		break;
	case CLIENT_LOST:
		client_plan(c, rng_magnitude(&s->rng, 50, 500 * SIM_MS));
		break;
	case CLIENT_ASKING:
		break;
	}
}

void mind_node_up(struct sim_node *n)
{
	struct sim *s = n->sim;
	unsigned clients = 0;

	if (s->scripted) {
		return;
	}
	for (size_t i = 0; i < s->n_clients; i++) {
		clients += s->clients[i].node == n->id;
	}
	while (clients < s->profile.clients_per_node && s->n_clients < SIM_CLIENTS_MAX) {
		(void)client_new(s, n->id);
		clients++;
	}
	for (size_t i = 0; i < s->n_clients; i++) {
		if (s->clients[i].node == n->id) {
			mind_moves(&s->clients[i]);
		}
	}
}
