/*
 * mount.c - a load generator for locks in mounted trees.
 *
 * Every client is a thread with a descriptor of its own, and a descriptor is what
 * flock(2) knows as an owner. It works on any directory, so that a local file
 * and an empty FUSE file system are measured by the very same calls.
 *
 * The clients begin together, run half a second or more unmeasured, then for the
 * time asked; whoever holds the contended lock checks that nobody else does.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/samples.h"

#define CLIENTS_MAX 4096
#define STACK_BYTES (256u << 10)
#define WARM_UP_US 500000
#define PAUSE_US 2000 /* several commits of a healthy cluster; arbitrary */

extern char **environ;

struct client {
	unsigned id;
	char path[PATH_MAX];
	int fd;
	pthread_t thread;
	struct samples whole;   /* of an operation */
	struct samples acquire; /* of its part, where that is told apart */
	struct samples release;
	uint64_t ops;
};

struct measure {
	const char *name;
	const char *help;
	bool one_lock; /* else each client has its own */
	bool parts;    /* acquire and release are timed apart, the whole is not */
	bool closed;   /* the operation opens the file itself */
	void (*op)(struct client *c, bool measured);
};

static struct {
	double seconds;
	unsigned clients;
	const char *prefix;
	const struct measure *measure;
	pthread_barrier_t begin;
	atomic_bool measuring;
	atomic_bool stop;
	atomic_uint inside; /* id of the contended lock's holder; 0: none */
	uint64_t handed;    /* guarded by the contended lock: the plain sum of all entries */
	atomic_uint_fast64_t entries; /* the same, counted without it */
} bench = {.seconds = 3, .clients = 1, .prefix = "bench"};

static _Noreturn void die(const char *what)
{
	(void)fprintf(stderr, "bench-mount: %s: %s\n", what, strerror(errno));
	exit(1);
}

static _Noreturn void broken(const char *text)
{
	(void)fprintf(stderr, "bench-mount: mutual exclusion is broken: %s\n", text);
	exit(1);
}

/* --- operations ----------------------------------------------------------------------------- */

static void lock(struct client *c)
{
	if (flock(c->fd, LOCK_EX) < 0) {
		die(c->path);
	}
}

static void unlock(struct client *c)
{
	if (flock(c->fd, LOCK_UN) < 0) {
		die(c->path);
	}
}

static void open_file(struct client *c)
{
	c->fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (c->fd < 0) {
		die(c->path);
	}
}

static void op_lock(struct client *c, bool measured)
{
	lock(c);
	unlock(c);
}

/* The pauses let what commits behind an answer be over before the next call. */
static void op_parts(struct client *c, bool measured)
{
	uint64_t t = bench_now_ns();

	lock(c);
	if (measured) {
		samples_add(&c->acquire, bench_now_ns() - t);
	}
	(void)usleep(PAUSE_US); /* an early end only makes it harder */
	t = bench_now_ns();
	unlock(c);
	if (measured) {
		samples_add(&c->release, bench_now_ns() - t);
	}
	(void)usleep(PAUSE_US);
}

static void op_open(struct client *c, bool measured)
{
	open_file(c);
	lock(c);
	if (close(c->fd) < 0) {
		die(c->path);
	}
}

static void op_handover(struct client *c, bool measured)
{
	lock(c);
	if (atomic_exchange(&bench.inside, c->id + 1) != 0) {
		broken("two clients hold the lock at once");
	}
	bench.handed++;
	(void)atomic_fetch_add(&bench.entries, 1);
	if (atomic_exchange(&bench.inside, 0) != c->id + 1) {
		broken("another client came in before the holder went");
	}
	unlock(c);
}

static void op_spawn(struct client *c, bool measured)
{
	char *argv[] = {(char *)(uintptr_t) "flock", c->path, (char *)(uintptr_t) "true", NULL};
	int status;
	pid_t pid;

	errno = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (errno != 0 || waitpid(pid, &status, 0) != pid) {
		die("flock");
	}
	if (status != 0) {
		errno = EIO;
		die("flock FILE true failed");
	}
}

