/*
 * peer_out.c - one outgoing stream: a POST whose chunked body never ends.
 *
 * Happy path: WAIT, CONNECT, STREAM. In CONNECT libcurl connects and sends the
 * request's header with `Expect: 100-continue`; the peer admits the stream by
 * answering "100 Continue", upon which libcurl comes for the first bytes of the
 * body: that is the moment of STREAM. From then on libcurl is paused
 * (CURL_READFUNC_PAUSE) whenever the buffer is empty, and a flush wakes it up and
 * lets it write on the spot, not when the loop next finds the socket writable.
 *
 * Failures: any error, a refusal (4xx) included, goes to WAIT; the buffer is
 * dropped and a pause begins, which grows from attempt to attempt. A connection
 * that has stopped moving is given up by us (out_stalled()), long before TCP
 * would: what matters is to be back soon after a partition has healed, and TCP's
 * own retransmissions are by then seconds apart.
 *
 * A host name is looked up in a thread of libcurl's, within CONNECT_MS.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <utlist.h>

#include "core/io/peers_internal.h"
#include "core/wire.h"

/* Of a lost SYN the next one leaves after 1 s (Linux): a new attempt is sooner. */
#define CONNECT_MS 500L
/* From connected to admitted. A stopped process answers when it goes on, so be patient. */
#define ADMIT_MS 10000
#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 500
/* A stream that lived this long was a good one: the next pause is short. */
#define GOOD_STREAM_MS 1000
/* A peer that has just opened a stream to us can be reached: an attempt older than this is begun
 * anew. */
#define NUDGE_MS 100

#define LOOK_MS 100              /* between looks at a connection */
#define ACK_STALL_MS 800         /* sent, but nothing acknowledged: the network is cut */
#define WRITE_STALL_MS 2000      /* the kernel takes no more: the peer does not read */
#define TCP_USER_TIMEOUT_MS 3000 /* the kernel's own verdict, should ours not come */
#define KEEPALIVE_S 1

/* libcurl's: what it takes from us at once, and writes at once. */
#define UPLOAD_BUFFER_BYTES (512L << 10)
#define FLUSH_WRITES_MAX 4 /* of that size, then others get their turn */
/* An empty buffer that has grown larger is given back. */
#define BUFFER_KEEP_BYTES (1u << 20)
#define BUFFER_LEAST_BYTES (16u << 10)

#define WARN_EVERY_MS 10000 /* the same refusal */
#define DROP_WARN_EVERY_MS 1000

/* --- bytes on their way out -------------------------------------------------------------- */

static size_t buf_bytes(const struct out_buf *b)
{
	return b->len - b->head;
}

static void buf_fini(struct out_buf *b)
{
	free(b->data);
	*b = (struct out_buf){0};
}

