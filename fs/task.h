/*
 * task.h - who a process is, from /proc.
 *
 * A task is a process: pid and start time together name it for ever, where a pid
 * alone is used again. What cannot be seen (another pid namespace, hidepid, gone
 * already) is a task with pid 0 or start 0, which equals no other.
 */
#ifndef COORDFS_FS_TASK_H
#define COORDFS_FS_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "coordfs/core.h"

/* Start times, in the unit of struct core_task.start, that are not later than now. */
uint64_t task_clock(void);

/* The process of a thread (or process) id. Costs about 2 us. */
void task_of(uint32_t tid, struct core_task *ret_task);
/* As task_of(), but only if the thread existed at `then` (a task_clock()): else it is somebody
 * else's id by now, and the answer is an unknown task. */
void task_of_since(uint32_t tid, uint64_t then, struct core_task *ret_task);

bool task_same(const struct core_task *a, const struct core_task *b);
/* Is the thread's process one of these two, or a descendant of one? Follows at most 64 parents. */
bool task_descends(uint32_t tid, const struct core_task *a, const struct core_task *b);

/* false: it is gone, or may not be signalled. */
bool task_signal(const struct core_task *task, int signo);

#endif