static const struct measure measures[] = {
	{.name = "lock", .op = op_lock, .help = "flock + unlock on an open descriptor"},
	{.name = "parts",
		.op = op_parts,
		.parts = true,
		.help = "the same, acquire and release timed apart, with pauses between"},
	{.name = "open",
		.op = op_open,
		.closed = true,
		.help = "open + flock + close, as a program that locks once"},
	{.name = "handover",
		.op = op_handover,
		.one_lock = true,
		.help = "flock + unlock of one lock by all clients; checks mutual exclusion"},
	{.name = "spawn", .op = op_spawn, .closed = true, .help = "the command: flock FILE true"},
};

/* --- a run ---------------------------------------------------------------------------------- */

static void *client_run(void *arg)
{
	struct client *c = arg;

	if (!bench.measure->closed) {
		open_file(c);
	}
	(void)pthread_barrier_wait(&bench.begin); /* fails only if it is not initialised */
	while (!atomic_load(&bench.stop)) {
		bool measured = atomic_load(&bench.measuring);
		uint64_t t = bench_now_ns();

		bench.measure->op(c, measured);
		if (measured) {
			c->ops++;
			samples_add(&c->whole, bench_now_ns() - t);
		}
	}
	if (!bench.measure->closed) {
		(void)close(c->fd); /* only locked, never written */
	}
	return NULL;
}

/* A mount of coordfs has its locks in a directory of their own. */
static void place_client(struct client *c, const char *dir)
{
	char locks[PATH_MAX];
	struct stat st;
	const char *sub = "";

	(void)snprintf(locks, sizeof locks, "%s/locks", dir);
	if (stat(locks, &st) == 0 && S_ISDIR(st.st_mode)) {
		sub = "/locks";
	}
	(void)snprintf(c->path, sizeof c->path, "%s%s/%s-%u", dir, sub, bench.prefix,
		bench.measure->one_lock ? 0 : c->id);
}

static void start_clients(struct client *clients, char **dirs, unsigned n_dirs)
{
	pthread_attr_t attr;

	(void)pthread_attr_init(&attr); /* cannot fail here, nor can the next */
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
	errno = pthread_barrier_init(&bench.begin, NULL, bench.clients + 1);
	if (errno != 0) {
		die("clients");
	}
	for (unsigned i = 0; i < bench.clients; i++) {
		clients[i].id = i;
		place_client(&clients[i], dirs[i % n_dirs]);
		errno = pthread_create(&clients[i].thread, &attr, client_run, &clients[i]);
		if (errno != 0) {
			die("clients");
		}
	}
	(void)pthread_barrier_wait(&bench.begin);
}

/* Returns how long the clients were measured. */
static double time_clients(struct client *clients)
{
	uint64_t from;
	double seconds;

	(void)usleep(WARM_UP_US);
	from = bench_now_ns();
	atomic_store(&bench.measuring, true);
	(void)usleep((useconds_t)(bench.seconds * 1e6)); /* the time is taken, not assumed */
	atomic_store(&bench.measuring, false);
	seconds = (double)(bench_now_ns() - from) / 1e9;
	atomic_store(&bench.stop, true);
	for (unsigned i = 0; i < bench.clients; i++) {
		(void)pthread_join(clients[i].thread, NULL);
	}
	return seconds;
}

static void merge(struct samples *into, struct samples *from)
{
	for (size_t i = 0; i < from->n; i++) {
		samples_add(into, from->ns[i]);
	}
	samples_fini(from);
}

static void print_parts(struct client *clients)
{
	struct samples acquire = {0};
	struct samples release = {0};

	for (unsigned i = 0; i < bench.clients; i++) {
		merge(&acquire, &clients[i].acquire);
		merge(&release, &clients[i].release);
	}
	samples_print(&acquire, "acquire");
	samples_print(&release, "release");
	samples_fini(&acquire);
	samples_fini(&release);
}

