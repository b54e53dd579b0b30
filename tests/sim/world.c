/*
 * world.c - virtual time, chance, the queue of events, the trace.
 *
 * Events of a node are its inputs. A node that is paused gets none; they wait,
 * in their order, until it goes on, and then all come at once, after the clock
 * has jumped: as SIGSTOP does it to a process whose sockets fill up meanwhile.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include <utlist.h>
#include <xxhash.h>

/* --- chance -------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014). */
uint64_t rng_next(struct rng *r)
{
	uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	ASSERT(n > 0);
	return rng_next(r) % n; /* the bias is far below what any check here could see */
}

uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high)
{
	ASSERT(low <= high);
	return low + rng_below(r, high - low + 1);
}

uint64_t rng_magnitude(struct rng *r, uint64_t low, uint64_t high)
{
	uint64_t octaves = 1;
	uint64_t top;

	ASSERT(low > 0);
	while ((low << octaves) < high) {
		octaves++;
	}
	top = low << rng_between(r, 1, octaves);
	return rng_between(r, top >> 1, MIN(top, MAX(high, top >> 1)));
}

bool rng_permille(struct rng *r, unsigned permille)
{
	return rng_below(r, 1000) < permille;
}

/* --- the queue: a binary heap --------------------------------------------------------------- */

