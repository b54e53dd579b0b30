/*
 * trace.h - what happened, as one event name and key=value pairs.
 *
 * Pure code has no log: it emits trace events, and whoever runs it prints them
 * (the daemon) or asserts them (the simulator). A tracer with a NULL `emit` is
 * silent. Levels: error, a person must act; warn, we go on, degraded; info,
 * life cycle and leadership; debug, every move.
 *
 *     TRACE(t, TRACE_INFO, "raft.leader", "term=%" PRIu64, term);
 */
#ifndef COORDFS_TRACE_H
#define COORDFS_TRACE_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>

#include "coordfs/util.h"

enum trace_level {
	TRACE_ERROR,
	TRACE_WARN,
	TRACE_INFO,
	TRACE_DEBUG,
};

struct tracer {
	/* `kv` is formatted, without a newline, and valid for the call only. */
	void (*emit)(void *ctx, enum trace_level level, const char *event, const char *kv);
	void *ctx;
	enum trace_level max; /* events above this level are not formatted */
};

void trace_emit(const struct tracer *t, enum trace_level level, const char *event, const char *fmt,
	...) PRINTF_LIKE(4, 5);

#define TRACE(t, level, event, ...)                                                                \
	do {                                                                                       \
		if ((t)->emit != NULL && (level) <= (t)->max) {                                    \
			trace_emit((t), (level), (event), __VA_ARGS__);                            \
		}                                                                                  \
	} while (0)

#endif
