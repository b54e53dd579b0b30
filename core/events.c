/*
 * events.c - see events.h.
 */
#include "core/events.h"

#include <utlist.h>

struct event {
	uint64_t n;
	uint64_t unix_ms;
	enum event_kind kind;
	/* of a lock */
	bool shared;
	uint32_t pid;
	uint64_t node;
	uint64_t token;
	char command[CORE_COMMAND_MAX];

	size_t len;
	char bytes[]; /* the whole line, or the lock's name */
};

struct core_events {
	struct events *of; /* borrowed */
	uint64_t at[EVENTS_RINGS_];
	bool found_nothing; /* and has not been woken since */
	void (*wake)(void *arg);
	void *arg;
	struct json line; /* the last one given */
	struct core_events *prev, *next;
};

/* --- rings ---------------------------------------------------------------------------------- */

static struct event **slot_of(const struct events_ring *r, uint64_t ordinal)
{
	return &r->slots[ordinal % EVENTS_MAX];
}

static size_t event_bytes(const struct event *ev)
{
	return sizeof *ev + ev->len;
}

static void ring_drop_oldest(struct events_ring *r)
{
	struct event *ev = TAKE(*slot_of(r, r->first));

	r->bytes -= event_bytes(ev);
	r->first++;
	free(ev);
}

static void ring_clear(struct events_ring *r)
{
	while (r->first < r->end) {
		ring_drop_oldest(r);
	}
	free(TAKE(r->slots));
}

/* Takes `ev`. */
static void ring_push(struct events_ring *r, struct event *ev)
{
	if (r->slots == NULL) {
		r->slots = xcalloc(EVENTS_MAX, sizeof(struct event *));
	}
	while (r->first < r->end && (r->end - r->first >= EVENTS_MAX ||
					    r->bytes + event_bytes(ev) > EVENTS_BYTES_MAX)) {
		ring_drop_oldest(r);
	}
	*slot_of(r, r->end) = ev;
	r->end++;
	r->bytes += event_bytes(ev);
}

static struct event *event_new(
	struct events *e, uint64_t unix_ms, enum event_kind kind, const void *bytes, size_t len)
{
	struct event *ev = xcalloc(1, sizeof *ev + len);

	ev->n = ++e->n;
	ev->unix_ms = unix_ms;
	ev->kind = kind;
	ev->len = len;
	memcpy(ev->bytes, bytes, len);
	return ev;
}

/* --- what happens --------------------------------------------------------------------------- */

/* What every line begins with; n 0: it is not one of the numbered. */
static void line_begin(struct json *line, uint64_t n, uint64_t unix_ms, const char *event)
{
	line->text.len = 0;
	line->comma = false;
	json_open(line, NULL, '{');
	if (n != 0) {
		json_u64(line, "n", n);
		json_u64(line, "time", unix_ms);
	}
	json_string(line, "event", event);
}

static void line_end(struct json *line)
{
	json_close(line, '}');
	wire_buf_append(&line->text, "\n", 1);
}

struct json *events_begin(struct events *e, uint64_t unix_ms, const char *event)
{
	e->draft_unix_ms = unix_ms;
	line_begin(&e->draft, e->n + 1, unix_ms, event);
	return &e->draft;
}

void events_end(struct events *e)
{
	line_end(&e->draft);
	ring_push(&e->rings[EVENTS_KEPT],
		event_new(e, e->draft_unix_ms, EVENT_TEXT, e->draft.text.data, e->draft.text.len));
}

void events_lock(struct events *e, uint64_t unix_ms, enum event_kind kind, uint64_t node,
	const struct lock *l, const struct claim *c)
{
	struct event *ev;

	if (!events_watched(e)) {
		return;
	}
	ev = event_new(e, unix_ms, kind, l->name, l->name_len);
	ev->shared = c->shared;
	ev->node = node;
	ev->pid = c->task.pid;
	ev->token = c->token;
	memcpy(ev->command, c->task.command, sizeof ev->command);
	ring_push(&e->rings[EVENTS_LIVE], ev);
}

/* --- readers -------------------------------------------------------------------------------- */

struct core_events *events_open(struct events *e, void (*wake)(void *arg), void *arg)
{
	struct core_events *r = xcalloc(1, sizeof *r);

	r->of = e;
	r->wake = wake;
	r->arg = arg;
	for (size_t i = 0; i < EVENTS_RINGS_; i++) {
		r->at[i] = e->rings[i].end;
	}
	DL_APPEND(e->readers, r);
	return r;
}

void core_events_close(struct core_events *r)
{
	struct events *e = r->of;

	DL_DELETE(e->readers, r);
	wire_buf_fini(&r->line.text);
	free(r);
	if (e->readers == NULL) {
		ring_clear(&e->rings[EVENTS_LIVE]);
	}
}

void core_events_rewind(struct core_events *r)
{
	r->at[EVENTS_KEPT] = r->of->rings[EVENTS_KEPT].first;
}

