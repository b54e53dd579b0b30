/*
 * events.h - what happened lately, for those who read along (status/events).
 *
 * Pure. Two rings of records with one numbering, merged as they are read:
 *
 *   KEPT  what is rare (sessions, leaders, members): written at once, kept for who looks later
 *   LIVE  what happens to locks: recorded only while somebody reads, as a copy of a few
 *         fields, and written line by line as it is read
 *
 * So locks that nobody watches cost one comparison, and a storm of grants does not wash away the
 * last change of leader. A ring is bounded; a reader that is too slow is told how much it has
 * missed.
 *
 * Always true (events_check() asserts it):
 *   - numbers ascend within a ring;
 *   - a ring holds at most EVENTS_MAX records, and EVENTS_BYTES_MAX bytes unless it holds one;
 *   - LIVE is empty while nobody reads;
 *   - no reader is ahead of a ring.
 */
#ifndef COORDFS_EVENTS_H
#define COORDFS_EVENTS_H

#include "core/json.h"
#include "core/state/lock.h"

/* Of each ring; arbitrary. */
#define EVENTS_MAX 4096
#define EVENTS_BYTES_MAX (1u << 20)

enum events_ring_name {
	EVENTS_KEPT,
	EVENTS_LIVE,
	EVENTS_RINGS_
};

struct event;
struct core_events;

struct events_ring {
	struct event **slots; /* owned; EVENTS_MAX, or NULL before the first record */
	uint64_t first;       /* ordinal of the oldest; its slot is the remainder */
	uint64_t end;         /* of the next to come */
	size_t bytes;
};

struct events {
	struct events_ring rings[EVENTS_RINGS_];
	uint64_t n;        /* number of the newest */
	struct json draft; /* between events_begin() and events_end() */
	uint64_t draft_unix_ms;
	struct core_events *readers; /* utlist */
};

enum event_kind {
	EVENT_TEXT, /* of events_begin() and events_end() */
	EVENT_GRANTED,
	EVENT_WAITING,
	EVENT_RELEASED,
	EVENT_CANCELLED, /* a wait was given up */
	EVENT_LOST,
};

/* Zero-initialised is empty. Readers are closed before. */
void events_fini(struct events *e);

/* A rare event, to be kept. Write its members to what this returns, then call events_end(). */
struct json *events_begin(struct events *e, uint64_t unix_ms, const char *event);
void events_end(struct events *e);

/* What happens to a lock need not even be said while this is false. */
static inline bool events_watched(const struct events *e)
{
	return e->readers != NULL;
}
void events_lock(struct events *e, uint64_t unix_ms, enum event_kind kind, uint64_t node,
	const struct lock *l, const struct claim *c);

/* Readers that have found nothing and now would find something are woken, once. */
void events_wake(struct events *e);

/* For a reader's struct: see coordfs/core.h. */
struct core_events *events_open(struct events *e, void (*wake)(void *arg), void *arg);

void events_check(const struct events *e);

#endif
