/*
 * holds.c - what must hold of locks, seen from the processes that hold them.
 *
 *   - mutual exclusion in real (virtual) time: at no moment may two processes rely on
 *     locks that exclude each other. A process on a node whose lease has run out relies
 *     on nothing: whatever it does through the mount makes the node look at its
 *     clock first, and is answered EIO. So a node that runs is made to look; for one
 *     that is paused its own clock decides.
 *   - a token is larger than that of every former grant it excludes, for ever;
 *   - the table has no holder and no waiter that is not there, and lacks none.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>

/* --- tokens -------------------------------------------------------------------------- */

/* Answers to shared requests may overtake each other on their way to their processes; those to
 * exclusive ones overtake nothing and are overtaken by nothing. */
void holds_granted(struct sim_client *c, uint64_t token)
{
	struct sim_lock *l = &c->sim->locks[c->lock];
	uint64_t above = c->shared ? l->exclusive : l->any;

	if (c->converts && c->token == token) {
		return; /* the same grant: it had this mode, or a stronger one */
	}
	if (token <= above) {
		sim_fail(c->sim, "token",
			"client %u on node %" PRIu64 " gets token %" PRIu64
			" of lock %s, and %" PRIu64 " was there before",
			c->index, c->node, token, l->name, above);
	}
	l->any = MAX(l->any, token);
	if (!c->shared) {
		l->exclusive = token;
	}
}

/* --- mutual exclusion ---------------------------------------------------------------- */

/* May its process rely on the lock, now? */
static bool relies_on_it(struct sim_client *c)
{
	struct sim_node *n = &c->sim->nodes[c->node];

	if (n->presence == SIM_PAUSED) {
		return c->holds && node_clock_ms(n) < node_lease_end(n->node);
	}
	cluster_probe(n);
	return c->holds;
}

static bool exclude_each_other(const struct sim_client *a, const struct sim_client *b)
{
	return a != b && a->holds && b->holds && a->lock == b->lock &&
	       !(a->holds_shared && b->holds_shared);
}

static void check_client(struct sim *s, struct sim_client *c)
{
	for (size_t i = 0; i < s->n_clients; i++) {
		struct sim_client *o = &s->clients[i];

		if (!exclude_each_other(c, o) || !relies_on_it(o) || !relies_on_it(c)) {
			continue;
		}
		sim_fail(s, "mutual exclusion",
			"lock %s: client %u on node %" PRIu64 " (%s, token %" PRIu64
			") and client %u on node %" PRIu64 " (%s, token %" PRIu64 ")",
			s->locks[c->lock].name, c->index, c->node,
			c->holds_shared ? "shared" : "exclusive", c->token, o->index, o->node,
			o->holds_shared ? "shared" : "exclusive", o->token);
	}
}

void holds_check(struct sim *s, uint64_t node, bool all)
{
	for (size_t i = 0; i < s->n_clients; i++) {
		struct sim_client *c = &s->clients[i];

		if (c->node == node && c->holds && (all || c->fresh)) {
			c->fresh = false;
			check_client(s, c);
		}
	}
}

void holds_check_all(struct sim *s)
{
	for (size_t i = 0; i < s->n_clients; i++) {
		if (s->clients[i].holds) {
			check_client(s, &s->clients[i]);
		}
	}
}

/* --- the table ----------------------------------------------------------------------- */

static const struct sim_client *client_of(
	struct sim *s, const struct state *st, const struct claim *claim)
{
	const struct session *session = state_session(st, claim->session);

	for (size_t i = 0; session != NULL && i < s->n_clients; i++) {
		const struct sim_client *c = &s->clients[i];

		if (c->node == session->node && c->owner == claim->owner) {
			return c;
		}
	}
	return NULL;
}

static bool same_lock(const struct sim_client *c, const struct lock *l)
{
	const char *name = c->sim->locks[c->lock].name;

	return strlen(name) == l->name_len && memcmp(name, l->name, l->name_len) == 0;
}

static bool is_holder(const struct sim_client *c, const struct lock *l, const struct claim *claim)
{
	return c != NULL && same_lock(c, l) && c->holds && c->holds_shared == claim->shared &&
	       c->token == claim->token;
}

static bool is_waiter(const struct sim_client *c, const struct lock *l, const struct claim *claim)
{
	return c != NULL && same_lock(c, l) && c->state == CLIENT_ASKING && !c->sets_value &&
	       c->wait && c->shared == claim->shared;
}

static bool claims_match(
	struct sim *s, const struct state *st, const struct lock *l, char *why, size_t size)
{
	for (const struct claim *claim = l->holders; claim != NULL; claim = claim->next) {
		if (!is_holder(client_of(s, st, claim), l, claim)) {
			(void)snprintf(why, size,
				"a ghost holds %s: session %" PRIu64 " owner %" PRIu64, l->name,
				claim->session, claim->owner);
			return false;
		}
	}
	for (const struct claim *claim = l->waiters; claim != NULL; claim = claim->next) {
		if (!is_waiter(client_of(s, st, claim), l, claim)) {
			(void)snprintf(why, size,
				"a ghost waits for %s: session %" PRIu64 " owner %" PRIu64, l->name,
				claim->session, claim->owner);
			return false;
		}
	}
	return true;
}

bool holds_match(struct sim *s, char *why, size_t size)
{
	const struct sim_node *leader = cluster_leader(s);
	const struct state *st;
	size_t claims = 0;
	size_t clients = 0;

	if (leader == NULL) {
		(void)snprintf(why, size, "nobody leads");
		return false;
	}
	st = node_state(leader->node);
	for (const struct lock *l = state_locks(st); l != NULL; l = l->next) {
		claims += l->n_holders + l->n_waiters;
		if (!claims_match(s, st, l, why, size)) {
			return false;
		}
	}
	for (size_t i = 0; i < s->n_clients; i++) {
		clients += s->clients[i].holds || s->clients[i].state == CLIENT_ASKING;
	}
	if (claims != clients) {
		(void)snprintf(
			why, size, "%zu clients hold or wait, the table has %zu", clients, claims);
		return false;
	}
	return true;
}