static void buf_append(struct out_buf *b, const void *data, size_t len)
{
	if (b->cap - b->len < len && b->head > 0 && b->head >= buf_bytes(b)) {
		memmove(b->data, b->data + b->head, buf_bytes(b));
		b->len -= b->head;
		b->head = 0;
	}
	if (b->cap - b->len < len) {
		b->cap = MAX(MAX(2 * b->cap, b->len + len), BUFFER_LEAST_BYTES);
		b->data = xrealloc(b->data, b->cap);
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static size_t buf_take(struct out_buf *b, void *to, size_t max)
{
	size_t n = MIN(max, buf_bytes(b));

	if (n > 0) {
		memcpy(to, b->data + b->head, n);
		b->head += n;
	}
	if (buf_bytes(b) == 0) {
		b->head = 0;
		b->len = 0;
		if (b->cap > BUFFER_KEEP_BYTES) {
			buf_fini(b);
		}
	}
	return n;
}

/* --- states ------------------------------------------------------------------------------ */

static void out_move(struct peer_out *o, enum out_state state, uint64_t due_ms)
{
	o->state = state;
	o->since_ms = uv_now(o->peers->loop);
	o->due_ms = due_ms;
	peers_watch_at(o->peers, due_ms);
}

/* Ends what there is and waits. Not from inside one of libcurl's callbacks. */
static void out_wait(struct peer_out *o, uint32_t pause_ms)
{
	curl_loop_remove(&o->peers->curl, o->easy);
	curl_easy_cleanup(TAKE(o->easy));
	buf_fini(&o->buf); /* frames that are late are useless: the protocols have resent */
	out_move(o, OUT_WAIT, uv_now(o->peers->loop) + pause_ms);
}

static const char *refusal_text(long status)
{
	switch (status) {
	case 401:
		return "its secret is another one";
	case 409:
		return "it does not admit this node (removed, or another data directory)";
	case 426:
		return "it speaks another format";
	default:
		return "it answers as no node of ours does";
	}
}

static void trace_refusal(struct peer_out *o, long status)
{
	uint64_t now_ms = uv_now(o->peers->loop);

	if (status == o->refused_status && now_ms - o->refused_ms < WARN_EVERY_MS) {
		return;
	}
	o->refused_status = status;
	o->refused_ms = now_ms;
	TRACE(&o->peers->trace, TRACE_WARN, "peer.refused",
		"id=%" PRIu64 " addr=%s status=%ld reason=\"%s\", retrying", o->id, o->addr, status,
		refusal_text(status));
}

static void trace_failure(const struct peer_out *o, const char *reason)
{
	TRACE(&o->peers->trace, o->state == OUT_STREAM ? TRACE_INFO : TRACE_DEBUG, "peer.down",
		"id=%" PRIu64 " addr=%s reason=\"%s\"", o->id, o->addr, reason);
}

/* The pause after a failure; remembers a longer one for the next. */
static uint32_t out_next_pause(struct peer_out *o)
{
	uint64_t lived_ms = uv_now(o->peers->loop) - o->since_ms;
	uint32_t pause_ms;

	if (o->state == OUT_STREAM && lived_ms >= GOOD_STREAM_MS) {
		o->pause_ms = PAUSE_MIN_MS;
	}
	pause_ms = o->pause_ms;
	o->pause_ms = MIN(2 * pause_ms, PAUSE_MAX_MS);
	return pause_ms;
}

void peer_out_ended(struct peer_out *o, CURLcode rc)
{
	long status = 0;
	uint32_t pause_ms;

	(void)curl_easy_getinfo(o->easy, CURLINFO_RESPONSE_CODE, &status); /* stays 0 */
	if (status >= 200) {
		trace_refusal(o, status);
		pause_ms = PAUSE_MAX_MS;
	} else {
		trace_failure(o, o->error[0] != '\0' ? o->error : curl_easy_strerror(rc));
		/* A silent address has made us wait already. */
		pause_ms = rc == CURLE_OPERATION_TIMEDOUT ? PAUSE_MIN_MS : out_next_pause(o);
	}
	out_wait(o, pause_ms);
}

/*
 * libcurl knows the socket of a transfer, and tells it only after its end
 * (CURLINFO_ACTIVESOCKET), nor does it tell of each one that it closes. But the
 * one that it has last begun to watch is the connection, once there is one.
 *
 * While a stream is open libcurl watches its socket for an answer. It stops when
 * the peer has closed its side, and goes on sending: there might be a server that
 * reads on. Ours does not.
 */
void peer_out_watching(struct peer_out *o, curl_socket_t fd, bool begins)
{
	if (begins) {
		o->fd = fd;
	} else if (fd == o->fd) {
		o->fd = CURL_SOCKET_BAD;
		o->hung_up = o->state == OUT_STREAM;
		o->peers->hung_up |= o->hung_up;
	}
}

void peer_out_settle(struct peer_out *o)
{
	if (o->hung_up && o->state == OUT_STREAM) {
		trace_failure(o, "it has closed the stream");
		out_wait(o, out_next_pause(o));
	}
	o->hung_up = false;
}

/* --- libcurl's callbacks ----------------------------------------------------------------- */

/* CURLOPT_OPENSOCKETFUNCTION: programs that we start must not inherit it. */
static curl_socket_t out_socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
	static const int on = 1, keepalive_s = KEEPALIVE_S, probes = 3;
	static const int user_timeout_ms = TCP_USER_TIMEOUT_MS;
	int fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);

	if (fd < 0) {
		return CURL_SOCKET_BAD;
	}
	/* These only make trouble be noticed sooner: go on without. libcurl sets TCP_NODELAY. */
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive_s, sizeof keepalive_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_s, sizeof keepalive_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
	(void)setsockopt(
		fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
	return fd;
}

static void out_admitted(struct peer_out *o)
{
	uint64_t now_ms = uv_now(o->peers->loop);

	o->announced = false;
	o->refused_status = 0;
	o->acked_ms = now_ms;
	o->written_ms = now_ms;
	TRACE(&o->peers->trace, TRACE_INFO, "peer.up", "id=%" PRIu64 " addr=%s", o->id, o->addr);
	out_move(o, OUT_STREAM, now_ms + LOOK_MS);
}

/* CURLOPT_READFUNCTION: the header has left, the peer said "go on", the buffer before is written.
 */
static size_t out_read(char *to, size_t size, size_t n, void *arg)
{
	struct peer_out *o = arg;
	size_t taken;

	o->reads++;
	if (o->state == OUT_CONNECT) {
		out_admitted(o);
	}
	taken = buf_take(&o->buf, to, size * n);
	if (taken == 0) {
		o->paused = true;
		return CURL_READFUNC_PAUSE;
	}
	return taken;
}

/* CURLOPT_WRITEFUNCTION: the body of a refusal, for people with other tools. */
static size_t out_ignore(char *data, size_t size, size_t n, void *arg)
{
	return size * n;
}

/* --- connecting -------------------------------------------------------------------------- */

static void header_add(struct curl_slist **list, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void header_add(struct curl_slist **list, const char *fmt, ...)
{
	char line[2048]; /* the longest has the secret: peers_open() has limited it */
	struct curl_slist *longer;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	ASSERT(len > 0 && (size_t)len < sizeof line);
	longer = curl_slist_append(*list, line);
	ASSERT(longer != NULL); /* memory: as xmalloc() */
	*list = longer;
}

struct curl_slist *peer_out_headers(const struct peers *p)
{
	struct curl_slist *list = NULL;
	char hex[2 * sizeof p->uuid + 1];

	for (size_t i = 0; i < sizeof p->uuid; i++) {
		(void)snprintf(hex + 2 * i, 3, "%02x", p->uuid[i]);
	}
	header_add(&list, "Authorization: Bearer %s", p->secret);
	header_add(&list, "X-Coordfs-Id: %" PRIu64, p->id);
	header_add(&list, "X-Coordfs-Uuid: %s", hex);
	header_add(&list, "X-Coordfs-Format: %u", WIRE_FORMAT);
	header_add(&list, "Content-Type: application/octet-stream");
	header_add(&list, "Transfer-Encoding: chunked");
	header_add(&list, "Expect: 100-continue");
	return list;
}

/* What cannot fail but for memory: as xmalloc(). */
#define SET(easy, option, value)                                                                   \
	do {                                                                                       \
		CURLcode set_ = curl_easy_setopt((easy), (option), (value));                       \
		ASSERT(set_ == CURLE_OK);                                                          \
	} while (0)

static CURL *out_easy(struct peer_out *o)
{
	CURL *easy = curl_easy_init();
	char url[RAFT_ADDR_MAX + 16];

	ASSERT(easy != NULL);
	(void)snprintf(url, sizeof url, "http://%s/peer", o->addr);
	SET(easy, CURLOPT_URL, url);
	SET(easy, CURLOPT_PROTOCOLS_STR, "http");
	SET(easy, CURLOPT_PROXY, ""); /* whatever the environment says */
	SET(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(easy, CURLOPT_HTTPHEADER, o->peers->headers);
	SET(easy, CURLOPT_POST, 1L);
	SET(easy, CURLOPT_READFUNCTION, out_read);
	SET(easy, CURLOPT_READDATA, o);
	SET(easy, CURLOPT_WRITEFUNCTION, out_ignore);
	SET(easy, CURLOPT_OPENSOCKETFUNCTION, out_socket_open);
	SET(easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
	SET(easy, CURLOPT_TCP_NODELAY, 1L);
	SET(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	SET(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 2L * ADMIT_MS); /* never; we give up before */
	SET(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);                /* containers move */
	SET(easy, CURLOPT_QUICK_EXIT, 1L); /* do not wait for a look-up on removal */
	SET(easy, CURLOPT_FORBID_REUSE, 1L);
	SET(easy, CURLOPT_NOSIGNAL, 1L);
	SET(easy, CURLOPT_ERRORBUFFER, o->error);
	SET(easy, CURLOPT_PRIVATE, o);
	return easy;
}

static void out_connect(struct peer_out *o)
{
	uint64_t now_ms = uv_now(o->peers->loop);
	int rc;

	o->error[0] = '\0';
	o->fd = CURL_SOCKET_BAD;
	o->hung_up = false;
	o->paused = false;
	o->announced = false;
	o->written = 0;
	o->acked_ms = now_ms;
	o->easy = out_easy(o);
	rc = curl_loop_add(&o->peers->curl, o->easy);
	ASSERT(rc == 0); /* memory: as xmalloc() */
	out_move(o, OUT_CONNECT, now_ms + LOOK_MS);
}

/* --- health ------------------------------------------------------------------------------ */

/* Why the connection is to be given up, or NULL. */
static const char *out_stalled(struct peer_out *o, uint64_t now_ms)
{
	struct tcp_info tcp = {0};
	socklen_t len = sizeof tcp;
	curl_off_t written = 0;

	if (o->fd == CURL_SOCKET_BAD || getsockopt(o->fd, IPPROTO_TCP, TCP_INFO, &tcp, &len) < 0) {
		return NULL; /* not connected: CONNECT_MS is libcurl's business */
	}
	/* A full window is another matter: it leaves nothing unacknowledged, and its probes are
	 * answered. */
	if (tcp.tcpi_unacked == 0 || tcp.tcpi_last_ack_recv < LOOK_MS) {
		o->acked_ms = now_ms;
	}
	(void)curl_easy_getinfo(o->easy, CURLINFO_SIZE_UPLOAD_T, &written); /* stays 0 */
	if (o->state != OUT_STREAM || o->paused || written != o->written) {
		o->written = written;
		o->written_ms = now_ms;
	}
	if (now_ms - o->acked_ms >= ACK_STALL_MS) {
		return "what was sent is not acknowledged";
	}
	if (now_ms - o->written_ms >= WRITE_STALL_MS) {
		return "it does not read";
	}
	if (o->state == OUT_CONNECT && now_ms - o->since_ms >= ADMIT_MS) {
		return "it does not answer";
	}
	return NULL;
}

void peer_out_due(struct peer_out *o, uint64_t now_ms)
{
	const char *stalled;

	if (o->state == OUT_WAIT) {
		out_connect(o);
		return;
	}
	stalled = out_stalled(o, now_ms);
	if (stalled != NULL) {
		trace_failure(o, stalled);
		out_wait(o, PAUSE_MIN_MS);
	} else {
		o->due_ms = now_ms + LOOK_MS;
	}
}

void peer_out_nudge(struct peer_out *o)
{
	uint64_t now_ms = uv_now(o->peers->loop);

	if (o->state == OUT_CONNECT && now_ms - o->since_ms >= NUDGE_MS) {
		out_wait(o, 0);
	} else if (o->state == OUT_WAIT && o->refused_status == 0) {
		out_move(o, OUT_WAIT, now_ms);
	}
}

/* --- frames ------------------------------------------------------------------------------ */

static void out_dropped(struct peer_out *o)
{
	uint64_t now_ms = uv_now(o->peers->loop);

	o->dropped++;
	if (now_ms - o->dropped_ms >= DROP_WARN_EVERY_MS) {
		TRACE(&o->peers->trace, TRACE_WARN, "peer.overflow",
			"id=%" PRIu64 " waiting_bytes=%zu dropped_frames=%" PRIu64, o->id,
			buf_bytes(&o->buf), o->dropped);
		o->dropped_ms = now_ms;
		o->dropped = 0;
	}
}

void peer_out_send(struct peer_out *o, const void *frame, size_t len)
{
	if (buf_bytes(&o->buf) + len > o->peers->buffer_bytes_max) {
		out_dropped(o);
		return;
	}
	buf_append(&o->buf, frame, len);
}

void peer_out_flush(struct peer_out *o)
{
	if (o->state != OUT_STREAM || !o->paused) {
		return; /* the kernel is full: libcurl goes on when it has room */
	}
	o->paused = false;
	if (curl_easy_pause(o->easy, CURLPAUSE_CONT) != CURLE_OK) {
		return; /* the transfer is broken, and will be reported */
	}
	/* Each call reads and writes once; the last finds nothing to read and pauses, so that the
	 * loop does not have to watch for the socket to become writable. */
	for (int i = 0; i <= FLUSH_WRITES_MAX && !o->paused; i++) {
		uint64_t reads = o->reads;

		curl_loop_write(&o->peers->curl, o->fd);
		if (o->reads == reads) {
			return;
		}
	}
}

/* --- life -------------------------------------------------------------------------------- */

struct peer_out *peer_out_new(struct peers *p, uint64_t id, const char *addr)
{
	struct peer_out *o = xcalloc(1, sizeof *o);

	o->peers = p;
	o->id = id;
	(void)snprintf(o->addr, sizeof o->addr, "%s", addr);
	o->pause_ms = PAUSE_MIN_MS;
	out_move(o, OUT_WAIT, uv_now(p->loop));
	return o;
}

void peer_out_free(struct peer_out *o)
{
	if (o == NULL) {
		return;
	}
	if (o->easy != NULL) {
		curl_loop_remove(&o->peers->curl, o->easy);
		curl_easy_cleanup(o->easy);
	}
	buf_fini(&o->buf);
	free(o);
}
