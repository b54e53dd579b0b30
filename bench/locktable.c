/*
 * locktable.c - a large lock table in a cluster of three processes on one disk,
 * everything but the mount.
 *
 *   bench-locktable DIR [LOCKS [SNAPSHOTS]]      default 1000000 and 6
 *
 * Whoever leads takes LOCKS locks, many requests at once, and keeps them. Then, with one
 * request outstanding, it locks and unlocks, by turns while no node takes a
 * snapshot and while one does, until so many snapshots were taken. The log grows towards
 * each by values of another lock, whose writes are not measured. At last
 * another node is killed and started again, until it has answered a lock.
 *
 *   FILL -> SETTLE -> MEASURE <-> GROW -> RESTART
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "bench/samples.h"
#include "core/io/server.h"

#define NODES 3
#define BASE_PORT 17501
#define SECRET "a-secret-of-the-benchmark\n"
#define LOCKS_MAX 16000000u /* what a state machine takes by default is a little more */
#define OUTSTANDING 1024    /* while filling */
#define GROW_OUTSTANDING 16
#define QUIET_MS 1500
#define QUIET_SAMPLES 4000 /* between two snapshots */
#define LOOK_MS 20
#define FIRST_OWNER (UINT64_C(1) << 32) /* of what is not part of the table */

enum step {
	WAIT, /* for a leader; only the leader goes on */
	FILL,
	SETTLE,
	MEASURE,
	GROW,
	RESTART,
};

/* What the processes tell each other. */
struct shared {
	atomic_uint taking; /* bit i: node i + 1 is taking a snapshot */
	atomic_uint taken;
	atomic_uint restart; /* the node to be killed and started again; 0: none yet */
	atomic_uint_fast64_t restarted_ns;
	atomic_uint_fast64_t snapshot_ns[NODES]; /* the last one took */
	_Atomic pid_t pids[NODES];
	atomic_bool over;
};

struct bench {
	unsigned id;
	const char *dir;
	uint64_t locks;
	unsigned snapshots;
	bool again; /* this process takes the place of a killed one */
	uv_loop_t loop;
	uv_timer_t look;
	struct server *server;
	struct shared *shared;
	enum step step;
	uint64_t led_since_ns;
	uint64_t from_ns; /* of the step */
	uint64_t asked;
	uint64_t answered;
	uint64_t rss_before[NODES];
	unsigned taken_before;
	uint64_t op_ns;
	unsigned op_taking; /* shared->taking when the operation began */
	size_t quiet_until; /* so many samples, then the log grows again */
	uint64_t snapshot_from_ns;
	struct samples quiet;
	struct samples snapshot; /* while any node takes one */
	struct samples own;      /* while this one does */
};

static struct bench self;

static void ask_probe(struct bench *b);
static void ask_value(struct bench *b);

static _Noreturn void stop_with(const char *text)
{
	(void)fprintf(stderr, "bench-locktable: %s\n", text);
	_exit(1);
}

static struct core *core(struct bench *b)
{
	return node_core(server_node(b->server));
}

