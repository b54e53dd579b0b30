/*
 * waiters.c - thousands of blocked waiters for one lock, in one process.
 *
 *   waiters LOCK COUNT
 *
 * Starts COUNT threads, each with an open file description of its own. A
 * thread is started only when the one before is seen asleep in flock(), so
 * the order in which they ask is known. Says "blocked" when all of them
 * wait, "granted N" each time a tenth of them has had the lock, and in the end
 * "in order" or, with exit status 1, which thread came out of turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

struct waiter {
	pthread_t thread;
	int number;
	_Atomic pid_t tid; /* set right before it asks */
};

static const char *lock_path;
static int total;
static int turn;       /* guarded by the lock under test */
static int early = -1; /* likewise: the first thread that came out of turn */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void take_turn(int number)
{
	if (turn != number && early < 0) {
		early = number;
	}
	turn++;
	if (turn % (total >= 10 ? total / 10 : 1) == 0) {
		(void)printf("granted %d\n", turn);
		(void)fflush(stdout);
	}
}

static void *wait_for_lock(void *arg)
{
	struct waiter *w = arg;
	int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0) {
		die(lock_path);
	}
	atomic_store(&w->tid, gettid());
	if (flock(fd, LOCK_EX) < 0) {
		die("flock");
	}
	take_turn(w->number);
	if (flock(fd, LOCK_UN) < 0) {
		die("unlock");
	}
	(void)close(fd);
	return NULL;
}

/* Field 3 of /proc/self/task/TID/stat: S once the thread sleeps in flock(). */
static char task_state(pid_t tid)
{
	char path[64];
	char stat[256];
	const char *after;
	ssize_t bytes;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		die(path);
	}
	bytes = read(fd, stat, sizeof(stat) - 1);
	(void)close(fd);
	if (bytes <= 0) {
		die(path);
	}
	stat[bytes] = '\0';
	after = strrchr(stat, ')');
	return after != NULL ? after[2] : '?';
}

static void start(struct waiter *w, int number)
{
	pthread_attr_t attr;
	pid_t tid;

	w->number = number;
	errno = pthread_attr_init(&attr);
	if (errno == 0) {
		errno = pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN + 65536);
	}
	if (errno == 0) {
		errno = pthread_create(&w->thread, &attr, wait_for_lock, w);
	}
	if (errno != 0) {
		die("pthread_create");
	}
	(void)pthread_attr_destroy(&attr);
	while ((tid = atomic_load(&w->tid)) == 0 || task_state(tid) != 'S') {
		(void)sched_yield(); /* the thread is on its way into flock() */
	}
}

static void raise_limit(void)
{
	struct rlimit limit;
	rlim_t needed = (rlim_t)total + 64;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
		die("getrlimit");
	}
	if (limit.rlim_max < needed) {
		(void)fprintf(stderr, "waiters: at most %llu open files here\n",
			(unsigned long long)limit.rlim_max);
		exit(77);
	}
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
		die("setrlimit");
	}
}

int main(int argc, char **argv)
{
	struct waiter *waiters;

	if (argc != 3 || (total = atoi(argv[2])) < 1) {
		(void)fprintf(stderr, "usage: waiters LOCK COUNT\n");
		return 2;
	}
	lock_path = argv[1];
	raise_limit();
	waiters = calloc((size_t)total, sizeof(*waiters));
	if (waiters == NULL) {
		die("waiters");
	}
	for (int i = 0; i < total; i++) {
		start(&waiters[i], i);
	}
	(void)printf("blocked\n");
	(void)fflush(stdout);
	for (int i = 0; i < total; i++) {
		errno = pthread_join(waiters[i].thread, NULL);
		if (errno != 0) {
			die("pthread_join");
		}
	}
	free(waiters);
	if (early >= 0) {
		(void)printf("thread %d came out of turn\n", early);
		return 1;
	}
	(void)printf("in order\n");
	return 0;
}
