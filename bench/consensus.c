/*
 * consensus.c - consensus alone: raft, the log on disk and the streams, without
 * state machine or mount. Three processes, one disk, 128-byte entries.
 *
 *   consensus DIR SECONDS [DELAY_MS [RATE]]
 *
 * First a bare fdatasync, alone and by three processes at once; then whoever leads after a second
 * of quiet measures a round trip of a frame, and commits with 1, 64 and 512 operations outstanding,
 * with the leader's CPU time. With DELAY_MS every byte between processes is held back that long,
 * each way, by a proxy process, and RATE operations a second (default 1000) are proposed whatever
 * the answers (an open loop).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "bench/delay.h"
#include "bench/samples.h"
#include "core/io/clock.h"
#include "core/io/peers.h"
#include "core/io/wal.h"
#include "core/raft/raft.h"
#include "core/wire.h"

#define NODES 3
#define ENTRY_BYTES 128
#define BASE_PORT 17301
#define RING 65536 /* entries whose time of proposal is remembered */
#define PINGS 2000
#define QUIET_MS 1500
#define PING_MARK 0xff /* no frame of ours begins with it: field 31, a bad wire type */

struct phase {
	const char *name;
	unsigned outstanding; /* 0: open loop */
};

static const struct phase closed_phases[] = {
	{"commit_1", 1}, {"commit_64", 64}, {"commit_512", 512}, {NULL, 0}};
static const struct phase open_phases[] = {{"commit_open_loop", 0}, {NULL, 0}};

struct bench {
	uint64_t id;
	const char *dir;
	uint64_t seconds;
	unsigned delay_ms;
	unsigned rate;
	uv_loop_t loop;
	uv_timer_t tick;
	uv_timer_t open_loop;
	uv_check_t check;
	uv_prepare_t prepare;
	struct raft *raft;
	struct raft_config config;
	struct wal *wal;
	struct peers *peers;
	struct wire_buf out;
	const struct phase *phase; /* NULL: not measuring */
	bool sending_pings;
	uint64_t led_since_ms;
	uint64_t phase_from_ns;
	uint64_t open_due; /* proposals of the open loop so far */
	uint64_t cpu_from_us;
	uint64_t ops;
	uint64_t proposed_ns[RING];
	uint64_t ping_ns;
	struct samples samples;
};

static struct bench self;

static _Noreturn void stop_with(const char *what, int rc)
{
	(void)fprintf(stderr, "consensus: %s: %s\n", what, strerror(-rc));
	_exit(1);
}

static uint64_t cpu_us(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u); /* cannot fail */
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* --- measuring ------------------------------------------------------------------------------ */

static void propose(struct bench *b)
{
	uint8_t data[ENTRY_BYTES] = {1};
	uint64_t index;
	int rc = raft_propose(b->raft, data, sizeof data, &index);

	if (rc < 0 && b->phase->outstanding != 0) {
		stop_with("a proposal was refused", rc);
	}
	if (rc == 0) {
		b->proposed_ns[index % RING] = bench_now_ns();
	}
}

static void phase_begin(struct bench *b, const struct phase *p)
{
	b->phase = p;
	b->ops = 0;
	b->open_due = 0;
	b->cpu_from_us = cpu_us();
	b->phase_from_ns = bench_now_ns();
	for (unsigned i = 0; i < p->outstanding; i++) {
		propose(b);
	}
}

static void phase_end(struct bench *b)
{
	double seconds = (double)(bench_now_ns() - b->phase_from_ns) / 1e9;

	samples_print(&b->samples, b->phase->name);
	bench_result(b->phase->name, "rate", (double)b->ops / seconds, "ops/s");
	bench_result(b->phase->name, "leader_cpu",
		(double)(cpu_us() - b->cpu_from_us) / (double)MAX(b->ops, 1), "us/op");
	samples_fini(&b->samples);
	b->phase++;
	if (b->phase->name == NULL) {
		_exit(0); /* the parent ends the others */
	}
}

