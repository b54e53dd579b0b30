/*
 * peers_fixture.h - nodes of one loop that talk over 127.0.0.1, and raw clients
 * that may say anything. For the tests of peers.h.
 *
 * Everything waits for an event with AWAIT(): the loop runs until the condition
 * holds, or the test fails after a deadline that no healthy run comes near.
 */
#ifndef COORDFS_TEST_PEERS_FIXTURE_H
#define COORDFS_TEST_PEERS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "coordfs/util.h"
#include "core/io/peers.h"
#include "core/wire.h"

#define NODES 3
#define SECRET "correct-horse-battery-staple"
#define DEADLINE_MS 20000

struct fixture;

struct node {
	struct fixture *fixture;
	struct peers *peers; /* NULL: not running */
	uint64_t id;
	char addr[32];
	bool admits;
	bool closed;
	/* What happened to it. */
	size_t ups;
	size_t turns;
	size_t frames[NODES + 1]; /* by sender */
	uint8_t *last;            /* body of the last frame, owned */
	size_t last_len;
	uint64_t sum; /* of all bytes of all bodies */
	size_t n_requests;
	bool answers_later;
	struct peers_request *request; /* to be answered */
	char request_line[64];
	size_t request_len;
	char trace[32768]; /* "event kv\n" and so on; what does not fit is lost */
};

struct fixture {
	uv_loop_t loop;
	uv_timer_t deadline;
	bool too_late;
	struct node nodes[NODES + 1]; /* by id */
};

/* --- the owner of a node's streams ------------------------------------------------------- */

static inline bool node_admit(void *ctx, uint64_t id, const uint8_t uuid[16])
{
	struct node *n = ctx;

	return n->admits && id <= NODES && uuid[0] == id;
}

static inline void node_frame(void *ctx, uint64_t from, const void *body, size_t len)
{
	struct node *n = ctx;

	assert_in_range(from, 1, NODES);
	n->frames[from]++;
	free(n->last);
	n->last = xmemdup(body, len);
	n->last_len = len;
	for (size_t i = 0; i < len; i++) {
		n->sum += n->last[i];
	}
}

static inline void node_up(void *ctx, uint64_t id)
{
	struct node *n = ctx;

	n->ups++;
}

static inline void node_turn(void *ctx)
{
	struct node *n = ctx;

	n->turns++;
	peers_flush(n->peers);
}

static inline void node_request(void *ctx, struct peers_request *r, const char *method,
	const char *path, const void *body, size_t len)
{
	struct node *n = ctx;

	n->n_requests++;
	n->request_len = len;
	(void)snprintf(n->request_line, sizeof n->request_line, "%s %s", method, path);
	if (n->answers_later) {
		n->request = r;
	} else {
		peers_answer(r, 200, "application/json", "{\"ok\":true}", 11);
	}
}

static inline void node_traced(void *ctx, enum trace_level level, const char *event, const char *kv)
{
	struct node *n = ctx;
	size_t used = strlen(n->trace);

	(void)snprintf(n->trace + used, sizeof n->trace - used, "%s %s\n", event, kv);
}

static inline size_t traced(const struct node *n, const char *text)
{
	size_t count = 0;

	for (const char *at = n->trace; (at = strstr(at, text)) != NULL; at++) {
		count++;
	}
	return count;
}

/* --- the loop ---------------------------------------------------------------------------- */

static inline void deadline_ran(uv_timer_t *t)
{
	struct fixture *f = t->data;

	f->too_late = true;
}

#define AWAIT(f, condition)                                                                        \
	do {                                                                                       \
		(f)->too_late = false;                                                             \
		(void)uv_timer_start(&(f)->deadline, deadline_ran, DEADLINE_MS, 0);                \
		while (!(condition)) {                                                             \
			if ((f)->too_late) {                                                       \
				print_error("%s", (f)->nodes[1].trace);                            \
				fail_msg("waited in vain for %s", #condition);                     \
			}                                                                          \
			(void)uv_run(&(f)->loop, UV_RUN_ONCE);                                     \
		}                                                                                  \
		(void)uv_timer_stop(&(f)->deadline);                                               \
	} while (0)

/* A condition that no event of the loop announces: it must look again now and then. */
static inline void nothing_ran(uv_timer_t *t)
{
	(void)t;
}

#define AWAIT_POLLING(f, condition)                                                                \
	do {                                                                                       \
		uv_timer_t *tick_ = xcalloc(1, sizeof *tick_);                                     \
		(void)uv_timer_init(&(f)->loop, tick_);                                            \
		(void)uv_timer_start(tick_, nothing_ran, 1, 1);                                    \
		AWAIT((f), (condition));                                                           \
		uv_close((uv_handle_t *)tick_, (uv_close_cb)free);                                 \
	} while (0)

/* --- nodes ------------------------------------------------------------------------------- */

static inline int free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(close(fd), 0);
	return ntohs(a.sin_port);
}

static inline struct peers_events node_events(struct node *n)
{
	return (struct peers_events){.ctx = n,
		.admit = node_admit,
		.frame = node_frame,
		.up = node_up,
		.turn = node_turn,
		.request = node_request};
}

