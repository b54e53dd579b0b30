/*
 * task.c - see task.h.
 */
#include "fs/task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "coordfs/util.h"

#define MAX_ANCESTORS 64 /* arbitrary; far deeper than any real chain of shells */

/* What a thread's stat file in /proc says. */
struct proc_stat {
	struct core_task task;
	uint32_t ppid;
	bool dead; /* a zombie: nobody is home to hear a signal */
};

/* The file's first bytes as a string; false if it cannot be read. */
static bool read_proc(uint32_t id, const char *file, char *buf, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/%s", id, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return false;
	}
	n = read(fd, buf, size - 1);
	(void)close(fd); /* was only read */
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* "pid (command) state ppid … start …": the command may itself hold blanks and parentheses. */
static bool parse_stat(uint32_t id, const char *text, struct proc_stat *ret_stat)
{
	const char *open = strchr(text, '(');
	const char *close = strrchr(text, ')');
	const char *at;
	size_t len;
	int field;

	if (open == NULL || close == NULL || close < open) {
		return false;
	}
	*ret_stat = (struct proc_stat){.task.pid = id};
	len = MIN((size_t)(close - open - 1), sizeof(ret_stat->task.command) - 1);
	memcpy(ret_stat->task.command, open + 1, len);

	at = close + 1; /* the blank before field 3 */
	for (field = 3; field <= 22; field++) {
		at = strchr(at, ' ');
		if (at == NULL) {
			return false;
		}
		at++;
		if (field == 3) {
			ret_stat->dead = *at == 'Z' || *at == 'X';
		}
		if (field == 4) {
			ret_stat->ppid = (uint32_t)strtoul(at, NULL, 10);
		}
	}
	ret_stat->task.start = strtoull(at, NULL, 10);
	return true;
}

static bool read_stat(uint32_t id, struct proc_stat *ret_stat)
{
	char file[32];
	char text[1024]; /* 52 numbers and a short name */

	/* The thread's own: /proc/ID/stat adds up all threads, which for ten thousand takes 1 ms.
	 */
	(void)snprintf(file, sizeof(file), "task/%" PRIu32 "/stat", id);
	return read_proc(id, file, text, sizeof(text)) && parse_stat(id, text, ret_stat);
}

/* The process a thread belongs to. Asking with signal 0 whether the thread leads its own group
 * is 20 times cheaper than /proc/ID/status, and true for all but multi-threaded callers. */
static uint32_t leader_of(uint32_t tid)
{
	char text[1024];
	const char *line;

	if (syscall(SYS_tgkill, tid, tid, 0) == 0 || errno != ESRCH) {
		return tid;
	}
	if (!read_proc(tid, "status", text, sizeof(text))) {
		return tid;
	}
	line = strstr(text, "\nTgid:");
	return line != NULL ? (uint32_t)strtoul(line + strlen("\nTgid:"), NULL, 10) : tid;
}

uint64_t task_clock(void)
{
	static long ticks_per_s;
	struct timespec now;

	if (ticks_per_s == 0) {
		ticks_per_s = sysconf(_SC_CLK_TCK);
	}
	(void)clock_gettime(CLOCK_BOOTTIME, &now); /* cannot fail */
	return (uint64_t)now.tv_sec * (uint64_t)ticks_per_s +
	       (uint64_t)now.tv_nsec * (uint64_t)ticks_per_s / 1000000000;
}

void task_of_since(uint32_t tid, uint64_t then, struct core_task *ret_task)
{
	struct proc_stat st;
	uint32_t leader;

	*ret_task = (struct core_task){.pid = 0};
	if (tid == 0 || !read_stat(tid, &st) || st.task.start > then) {
		return;
	}
	leader = leader_of(tid);
	if (leader != tid && !read_stat(leader, &st)) {
		return;
	}
	*ret_task = st.task;
}

void task_of(uint32_t tid, struct core_task *ret_task)
{
	task_of_since(tid, UINT64_MAX, ret_task);
	if (ret_task->pid == 0) {
		ret_task->pid = tid; /* at least the reports can name it */
	}
}

bool task_same(const struct core_task *a, const struct core_task *b)
{
	return a->pid != 0 && a->start != 0 && a->pid == b->pid && a->start == b->start;
}

bool task_descends(uint32_t tid, const struct core_task *a, const struct core_task *b)
{
	uint32_t pid = tid == 0 ? 0 : leader_of(tid);
	struct proc_stat st;
	int i;

	for (i = 0; i < MAX_ANCESTORS && pid != 0 && read_stat(pid, &st); i++) {
		if (task_same(&st.task, a) || task_same(&st.task, b)) {
			return true;
		}
		pid = st.ppid;
	}
	return false;
}

bool task_signal(const struct core_task *task, int signo)
{
	struct proc_stat st;
	bool sent = false;
	int fd;

	if (task->pid == 0 || task->start == 0) {
		return false;
	}
	/* The descriptor pins the process: what the check sees is what the signal hits. */
	fd = (int)syscall(SYS_pidfd_open, task->pid, 0);
	if (fd < 0) {
		return false;
	}
	if (read_stat(task->pid, &st) && task_same(&st.task, task) && !st.dead) {
		sent = syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0) == 0;
	}
	(void)close(fd);
	return sent;
}
