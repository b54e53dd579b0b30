/*
 * peers_test.c - streams between nodes: frames, failures, limits.
 */
#include "peers_fixture.h"

#include "core/io/secret.h"

/* --- frames ------------------------------------------------------------------------------ */

static void frames_arrive_whole_and_in_order(void **state)
{
	static const size_t lens[] = {1, 2, 60, 65535, 300000, WIRE_FRAME_BYTES_MAX - 4, 7};
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];
	uint64_t sum = 0;

	start(a);
	start(b);
	CONNECT_TO(a, 1, 2);
	AWAIT(f, a->ups == 1);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		send_frame(a, 2, (uint8_t)(i + 1), lens[i]);
		sum += (i + 1) * lens[i];
	}
	peers_flush(a->peers);
	AWAIT(f, b->frames[1] == ARRAY_SIZE(lens));
	assert_int_equal(b->sum, sum);
	assert_int_equal(b->last_len, 7);
	assert_int_equal(b->last[0], ARRAY_SIZE(lens));
	assert_int_equal(b->ups, 0); /* streams have one direction */
}

static void three_nodes_talk_to_each_other(void **state)
{
	struct fixture *f = *state;

	for (uint64_t id = 1; id <= NODES; id++) {
		start(&f->nodes[id]);
		CONNECT_TO(&f->nodes[id], 1, 2, 3);
	}
	for (uint64_t id = 1; id <= NODES; id++) {
		AWAIT(f, f->nodes[id].ups == 2);
	}
	for (uint64_t id = 1; id <= NODES; id++) {
		for (uint64_t to = 1; to <= NODES; to++) {
			send_frame(&f->nodes[id], to, 1, 10 * id);
		}
		peers_flush(f->nodes[id].peers);
	}
	for (uint64_t id = 1; id <= NODES; id++) {
		uint64_t others = 1 + 2 + 3 - id;

		AWAIT(f, f->nodes[id].sum == 10 * others);
		assert_int_equal(f->nodes[id].frames[id], 0);
	}
}

/* Whoever gets a batch of messages answers it with one batch: the turn is its end. */
static void frames_of_one_flush_make_one_turn(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	start(a);
	start(b);
	CONNECT_TO(a, 2);
	AWAIT(f, a->ups == 1);
	for (int i = 0; i < 100; i++) {
		send_frame(a, 2, 1, 60);
	}
	peers_flush(a->peers);
	AWAIT(f, b->turns > 0);
	assert_int_equal(b->frames[1], 100);
	assert_int_equal(b->turns, 1);
}

static void frames_wait_for_the_flush(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	start(a);
	start(b);
	CONNECT_TO(a, 2, 3);
	CONNECT_TO(b, 1);
	AWAIT(f, a->ups == 1 && b->ups == 1);
	send_frame(a, 2, 1, 60);
	send_frame(b, 1, 1, 60); /* a whole round trip later … */
	peers_flush(b->peers);
	while (a->frames[2] == 0) {
		(void)uv_run(&f->loop, UV_RUN_ONCE);
		if (a->frames[2] == 0) {
			assert_int_equal(b->frames[1], 0);
		}
	}
	AWAIT(f, b->frames[1] == 1); /* … the turn that it made has flushed */
}

static void a_frame_may_come_byte_by_byte(void **state)
{
	static const uint8_t frames[] = {3, 0, 0, 0, 10, 20, 30, 1, 0, 0, 0, 40, 2, 0, 0, 0, 5, 5};
	struct fixture *f = *state;
	struct node *a = &f->nodes[1];
	struct raw r;

	start(a);
	raw_stream(&r, a, 2);
	for (size_t i = 0; i < sizeof frames; i++) {
		raw_chunk(&r, frames + i, 1);
		if (i == 7) {
			AWAIT(f, a->frames[2] == 1);
		}
	}
	AWAIT(f, a->frames[2] == 3);
	assert_int_equal(a->sum, 10 + 20 + 30 + 40 + 5 + 5);
	raw_close(&r);
}

/* Cut at each place in turn: header, border, body. */
static void a_frame_may_be_cut_anywhere(void **state)
{
	static const uint8_t frames[] = {3, 0, 0, 0, 10, 20, 30, 2, 0, 0, 0, 4, 5};
	struct fixture *f = *state;
	struct node *a = &f->nodes[1];
	struct raw r;

	start(a);
	raw_stream(&r, a, 2);
	for (size_t cut = 1; cut < sizeof frames; cut++) {
		raw_chunk(&r, frames, cut);
		raw_chunk(&r, frames + cut, sizeof frames - cut);
		AWAIT(f, a->frames[2] == 2 * cut);
		assert_int_equal(a->sum, cut * (10 + 20 + 30 + 4 + 5));
	}
	raw_close(&r);
}