static uint64_t rss_bytes(pid_t pid)
{
	unsigned long pages = 0;
	char path[64];
	FILE *f;

	(void)snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
	f = fopen(path, "re");
	if (f == NULL || fscanf(f, "%*u %lu", &pages) != 1) {
		stop_with("the size of a process cannot be read");
	}
	(void)fclose(f); /* only read from */
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds_since(uint64_t from_ns)
{
	return (double)(bench_now_ns() - from_ns) / 1e9;
}

/* --- requests ------------------------------------------------------------------------------- */

static struct core_lock_request request(const char *name, uint64_t owner)
{
	struct core_lock_request r = {.name = {.bytes = name, .len = strlen(name)},
		.owner = core_flock_owner(owner),
		.wait = true,
		.task = {.pid = 4711, .start = 123456, .command = "bench"}};

	r.opener = r.task;
	return r;
}

static void check(enum status st)
{
	if (st != ST_OK) {
		(void)fprintf(
			stderr, "bench-locktable: a request was refused, status %d\n", (int)st);
		_exit(1);
	}
}

static void ask_lock(struct bench *b);

static void on_lock(void *arg, enum status st, uint64_t token)
{
	struct bench *b = arg;

	check(st);
	b->answered++;
	if (b->asked < b->locks) {
		ask_lock(b);
	}
}

static void ask_lock(struct bench *b)
{
	struct core_lock_request r;
	char name[32];

	(void)snprintf(name, sizeof name, "service-%08llu", (unsigned long long)b->asked++);
	r = request(name, b->asked);
	(void)core_lock(core(b), &r, on_lock, b); /* never interrupted */
}

static void add_sample(struct bench *b)
{
	unsigned taking = atomic_load(&b->shared->taking);
	uint64_t ns = bench_now_ns() - b->op_ns;

	if (taking == 0 && b->op_taking == 0) {
		samples_add(&b->quiet, ns);
		return;
	}
	samples_add(&b->snapshot, ns);
	if (((taking | b->op_taking) & 1u << (b->id - 1)) != 0) {
		samples_add(&b->own, ns);
	}
}

static void on_probe(void *arg, enum status st, uint64_t token)
{
	struct bench *b = arg;
	struct core_name name = {.bytes = "probe", .len = 5};

	check(st);
	add_sample(b);
	core_unlock(core(b), name, core_flock_owner(FIRST_OWNER), CORE_RANGE_WHOLE);
	if (b->step == MEASURE) {
		ask_probe(b);
	}
}

static void ask_probe(struct bench *b)
{
	struct core_lock_request r = request("probe", FIRST_OWNER);

	b->op_taking = atomic_load(&b->shared->taking);
	b->op_ns = bench_now_ns();
	(void)core_lock(core(b), &r, on_probe, b);
}

static void on_value(void *arg, enum status st, uint64_t token)
{
	struct bench *b = arg;

	check(st);
	b->answered++;
	if (atomic_load(&b->shared->taking) == 0) {
		ask_value(b);
	}
}

static void ask_value(struct bench *b)
{
	static const uint8_t value[CORE_LOCK_VALUE_MAX] = {1};
	struct core_name name = {.bytes = "service-00000000", .len = 16};

	b->asked++;
	(void)core_lock_set_value(
		core(b), name, core_flock_owner(1), value, sizeof value, on_value, b);
}

/* --- steps ---------------------------------------------------------------------------------- */

static void step_to(struct bench *b, enum step step)
{
	b->step = step;
	b->from_ns = bench_now_ns();
	b->asked = 0;
	b->answered = 0;
}

static void fill_begin(struct bench *b)
{
	step_to(b, FILL);
	for (unsigned i = 0; i < NODES; i++) {
		b->rss_before[i] = rss_bytes(atomic_load(&b->shared->pids[i]));
	}
	for (unsigned i = 0; i < OUTSTANDING && b->asked < b->locks; i++) {
		ask_lock(b);
	}
}

static void fill_end(struct bench *b)
{
	double seconds = seconds_since(b->from_ns);

	bench_result("locktable", "locks", (double)b->locks, "locks");
	bench_result("locktable_fill", "time", seconds, "s");
	bench_result("locktable_fill", "rate", (double)b->locks / seconds, "ops/s");
	bench_result("locktable_fill", "snapshots", atomic_load(&b->shared->taken), "snapshots");
	step_to(b, SETTLE);
}

static void settle_end(struct bench *b)
{
	uint64_t most = 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < NODES; i++) {
		bytes = rss_bytes(atomic_load(&b->shared->pids[i])) - b->rss_before[i];
		most = MAX(most, bytes);
	}
	bytes = rss_bytes(getpid()) - b->rss_before[b->id - 1];
	bench_result("locktable_memory", "leader", (double)bytes / (double)b->locks, "bytes/lock");
	bench_result("locktable_memory", "most", (double)most / (double)b->locks, "bytes/lock");
	bench_result("locktable_memory", "log",
		(double)raft_log_bytes(node_raft(server_node(b->server))) / (double)b->locks,
		"bytes/lock");
	b->taken_before = atomic_load(&b->shared->taken);
	b->quiet_until = QUIET_SAMPLES;
	step_to(b, MEASURE);
	ask_probe(b);
}

