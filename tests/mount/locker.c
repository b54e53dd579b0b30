/*
 * locker.c - one process that takes one lock and tells what becomes of it.
 *
 * The mount tests need a holder whose death is exactly the death of its
 * descriptor, and which says when it learns that its lock is lost. Each event
 * is one line, appended to a file with one write:
 *
 *   held MS TOKEN     the lock was granted
 *   refused ERRNO     flock failed; the process ends with 1
 *   error ERRNO MS    the first read of the lock file that failed (with -p)
 *   signal NAME MS    the signal that arrived (with -r)
 *
 * MS is CLOCK_BOOTTIME, the same for all processes of the machine, so that a
 * test can tell which of two events came first.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int events_fd = -1;

static unsigned long long boot_ms(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_BOOTTIME, &t) < 0) {
		perror("clock_gettime");
		exit(1);
	}
	return (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000;
}

static void event(const char *line)
{
	size_t bytes = strlen(line);

	if (write(events_fd, line, bytes) != (ssize_t)bytes) {
		_exit(3);
	}
}

static void on_signal(int number)
{
	char line[64];

	/* snprintf of integers and constants: glibc's takes no lock and no memory here. */
	(void)snprintf(line, sizeof(line), "signal %s %llu\n", sigabbrev_np(number), boot_ms());
	event(line);
}

static void handle(int number, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler};

	if (sigaction(number, &action, NULL) < 0) {
		perror("sigaction");
		exit(1);
	}
}

static void report_held(int fd)
{
	char token[32];
	char line[96];
	ssize_t bytes = fgetxattr(fd, "user.coordfs.token", token, sizeof(token) - 1);

	if (bytes < 0) {
		perror("user.coordfs.token");
		exit(1);
	}
	token[bytes] = '\0';
	(void)snprintf(line, sizeof(line), "held %llu %s\n", boot_ms(), token);
	event(line);
}

/* Read the lock file every few milliseconds until that fails, and say how. */
static void probe(int fd)
{
	const struct timespec pause_time = {
		.tv_nsec = 3000000}; /* arbitrary, below what is measured */
	char line[96];
	char byte;

	while (pread(fd, &byte, 1, 0) >= 0 || errno == EINTR) {
		(void)nanosleep(&pause_time, NULL); /* a signal may cut it short */
	}
	(void)snprintf(line, sizeof(line), "error %s %llu\n", strerrorname_np(errno), boot_ms());
	event(line);
}

static void take(int fd, int operation)
{
	char line[64];

	while (flock(fd, operation) < 0) {
		if (errno == EINTR) {
			continue;
		}
		(void)snprintf(line, sizeof(line), "refused %s\n", strerrorname_np(errno));
		event(line);
		exit(1);
	}
	report_held(fd);
}

static int usage(void)
{
	(void)fprintf(stderr, "usage: locker [-s] [-n] [-p] [-r] LOCK EVENTS\n"
			      "  -s  shared\n  -n  do not wait\n"
			      "  -p  read the lock file until that fails\n  -r  report signals\n");
	return 2;
}

int main(int argc, char **argv)
{
	int operation = LOCK_EX;
	int flags = 0;
	bool probes = false;
	int option;
	int fd;

	/* A shell starts what runs in the background with these ignored. */
	handle(SIGINT, SIG_DFL);
	handle(SIGQUIT, SIG_DFL);
	while ((option = getopt(argc, argv, "snpr")) != -1) {
		switch (option) {
		case 's':
			operation = LOCK_SH;
			break;
		case 'n':
			flags |= LOCK_NB;
			break;
		case 'p':
			probes = true;
			break;
		case 'r':
			handle(SIGTERM, on_signal);
			handle(SIGHUP, on_signal);
			break;
		default:
			return usage();
		}
	}
	if (argc - optind != 2) {
		return usage();
	}
	events_fd = open(argv[optind + 1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	fd = open(argv[optind], O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (events_fd < 0 || fd < 0) {
		perror(argv[optind]);
		return 1;
	}
	take(fd, operation | flags);
	if (probes) {
		probe(fd);
	}
	for (;;) {
		(void)pause(); /* until a signal ends it */
	}
}
