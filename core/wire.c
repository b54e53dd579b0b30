/*
 * wire.c - frames between nodes, from and to bytes.
 *
 * Encoding: raft's messages are the hot path, so their fields are written
 * straight from struct raft_msg. What comes out is, byte for byte, what
 * protobuf-c would write (the unit test compares); every field number here is one
 * of wire.proto.
 *
 * Decoding: protobuf-c allocates each message and each field by itself. Here it
 * takes them from an arena that belongs to the frame, so a frame costs one or
 * few mallocs and is freed at once; and a frame of some bytes cannot ask for
 * any amount of memory.
 */
#include "core/wire.h"

#include <errno.h>
#include <stdalign.h>

#include "coordfs/check.h"
#include "coordfs/util.h"

/* --- a growing buffer ---------------------------------------------------------------- */

void wire_buf_fini(struct wire_buf *b)
{
	free(b->data);
	*b = (struct wire_buf){0};
}

uint8_t *wire_buf_reserve(struct wire_buf *b, size_t bytes)
{
	if (b->data == NULL || b->cap - b->len < bytes) {
		ASSERT(bytes <= SIZE_MAX / 4 && b->len <= SIZE_MAX / 4);
		b->cap = MAX(MAX(2 * b->cap, b->len + bytes), 256); /* arbitrary least size */
		b->data = xrealloc(b->data, b->cap);
	}
	return b->data + b->len;
}

void wire_buf_append(struct wire_buf *b, const void *data, size_t bytes)
{
	if (bytes > 0) {
		memcpy(wire_buf_reserve(b, bytes), data, bytes);
		b->len += bytes;
	}
}

/* --- protobuf's wire format ---------------------------------------------------------- */

enum wire_type {
	VARINT = 0,
	BYTES = 2, /* length, then that many bytes: also for messages */
};

/* Numbers up to 15 make a tag of one byte. */
enum frame_field {
	FRAME_RAFT = 1
};
enum raft_field {
	RAFT_F_KIND = 1,
	RAFT_F_TERM,
	RAFT_F_INDEX,
	RAFT_F_LOG_TERM,
	RAFT_F_COMMIT,
	RAFT_F_ROUND,
	RAFT_F_OK,
	RAFT_F_TRANSFER,
	RAFT_F_ENTRIES,
	RAFT_F_OFFSET,
	RAFT_F_DONE,
	RAFT_F_DATA,
	RAFT_F_CONFIG,
};
enum entry_field {
	ENTRY_F_INDEX = 1,
	ENTRY_F_TERM,
	ENTRY_F_KIND,
	ENTRY_F_DATA
};