static void send_ping(struct bench *b, uint64_t to, uint8_t kind)
{
	uint8_t frame[WIRE_FRAME_HEADER_BYTES + 64] = {64, 0, 0, 0, PING_MARK, kind};

	peers_send(b->peers, to, frame, sizeof frame);
	peers_flush(b->peers);
}

static uint64_t other(const struct bench *b)
{
	return b->id == 1 ? 2 : 1;
}

static void ping_next(struct bench *b)
{
	b->ping_ns = bench_now_ns();
	send_ping(b, other(b), 0);
}

static void on_ping(struct bench *b, uint64_t from, const uint8_t *body)
{
	if (body[1] == 0) {
		send_ping(b, from, 1);
		return;
	}
	samples_add(&b->samples, bench_now_ns() - b->ping_ns);
	if (b->samples.n < (b->delay_ms == 0 ? PINGS : 100)) {
		ping_next(b);
		return;
	}
	samples_print(&b->samples, "round_trip");
	samples_fini(&b->samples);
	b->sending_pings = false;
	phase_begin(b, b->delay_ms == 0 ? closed_phases : open_phases);
}

static void tick_measure(struct bench *b, uint64_t now)
{
	if (!raft_leader_ready(b->raft)) {
		if (b->phase != NULL) {
			stop_with("leadership was lost while measuring", -ECANCELED);
		}
		b->led_since_ms = 0;
		return;
	}
	if (b->led_since_ms == 0) {
		b->led_since_ms = now;
	} else if (b->phase == NULL && !b->sending_pings && now > b->led_since_ms + QUIET_MS) {
		b->sending_pings = true;
		ping_next(b);
	} else if (b->phase != NULL &&
		   bench_now_ns() > b->phase_from_ns + b->seconds * UINT64_C(1000000000)) {
		const struct phase *ended = b->phase;

		phase_end(b);
		phase_begin(b, ended + 1);
	}
}

static void on_open_loop(uv_timer_t *timer)
{
	struct bench *b = timer->data;

	if (b->phase != NULL && b->phase->outstanding == 0) {
		uint64_t due = (bench_now_ns() - b->phase_from_ns) * b->rate / 1000000000u;

		for (; b->open_due < due; b->open_due++) {
			propose(b);
		}
	}
}

/* --- raft's world --------------------------------------------------------------------------- */

static void env_append(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t n)
{
	wal_append(self.wal, gen, entries, n);
}

static void env_truncate(void *ctx, uint64_t from)
{
	wal_truncate(self.wal, from);
}

static void env_save_vote(void *ctx, uint64_t term, uint64_t vote)
{
	wal_save_vote(self.wal, term, vote);
}

static void env_send(void *ctx, const struct raft_msg *msg)
{
	self.out.len = 0;
	wire_encode_raft(msg, &self.out);
	peers_send(self.peers, msg->to, self.out.data, self.out.len);
}

static void env_apply(void *ctx, const struct raft_entry *e)
{
	struct bench *b = &self;

	if (e->kind != RAFT_COMMAND || b->phase == NULL || b->phase->name == NULL) {
		return;
	}
	samples_add(&b->samples, bench_now_ns() - b->proposed_ns[e->index % RING]);
	b->ops++;
	if (b->phase->outstanding != 0) {
		propose(b);
	}
}

static void env_nothing(void *ctx)
{
}

static void env_read_ready(void *ctx, uint64_t read_id, uint64_t index, bool ok)
{
}

static void env_config_changed(void *ctx, const struct raft_config *config)
{
}

static void env_snapshot_read(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
}

static void env_snapshot_write(void *ctx, const struct raft_msg *msg)
{
}

static void on_durable(void *ctx, uint64_t gen, uint64_t index)
{
	raft_log_durable(self.raft, gen, index);
}

static void on_vote_durable(void *ctx, uint64_t term, uint64_t vote)
{
	raft_vote_durable(self.raft, term, vote);
}

static void on_reset(void *ctx, uint64_t index)
{
}

static void on_low_space(void *ctx, bool low)
{
}

