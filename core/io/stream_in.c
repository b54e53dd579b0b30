/*
 * stream_in.c - incoming streams: bytes to frames.
 *
 * A frame that is whole within the bytes at hand is delivered from where it
 * lies; only one that is cut by the end of a chunk is put together in a buffer
 * of the stream's own. The buffer is never larger than a frame may be.
 */
#include <errno.h>
#include <sys/socket.h>

#include "core/io/peers_internal.h"
#include "core/wire.h"

#define BODY_BYTES_MAX (WIRE_FRAME_BYTES_MAX - WIRE_FRAME_HEADER_BYTES)
/* A larger buffer is given back after its frame. */
#define BODY_KEEP_BYTES (256u << 10)

/* What still comes over it is thrown away; its connection is on its way out. */
static void stream_end(struct stream_in *s)
{
	HASH_DELETE(hh, s->peers->in.streams, s);
	s->ended = true;
	(void)shutdown(s->fd, SHUT_RDWR); /* may be cut already; libmicrohttpd sees the end */
}

struct stream_in *stream_in_new(struct peers *p, uint64_t from, int fd)
{
	struct stream_in *s, *older;

	HASH_FIND(hh, p->in.streams, &from, sizeof from, older);
	if (older != NULL) {
		stream_end(older);
	}
	s = xcalloc(1, sizeof *s);
	s->kind = IN_STREAM;
	s->peers = p;
	s->from = from;
	s->fd = fd;
	HASH_ADD(hh, p->in.streams, from, sizeof s->from, s);
	return s;
}

void stream_in_free(struct stream_in *s)
{
	if (s == NULL) {
		return;
	}
	if (!s->ended) {
		HASH_DELETE(hh, s->peers->in.streams, s);
	}
	free(s->body);
	free(s);
}

static uint32_t frame_len(const uint8_t *header)
{
	return (uint32_t)header[0] | (uint32_t)header[1] << 8 | (uint32_t)header[2] << 16 |
	       (uint32_t)header[3] << 24;
}

static void deliver(struct stream_in *s, const void *body, size_t len)
{
	struct peers *p = s->peers;

	p->in.delivered = true;
	p->events.frame(p->events.ctx, s->from, body, len);
}

static int frame_check(struct stream_in *s, uint32_t len)
{
	if (len > 0 && len <= BODY_BYTES_MAX) {
		return 0;
	}
	TRACE(&s->peers->trace, TRACE_WARN, "stream.bad_frame",
		"from=%" PRIu64 " length=%" PRIu32 ", closing the stream", s->from, len);
	stream_end(s);
	return -EPROTO;
}

/* Takes bytes for the frame that has come in part; returns how many. */
static size_t gather(struct stream_in *s, const uint8_t *data, size_t len)
{
	size_t n;

	if (s->header_have < sizeof s->header) {
		n = MIN(len, sizeof s->header - s->header_have);
		memcpy(s->header + s->header_have, data, n);
		s->header_have += n;
		return n;
	}
	n = MIN(len, s->body_len - s->body_have);
	memcpy(s->body + s->body_have, data, n);
	s->body_have += n;
	return n;
}

static int body_begin(struct stream_in *s)
{
	uint32_t len = frame_len(s->header);
	int rc = frame_check(s, len);

	if (rc < 0) {
		return rc;
	}
	if (s->body_cap < len) {
		free(s->body);
		s->body = xmalloc(len);
		s->body_cap = len;
	}
	s->body_len = len;
	s->body_have = 0;
	return 0;
}

static void body_done(struct stream_in *s)
{
	deliver(s, s->body, s->body_len);
	s->header_have = 0;
	s->body_len = 0;
	s->body_have = 0;
	if (s->body_cap > BODY_KEEP_BYTES) {
		free(TAKE(s->body));
		s->body_cap = 0;
	}
}

/* Frames that are whole in `data`; returns how many bytes they took, or a negative errno. */
static ssize_t deliver_whole(struct stream_in *s, const uint8_t *data, size_t len)
{
	size_t at = 0;

	while (!s->ended && !s->peers->closing && len - at >= WIRE_FRAME_HEADER_BYTES) {
		uint32_t body_len = frame_len(data + at);
		int rc = frame_check(s, body_len);

		if (rc < 0) {
			return rc;
		}
		if (len - at - WIRE_FRAME_HEADER_BYTES < body_len) {
			break;
		}
		deliver(s, data + at + WIRE_FRAME_HEADER_BYTES, body_len);
		at += WIRE_FRAME_HEADER_BYTES + body_len;
	}
	return (ssize_t)at;
}

int stream_in_data(struct stream_in *s, const void *data, size_t len)
{
	const uint8_t *at = data;
	const uint8_t *end = at + len;

	while (at < end && !s->ended && !s->peers->closing) {
		if (s->header_have == 0) {
			ssize_t whole = deliver_whole(s, at, (size_t)(end - at));

			if (whole < 0) {
				return (int)whole;
			}
			at += whole;
		}
		at += gather(s, at, (size_t)(end - at));
		if (s->header_have < sizeof s->header) {
			continue;
		}
		if (s->body_len == 0) {
			int rc = body_begin(s);

			if (rc < 0) {
				return rc;
			}
		} else if (s->body_have == s->body_len) {
			body_done(s);
		}
	}
	return s->ended || s->peers->closing ? -ESHUTDOWN : 0;
}
