#include "coordfs/trace.h"

#include <stdio.h>

void trace_emit(
	const struct tracer *t, enum trace_level level, const char *event, const char *fmt, ...)
{
	char kv[1024]; /* arbitrary; a longer event is cut, never lost */
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(kv, sizeof kv, fmt, ap);
	va_end(ap);
	t->emit(t->ctx, level, event, kv);
}
