/*
 * flock_local_test.c - the lock table answers as the local kernel does.
 *
 * Random flock(2) calls that do not wait, on several descriptors of one local
 * file, and the same as commands: the same answers, and the same holders at the
 * end. (Where somebody waits the two differ on purpose: see core/state/lock.h
 * on conversions.)
 */
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "tests/unit/state_fixture.h"

enum {
	DESCRIPTIONS = 4,
	STEPS = 200,
	SEEDS = 100,
};

static int open_again(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* 0 or a positive errno. */
static int local(int fd, int operation)
{
	return flock(fd, operation | LOCK_NB) == 0 ? 0 : errno;
}

static int cluster(struct state_fixture *f, struct who who, int operation)
{
	if (operation == LOCK_UN) {
		release(f, who, "x");
	} else {
		acquire(f, who, "x", operation == LOCK_SH ? SH | NB : EX | NB);
	}
	assert_true(f->status == ST_OK || f->status == ST_BUSY);
	return f->status == ST_OK ? 0 : EWOULDBLOCK;
}

/* What a stranger gets: nothing, a shared lock, or an exclusive one. */
static void assert_strangers_agree(struct state_fixture *f, const char *path)
{
	static const int operations[] = {LOCK_SH, LOCK_EX};

	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		struct who stranger = {1, 1000};
		int fd = open_again(path);

		assert_int_equal(cluster(f, stranger, operations[i]), local(fd, operations[i]));
		release(f, stranger, "x");
		(void)close(fd); /* takes the lock with it */
	}
}

static void descriptions_get_the_answers_of_the_kernel(void **state)
{
	static const int operations[] = {LOCK_SH, LOCK_EX, LOCK_UN};
	const char *path = *state;

	for (uint64_t first = 1; first <= SEEDS; first++) {
		struct state_fixture *f = fixture_new(NULL, 2);
		uint64_t seed = first;
		int fd[DESCRIPTIONS];

		for (size_t i = 0; i < DESCRIPTIONS; i++) {
			fd[i] = open_again(path);
		}
		for (unsigned step = 0; step < STEPS; step++) {
			uint64_t i = draw_below(&seed, DESCRIPTIONS);
			int operation = operations[draw_below(&seed, 3)];
			struct who who = {1 + i % 2, 1 + i};

			assert_int_equal(cluster(f, who, operation), local(fd[i], operation));
			assert_strangers_agree(f, path);
		}
		/* Who holds it shows as they leave, one by one. */
		for (uint64_t i = 0; i < DESCRIPTIONS; i++) {
			struct who who = {1 + i % 2, 1 + i};

			(void)close(fd[i]);
			release(f, who, "x");
			assert_strangers_agree(f, path);
		}
		assert_lock(f, "x", "");
		fixture_free(f);
	}
}

static int make_file(void **state)
{
	static char path[4096];
	const char *dir = getenv("TMPDIR");
	int fd;

	(void)snprintf(path, sizeof path, "%s/flock_local.XXXXXX", dir != NULL ? dir : "/tmp");
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
		cmocka_unit_test(descriptions_get_the_answers_of_the_kernel),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
