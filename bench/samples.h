/*
 * samples.h - latency samples of one measure, and how results are printed.
 *
 * A result is a line `who metric value unit`, the form of the scripts that
 * measure other systems, so that one table can hold both; or, with bench_json,
 * the same as one JSON object a line.
 */
#ifndef COORDFS_BENCH_SAMPLES_H
#define COORDFS_BENCH_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "coordfs/util.h"

struct samples {
	uint64_t *ns; /* owned */
	size_t n;
	size_t cap;
};

/* One program, one file: what is measured, and how it is told. */
static const char *bench_who = "coordfs";
static bool bench_json;

static inline uint64_t bench_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void samples_add(struct samples *s, uint64_t ns)
{
	if (s->n == s->cap) {
		s->cap = s->cap == 0 ? 4096 : s->cap * 2;
		s->ns = xrealloc(s->ns, s->cap * sizeof *s->ns);
	}
	s->ns[s->n++] = ns;
}

static inline int samples_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static inline void samples_sort(struct samples *s)
{
	if (s->n > 0) {
		qsort(s->ns, s->n, sizeof *s->ns, samples_compare);
	}
}

/* Of sorted samples, in microseconds; per_mille 500 is the median. */
static inline double samples_us(const struct samples *s, unsigned per_mille)
{
	size_t i = s->n * per_mille / 1000;

	return s->n == 0 ? 0 : (double)s->ns[MIN(i, s->n - 1)] / 1000.0;
}

static inline void bench_result(
	const char *metric, const char *part, double value, const char *unit)
{
	(void)printf(bench_json ? "{\"who\":\"%s\",\"metric\":\"%s_%s\",\"value\":%.6g,"
				  "\"unit\":\"%s\"}\n"
				: "%s %s_%s %.6g %s\n",
		bench_who, metric, part, value, unit);
	(void)fflush(stdout);
}

/* Sorts; prints p50, p99 and p99.9. */
static inline void samples_print(struct samples *s, const char *metric)
{
	samples_sort(s);
	bench_result(metric, "p50", samples_us(s, 500), "us");
	bench_result(metric, "p99", samples_us(s, 990), "us");
	bench_result(metric, "p99.9", samples_us(s, 999), "us");
}

static inline void samples_fini(struct samples *s)
{
	free(s->ns);
	memset(s, 0, sizeof *s);
}

#endif
