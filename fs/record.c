/*
 * record.c - see record.h.
 */
#include "fs/record.h"

#include <errno.h>
#include <utlist.h>

#include "coordfs/util.h"

/* --- what it holds --------------------------------------------------------------------------- */

/* The first that ends at or after `at`. */
static size_t first_from(const struct record_owner *o, uint64_t at)
{
	size_t lo = 0;
	size_t hi = o->n_held;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (o->held[mid].end < at) {
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	return lo;
}

/* The ranges from `from` on, up to `to`, are replaced by `n` of `with`. */
static void replace(
	struct record_owner *o, size_t from, size_t to, const struct core_range *with, size_t n)
{
	size_t count = o->n_held - (to - from) + n;

	if (count > o->cap_held) {
		o->cap_held = count * 2;
		o->held = xrealloc(o->held, o->cap_held * sizeof(*o->held));
	}
	memmove(o->held + from + n, o->held + to, (o->n_held - to) * sizeof(*o->held));
	if (n > 0) {
		memcpy(o->held + from, with, n * sizeof(*with));
	}
	o->n_held = count;
}

static void held_add(struct record_owner *o, struct core_range range)
{
	/* What touches it is one with it; the last byte has no successor. */
	size_t from = first_from(o, range.start == 0 ? 0 : range.start - 1);
	size_t to = from;

	while (to < o->n_held && o->held[to].start <= range.end + 1) {
		range.start = MIN(range.start, o->held[to].start);
		range.end = MAX(range.end, o->held[to].end);
		to++;
	}
	replace(o, from, to, &range, 1);
}

static bool holds_any(const struct record_owner *o, struct core_range range)
{
	size_t at = first_from(o, range.start);

	return at < o->n_held && o->held[at].start <= range.end;
}

/* Would taking the range away leave more than may be? */
static bool splits_too_much(const struct record_owner *o, struct core_range range)
{
	size_t at = first_from(o, range.start);

	return o->n_held >= RECORD_RANGES_MAX && at < o->n_held &&
	       o->held[at].start < range.start && o->held[at].end > range.end;
}

static void held_remove(struct record_owner *o, struct core_range range)
{
	struct core_range rest[2];
	size_t from = first_from(o, range.start);
	size_t to = from;
	size_t n = 0;

	while (to < o->n_held && o->held[to].start <= range.end) {
		if (o->held[to].start < range.start) {
			rest[n++] = (struct core_range){o->held[to].start, range.start - 1};
		}
		if (o->held[to].end > range.end) {
			rest[n++] = (struct core_range){range.end + 1, o->held[to].end};
		}
		to++;
	}
	replace(o, from, to, rest, n);
}

/* --- uses ------------------------------------------------------------------------------------ */

static void use_free(struct record_use *use)
{
	DL_DELETE2(use->owner->uses, use, owner_prev, owner_next);
	DL_DELETE2(use->h->uses, use, h_prev, h_next);
	free(use);
}

static void use_note(struct record_owner *o, struct lock_handle *h)
{
	struct record_use *use;

	DL_FOREACH2 (o->uses, use, owner_next) {
		if (use->h == h) {
			return;
		}
	}
	use = xcalloc(1, sizeof(*use));
	use->owner = o;
	use->h = h;
	DL_APPEND2(o->uses, use, owner_prev, owner_next);
	DL_APPEND2(h->uses, use, h_prev, h_next);
}

/* --- owners ---------------------------------------------------------------------------------- */

struct record_owner *record_owner_find(struct lock_inode *l, uint64_t lock_owner)
{
	struct record_owner *o;

	HASH_FIND(hh, l->record_owners, &lock_owner, sizeof(lock_owner), o);
	return o;
}

struct record_owner *record_owner_get(struct fs *fs, struct lock_inode *l, uint64_t lock_owner)
{
	struct record_owner *o = record_owner_find(l, lock_owner);

	if (o == NULL) {
		o = xcalloc(1, sizeof(*o));
		o->lock_owner = lock_owner;
		o->core = (struct core_owner){CORE_RECORD, ++fs->last_owner};
		o->inode = l;
		HASH_ADD(hh, l->record_owners, lock_owner, sizeof(o->lock_owner), o);
	}
	o->n_ops++;
	return o;
}

/* It holds nothing any more. */
static void holds_nothing(struct fs *fs, struct record_owner *o)
{
	struct record_use *use, *next;

	DL_DELETE2(fs->recording, o, hold_prev, hold_next);
	DL_FOREACH_SAFE2 (o->uses, use, next, owner_next) {
		use_free(use);
	}
}

static void free_if_idle(struct record_owner *o)
{
	if (o->n_held == 0 && o->n_ops == 0) {
		HASH_DEL(o->inode->record_owners, o);
		free(o->held);
		free(o);
	}
}

void record_owner_put(struct record_owner *o)
{
	o->n_ops--;
	free_if_idle(o);
}

void record_granted(struct fs *fs, struct record_owner *o, struct lock_handle *h,
	struct core_range range, const struct core_task *asker)
{
	if (o->n_held == 0) {
		DL_APPEND2(fs->recording, o, hold_prev, hold_next);
	}
	held_add(o, range);
	use_note(o, h);
	o->holder = *asker;
	o->opener = h->opener;
}

int record_unlock(struct fs *fs, struct record_owner *o, struct core_range range)
{
	bool held = o->n_held > 0;

	if (splits_too_much(o, range)) {
		return ENOLCK;
	}
	if (o->n_ops > 0 || holds_any(o, range)) {
		core_unlock(fs->o.core, lock_inode_name(o->inode), o->core, range);
	}
	held_remove(o, range);
	if (held && o->n_held == 0) {
		holds_nothing(fs, o);
	}
	free_if_idle(o);
	return 0;
}

void record_flush(struct fs *fs, struct lock_inode *l, uint64_t lock_owner)
{
	struct record_owner *o = record_owner_find(l, lock_owner);

	if (o != NULL) {
		(void)record_unlock(fs, o, CORE_RANGE_WHOLE); /* splits nothing */
	}
}

void record_closed(struct fs *fs, struct lock_handle *h)
{
	while (h->uses != NULL) {
		(void)record_unlock(fs, h->uses->owner, CORE_RANGE_WHOLE); /* splits nothing */
	}
}

void records_lost(struct fs *fs)
{
	struct record_owner *o;
	struct record_use *use;

	while ((o = fs->recording) != NULL) {
		DL_FOREACH2 (o->uses, use, owner_next) {
			lock_handle_lose(fs, use->h, &o->holder);
		}
		lock_signal_holder(fs, &o->holder, &o->opener);
		o->n_held = 0;
		holds_nothing(fs, o);
		free_if_idle(o);
	}
}
