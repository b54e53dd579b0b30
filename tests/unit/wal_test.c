/*
 * wal_test.c - the log on disk while all is well, while space runs out, and when
 * a sync fails. Damage to a stopped log is in wal_damage_test.c.
 */
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "tests/unit/wal_fixture.h"

/* --- a sync that fails ---------------------------------------------------------------------- */

static _Atomic int sync_errno; /* of segments' syncs; 0: they work */

/* Ours is found before libc's. */
int fdatasync(int fd)
{
	char link[64], path[512];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[MAX(n, 0)] = '\0';
	if (sync_errno != 0 && strstr(path, "/log/0") != NULL) {
		errno = sync_errno;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static int setup(void **state)
{
	*state = log_new();
	sync_errno = 0;
	return 0;
}

static int teardown(void **state)
{
	log_free(*state);
	return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

static void a_new_log_is_empty(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	assert_int_equal(l->r.n_entries, 0);
	assert_int_equal(l->r.prev_index, 0);
	assert_int_equal(l->r.term, 0);
	assert_false(l->r.truncated_tail);
}

static void a_log_is_not_created_over_another(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	log_close(l);
	assert_int_equal(log_try_open(l, true), -EEXIST);
	assert_non_null(strstr(l->err, l->dir));
}

static void an_absent_log_refuses(void **state)
{
	struct log *l = *state;

	assert_int_equal(log_try_open(l, false), -ENOENT);
	assert_non_null(strstr(l->err, "no log"));
}

static void an_unfinished_creation_is_begun_anew(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	log_close(l);
	assert_int_equal(sh("mv '%s/log' '%s/log.new' && rm '%s/mark'", l->dir, l->dir, l->dir), 0);
	log_open(l, true);
	append_durably(l, 10, 1, 100);
	save_vote(l, 1, 1);
	reopen(l);
}

static void two_processes_do_not_share_a_log(void **state)
{
	struct log *l = *state;
	struct wal *w = NULL;

	log_open(l, true);
	w = l->w;
	assert_int_equal(log_try_open(l, false), -EBUSY);
	l->w = w;
}

static void a_segment_size_out_of_range_is_refused(void **state)
{
	struct log *l = *state;

	l->segment_bytes = 4096;
	assert_int_equal(log_try_open(l, true), -EINVAL);
	l->segment_bytes = 100000;
	assert_int_equal(log_try_open(l, true), -EINVAL);
}

static void entries_come_back(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 3, 2);
	append_durably(l, 1, 1, 0);
	append_durably(l, 5, 2, 1);
	append_durably(l, 100, 3, 127);
	reopen(l);
	assert_int_equal(l->r.term, 3);
	assert_int_equal(l->r.vote, 2);
	append_durably(l, 100, 3, 128);
	reopen(l);
}

static void entries_of_all_kinds_and_the_largest_size_come_back(void **state)
{
	struct log *l = *state;
	static const enum raft_entry_kind kinds[] = {RAFT_NOOP, RAFT_COMMAND, RAFT_CONFIG};

	l->segment_bytes = 2 << 20;
	log_open(l, true);
	save_vote(l, 1, 1);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct raft_entry *e = raft_entry_new(++l->last, 1, kinds[i], "x", 1);

		l->model[l->last] = (struct model_entry){1, 1};
		payload(l->last, 1, 1, e->data);
		wal_append(l->w, l->gen, &e, 1);
		raft_entry_unref(e);
	}
	append_durably(l, 3, 1, RAFT_ENTRY_BYTES_MAX);
	reopen(l);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		assert_int_equal(l->r.entries[i]->kind, kinds[i]);
	}
}

static void an_entry_larger_than_a_segment_fails_the_log(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 1, 1, 10);
	append(l, 1, 1, 64 << 10);
	wait_durable(l);
	assert_int_equal(l->failed, EFBIG);
	assert_int_equal(l->durable, 1);
	l->last = 1;
	log_close(l);
	log_open(l, false);
	assert_recovered(l, 1, false);
}

/* libraft wrote 400,000 entries in one batch and could not read them again. */
static void one_append_larger_than_all_limits_is_split(void **state)
{
	struct log *l = *state;
	struct wal_stats s;

	l->batch_bytes = 32 << 10;
	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 20000, 1, 128);
	assert_int_equal(l->durable_calls, 1);
	wal_stats(l->w, &s);
	assert_in_range(s.syncs, 20000 * 184 / (32 << 10), 2 * 20000 * 184 / (32 << 10));
	assert_in_range(s.segments, 56, 62);
	reopen(l);
}