static void on_failed(void *ctx, int error, const char *text)
{
	stop_with(text, -error);
}

static bool on_admit(void *ctx, uint64_t id, const uint8_t uuid[16])
{
	return true;
}

static void on_frame(void *ctx, uint64_t from, const void *body, size_t len)
{
	struct wire_frame *frame;
	struct raft_msg *msg;

	if (len == 64 && ((const uint8_t *)body)[0] == PING_MARK) {
		on_ping(&self, from, body);
		return;
	}
	if (wire_decode_frame(body, len, &frame) < 0) {
		stop_with("a frame cannot be decoded", -EBADMSG);
	}
	msg = wire_frame_raft(frame);
	msg->from = from;
	msg->to = self.id;
	raft_recv(self.raft, msg, clock_boot_ms());
	wire_frame_free(frame);
}

static void on_up(void *ctx, uint64_t id)
{
}

static void on_request(void *ctx, struct peers_request *r, const char *method, const char *path,
	const void *body, size_t len)
{
	peers_answer(r, 404, "text/plain", "", 0);
}

/* --- one process ---------------------------------------------------------------------------- */

static void flush(struct bench *b)
{
	raft_flush(b->raft, clock_boot_ms());
	peers_flush(b->peers);
}

static void on_check(uv_check_t *handle)
{
	flush(handle->data);
}

static void on_prepare(uv_prepare_t *handle)
{
	flush(handle->data);
}

static void on_tick(uv_timer_t *timer)
{
	uint64_t now = clock_boot_ms();

	raft_tick(self.raft, now);
	tick_measure(timer->data, now);
}

static void open_wal(struct bench *b)
{
	struct wal_options o = {.dir = b->dir, .create = true};
	struct wal_events events = {.durable = on_durable,
		.vote_durable = on_vote_durable,
		.reset_done = on_reset,
		.low_space = on_low_space,
		.failed = on_failed};
	struct wal_recovered rec = {0};
	char err[512];

	if (mkdir(b->dir, 0700) < 0 ||
		wal_open(&b->loop, &o, &events, &b->wal, &rec, err, sizeof err) < 0) {
		stop_with(b->dir, -EIO);
	}
	wal_recovered_fini(&rec);
}

static void open_raft(struct bench *b)
{
	static const struct raft_env env = {.append = env_append,
		.truncate = env_truncate,
		.save_vote = env_save_vote,
		.send = env_send,
		.apply = env_apply,
		.read_ready = env_read_ready,
		.role_changed = env_nothing,
		.config_changed = env_config_changed,
		.snapshot_read = env_snapshot_read,
		.snapshot_write = env_snapshot_write};
	struct raft_options o;
	struct raft_start start = {.config = &b->config};
	int rc;

	raft_options_default(&o);
	o.id = b->id;
	o.seed = b->id * 7919 + (uint64_t)getpid();
	rc = raft_new(&o, &env, &start, clock_boot_ms(), &b->raft);
	if (rc < 0) {
		stop_with("raft", rc);
	}
}

static void open_peers(struct bench *b)
{
	struct peers_options o = {.id = b->id, .secret = "a-secret-of-the-benchmark"};
	struct peers_events events = {.admit = on_admit,
		.frame = on_frame,
		.up = on_up,
		.turn = env_nothing,
		.request = on_request};
	char listen[64];
	char err[512];

	(void)snprintf(listen, sizeof listen, "127.0.0.1:%u", (unsigned)(BASE_PORT + b->id));
	o.listen = listen;
	o.uuid[0] = (uint8_t)b->id;
	if (peers_open(&b->loop, &o, &events, &b->peers, err, sizeof err) < 0) {
		stop_with(err, -EADDRINUSE);
	}
	peers_set(b->peers, &b->config);
}

