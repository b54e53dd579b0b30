/*
 * check.h - assertions that stay on in release builds.
 *
 * ASSERT is for facts about our own program. Input from the kernel, a peer, a
 * disk or a user is validated and answered, never asserted.
 */
#ifndef COORDFS_CHECK_H
#define COORDFS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define ASSERT(fact)                                                                               \
	do {                                                                                       \
		if (!(fact)) {                                                                     \
			check_failed(#fact, __FILE__, __LINE__, __func__);                         \
		}                                                                                  \
	} while (0)

#define UNREACHABLE() check_failed("unreachable", __FILE__, __LINE__, __func__)

/* Costly checks: on in simulations and with -Dparanoid=true. */
#ifdef COORDFS_PARANOID
#define ASSERT_PARANOID(fact) ASSERT(fact)
#else
#define ASSERT_PARANOID(fact) ((void)sizeof(fact))
#endif

static inline _Noreturn void check_failed(
	const char *fact, const char *file, int line, const char *func)
{
	(void)fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", file, line, func, fact);
	abort();
}

#endif
