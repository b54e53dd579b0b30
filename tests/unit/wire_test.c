/*
 * wire_test.c - frames: what goes in comes out, and nothing else gets in.
 *
 * malloc is wrapped (-Wl,--wrap=malloc) to fail on request.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "coordfs/util.h"
#include "core/wire.h"

/* --- an allocator that fails on request ----------------------------------------------- */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);

static unsigned malloc_fails_in; /* 0: never; n: the n-th call from now */

void *__wrap_malloc(size_t bytes)
{
	if (malloc_fails_in > 0 && --malloc_fails_in == 0) {
		return NULL;
	}
	return __real_malloc(bytes);
}

/* --- verbs ------------------------------------------------------------------------------ */

/* Repeatable: splitmix64. */
static uint64_t draw(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static int decode(const struct wire_buf *b, struct wire_frame **ret_frame)
{
	uint32_t len = (uint32_t)b->data[0] | (uint32_t)b->data[1] << 8 |
		       (uint32_t)b->data[2] << 16 | (uint32_t)b->data[3] << 24;

	assert_int_equal(len, b->len - WIRE_FRAME_HEADER_BYTES);
	return wire_decode_frame(b->data + WIRE_FRAME_HEADER_BYTES, len, ret_frame);
}

static int decode_message(const Wire__Frame *w)
{
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;
	int rc;

	wire_encode_frame(w, &b);
	rc = decode(&b, &f);
	wire_frame_free(f);
	wire_buf_fini(&b);
	return rc;
}

static int decode_raft_message(Wire__Raft *r)
{
	Wire__Frame w = WIRE__FRAME__INIT;

	w.body_case = WIRE__FRAME__BODY_RAFT;
	w.raft = r;
	return decode_message(&w);
}

/* One frame of each kind is encoded, decoded and encoded again: the bytes must be the same. */
static void assert_survives(const Wire__Frame *w)
{
	struct wire_buf first = {0};
	struct wire_buf second = {0};
	struct wire_frame *f = NULL;

	wire_encode_frame(w, &first);
	assert_int_equal(decode(&first, &f), 0);
	assert_int_equal(wire_frame_body(f)->body_case, w->body_case);
	wire_encode_frame(wire_frame_body(f), &second);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.data, second.data, first.len);
	wire_frame_free(f);
	wire_buf_fini(&first);
	wire_buf_fini(&second);
}

static void assert_entries_equal(const struct raft_msg *a, const struct raft_msg *b)
{
	assert_int_equal(a->n_entries, b->n_entries);
	for (size_t i = 0; i < a->n_entries; i++) {
		assert_int_equal(a->entries[i]->index, b->entries[i]->index);
		assert_int_equal(a->entries[i]->term, b->entries[i]->term);
		assert_int_equal(a->entries[i]->kind, b->entries[i]->kind);
		assert_int_equal(a->entries[i]->len, b->entries[i]->len);
		assert_memory_equal(a->entries[i]->data, b->entries[i]->data, a->entries[i]->len);
	}
}

static void assert_configs_equal(const struct raft_config *a, const struct raft_config *b)
{
	assert_int_equal(a == NULL, b == NULL);
	if (a == NULL) {
		return;
	}
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		assert_int_equal(a->servers[i].id, b->servers[i].id);
		assert_int_equal(a->servers[i].voter, b->servers[i].voter);
		assert_string_equal(a->servers[i].addr, b->servers[i].addr);
	}
}

static void assert_msgs_equal(const struct raft_msg *a, const struct raft_msg *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->term, b->term);
	assert_int_equal(a->index, b->index);
	assert_int_equal(a->log_term, b->log_term);
	assert_int_equal(a->commit, b->commit);
	assert_int_equal(a->round, b->round);
	assert_int_equal(a->ok, b->ok);
	assert_int_equal(a->transfer, b->transfer);
	assert_int_equal(a->offset, b->offset);
	assert_int_equal(a->done, b->done);
	assert_int_equal(a->data_len, b->data_len);
	if (a->data_len > 0) {
		assert_memory_equal(a->data, b->data, a->data_len);
	}
	assert_entries_equal(a, b);
	assert_configs_equal(a->config, b->config);
}

