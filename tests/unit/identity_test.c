/*
 * identity_test.c - the identity file, as core/io/identity.h tells it: whose a data directory
 * is, whatever happened to it.
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordfs/util.h"
#include "core/io/identity.h"
#include "core/io/server.h"

#define ERR_BYTES 1024

static char dir[64];
static char *err; /* shared with the processes that are started */

static int setup(void **state)
{
	(void)snprintf(dir, sizeof dir, "/tmp/identity.XXXXXX");
	err[0] = '\0';
	return mkdtemp(dir) == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	return remove(path);
}

static int teardown(void **state)
{
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void path_of(const char *name, char path[256])
{
	(void)snprintf(path, 256, "%s/%s", dir, name);
}

static void write_file(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	path_of(name, path);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, 0600), 0);
}

static void make_dir(const char *name)
{
	char path[256];

	path_of(name, path);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void store_node_3(void)
{
	struct identity i = {.id = 3, .initialised = true};

	memcpy(i.uuid, "0123456789abcdef", sizeof i.uuid);
	i.uuid[0] = 0xfe; /* a byte above 127 */
	assert_int_equal(identity_parse_servers(
				 "3=n3:7100,1=n1:7100,2=[::1]:7100", &i.servers, err, ERR_BYTES),
		0);
	assert_int_equal(identity_store(dir, &i, err, ERR_BYTES), 0);
	identity_fini(&i);
}

/* --- the list of nodes ------------------------------------------------------------------- */

static void list_of_nodes_is_sorted_and_all_vote(void **state)
{
	struct raft_config c;

	assert_int_equal(identity_parse_servers("2=b:2,1=a:1", &c, err, ERR_BYTES), 0);
	assert_int_equal(c.n, 2);
	assert_int_equal(c.servers[0].id, 1);
	assert_string_equal(c.servers[0].addr, "a:1");
	assert_true(c.servers[0].voter);
	assert_true(c.servers[1].voter);
	raft_config_fini(&c);
}

static void list_that_makes_no_sense_is_refused(void **state)
{
	static const char *const bad[] = {"", ",", "a:1", "1", "1=", "1=a", "1=a:", "1=:1", "=a:1",
		"0=a:1", "1=a:1,1=b:2", "1=a:0", "1=a:65536", "1=a:1x", "x=a:1", "1x=a:1", "-1=a:1",
		"4294967296=a:1", "18446744073709551617=a:1", "1=a b:1", "1=a\":1"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct raft_config c = {0};

		err[0] = '\0';
		assert_int_equal(identity_parse_servers(bad[i], &c, err, ERR_BYTES), -EINVAL);
		assert_int_not_equal(err[0], '\0');
		assert_null(c.servers);
	}
}

static void address_has_a_host_and_a_port_and_fits(void **state)
{
	char text[RAFT_ADDR_MAX + 8];

	assert_true(identity_addr_valid("h:1"));
	assert_true(identity_addr_valid("[::1]:65535"));
	memset(text, 'h', sizeof text);
	memcpy(text + RAFT_ADDR_MAX - 3, ":1", 3);
	assert_true(identity_addr_valid(text));
	memset(text, 'h', sizeof text);
	memcpy(text + RAFT_ADDR_MAX - 2, ":1", 3);
	assert_false(identity_addr_valid(text));
}

/* --- the file ---------------------------------------------------------------------------- */

static void stored_identity_is_loaded_again(void **state)
{
	struct identity i;

	store_node_3();
	assert_int_equal(identity_load(dir, &i, err, ERR_BYTES), 0);
	assert_int_equal(i.id, 3);
	assert_true(i.initialised);
	assert_int_equal(i.uuid[0], 0xfe);
	assert_memory_equal(i.uuid + 1, "123456789abcdef", 15);
	assert_int_equal(i.servers.n, 3);
	assert_string_equal(i.servers.servers[1].addr, "[::1]:7100");
	identity_fini(&i);
}

static void missing_identity_is_not_a_damaged_one(void **state)
{
	struct identity i;

	assert_int_equal(identity_load(dir, &i, err, ERR_BYTES), -ENOENT);
}

/* Each byte of the file cut off, and each replaced: refused, or the same as before. */
static void damaged_identity_is_refused(void **state)
{
	char path[256];
	char text[4096];
	struct identity i;
	size_t len;
	FILE *f;

	store_node_3();
	path_of("identity", path);
	f = fopen(path, "re");
	assert_non_null(f);
	len = fread(text, 1, sizeof text - 1, f);
	text[len] = '\0';
	assert_int_equal(fclose(f), 0);
	for (size_t cut = 0; cut < len; cut++) {
		char was = text[cut];

		text[cut] = '\0';
		write_file("identity", text);
		assert_int_equal(identity_load(dir, &i, err, ERR_BYTES), -EUCLEAN);
		assert_non_null(strstr(err, dir));
		text[cut] = was;
	}
	for (size_t at = 0; at < len; at++) {
		char was = text[at];

		text[at] = '\1';
		write_file("identity", text);
		if (identity_load(dir, &i, err, ERR_BYTES) == 0) {
			identity_fini(&i); /* white space, or a letter of an address */
		}
		text[at] = was;
	}
}

static void nonsense_in_an_identity_is_refused(void **state)
{
#define IDENTITY(id, uuid, initialised, servers)                                                   \
	"{\"id\":" id ",\"uuid\":\"" uuid "\",\"initialised\":" initialised                        \
	",\"servers\":[" servers "]}"
#define UUID "000102030405060708090a0b0c0d0e0f"
#define SERVER "{\"id\":1,\"addr\":\"a:1\",\"voter\":true}"
	static const char *const bad[] = {
		"[]",
		"null",
		IDENTITY("0", UUID, "true", SERVER),
		IDENTITY("-1", UUID, "true", SERVER),
		IDENTITY("1e300", UUID, "true", SERVER),
		IDENTITY("\"1\"", UUID, "true", SERVER),
		IDENTITY("1", "0001", "true", SERVER),
		IDENTITY("1", " 00102030405060708090a0b0c0d0e0f", "true", SERVER),
		IDENTITY("1", "+00102030405060708090a0b0c0d0e0f", "true", SERVER),
		IDENTITY("1", "0x0102030405060708090a0b0c0d0e0f", "true", SERVER),
		IDENTITY("1", UUID, "1", SERVER),
		IDENTITY("1", UUID, "true", ""),
		IDENTITY("1", UUID, "true", SERVER "," SERVER),
		IDENTITY("1", UUID, "true", "{\"id\":1e300,\"addr\":\"a:1\",\"voter\":true}"),
		IDENTITY("1", UUID, "true", "{\"id\":1,\"addr\":\"a\",\"voter\":true}"),
		IDENTITY("1", UUID, "true", "{\"id\":1,\"addr\":\"a:1\"}"),
	};
	struct identity i;

	write_file("identity", IDENTITY("1", UUID, "true", SERVER));
	assert_int_equal(identity_load(dir, &i, err, ERR_BYTES), 0);
	identity_fini(&i);
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		write_file("identity", bad[k]);
		assert_int_equal(identity_load(dir, &i, err, ERR_BYTES), -EUCLEAN);
	}
}