static inline void start_with(struct node *n, const char *secret, size_t buffer_bytes_max)
{
	struct peers_options o = {.id = n->id,
		.uuid = {(uint8_t)n->id, 0xab},
		.listen = n->addr,
		.secret = secret,
		.buffer_bytes_max = buffer_bytes_max,
		.trace = {.emit = node_traced, .ctx = n, .max = TRACE_DEBUG}};
	struct peers_events events = node_events(n);
	char err[256] = "";
	int rc = peers_open(&n->fixture->loop, &o, &events, &n->peers, err, sizeof err);

	assert_string_equal(err, "");
	assert_int_equal(rc, 0);
}

static inline void start(struct node *n)
{
	start_with(n, SECRET, 0);
}

static inline void node_closed(void *ctx)
{
	struct node *n = ctx;

	n->closed = true;
}

static inline void stop(struct node *n)
{
	n->closed = false;
	peers_close(n->peers, node_closed, n);
	AWAIT(n->fixture, n->closed);
	n->peers = NULL;
}

/* Node `n` holds streams to the nodes in `ids`, a list that ends with 0. */
static inline void connect_to(struct node *n, const uint64_t *ids)
{
	struct raft_server servers[NODES] = {0};
	struct raft_config config = {.servers = servers};

	for (; *ids != 0; ids++) {
		struct raft_server *s = &servers[config.n++];

		s->id = *ids;
		s->voter = true;
		(void)snprintf(s->addr, sizeof s->addr, "%s", n->fixture->nodes[*ids].addr);
	}
	peers_set(n->peers, &config);
}

#define CONNECT_TO(n, ...) connect_to((n), (const uint64_t[]){__VA_ARGS__, 0})

/* Queue a frame of `len` bytes of body, each of them `fill`. */
static inline void send_frame(struct node *n, uint64_t to, uint8_t fill, size_t len)
{
	uint8_t *frame = xmalloc(4 + len);

	for (size_t i = 0; i < 4; i++) {
		frame[i] = (uint8_t)(len >> 8 * i);
	}
	memset(frame + 4, fill, len);
	peers_send(n->peers, to, frame, 4 + len);
	free(frame);
}

static inline int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(uv_timer_init(&f->loop, &f->deadline), 0);
	f->deadline.data = f;
	for (uint64_t id = 1; id <= NODES; id++) {
		struct node *n = &f->nodes[id];

		n->fixture = f;
		n->id = id;
		n->admits = true;
		(void)snprintf(n->addr, sizeof n->addr, "127.0.0.1:%d", free_port());
	}
	*state = f;
	return 0;
}

/* Nothing may be left on the loop: uv_loop_close() fails otherwise. */
static inline int teardown(void **state)
{
	struct fixture *f = *state;

	for (uint64_t id = 1; id <= NODES; id++) {
		if (f->nodes[id].peers != NULL) {
			stop(&f->nodes[id]);
		}
		free(f->nodes[id].last);
	}
	uv_close((uv_handle_t *)&f->deadline, NULL);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

/* --- raw clients ------------------------------------------------------------------------- */

struct raw {
	struct fixture *fixture;
	int fd;
	char got[65536];
	size_t len;
	bool ended;
};

static inline void raw_connect(struct raw *r, struct node *n)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	*r = (struct raw){.fixture = n->fixture};
	a.sin_port = htons((uint16_t)atoi(strchr(n->addr, ':') + 1));
	r->fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(r->fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(fcntl(r->fd, F_SETFL, O_NONBLOCK), 0);
}

/* Small enough for the kernel to take at once, unless the other side has hung up. */
static inline void raw_send(struct raw *r, const void *data, size_t len)
{
	ssize_t sent = send(r->fd, data, len, MSG_NOSIGNAL);

	assert_true(sent == (ssize_t)len || errno == EPIPE || errno == ECONNRESET);
}

static inline void raw_say(struct raw *r, const char *text)
{
	raw_send(r, text, strlen(text));
}

/* Takes what has come, and returns whether `text` is in it. */
static inline bool raw_heard(struct raw *r, const char *text)
{
	ssize_t n = recv(r->fd, r->got + r->len, sizeof r->got - 1 - r->len, 0);

	if (n > 0) {
		r->len += (size_t)n;
		r->got[r->len] = '\0';
	} else if (n == 0 || errno != EAGAIN) {
		r->ended = true;
	}
	return text != NULL && strstr(r->got, text) != NULL;
}

static inline bool raw_hung_up(struct raw *r)
{
	(void)raw_heard(r, NULL);
	return r->ended;
}

static inline void raw_close(struct raw *r)
{
	assert_int_equal(close(r->fd), 0);
}

/* One chunk of a chunked body. */
static inline void raw_chunk(struct raw *r, const void *data, size_t len)
{
	char head[32];

	(void)snprintf(head, sizeof head, "%zx\r\n", len);
	raw_say(r, head);
	raw_send(r, data, len);
	raw_say(r, "\r\n");
}

/* The header of a stream as node `id` sends it, and the answer that admits it. */
static inline void raw_stream(struct raw *r, struct node *n, unsigned id)
{
	char head[512];

	raw_connect(r, n);
	(void)snprintf(head, sizeof head,
		"POST /peer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
		"X-Coordfs-Id: %u\r\nX-Coordfs-Uuid: %02xab0000000000000000000000000000\r\n"
		"X-Coordfs-Format: %u\r\nTransfer-Encoding: chunked\r\n"
		"Expect: 100-continue\r\n\r\n",
		SECRET, id, id, WIRE_FORMAT);
	raw_say(r, head);
	AWAIT_POLLING(r->fixture, raw_heard(r, "100 Continue"));
}

#endif
