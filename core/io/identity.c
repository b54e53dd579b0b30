/*
 * identity.c - see identity.h.
 */
#include "core/io/identity.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "coordfs/util.h"

#define IDENTITY_BYTES_MAX (64u << 10)

void identity_fini(struct identity *i)
{
	raft_config_fini(&i->servers);
}

bool identity_addr_valid(const char *addr)
{
	const char *colon = strrchr(addr, ':');
	char *end = NULL;
	unsigned long port;

	if (colon == NULL || colon == addr || strlen(addr) >= RAFT_ADDR_MAX ||
		strpbrk(addr, "\"\\,= \t\n") != NULL || colon[1] < '0' || colon[1] > '9') {
		return false;
	}
	port = strtoul(colon + 1, &end, 10);
	return *end == '\0' && port >= 1 && port <= 65535;
}

/* --- servers -------------------------------------------------------------------------------- */

static int add_server(struct raft_config *c, uint64_t id, const char *addr, bool voter)
{
	struct raft_server *s;

	if (id == 0 || id > UINT32_MAX || !identity_addr_valid(addr) || c->n >= RAFT_SERVERS_MAX ||
		raft_config_find(c, id) != NULL) {
		return -EINVAL;
	}
	c->servers = xrealloc(c->servers, (c->n + 1) * sizeof *c->servers);
	s = &c->servers[c->n];
	while (s > c->servers && s[-1].id > id) {
		*s = s[-1];
		s--;
	}
	memset(s, 0, sizeof *s);
	s->id = id;
	s->voter = voter;
	(void)snprintf(s->addr, sizeof s->addr, "%s", addr); /* its length was checked */
	c->n++;
	return 0;
}

int identity_parse_servers(
	const char *text, struct raft_config *ret_config, char *err, size_t err_size)
{
	CLEANUP(freep) char *copy = xstrdup(text);
	struct raft_config c = {0};
	char *save = NULL;

	for (char *item = strtok_r(copy, ",", &save); item != NULL;
		item = strtok_r(NULL, ",", &save)) {
		char *equals = strchr(item, '=');
		char *end = NULL;
		uint64_t id = strtoull(item, &end, 10);

		if (equals == NULL || end != equals || add_server(&c, id, equals + 1, true) < 0) {
			(void)snprintf(err, err_size,
				"'%s' is not ID=HOST:PORT with an id that is not given twice",
				item);
			raft_config_fini(&c);
			return -EINVAL;
		}
	}
	if (c.n == 0) {
		(void)snprintf(err, err_size, "the list of nodes is empty");
		return -EINVAL;
	}
	*ret_config = c;
	return 0;
}

/* --- the file ------------------------------------------------------------------------------- */

static int hex_decode(const char *hex, uint8_t *out, size_t bytes)
{
	if (hex == NULL || strlen(hex) != 2 * bytes) {
		return -EINVAL;
	}
	for (size_t i = 0; i < bytes; i++) {
		char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1])) {
			return -EINVAL;
		}
		out[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return 0;
}

/* Numbers in JSON are doubles: no id is too large for one. */
static bool is_id(const cJSON *item)
{
	return cJSON_IsNumber(item) && item->valuedouble >= 1 &&
	       item->valuedouble <= (double)UINT32_MAX;
}

static int parse_server_list(const cJSON *list, struct raft_config *ret_config)
{
	const cJSON *row;

	cJSON_ArrayForEach(row, list)
	{
		const cJSON *id = cJSON_GetObjectItemCaseSensitive(row, "id");
		const cJSON *addr = cJSON_GetObjectItemCaseSensitive(row, "addr");
		const cJSON *voter = cJSON_GetObjectItemCaseSensitive(row, "voter");

		if (!is_id(id) || !cJSON_IsString(addr) || !cJSON_IsBool(voter) ||
			add_server(ret_config, (uint64_t)id->valuedouble, addr->valuestring,
				cJSON_IsTrue(voter)) < 0) {
			return -EINVAL;
		}
	}
	return ret_config->n > 0 ? 0 : -EINVAL;
}

static int parse(const char *text, struct identity *i)
{
	cJSON *root = cJSON_Parse(text);
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(root, "id");
	const cJSON *uuid = cJSON_GetObjectItemCaseSensitive(root, "uuid");
	const cJSON *initialised = cJSON_GetObjectItemCaseSensitive(root, "initialised");
	const cJSON *servers = cJSON_GetObjectItemCaseSensitive(root, "servers");
	int rc = -EINVAL;

	if (is_id(id) && cJSON_IsString(uuid) && cJSON_IsBool(initialised) &&
		cJSON_IsArray(servers)) {
		i->id = (uint64_t)id->valuedouble;
		i->initialised = cJSON_IsTrue(initialised);
		rc = hex_decode(uuid->valuestring, i->uuid, sizeof i->uuid);
	}
	if (rc == 0) {
		rc = parse_server_list(servers, &i->servers);
	}
	cJSON_Delete(root);
	return rc;
}