static void what_queues_up_becomes_durable_together(void **state)
{
	struct log *l = *state;
	struct wal_stats s;

	log_open(l, true);
	for (unsigned i = 0; i < 200; i++) {
		append(l, 1, 1, 64);
	}
	wait_durable(l);
	wal_stats(l->w, &s);
	assert_true(s.syncs <= 100); /* the thread may have begun before the last was queued */
	assert_true(l->durable_calls <= s.syncs);
}

static void a_generation_is_told_only_its_own(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 2, 1);
	append(l, 10, 1, 64);
	truncate_log(l, 6);
	append(l, 1, 2, 64);
	wait_durable(l);
	assert_int_equal(l->durable, 6);
	reopen(l);
}

static void truncated_entries_stay_away(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 9, 1);
	append_durably(l, 1000, 1, 100);
	truncate_log(l, 301);
	reopen(l);
	append_durably(l, 10, 2, 100);
	truncate_log(l, 305);
	truncate_log(l, 200);
	append_durably(l, 1, 3, 100);
	reopen(l);
	truncate_log(l, 1);
	reopen(l);
	append_durably(l, 3, 4, 10);
	reopen(l);
}

static void a_reset_starts_behind_the_snapshot(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 9, 1);
	append_durably(l, 1000, 1, 100);
	reset_log(l, 5000, 7);
	assert_int_equal(segments(l), 1);
	reopen(l);
	assert_int_equal(l->r.prev_index, 5000);
	append_durably(l, 10, 8, 100);
	reopen(l);
	assert_int_equal(l->r.prev_index, 5000);
	assert_int_equal(l->r.prev_term, 7);
}

static void compaction_lets_whole_segments_go(void **state)
{
	struct log *l = *state;
	uint64_t before;

	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 5000, 1, 100);
	before = segments(l);
	wal_compact(l->w, 2500);
	l->base = 2499;
	append_durably(l, 1, 1, 1);
	assert_in_range(segments(l), before / 2, before / 2 + 2);
	reopen(l);
	assert_in_range(l->r.prev_index, 2000, 2499);
	assert_in_range(segments(l), before / 2, before / 2 + 2);
	wal_compact(l->w, 5002);
	append_durably(l, 1, 1, 1);
	assert_int_equal(segments(l), 1);
}

/* Otherwise the disk fills although the log is bounded. */
static void files_behind_the_log_are_used_again(void **state)
{
	struct log *l = *state;
	char path[512];
	struct stat st;

	log_open(l, true);
	save_vote(l, 1, 1);
	for (unsigned i = 0; i < 100; i++) {
		append_durably(l, 500, 1, 100);
		wal_compact(l->w, l->last - 10);
		l->base = l->last - 11;
	}
	log_close(l);
	(void)snprintf(path, sizeof(path), "%s/log/0000000001.seg", l->dir);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(sh("test $(ls '%s/log' | wc -l) -le 12", l->dir), 0);
	log_open(l, false);
	assert_recovered(l, l->last, false);
	assert_false(l->r.truncated_tail);
}

static void the_segment_size_may_change(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 1000, 1, 100);
	l->segment_bytes = 128 << 10;
	reopen(l);
	append_durably(l, 2000, 1, 100);
	l->segment_bytes = 32 << 10;
	reopen(l);
	append_durably(l, 1000, 1, 100);
	reopen(l);
}

/* --- at random -------------------------------------------------------------------------------- */

static uint64_t rnd(uint64_t *seed, uint64_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed % below;
}

static void step(struct log *l, uint64_t *seed, uint64_t *term)
{
	uint64_t kept = l->last - l->base;

	switch (rnd(seed, 12)) {
	case 0:
		(*term)++;
		save_vote(l, *term, rnd(seed, 5));
		break;
	case 1:
		if (kept > 0) {
			truncate_log(l, l->base + 1 + rnd(seed, kept));
			(*term)++;
			save_vote(l, *term, 0);
		}
		break;
	case 2:
		if (kept > 1) {
			uint64_t first = l->base + 1 + rnd(seed, kept);

			wait_durable(l);
			wal_compact(l->w, first);
			l->base_term =
				first - 1 == l->base ? l->base_term : l->model[first - 1].term;
			l->base = first - 1;
		}
		break;
	case 3:
		if (rnd(seed, 4) == 0) {
			reset_log(l, l->last + rnd(seed, 50), *term);
		}
		break;
	case 4:
		wait_durable(l);
		break;
	default:
		append(l, 1 + rnd(seed, 60), *term, (uint32_t)rnd(seed, 600));
	}
}

