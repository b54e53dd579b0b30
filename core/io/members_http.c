/*
 * members_http.c - see members_http.h.
 *
 *   {"op":"add","addr":"host:port"}   -> 200 {"id":4,"servers":[{"id":1,"addr":"…","voter":true}]}
 *   {"op":"promote"|"remove","id":4}  -> 200 {"id":4}
 * Errors: {"error":"EEXIST","message":"…"} with a fitting status.
 */
#include "core/io/members_http.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/io/identity.h"

struct change {
	struct peers_request *request;
	struct node *node;
};

static void answer_json(struct peers_request *r, int status, cJSON *body)
{
	char *text = cJSON_PrintUnformatted(body);

	ASSERT(text != NULL);
	peers_answer(r, status, "application/json", text, strlen(text));
	free(text);
	cJSON_Delete(body);
}

static void answer_error(
	struct peers_request *r, int status, const char *error, const char *message)
{
	cJSON *body = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(body, "error", error);
	(void)cJSON_AddStringToObject(body, "message", message);
	answer_json(r, status, body);
}

static int http_status(int error)
{
	switch (error) {
	case ENOENT:
		return 404;
	case EEXIST:
	case EPERM:
	case ENOBUFS:
	case EPROTO:
		return 409;
	case ESHUTDOWN:
		return 503;
	case ETIMEDOUT:
		return 504;
	default:
		return 500;
	}
}

static void add_servers(cJSON *body, const struct node *n)
{
	const struct raft_config *config = raft_config(node_raft(n));
	cJSON *list = cJSON_AddArrayToObject(body, "servers");

	for (size_t i = 0; i < config->n; i++) {
		cJSON *row = cJSON_CreateObject();

		(void)cJSON_AddNumberToObject(row, "id", (double)config->servers[i].id);
		(void)cJSON_AddStringToObject(row, "addr", config->servers[i].addr);
		(void)cJSON_AddBoolToObject(row, "voter", config->servers[i].voter);
		(void)cJSON_AddItemToArray(list, row);
	}
}

static void changed(void *arg, int error, uint64_t id, const char *text)
{
	struct change *c = arg;

	if (error != 0) {
		answer_error(c->request, http_status(error), strerrorname_np(error), text);
	} else {
		cJSON *body = cJSON_CreateObject();

		(void)cJSON_AddNumberToObject(body, "id", (double)id);
		add_servers(body, c->node);
		answer_json(c->request, 200, body);
	}
	free(c);
}

static void begin(struct node *n, struct peers_request *r, enum raft_change what, uint64_t id,
	const char *addr)
{
	struct change *c = xcalloc(1, sizeof *c);

	c->request = r;
	c->node = n;
	node_change_member(n, what, id, addr, changed, c);
}

static bool is_id(const cJSON *item)
{
	return cJSON_IsNumber(item) && item->valuedouble >= 1 &&
	       item->valuedouble <= (double)UINT32_MAX;
}

static void on_json(struct node *n, struct peers_request *r, const cJSON *root)
{
	const cJSON *op = cJSON_GetObjectItemCaseSensitive(root, "op");
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(root, "id");
	const cJSON *addr = cJSON_GetObjectItemCaseSensitive(root, "addr");
	const char *what = cJSON_IsString(op) ? op->valuestring : "";

	if (strcmp(what, "add") == 0) {
		if (!cJSON_IsString(addr) || !identity_addr_valid(addr->valuestring)) {
			answer_error(r, 400, "EINVAL", "'addr' must be HOST:PORT");
			return;
		}
		begin(n, r, RAFT_ADD_LEARNER, 0, addr->valuestring);
	} else if (strcmp(what, "promote") == 0 || strcmp(what, "remove") == 0) {
		if (!is_id(id)) {
			answer_error(r, 400, "EINVAL", "'id' must be the number of a node");
			return;
		}
		begin(n, r, what[0] == 'p' ? RAFT_PROMOTE : RAFT_REMOVE, (uint64_t)id->valuedouble,
			NULL);
	} else {
		answer_error(r, 400, "EINVAL", "'op' must be add, promote or remove");
	}
}