static void stream_ends_at(void **state, const uint8_t header[4])
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1];
	struct raw r;

	start(a);
	raw_stream(&r, a, 2);
	raw_chunk(&r, "\1\0\0\0x", 5);
	raw_chunk(&r, header, 4);
	raw_chunk(&r, "\1\0\0\0x", 5);
	AWAIT_POLLING(f, raw_hung_up(&r));
	assert_int_equal(a->frames[2], 1);
	assert_int_equal(traced(a, "stream.bad_frame"), 1);
	raw_close(&r);
}

static void an_oversized_frame_ends_the_stream(void **state)
{
	stream_ends_at(state, (const uint8_t[]){0xfd, 0xff, 0x3f, 0}); /* 4 MiB - 3 */
}

static void a_frame_of_no_bytes_ends_the_stream(void **state)
{
	stream_ends_at(state, (const uint8_t[]){0, 0, 0, 0});
}

static void a_newer_stream_replaces_the_older(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1];
	struct raw older, newer;

	start(a);
	raw_stream(&older, a, 2);
	raw_chunk(&older, "\1\0\0\0x", 5);
	AWAIT(f, a->frames[2] == 1);
	raw_stream(&newer, a, 2);
	raw_chunk(&older, "\1\0\0\0x", 5);
	AWAIT_POLLING(f, raw_hung_up(&older));
	assert_int_equal(a->frames[2], 1);
	raw_chunk(&newer, "\1\0\0\0x", 5);
	AWAIT(f, a->frames[2] == 2);
	raw_close(&older);
	raw_close(&newer);
}

/* --- failures ---------------------------------------------------------------------------- */

static void a_restarted_peer_is_found_again(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	start(a);
	start(b);
	CONNECT_TO(a, 2);
	AWAIT(f, a->ups == 1);
	stop(b);
	AWAIT(f, traced(a, "peer.down id=2") >= 1);
	send_frame(a, 2, 99, 1); /* has no stream: is lost */
	peers_flush(a->peers);
	start(b);
	AWAIT(f, a->ups == 2);
	send_frame(a, 2, 1, 1);
	peers_flush(a->peers);
	AWAIT(f, b->frames[1] == 1);
	assert_int_equal(b->sum, 1);
}

static void a_peer_may_start_later(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	start(a);
	CONNECT_TO(a, 2);
	AWAIT(f, traced(a, "peer.down id=2") >= 3);
	start(b);
	AWAIT(f, a->ups == 1);
}

/* The pause between attempts grows to half a second; a sign of life ends it at once. */
static void a_stream_from_a_peer_ends_the_pause_before_the_one_to_it(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];
	uint64_t since;

	start(a);
	CONNECT_TO(a, 2);
	AWAIT(f, traced(a, "peer.down id=2") >= 6);
	start(b);
	CONNECT_TO(b, 1);
	AWAIT(f, b->ups == 1);
	since = uv_now(&f->loop);
	AWAIT(f, a->ups == 1);
	assert_in_range(uv_now(&f->loop) - since, 0, 200);
}

static void a_wrong_secret_is_refused_and_seen(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	start_with(a, "another-secret-altogether", 0);
	start(b);
	CONNECT_TO(a, 2);
	AWAIT(f, traced(a, "peer.refused id=2") == 1);
	assert_int_equal(traced(a, "status=401"), 1);
	assert_int_equal(traced(b, "http.denied addr=127.0.0.1 path=/peer status=401"), 1);
	send_frame(a, 2, 1, 1);
	peers_flush(a->peers);
	assert_int_equal(a->ups, 0);
	assert_int_equal(b->frames[1], 0);
}

static void many_wrong_secrets_make_one_line_a_second(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1];

	start(a);
	for (int i = 0; i < 20; i++) {
		struct raw r;

		raw_connect(&r, a);
		raw_say(&r, "POST /peer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nonsense\r\n"
			    "Transfer-Encoding: chunked\r\n\r\n");
		AWAIT_POLLING(f, raw_heard(&r, "HTTP/1.1 401 "));
		raw_close(&r);
	}
	assert_in_range(traced(a, "http.denied"), 1, 10);
}