static void print_snapshots(struct bench *b)
{
	double most = 0;
	double quiet;

	for (unsigned i = 0; i < NODES; i++) {
		most = MAX(most, (double)atomic_load(&b->shared->snapshot_ns[i]) / 1e9);
	}
	bench_result("locktable_snapshot", "time", most, "s");
	samples_print(&b->quiet, "locktable_lock_quiet");
	samples_print(&b->snapshot, "locktable_lock_snapshot");
	samples_print(&b->own, "locktable_lock_leader_snapshot");
	bench_result("locktable_lock_snapshot", "samples", (double)b->snapshot.n, "samples");
	quiet = MAX(samples_us(&b->quiet, 990), 1);
	bench_result("locktable_p99", "ratio", samples_us(&b->snapshot, 990) / quiet, "x");
	bench_result("locktable_p99", "leader_ratio", samples_us(&b->own, 990) / quiet, "x");
}

static void measure_look(struct bench *b)
{
	if (atomic_load(&b->shared->taking) != 0 || b->quiet.n < b->quiet_until) {
		return;
	}
	if (atomic_load(&b->shared->taken) - b->taken_before >= b->snapshots) {
		print_snapshots(b);
		step_to(b, RESTART); /* the last probe is answered and not repeated */
		atomic_store(&b->shared->restart, b->id % NODES + 1);
		return;
	}
	step_to(b, GROW);
	for (unsigned i = 0; i < GROW_OUTSTANDING; i++) {
		ask_value(b);
	}
}

static void wait_look(struct bench *b)
{
	if (!raft_leader_ready(node_raft(server_node(b->server))) ||
		node_lease_end(server_node(b->server)) == 0) {
		b->led_since_ns = 0;
	} else if (b->led_since_ns == 0) {
		b->led_since_ns = bench_now_ns();
	} else if (seconds_since(b->led_since_ns) * 1000 > QUIET_MS) {
		fill_begin(b);
	}
}

static void look(struct bench *b)
{
	bool idle = atomic_load(&b->shared->taking) == 0;

	switch (b->step) {
	case WAIT:
		wait_look(b);
		break;
	case FILL:
		if (b->answered == b->locks) {
			fill_end(b);
		}
		break;
	case SETTLE:
		if (idle && seconds_since(b->from_ns) * 1000 > QUIET_MS) {
			settle_end(b);
		}
		break;
	case MEASURE:
		measure_look(b);
		break;
	case GROW:
		if (!idle && b->answered == b->asked) {
			b->quiet_until = b->quiet.n + QUIET_SAMPLES;
			step_to(b, MEASURE);
			ask_probe(b);
		}
		break;
	case RESTART:
		break;
	}
}

/* --- a node that was started again ---------------------------------------------------------- */

static void on_answer_again(void *arg, enum status st, uint64_t token)
{
	struct bench *b = arg;

	check(st);
	bench_result("locktable_restart", "answers",
		seconds_since(atomic_load(&b->shared->restarted_ns)), "s");
	atomic_store(&b->shared->over, true);
}

static void opened_again(struct bench *b)
{
	struct core_lock_request r = request("restarted", FIRST_OWNER);

	bench_result("locktable_restart", "loaded",
		seconds_since(atomic_load(&b->shared->restarted_ns)), "s");
	b->step = RESTART;
	server_input(b->server);
	(void)core_lock(core(b), &r, on_answer_again, b);
}

/* --- one process ---------------------------------------------------------------------------- */

static void on_trace(void *ctx, enum trace_level level, const char *event, const char *kv)
{
	struct bench *b = ctx;
	unsigned bit = 1u << (b->id - 1);

	if (strcmp(event, "snapshot.begin") == 0) {
		b->snapshot_from_ns = bench_now_ns();
		(void)atomic_fetch_or(&b->shared->taking, bit);
		(void)atomic_fetch_add(&b->shared->taken, 1);
	} else if (strcmp(event, "snapshot.done") == 0) {
		atomic_store(
			&b->shared->snapshot_ns[b->id - 1], bench_now_ns() - b->snapshot_from_ns);
		(void)atomic_fetch_and(&b->shared->taking, ~bit);
	} else if (level <= TRACE_WARN && !b->again) {
		(void)fprintf(stderr, "bench-locktable: node %u: %s %s\n", b->id, event, kv);
	}
}

static void on_fatal(void *ctx, const char *text)
{
	stop_with(text);
}