/* What wire_encode_raft() writes is what protobuf-c would write. */
static void assert_as_protobuf(const struct wire_buf *b)
{
	struct wire_buf again = {0};
	Wire__Frame *w = wire__frame__unpack(
		NULL, b->len - WIRE_FRAME_HEADER_BYTES, b->data + WIRE_FRAME_HEADER_BYTES);

	assert_non_null(w);
	wire_encode_frame(w, &again);
	assert_int_equal(b->len, again.len);
	assert_memory_equal(b->data, again.data, b->len);
	wire__frame__free_unpacked(w, NULL);
	wire_buf_fini(&again);
}

static void assert_raft_survives(const struct raft_msg *msg)
{
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;

	wire_encode_raft(msg, &b);
	assert_as_protobuf(&b);
	assert_int_equal(decode(&b, &f), 0);
	assert_non_null(wire_frame_raft(f));
	assert_int_equal(wire_frame_raft(f)->from, 0);
	assert_int_equal(wire_frame_raft(f)->to, 0);
	assert_msgs_equal(msg, wire_frame_raft(f));
	wire_frame_free(f);
	wire_buf_fini(&b);
}

/* --- raft's messages ---------------------------------------------------------------------- */

static uint8_t chunk[] = {0, 1, 2, 255, 254};
static struct raft_server servers[] = {
	{.id = 1, .voter = true, .addr = "10.0.0.1:7000"},
	{.id = 2, .voter = true, .addr = "node-2.example:7000"},
	{.id = UINT64_MAX, .voter = false, .addr = "[::1]:7000"},
};
static struct raft_config config = {.n = ARRAY_SIZE(servers), .servers = servers};

static void every_kind_of_raft_message_survives(void **state)
{
	const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, 1u << 21, UINT64_MAX};

	for (int kind = RAFT_PREVOTE_REQ; kind <= RAFT_TIMEOUT_NOW; kind++) {
		for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
			struct raft_msg m = {
				.kind = (enum raft_msg_kind)kind,
				.term = values[i],
				.index = values[(i + 1) % ARRAY_SIZE(values)],
				.log_term = values[(i + 2) % ARRAY_SIZE(values)],
				.commit = values[(i + 3) % ARRAY_SIZE(values)],
				.round = values[(i + 4) % ARRAY_SIZE(values)],
				.ok = i % 2,
				.transfer = i / 2 % 2,
				.offset = values[(i + 5) % ARRAY_SIZE(values)],
				.done = i / 4 % 2,
			};

			assert_raft_survives(&m);
		}
	}
}

static void a_chunk_of_a_snapshot_survives_with_its_configuration(void **state)
{
	struct raft_msg m = {.kind = RAFT_SNAPSHOT_REQ,
		.term = 3,
		.index = 100,
		.log_term = 2,
		.offset = 1 << 20,
		.data = chunk,
		.data_len = sizeof chunk,
		.config = &config};

	assert_raft_survives(&m);
}

static struct raft_msg batch_new(size_t n, size_t bytes)
{
	struct raft_msg m = {.kind = RAFT_APPEND_REQ, .term = 7, .index = 999, .log_term = 6};
	uint8_t *data = xmalloc(bytes);

	memset(data, 0x5a, bytes);
	m.entries = xcalloc(n, sizeof *m.entries);
	for (size_t i = 0; i < n; i++) {
		m.entries[i] = raft_entry_new(1000 + i, 7, RAFT_COMMAND, data, bytes);
	}
	m.n_entries = n;
	free(data);
	return m;
}

static void batch_free(struct raft_msg *m)
{
	for (size_t i = 0; i < m->n_entries; i++) {
		raft_entry_unref(m->entries[i]);
	}
	free(m->entries);
}

