/*
 * task_test.c - processes as fs/ names them, on real processes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coordfs/util.h"
#include "fs/status_errno.h"
#include "fs/task.h"

/* A child that has done `setup` and then waits for a signal. */
static pid_t start_child(void (*setup)(void *), void *arg)
{
	int ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setup != NULL) {
			setup(arg);
		}
		(void)!write(ready[1], "", 1);
		for (;;) {
			pause();
		}
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	(void)close(ready[0]);
	(void)close(ready[1]);
	return pid;
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void set_name(void *name)
{
	(void)prctl(PR_SET_NAME, name);
}

static void a_process_is_its_pid_and_start_time(void **state)
{
	struct core_task a, b;

	(void)state;
	task_of((uint32_t)getpid(), &a);
	task_of((uint32_t)getpid(), &b);
	assert_int_equal(a.pid, getpid());
	assert_true(a.start != 0);
	assert_true(a.start <= task_clock());
	assert_true(task_same(&a, &b));
	b.start++;
	assert_false(task_same(&a, &b));
}

static void a_command_may_look_like_the_fields_after_it(void **state)
{
	struct core_task task, plain;
	char name[] = ") R 1 (x) 7";
	pid_t pid = start_child(set_name, name);
	pid_t other = start_child(NULL, NULL);

	(void)state;
	task_of((uint32_t)pid, &task);
	task_of((uint32_t)other, &plain);
	assert_string_equal(task.command, name);
	assert_true(task.start != 0);
	assert_true(plain.start - task.start < 1000); /* ticks: a start time, not another field */
	end_child(pid);
	end_child(other);
}

static void *task_of_this_thread(void *arg)
{
	task_of((uint32_t)syscall(SYS_gettid), arg);
	return NULL;
}

static void a_thread_stands_for_its_process(void **state)
{
	struct core_task mine, of_thread;
	pthread_t thread;

	(void)state;
	task_of((uint32_t)getpid(), &mine);
	assert_int_equal(pthread_create(&thread, NULL, task_of_this_thread, &of_thread), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(task_same(&mine, &of_thread));
}

static void what_cannot_be_seen_equals_nothing(void **state)
{
	struct core_task a, b;

	(void)state;
	task_of(0, &a);
	task_of(0, &b);
	assert_false(task_same(&a, &b));
	assert_false(task_signal(&a, SIGTERM)); /* kill(0) would hit ourselves */
}

/* Else a signal would hit whoever got the opener's id after it. */
static void who_started_later_is_somebody_else(void **state)
{
	struct core_task task;
	uint32_t self = (uint32_t)getpid();

	(void)state;
	task_of(self, &task);
	task_of_since(self, task.start - 1, &task);
	assert_int_equal(task.pid, 0);
	task_of_since(self, task_clock(), &task);
	assert_int_equal(task.pid, self);
}

static void children_descend_and_strangers_do_not(void **state)
{
	struct core_task self, sibling, nobody = {.pid = 0};
	pid_t a = start_child(NULL, NULL);
	pid_t b = start_child(NULL, NULL);

	(void)state;
	task_of((uint32_t)getpid(), &self);
	task_of((uint32_t)b, &sibling);
	assert_true(task_descends((uint32_t)getpid(), &self, &nobody));
	assert_true(task_descends((uint32_t)a, &nobody, &self));
	assert_false(task_descends((uint32_t)a, &sibling, &nobody));
	assert_false(task_descends((uint32_t)getpid(), &sibling, &nobody));
	assert_false(task_descends(0, &nobody, &nobody));
	end_child(a);
	end_child(b);
}

static void a_signal_reaches_the_process_and_no_later_one(void **state)
{
	struct core_task task, impostor;
	pid_t pid = start_child(NULL, NULL);
	int status;

	(void)state;
	task_of((uint32_t)pid, &task);
	impostor = task;
	impostor.start++;
	assert_false(task_signal(&impostor, SIGKILL));
	assert_true(task_signal(&task, SIGUSR1));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGUSR1);
	assert_false(task_signal(&task, SIGUSR1));
}

/* Its parent has not looked yet, but nobody is home. */
static void a_zombie_hears_nothing(void **state)
{
	struct core_task task;
	siginfo_t info;
	pid_t pid = start_child(NULL, NULL);

	(void)state;
	task_of((uint32_t)pid, &task);
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_false(task_signal(&task, SIGTERM));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void every_refusal_has_an_errno(void **state)
{
	int st;

	(void)state;
	assert_int_equal(errno_of(ST_OK), 0);
	assert_int_equal(errno_of(ST_BUSY), EWOULDBLOCK);
	assert_int_equal(errno_of(ST_LOST), EIO);
	for (st = ST_BUSY; st < ST_MAX_; st++) {
		assert_true(errno_of((enum status)st) > 0);
		assert_int_not_equal(
			errno_of((enum status)st), ENOSYS); /* the kernel remembers it */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_is_its_pid_and_start_time),
		cmocka_unit_test(a_command_may_look_like_the_fields_after_it),
		cmocka_unit_test(a_thread_stands_for_its_process),
		cmocka_unit_test(what_cannot_be_seen_equals_nothing),
		cmocka_unit_test(who_started_later_is_somebody_else),
		cmocka_unit_test(children_descend_and_strangers_do_not),
		cmocka_unit_test(a_signal_reaches_the_process_and_no_later_one),
		cmocka_unit_test(a_zombie_hears_nothing),
		cmocka_unit_test(every_refusal_has_an_errno),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
