/*
 * admission.c - which data directory is let in under which id.
 *
 * A voter whose directory was emptied or replaced has forgotten its votes and what it
 * acknowledged. If its answers counted, entries that a majority had acknowledged could be
 * lost, so it is not let in under its former id (rule 8 of consensus). The state machine
 * knows the directory of each id from the node's SessionOpen, but after a restart
 * it knows only what the snapshot has until a leader says what is committed; just then,
 * votes decide. Hence the opens in the log count too, committed or not, and whoever was let in.
 */
#include "core/node_internal.h"

static struct owner *find(struct node *n, uint64_t id)
{
	struct owner *o;

	HASH_FIND(hh, n->owners, &id, sizeof id, o);
	return o;
}

/* The first one said to own the id does. */
static void learn(struct node *n, uint64_t id, const uint8_t uuid[16])
{
	struct owner *o = find(n, id);

	if (o == NULL) {
		o = xcalloc(1, sizeof *o);
		o->id = id;
		memcpy(o->uuid, uuid, sizeof o->uuid);
		HASH_ADD(hh, n->owners, id, sizeof o->id, o);
	}
}

void admission_learn(struct node *n, struct raft_entry *const *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct raft_entry *e = entries[i];
		uint8_t uuid[16];
		uint64_t id;

		if (e->kind == RAFT_COMMAND && state_names_owner(e->data, e->len, &id, uuid)) {
			learn(n, id, uuid);
		}
	}
}

bool node_admits(struct node *n, uint64_t id, const uint8_t uuid[16])
{
	const uint8_t *known = state_member_uuid(n->state, id);
	const struct owner *heard = find(n, id);
	const struct raft_server *server;

	if (id == 0 || id == n->o.raft.id) {
		return false;
	}
	if (known == NULL && heard != NULL) {
		known = heard->uuid;
	}
	if (known != NULL) {
		return memcmp(known, uuid, sizeof n->o.uuid) == 0;
	}
	server = raft_config_find(raft_config(n->raft), id);
	if (server != NULL && server->voter) {
		learn(n, id, uuid);
	}
	return true;
}

void admission_fini(struct node *n)
{
	struct owner *o, *tmp;

	HASH_ITER (hh, n->owners, o, tmp) {
		HASH_DEL(n->owners, o);
		free(o);
	}
}
