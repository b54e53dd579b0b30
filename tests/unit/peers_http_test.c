/*
 * peers_http_test.c - the port that streams come in by: requests, refusals,
 * clients that are slow, many or hostile.
 */
#include "peers_fixture.h"

/* --- asking from a thread ---------------------------------------------------------------- */

struct ask {
	uv_work_t work;
	const char *addr;
	const char *secret;
	const char *method;
	const char *path;
	const char *body;
	int rc;
	char *answer; /* owned */
	char err[512];
	bool done;
};

static void ask_runs(uv_work_t *w)
{
	struct ask *a = CONTAINER_OF(w, struct ask, work);

	a->rc = peers_ask(
		a->addr, a->secret, a->method, a->path, a->body, &a->answer, a->err, sizeof a->err);
}

static void ask_ran(uv_work_t *w, int status)
{
	CONTAINER_OF(w, struct ask, work)->done = true;
}

static void ask_begin(
	struct ask *a, struct node *n, const char *method, const char *path, const char *body)
{
	*a = (struct ask){
		.addr = n->addr, .secret = SECRET, .method = method, .path = path, .body = body};
	assert_int_equal(uv_queue_work(&n->fixture->loop, &a->work, ask_runs, ask_ran), 0);
}

static void ask_end(struct ask *a, struct node *n, int status, const char *text)
{
	AWAIT(n->fixture, a->done);
	assert_string_equal(a->err, "");
	assert_int_equal(a->rc, status);
	assert_non_null(strstr(a->answer, text));
	free(a->answer);
}

/* --- requests ---------------------------------------------------------------------------- */

static void a_request_is_answered_at_once(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];
	struct ask a;

	start(n);
	ask_begin(&a, n, "POST", "/members", "{\"op\":\"add\"}");
	ask_end(&a, n, 200, "{\"ok\":true}");
	assert_string_equal(n->request_line, "POST /members");
	assert_int_equal(n->request_len, 12);
	ask_begin(&a, n, "GET", "/raft/status", NULL);
	ask_end(&a, n, 200, "{\"ok\":true}");
	assert_string_equal(n->request_line, "GET /raft/status");
	assert_int_equal(n->request_len, 0);
	assert_int_equal(n->turns, 2);
}

static void a_request_may_be_answered_later(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1], *b = &f->nodes[2];
	struct ask a;

	n->answers_later = true;
	start(n);
	start(b);
	ask_begin(&a, n, "POST", "/members", "x");
	AWAIT(f, n->request != NULL);
	CONNECT_TO(b, 1); /* life goes on meanwhile */
	AWAIT(f, b->ups == 1);
	assert_false(a.done);
	peers_answer(n->request, 409, "application/json", "{\"error\":\"busy\"}", 16);
	ask_end(&a, n, 409, "{\"error\":\"busy\"}");
}

static void a_request_that_waits_is_answered_when_the_node_stops(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];
	struct ask a;

	n->answers_later = true;
	start(n);
	ask_begin(&a, n, "POST", "/members", "x");
	AWAIT(f, n->request != NULL);
	stop(n);
	ask_end(&a, n, 503, "\"error\":\"shutdown\"");
}

/* The asker has gone: the answer finds nobody, and that is all. */
static void a_request_may_be_abandoned(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];
	struct raw r;

	n->answers_later = true;
	start(n);
	raw_connect(&r, n);
	raw_say(&r, "GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " SECRET "\r\n\r\n");
	AWAIT(f, n->request != NULL);
	raw_close(&r);
	peers_answer(n->request, 200, "text/plain", "late", 4);
	n->request = NULL;
	raw_connect(&r, n);
	raw_say(&r, "GET /y HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " SECRET "\r\n\r\n");
	AWAIT(f, n->request != NULL);
	peers_answer(n->request, 200, "text/plain", "in time", 7);
	AWAIT_POLLING(f, raw_heard(&r, "in time"));
	raw_close(&r);
}

static void one_connection_serves_many_requests(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];
	struct raw r;

	start(n);
	raw_connect(&r, n);
	for (size_t i = 1; i <= 5; i++) {
		raw_say(&r,
			"POST /members HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " SECRET "\r\n"
			"Content-Length: 3\r\n\r\nabc");
		AWAIT_POLLING(f, raw_heard(&r, "{\"ok\":true}"));
		assert_int_equal(n->n_requests, i);
		assert_int_equal(n->request_len, 3);
		r.len = 0;
		r.got[0] = '\0';
	}
	raw_close(&r);
}

static void a_body_of_a_mebibyte_passes_and_one_byte_more_does_not(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];
	char *body = xmalloc((1 << 20) + 2);
	struct ask a;

	memset(body, 'x', (1 << 20) + 1);
	body[(1 << 20) + 1] = '\0';
	start(n);
	ask_begin(&a, n, "POST", "/members", body + 1);
	ask_end(&a, n, 200, "true");
	assert_int_equal(n->request_len, 1 << 20);
	ask_begin(&a, n, "POST", "/members", body);
	ask_end(&a, n, 413, "\"error\":\"too_large\"");
	assert_int_equal(n->n_requests, 1);
	free(body);
}