static void batches_of_entries_survive(void **state)
{
	const size_t counts[] = {1, 2, 15, 16, 64, 1024};
	const size_t sizes[] = {0, 1, 127, 128, 129, 1000};

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(sizes); j++) {
			struct raft_msg m = batch_new(counts[i], sizes[j]);

			assert_raft_survives(&m);
			batch_free(&m);
		}
	}
}

static void entries_of_every_kind_survive(void **state)
{
	struct raft_msg m = batch_new(3, 10);

	m.entries[0]->kind = RAFT_NOOP;
	m.entries[1]->kind = RAFT_COMMAND;
	m.entries[2]->kind = RAFT_CONFIG;
	assert_raft_survives(&m);
	batch_free(&m);
}

static void an_entry_may_have_the_largest_size_and_no_more(void **state)
{
	struct raft_msg m = batch_new(1, RAFT_ENTRY_BYTES_MAX);
	Wire__Raft r = WIRE__RAFT__INIT;
	Wire__Entry e = WIRE__ENTRY__INIT;
	Wire__Entry *entries[] = {&e};

	assert_raft_survives(&m);
	batch_free(&m);

	e.index = e.term = e.kind = 1;
	e.data.len = RAFT_ENTRY_BYTES_MAX + 1;
	e.data.data = xcalloc(1, e.data.len);
	r.kind = RAFT_APPEND_REQ;
	r.entries = entries;
	r.n_entries = ARRAY_SIZE(entries);
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	free(e.data.data);
}

/* The receiver keeps what it refs; the rest goes with the frame. */
static void an_entry_outlives_its_frame_if_it_is_referenced(void **state)
{
	struct raft_msg m = batch_new(2, 20);
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;
	struct raft_entry *kept;

	wire_encode_raft(&m, &b);
	assert_int_equal(decode(&b, &f), 0);
	kept = raft_entry_ref(wire_frame_raft(f)->entries[1]);
	wire_frame_free(f);
	assert_int_equal(kept->refs, 1);
	assert_int_equal(kept->index, 1001);
	assert_memory_equal(kept->data, m.entries[1]->data, 20);
	raft_entry_unref(kept);
	wire_buf_fini(&b);
	batch_free(&m);
}

static void frames_follow_one_another_in_a_buffer(void **state)
{
	struct raft_msg m = {.kind = RAFT_TIMEOUT_NOW, .term = 1};
	struct wire_buf b = {0};
	size_t one;

	wire_encode_raft(&m, &b);
	one = b.len;
	for (int i = 0; i < 1000; i++) {
		wire_encode_raft(&m, &b);
	}
	assert_int_equal(b.len, 1001 * one);
	assert_memory_equal(b.data, b.data + 1000 * one, one);
	wire_buf_fini(&b);
}

/* --- the other frames ----------------------------------------------------------------------- */

static uint8_t command[] = "not looked at by the wire";
static ProtobufCBinaryData commands[] = {
	{.len = sizeof command, .data = command}, {.len = 1, .data = command}};

static void every_other_kind_of_frame_survives(void **state)
{
	Wire__Propose propose = WIRE__PROPOSE__INIT;
	Wire__Refused refused = WIRE__REFUSED__INIT;
	Wire__KeepAlive keep_alive = WIRE__KEEP_ALIVE__INIT;
	Wire__KeepAliveAck ack = WIRE__KEEP_ALIVE_ACK__INIT;
	Wire__MemberChange change = WIRE__MEMBER_CHANGE__INIT;
	Wire__MemberChanged changed = WIRE__MEMBER_CHANGED__INIT;
	Wire__Contact contact = WIRE__CONTACT__INIT;
	char addr[] = "localhost:7001";

	propose.n_commands = ARRAY_SIZE(commands);
	propose.commands = commands;
	contact.addr = addr;
	refused.leader = 3;
	keep_alive.session = ack.session = 9;
	ack.gone = true;
	change.addr = addr;
	changed.error = EAGAIN;
	changed.text = addr;

	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_PROPOSE, {.propose = &propose}});
	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_REFUSED, {.refused = &refused}});
	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_KEEP_ALIVE, {.keep_alive = &keep_alive}});
	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_KEEP_ALIVE_ACK, {.keep_alive_ack = &ack}});
	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_MEMBER_CHANGE, {.member_change = &change}});
	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_MEMBER_CHANGED, {.member_changed = &changed}});
	assert_survives(&(Wire__Frame){PROTOBUF_C_MESSAGE_INIT(&wire__frame__descriptor),
		WIRE__FRAME__BODY_CONTACT, {.contact = &contact}});
}

