/*
 * contacts.c - where to answer those whom the configuration does not name.
 *
 * A node keeps streams to the servers of its configuration. That may be an old one:
 * a learner reads the log from the beginning, a node that was away missed the
 * changes, and neither lists who leads or stands for election now; so it would
 * hear them and could not answer, and without its answers they could not bring it
 * up to date. Therefore every node says under which address it is reached, on each
 * stream and again from time to time, and whoever does not find the sender in its
 * configuration keeps a stream to it for as long as it goes on saying so.
 */
#include <utlist.h>

#include "core/node_internal.h"

#define SAY_EVERY_MS 2000
#define FORGET_MS (5 * SAY_EVERY_MS)

static void say(struct node *n, uint64_t to)
{
	const struct raft_server *self = raft_config_find(raft_config(n->raft), n->o.raft.id);
	Wire__Contact contact = WIRE__CONTACT__INIT;
	Wire__Frame frame = WIRE__FRAME__INIT;

	if (self == NULL || to == n->o.raft.id) {
		return;
	}
	contact.addr = (char *)(uintptr_t)self->addr; /* packed, not written to */
	frame.body_case = WIRE__FRAME__BODY_CONTACT;
	frame.contact = &contact;
	node_send_frame(n, to, &frame);
}

void contacts_peer_up(struct node *n, uint64_t id)
{
	say(n, id);
}

/* Into its place: a configuration is ordered by id. */
static void insert(struct raft_config *c, const struct contact *contact)
{
	size_t i = c->n;

	c->servers = xrealloc(c->servers, (c->n + 1) * sizeof(*c->servers));
	for (; i > 0 && c->servers[i - 1].id > contact->id; i--) {
		c->servers[i] = c->servers[i - 1];
	}
	c->servers[i] = (struct raft_server){.id = contact->id};
	memcpy(c->servers[i].addr, contact->addr, sizeof contact->addr);
	c->n++;
}

static struct contact *find(struct node *n, uint64_t id)
{
	struct contact *c;

	DL_FOREACH (n->contacts, c) {
		if (c->id == id) {
			return c;
		}
	}
	return NULL;
}

static struct contact *add(struct node *n, uint64_t id)
{
	struct contact *c = xcalloc(1, sizeof *c);

	c->id = id;
	c->heard_ms = n->now_ms;
	DL_APPEND(n->contacts, c);
	return c;
}

/* Who is no longer named hears for a while longer: also that it was removed. */
static void keep_removed(struct node *n, const struct raft_config *now)
{
	for (size_t i = 0; i < n->streams.n; i++) {
		const struct raft_server *s = &n->streams.servers[i];

		if (raft_config_find(now, s->id) == NULL && find(n, s->id) == NULL) {
			memcpy(add(n, s->id)->addr, s->addr, sizeof s->addr);
		}
	}
}

/* The servers of the configuration in force, and whoever else is heard or was in it lately. */
void contacts_keep_streams(struct node *n)
{
	struct raft_config all;
	const struct contact *c;
	int rc = raft_config_copy(raft_config(n->raft), &all);

	ASSERT(rc == 0);
	keep_removed(n, &all);
	raft_config_fini(&n->streams);
	rc = raft_config_copy(&all, &n->streams);
	ASSERT(rc == 0);
	DL_FOREACH (n->contacts, c) {
		if (raft_config_find(&all, c->id) == NULL) {
			insert(&all, c);
		}
	}
	n->env->peers(n->env->ctx, &all);
	raft_config_fini(&all);
}

static void forget(struct node *n, struct contact *c)
{
	DL_DELETE(n->contacts, c);
	free(c);
}

void contacts_frame(struct node *n, uint64_t from, const Wire__Contact *w)
{
	struct contact *c = find(n, from);
	size_t others;
	struct contact *other;

	if (raft_config_find(raft_config(n->raft), from) != NULL) {
		return;
	}
	if (c == NULL) {
		DL_COUNT(n->contacts, other, others);
		if (others >= RAFT_SERVERS_MAX) {
			return;
		}
		c = add(n, from);
	}
	c->heard_ms = n->now_ms;
	if (strcmp(c->addr, w->addr) != 0) {
		memcpy(c->addr, w->addr, strlen(w->addr) + 1); /* its length was checked */
		TRACE(&n->o.raft.trace, TRACE_INFO, "contact", "id=%" PRIu64 " addr=%s", from,
			c->addr);
		contacts_keep_streams(n);
	}
}

void contacts_tick(struct node *n)
{
	const struct raft_config *config = raft_config(n->raft);
	struct contact *c, *tmp;
	bool gone = false;

	if (n->now_ms >= n->said_ms + SAY_EVERY_MS) {
		n->said_ms = n->now_ms;
		for (size_t i = 0; i < config->n; i++) {
			say(n, config->servers[i].id);
		}
	}
	DL_FOREACH_SAFE (n->contacts, c, tmp) {
		if (n->now_ms > c->heard_ms + FORGET_MS ||
			raft_config_find(config, c->id) != NULL) {
			forget(n, c);
			gone = true;
		}
	}
	if (gone) {
		contacts_keep_streams(n);
	}
}

void contacts_fini(struct node *n)
{
	while (n->contacts != NULL) {
		forget(n, n->contacts);
	}
	raft_config_fini(&n->streams);
}