static void a_chunked_body_has_the_same_limit(void **state)
{
	static char piece[16384];
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];
	struct raw r;

	start(n);
	raw_connect(&r, n);
	raw_say(&r, "POST /members HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " SECRET "\r\n"
		    "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 65; i++) {
		raw_chunk(&r, piece, sizeof piece);
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	raw_say(&r, "0\r\n\r\n");
	AWAIT_POLLING(f, raw_heard(&r, "HTTP/1.1 413 "));
	assert_int_equal(n->n_requests, 0);
	raw_close(&r);
}

static void nobody_home_is_an_error_with_a_sentence(void **state)
{
	struct fixture *f = *state;
	char *body = NULL;
	char err[256];
	int rc = peers_ask(f->nodes[1].addr, SECRET, "GET", "/", NULL, &body, err, sizeof err);

	assert_int_equal(rc, -ECONNREFUSED);
	assert_non_null(strstr(err, f->nodes[1].addr));
	assert_null(body);
}

/* --- refusals ---------------------------------------------------------------------------- */

static void refused(struct node *n, const char *request, const char *status, const char *error)
{
	struct raw r;

	raw_connect(&r, n);
	raw_say(&r, request);
	AWAIT_POLLING(n->fixture, raw_heard(&r, "\r\n\r\n{") && raw_heard(&r, "}\n"));
	assert_non_null(strstr(r.got, status));
	assert_non_null(strstr(r.got, error));
	raw_close(&r);
}

#define AUTH "Host: x\r\nAuthorization: Bearer " SECRET "\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"
#define UUID "X-Coordfs-Uuid: 02ab0000000000000000000000000000\r\n"

static void what_is_wrong_with_a_request_is_said_in_json(void **state)
{
	struct fixture *f = *state;
	struct node *n = &f->nodes[1];

	start(n);
	refused(n, "GET /members HTTP/1.1\r\nHost: x\r\n\r\n", " 401 ",
		"\"error\":\"unauthorized\"");
	refused(n, "GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n\r\n", " 401 ",
		"unauthorized");
	refused(n, "GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " SECRET "\r\n\r\n", " 401 ",
		"unauthorized");
	refused(n, "GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " SECRET "x\r\n\r\n",
		" 401 ", "unauthorized");
	refused(n, "GET /peer HTTP/1.1\r\n" AUTH "\r\n", " 405 ", "method_not_allowed");
	refused(n, "POST /peer HTTP/1.1\r\n" AUTH "X-Coordfs-Id: 2\r\n" UUID CHUNKED, " 426 ",
		"format");
	refused(n,
		"POST /peer HTTP/1.1\r\n" AUTH
		"X-Coordfs-Format: 9\r\nX-Coordfs-Id: 2\r\n" UUID CHUNKED,
		" 426 ", "format");
	refused(n, "POST /peer HTTP/1.1\r\n" AUTH "X-Coordfs-Format: 1\r\n" UUID CHUNKED, " 400 ",
		"bad_request");
	refused(n,
		"POST /peer HTTP/1.1\r\n" AUTH
		"X-Coordfs-Format: 1\r\nX-Coordfs-Id: 0\r\n" UUID CHUNKED,
		" 400 ", "bad_request");
	refused(n,
		"POST /peer HTTP/1.1\r\n" AUTH "X-Coordfs-Format: 1\r\nX-Coordfs-Id: "
		"99999999999999999999\r\n" UUID CHUNKED,
		" 400 ", "bad_request");
	refused(n,
		"POST /peer HTTP/1.1\r\n" AUTH "X-Coordfs-Format: 1\r\nX-Coordfs-Id: 2\r\n"
		"X-Coordfs-Uuid: 02AB\r\n" CHUNKED,
		" 400 ", "bad_request");
	refused(n,
		"POST /peer HTTP/1.1\r\n" AUTH
		"X-Coordfs-Format: 1\r\nX-Coordfs-Id: 1\r\n" UUID CHUNKED,
		" 409 ", "not_admitted");
	refused(n,
		"POST /peer HTTP/1.1\r\n" AUTH
		"X-Coordfs-Format: 1\r\nX-Coordfs-Id: 3\r\n" UUID CHUNKED,
		" 409 ", "not_admitted");
	refused(n, "POST /x HTTP/1.1\r\n" AUTH "Content-Length: 1048577\r\n\r\n", " 413 ",
		"too_large");
	assert_int_equal(n->n_requests, 0);
}

/* --- the hostile ------------------------------------------------------------------------- */

static void nodes_still_talk(struct fixture *f)
{
	struct node *n = &f->nodes[1], *b = &f->nodes[2];
	size_t frames = n->frames[2];

	if (b->peers == NULL) {
		start(b);
		CONNECT_TO(b, 1);
		AWAIT(f, b->ups == 1);
	}
	send_frame(b, 1, 1, 60);
	peers_flush(b->peers);
	AWAIT(f, n->frames[2] == frames + 1);
}

