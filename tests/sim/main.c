/*
 * main.c - run many seeds, several at a time, and report the first that fails.
 *
 * Seeds run without a trace, in child processes, so that a failed assertion of
 * the core ends only its own. A seed that fails is run once more with the trace
 * kept, for its last lines: it must fail in the same way, or the simulator is
 * not deterministic, which is reported as what it is.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

#define JOBS_MAX 64
#define TAIL_LINES 200
#define LIST_MAX 1024
#define SEED_SECONDS_MAX 120 /* of real time: beyond, something turns in a circle */

/* What one child tells the parent: shared memory. */
struct slot {
	uint64_t seed; /* being run */
	bool failed;
	char check[64];
	char text[1024];
	uint64_t seeds, events, grants, lost; /* so far */
};

struct board {
	uint64_t next; /* seed, counted atomically */
	uint64_t last;
	bool stop;
	struct slot slot[JOBS_MAX];
};

struct run {
	uint64_t first, last;
	unsigned jobs;
	uint64_t chaos_ms;
	bool trace;
	bool keep_going;
	bool twice;
	bool quiet;
	size_t tail;
	const struct sim_plant *plant;
	struct board *board; /* borrowed: shared memory */
};

/* For the handlers of signals: what this process is doing. */
static struct sim *running;
static struct slot *mine;

/* --- one seed ------------------------------------------------------------------------ */

static void seed_failed(const struct sim *s, const char *check, const char *text)
{
	if (mine != NULL) {
		mine->failed = true;
		(void)snprintf(mine->check, sizeof mine->check, "%s", check);
		(void)snprintf(mine->text, sizeof mine->text, "%s", text);
	}
	if (sim_tracing(s)) {
		sim_print_tail(s);
		(void)fprintf(stderr,
			"sim: seed %" PRIu64 " at %" PRIu64 ".%06" PRIu64 " s: %s: %s\n",
			s->options.seed, s->now_us / 1000000, s->now_us % 1000000, check, text);
	}
	(void)fflush(NULL);
	_exit(EXIT_FAILURE);
}

static void on_signal(int number)
{
	seed_failed(running, number == SIGABRT ? "assertion" : "hang",
		number == SIGABRT ? "see the line before" : "the seed does not come to an end");
}

static struct sim *run_seed(const struct run *r, uint64_t seed, bool print, size_t tail)
{
	struct sim_options o = {
		.seed = seed,
		.chaos_ms = r->chaos_ms,
		.print = print,
		.tail = tail,
		.bias = r->plant != NULL ? r->plant->bias : BIAS_NONE,
		.failed = seed_failed,
	};
	struct sim *s = sim_new(&o);

	running = s;
	(void)alarm(SEED_SECONDS_MAX);
	sim_run_chaos(s);
	(void)alarm(0);
	return s;
}

static void watch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	(void)sigaction(SIGABRT, &sa, NULL);
	(void)sigaction(SIGALRM, &sa, NULL);
}

/* --- a child ------------------------------------------------------------------------- */

static void run_and_count(const struct run *r, uint64_t seed)
{
	struct sim *s = run_seed(r, seed, false, 0);
	uint64_t hash = s->hash;

	mine->seeds++;
	mine->events += s->n_events;
	mine->grants += s->n_grants;
	mine->lost += s->n_lost;
	sim_free(s);
	if (r->twice) {
		s = run_seed(r, seed, false, TAIL_LINES); /* the trace must not matter either */
		if (s->hash != hash) {
			sim_fail(s, "determinism", "the second run of the seed is another one");
		}
		sim_free(s);
	}
}

static void child_main(const struct run *r, unsigned job)
{
	struct board *b = r->board;

	mine = &b->slot[job];
	watch_signals();
	plant_switch_on(r->plant);
	while (!__atomic_load_n(&b->stop, __ATOMIC_RELAXED)) {
		uint64_t seed = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED);

		if (seed > b->last) {
			break;
		}
		mine->seed = seed;
		run_and_count(r, seed);
	}
	exit(EXIT_SUCCESS); /* not _exit: the leak check of a sanitized build is wanted */
}

static pid_t child_start(const struct run *r, unsigned job)
{
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		child_main(r, job);
	}
	ASSERT(pid > 0);
	return pid;
}

/* --- the parent ---------------------------------------------------------------------- */

static void print_replay(const struct run *r, uint64_t seed)
{
	(void)fprintf(stderr,
		"sim: to see all of it: %s --seed %" PRIu64 " --seconds %" PRIu64 "%s%s --trace\n",
		program_invocation_name, seed, r->chaos_ms / 1000,
		r->plant != NULL ? " --plant " : "", r->plant != NULL ? r->plant->name : "");
}