static void any_history_is_read_back_as_it_was_written(void **state)
{
	struct log *l = *state;

	for (uint64_t run = 1; run <= 12; run++) {
		uint64_t seed = run * 0x9e3779b97f4a7c15u, term = 1;

		print_message("seed %" PRIu64 "\n", run);
		l->segment_bytes = 16u << 10 << rnd(&seed, 3);
		l->base = l->base_term = l->last = 0;
		log_open(l, true);
		save_vote(l, 1, 0);
		for (unsigned i = 0; i < 200; i++) {
			step(l, &seed, &term);
			if (rnd(&seed, 20) == 0) {
				reopen(l);
				assert_int_equal(l->r.term, l->vote_term);
				assert_int_equal(l->r.vote, l->vote);
			}
		}
		reopen(l);
		log_close(l);
		assert_int_equal(sh("rm -rf '%s'/*", l->dir), 0);
	}
}

/* --- failures --------------------------------------------------------------------------------- */

static void after_a_failed_sync_nothing_is_durable_any_more(void **state)
{
	struct log *l = *state;

	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 10, 1, 100);
	sync_errno = EIO;
	append(l, 10, 1, 100);
	wait_durable(l);
	assert_int_equal(l->failed, EIO);
	assert_non_null(strstr(l->failed_text, "0000000001.seg: fdatasync: "));
	sync_errno = 0;
	append(l, 10, 1, 100);
	wal_save_vote(l->w, 2, 2);
	wal_reset(l->w, 100, 1);
	log_close(l);
	assert_int_equal(l->durable, 10);
	assert_int_equal(l->vote_term, 1);
	assert_int_equal(l->reset, 0);
}

/* A file system of `kb`, in a mount namespace of our own; false: not allowed here. */
static bool mount_small(const char *dir, unsigned kb)
{
	char options[64];

	(void)snprintf(options, sizeof(options), "size=%uk", kb);
	return unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("coordfs-test", dir, "tmpfs", 0, options) == 0;
}

static void fill(const struct log *l, unsigned kb_left)
{
	assert_int_equal(
		sh("kb=$(df -k --output=avail '%s' | tail -1); dd if=/dev/zero of='%s/fill' bs=1k "
		   "count=$((kb - %u)) status=none",
			l->dir, l->dir, kb_left),
		0);
}

static void a_full_disk_is_seen_before_it_hurts(void **state)
{
	struct log *l = *state;

	if (!mount_small(l->dir, 2048)) {
		print_message("no tmpfs of our own: %s\n", strerror(errno));
		skip();
	}
	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 1000, 1, 100);
	fill(l, 16);
	while (!l->low) {
		append_durably(l, 100, 1, 100); /* goes on, on the reserve */
	}
	append_durably(l, 100, 1, 100);
	assert_int_equal(sh("rm '%s/fill'", l->dir), 0);
	while (l->low) {
		(void)uv_run(&l->loop, UV_RUN_ONCE);
	}
	append_durably(l, 1000, 1, 100);
	reopen(l);

	fill(l, 16);
	while (!l->failed) {
		append(l, 100, 1, 100);
		wait_durable(l);
	}
	assert_true(l->low);
	assert_int_equal(l->failed, ENOSPC);
	assert_non_null(strstr(l->failed_text, l->dir));
	log_close(l);
	log_open(l, false); /* everything that was durable is still there */
	assert_recovered(l, l->durable, true);
	log_close(l);
	(void)umount2(l->dir, MNT_DETACH);
}

static void a_disk_too_small_for_a_log_refuses(void **state)
{
	struct log *l = *state;

	if (!mount_small(l->dir, 96)) {
		print_message("no tmpfs of our own: %s\n", strerror(errno));
		skip();
	}
	assert_int_equal(log_try_open(l, true), -ENOSPC);
	assert_non_null(strstr(l->err, l->dir));
	(void)umount2(l->dir, MNT_DETACH);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_new_log_is_empty),
		T(a_log_is_not_created_over_another),
		T(an_absent_log_refuses),
		T(an_unfinished_creation_is_begun_anew),
		T(two_processes_do_not_share_a_log),
		T(a_segment_size_out_of_range_is_refused),
		T(entries_come_back),
		T(entries_of_all_kinds_and_the_largest_size_come_back),
		T(an_entry_larger_than_a_segment_fails_the_log),
		T(one_append_larger_than_all_limits_is_split),
		T(what_queues_up_becomes_durable_together),
		T(a_generation_is_told_only_its_own),
		T(truncated_entries_stay_away),
		T(a_reset_starts_behind_the_snapshot),
		T(compaction_lets_whole_segments_go),
		T(files_behind_the_log_are_used_again),
		T(the_segment_size_may_change),
		T(any_history_is_read_back_as_it_was_written),
		T(after_a_failed_sync_nothing_is_durable_any_more),
		T(a_full_disk_is_seen_before_it_hurts),
		T(a_disk_too_small_for_a_log_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