static void nonsense_hurts_nobody(void **state)
{
	static const char *const nonsense[] = {
		"\r\n\r\n\r\n",
		"hello\r\n\r\n",
		"GET\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET / HTTP/9.9\r\n" AUTH "\r\n",
		"GET /\x01\x02%00%zz HTTP/1.1\r\n" AUTH "\r\n",
		"POST /x HTTP/1.1\r\n" AUTH "Content-Length: -1\r\n\r\nx",
		"POST /x HTTP/1.1\r\n" AUTH "Content-Length: 99999999999999999999999\r\n\r\nx",
		"POST /x HTTP/1.1\r\n" AUTH "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
		"POST /x HTTP/1.1\r\n" AUTH CHUNKED "-5\r\nabc\r\n",
		"POST /x HTTP/1.1\r\n" AUTH CHUNKED "zzz\r\nabc\r\n",
		"POST /x HTTP/1.1\r\n" AUTH CHUNKED "ffffffffffffffffffff\r\nabc\r\n",
		"POST /x HTTP/1.1\r\n" AUTH CHUNKED "3\r\nabcdefgh",
		"GET / HTTP/1.1\r\nAuthorization: Bearer " SECRET "\r\n: : :\r\n\r\n",
	};
	struct fixture *f = *state;
	struct raw r;

	start(&f->nodes[1]);
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		raw_connect(&r, &f->nodes[1]);
		raw_say(&r, nonsense[i]);
		nodes_still_talk(f);
		raw_close(&r);
		nodes_still_talk(f);
	}
}

static void an_endless_header_is_cut_off(void **state)
{
	static char line[1024];
	struct fixture *f = *state;
	struct raw r;

	start(&f->nodes[1]);
	memset(line, 'x', sizeof line);
	memcpy(line, "X: ", 3);
	memcpy(line + sizeof line - 2, "\r\n", 2);
	raw_connect(&r, &f->nodes[1]);
	raw_say(&r, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 4096 && !raw_hung_up(&r); i++) { /* 4 MiB */
		(void)send(r.fd, line, sizeof line, MSG_NOSIGNAL | MSG_DONTWAIT);
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	AWAIT_POLLING(f, raw_hung_up(&r));
	assert_int_equal(f->nodes[1].n_requests, 0);
	raw_close(&r);
	nodes_still_talk(f);
}

/* Whoever knows the secret gets in past any number of those who do not. */
static void strangers_do_not_take_all_the_room(void **state)
{
	enum {
		STRANGERS = 400
	};
	struct fixture *f = *state;
	struct raw *r = xcalloc(STRANGERS, sizeof *r);
	size_t expelled = 0;

	start(&f->nodes[1]);
	for (size_t i = 0; i < STRANGERS; i++) {
		raw_connect(&r[i], &f->nodes[1]);
		raw_say(&r[i], i % 2 ? "GET / HT" : "");
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	nodes_still_talk(f);
	AWAIT_POLLING(f, raw_hung_up(&r[100]));
	for (size_t i = 0; i < STRANGERS; i++) {
		expelled += raw_hung_up(&r[i]);
		raw_close(&r[i]);
	}
	assert_in_range(expelled, 100, STRANGERS - 200);
	nodes_still_talk(f);
	free(r);
}

/* A byte a second keeps a connection from being idle, but not from being a stranger. */
static void a_stranger_has_ten_seconds(void **state)
{
	struct fixture *f = *state;
	struct raw r;
	uint64_t since, last;

	start(&f->nodes[1]);
	raw_connect(&r, &f->nodes[1]);
	raw_say(&r, "GET / HTTP/1.1\r\nX: ");
	nodes_still_talk(f);
	since = last = uv_now(&f->loop);
	AWAIT_POLLING(
		f, raw_hung_up(&r) || (uv_now(&f->loop) - last > 1000 &&
					      (last = uv_now(&f->loop), raw_say(&r, "x"), false)));
	assert_in_range(uv_now(&f->loop) - since, 9000, 12000);
	assert_int_equal(traced(&f->nodes[1], "stream.closed"), 0); /* silent, but no stranger */
	nodes_still_talk(f);
	raw_close(&r);
}

#define IN_FIXTURE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FIXTURE(a_request_is_answered_at_once),
		IN_FIXTURE(a_request_may_be_answered_later),
		IN_FIXTURE(a_request_that_waits_is_answered_when_the_node_stops),
		IN_FIXTURE(a_request_may_be_abandoned),
		IN_FIXTURE(one_connection_serves_many_requests),
		IN_FIXTURE(a_body_of_a_mebibyte_passes_and_one_byte_more_does_not),
		IN_FIXTURE(a_chunked_body_has_the_same_limit),
		IN_FIXTURE(nobody_home_is_an_error_with_a_sentence),
		IN_FIXTURE(what_is_wrong_with_a_request_is_said_in_json),
		IN_FIXTURE(nonsense_hurts_nobody),
		IN_FIXTURE(an_endless_header_is_cut_off),
		IN_FIXTURE(strangers_do_not_take_all_the_room),
		IN_FIXTURE(a_stranger_has_ten_seconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