/* Run it again with the end of its trace kept. */
static void report(const struct run *r, const struct slot *slot)
{
	pid_t pid;
	int status = 0;

	if (r->quiet) {
		return;
	}
	(void)fprintf(stderr, "sim: seed %" PRIu64 " failed: %s: %s\n", slot->seed, slot->check,
		slot->text);
	if (r->keep_going) {
		return;
	}
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		watch_signals();
		plant_switch_on(r->plant);
		(void)run_seed(r, slot->seed, false, r->tail);
		_exit(EXIT_SUCCESS);
	}
	ASSERT(pid > 0);
	(void)waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
		(void)fprintf(stderr,
			"sim: it does not fail again: the simulator is not deterministic\n");
	}
	print_replay(r, slot->seed);
}

static void explain_death(struct slot *slot, int status)
{
	if (!slot->failed) {
		(void)snprintf(slot->check, sizeof slot->check, "crash");
		(void)snprintf(slot->text, sizeof slot->text, "signal %d, exit status %d",
			WIFSIGNALED(status) ? WTERMSIG(status) : 0,
			WIFEXITED(status) ? WEXITSTATUS(status) : 0);
	}
}

/* Returns how many seeds failed; the first that did is left in ret_first. */
static uint64_t run_seeds(struct run *r, struct slot *ret_first)
{
	struct board *b = r->board;
	pid_t child[JOBS_MAX];
	uint64_t failures = 0;
	unsigned alive = r->jobs;

	memset(b, 0, sizeof *b);
	b->next = r->first;
	b->last = r->last;
	for (unsigned j = 0; j < r->jobs; j++) {
		child[j] = child_start(r, j);
	}
	while (alive > 0) {
		int status = 0;
		pid_t pid = wait(&status);
		unsigned j;

		for (j = 0; j < r->jobs && child[j] != pid; j++) {
		}
		ASSERT(j < r->jobs);
		alive--;
		if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
			continue;
		}
		explain_death(&b->slot[j], status);
		if (failures++ == 0) {
			*ret_first = b->slot[j];
			b->stop = !r->keep_going;
		}
		if (r->keep_going || failures == 1) {
			report(r, &b->slot[j]);
		}
		b->slot[j].failed = false;
		if (r->keep_going) {
			child[j] = child_start(r, j);
			alive++;
		}
	}
	return failures;
}