static void make_config(struct bench *b)
{
	static struct raft_server servers[NODES];

	for (unsigned i = 0; i < NODES; i++) {
		unsigned port = BASE_PORT + i + 1 + (b->delay_ms > 0 ? DELAY_PORT_OFFSET : 0);

		servers[i].id = i + 1;
		servers[i].voter = true;
		(void)snprintf(servers[i].addr, sizeof servers[i].addr, "127.0.0.1:%u", port);
	}
	b->config.n = NODES;
	b->config.servers = servers;
}

static _Noreturn void run_node(struct bench *b)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)uv_loop_init(&b->loop); /* these cannot fail in a fresh process */
	(void)uv_timer_init(&b->loop, &b->tick);
	(void)uv_timer_init(&b->loop, &b->open_loop);
	(void)uv_check_init(&b->loop, &b->check);
	(void)uv_prepare_init(&b->loop, &b->prepare);
	b->tick.data = b->open_loop.data = b->check.data = b->prepare.data = b;
	make_config(b);
	open_wal(b);
	open_raft(b);
	open_peers(b);
	(void)uv_timer_start(&b->tick, on_tick, 25, 25);
	(void)uv_timer_start(&b->open_loop, on_open_loop, 1, 1);
	(void)uv_check_start(&b->check, on_check);
	(void)uv_prepare_start(&b->prepare, on_prepare);
	(void)uv_run(&b->loop, UV_RUN_DEFAULT);
	_exit(1);
}

/* --- the parent ----------------------------------------------------------------------------- */

static pid_t start_process(unsigned i, const char *dir)
{
	static char node_dir[4096];
	pid_t pid = fork();

	if (pid != 0) {
		return pid;
	}
	if (i == NODES) {
		delay_run(BASE_PORT + 1, NODES, self.delay_ms);
	}
	(void)snprintf(node_dir, sizeof node_dir, "%s/node%u", dir, i + 1);
	self.id = i + 1;
	self.dir = node_dir;
	run_node(&self);
}

static void measure_fdatasync(const char *dir, unsigned node, const char *metric)
{
	struct samples s = {0};
	char path[4096];
	char block[65536] = {0};
	int fd;

	(void)snprintf(path, sizeof path, "%s/fdatasync%u", dir, node);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, block, sizeof block) != (ssize_t)sizeof block || fsync(fd) < 0) {
		stop_with(path, -errno);
	}
	for (int i = 0; i < 500; i++) {
		uint64_t t = bench_now_ns();

		if (pwrite(fd, block, 512, i * 64) != 512 || fdatasync(fd) < 0) {
			stop_with(path, -errno);
		}
		samples_add(&s, bench_now_ns() - t);
	}
	(void)close(fd);
	if (metric != NULL) {
		samples_print(&s, metric);
	}
	samples_fini(&s);
}

/* One process syncs, and then as many as there are nodes, each its own file: on one disk they
 * wait for each other, as the nodes of this bench do. */
static void measure_disk(const char *dir)
{
	measure_fdatasync(dir, 0, "fdatasync");
	for (unsigned i = 1; i < NODES; i++) {
		if (fork() == 0) {
			measure_fdatasync(dir, i, NULL);
			_exit(0);
		}
	}
	measure_fdatasync(dir, 0, "fdatasync_of_3");
	while (wait(NULL) > 0) {
	}
}

int main(int argc, char **argv)
{
	pid_t pids[NODES + 1] = {0};
	unsigned processes;
	int status = 0;
	pid_t first;

	if (argc < 3) {
		(void)fprintf(stderr, "usage: consensus DIR SECONDS [DELAY_MS [RATE]]\n");
		return 2;
	}
	self.seconds = strtoul(argv[2], NULL, 10);
	self.delay_ms = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	self.rate = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 1000;
	measure_disk(argv[1]); /* first: it would block a loop */
	processes = NODES + (self.delay_ms > 0);
	for (unsigned i = 0; i < processes; i++) {
		pids[i] = start_process(i, argv[1]);
	}
	first = wait(&status);
	for (unsigned i = 0; i < processes; i++) {
		if (pids[i] > 0 && pids[i] != first) {
			(void)kill(pids[i], SIGKILL);
			(void)waitpid(pids[i], NULL, 0);
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
