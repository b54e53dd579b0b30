/*
 * peers.h - streams between nodes, over one HTTP port.
 *
 * To each other node this one holds one `POST /peer` whose chunked body never
 * ends: frames, one direction. libcurl (multi interface on the uv loop) sends,
 * libmicrohttpd (external epoll on the uv loop) receives as the bytes arrive. A
 * stream is authenticated at its start: the cluster's secret as a bearer token
 * (compared in constant time; a wrong one gets 401 and a trace line), the
 * sender's id and data-directory uuid, the format version. An id that the node
 * does not admit gets 409, another format 426; "100 Continue" admits. A newer
 * stream from the same id replaces the older one.
 *
 * Happy path of a sender: CONNECT, STREAM. Failures: any error goes to WAIT and,
 * after a short growing pause (20 ms .. 500 ms), to CONNECT again. Frames sent while
 * there is no stream are dropped, as are frames beyond the limit of what waits for
 * a slow peer: the protocols above resend.
 *
 * The same port serves other requests (POST /members …) through `request`.
 */
#ifndef COORDFS_IO_PEERS_H
#define COORDFS_IO_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "coordfs/trace.h"
#include "core/raft/raft.h"

struct peers;
struct peers_request; /* an HTTP request that waits for its answer */

struct peers_events {
	void *ctx;
	bool (*admit)(void *ctx, uint64_t id, const uint8_t uuid[16]);
	/* A whole frame's body. `from` is who the stream was authenticated as. */
	void (*frame)(void *ctx, uint64_t from, const void *body, size_t len);
	/* The peer has admitted a new stream to it: frames sent from now on arrive, those of an
	 * earlier stream may not have. */
	void (*up)(void *ctx, uint64_t id);
	/* Everything that this wake-up brought has been delivered: end of a turn. */
	void (*turn)(void *ctx);
	/* Another request than POST /peer, authenticated, with its whole body (at most 1 MiB,
	 * beyond: 413). Answer now or later with peers_answer(). */
	void (*request)(void *ctx, struct peers_request *r, const char *method, const char *path,
		const void *body, size_t len);
};

struct peers_options {
	uint64_t id;
	uint8_t uuid[16];
	const char *listen;      /* host:port; port 0 is not allowed */
	const char *secret;      /* at least 16 bytes */
	size_t buffer_bytes_max; /* waiting for one peer; default (0): 64 MiB */
	struct tracer trace;
};

/* -EADDRINUSE, -EACCES, -EINVAL …; `err` gets one sentence. Listens at once. */
int peers_open(uv_loop_t *loop, const struct peers_options *o, const struct peers_events *events,
	struct peers **ret_peers, char *err, size_t err_size);

/* Hold streams to these servers, except ourselves, and to no others. */
void peers_set(struct peers *p, const struct raft_config *config);
/* Queue a whole frame (header and body; copied). Leaves at peers_flush(). */
void peers_send(struct peers *p, uint64_t to, const void *frame, size_t len);
/* End of a turn: what is queued for a peer leaves in one write. */
void peers_flush(struct peers *p);

/* Once for each request; `r` is gone then. What waits at peers_close() is answered 503 by itself
 * and must not be answered any more. */
void peers_answer(struct peers_request *r, int http_status, const char *content_type,
	const void *body, size_t len);

/* One HTTP request to any node, for joining and for tools; synchronous, not for the loop.
 * Returns the HTTP status or a negative errno; the answer's body is the caller's (free). */
int peers_ask(const char *host_port, const char *secret, const char *method, const char *path,
	const char *body, char **ret_body, char *err, size_t err_size);

/* Flushes. No event comes after this call; `closed` (or NULL) comes from the loop. */
void peers_close(struct peers *p, void (*closed)(void *ctx), void *ctx);

#endif
