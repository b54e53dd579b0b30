/*
 * delay.c - see delay.h.
 *
 * One pipe per direction of a connection: bytes read from one socket wait in a
 * list with the time at which they are due at the other. A timer of 100 us
 * resolution would be coarser than what is asked of it only below 1 ms.
 */
#include "bench/delay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "bench/samples.h"

#define CONNECTIONS_MAX 64
#define CHUNK 65536

struct chunk {
	uint64_t due_ns;
	size_t len;
	size_t sent;
	struct chunk *prev, *next;
	char data[];
};

struct way {
	int from;
	int to;
	bool closed;
	struct chunk *chunks; /* utlist, owned */
};

static struct way ways[2 * CONNECTIONS_MAX];
static size_t n_ways;
static uint64_t delay_ns;

static _Noreturn void stop_with(const char *what)
{
	perror(what);
	_exit(1);
}

static struct sockaddr_in local(unsigned port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void prepare(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* only slower without */
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
}

static int listen_on(unsigned port)
{
	struct sockaddr_in a = local(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int one = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0) {
		stop_with("delay: listen");
	}
	return fd;
}

static void accept_one(int listener, unsigned port)
{
	struct sockaddr_in a = local(port);
	int in = accept(listener, NULL, NULL);
	int out = socket(AF_INET, SOCK_STREAM, 0);

	if (in < 0 || out < 0 || n_ways + 2 > ARRAY_SIZE(ways) ||
		connect(out, (struct sockaddr *)&a, sizeof a) < 0) {
		(void)close(in); /* the sender connects again */
		(void)close(out);
		return;
	}
	prepare(in);
	prepare(out);
	ways[n_ways++] = (struct way){.from = in, .to = out};
	ways[n_ways++] = (struct way){.from = out, .to = in};
}

static void take(struct way *w)
{
	struct chunk *c = xmalloc(sizeof *c + CHUNK);
	ssize_t n = read(w->from, c->data, CHUNK);

	if (n <= 0) {
		w->closed = n == 0 || errno != EAGAIN;
		if (w->closed) {
			(void)shutdown(w->to, SHUT_WR);
		}
		free(c);
		return;
	}
	c = xrealloc(c, sizeof *c + (size_t)n);
	c->len = (size_t)n;
	c->sent = 0;
	c->due_ns = bench_now_ns() + delay_ns;
	DL_APPEND(w->chunks, c);
}

static void give(struct way *w)
{
	uint64_t now = bench_now_ns();
	struct chunk *c;

	while ((c = w->chunks) != NULL && c->due_ns <= now) {
		ssize_t n = send(w->to, c->data + c->sent, c->len - c->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			return;
		}
		c->sent = n < 0 ? c->len : c->sent + (size_t)n;
		if (c->sent == c->len) {
			DL_DELETE(w->chunks, c);
			free(c);
		}
	}
}

static struct timespec until_due(void)
{
	uint64_t now = bench_now_ns();
	uint64_t wait = 50000000;

	for (size_t i = 0; i < n_ways; i++) {
		if (ways[i].chunks != NULL) {
			uint64_t due = ways[i].chunks->due_ns;

			wait = MIN(wait, due > now ? due - now : 0);
		}
	}
	return (struct timespec){.tv_nsec = (long)wait};
}

_Noreturn void delay_run(unsigned first_port, unsigned n, unsigned delay_ms)
{
	struct pollfd fds[16 + ARRAY_SIZE(ways)];

	delay_ns = delay_ms * UINT64_C(1000000);
	for (unsigned i = 0; i < n; i++) {
		fds[i] = (struct pollfd){
			.fd = listen_on(first_port + DELAY_PORT_OFFSET + i), .events = POLLIN};
	}
	for (;;) {
		struct timespec wait = until_due();

		for (size_t i = 0; i < n_ways; i++) {
			fds[n + i] = (struct pollfd){
				.fd = ways[i].closed ? -1 : ways[i].from, .events = POLLIN};
		}
		size_t polled = n_ways;

		if (ppoll(fds, n + polled, &wait, NULL) < 0 && errno != EINTR) {
			stop_with("delay: ppoll");
		}
		for (size_t i = 0; i < polled; i++) {
			if (fds[n + i].revents != 0) {
				take(&ways[i]);
			}
			give(&ways[i]);
		}
		for (unsigned i = 0; i < n; i++) {
			if (fds[i].revents != 0) {
				accept_one(fds[i].fd, first_port + i);
			}
		}
	}
}
