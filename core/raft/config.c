/*
 * config.c - a configuration as a value: checked, copied, packed, unpacked.
 *
 * What a configuration must be is said once, in config_normalize(), and asked
 * of everything that comes from a disk or a peer.
 */
#include "core/raft/raft.h"

#include <errno.h>

#include "core/wire.pb-c.h"

static int by_id(const void *a, const void *b)
{
	const struct raft_server *x = a;
	const struct raft_server *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* Sorts by id. Between one and RAFT_VOTERS_MAX voters, each id once and not 0. */
static int config_normalize(struct raft_config *c)
{
	size_t voters = 0;

	qsort(c->servers, c->n, sizeof c->servers[0], by_id);
	for (size_t i = 0; i < c->n; i++) {
		const struct raft_server *s = &c->servers[i];

		if (s->id == 0 || (i > 0 && c->servers[i - 1].id == s->id)) {
			return -EBADMSG;
		}
		if (memchr(s->addr, '\0', sizeof s->addr) == NULL) {
			return -EBADMSG;
		}
		voters += s->voter;
	}
	return voters >= 1 && voters <= RAFT_VOTERS_MAX ? 0 : -EBADMSG;
}

void raft_config_fini(struct raft_config *c)
{
	free(c->servers);
	c->servers = NULL;
	c->n = 0;
}

int raft_config_copy(const struct raft_config *from, struct raft_config *ret_to)
{
	struct raft_config c = {.n = from->n};

	if (c.n == 0 || c.n > RAFT_SERVERS_MAX) {
		return -EBADMSG;
	}
	c.servers = xmemdup(from->servers, c.n * sizeof c.servers[0]);
	if (config_normalize(&c) < 0) {
		raft_config_fini(&c);
		return -EBADMSG;
	}
	*ret_to = c;
	return 0;
}

const struct raft_server *raft_config_find(const struct raft_config *c, uint64_t id)
{
	for (size_t i = 0; i < c->n; i++) {
		if (c->servers[i].id == id) {
			return &c->servers[i];
		}
	}
	return NULL;
}

void raft_config_encode(const struct raft_config *c, uint8_t **ret_data, size_t *ret_len)
{
	Wire__RaftServer server[RAFT_SERVERS_MAX];
	Wire__RaftServer *servers[RAFT_SERVERS_MAX];
	Wire__RaftConfig config = WIRE__RAFT_CONFIG__INIT;

	ASSERT(c->n <= RAFT_SERVERS_MAX);
	for (size_t i = 0; i < c->n; i++) {
		wire__raft_server__init(&server[i]);
		server[i].id = c->servers[i].id;
		server[i].voter = c->servers[i].voter;
		server[i].addr = c->servers[i].addr;
		servers[i] = &server[i];
	}
	config.n_servers = c->n;
	config.servers = servers;
	*ret_len = wire__raft_config__get_packed_size(&config);
	*ret_data = xmalloc(*ret_len);
	(void)wire__raft_config__pack(&config, *ret_data); /* the length is known */
}

/* Takes over what fits into our own struct; config_normalize() judges it. */
static int config_from_wire(const Wire__RaftConfig *w, struct raft_config *ret_config)
{
	struct raft_config c = {.n = w->n_servers};

	if (c.n == 0 || c.n > RAFT_SERVERS_MAX) {
		return -EBADMSG;
	}
	c.servers = xcalloc(c.n, sizeof c.servers[0]);
	for (size_t i = 0; i < c.n; i++) {
		size_t len = strlen(w->servers[i]->addr);

		if (len >= RAFT_ADDR_MAX) {
			raft_config_fini(&c);
			return -EBADMSG;
		}
		c.servers[i].id = w->servers[i]->id;
		c.servers[i].voter = w->servers[i]->voter;
		memcpy(c.servers[i].addr, w->servers[i]->addr, len);
	}
	if (config_normalize(&c) < 0) {
		raft_config_fini(&c);
		return -EBADMSG;
	}
	*ret_config = c;
	return 0;
}

int raft_config_decode(const void *data, size_t len, struct raft_config *ret_config)
{
	Wire__RaftConfig *w = wire__raft_config__unpack(NULL, len, data);
	int rc;

	if (w == NULL) {
		return -EBADMSG;
	}
	rc = config_from_wire(w, ret_config);
	wire__raft_config__free_unpacked(w, NULL);
	return rc;
}