static void a_frame_of_another_kind_is_not_a_message_of_raft(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__Refused refused = WIRE__REFUSED__INIT;
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;

	w.body_case = WIRE__FRAME__BODY_REFUSED;
	w.refused = &refused;
	wire_encode_frame(&w, &b);
	assert_int_equal(decode(&b, &f), 0);
	assert_null(wire_frame_raft(f));
	wire_frame_free(f);
	wire_buf_fini(&b);
}

/* A later release may send bodies that this one does not know. */
static void an_unknown_body_is_decoded_as_none(void **state)
{
	const uint8_t body[] = {0xa2, 0x06, 3, 'n', 'e', 'w'}; /* bytes, field 100 */
	struct wire_frame *f = NULL;

	assert_int_equal(wire_decode_frame(body, sizeof body, &f), 0);
	assert_int_equal(wire_frame_body(f)->body_case, WIRE__FRAME__BODY__NOT_SET);
	assert_null(wire_frame_raft(f));
	wire_frame_free(f);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void an_empty_frame_is_refused(void **state)
{
	struct wire_frame *f = NULL;

	assert_int_equal(wire_decode_frame("", 0, &f), -EBADMSG);
	assert_null(f);
}

static void a_frame_over_the_limit_is_refused(void **state)
{
	uint8_t *body = xcalloc(1, WIRE_FRAME_BYTES_MAX);
	struct wire_frame *f = NULL;

	assert_int_equal(
		wire_decode_frame(body, WIRE_FRAME_BYTES_MAX - WIRE_FRAME_HEADER_BYTES + 1, &f),
		-EBADMSG);
	free(body);
}

static void an_unknown_kind_of_raft_message_is_refused(void **state)
{
	Wire__Raft r = WIRE__RAFT__INIT;

	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	r.kind = RAFT_TIMEOUT_NOW + 1;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	r.kind = UINT32_MAX;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	r.kind = RAFT_TIMEOUT_NOW;
	assert_int_equal(decode_raft_message(&r), 0);
}

static void entries_without_index_term_or_a_known_kind_are_refused(void **state)
{
	Wire__Raft r = WIRE__RAFT__INIT;
	Wire__Entry good = WIRE__ENTRY__INIT;
	Wire__Entry bad;
	Wire__Entry *entries[] = {&good, &bad};

	good.index = good.term = good.kind = 1;
	r.kind = RAFT_APPEND_REQ;
	r.entries = entries;
	r.n_entries = ARRAY_SIZE(entries);

	bad = good;
	assert_int_equal(decode_raft_message(&r), 0);
	bad.index = 0;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	bad = good;
	bad.term = 0;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	bad = good;
	bad.kind = RAFT_CONFIG + 1;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
}

static void only_the_kinds_that_carry_a_payload_may_have_one(void **state)
{
	Wire__Raft r = WIRE__RAFT__INIT;
	Wire__Entry e = WIRE__ENTRY__INIT;
	Wire__Entry *entries[] = {&e};

	e.index = e.term = 1;
	r.kind = RAFT_SNAPSHOT_REQ;
	r.entries = entries;
	r.n_entries = 1;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	r.n_entries = 0;
	r.kind = RAFT_APPEND_REQ;
	r.data.data = chunk;
	r.data.len = sizeof chunk;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
}

static void a_configuration_that_is_none_is_refused(void **state)
{
	Wire__Raft r = WIRE__RAFT__INIT;
	Wire__RaftConfig c = WIRE__RAFT_CONFIG__INIT;
	Wire__RaftServer s = WIRE__RAFT_SERVER__INIT;
	Wire__RaftServer *list[] = {&s};
	char addr[RAFT_ADDR_MAX + 1];

	r.kind = RAFT_SNAPSHOT_REQ;
	r.config = &c;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	c.servers = list;
	c.n_servers = 1;
	s.id = 1;
	s.voter = true;
	s.addr = addr;
	memset(addr, 'a', sizeof addr);
	addr[RAFT_ADDR_MAX] = '\0';
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
	addr[RAFT_ADDR_MAX - 1] = '\0';
	assert_int_equal(decode_raft_message(&r), 0);
	s.id = 0;
	assert_int_equal(decode_raft_message(&r), -EBADMSG);
}

static void proposals_must_have_commands_of_a_sensible_size(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__Propose p = WIRE__PROPOSE__INIT;
	ProtobufCBinaryData one = {.len = 0, .data = NULL};

	w.body_case = WIRE__FRAME__BODY_PROPOSE;
	w.propose = &p;
	assert_int_equal(decode_message(&w), -EBADMSG);
	p.commands = &one;
	p.n_commands = 1;
	assert_int_equal(decode_message(&w), -EBADMSG);
	one.len = RAFT_ENTRY_BYTES_MAX + 1;
	one.data = xcalloc(1, one.len);
	assert_int_equal(decode_message(&w), -EBADMSG);
	one.len--;
	assert_int_equal(decode_message(&w), 0);
	free(one.data);
}

static void proposals_of_a_session_are_numbered(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__Propose p = WIRE__PROPOSE__INIT;

	w.body_case = WIRE__FRAME__BODY_PROPOSE;
	w.propose = &p;
	p.commands = commands;
	p.n_commands = ARRAY_SIZE(commands);
	p.session = 1;
	assert_int_equal(decode_message(&w), -EBADMSG);
	p.first_seq = UINT64_MAX; /* the second would be 0 */
	assert_int_equal(decode_message(&w), -EBADMSG);
	p.first_seq = UINT64_MAX - 1;
	assert_int_equal(decode_message(&w), 0);
}

static void keep_alives_name_a_session(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__KeepAlive k = WIRE__KEEP_ALIVE__INIT;
	Wire__KeepAliveAck a = WIRE__KEEP_ALIVE_ACK__INIT;

	w.body_case = WIRE__FRAME__BODY_KEEP_ALIVE;
	w.keep_alive = &k;
	assert_int_equal(decode_message(&w), -EBADMSG);
	w.body_case = WIRE__FRAME__BODY_KEEP_ALIVE_ACK;
	w.keep_alive_ack = &a;
	assert_int_equal(decode_message(&w), -EBADMSG);
}

static void member_changes_are_checked(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__MemberChange m = WIRE__MEMBER_CHANGE__INIT;
	char addr[RAFT_ADDR_MAX + 1];

	memset(addr, 'a', sizeof addr);
	addr[RAFT_ADDR_MAX] = '\0';
	w.body_case = WIRE__FRAME__BODY_MEMBER_CHANGE;
	w.member_change = &m;
	assert_int_equal(decode_message(&w), -EBADMSG); /* a learner without an address */
	m.addr = addr;
	assert_int_equal(decode_message(&w), -EBADMSG); /* too long by one */
	addr[RAFT_ADDR_MAX - 1] = '\0';
	assert_int_equal(decode_message(&w), 0);
	m.op = WIRE__MEMBER_CHANGE__OP__PROMOTE;
	assert_int_equal(decode_message(&w), -EBADMSG); /* of nobody */
	m.id = 4;
	assert_int_equal(decode_message(&w), 0);
	m.op = (Wire__MemberChange__Op)3;
	assert_int_equal(decode_message(&w), -EBADMSG);
}

static void answers_to_member_changes_have_positive_errors(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__MemberChanged m = WIRE__MEMBER_CHANGED__INIT;

	w.body_case = WIRE__FRAME__BODY_MEMBER_CHANGED;
	w.member_changed = &m;
	m.error = -1;
	assert_int_equal(decode_message(&w), -EBADMSG);
}

static void contacts_have_an_address(void **state)
{
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__Contact c = WIRE__CONTACT__INIT;
	char addr[RAFT_ADDR_MAX + 1];

	memset(addr, 'a', sizeof addr);
	addr[RAFT_ADDR_MAX] = '\0';
	w.body_case = WIRE__FRAME__BODY_CONTACT;
	w.contact = &c;
	assert_int_equal(decode_message(&w), -EBADMSG); /* none */
	c.addr = addr;
	assert_int_equal(decode_message(&w), -EBADMSG); /* too long by one */
	addr[RAFT_ADDR_MAX - 1] = '\0';
	assert_int_equal(decode_message(&w), 0);
}

/* A frame is one field with a length, so no part of it is a frame. */
static void a_frame_cut_anywhere_is_refused(void **state)
{
	struct raft_msg append = batch_new(5, 30);
	struct raft_msg snapshot = {.kind = RAFT_SNAPSHOT_REQ,
		.term = 3,
		.index = 100,
		.data = chunk,
		.data_len = sizeof chunk,
		.config = &config};
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;
	const struct raft_msg *msgs[] = {&append, &snapshot};

	for (size_t i = 0; i < ARRAY_SIZE(msgs); i++) {
		b.len = 0;
		wire_encode_raft(msgs[i], &b);
		for (size_t len = 0; len < b.len - WIRE_FRAME_HEADER_BYTES; len++) {
			/* On the heap by itself, so that a read past it is seen. */
			uint8_t *cut = xmemdup(b.data + WIRE_FRAME_HEADER_BYTES, len);

			assert_int_equal(wire_decode_frame(cut, len, &f), -EBADMSG);
			free(cut);
		}
	}
	wire_buf_fini(&b);
	batch_free(&append);
}

static void any_byte_may_be_wrong(void **state)
{
	struct raft_msg m = batch_new(5, 30);
	struct wire_buf b = {0};

	wire_encode_raft(&m, &b);
	for (size_t at = WIRE_FRAME_HEADER_BYTES; at < b.len; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			struct wire_frame *f = NULL;
			int rc;

			b.data[at] ^= (uint8_t)(1u << bit);
			rc = decode(&b, &f);
			assert_true(rc == 0 || rc == -EBADMSG);
			wire_frame_free(f);
			b.data[at] ^= (uint8_t)(1u << bit);
		}
	}
	wire_buf_fini(&b);
	batch_free(&m);
}

