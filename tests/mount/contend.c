/*
 * contend.c - a worker that wants one lock again and again, and finds out if
 * anybody else ever has it too.
 *
 *   contend LOCK STATE LOG [PAUSE_US]
 *
 * Workers on all mounts share STATE, a directory on a local disk. Under the
 * lock a worker makes STATE/inside, which must not be there, with its token; adds
 * one to the number in STATE/counter, which also keeps the last token; and
 * removes STATE/inside. As a fenced resource does, it turns away a token older
 * than the last one: a worker that was stopped until its lease had ended is no
 * double grant. Ends at SIGINT and prints "grants N fenced N errors N".
 *
 * Exit status 1 and a sentence: two were inside at once, or a token came twice.
 *
 * LOG gets a line for each grant: the CLOCK_BOOTTIME in milliseconds at which it
 * asked, at which it was granted, and the token. When its mount dies or its
 * session is lost the worker opens the lock again until that works.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

struct worker {
	const char *lock;
	char inside[PATH_MAX];
	char counter[PATH_MAX];
	FILE *log;
	struct timespec pause_time;
	uint64_t grants;
	uint64_t fenced;
	uint64_t errors;
};

static volatile sig_atomic_t stopping;

static void on_stop(int number)
{
	stopping = 1;
}

static void pause_for(long us)
{
	const struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	(void)nanosleep(&t, NULL); /* a signal may cut it short */
}

static uint64_t boot_ms(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_BOOTTIME, &t) < 0) {
		perror("clock_gettime");
		exit(3);
	}
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* "NUMBER TOKEN" of a file; false if it is not there or not yet written. */
static bool read_pair(const char *path, uint64_t *ret_number, uint64_t *ret_token)
{
	FILE *f = fopen(path, "re");
	int got;

	if (f == NULL) {
		return false;
	}
	got = fscanf(f, "%" SCNu64 " %" SCNu64, ret_number, ret_token);
	(void)fclose(f);
	return got == 2;
}

static void write_pair(const char *path, int flags, uint64_t number, uint64_t token)
{
	char text[64];
	int bytes = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 "\n", number, token);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);

	if (fd < 0 || write(fd, text, (size_t)bytes) != bytes) {
		perror(path);
		exit(3);
	}
	(void)close(fd);
}

static void double_grant(uint64_t mine, uint64_t other)
{
	(void)printf(
		"double grant: token %" PRIu64 " while token %" PRIu64 " is inside\n", mine, other);
	exit(1);
}

/* The resource that the lock protects. */
static void critical_section(struct worker *w, uint64_t token)
{
	uint64_t number = 0;
	uint64_t last = 0;
	uint64_t pid;
	uint64_t other;

	(void)read_pair(w->counter, &number, &last); /* the first worker finds none */
	if (token < last) {
		w->fenced++;
		return;
	}
	if (token == last) {
		(void)printf("token %" PRIu64 " was granted twice\n", token);
		exit(1);
	}
	if (read_pair(w->inside, &pid, &other)) {
		double_grant(token, other);
	}
	write_pair(w->inside, O_EXCL, (uint64_t)getpid(), token);
	write_pair(w->counter, O_TRUNC, number + 1, token);
	if (unlink(w->inside) < 0) {
		perror(w->inside);
		exit(3);
	}
	w->grants++;
}

static int token_of(int fd, uint64_t *ret_token)
{
	char text[32];
	ssize_t bytes = fgetxattr(fd, "user.coordfs.token", text, sizeof(text) - 1);

	if (bytes < 0) {
		return -errno;
	}
	text[bytes] = '\0';
	*ret_token = strtoull(text, NULL, 10);
	return 0;
}

/* Once around: ask, work, let go. A negative errno says that the descriptor is of no more use. */
static int work_once(struct worker *w, int fd)
{
	uint64_t asked_ms = boot_ms();
	uint64_t token = 0;
	int rc;

	if (flock(fd, LOCK_EX) < 0) {
		return -errno;
	}
	rc = token_of(fd, &token);
	if (rc < 0) {
		return rc;
	}
	(void)fprintf(w->log, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", asked_ms, boot_ms(), token);
	critical_section(w, token);
	return flock(fd, LOCK_UN) < 0 ? -errno : 0;
}

static void work(struct worker *w, long pause_us)
{
	int fd = -1;
	int rc;

	while (!stopping) {
		if (fd < 0) {
			fd = open(w->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
		}
		rc = fd < 0 ? -errno : work_once(w, fd);
		if (rc < 0 && fd >= 0) {
			(void)close(fd); /* of a dead mount or a lost lock */
			fd = -1;
		}
		if (rc < 0 && rc != -EINTR) {
			w->errors++;
			pause_for(
				20000); /* until the next try at a mount that is down; arbitrary */
		}
		if (pause_us > 0) {
			pause_for(pause_us);
		}
	}
	if (fd >= 0) {
		(void)close(fd);
	}
}

int main(int argc, char **argv)
{
	struct sigaction stop = {.sa_handler = on_stop};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct worker w = {0};

	if (argc < 4 || argc > 5) {
		(void)fprintf(stderr, "usage: contend LOCK STATE LOG [PAUSE_US]\n");
		return 2;
	}
	w.lock = argv[1];
	(void)snprintf(w.inside, sizeof(w.inside), "%s/inside", argv[2]);
	(void)snprintf(w.counter, sizeof(w.counter), "%s/counter", argv[2]);
	w.log = fopen(argv[3], "we");
	if (w.log == NULL || sigaction(SIGINT, &stop, NULL) < 0 ||
		sigaction(SIGTERM, &ignore, NULL) < 0) { /* the signal for a lost lock */
		perror(argv[3]);
		return 3;
	}
	setvbuf(w.log, NULL, _IOLBF, 0);
	work(&w, argc == 5 ? atol(argv[4]) : 0);
	(void)printf("grants %" PRIu64 " fenced %" PRIu64 " errors %" PRIu64 "\n", w.grants,
		w.fenced, w.errors);
	return fclose(w.log) == 0 ? 0 : 3;
}
