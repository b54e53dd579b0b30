/*
 * http_in.c - the port: connections, authentication, requests.
 *
 * libmicrohttpd runs on an epoll of its own, which uv watches. A wake-up runs the
 * daemon until it has nothing left (or for RUNS_MAX rounds: others want their
 * turn), then the turn ends. What it wants to be woken for by time goes into a
 * timer.
 *
 * A request, happy path: its header is checked (in_begin), then its bytes come
 * (stream_in_data(), or request_data() until the body is whole), then its owner
 * is asked; meanwhile the connection is suspended, until peers_answer() resumes
 * it. Failures: whatever is wrong with the header is answered before any body is
 * read, and the connection closed.
 *
 * Strangers: a connection is one until it has shown the secret. It has
 * STRANGER_MS for that, and there are at most STRANGERS_MAX: one more, and the
 * oldest has to go. So however many connect and say nothing, slowly or fast, a
 * node that knows the secret finds its way in.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "core/io/peers_internal.h"
#include "core/io/secret.h"
#include "core/wire.h"

#define CONNECTIONS_MAX 1024u
#define STRANGERS_MAX 256u
#define STRANGER_MS 10000
#define IDLE_S 10u /* of a connection that is no stream */
/* Half of it is what one read takes. */
#define CONNECTION_BYTES (512u << 10)
#define REQUEST_BYTES_MAX (1u << 20)
#define RUNS_MAX 8
#define LISTEN_BACKLOG 511

#define DENIAL_EVERY_MS 1000
#define DENIALS_MAX 256u /* addresses remembered; more at a time are not traced */

struct in_conn {
	int fd;
	bool stranger;
	uint64_t since_ms;
	struct in_conn *prev; /* on in.strangers, while it is one */
	struct in_conn *next;
};

struct in_denial {
	char addr[INET6_ADDRSTRLEN]; /* without the port: an attacker has many */
	uint64_t traced_ms;
	UT_hash_handle hh;
};

struct peers_request {
	enum in_kind kind;
	struct peers *peers;         /* borrowed */
	struct MHD_Connection *conn; /* borrowed */
	char *method;                /* owned */
	char *path;                  /* owned */
	uint8_t *body;               /* owned */
	size_t body_len;
	size_t body_cap;
	bool too_big;
	bool asked;                  /* its owner knows of it */
	bool suspended;              /* on in.waiting */
	struct MHD_Response *answer; /* owned */
	unsigned status;             /* of `answer` */
	struct peers_request *prev;  /* on in.waiting */
	struct peers_request *next;
};

/* --- answers ----------------------------------------------------------------------------- */

static void response_header(struct MHD_Response *r, const char *name, const char *value)
{
	enum MHD_Result rc = MHD_add_response_header(r, name, value);

	ASSERT(rc == MHD_YES); /* memory: as xmalloc() */
}

static struct MHD_Response *response_new(const char *content_type, const void *body, size_t len)
{
	/* MUST_COPY: the library does not write to it. */
	struct MHD_Response *r = MHD_create_response_from_buffer(
		len, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);

	ASSERT(r != NULL); /* memory: as xmalloc() */
	response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
	return r;
}

/* Neither text has anything in it that JSON would escape. */
static struct MHD_Response *error_new(const char *error, const char *message)
{
	char json[512];
	int len = snprintf(
		json, sizeof json, "{\"error\":\"%s\",\"message\":\"%s\"}\n", error, message);

	ASSERT(len > 0 && (size_t)len < sizeof json);
	return response_new("application/json", json, (size_t)len);
}

struct refusal {
	unsigned status;
	const char *error;
	const char *message;
};

static const struct refusal no_secret = {
	MHD_HTTP_UNAUTHORIZED, "unauthorized", "Authorization: Bearer SECRET is missing or wrong"};
static const struct refusal bad_identity = {MHD_HTTP_BAD_REQUEST, "bad_request",
	"X-Coordfs-Id or X-Coordfs-Uuid is missing or malformed"};
static const struct refusal other_format = {MHD_HTTP_UPGRADE_REQUIRED, "format",
	"X-Coordfs-Format is missing or not the one of this node"};
static const struct refusal not_admitted = {MHD_HTTP_CONFLICT, "not_admitted",
	"this id and data directory are not a member of the cluster"};