static void random_bytes_are_survived(void **state)
{
	uint64_t seed = 1;

	for (int i = 0; i < 20000; i++) {
		size_t len = draw(&seed) % 200;
		uint8_t *body = xmalloc(len);
		struct wire_frame *f = NULL;
		int rc;

		for (size_t j = 0; j < len; j++) {
			body[j] = (uint8_t)draw(&seed);
		}
		if (len > 2) { /* at least look like raft's or a proposal */
			body[0] = (uint8_t)((1 + draw(&seed) % 2) << 3 | 2);
			body[1] = (uint8_t)(len - 2);
		}
		rc = wire_decode_frame(body, len, &f);
		assert_true(rc == 0 || rc == -EBADMSG);
		wire_frame_free(f);
		free(body);
	}
}

/* --- memory --------------------------------------------------------------------------------- */

/* Two bytes on the wire, an empty entry, are more than a hundred in memory. */
static void a_frame_cannot_ask_for_any_amount_of_memory(void **state)
{
	const size_t inner = WIRE_FRAME_BYTES_MAX - 64;
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;
	uint8_t *p = wire_buf_reserve(&b, WIRE_FRAME_BYTES_MAX);

	*p++ = 1 << 3 | 2; /* Frame.raft */
	for (size_t v = inner; v > 0; v >>= 7) {
		*p++ = (uint8_t)(v | (v >= 0x80 ? 0x80 : 0));
	}
	for (size_t i = 0; i < inner; i += 2) {
		*p++ = 9 << 3 | 2; /* Raft.entries */
		*p++ = 0;
	}
	assert_int_equal(wire_decode_frame(b.data, (size_t)(p - b.data), &f), -EBADMSG);
	wire_buf_fini(&b);
}