static bool comes_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void heap_push(struct sim_heap *h, struct sim_event *e)
{
	size_t i = h->n++;

	if (h->n > h->cap) {
		h->cap = MAX(2 * h->cap, 256);
		h->slot = xrealloc(h->slot, h->cap * sizeof(*h->slot));
	}
	while (i > 0 && comes_before(e, h->slot[(i - 1) / 2])) {
		h->slot[i] = h->slot[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	h->slot[i] = e;
}

static struct sim_event *heap_pop(struct sim_heap *h)
{
	struct sim_event *first = h->slot[0];
	struct sim_event *last = h->slot[--h->n];
	size_t i = 0;
	size_t child;

	for (;;) {
		child = 2 * i + 1;
		if (child >= h->n) {
			break;
		}
		if (child + 1 < h->n && comes_before(h->slot[child + 1], h->slot[child])) {
			child++;
		}
		if (!comes_before(h->slot[child], last)) {
			break;
		}
		h->slot[i] = h->slot[child];
		i = child;
	}
	h->slot[i] = last;
	return first;
}

static struct sim_event *event_take(struct sim_heap *h)
{
	return h->n_spare > 0 ? h->spare[--h->n_spare] : xmalloc(sizeof(struct sim_event));
}

static void event_give_back(struct sim_heap *h, struct sim_event *e)
{
	free(e->data);
	if (h->n_spare == h->spare_cap) {
		h->spare_cap = MAX(2 * h->spare_cap, 256);
		h->spare = xrealloc(h->spare, h->spare_cap * sizeof(*h->spare));
	}
	h->spare[h->n_spare++] = e;
}

static void heap_fini(struct sim_heap *h)
{
	for (size_t i = 0; i < h->n; i++) {
		free(h->slot[i]->data);
		free(h->slot[i]);
	}
	for (size_t i = 0; i < h->n_spare; i++) {
		free(h->spare[i]);
	}
	free(h->slot);
	free(h->spare);
}

struct sim_event *sim_at(struct sim *s, uint64_t at_us, uint64_t node,
	void (*run)(struct sim *s, struct sim_event *e))
{
	struct sim_event *e = event_take(&s->heap);

	*e = (struct sim_event){
		.at_us = MAX(at_us, s->now_us),
		.seq = s->next_seq++,
		.run = run,
		.node = (uint32_t)node,
		.life = node == 0 ? 0 : s->nodes[node].life,
	};
	heap_push(&s->heap, e);
	return e;
}

/* --- time ----------------------------------------------------------------------------------- */

static bool event_is_stale(const struct sim *s, const struct sim_event *e)
{
	const struct sim_node *n = &s->nodes[e->node];

	return !cluster_runs(n) || n->life != e->life;
}

static void event_run(struct sim *s, struct sim_event *e)
{
	s->n_events++;
	sim_hash_u64(s, e->at_us, (uint64_t)e->node << 32 | e->life);
	e->run(s, e);
	event_give_back(&s->heap, e);
}

/* Inputs that come within a moment are one turn of the node, as in any event loop. */
static void node_turn(struct sim *s, struct sim_node *n, struct sim_event *first)
{
	uint64_t until_us = s->now_us + s->profile.turn_us;
	struct sim_event *e = first;

	if (!turn_begin(n)) {
		event_give_back(&s->heap, e);
		return;
	}
	for (;;) {
		event_run(s, e);
		if (s->heap.n == 0 || n->dying || n->presence != SIM_UP) {
			break;
		}
		e = s->heap.slot[0];
		if (e->node != n->id || e->at_us > until_us || e->life != n->life) {
			break;
		}
		(void)heap_pop(&s->heap);
	}
	turn_end(n);
}

void sim_unpark(struct sim_node *n)
{
	struct sim *s = n->sim;
	struct sim_event *e, *tmp;

	DL_FOREACH_SAFE (n->parked, e, tmp) {
		DL_DELETE(n->parked, e);
		if (event_is_stale(s, e)) {
			event_give_back(&s->heap, e);
		} else {
			e->at_us = s->now_us;
			heap_push(&s->heap, e);
		}
	}
}

bool sim_step(struct sim *s, uint64_t until_us)
{
	struct sim_event *e;

	if (s->heap.n == 0 || s->heap.slot[0]->at_us > until_us) {
		s->now_us = until_us;
		return false;
	}
	e = heap_pop(&s->heap);
	s->now_us = e->at_us;
	if (e->node == 0) {
		event_run(s, e);
	} else if (event_is_stale(s, e)) {
		event_give_back(&s->heap, e);
	} else if (s->nodes[e->node].presence == SIM_PAUSED) {
		DL_APPEND(s->nodes[e->node].parked, e);
	} else {
		node_turn(s, &s->nodes[e->node], e);
	}
	return true;
}

void sim_run_until(struct sim *s, uint64_t until_us)
{
	while (sim_step(s, until_us)) {
	}
}

/* --- what happened ------------------------------------------------------------------- */

void sim_hash(struct sim *s, const void *data, size_t len)
{
	s->hash = XXH3_64bits_withSeed(data, len, s->hash);
}

void sim_hash_u64(struct sim *s, uint64_t a, uint64_t b)
{
	uint64_t x =
		s->hash ^ (a * UINT64_C(0x9e3779b97f4a7c15)) ^ (b * UINT64_C(0xc2b2ae3d27d4eb4f));

	s->hash = (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
}

bool sim_tracing(const struct sim *s)
{
	return s->options.print || s->options.tail > 0;
}

void sim_trace(struct sim *s, uint64_t node, const char *event, const char *fmt, ...)
{
	char kv[1024];
	char *line = NULL;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(kv, sizeof kv, fmt, ap);
	va_end(ap);
	if (asprintf(&line, "%4" PRIu64 ".%06" PRIu64 " %2" PRIu64 " %s %s", s->now_us / 1000000,
		    s->now_us % 1000000, node, event, kv) < 0) {
		return; /* a line less to read */
	}
	if (s->options.print) {
		(void)puts(line);
	}
	if (s->options.tail > 0) {
		free(s->tail[s->tail_next]);
		s->tail[s->tail_next] = TAKE(line);
		s->tail_next = (s->tail_next + 1) % s->options.tail;
	}
	free(line);
}

void sim_print_tail(const struct sim *s)
{
	for (size_t i = 0; i < s->options.tail; i++) {
		const char *line = s->tail[(s->tail_next + i) % s->options.tail];

		if (line != NULL) {
			(void)fprintf(stderr, "%s\n", line);
		}
	}
}

void sim_fail(struct sim *s, const char *check, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	s->options.failed(s, check, text);
	exit(EXIT_FAILURE);
}

/* --- life ---------------------------------------------------------------------------- */

struct sim *sim_new(const struct sim_options *o)
{
	struct sim *s = xcalloc(1, sizeof *s);

	s->options = *o;
	s->rng.state = o->seed;
	s->hash = o->seed;
	if (o->tail > 0) {
		s->tail = xcalloc(o->tail, sizeof(*s->tail));
	}
	watch_init(s);
	return s;
}

void sim_free(struct sim *s)
{
	if (s == NULL) {
		return;
	}
	cluster_fini(s);
	net_fini(s);
	watch_fini(s);
	heap_fini(&s->heap);
	for (size_t i = 0; i < s->options.tail; i++) {
		free(s->tail[i]);
	}
	free(s->tail);
	free(s);
}
