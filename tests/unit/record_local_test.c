/*
 * record_local_test.c - the lock table answers as the local kernel does.
 *
 * Random fcntl(2) calls that do not wait, by several processes (POSIX locks) and several open file
 * descriptions (OFD locks) of one local file, and the same as commands: the same answers, byte
 * by byte the same to a stranger at every step.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/state_fixture.h"

enum {
	PROCESSES = 3,
	DESCRIPTIONS = 3,
	OWNERS = PROCESSES + DESCRIPTIONS,
	BYTES = 9, /* the last stands for all that follow */
	STEPS = 150,
	SEEDS = 20,
};

struct call {
	int command;
	struct flock lock;
};

/* A process that makes fcntl calls when told to. */
struct caller {
	pid_t pid;
	int ask;
	int told;
};

struct local {
	const char *path;
	struct caller callers[PROCESSES];
	int fd[DESCRIPTIONS];
	int stranger;
};

/* --- the local kernel --------------------------------------------------------------------- */

/* 0 or a positive errno; `lock` is filled in by a test. */
static int call_fcntl(int fd, struct call *call)
{
	return fcntl(fd, call->command, &call->lock) == 0 ? 0 : errno;
}

static void serve(const char *path, int ask, int told)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct call call;

	while (read(ask, &call, sizeof call) == sizeof call) {
		int answer = call_fcntl(fd, &call);

		if (write(told, &answer, sizeof answer) != sizeof answer) {
			break;
		}
	}
	_exit(0);
}

static void caller_start(struct caller *c, const char *path)
{
	int ask[2], told[2];

	assert_int_equal(pipe(ask), 0);
	assert_int_equal(pipe(told), 0);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		(void)close(ask[1]);
		(void)close(told[0]);
		serve(path, ask[0], told[1]);
	}
	(void)close(ask[0]);
	(void)close(told[1]);
	c->ask = ask[1];
	c->told = told[0];
}

static void caller_stop(struct caller *c)
{
	(void)kill(c->pid, SIGKILL);
	(void)waitpid(c->pid, NULL, 0);
	(void)close(c->ask);
	(void)close(c->told);
}

static struct flock flock_of(short type, struct core_range r)
{
	return (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)r.start,
		.l_len = r.end == CORE_RANGE_MAX ? 0 : (off_t)(r.end - r.start + 1),
	};
}

static int local(struct local *l, uint64_t owner, short type, struct core_range r)
{
	struct call call = {.command = F_SETLK, .lock = flock_of(type, r)};
	int answer;

	if (owner >= PROCESSES) {
		call.command = F_OFD_SETLK;
		return call_fcntl(l->fd[owner - PROCESSES], &call);
	}
	assert_int_equal(write(l->callers[owner].ask, &call, sizeof call), sizeof call);
	assert_int_equal(read(l->callers[owner].told, &answer, sizeof answer), sizeof answer);
	return answer;
}

/* --- the same as commands ----------------------------------------------------------------- */

static int cluster(struct state_fixture *f, struct who who, short type, struct core_range r)
{
	if (type == F_UNLCK) {
		release_range(f, who, "x", r);
	} else {
		acquire_range(f, who, "x", type == F_RDLCK ? SH | NB : EX | NB, r);
	}
	assert_true(f->status == ST_OK || f->status == ST_BUSY);
	return f->status == ST_OK ? 0 : EAGAIN;
}

static void assert_strangers_agree(struct state_fixture *f, struct local *l)
{
	static const short types[] = {F_RDLCK, F_WRLCK};

	for (uint64_t b = 0; b < BYTES; b++) {
		for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
			struct core_range r = {b, b};
			struct call call = {.command = F_OFD_GETLK, .lock = flock_of(types[i], r)};
			struct who stranger = {1, 1000};

			assert_int_equal(call_fcntl(l->stranger, &call), 0);
			ask_range(
				f, stranger, "x", types[i] == F_RDLCK ? SH | NB : EX | NB, r, true);
			assert_int_equal(f->status == ST_OK, call.lock.l_type == F_UNLCK);
		}
	}
}

static void random_step(struct state_fixture *f, struct local *l, uint64_t *seed)
{
	static const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
	uint64_t owner = draw_below(seed, OWNERS);
	struct who who = {1 + owner % 2, 1 + owner};
	short type = types[draw_below(seed, 3)];
	struct core_range r = {.start = draw_below(seed, BYTES)};

	r.end = r.start + draw_below(seed, BYTES - r.start);
	if (r.end == BYTES - 1) {
		r.end = CORE_RANGE_MAX;
	}
	assert_int_equal(cluster(f, who, type, r), local(l, owner, type, r));
	assert_strangers_agree(f, l);
}

static void processes_and_descriptions_get_the_answers_of_the_kernel(void **state)
{
	struct local l = {.path = *state};

	for (uint64_t first = 1; first <= SEEDS; first++) {
		struct state_fixture *f = fixture_new(NULL, 2);
		uint64_t seed = first;

		for (size_t i = 0; i < PROCESSES; i++) {
			caller_start(&l.callers[i], l.path);
		}
		for (size_t i = 0; i < DESCRIPTIONS; i++) {
			l.fd[i] = open(l.path, O_RDWR | O_CLOEXEC);
			assert_true(l.fd[i] >= 0);
		}
		l.stranger = open(l.path, O_RDWR | O_CLOEXEC);
		assert_true(l.stranger >= 0);
		for (unsigned step = 0; step < STEPS; step++) {
			random_step(f, &l, &seed);
		}
		/* Who holds what shows as they leave, one by one. */
		for (uint64_t owner = 0; owner < OWNERS; owner++) {
			struct who who = {1 + owner % 2, 1 + owner};

			if (owner < PROCESSES) {
				caller_stop(&l.callers[owner]);
			} else {
				(void)close(l.fd[owner - PROCESSES]);
			}
			release_range(f, who, "x", CORE_RANGE_WHOLE);
			assert_strangers_agree(f, &l);
		}
		(void)close(l.stranger);
		assert_lock(f, "x", "");
		fixture_free(f);
	}
}

static int make_file(void **state)
{
	static char path[4096];
	const char *dir = getenv("TMPDIR");
	int fd;

	(void)snprintf(path, sizeof path, "%s/record_local.XXXXXX", dir != NULL ? dir : "/tmp");
	fd = mkstemp(path);
	if (fd < 0) {
		return -1;
	}
	(void)close(fd);
	*state = path;
	return 0;
}

static int remove_file(void **state)
{
	return unlink(*state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(processes_and_descriptions_get_the_answers_of_the_kernel),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