static const struct refusal not_post = {
	MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed", "/peer takes POST only"};
static const struct refusal too_big = {
	MHD_HTTP_CONTENT_TOO_LARGE, "too_large", "the body of a request is limited to 1 MiB"};

static enum MHD_Result refuse(struct MHD_Connection *conn, const struct refusal *why)
{
	struct MHD_Response *r = error_new(why->error, why->message);
	enum MHD_Result rc;

	if (why == &no_secret) {
		response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
	}
	rc = MHD_queue_response(conn, why->status, r);
	MHD_destroy_response(r);
	return rc;
}

/* --- who is there ------------------------------------------------------------------------ */

static void conn_addr(struct MHD_Connection *conn, char *ret_addr, size_t size)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	if (info == NULL || uv_ip_name(info->client_addr, ret_addr, size) < 0) {
		(void)snprintf(ret_addr, size, "unknown");
	}
}

static int conn_fd(struct MHD_Connection *conn)
{
	return MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

static void denials_forget(struct http_in *in, uint64_t older_than_ms)
{
	struct in_denial *d, *next;

	HASH_ITER (hh, in->denials, d, next) {
		if (d->traced_ms <= older_than_ms) {
			HASH_DELETE(hh, in->denials, d);
			free(d);
		}
	}
}

/* A line a second and address: a wrong secret must be seen, and must not fill the disk. */
static bool denial_is_news(struct http_in *in, const char *addr, uint64_t now_ms)
{
	struct in_denial *d;

	HASH_FIND_STR(in->denials, addr, d);
	if (d == NULL) {
		if (HASH_COUNT(in->denials) >= DENIALS_MAX) {
			denials_forget(in, now_ms - MIN(now_ms, DENIAL_EVERY_MS));
		}
		if (HASH_COUNT(in->denials) >= DENIALS_MAX) {
			return false;
		}
		d = xcalloc(1, sizeof *d);
		(void)snprintf(d->addr, sizeof d->addr, "%s", addr);
		HASH_ADD_STR(in->denials, addr, d);
	} else if (now_ms - d->traced_ms < DENIAL_EVERY_MS) {
		return false;
	}
	d->traced_ms = now_ms;
	return true;
}

static enum MHD_Result deny(
	struct peers *p, struct MHD_Connection *conn, const char *path, const struct refusal *why)
{
	char addr[INET6_ADDRSTRLEN];

	conn_addr(conn, addr, sizeof addr);
	if (denial_is_news(&p->in, addr, uv_now(p->loop))) {
		TRACE(&p->trace, TRACE_WARN, "http.denied",
			"addr=%s path=%.64s status=%u reason=\"%s\"", addr, path, why->status,
			why->message);
	}
	return refuse(conn, why);
}

static const char *header_get(struct MHD_Connection *conn, const char *name)
{
	return MHD_lookup_connection_value(conn, MHD_HEADER_KIND, name);
}

static bool knows_secret(const struct peers *p, struct MHD_Connection *conn)
{
	static const char scheme[] = "Bearer ";
	const char *given = header_get(conn, MHD_HTTP_HEADER_AUTHORIZATION);

	return given != NULL && strncasecmp(given, scheme, sizeof scheme - 1) == 0 &&
	       secret_equal(p->secret, given + sizeof scheme - 1);
}

static bool parse_number(const char *text, uint64_t *ret_value)
{
	char *end;

	if (text == NULL || text[0] < '0' || text[0] > '9') {
		return false;
	}
	errno = 0;
	*ret_value = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c == '\0' ? NULL : strchr(digits, c);

	return at == NULL ? -1 : (int)(at - digits);
}

static bool parse_uuid(const char *text, uint8_t ret_uuid[16])
{
	if (text == NULL || strlen(text) != 32) {
		return false;
	}
	for (size_t i = 0; i < 16; i++) {
		int high = hex_digit(text[2 * i]);
		int low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0) {
			return false;
		}
		ret_uuid[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* --- connections ------------------------------------------------------------------------- */

static struct in_conn *conn_of(struct MHD_Connection *conn)
{
	return MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void stranger_forget(struct http_in *in, struct in_conn *c)
{
	if (c->stranger) {
		c->stranger = false;
		DL_DELETE(in->strangers, c);
		in->n_strangers--;
	}
}

/* libmicrohttpd sees the end of the connection, and closes it. */
static void stranger_expel(struct http_in *in, struct in_conn *c)
{
	stranger_forget(in, c);
	(void)shutdown(c->fd, SHUT_RDWR); /* may have gone by itself */
}

/* MHD_OPTION_NOTIFY_CONNECTION */
static void conn_notified(void *arg, struct MHD_Connection *conn, void **context,
	enum MHD_ConnectionNotificationCode code)
{
	struct peers *p = arg;
	struct http_in *in = &p->in;
	struct in_conn *c = *context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		stranger_forget(in, c);
		free(c);
		*context = NULL;
		return;
	}
	if (in->n_strangers >= STRANGERS_MAX) {
		stranger_expel(in, in->strangers);
	}
	c = xcalloc(1, sizeof *c);
	c->fd = conn_fd(conn);
	c->stranger = true;
	c->since_ms = uv_now(p->loop);
	DL_APPEND(in->strangers, c);
	in->n_strangers++;
	*context = c;
	peers_watch_at(p, c->since_ms + STRANGER_MS);
}

uint64_t http_in_expire(struct peers *p, uint64_t now_ms)
{
	struct http_in *in = &p->in;

	while (in->strangers != NULL && in->strangers->since_ms + STRANGER_MS <= now_ms) {
		stranger_expel(in, in->strangers);
	}
	return in->strangers != NULL ? in->strangers->since_ms + STRANGER_MS : NEVER;
}

/* --- requests that are not streams ------------------------------------------------------- */

static struct peers_request *request_new(
	struct peers *p, struct MHD_Connection *conn, const char *method, const char *path)
{
	struct peers_request *r = xcalloc(1, sizeof *r);

	r->kind = IN_REQUEST;
	r->peers = p;
	r->conn = conn;
	r->method = xstrdup(method);
	r->path = xstrdup(path);
	return r;
}

static void request_free(struct peers_request *r)
{
	if (r->answer != NULL) {
		MHD_destroy_response(r->answer);
	}
	free(r->method);
	free(r->path);
	free(r->body);
	free(r);
}

/* Beyond the limit it is read and thrown away: libmicrohttpd answers after the body only. */
static void request_gather(struct peers_request *r, const void *data, size_t len)
{
	if (r->too_big || len > REQUEST_BYTES_MAX - r->body_len) {
		r->too_big = true;
		return;
	}
	if (r->body_cap - r->body_len < len) {
		r->body_cap = MAX(2 * r->body_cap, r->body_len + len);
		r->body = xrealloc(r->body, r->body_cap);
	}
	memcpy(r->body + r->body_len, data, len);
	r->body_len += len;
}

static enum MHD_Result request_finish(struct peers_request *r)
{
	return MHD_queue_response(r->conn, r->status, r->answer);
}

/* The body is whole, or the request is resumed. */
static enum MHD_Result request_whole(struct peers_request *r)
{
	struct peers *p = r->peers;

	if (r->too_big) {
		return refuse(r->conn, &too_big);
	}
	if (!r->asked && !p->closing) {
		r->asked = true;
		p->in.delivered = true;
		p->events.request(p->events.ctx, r, r->method, r->path, r->body, r->body_len);
	}
	if (r->answer != NULL) {
		return request_finish(r);
	}
	if (p->closing) {
		return MHD_NO;
	}
	r->suspended = true;
	DL_APPEND(p->in.waiting, r);
	MHD_suspend_connection(r->conn);
	return MHD_YES;
}

static enum MHD_Result request_data(struct peers_request *r, const char *data, size_t *len)
{
	if (*len == 0) {
		return request_whole(r);
	}
	request_gather(r, data, *len);
	*len = 0;
	return MHD_YES;
}

void peers_answer(struct peers_request *r, int http_status, const char *content_type,
	const void *body, size_t len)
{
	ASSERT(r->answer == NULL);
	r->status = (unsigned)http_status;
	r->answer = response_new(content_type, body, len);
	if (r->suspended) {
		r->suspended = false;
		DL_DELETE(r->peers->in.waiting, r);
		MHD_resume_connection(r->conn);
		r->peers->in.more = true; /* without threads, nothing wakes the daemon up */
		peers_run_again(r->peers);
	}
}

/* --- libmicrohttpd's callbacks ----------------------------------------------------------- */

static enum MHD_Result stream_begin(struct peers *p, struct MHD_Connection *conn, const char *path,
	const char *method, void **ret_call)
{
	uint64_t id, format;
	uint8_t uuid[16];

	if (strcmp(method, MHD_HTTP_METHOD_POST) != 0) {
		return refuse(conn, &not_post);
	}
	if (!parse_number(header_get(conn, "X-Coordfs-Format"), &format) || format != WIRE_FORMAT) {
		return deny(p, conn, path, &other_format);
	}
	if (!parse_number(header_get(conn, "X-Coordfs-Id"), &id) || id == 0 ||
		!parse_uuid(header_get(conn, "X-Coordfs-Uuid"), uuid)) {
		return deny(p, conn, path, &bad_identity);
	}
	if (id == p->id || !p->events.admit(p->events.ctx, id, uuid)) {
		return deny(p, conn, path, &not_admitted);
	}
	/* A stream may be silent for as long as it likes; TCP's keep-alive finds dead ones. */
	if (MHD_set_connection_option(conn, MHD_CONNECTION_OPTION_TIMEOUT, 0u) != MHD_YES) {
		return MHD_NO;
	}
	*ret_call = stream_in_new(p, id, conn_fd(conn));
	TRACE(&p->trace, TRACE_DEBUG, "stream.open", "from=%" PRIu64, id);
	peers_nudge(p, id);
	return MHD_YES;
}

/* The header is there, the body is not. */
static enum MHD_Result in_begin(struct peers *p, struct MHD_Connection *conn, const char *path,
	const char *method, void **ret_call)
{
	uint64_t length;

	if (p->closing) {
		return MHD_NO;
	}
	if (!knows_secret(p, conn)) {
		return deny(p, conn, path, &no_secret);
	}
	stranger_forget(&p->in, conn_of(conn));
	if (strcmp(path, "/peer") == 0) {
		return stream_begin(p, conn, path, method, ret_call);
	}
	if (parse_number(header_get(conn, MHD_HTTP_HEADER_CONTENT_LENGTH), &length) &&
		length > REQUEST_BYTES_MAX) {
		return refuse(conn, &too_big);
	}
	*ret_call = request_new(p, conn, method, path);
	return MHD_YES;
}

static enum MHD_Result stream_bytes(struct stream_in *s, const char *data, size_t *len)
{
	size_t n = *len;

	*len = 0;
	/* n = 0: the end of a body that has none. No answer: the connection is closed. */
	return n > 0 && stream_in_data(s, data, n) == 0 ? MHD_YES : MHD_NO;
}

static enum MHD_Result in_called(void *arg, struct MHD_Connection *conn, const char *path,
	const char *method, const char *version, const char *data, size_t *len, void **call)
{
	if (*call == NULL) {
		return in_begin(arg, conn, path, method, call);
	}
	switch (*(enum in_kind *)*call) {
	case IN_STREAM:
		return stream_bytes(*call, data, len);
	case IN_REQUEST:
		return request_data(*call, data, len);
	}
	UNREACHABLE();
}

/* MHD_OPTION_NOTIFY_COMPLETED */
static void in_completed(
	void *arg, struct MHD_Connection *conn, void **call, enum MHD_RequestTerminationCode code)
{
	struct peers *p = arg;
	struct stream_in *s = *call;

	if (*call == NULL) {
		return;
	}
	if (*(enum in_kind *)*call == IN_REQUEST) {
		request_free(TAKE(*call));
		return;
	}
	TRACE(&p->trace, TRACE_DEBUG, "stream.closed", "from=%" PRIu64 " replaced=%d", s->from,
		s->ended);
	stream_in_free(s);
	*call = NULL;
}

/* MHD_OPTION_EXTERNAL_LOGGER: mostly what strangers do wrong. */
static void PRINTF_LIKE(2, 0) logged(void *arg, const char *fmt, va_list ap)
{
	struct peers *p = arg;
	char line[256];

	(void)vsnprintf(line, sizeof line, fmt, ap);
	line[strcspn(line, "\r\n")] = '\0';
	TRACE(&p->trace, TRACE_DEBUG, "http.log", "text=\"%s\"", line);
}

/* --- running the daemon ------------------------------------------------------------------ */

static void timer_ran(uv_timer_t *timer)
{
	http_in_run(timer->data);
	peers_end_turn(timer->data);
}

static void polled(uv_poll_t *poll, int status, int events)
{
	http_in_run(poll->data);
	peers_end_turn(poll->data);
}

void http_in_run(struct peers *p)
{
	struct http_in *in = &p->in;
	MHD_UNSIGNED_LONG_LONG wait_ms = 0;
	bool timed = true;

	for (int i = 0; i < RUNS_MAX && timed && wait_ms == 0 && !p->closing; i++) {
		(void)MHD_run(in->daemon); /* fails only without a daemon */
		timed = MHD_get_timeout(in->daemon, &wait_ms) == MHD_YES;
	}
	in->more = timed && wait_ms == 0;
	if (in->more) {
		peers_run_again(p);
	} else if (timed) {
		/* These cannot fail: not closing, or stopped before the close. */
		(void)uv_timer_start(&in->timer, timer_ran, wait_ms, 0);
	} else {
		(void)uv_timer_stop(&in->timer);
	}
}

/* --- open and close ---------------------------------------------------------------------- */

/* "host:port" or "[host]:port"; both parts are copied. */
static int split_address(const char *text, char *ret_host, size_t host_size, const char **ret_port)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;
	size_t len;

	if (colon == NULL || colon == text) {
		return -EINVAL;
	}
	len = (size_t)(colon - text);
	if (text[0] == '[' && colon[-1] == ']') {
		text++;
		len -= 2;
	}
	if (len == 0 || len >= host_size) {
		return -EINVAL;
	}
	memcpy(ret_host, text, len);
	ret_host[len] = '\0';
	*ret_port = colon + 1;
	return parse_number(colon + 1, &port) && port > 0 && port <= UINT16_MAX ? 0 : -EINVAL;
}

/* A listening socket, or a negative errno. */
static int listen_on(const struct addrinfo *a)
{
	static const int on = 1, keepalive_s = 10; /* accepted sockets inherit these */
	int fd =
		socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
	int rc;

	if (fd < 0) {
		return -errno;
	}
	/* Without them it works, only not as well. */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive_s, sizeof keepalive_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_s, sizeof keepalive_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		rc = -errno;
		(void)close(fd); /* nothing was written to it */
		return rc;
	}
	return fd;
}

static int listen_open(const char *addr, char *err, size_t err_size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	char host[RAFT_ADDR_MAX];
	const char *port;
	int rc = split_address(addr, host, sizeof host, &port);

	if (rc < 0) {
		(void)snprintf(err, err_size, "\"%s\" is not HOST:PORT", addr);
		return rc;
	}
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc != 0) {
		(void)snprintf(
			err, err_size, "cannot find the address of %s: %s", addr, gai_strerror(rc));
		return -EADDRNOTAVAIL;
	}
	rc = listen_on(list);
	freeaddrinfo(list);
	if (rc < 0) {
		(void)snprintf(err, err_size, "cannot listen on %s: %s", addr, strerror(-rc));
	}
	return rc;
}