static size_t varint_size(uint64_t v)
{
	/* 7 bits a byte, at least one byte. */
	return ((size_t)(64 - __builtin_clzll(v | 1)) + 6) / 7;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static uint8_t *put_tag(uint8_t *p, unsigned field, enum wire_type type)
{
	*p++ = (uint8_t)(field << 3 | type);
	return p;
}

/* proto3: a zero is not sent. */
static size_t number_size(uint64_t v)
{
	return v == 0 ? 0 : 1 + varint_size(v);
}

static uint8_t *put_number(uint8_t *p, unsigned field, uint64_t v)
{
	return v == 0 ? p : put_varint(put_tag(p, field, VARINT), v);
}

/* Of a message or of bytes that are there. */
static size_t bytes_size(size_t len)
{
	return 1 + varint_size(len) + len;
}

static uint8_t *put_length(uint8_t *p, unsigned field, size_t len)
{
	return put_varint(put_tag(p, field, BYTES), len);
}

static uint8_t *put_bytes(uint8_t *p, unsigned field, const void *data, size_t len)
{
	p = put_length(p, field, len);
	memcpy(p, data, len);
	return p + len;
}

/* --- frames out ---------------------------------------------------------------------- */

/* Writes the header and returns where the body goes. */
static uint8_t *frame_begin(struct wire_buf *out, size_t body_len)
{
	uint8_t *p;

	ASSERT(body_len <= WIRE_FRAME_BYTES_MAX - WIRE_FRAME_HEADER_BYTES);
	p = wire_buf_reserve(out, WIRE_FRAME_HEADER_BYTES + body_len);
	for (unsigned i = 0; i < WIRE_FRAME_HEADER_BYTES; i++) {
		*p++ = (uint8_t)(body_len >> (8 * i));
	}
	return p;
}

static void frame_end(struct wire_buf *out, size_t body_len, const uint8_t *end)
{
	out->len += WIRE_FRAME_HEADER_BYTES + body_len;
	ASSERT(end == out->data + out->len);
}

void wire_encode_frame(const Wire__Frame *frame, struct wire_buf *out)
{
	size_t len = wire__frame__get_packed_size(frame);
	uint8_t *p = frame_begin(out, len);

	p += wire__frame__pack(frame, p);
	frame_end(out, len, p);
}

static size_t entry_size(const struct raft_entry *e)
{
	return number_size(e->index) + number_size(e->term) + number_size(e->kind) +
	       (e->len > 0 ? bytes_size(e->len) : 0);
}

static uint8_t *put_entry(uint8_t *p, const struct raft_entry *e)
{
	p = put_length(p, RAFT_F_ENTRIES, entry_size(e));
	p = put_number(p, ENTRY_F_INDEX, e->index);
	p = put_number(p, ENTRY_F_TERM, e->term);
	p = put_number(p, ENTRY_F_KIND, e->kind);
	return e->len > 0 ? put_bytes(p, ENTRY_F_DATA, e->data, e->len) : p;
}

/* The packed configuration; `data` NULL if the message has none. */
struct packed_config {
	uint8_t *data;
	size_t len;
};

static size_t raft_size(const struct raft_msg *m, const struct packed_config *config)
{
	size_t n = number_size(m->kind) + number_size(m->term) + number_size(m->index) +
		   number_size(m->log_term) + number_size(m->commit) + number_size(m->round) +
		   number_size(m->ok) + number_size(m->transfer) + number_size(m->offset) +
		   number_size(m->done);

	for (size_t i = 0; i < m->n_entries; i++) {
		n += bytes_size(entry_size(m->entries[i]));
	}
	if (m->data_len > 0) {
		n += bytes_size(m->data_len);
	}
	if (config->data != NULL) {
		n += bytes_size(config->len);
	}
	return n;
}

static uint8_t *put_raft(uint8_t *p, const struct raft_msg *m, const struct packed_config *config)
{
	p = put_number(p, RAFT_F_KIND, m->kind);
	p = put_number(p, RAFT_F_TERM, m->term);
	p = put_number(p, RAFT_F_INDEX, m->index);
	p = put_number(p, RAFT_F_LOG_TERM, m->log_term);
	p = put_number(p, RAFT_F_COMMIT, m->commit);
	p = put_number(p, RAFT_F_ROUND, m->round);
	p = put_number(p, RAFT_F_OK, m->ok);
	p = put_number(p, RAFT_F_TRANSFER, m->transfer);
	for (size_t i = 0; i < m->n_entries; i++) {
		p = put_entry(p, m->entries[i]);
	}
	p = put_number(p, RAFT_F_OFFSET, m->offset);
	p = put_number(p, RAFT_F_DONE, m->done);
	if (m->data_len > 0) {
		p = put_bytes(p, RAFT_F_DATA, m->data, m->data_len);
	}
	if (config->data != NULL) {
		p = put_bytes(p, RAFT_F_CONFIG, config->data, config->len);
	}
	return p;
}

void wire_encode_raft(const struct raft_msg *msg, struct wire_buf *out)
{
	struct packed_config config = {0};
	size_t raft_len;
	size_t len;
	uint8_t *p;

	if (msg->config != NULL) {
		raft_config_encode(msg->config, &config.data, &config.len);
	}
	raft_len = raft_size(msg, &config);
	len = bytes_size(raft_len);
	p = frame_begin(out, len);
	p = put_length(p, FRAME_RAFT, raft_len);
	p = put_raft(p, msg, &config);
	frame_end(out, len, p);
	free(config.data);
}

/* --- the memory of a decoded frame --------------------------------------------------- */

/*
 * What one frame may take. Commands of 30 bytes, the smallest that make sense,
 * take about four times their bytes in protobuf-c's structs and its scan of the fields; a
 * frame that takes more than eight times the largest frame is made to hurt.
 */
#define ARENA_BYTES_MAX (8 * (size_t)WIRE_FRAME_BYTES_MAX)

struct arena_block {
	struct arena_block *next; /* owned */
	size_t cap;
	size_t used;
	alignas(max_align_t) uint8_t bytes[];
};

struct wire_frame {
	ProtobufCAllocator allocator; /* takes from `blocks`; returns nothing */
	struct arena_block *blocks;   /* owned, newest first; the last one holds this struct */
	size_t arena_bytes;
	bool no_memory; /* malloc failed */
	Wire__Frame *body;
	bool is_raft;
	struct raft_msg raft; /* owns a reference to each entry */
	struct raft_config config;
};

static struct arena_block *block_new(size_t bytes)
{
	struct arena_block *b = malloc(sizeof *b + bytes);

	if (b != NULL) {
		*b = (struct arena_block){.cap = bytes};
	}
	return b;
}

/* 0 on overflow. */
static size_t align_up(size_t bytes)
{
	return (bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
}

/* NULL: does not fit. */
static void *block_take(struct arena_block *b, size_t bytes)
{
	void *p = b->bytes + b->used;

	if (b->cap - b->used < bytes) {
		return NULL;
	}
	b->used += bytes;
	return p;
}

static void *arena_alloc(void *ctx, size_t bytes)
{
	struct wire_frame *f = ctx;
	size_t take = align_up(bytes);
	struct arena_block *b;
	void *p;

	if (take < bytes || take > ARENA_BYTES_MAX - f->arena_bytes) {
		return NULL;
	}
	p = block_take(f->blocks, take);
	if (p == NULL) {
		b = block_new(MAX(2 * f->blocks->cap, take));
		if (b == NULL) {
			f->no_memory = true;
			return NULL;
		}
		b->next = f->blocks;
		f->blocks = b;
		p = block_take(b, take);
	}
	f->arena_bytes += take;
	return p;
}

/* All of it goes in wire_frame_free(). */
static void arena_free(void *ctx, void *p)
{
}

static struct wire_frame *frame_new(size_t body_len)
{
	/* Twice the bytes is enough for most frames; 1 KiB for what each has. */
	struct arena_block *b = block_new(sizeof(struct wire_frame) + 2 * body_len + 1024);
	struct wire_frame *f;

	if (b == NULL) {
		return NULL;
	}
	f = block_take(b, align_up(sizeof *f));
	*f = (struct wire_frame){
		.allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = f},
		.blocks = b,
	};
	return f;
}

void wire_frame_free(struct wire_frame *f)
{
	struct arena_block *b;

	if (f == NULL) {
		return;
	}
	for (size_t i = 0; i < f->raft.n_entries; i++) {
		raft_entry_unref(f->raft.entries[i]);
	}
	raft_config_fini(&f->config);
	b = f->blocks;
	while (b != NULL) { /* the last one holds *f */
		struct arena_block *next = b->next;

		free(b);
		b = next;
	}
}

/* --- frames in: every length, id and kind is checked --------------------------------- */

static int decode_entry(const Wire__Entry *w, struct raft_entry **ret_entry)
{
	if (w->index == 0 || w->term == 0 || w->kind > RAFT_CONFIG ||
		w->data.len > RAFT_ENTRY_BYTES_MAX) {
		return -EBADMSG;
	}
	*ret_entry = raft_entry_new(
		w->index, w->term, (enum raft_entry_kind)w->kind, w->data.data, w->data.len);
	return 0;
}

static int decode_entries(struct wire_frame *f, const Wire__Raft *w)
{
	int rc;

	f->raft.entries = arena_alloc(f, w->n_entries * sizeof(struct raft_entry *));
	if (f->raft.entries == NULL) {
		return -EBADMSG;
	}
	for (size_t i = 0; i < w->n_entries; i++) {
		rc = decode_entry(w->entries[i], &f->raft.entries[i]);
		if (rc < 0) {
			return rc;
		}
		f->raft.n_entries++;
	}
	return 0;
}

/* Packed once more for raft_config_decode(), which knows what a configuration must be. */
static int decode_config(struct wire_frame *f, const Wire__RaftConfig *w)
{
	uint8_t *packed = arena_alloc(f, wire__raft_config__get_packed_size(w));
	int rc;

	if (packed == NULL) {
		return -EBADMSG;
	}
	rc = raft_config_decode(packed, wire__raft_config__pack(w, packed), &f->config);
	if (rc < 0) {
		return rc;
	}
	f->raft.config = &f->config;
	return 0;
}

/* Only these carry more than numbers. */
static bool raft_payload_fits(const Wire__Raft *w)
{
	if (w->n_entries > 0 && w->kind != RAFT_APPEND_REQ) {
		return false;
	}
	return (w->data.len == 0 && w->config == NULL) || w->kind == RAFT_SNAPSHOT_REQ;
}

static int decode_raft(struct wire_frame *f, const Wire__Raft *w)
{
	int rc = 0;

	if (w->kind < RAFT_PREVOTE_REQ || w->kind > RAFT_TIMEOUT_NOW || !raft_payload_fits(w)) {
		return -EBADMSG;
	}
	f->is_raft = true;
	f->raft = (struct raft_msg){
		.kind = (enum raft_msg_kind)w->kind,
		.term = w->term,
		.index = w->index,
		.log_term = w->log_term,
		.commit = w->commit,
		.round = w->round,
		.ok = w->ok,
		.transfer = w->transfer,
		.offset = w->offset,
		.done = w->done,
		.data = w->data.data,
		.data_len = w->data.len,
	};
	if (w->n_entries > 0) {
		rc = decode_entries(f, w);
	}
	if (rc == 0 && w->config != NULL) {
		rc = decode_config(f, w->config);
	}
	return rc;
}

static bool propose_valid(const Wire__Propose *w)
{
	/* The last sequence number must be one, too. */
	if (w->n_commands == 0 || w->first_seq > UINT64_MAX - (w->n_commands - 1)) {
		return false;
	}
	if (w->session != 0 && w->first_seq == 0) {
		return false;
	}
	for (size_t i = 0; i < w->n_commands; i++) {
		if (w->commands[i].len == 0 || w->commands[i].len > RAFT_ENTRY_BYTES_MAX) {
			return false;
		}
	}
	return true;
}

static bool member_change_valid(const Wire__MemberChange *w)
{
	size_t addr_len = strlen(w->addr);

	switch (w->op) {
	case WIRE__MEMBER_CHANGE__OP__ADD_LEARNER:
		return addr_len > 0 && addr_len < RAFT_ADDR_MAX;
	case WIRE__MEMBER_CHANGE__OP__PROMOTE:
	case WIRE__MEMBER_CHANGE__OP__REMOVE:
		return w->id != 0 && addr_len < RAFT_ADDR_MAX;
	case _WIRE__MEMBER_CHANGE__OP_IS_INT_SIZE:
		break;
	}
	return false;
}

/* proto3 keeps what it does not know: then the body may be of a later release. */
static bool frame_unknown(const Wire__Frame *w)
{
	return w->base.n_unknown_fields > 0;
}

static int decode_body(struct wire_frame *f)
{
	const Wire__Frame *w = f->body;
	bool valid = false;

	switch (w->body_case) {
	case WIRE__FRAME__BODY__NOT_SET:
		valid = frame_unknown(w);
		break;
	case WIRE__FRAME__BODY_RAFT:
		return decode_raft(f, w->raft);
	case WIRE__FRAME__BODY_PROPOSE:
		valid = propose_valid(w->propose);
		break;
	case WIRE__FRAME__BODY_REFUSED:
		valid = true; /* any of its numbers may be 0: unknown */
		break;
	case WIRE__FRAME__BODY_KEEP_ALIVE:
		valid = w->keep_alive->session != 0;
		break;
	case WIRE__FRAME__BODY_KEEP_ALIVE_ACK:
		valid = w->keep_alive_ack->session != 0;
		break;
	case WIRE__FRAME__BODY_MEMBER_CHANGE:
		valid = member_change_valid(w->member_change);
		break;
	case WIRE__FRAME__BODY_MEMBER_CHANGED:
		valid = w->member_changed->error >= 0;
		break;
	case WIRE__FRAME__BODY_CONTACT:
		valid = w->contact->addr[0] != '\0' && strlen(w->contact->addr) < RAFT_ADDR_MAX;
		break;
	case _WIRE__FRAME__BODY__CASE_IS_INT_SIZE:
		break;
	}
	return valid ? 0 : -EBADMSG;
}

int wire_decode_frame(const void *body, size_t len, struct wire_frame **ret_frame)
{
	struct wire_frame *f;
	int rc;

	if (len > WIRE_FRAME_BYTES_MAX - WIRE_FRAME_HEADER_BYTES) {
		return -EBADMSG;
	}
	f = frame_new(len);
	if (f == NULL) {
		return -ENOMEM;
	}
	f->body = wire__frame__unpack(&f->allocator, len, body);
	rc = f->body != NULL ? decode_body(f) : -EBADMSG;
	if (rc < 0) {
		rc = f->no_memory ? -ENOMEM : rc;
		wire_frame_free(f);
		return rc;
	}
	*ret_frame = f;
	return 0;
}

const Wire__Frame *wire_frame_body(const struct wire_frame *f)
{
	return f->body;
}

struct raft_msg *wire_frame_raft(struct wire_frame *f)
{
	return f->is_raft ? &f->raft : NULL;
}