static void on_stopped(void *ctx)
{
	stop_with("a node has stopped");
}

static void on_look(uv_timer_t *timer)
{
	struct bench *b = timer->data;

	server_input(b->server);
	look(b);
}

static void open_server(struct bench *b)
{
	char node_dir[4096];
	char secret[4096];
	char peers[256];
	char err[1024] = "a node cannot start";
	struct server_events events = {.ctx = b, .fatal = on_fatal, .stopped = on_stopped};
	struct server_options o = {.dir = node_dir,
		.id = b->id,
		.peers = peers,
		.secret_file = secret,
		.trace = {.emit = on_trace, .ctx = b, .max = TRACE_INFO}};

	(void)snprintf(node_dir, sizeof node_dir, "%s/node%u", b->dir, b->id);
	(void)snprintf(secret, sizeof secret, "%s/secret", b->dir);
	(void)snprintf(peers, sizeof peers, "1=127.0.0.1:%d,2=127.0.0.1:%d,3=127.0.0.1:%d",
		BASE_PORT, BASE_PORT + 1, BASE_PORT + 2);
	node_options_default(&o.node);
	if (server_open(&b->loop, &o, &events, &b->server, err, sizeof err) < 0) {
		stop_with(err);
	}
}

static _Noreturn void run_node(struct bench *b)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)uv_loop_init(&b->loop); /* these cannot fail in a fresh process */
	(void)uv_timer_init(&b->loop, &b->look);
	b->look.data = b;
	open_server(b);
	if (b->again) {
		opened_again(b);
	}
	(void)uv_timer_start(&b->look, on_look, LOOK_MS, LOOK_MS);
	(void)uv_run(&b->loop, UV_RUN_DEFAULT);
	_exit(1);
}

/* --- the parent ----------------------------------------------------------------------------- */

static void start_node(unsigned id, bool again)
{
	pid_t pid = fork();

	if (pid == 0) {
		self.id = id;
		self.again = again;
		run_node(&self);
	}
	if (pid < 0) {
		stop_with("a process cannot be started");
	}
	atomic_store(&self.shared->pids[id - 1], pid);
}

static void kill_node(unsigned id)
{
	pid_t pid = atomic_load(&self.shared->pids[id - 1]);

	(void)kill(pid, SIGKILL); /* our child, not waited for yet: it cannot be another's */
	(void)waitpid(pid, NULL, 0);
}

static void restart_node(unsigned id)
{
	kill_node(id);
	atomic_store(&self.shared->restarted_ns, bench_now_ns());
	start_node(id, true);
}

/* Until it is over, or a node has ended by itself. */
static bool watch(void)
{
	bool restarted = false;

	while (!atomic_load(&self.shared->over)) {
		unsigned id = atomic_load(&self.shared->restart);

		if (waitpid(-1, NULL, WNOHANG) > 0) {
			return false;
		}
		if (id != 0 && !restarted) {
			restarted = true;
			restart_node(id);
		}
		(void)usleep(LOOK_MS * 1000);
	}
	return true;
}

static void write_secret(const char *dir)
{
	char path[4096];
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/secret", dir);
	(void)umask(0077);
	f = fopen(path, "wxe");
	if (f == NULL || fputs(SECRET, f) < 0 || fclose(f) != 0) {
		stop_with("DIR must be an empty directory");
	}
}

int main(int argc, char **argv)
{
	bool ok;

	if (argc < 2 || argc > 4) {
		(void)fprintf(stderr, "usage: bench-locktable DIR [LOCKS [SNAPSHOTS]]\n");
		return 2;
	}
	self.dir = argv[1];
	self.locks = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
	self.snapshots = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 6;
	if (self.locks < 1 || self.locks > LOCKS_MAX || self.snapshots < 1) {
		stop_with("LOCKS must be 1 to 16000000, and SNAPSHOTS at least 1");
	}
	self.shared = mmap(NULL, sizeof *self.shared, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (self.shared == MAP_FAILED) {
		stop_with("no memory");
	}
	write_secret(self.dir);
	for (unsigned id = 1; id <= NODES; id++) {
		start_node(id, false);
	}
	ok = watch();
	for (unsigned id = 1; id <= NODES; id++) {
		kill_node(id);
	}
	return ok ? 0 : 1;
}
