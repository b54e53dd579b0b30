/*
 * peers_internal.h - what the files behind peers.h share.
 *
 *   peers.c      open, close, the set of peers, the end of a turn, the one clock
 *   peer_out.c   one outgoing stream: libcurl's side
 *   http_in.c    the port: connections, authentication, requests (libmicrohttpd's side)
 *   stream_in.c  incoming streams: bytes to frames
 *
 * Callbacks of the owner (peers_events) are called from uv callbacks only, never
 * on a stack that has libcurl on it; so whatever the owner calls from there may
 * call libcurl. libmicrohttpd may be on the stack: what the owner calls does no
 * more to it than queue an answer or resume a request.
 */
#ifndef COORDFS_IO_PEERS_INTERNAL_H
#define COORDFS_IO_PEERS_INTERNAL_H

#include <curl/curl.h>
#include <microhttpd.h>
#include <uthash.h>

#include "core/io/curl_loop.h"
#include "core/io/peers.h"

#define NEVER UINT64_MAX

/* --- outgoing streams (peer_out.c) ------------------------------------------------------- */

/*
 *   state    easy  buffer   leaves it
 *   WAIT     none  empty    at due_ms: CONNECT
 *   CONNECT  one   empty    the peer has admitted the stream: STREAM; any error: WAIT
 *   STREAM   one   frames   any error: WAIT
 */
enum out_state {
	OUT_WAIT,
	OUT_CONNECT,
	OUT_STREAM,
};

/* Bytes on their way out, first in, first out. */
struct out_buf {
	uint8_t *data; /* owned */
	size_t head;   /* what is before it has left */
	size_t len;    /* end of what is in it */
	size_t cap;
};

struct peer_out {
	struct peers *peers; /* borrowed */
	uint64_t id;
	char addr[RAFT_ADDR_MAX];
	enum out_state state;
	CURL *easy; /* owned */
	char error[CURL_ERROR_SIZE];
	curl_socket_t fd; /* of `easy`, once it has one; in STREAM: the connection */
	struct out_buf buf;
	bool paused;    /* libcurl has taken everything and waits to be woken */
	bool queued;    /* on peers->queued: frames since the last flush */
	bool announced; /* events.up has been called for this stream */
	bool hung_up;   /* the peer has closed the stream, it seems */
	uint64_t reads; /* times that libcurl has come for bytes */

	uint64_t due_ms;     /* WAIT: connect; else: look at the connection */
	uint64_t since_ms;   /* in this state */
	uint32_t pause_ms;   /* before the next attempt */
	curl_off_t written;  /* bytes that the kernel had taken at the last look */
	uint64_t written_ms; /* when that last moved, or did not have to */
	uint64_t acked_ms;   /* when all was last acknowledged, or some of it was lately */

	long refused_status; /* of the last attempt, 0: none */
	uint64_t refused_ms; /* when that was last traced */
	uint64_t dropped;    /* frames over the limit, since last traced */
	uint64_t dropped_ms; /* when that was last traced */

	struct peer_out *prev; /* on peers->queued */
	struct peer_out *next;
	UT_hash_handle hh; /* in peers->outs, by id */
};

struct peer_out *peer_out_new(struct peers *p, uint64_t id, const char *addr);
void peer_out_free(struct peer_out *o);
void peer_out_send(struct peer_out *o, const void *frame, size_t len);
/* What is queued goes to the kernel, as far as it takes it. Then peers_settle(). */
void peer_out_flush(struct peer_out *o);
/* Called when due_ms has come. */
void peer_out_due(struct peer_out *o, uint64_t now_ms);
/* The peer is alive: it has just opened a stream to us. */
void peer_out_nudge(struct peer_out *o);
void peer_out_ended(struct peer_out *o, CURLcode rc);
/* From inside libcurl: takes note. Then, from outside, the second. */
void peer_out_watching(struct peer_out *o, curl_socket_t fd, bool begins);
void peer_out_settle(struct peer_out *o);
/* What every stream of this node says of itself. NULL: no memory. */
struct curl_slist *peer_out_headers(const struct peers *p);

/* --- incoming streams (stream_in.c) ------------------------------------------------------ */

/* First member of what libmicrohttpd keeps for a request. */
enum in_kind {
	IN_STREAM,
	IN_REQUEST,
};

struct stream_in {
	enum in_kind kind;
	struct peers *peers; /* borrowed */
	uint64_t from;
	int fd;
	bool ended; /* replaced or broken: what still comes is thrown away */
	/* A frame that has come in part: first its header, then its body. */
	uint8_t header[4];
	size_t header_have;
	uint8_t *body; /* owned */
	size_t body_have;
	size_t body_len;
	size_t body_cap;
	UT_hash_handle hh; /* in peers->in.streams by `from`, unless ended */
};

/* The stream replaces an older one from the same node. */
struct stream_in *stream_in_new(struct peers *p, uint64_t from, int fd);
void stream_in_free(struct stream_in *s);
/* -EPROTO: not frames, -ESHUTDOWN: it has been replaced. The connection is to be closed. */
int stream_in_data(struct stream_in *s, const void *data, size_t len);

/* --- the port (http_in.c) ---------------------------------------------------------------- */

struct in_conn;
struct in_denial;

struct http_in {
	struct MHD_Daemon *daemon; /* owned */
	uv_poll_t poll;            /* on the daemon's epoll */
	uv_timer_t timer;
	struct stream_in *streams;     /* borrowed from libmicrohttpd's requests */
	struct peers_request *waiting; /* their owner has not answered yet */
	struct in_conn *strangers;     /* connections not authenticated yet, oldest first */
	size_t n_strangers;
	struct in_denial *denials; /* owned */
	bool more;                 /* the daemon has work left */
	bool delivered;            /* a frame or request since the last turn */
};

int http_in_open(struct peers *p, const char *listen_addr, char *err, size_t err_size);
/* Closes the port and its uv handles; each of them calls `closed`. */
void http_in_close(struct peers *p, uv_close_cb closed);
/* One round of the daemon. The caller ends the turn. */
void http_in_run(struct peers *p);
/* Ends connections that are strangers for too long; returns when to look next. */
uint64_t http_in_expire(struct peers *p, uint64_t now_ms);

/* --- all of it (peers.c) ----------------------------------------------------------------- */

struct peers {
	uv_loop_t *loop; /* borrowed */
	struct peers_events events;
	struct tracer trace;
	uint64_t id;
	uint8_t uuid[16];
	char *secret; /* owned */
	size_t buffer_bytes_max;

	struct http_in in;
	struct curl_loop curl;
	struct curl_slist *headers; /* owned */
	struct peer_out *outs;      /* owned, by id */
	struct peer_out *queued;    /* of them: has frames since the last flush */
	bool hung_up;               /* one of them has */

	uv_timer_t watch; /* for whatever is due first */
	uint64_t watch_ms;
	uv_idle_t again; /* runs while something is left to do at once */

	bool closing;
	size_t open; /* handles and parts whose end is still to come */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* After calls to libcurl: what they led to is carried out. */
void peers_settle(struct peers *p);
/* Something is due at `due_ms`. */
void peers_watch_at(struct peers *p, uint64_t due_ms);
/* Come back in the next turn of the loop, without waiting. */
void peers_run_again(struct peers *p);
/* A stream from `id` has been admitted: if there is none to it, now is the time for one. */
void peers_nudge(struct peers *p, uint64_t id);
/* Tell the owner what this wake-up brought, and that it was all. */
void peers_end_turn(struct peers *p);

#endif