static void a_node_that_is_not_admitted_gets_in_when_it_is(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	b->admits = false;
	start(a);
	start(b);
	CONNECT_TO(a, 2);
	AWAIT(f, traced(a, "peer.refused id=2") == 1);
	assert_int_equal(traced(a, "status=409"), 1);
	assert_int_equal(a->ups, 0);
	b->admits = true;
	AWAIT(f, a->ups == 1);
}

static void a_stream_to_a_removed_peer_ends(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];

	start(a);
	start(b);
	start(&f->nodes[3]);
	CONNECT_TO(a, 2, 3);
	AWAIT(f, a->ups == 2);
	CONNECT_TO(a, 3);
	AWAIT(f, traced(b, "stream.closed from=1") == 1);
	send_frame(a, 2, 1, 1);
	send_frame(a, 3, 1, 1);
	peers_flush(a->peers);
	AWAIT(f, f->nodes[3].frames[1] == 1);
	assert_int_equal(b->frames[1], 0);
}

/* --- peers that do not do their part ----------------------------------------------------- */

struct mute {
	int listener;
	int conn[4];
	size_t n;
};

/* A peer that admits streams and reads nothing of them. Stands in for node 3. */
static void mute_listen(struct mute *m, struct node *n)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int on = 1;

	*m = (struct mute){.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
	a.sin_port = htons((uint16_t)atoi(strchr(n->addr, ':') + 1));
	assert_int_equal(setsockopt(m->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
	assert_int_equal(bind(m->listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(m->listener, 8), 0);
}

static size_t mute_accept(struct mute *m)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	int fd = m->n < ARRAY_SIZE(m->conn) ? accept(m->listener, NULL, NULL) : -1;

	if (fd >= 0) {
		m->conn[m->n++] = fd;
		assert_int_equal(send(fd, go_on, sizeof go_on - 1, 0), sizeof go_on - 1);
	}
	return m->n;
}

static void mute_close(struct mute *m)
{
	for (size_t i = 0; i < m->n; i++) {
		assert_int_equal(close(m->conn[i]), 0);
	}
	assert_int_equal(close(m->listener), 0);
}

static void a_peer_that_does_not_read_disturbs_nobody(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *b = &f->nodes[2];
	struct mute m;

	start_with(a, SECRET, 1 << 20);
	start(b);
	mute_listen(&m, &f->nodes[3]);
	CONNECT_TO(a, 2, 3);
	AWAIT_POLLING(f, mute_accept(&m) == 1 && a->ups == 2);
	for (size_t i = 1; i <= 200; i++) { /* 20 MB: more than the kernel takes */
		send_frame(a, 2, 1, 100);
		send_frame(a, 3, 1, 100000);
		peers_flush(a->peers);
		AWAIT(f, b->frames[1] == i);
	}
	assert_int_equal(traced(a, "peer.overflow id=3"), 1);
	AWAIT_POLLING(f, mute_accept(&m) == 2); /* it was given up, and tried again */
	assert_int_equal(traced(a, "reason=\"it does not read\""), 1);
	assert_int_equal(traced(a, "peer.down id=2"), 0);
	mute_close(&m);
}

static void frames_for_a_dead_stream_do_not_reach_the_next(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1];
	struct mute m;
	char got[4096];
	ssize_t len = -1;

	start(a);
	mute_listen(&m, &f->nodes[3]);
	CONNECT_TO(a, 3);
	AWAIT_POLLING(f, mute_accept(&m) == 1 && a->ups == 1);
	for (int i = 0; i < 200; i++) {
		send_frame(a, 3, 'o', 100000);
	}
	peers_flush(a->peers);
	AWAIT_POLLING(f, mute_accept(&m) == 2 && a->ups == 2);
	send_frame(a, 3, 'n', 5);
	peers_flush(a->peers);
	AWAIT_POLLING(f, (len = recv(m.conn[1], got, sizeof got - 1, MSG_DONTWAIT)) > 0);
	got[len] = '\0';
	assert_null(strstr(got, "ooooo"));
	mute_close(&m);
}

/* As in a partition: SYNs get no answer (the backlog is full), and later they do. */
static void an_address_that_was_silent_is_found_soon(void **state)
{
	struct fixture *f = *state;
	struct node *a = &f->nodes[1], *c = &f->nodes[3];
	struct raw full;
	struct mute m;
	uint64_t since;

	start(a);
	mute_listen(&m, c);
	assert_int_equal(listen(m.listener, 0), 0);
	raw_connect(&full, c);
	since = uv_now(&f->loop);
	CONNECT_TO(a, 3);
	AWAIT(f, traced(a, "peer.down id=3") == 2);
	assert_in_range(uv_now(&f->loop) - since, 800, 2000); /* they were not refused */
	raw_close(&full);
	assert_int_equal(close(accept(m.listener, NULL, NULL)), 0);
	assert_int_equal(close(m.listener), 0);
	since = uv_now(&f->loop);
	start(c);
	AWAIT(f, a->ups == 1);
	assert_in_range(uv_now(&f->loop) - since, 0, 1000);
	for (size_t i = 1; i <= 10; i++) {
		send_frame(a, 3, 1, 60);
		peers_flush(a->peers);
		AWAIT(f, c->frames[1] == i);
	}
}

/* --- opening ----------------------------------------------------------------------------- */

static int try_open(
	struct fixture *f, const char *listen_addr, const char *secret, char *err, size_t err_size)
{
	struct peers_options o = {.id = 1, .listen = listen_addr, .secret = secret};
	struct peers_events events = node_events(&f->nodes[1]);
	struct peers *p;

	return peers_open(&f->loop, &o, &events, &p, err, err_size);
}

static void what_cannot_be_opened_says_why(void **state)
{
	struct fixture *f = *state;
	const char *taken = f->nodes[1].addr;
	char err[256];

	start(&f->nodes[1]);
	assert_int_equal(try_open(f, taken, SECRET, err, sizeof err), -EADDRINUSE);
	assert_non_null(strstr(err, taken));
	assert_int_equal(try_open(f, "127.0.0.1", SECRET, err, sizeof err), -EINVAL);
	assert_int_equal(try_open(f, "127.0.0.1:0", SECRET, err, sizeof err), -EINVAL);
	assert_int_equal(try_open(f, ":7000", SECRET, err, sizeof err), -EINVAL);
	assert_int_equal(try_open(f, "127.0.0.1:70000", SECRET, err, sizeof err), -EINVAL);
	assert_int_equal(try_open(f, "127.0.0.1:7x", SECRET, err, sizeof err), -EINVAL);
	assert_int_equal(try_open(f, taken, "short", err, sizeof err), -EINVAL);
	assert_non_null(strstr(err, "secret"));
	assert_int_equal(
		try_open(f, taken, "with a blank and\r\nmore lines", err, sizeof err), -EINVAL);
}

static void secrets_are_equal_or_not(void **state)
{
	assert_true(secret_equal("abc", "abc"));
	assert_false(secret_equal("abc", "abd"));
	assert_false(secret_equal("abc", "ab"));
	assert_false(secret_equal("abc", "abcd"));
	assert_false(secret_equal("abc", ""));
	assert_false(secret_equal("abc", "bbc"));
}

#define IN_FIXTURE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FIXTURE(frames_arrive_whole_and_in_order),
		IN_FIXTURE(three_nodes_talk_to_each_other),
		IN_FIXTURE(frames_of_one_flush_make_one_turn),
		IN_FIXTURE(frames_wait_for_the_flush),
		IN_FIXTURE(a_frame_may_come_byte_by_byte),
		IN_FIXTURE(a_frame_may_be_cut_anywhere),
		IN_FIXTURE(an_oversized_frame_ends_the_stream),
		IN_FIXTURE(a_frame_of_no_bytes_ends_the_stream),
		IN_FIXTURE(a_newer_stream_replaces_the_older),
		IN_FIXTURE(a_restarted_peer_is_found_again),
		IN_FIXTURE(a_peer_may_start_later),
		IN_FIXTURE(a_stream_from_a_peer_ends_the_pause_before_the_one_to_it),
		IN_FIXTURE(a_wrong_secret_is_refused_and_seen),
		IN_FIXTURE(many_wrong_secrets_make_one_line_a_second),
		IN_FIXTURE(a_node_that_is_not_admitted_gets_in_when_it_is),
		IN_FIXTURE(a_stream_to_a_removed_peer_ends),
		IN_FIXTURE(a_peer_that_does_not_read_disturbs_nobody),
		IN_FIXTURE(frames_for_a_dead_stream_do_not_reach_the_next),
		IN_FIXTURE(an_address_that_was_silent_is_found_soon),
		IN_FIXTURE(what_cannot_be_opened_says_why),
		cmocka_unit_test(secrets_are_equal_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