static struct MHD_Daemon *daemon_start(struct peers *p, int fd)
{
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
		NULL, NULL, in_called, p,
		/* First, so that it hears of trouble with the others. */
		MHD_OPTION_EXTERNAL_LOGGER, logged, p, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
		MHD_OPTION_NOTIFY_COMPLETED, in_completed, p, MHD_OPTION_NOTIFY_CONNECTION,
		conn_notified, p, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

int http_in_open(struct peers *p, const char *listen_addr, char *err, size_t err_size)
{
	struct http_in *in = &p->in;
	int fd = listen_open(listen_addr, err, err_size);
	int rc;

	if (fd < 0) {
		return fd;
	}
	in->daemon = daemon_start(p, fd);
	if (in->daemon == NULL) {
		(void)close(fd); /* nothing was written to it */
		(void)snprintf(err, err_size, "cannot start the HTTP server on %s", listen_addr);
		return -ENOMEM;
	}
	rc = uv_poll_init(p->loop, &in->poll,
		MHD_get_daemon_info(in->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd);
	ASSERT(rc == 0);
	(void)uv_timer_init(p->loop, &in->timer); /* cannot fail */
	in->poll.data = p;
	in->timer.data = p;
	rc = uv_poll_start(&in->poll, UV_READABLE, polled);
	ASSERT(rc == 0);
	return 0;
}

/* Whoever waits for an answer gets this one. */
static void answer_waiting(struct peers *p)
{
	static const char json[] =
		"{\"error\":\"shutdown\",\"message\":\"this node is stopping\"}\n";
	struct peers_request *r, *next;

	DL_FOREACH_SAFE (p->in.waiting, r, next) {
		peers_answer(
			r, MHD_HTTP_SERVICE_UNAVAILABLE, "application/json", json, sizeof json - 1);
	}
}

void http_in_close(struct peers *p, uv_close_cb closed)
{
	struct http_in *in = &p->in;

	answer_waiting(p);
	for (int i = 0; i < RUNS_MAX; i++) {
		(void)MHD_run(in->daemon); /* answers leave, as far as they do so at once */
	}
	uv_close((uv_handle_t *)&in->poll, closed); /* before its epoll is */
	uv_close((uv_handle_t *)&in->timer, closed);
	MHD_stop_daemon(in->daemon);
	in->daemon = NULL;
	denials_forget(in, NEVER);
}