static void a_proposal_of_many_small_commands_is_decoded(void **state)
{
	const size_t n = 100000;
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__Propose p = WIRE__PROPOSE__INIT;

	p.n_commands = n;
	p.commands = xcalloc(n, sizeof *p.commands);
	for (size_t i = 0; i < n; i++) {
		p.commands[i] = commands[0];
	}
	w.body_case = WIRE__FRAME__BODY_PROPOSE;
	w.propose = &p;
	assert_survives(&w);
	free(p.commands);
}

static void decoding_survives_failing_allocation(void **state)
{
	ProtobufCBinaryData list[200]; /* enough for several blocks of the arena */
	Wire__Frame w = WIRE__FRAME__INIT;
	Wire__Propose p = WIRE__PROPOSE__INIT;
	struct wire_buf b = {0};
	struct wire_frame *f = NULL;
	unsigned n = 0;
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		list[i] = commands[1];
	}
	p.n_commands = ARRAY_SIZE(list);
	p.commands = list;
	w.body_case = WIRE__FRAME__BODY_PROPOSE;
	w.propose = &p;
	wire_encode_frame(&w, &b);
	do {
		malloc_fails_in = ++n;
		rc = decode(&b, &f);
		assert_true(rc == -ENOMEM || malloc_fails_in > 0);
	} while (rc == -ENOMEM);
	malloc_fails_in = 0;
	assert_int_equal(rc, 0);
	assert_true(n > 2);
	wire_frame_free(f);
	wire_buf_fini(&b);
}