static int read_file(const char *path, char **ret_text)
{
	FILE *f = fopen(path, "re");
	char *text;
	size_t len;

	if (f == NULL) {
		return -errno;
	}
	text = xcalloc(1, IDENTITY_BYTES_MAX + 1);
	len = fread(text, 1, IDENTITY_BYTES_MAX, f);
	(void)fclose(f); /* only read from */
	text[len] = '\0';
	*ret_text = text;
	return 0;
}

int identity_load(const char *dir, struct identity *ret_identity, char *err, size_t err_size)
{
	char path[4096];
	CLEANUP(freep) char *text = NULL;
	struct identity i = {0};
	int rc;

	(void)snprintf(path, sizeof path, "%s/identity", dir);
	rc = read_file(path, &text);
	if (rc < 0) {
		(void)snprintf(err, err_size, "%s: %s", path, strerror(-rc));
		return rc;
	}
	if (parse(text, &i) < 0) {
		identity_fini(&i);
		(void)snprintf(err, err_size,
			"%s is damaged. If the rest of the directory is whole, restore this file "
			"from "
			"a backup; else remove the directory and let the node join as a new one",
			path);
		return -EUCLEAN;
	}
	*ret_identity = i;
	return 0;
}

int identity_check_new(const char *dir, char *err, size_t err_size)
{
	static const char *const remains[] = {"log", "vote", "snap"};

	for (size_t i = 0; i < ARRAY_SIZE(remains); i++) {
		char path[4096];

		(void)snprintf(path, sizeof path, "%s/%s", dir, remains[i]);
		if (access(path, F_OK) == 0) {
			(void)snprintf(err, err_size,
				"%s is there, but %s/identity is not. Restore that file from a "
				"backup; else remove the directory and let the node join as a new "
				"one",
				path, dir);
			return -EUCLEAN;
		}
	}
	return 0;
}

static char *print(const struct identity *i)
{
	char uuid[2 * sizeof i->uuid + 1];
	cJSON *root = cJSON_CreateObject();
	cJSON *servers;
	char *text;

	for (size_t k = 0; k < sizeof i->uuid; k++) {
		(void)snprintf(uuid + 2 * k, 3, "%02x", i->uuid[k]);
	}
	(void)cJSON_AddNumberToObject(root, "id", (double)i->id);
	(void)cJSON_AddStringToObject(root, "uuid", uuid);
	(void)cJSON_AddBoolToObject(root, "initialised", i->initialised);
	servers = cJSON_AddArrayToObject(root, "servers");
	for (size_t k = 0; k < i->servers.n; k++) {
		cJSON *row = cJSON_CreateObject();

		(void)cJSON_AddNumberToObject(row, "id", (double)i->servers.servers[k].id);
		(void)cJSON_AddStringToObject(row, "addr", i->servers.servers[k].addr);
		(void)cJSON_AddBoolToObject(row, "voter", i->servers.servers[k].voter);
		(void)cJSON_AddItemToArray(servers, row);
	}
	text = cJSON_Print(root);
	cJSON_Delete(root);
	ASSERT(text != NULL);
	return text;
}

static int write_synced(const char *path, const char *text)
{
	size_t len = strlen(text);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int rc = 0;

	if (fd < 0) {
		return -errno;
	}
	if (write(fd, text, len) != (ssize_t)len || fsync(fd) < 0) {
		rc = errno != 0 ? -errno : -EIO;
	}
	(void)close(fd); /* what counts was synced */
	return rc;
}

static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0) {
		return -errno;
	}
	if (fsync(fd) < 0) {
		rc = -errno;
	}
	(void)close(fd); /* only synced */
	return rc;
}

int identity_store(const char *dir, const struct identity *i, char *err, size_t err_size)
{
	char path[4096];
	char tmp[4100];
	CLEANUP(freep) char *text = print(i);
	int rc;

	(void)snprintf(path, sizeof path, "%s/identity", dir);
	(void)snprintf(tmp, sizeof tmp, "%s.tmp", path);
	rc = write_synced(tmp, text);
	if (rc == 0 && rename(tmp, path) < 0) {
		rc = -errno;
	}
	if (rc == 0) {
		rc = sync_dir(dir);
	}
	if (rc < 0) {
		(void)snprintf(err, err_size, "%s cannot be written: %s", path, strerror(-rc));
	}
	return rc;
}