bool core_events_pending(struct core_events *r)
{
	const struct events *e = r->of;
	bool pending = false;

	for (size_t i = 0; i < EVENTS_RINGS_; i++) {
		pending = pending || r->at[i] < e->rings[i].end;
	}
	r->found_nothing = !pending;
	return pending;
}

void events_wake(struct events *e)
{
	struct core_events *r, *tmp;

	DL_FOREACH_SAFE (e->readers, r, tmp) {
		if (r->found_nothing && core_events_pending(r)) {
			r->wake(r->arg);
		}
	}
}

static const char *kind_name(enum event_kind kind)
{
	switch (kind) {
	case EVENT_GRANTED:
		return "lock.granted";
	case EVENT_WAITING:
		return "lock.waiting";
	case EVENT_RELEASED:
		return "lock.released";
	case EVENT_CANCELLED:
		return "lock.cancelled";
	case EVENT_LOST:
		return "lock.lost";
	case EVENT_TEXT:
		break;
	}
	UNREACHABLE();
}

static void write_event(struct json *line, const struct event *ev)
{
	if (ev->kind == EVENT_TEXT) {
		line->text.len = 0;
		wire_buf_append(&line->text, ev->bytes, ev->len);
		return;
	}
	line_begin(line, ev->n, ev->unix_ms, kind_name(ev->kind));
	json_bytes(line, "lock", ev->bytes, ev->len);
	json_string(line, "mode", ev->shared ? "shared" : "exclusive");
	json_u64(line, "node", ev->node);
	json_u64(line, "pid", ev->pid);
	json_bytes(line, "command", ev->command, strnlen(ev->command, sizeof ev->command));
	if (ev->token != 0) {
		json_u64(line, "token", ev->token);
	}
	line_end(line);
}

static void write_missed(struct json *line, uint64_t count)
{
	line_begin(line, 0, 0, "events.missed");
	json_u64(line, "count", count);
	line_end(line);
}

/* What has left the rings before it was read. */
static uint64_t take_missed(struct core_events *r)
{
	uint64_t missed = 0;

	for (size_t i = 0; i < EVENTS_RINGS_; i++) {
		uint64_t first = r->of->rings[i].first;

		missed += first - MIN(r->at[i], first);
		r->at[i] = MAX(r->at[i], first);
	}
	return missed;
}

/* The next of both rings; NULL: none. */
static const struct event *take_event(struct core_events *r)
{
	const struct event *best = NULL;
	size_t from = 0;

	for (size_t i = 0; i < EVENTS_RINGS_; i++) {
		const struct events_ring *ring = &r->of->rings[i];
		const struct event *ev = r->at[i] < ring->end ? *slot_of(ring, r->at[i]) : NULL;

		if (ev != NULL && (best == NULL || ev->n < best->n)) {
			best = ev;
			from = i;
		}
	}
	if (best != NULL) {
		r->at[from]++;
	}
	return best;
}

size_t core_events_next(struct core_events *r, const char **ret_line)
{
	const struct event *ev;
	uint64_t missed;

	if (!core_events_pending(r)) {
		return 0;
	}
	missed = take_missed(r);
	if (missed > 0) {
		write_missed(&r->line, missed);
	} else {
		ev = take_event(r);
		ASSERT(ev != NULL);
		write_event(&r->line, ev);
	}
	*ret_line = (const char *)r->line.text.data;
	return r->line.text.len;
}

/* --- the whole ------------------------------------------------------------------------------ */

void events_fini(struct events *e)
{
	ASSERT(e->readers == NULL);
	for (size_t i = 0; i < EVENTS_RINGS_; i++) {
		ring_clear(&e->rings[i]);
	}
	wire_buf_fini(&e->draft.text);
}

static void ring_check(const struct events_ring *r, uint64_t n_max)
{
	uint64_t n = 0;
	size_t bytes = 0;

	ASSERT(r->first <= r->end);
	ASSERT(r->end - r->first <= EVENTS_MAX);
	for (uint64_t i = r->first; i < r->end; i++) {
		const struct event *ev = *slot_of(r, i);

		ASSERT(ev->n > n);
		n = ev->n;
		bytes += event_bytes(ev);
	}
	ASSERT(n <= n_max);
	ASSERT(bytes == r->bytes);
	ASSERT(bytes <= EVENTS_BYTES_MAX || r->end - r->first == 1);
}

void events_check(const struct events *e)
{
	const struct events_ring *live = &e->rings[EVENTS_LIVE];
	const struct core_events *r;

	for (size_t i = 0; i < EVENTS_RINGS_; i++) {
		ring_check(&e->rings[i], e->n);
		DL_FOREACH (e->readers, r) {
			ASSERT(r->at[i] <= e->rings[i].end);
		}
	}
	ASSERT(e->readers != NULL || live->first == live->end);
}