void members_http_request(struct node *n, struct peers_request *r, const char *method,
	const char *path, const void *body, size_t len)
{
	cJSON *root;

	if (strcmp(path, "/members") != 0) {
		answer_error(r, 404, "ENOENT", "there is no such path");
		return;
	}
	if (strcmp(method, "POST") != 0) {
		answer_error(r, 405, "EINVAL", "this path takes POST");
		return;
	}
	root = cJSON_ParseWithLength(body, len);
	if (!cJSON_IsObject(root)) {
		answer_error(r, 400, "EINVAL", "the body must be a JSON object");
	} else {
		on_json(n, r, root);
	}
	cJSON_Delete(root);
}

/* --- joining -------------------------------------------------------------------------------- */

/* One server of the answer. -EBADMSG */
static int parse_server(const cJSON *row, struct raft_server *ret_server)
{
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(row, "id");
	const cJSON *addr = cJSON_GetObjectItemCaseSensitive(row, "addr");
	const cJSON *voter = cJSON_GetObjectItemCaseSensitive(row, "voter");

	if (!is_id(id) || !cJSON_IsString(addr) || !identity_addr_valid(addr->valuestring) ||
		!cJSON_IsBool(voter)) {
		return -EBADMSG;
	}
	*ret_server =
		(struct raft_server){.id = (uint64_t)id->valuedouble, .voter = cJSON_IsTrue(voter)};
	(void)snprintf(ret_server->addr, sizeof ret_server->addr, "%s", addr->valuestring);
	return 0;
}

/* Who answers may not have heard of us yet, though the cluster has. */
static int parse_servers(
	const cJSON *list, uint64_t own_id, const char *own_addr, struct raft_config *ret_servers)
{
	struct raft_server rows[RAFT_SERVERS_MAX + 1];
	struct raft_config c = {.servers = rows};
	const cJSON *row;

	cJSON_ArrayForEach(row, list)
	{
		if (c.n == RAFT_SERVERS_MAX || parse_server(row, &rows[c.n]) < 0) {
			return -EBADMSG;
		}
		c.n++;
	}
	if (raft_config_find(&c, own_id) == NULL) {
		rows[c.n] = (struct raft_server){.id = own_id};
		(void)snprintf(rows[c.n++].addr, RAFT_ADDR_MAX, "%s", own_addr);
	}
	return raft_config_copy(&c, ret_servers);
}

/* Our own configuration until the log tells. We are a learner in it. */
static int parse_joined(
	const char *text, const char *own_addr, uint64_t *ret_id, struct raft_config *ret_servers)
{
	cJSON *root = cJSON_Parse(text);
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(root, "id");
	int rc = is_id(id) ? 0 : -EBADMSG;

	if (rc == 0) {
		*ret_id = (uint64_t)id->valuedouble;
		rc = parse_servers(cJSON_GetObjectItemCaseSensitive(root, "servers"), *ret_id,
			own_addr, ret_servers);
	}
	cJSON_Delete(root);
	return rc;
}

int members_http_join(const char *through, const char *secret, const char *addr, uint64_t *ret_id,
	struct raft_config *ret_servers, char *err, size_t err_size)
{
	char body[RAFT_ADDR_MAX + 64];
	CLEANUP(freep) char *answer = NULL;
	char why[256] = "";
	int rc;

	(void)snprintf(body, sizeof body, "{\"op\":\"add\",\"addr\":\"%s\"}", addr);
	rc = peers_ask(through, secret, "POST", "/members", body, &answer, why, sizeof why);
	if (rc < 0) {
		(void)snprintf(err, err_size, "cannot join through %s: %s", through, why);
		return rc;
	}
	if (rc != 200) {
		(void)snprintf(err, err_size, "cannot join through %s: HTTP status %d, %s", through,
			rc, answer == NULL ? "" : answer);
		return -EPERM;
	}
	rc = parse_joined(answer, addr, ret_id, ret_servers);
	if (rc < 0) {
		(void)snprintf(err, err_size,
			"cannot join through %s: its answer is not understood", through);
	}
	return rc;
}
