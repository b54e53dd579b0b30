/*
 * peers.c - the set of peers and the ends of turns: see peers.h and peers_internal.h.
 *
 * One timer serves all that is due some time (attempts to connect, looks at a
 * connection's health, strangers that overstay): peers_watch_at() moves it
 * forward, its callback finds the next moment.
 *
 * Closing may be asked for from any callback, so it is done on a stack of its
 * own, by the idle handle: the port, libcurl, the handles; `closed` comes when the
 * last of them has reported its end.
 */
#include "core/io/peers.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <utlist.h>

#include "coordfs/util.h"
#include "core/io/peers_internal.h"

#define SECRET_BYTES_MIN 16
#define SECRET_BYTES_MAX 1024 /* arbitrary; it must fit into a request's header */
#define BUFFER_BYTES_DEFAULT (64u << 20)

/* --- turns ------------------------------------------------------------------------------- */

static struct peer_out *not_announced(struct peers *p)
{
	struct peer_out *o, *next;

	HASH_ITER (hh, p->outs, o, next) {
		if (o->state == OUT_STREAM && !o->announced) {
			return o;
		}
	}
	return NULL;
}

void peers_end_turn(struct peers *p)
{
	bool told = p->in.delivered;
	struct peer_out *o;

	p->in.delivered = false;
	/* From the start each time: the owner may change the set of peers. */
	while (!p->closing && (o = not_announced(p)) != NULL) {
		o->announced = true;
		told = true;
		p->events.up(p->events.ctx, o->id);
	}
	if (told && !p->closing) {
		p->events.turn(p->events.ctx);
	}
}

void peers_settle(struct peers *p)
{
	struct peer_out *o, *next;

	curl_loop_settle(&p->curl);
	if (!p->hung_up) {
		return;
	}
	p->hung_up = false;
	HASH_ITER (hh, p->outs, o, next) {
		peer_out_settle(o);
	}
	curl_loop_settle(&p->curl);
}

static void close_now(struct peers *p);

static void again_ran(uv_idle_t *again)
{
	struct peers *p = again->data;

	(void)uv_idle_stop(again); /* cannot fail */
	if (p->closing) {
		close_now(p);
		return;
	}
	if (p->in.more) {
		http_in_run(p);
	}
	peers_end_turn(p);
}

void peers_run_again(struct peers *p)
{
	(void)uv_idle_start(&p->again, again_ran); /* cannot fail */
}

/* --- what is due ------------------------------------------------------------------------- */

static void watch_ran(uv_timer_t *watch)
{
	struct peers *p = watch->data;
	uint64_t now_ms = uv_now(p->loop);
	struct peer_out *o, *next;

	p->watch_ms = NEVER;
	HASH_ITER (hh, p->outs, o, next) {
		if (o->due_ms <= now_ms) {
			peer_out_due(o, now_ms);
		}
		peers_watch_at(p, o->due_ms);
	}
	peers_watch_at(p, http_in_expire(p, now_ms));
	peers_settle(p);
}

