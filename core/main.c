/*
 * main.c - coordd: options, start, signals, end.
 *
 * Start: server (directory, log, streams), then the mount. End, after SIGTERM,
 * SIGINT or an unmount: the session is closed and leadership handed over, the
 * tree is unmounted, then streams, log and files are closed. A node that cannot go on (a
 * failed fsync, a damaged log) says so in its last line and ends at once.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "core/io/clock.h"
#include "core/io/options.h"
#include "core/io/server.h"
#include "fs/fs.h"

/* A clean end takes a commit and an election; without a majority it must end all the same. */
#define SHUTDOWN_MAX_MS 3000

struct daemon {
	struct options options;
	uv_loop_t loop;
	uv_signal_t on_term;
	uv_signal_t on_int;
	struct server *server;
	struct fs *fs;
	bool stopping;
};

static struct daemon daemon_state;

static void print_trace(void *ctx, enum trace_level level, const char *event, const char *kv)
{
	static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
	uint64_t now = clock_unix_ms();
	time_t seconds = (time_t)(now / 1000);
	struct tm tm;
	char when[32];

	(void)gmtime_r(&seconds, &tm);
	(void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
	(void)fprintf(stderr, "%s.%03uZ %s %s %s\n", when, (unsigned)(now % 1000), names[level],
		event, kv);
}

static _Noreturn void die(const char *text)
{
	(void)fprintf(stderr, "coordd: %s\n", text);
	(void)fflush(stderr);
	_exit(1); /* nothing more is written, sent or answered */
}

/* --- end ------------------------------------------------------------------------------------ */

static void on_server_closed(void *ctx)
{
	struct daemon *d = ctx;

	uv_close((uv_handle_t *)&d->on_term, NULL);
	uv_close((uv_handle_t *)&d->on_int, NULL);
}

static void on_fs_closed(void *ctx)
{
	struct daemon *d = ctx;

	d->fs = NULL;
	server_close(d->server, on_server_closed, d);
}

static void on_stopped(void *ctx)
{
	struct daemon *d = ctx;

	if (d->fs != NULL) {
		fs_close(d->fs, on_fs_closed, d);
	} else {
		server_close(d->server, on_server_closed, d);
	}
}

static void stop(struct daemon *d)
{
	if (!d->stopping) {
		d->stopping = true;
		server_shutdown(d->server, SHUTDOWN_MAX_MS);
	}
}

static void on_signal(uv_signal_t *handle, int signum)
{
	stop(handle->data);
}

static void on_unmounted(void *ctx)
{
	struct daemon *d = ctx;

	TRACE(&d->options.server.trace, TRACE_WARN, "mount.gone", "mount=%s",
		d->options.mountpoint);
	stop(d);
}

static void on_fatal(void *ctx, const char *text)
{
	die(text);
}

/* --- start ---------------------------------------------------------------------------------- */

static void on_fs_begin(void *ctx)
{
	server_input(((struct daemon *)ctx)->server);
}

static void on_fs_end(void *ctx)
{
	/* The server flushes at the end of the loop's iteration. */
}

static void start_server(struct daemon *d)
{
	struct server_events events = {.ctx = d, .fatal = on_fatal, .stopped = on_stopped};
	char err[1024] = "cannot start";

	if (server_open(&d->loop, &d->options.server, &events, &d->server, err, sizeof err) < 0) {
		die(err);
	}
}

static void start_fs(struct daemon *d)
{
	struct fs_options o = {
		.mountpoint = d->options.mountpoint,
		.core = node_core(server_node(d->server)),
		.read_only = d->options.read_only,
		.allow_other = d->options.allow_other,
		.lost_signal = d->options.lost_signal,
		.trace = d->options.server.trace,
		.ctx = d,
		.begin = on_fs_begin,
		.end = on_fs_end,
		.unmounted = on_unmounted,
	};
	char err[1024] = "cannot mount";

	if (o.mountpoint == NULL) {
		return;
	}
	(void)mkdir(o.mountpoint, 0755); /* a failure shows in the mount */
	if (fs_open(&d->loop, &o, &d->fs, err, sizeof err) < 0) {
		die(err);
	}
}

static void write_pid(const struct daemon *d)
{
	char path[4096];
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/coordd.pid", d->options.server.dir);
	f = fopen(path, "we");
	if (f == NULL || fprintf(f, "%ld\n", (long)getpid()) < 0 || fclose(f) != 0) {
		die("the pid file cannot be written");
	}
}

static void remove_pid(const struct daemon *d)
{
	char path[4096];

	(void)snprintf(path, sizeof path, "%s/coordd.pid", d->options.server.dir);
	(void)unlink(path); /* a stale one is recognised by its pid */
}

/* The streams and /proc need descriptors; take as many as the system gives. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit); /* works with fewer */
	}
}

static void start_signals(struct daemon *d)
{
	(void)signal(SIGPIPE, SIG_IGN); /* a peer that closed its end is an error of the write */
	(void)uv_signal_init(&d->loop, &d->on_term); /* no resources that could be missing */
	(void)uv_signal_init(&d->loop, &d->on_int);
	d->on_term.data = d;
	d->on_int.data = d;
	(void)uv_signal_start(&d->on_term, on_signal, SIGTERM);
	(void)uv_signal_start(&d->on_int, on_signal, SIGINT);
}

int main(int argc, char **argv)
{
	struct daemon *d = &daemon_state;
	int rc = options_parse(argc, argv, &d->options);

	if (rc >= 0) {
		return rc;
	}
	(void)setvbuf(stderr, NULL, _IOLBF, 4096); /* lines of several threads stay whole */
	(void)umask(0077);
	raise_limits();
	d->options.server.trace = (struct tracer){.emit = print_trace, .max = d->options.log_level};
	if (uv_loop_init(&d->loop) < 0) {
		die("the event loop cannot be made");
	}
	start_server(d);
	start_signals(d);
	write_pid(d);
	start_fs(d);
	(void)uv_run(&d->loop, UV_RUN_DEFAULT); /* returns when everything is closed */
	(void)uv_loop_close(&d->loop);          /* the process ends in any case */
	remove_pid(d);
	TRACE(&d->options.server.trace, TRACE_INFO, "node.end", "dir=%s", d->options.server.dir);
	return 0;
}