static void identity_that_cannot_be_written_says_so(void **state)
{
	struct identity i = {.id = 1};

	assert_true(identity_store("/nonexistent/dir", &i, err, ERR_BYTES) < 0);
	assert_non_null(strstr(err, "/nonexistent/dir/identity"));
}

/* --- starting ---------------------------------------------------------------------------- */

/* In a process of its own, which ends with what it had open, as the daemon does. */
static int start(const struct server_options *with)
{
	struct server_options o = *with;
	struct server_events events = {0};
	struct server *s = NULL;
	uv_loop_t loop;
	char secret[256];
	int status;
	pid_t pid;

	write_file("secret", "0123456789abcdef\n");
	path_of("secret", secret);
	o.dir = dir;
	o.secret_file = secret;
	node_options_default(&o.node);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (uv_loop_init(&loop) < 0) {
			_exit(255);
		}
		_exit(-server_open(&loop, &o, &events, &s, err, ERR_BYTES));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static void new_directory_needs_to_be_told_what_it_is(void **state)
{
	assert_int_equal(start(&(struct server_options){.id = 1}), -EINVAL);
	assert_int_equal(
		start(&(struct server_options){.id = 4, .peers = "1=127.0.0.1:1"}), -EINVAL);
	assert_int_equal(start(&(struct server_options){.id = 1, .peers = "1=a"}), -EINVAL);
	assert_int_equal(start(&(struct server_options){.join = "127.0.0.1:1"}), -EINVAL);
	assert_int_equal(access(dir, F_OK), 0);
	assert_int_equal(identity_load(dir, &(struct identity){0}, err, ERR_BYTES), -ENOENT);
}

/* Its id was lost; under a new one, its log would be another node's. */
static void log_without_an_identity_is_refused(void **state)
{
	static const char *const remains[] = {"log", "snap", "vote"};
	struct server_options o = {.id = 1, .peers = "1=127.0.0.1:1"};

	for (size_t i = 0; i < ARRAY_SIZE(remains); i++) {
		char path[256];

		make_dir(remains[i]);
		assert_int_equal(start(&o), -EUCLEAN);
		path_of(remains[i], path);
		assert_non_null(strstr(err, path));
		assert_int_equal(rmdir(path), 0);
	}
	assert_int_equal(identity_check_new(dir, err, ERR_BYTES), 0);
}

static void log_that_was_lost_is_refused(void **state)
{
	store_node_3();
	assert_true(start(&(struct server_options){0}) < 0);
	assert_int_not_equal(err[0], '\0');
}

static void directory_of_another_node_is_refused(void **state)
{
	store_node_3();
	assert_int_equal(
		start(&(struct server_options){.id = 2, .peers = "2=127.0.0.1:1"}), -EINVAL);
	assert_non_null(strstr(err, "node 3"));
}

int main(void)
{
#define AT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		AT(list_of_nodes_is_sorted_and_all_vote),
		AT(list_that_makes_no_sense_is_refused),
		AT(address_has_a_host_and_a_port_and_fits),
		AT(stored_identity_is_loaded_again),
		AT(missing_identity_is_not_a_damaged_one),
		AT(damaged_identity_is_refused),
		AT(nonsense_in_an_identity_is_refused),
		AT(identity_that_cannot_be_written_says_so),
		AT(new_directory_needs_to_be_told_what_it_is),
		AT(log_without_an_identity_is_refused),
		AT(log_that_was_lost_is_refused),
		AT(directory_of_another_node_is_refused),
	};

	err = mmap(NULL, ERR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return err == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