static void freeing_nothing_is_fine(void **state)
{
	struct wire_buf b = {0};

	wire_frame_free(NULL);
	wire_buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_raft_message_survives),
		cmocka_unit_test(a_chunk_of_a_snapshot_survives_with_its_configuration),
		cmocka_unit_test(batches_of_entries_survive),
		cmocka_unit_test(entries_of_every_kind_survive),
		cmocka_unit_test(an_entry_may_have_the_largest_size_and_no_more),
		cmocka_unit_test(an_entry_outlives_its_frame_if_it_is_referenced),
		cmocka_unit_test(frames_follow_one_another_in_a_buffer),
		cmocka_unit_test(every_other_kind_of_frame_survives),
		cmocka_unit_test(a_frame_of_another_kind_is_not_a_message_of_raft),
		cmocka_unit_test(an_unknown_body_is_decoded_as_none),
		cmocka_unit_test(an_empty_frame_is_refused),
		cmocka_unit_test(a_frame_over_the_limit_is_refused),
		cmocka_unit_test(an_unknown_kind_of_raft_message_is_refused),
		cmocka_unit_test(entries_without_index_term_or_a_known_kind_are_refused),
		cmocka_unit_test(only_the_kinds_that_carry_a_payload_may_have_one),
		cmocka_unit_test(a_configuration_that_is_none_is_refused),
		cmocka_unit_test(proposals_must_have_commands_of_a_sensible_size),
		cmocka_unit_test(proposals_of_a_session_are_numbered),
		cmocka_unit_test(keep_alives_name_a_session),
		cmocka_unit_test(member_changes_are_checked),
		cmocka_unit_test(answers_to_member_changes_have_positive_errors),
		cmocka_unit_test(contacts_have_an_address),
		cmocka_unit_test(a_frame_cut_anywhere_is_refused),
		cmocka_unit_test(any_byte_may_be_wrong),
		cmocka_unit_test(random_bytes_are_survived),
		cmocka_unit_test(a_frame_cannot_ask_for_any_amount_of_memory),
		cmocka_unit_test(a_proposal_of_many_small_commands_is_decoded),
		cmocka_unit_test(decoding_survives_failing_allocation),
		cmocka_unit_test(freeing_nothing_is_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
