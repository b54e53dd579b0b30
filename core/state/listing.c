/*
 * listing.c - walking the locks while they come and go.
 *
 * A listing (a readdir of locks/) remembers a serial between its steps; the lock
 * with that serial may be gone by then. For the few listings that are under
 * way the place in the list is kept, and kept right when locks leave it.
 */
#include "core/state/internal.h"

static struct lock *step(const struct state *s, const struct lock *from)
{
	return from != NULL ? from->next : s->locks;
}

/* The place for `serial`; if none has stopped just there, the one unused for longest, moved. */
static struct listing *listing_at(struct state *s, uint64_t serial)
{
	struct listing *unused = &s->listings[0];
	struct listing place = {.serial = serial};
	const struct lock *next;
	uint64_t best = 0;

	for (size_t i = 0; i < LISTINGS_MAX; i++) {
		struct listing *l = &s->listings[i];

		if (l->serial == serial) {
			return l;
		}
		if (l->serial < serial && l->serial > best) {
			best = l->serial;
			place.lock = l->lock;
		}
		if (l->used < unused->used) {
			unused = l;
		}
	}
	while ((next = step(s, place.lock)) != NULL && next->serial <= serial) {
		place.lock = step(s, place.lock);
	}
	*unused = place;
	return unused;
}

const struct lock *state_lock_after(const struct state *s, uint64_t serial)
{
	/* What is remembered is not part of the state: nobody can see it but by the time taken. */
	struct state *memo = (struct state *)(uintptr_t)s;
	struct listing *l;
	struct lock *next;

	if (s->locks == NULL || serial >= s->locks->prev->serial) {
		return NULL; /* the head's prev is the tail */
	}
	l = listing_at(memo, serial);
	next = step(s, l->lock);
	ASSERT(next != NULL);
	*l = (struct listing){.serial = next->serial, .lock = next, .used = ++memo->listing_clock};
	return next;
}

void listing_forget(struct state *s, const struct lock *l)
{
	for (size_t i = 0; i < LISTINGS_MAX; i++) {
		if (s->listings[i].lock == l) {
			s->listings[i].lock = l == s->locks ? NULL : l->prev;
		}
	}
}