static void print_whole(struct client *clients, double seconds)
{
	struct samples whole = {0};
	uint64_t least = UINT64_MAX;
	uint64_t most = 0;
	uint64_t ops = 0;
	char metric[64];

	(void)snprintf(metric, sizeof metric, "%s_%uc", bench.measure->name, bench.clients);
	for (unsigned i = 0; i < bench.clients; i++) {
		ops += clients[i].ops;
		least = MIN(least, clients[i].ops);
		most = MAX(most, clients[i].ops);
		merge(&whole, &clients[i].whole);
	}
	samples_print(&whole, metric);
	bench_result(metric, "rate", (double)ops / seconds, "ops/s");
	if (bench.clients > 1) {
		bench_result(metric, "fairness", most == 0 ? 0 : (double)least / (double)most,
			"least/most");
	}
	samples_fini(&whole);
}

static void run(char **dirs, unsigned n_dirs)
{
	struct client *clients = xcalloc(bench.clients, sizeof *clients);
	double seconds;

	start_clients(clients, dirs, n_dirs);
	seconds = time_clients(clients);
	if (bench.handed != atomic_load(&bench.entries)) {
		broken("a holder's write to the shared counter was lost");
	}
	if (bench.measure->parts) {
		print_parts(clients);
	} else {
		print_whole(clients, seconds);
	}
	free(clients);
}

/* --- options -------------------------------------------------------------------------------- */

static void usage(FILE *to)
{
	(void)fprintf(to,
		"usage: bench-mount MEASURE [-s SECONDS] [-c CLIENTS] [-n NAME] "
		"[-p PREFIX] [--json] DIR...\n\n"
		"Measures locks in DIR..., mounts of coordfs or any directories; clients are\n"
		"spread over them. Prints lines `NAME METRIC VALUE UNIT`. Measures:\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(measures); i++) {
		(void)fprintf(to, "  %-10s %s\n", measures[i].name, measures[i].help);
	}
	(void)fprintf(to,
		"\n  -s, --seconds SECONDS  for that long, after a warm-up; default 3\n"
		"  -c, --clients CLIENTS  at once; default 1\n"
		"  -n, --name NAME        who is measured, for the result lines; default coordfs\n"
		"  -p, --prefix PREFIX    of the names of files; default bench\n"
		"      --json             a JSON object a line instead\n"
		"      --help\n");
}

static _Noreturn void misused(const char *text)
{
	(void)fprintf(stderr, "bench-mount: %s; see bench-mount --help\n", text);
	exit(2);
}

static void parse_option(int c)
{
	char *end = NULL;

	switch (c) {
	case 's':
		bench.seconds = strtod(optarg, &end);
		if (*end != '\0' || !(bench.seconds > 0 && bench.seconds <= 3600)) {
			misused("SECONDS must be a number above 0 and at most 3600");
		}
		break;
	case 'c':
		bench.clients = (unsigned)strtoul(optarg, &end, 10);
		if (*end != '\0' || bench.clients < 1 || bench.clients > CLIENTS_MAX) {
			misused("CLIENTS must be 1 to 4096");
		}
		break;
	case 'n':
		bench_who = optarg;
		break;
	case 'p':
		bench.prefix = optarg;
		break;
	case 'j':
		bench_json = true;
		break;
	case 'h':
		usage(stdout);
		exit(0);
	default:
		misused("an option is not known or lacks its value");
	}
}

static const struct measure *find_measure(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(measures); i++) {
		if (strcmp(name, measures[i].name) == 0) {
			return &measures[i];
		}
	}
	misused("there is no such measure");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 's'},
		{"clients", required_argument, NULL, 'c'},
		{"name", required_argument, NULL, 'n'},
		{"prefix", required_argument, NULL, 'p'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "s:c:n:p:h", options, NULL)) != -1) {
		parse_option(c);
	}
	if (argc - optind < 2) {
		misused("a MEASURE and at least one DIR are needed");
	}
	bench.measure = find_measure(argv[optind]);
	run(argv + optind + 1, (unsigned)(argc - optind - 1));
	return 0;
}
