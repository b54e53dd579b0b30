/*
 * members_http.c - see members_http.h.
 *
 *   {"op":"add","addr":"host:port"}   -> 200 {"id":4,"servers":"1=…,2=…"}
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

static void on_json(struct node *n, struct peers_request *r, const cJSON *root)
{
	const cJSON *op = cJSON_GetObjectItemCaseSensitive(root, "op");
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(root, "id");
	const cJSON *addr = cJSON_GetObjectItemCaseSensitive(root, "addr");
	const char *what = cJSON_IsString(op) ? op->valuestring : "";
	bool id_ok = cJSON_IsNumber(id) && id->valuedouble >= 1;

	if (strcmp(what, "add") == 0) {
		if (!cJSON_IsString(addr) || !identity_addr_valid(addr->valuestring)) {
			answer_error(r, 400, "EINVAL", "'addr' must be HOST:PORT");
			return;
		}
		begin(n, r, RAFT_ADD_LEARNER, 0, addr->valuestring);
	} else if (strcmp(what, "promote") == 0 || strcmp(what, "remove") == 0) {
		if (!id_ok) {
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

/* --- joining
 * --------------------------------------------------------------------------------------- */

static int parse_joined(
	const char *text, const char *addr, uint64_t *ret_id, struct raft_config *ret_servers)
{
	cJSON *root = cJSON_Parse(text);
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(root, "id");
	const cJSON *row;
	char list[RAFT_SERVERS_MAX * (RAFT_ADDR_MAX + 24)] = "";
	size_t used = 0;
	char err[256];
	int rc = -EBADMSG;

	cJSON_ArrayForEach(row, cJSON_GetObjectItemCaseSensitive(root, "servers"))
	{
		const cJSON *server_id = cJSON_GetObjectItemCaseSensitive(row, "id");
		const cJSON *server_addr = cJSON_GetObjectItemCaseSensitive(row, "addr");

		if (cJSON_IsNumber(server_id) && cJSON_IsString(server_addr) &&
			strlen(server_addr->valuestring) < RAFT_ADDR_MAX &&
			used < sizeof list - 300) {
			used += (size_t)snprintf(list + used, sizeof list - used, "%s%.0f=%s",
				used > 0 ? "," : "", server_id->valuedouble,
				server_addr->valuestring);
		}
	}
	if (cJSON_IsNumber(id) && used > 0) {
		rc = identity_parse_servers(list, ret_servers, err, sizeof err);
	}
	if (rc == 0) {
		*ret_id = (uint64_t)id->valuedouble;
	}
	cJSON_Delete(root);
	return rc;
}

/* Our own configuration until the log tells: everybody votes but us. */
static int set_learner(struct raft_config *servers, uint64_t id)
{
	for (size_t i = 0; i < servers->n; i++) {
		if (servers->servers[i].id == id) {
			servers->servers[i].voter = false;
			return servers->n > 1 ? 0 : -EBADMSG;
		}
	}
	return -EBADMSG;
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
	if (rc == 0) {
		rc = set_learner(ret_servers, *ret_id);
	}
	if (rc < 0) {
		(void)snprintf(err, err_size,
			"cannot join through %s: its answer is not understood", through);
	}
	return rc;
}
