/*
 * curl_loop.c - libcurl's multi interface on a uv loop: see curl_loop.h.
 */
#include "core/io/curl_loop.h"

#include <errno.h>
#include <utlist.h>

#include "coordfs/check.h"
#include "coordfs/util.h"

struct curl_socket {
	uv_poll_t poll;
	struct curl_loop *owner; /* borrowed */
	curl_socket_t fd;
	int wanted; /* UV_READABLE | UV_WRITABLE */
	int polled; /* what uv watches for, or NOT_OPEN */
	bool is_changed;
	struct curl_socket *prev; /* on owner->changed */
	struct curl_socket *next;
};

#define NOT_OPEN (-1)

static void socket_polled(uv_poll_t *poll, int status, int events)
{
	struct curl_socket *s = poll->data;
	struct curl_loop *c = s->owner;
	int what = status < 0 ? CURL_CSELECT_ERR : 0;
	int running;

	what |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
	what |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
	(void)curl_multi_socket_action(c->multi, s->fd, what, &running); /* `s` may be gone now */
	curl_loop_settle(c);
	c->events.woken(c->events.ctx);
}

static void timer_ran(uv_timer_t *timer)
{
	struct curl_loop *c = timer->data;
	int running;

	(void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	curl_loop_settle(c);
	c->events.woken(c->events.ctx);
}

static void handle_closed(struct curl_loop *c)
{
	c->open--;
	if (c->open == 0) {
		c->closed(c->events.ctx);
	}
}

static void timer_closed(uv_handle_t *h)
{
	handle_closed(h->data);
}

static void socket_closed(uv_handle_t *h)
{
	struct curl_socket *s = h->data;
	struct curl_loop *c = s->owner;

	free(s);
	handle_closed(c);
}

static void socket_drop(struct curl_loop *c, struct curl_socket *s)
{
	if (s->is_changed) {
		DL_DELETE(c->changed, s);
	}
	if (s->polled == NOT_OPEN) {
		free(s);
	} else {
		uv_close((uv_handle_t *)&s->poll, socket_closed); /* stops it at once */
	}
}

static struct curl_socket *socket_new(struct curl_loop *c, curl_socket_t fd)
{
	struct curl_socket *s = xcalloc(1, sizeof *s);

	s->owner = c;
	s->fd = fd;
	s->polled = NOT_OPEN;
	(void)curl_multi_assign(c->multi, fd, s); /* the socket is known: libcurl just named it */
	return s;
}

/* CURLMOPT_SOCKETFUNCTION */
static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct curl_loop *c = arg;
	struct curl_socket *s = socket_arg;

	c->events.watching(c->events.ctx, easy, fd, what != CURL_POLL_REMOVE);
	if (what == CURL_POLL_REMOVE) {
		if (s != NULL) {
			(void)curl_multi_assign(c->multi, fd, NULL); /* it forgets it anyway */
			socket_drop(c, s);
		}
		return 0;
	}
	if (s == NULL) {
		s = socket_new(c, fd);
	}
	s->wanted = what & CURL_POLL_IN ? UV_READABLE : 0;
	s->wanted |= what & CURL_POLL_OUT ? UV_WRITABLE : 0;
	if (!s->is_changed) {
		s->is_changed = true;
		DL_APPEND(c->changed, s);
	}
	return 0;
}

/* CURLMOPT_TIMERFUNCTION */
static int timer_wanted(CURLM *multi, long timeout_ms, void *arg)
{
	struct curl_loop *c = arg;

	if (timeout_ms < 0) {
		(void)uv_timer_stop(&c->timer); /* cannot fail */
	} else {
		/* Fails only while closing, when there is nothing to time. */
		(void)uv_timer_start(&c->timer, timer_ran, (uint64_t)timeout_ms, 0);
	}
	return 0;
}

void curl_loop_init(struct curl_loop *c, uv_loop_t *loop, const struct curl_loop_events *events)
{
	*c = (struct curl_loop){.loop = loop, .events = *events, .open = 1};
	c->multi = curl_multi_init();
	ASSERT(c->multi != NULL);
	(void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
	(void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	(void)curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
	(void)curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	(void)uv_timer_init(loop, &c->timer); /* cannot fail */
	c->timer.data = c;
}

void curl_loop_close(struct curl_loop *c, void (*closed)(void *ctx))
{
	c->closed = closed;
	(void)curl_multi_cleanup(c->multi); /* drops the sockets that are left */
	c->multi = NULL;
	uv_close((uv_handle_t *)&c->timer, timer_closed);
}

int curl_loop_add(struct curl_loop *c, CURL *easy)
{
	return curl_multi_add_handle(c->multi, easy) == CURLM_OK ? 0 : -ENOMEM;
}

void curl_loop_remove(struct curl_loop *c, CURL *easy)
{
	CURLMcode rc = curl_multi_remove_handle(c->multi, easy);

	ASSERT(rc == CURLM_OK);
}

void curl_loop_write(struct curl_loop *c, curl_socket_t fd)
{
	int running;

	/* What went wrong with a transfer is reported at its end. */
	(void)curl_multi_socket_action(c->multi, fd, CURL_CSELECT_OUT, &running);
}

static void socket_apply(struct curl_loop *c, struct curl_socket *s)
{
	int rc = 0;

	if (s->polled == NOT_OPEN) {
		rc = uv_poll_init_socket(c->loop, &s->poll, s->fd);
		ASSERT(rc == 0); /* an open socket that no other handle watches */
		s->poll.data = s;
		s->polled = 0;
		c->open++;
	}
	if (s->polled == s->wanted) {
		return;
	}
	s->polled = s->wanted;
	rc = s->wanted == 0 ? uv_poll_stop(&s->poll)
			    : uv_poll_start(&s->poll, s->wanted, socket_polled);
	ASSERT(rc == 0);
}

void curl_loop_settle(struct curl_loop *c)
{
	struct curl_socket *s, *next;
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(c->multi, &left)) != NULL) {
		if (msg->msg == CURLMSG_DONE) {
			c->events.ended(c->events.ctx, msg->easy_handle, msg->data.result);
		}
	}
	DL_FOREACH_SAFE (c->changed, s, next) {
		DL_DELETE(c->changed, s);
		s->is_changed = false;
		socket_apply(c, s);
	}
}