static double seconds_since(const struct timespec *start)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static int run_all(struct run *r)
{
	struct slot first = {0};
	struct slot sum = {0};
	struct timespec start;
	uint64_t failures;

	(void)clock_gettime(CLOCK_MONOTONIC, &start);
	failures = run_seeds(r, &first);
	for (unsigned j = 0; j < r->jobs; j++) {
		sum.seeds += r->board->slot[j].seeds;
		sum.events += r->board->slot[j].events;
		sum.grants += r->board->slot[j].grants;
		sum.lost += r->board->slot[j].lost;
	}
	(void)printf("sim: %" PRIu64 " seeds of %" PRIu64 " s good, %" PRIu64 " failed; %" PRIu64
		     " events, %" PRIu64 " grants, %" PRIu64 " sessions lost; %.1f s\n",
		sum.seeds, r->chaos_ms / 1000, failures, sum.events, sum.grants, sum.lost,
		seconds_since(&start));
	return failures > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_traced(const struct run *r)
{
	struct sim *s;

	watch_signals();
	plant_switch_on(r->plant);
	s = run_seed(r, r->first, true, 0);
	(void)printf("sim: seed %" PRIu64 " is good, hash %016" PRIx64 "\n", r->first, s->hash);
	sim_free(s);
	return EXIT_SUCCESS;
}

/* Each planted bug must be found within its number of seeds. */
static int run_plants(struct run *r)
{
	size_t n;
	const struct sim_plant *list = plant_list(&n);
	int rc = n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;

	r->quiet = true;
	for (size_t i = 0; i < n; i++) {
		struct slot first = {0};
		struct timespec start;

		(void)clock_gettime(CLOCK_MONOTONIC, &start);
		r->plant = &list[i];
		r->first = 1;
		r->last = list[i].seeds;
		if (run_seeds(r, &first) > 0) {
			(void)printf("planted %-24s caught by \"%s\" in seed %" PRIu64 ", %.1f s\n",
				list[i].name, first.check, first.seed, seconds_since(&start));
		} else {
			(void)printf("planted %-24s NOT CAUGHT in %" PRIu64 " seeds, %.1f s\n",
				list[i].name, list[i].seeds, seconds_since(&start));
			rc = EXIT_FAILURE;
		}
		(void)fflush(stdout);
	}
	return rc;
}

/* Seeds that failed once, one a line, `#` begins a comment. Returns -1 if it cannot be read. The
 * file is closed before anything forks: a child's exit would move the offset that both share. */
static int read_list(const char *path, uint64_t *ret_seeds, size_t max)
{
	FILE *f = fopen(path, "re");
	char line[256];
	size_t n = 0;

	if (f == NULL) {
		(void)fprintf(stderr, "sim: %s: %s\n", path, strerror(errno));
		return -1;
	}
	while (n < max && fgets(line, sizeof line, f) != NULL) {
		n += sscanf(line, "%" SCNu64, &ret_seeds[n]) == 1;
	}
	(void)fclose(f);
	return (int)n;
}

static int run_list(struct run *r, const char *path)
{
	uint64_t seeds[LIST_MAX];
	int n = read_list(path, seeds, LIST_MAX);
	int rc = n < 0 ? 2 : EXIT_SUCCESS;

	for (int i = 0; i < n && rc == EXIT_SUCCESS; i++) {
		r->first = r->last = seeds[i];
		rc = run_all(r);
	}
	return rc;
}

/* --- the command line ---------------------------------------------------------------- */

static int usage(FILE *to)
{
	(void)fprintf(to,
		"usage: %s --seeds FROM-TO [--jobs N] [--seconds N] [--keep-going] [--twice]\n"
		"       %s --seed N [--seconds N] [--trace | --tail LINES] [--plant NAME]\n"
		"       %s --list FILE       seeds that failed once, one a line\n"
		"       %s --scenario FILE... [--trace]\n"
		"       %s --planted         every planted bug must be caught (sim_planted)\n",
		program_invocation_short_name, program_invocation_short_name,
		program_invocation_short_name, program_invocation_short_name,
		program_invocation_short_name);
	return to == stderr ? 2 : EXIT_SUCCESS;
}

static int run_scenarios(char *const *paths, bool trace)
{
	int rc = EXIT_SUCCESS;

	for (; *paths != NULL; paths++) {
		rc |= scenario_run(*paths, trace);
	}
	return rc;
}

static bool parse_seeds(const char *arg, struct run *r)
{
	int n = sscanf(arg, "%" SCNu64 "-%" SCNu64, &r->first, &r->last);

	if (n == 1) {
		r->last = r->first;
	}
	return n >= 1 && r->first <= r->last;
}

enum what {
	RUN_NOTHING,
	RUN_SEEDS,
	RUN_LIST,
	RUN_SCENARIOS,
	RUN_PLANTS,
};

static bool parse_options(
	int argc, char **argv, struct run *r, enum what *ret_what, const char **ret_list)
{
	static const struct option options[] = {
		{"seeds", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 's'},
		{"jobs", required_argument, NULL, 'j'},
		{"seconds", required_argument, NULL, 't'},
		{"trace", no_argument, NULL, 'v'},
		{"tail", required_argument, NULL, 'n'},
		{"keep-going", no_argument, NULL, 'k'},
		{"twice", no_argument, NULL, '2'},
		{"list", required_argument, NULL, 'l'},
		{"scenario", no_argument, NULL, 'c'},
		{"planted", no_argument, NULL, 'P'},
		{"plant", required_argument, NULL, 'p'},
		{NULL, 0, NULL, 0},
	};
	int o;
	bool ok = true;

	while (ok && (o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			*ret_what = RUN_SEEDS;
			ok = parse_seeds(optarg, r);
			break;
		case 'j':
			r->jobs = (unsigned)strtoul(optarg, NULL, 10);
			ok = r->jobs >= 1 && r->jobs <= JOBS_MAX;
			break;
		case 't':
			r->chaos_ms = strtoull(optarg, NULL, 10) * 1000;
			break;
		case 'n':
			r->tail = strtoul(optarg, NULL, 10);
			break;
		case 'l':
			*ret_what = RUN_LIST;
			*ret_list = optarg;
			break;
		case 'c':
			*ret_what = RUN_SCENARIOS;
			break;
		case 'P':
			*ret_what = RUN_PLANTS;
			break;
		case 'p':
			r->plant = plant_find(optarg);
			ok = r->plant != NULL;
			break;
		default:
			r->trace |= o == 'v';
			r->keep_going |= o == 'k';
			r->twice |= o == '2';
			ok = o != '?';
			break;
		}
	}
	return ok;
}

int main(int argc, char **argv)
{
	struct run r = {.jobs = 1, .chaos_ms = 60000, .tail = TAIL_LINES};
	enum what what = RUN_NOTHING;
	const char *list = NULL;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		return usage(stdout);
	}
	if (!parse_options(argc, argv, &r, &what, &list)) {
		return usage(stderr);
	}
	r.board = mmap(
		NULL, sizeof *r.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT(r.board != MAP_FAILED);
	switch (what) {
	case RUN_SEEDS:
		return r.trace ? run_traced(&r) : run_all(&r);
	case RUN_LIST:
		return run_list(&r, list);
	case RUN_SCENARIOS:
		return run_scenarios(argv + optind, r.trace);
	case RUN_PLANTS:
		return run_plants(&r);
	case RUN_NOTHING:
		break;
	}
	return usage(stderr);
}
