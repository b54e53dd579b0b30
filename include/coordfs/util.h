/*
 * util.h - the few words of C that every file here uses.
 */
#ifndef COORDFS_UTIL_H
#define COORDFS_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordfs/check.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#ifndef MIN /* uv.h brings those of sys/param.h, which are the same */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif

/* Evaluates to `ptr` and sets it to NULL: the reader sees who owns it now. */
#define TAKE(ptr)                                                                                  \
	__extension__({                                                                            \
		__typeof__(ptr) taken_ = (ptr);                                                    \
		(ptr) = NULL;                                                                      \
		taken_;                                                                            \
	})

/* The variable is passed, by address, to `fn` when its scope ends. */
#define CLEANUP(fn) __attribute__((cleanup(fn)))

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

static inline void freep(void *p)
{
	free(*(void **)p);
}

/*
 * Allocation that cannot fail. A node that cannot get a few hundred bytes has
 * no way to go on safely: it stops, and its session ends on the others. Sizes
 * that a peer, a disk or a user chooses are limited before they get here.
 */
static inline void *xmalloc(size_t bytes)
{
	void *p = malloc(bytes ? bytes : 1);

	ASSERT(p != NULL);
	return p;
}

static inline void *xcalloc(size_t n, size_t bytes)
{
	void *p = calloc(n ? n : 1, bytes ? bytes : 1);

	ASSERT(p != NULL);
	return p;
}

static inline void *xrealloc(void *old, size_t bytes)
{
	void *p = realloc(old, bytes ? bytes : 1);

	ASSERT(p != NULL);
	return p;
}

static inline void *xmemdup(const void *from, size_t bytes)
{
	void *p = xmalloc(bytes);

	if (bytes > 0) {
		memcpy(p, from, bytes);
	}
	return p;
}

static inline char *xstrdup(const char *s)
{
	return xmemdup(s, strlen(s) + 1);
}

#endif
