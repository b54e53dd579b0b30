/*
 * wire.h - frames between nodes, from and to bytes.
 *
 * Encoding and decoding are protobuf-c's (wire.proto); this file turns raft's
 * messages into frames and back, and keeps the limits: whatever a peer sends
 * is either decoded or refused, with lengths and ids checked.
 */
#ifndef COORDFS_WIRE_H
#define COORDFS_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "core/raft/raft.h"
#include "core/wire.pb-c.h"

/* Of commands and snapshots. A reader refuses a newer one. */
#define WIRE_FORMAT 1u

/* One frame, header included. Above the largest append batch and snapshot chunk. */
#define WIRE_FRAME_BYTES_MAX (4u << 20)
/* Little-endian length of the body before each frame. */
#define WIRE_FRAME_HEADER_BYTES 4u

/* Growing buffer of bytes; zero-initialised is empty. */
struct wire_buf {
	uint8_t *data; /* owned */
	size_t len;
	size_t cap;
};

void wire_buf_fini(struct wire_buf *b);
/* Makes room for `bytes` more and returns where they start; len does not change. */
uint8_t *wire_buf_reserve(struct wire_buf *b, size_t bytes);
void wire_buf_append(struct wire_buf *b, const void *data, size_t bytes);

/* Append header and body of one frame to `out`. It must stay below WIRE_FRAME_BYTES_MAX. */
void wire_encode_frame(const Wire__Frame *frame, struct wire_buf *out);
/* The same for a message of raft, without building protobuf-c's structs for its entries. */
void wire_encode_raft(const struct raft_msg *msg, struct wire_buf *out);

/* A decoded frame with the memory it needs; everything goes with wire_frame_free(). */
struct wire_frame;
/*
 * `body` is the frame without its header; it is copied. A frame whose body is of a kind that
 * only a later release knows is decoded, as WIRE__FRAME__BODY__NOT_SET: skip it.
 *
 * -EBADMSG  not a frame, or one with a length, id or kind that no node sends
 * -ENOMEM   no memory for it
 */
int wire_decode_frame(const void *body, size_t len, struct wire_frame **ret_frame);
void wire_frame_free(struct wire_frame *f);
const Wire__Frame *wire_frame_body(const struct wire_frame *f);
/* For a frame whose body is Raft: as raft takes it. `from` and `to` are 0: who received the frame
 * knows them, from the stream, and fills them in. Borrowed from `f`, which holds one reference to
 * each entry. NULL: another kind of frame. */
struct raft_msg *wire_frame_raft(struct wire_frame *f);

#endif