void peers_watch_at(struct peers *p, uint64_t due_ms)
{
	uint64_t now_ms = uv_now(p->loop);

	if (due_ms >= p->watch_ms || p->closing) {
		return;
	}
	p->watch_ms = due_ms;
	/* Cannot fail: not closing. */
	(void)uv_timer_start(&p->watch, watch_ran, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

/* --- the set of peers -------------------------------------------------------------------- */

static struct peer_out *out_find(struct peers *p, uint64_t id)
{
	struct peer_out *o;

	HASH_FIND(hh, p->outs, &id, sizeof id, o);
	return o;
}

void peers_nudge(struct peers *p, uint64_t id)
{
	struct peer_out *o = out_find(p, id);

	if (o != NULL) {
		peer_out_nudge(o);
		peers_settle(p);
	}
}

static void out_drop(struct peers *p, struct peer_out *o)
{
	HASH_DELETE(hh, p->outs, o);
	if (o->queued) {
		DL_DELETE(p->queued, o);
	}
	peer_out_free(o);
}

void peers_set(struct peers *p, const struct raft_config *config)
{
	struct peer_out *o, *next;

	if (p->closing) {
		return;
	}
	HASH_ITER (hh, p->outs, o, next) {
		const struct raft_server *s = raft_config_find(config, o->id);

		if (s == NULL || strcmp(s->addr, o->addr) != 0) {
			out_drop(p, o);
		}
	}
	for (size_t i = 0; i < config->n; i++) {
		const struct raft_server *s = &config->servers[i];

		if (s->id != p->id && out_find(p, s->id) == NULL) {
			o = peer_out_new(p, s->id, s->addr);
			HASH_ADD(hh, p->outs, id, sizeof o->id, o);
			peers_watch_at(p, o->due_ms);
		}
	}
	peers_settle(p);
}

void peers_send(struct peers *p, uint64_t to, const void *frame, size_t len)
{
	struct peer_out *o = out_find(p, to);

	if (o == NULL || o->state != OUT_STREAM || p->closing) {
		return;
	}
	peer_out_send(o, frame, len);
	if (!o->queued) {
		o->queued = true;
		DL_APPEND(p->queued, o);
	}
}

void peers_flush(struct peers *p)
{
	struct peer_out *o, *next;

	if (p->queued == NULL || p->closing) {
		return;
	}
	DL_FOREACH_SAFE (p->queued, o, next) {
		DL_DELETE(p->queued, o);
		o->queued = false;
		peer_out_flush(o);
	}
	peers_settle(p);
	if (not_announced(p) != NULL) {
		peers_run_again(p); /* the owner is on this stack: tell it later */
	}
}

/* --- open and close ---------------------------------------------------------------------- */

static void part_closed(struct peers *p)
{
	p->open--;
	if (p->open > 0) {
		return;
	}
	void (*closed)(void *ctx) = p->closed;
	void *ctx = p->closed_ctx;

	curl_slist_free_all(p->headers);
	free(p->secret);
	free(p);
	curl_global_cleanup();
	if (closed != NULL) {
		closed(ctx);
	}
}

static void handle_closed(uv_handle_t *h)
{
	part_closed(h->data);
}

static void curl_closed(void *ctx)
{
	part_closed(ctx);
}

static void close_now(struct peers *p)
{
	struct peer_out *o, *next;

	HASH_ITER (hh, p->outs, o, next) {
		out_drop(p, o);
	}
	if (p->in.daemon != NULL) {
		p->open += 2; /* its poll and its timer */
		http_in_close(p, handle_closed);
	}
	p->open += 3;
	curl_loop_close(&p->curl, curl_closed);
	uv_close((uv_handle_t *)&p->watch, handle_closed);
	uv_close((uv_handle_t *)&p->again, handle_closed);
}

void peers_close(struct peers *p, void (*closed)(void *ctx), void *ctx)
{
	ASSERT(!p->closing);
	peers_flush(p);
	p->closing = true;
	p->closed = closed;
	p->closed_ctx = ctx;
	peers_run_again(p);
}

static struct peer_out *out_of(CURL *easy)
{
	char *private = NULL;

	(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private); /* set by peer_out.c */
	return (struct peer_out *)(void *)private;
}

static void transfer_ended(void *ctx, CURL *easy, CURLcode rc)
{
	peer_out_ended(out_of(easy), rc);
}

static void transfer_watching(void *ctx, CURL *easy, curl_socket_t fd, bool begins)
{
	peer_out_watching(out_of(easy), fd, begins);
}

static void woken(void *ctx)
{
	peers_settle(ctx);
	peers_end_turn(ctx);
}

static bool secret_is_usable(const char *secret)
{
	size_t len = strlen(secret);

	for (size_t i = 0; i < len; i++) {
		if (!isgraph((unsigned char)secret[i])) {
			return false;
		}
	}
	return len >= SECRET_BYTES_MIN && len <= SECRET_BYTES_MAX;
}

int peers_open(uv_loop_t *loop, const struct peers_options *o, const struct peers_events *events,
	struct peers **ret_peers, char *err, size_t err_size)
{
	struct peers *p;
	int rc;

	if (!secret_is_usable(o->secret)) {
		(void)snprintf(err, err_size,
			"the cluster secret must be %d to %d visible ASCII characters",
			SECRET_BYTES_MIN, SECRET_BYTES_MAX);
		return -EINVAL;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		(void)snprintf(err, err_size, "libcurl cannot be initialised");
		return -ENOMEM;
	}
	p = xcalloc(1, sizeof *p);
	p->loop = loop;
	p->events = *events;
	p->trace = o->trace;
	p->id = o->id;
	memcpy(p->uuid, o->uuid, sizeof p->uuid);
	p->secret = xstrdup(o->secret);
	p->buffer_bytes_max = o->buffer_bytes_max ? o->buffer_bytes_max : BUFFER_BYTES_DEFAULT;
	p->watch_ms = NEVER;
	p->headers = peer_out_headers(p);
	(void)uv_timer_init(loop, &p->watch); /* these two cannot fail */
	(void)uv_idle_init(loop, &p->again);
	p->watch.data = p;
	p->again.data = p;
	curl_loop_init(&p->curl, loop,
		&(struct curl_loop_events){.ctx = p,
			.ended = transfer_ended,
			.watching = transfer_watching,
			.woken = woken});

	rc = http_in_open(p, o->listen, err, err_size);
	if (rc < 0) {
		p->closing = true;
		close_now(p); /* its memory goes when the loop next turns */
		return rc;
	}
	*ret_peers = p;
	return 0;
}
