/*
 * clock.h - the two clocks of a node, in milliseconds.
 */
#ifndef COORDFS_IO_CLOCK_H
#define COORDFS_IO_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ms(clockid_t id)
{
	struct timespec t;

	(void)clock_gettime(id, &t); /* cannot fail for a clock that exists */
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Goes on while the machine sleeps, is never set: leases and timeouts. */
static inline uint64_t clock_boot_ms(void)
{
	return clock_ms(CLOCK_BOOTTIME);
}

/* For people. */
static inline uint64_t clock_unix_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

#endif
