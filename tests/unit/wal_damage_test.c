/*
 * wal_damage_test.c - damage to a stopped node's log, and crashes.
 *
 * Everything acknowledged is there after opening, or opening refuses and says
 * where the damage is. What a crash can leave behind always opens.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/wal_fixture.h"

static int setup(void **state)
{
	*state = log_new();
	return 0;
}

static int teardown(void **state)
{
	struct log *l = *state;

	(void)sh("rm -rf '%s'.*", l->dir);
	log_free(l);
	return 0;
}

static uint64_t rnd(uint64_t *seed, uint64_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed % below;
}

/* --- files ---------------------------------------------------------------------------------- */

static int open_in(const struct log *l, const char *name, int flags)
{
	char path[512];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	fd = open(path, flags, 0600);
	assert_true(fd >= 0);
	return fd;
}

static uint64_t size_of(const struct log *l, const char *name)
{
	struct stat st;
	int fd = open_in(l, name, O_RDONLY);

	assert_int_equal(fstat(fd, &st), 0);
	(void)close(fd);
	return (uint64_t)st.st_size;
}

static uint8_t *slurp(const struct log *l, const char *name, size_t *ret_len)
{
	size_t len = size_of(l, name);
	uint8_t *buf = xmalloc(len);
	int fd = open_in(l, name, O_RDONLY);

	assert_int_equal(read(fd, buf, len), len);
	(void)close(fd);
	*ret_len = len;
	return buf;
}

static void put(
	const struct log *l, const char *name, uint64_t offset, const void *data, size_t len)
{
	int fd = open_in(l, name, O_WRONLY);

	assert_int_equal(pwrite(fd, data, len, (off_t)offset), len);
	(void)close(fd);
}

static void flip(const struct log *l, const char *name, uint64_t offset, unsigned bit)
{
	int fd = open_in(l, name, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
	byte ^= (uint8_t)(1u << bit);
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
	(void)close(fd);
}

static void zero(const struct log *l, const char *name, uint64_t from, uint64_t to)
{
	uint8_t *buf = xcalloc(1, to - from);

	put(l, name, from, buf, to - from);
	free(buf);
}

static void cut(const struct log *l, const char *name, uint64_t bytes)
{
	int fd = open_in(l, name, O_WRONLY);

	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	(void)close(fd);
}

static void del(const struct log *l, const char *name)
{
	assert_int_equal(sh("rm -r %s/%s", l->dir, name), 0);
}

static void swap(const struct log *l, const char *a, const char *b)
{
	assert_int_equal(sh("cd '%s' && mv %s x && mv %s %s && mv x %s", l->dir, a, b, a, b), 0);
}

/* Keep a copy beside the directory; put it back. */
static void keep(const struct log *l, const char *as)
{
	assert_int_equal(
		sh("rm -rf '%s.%s' && cp -a '%s' '%s.%s'", l->dir, as, l->dir, l->dir, as), 0);
}

static void put_back(const struct log *l, const char *from)
{
	assert_int_equal(
		sh("rm -rf '%s'/* && cp -a '%s.%s'/. '%s'", l->dir, l->dir, from, l->dir), 0);
}

/* --- the table ------------------------------------------------------------------------------ */

/* The stopped log under test: segments 1 to 5, of which 5 is the last, 6 and 7 prepared. The last
 * record lies at `last_at`; the last batch has `last_batch` entries. */
static uint64_t last_at, last_batch;

#define SEG(n) "log/000000000" #n ".seg"
#define LEN 150u

static void make_one_log(struct log *l)
{
	log_open(l, true);
	log_close(l);
	keep(l, "new");
	log_open(l, false);
	save_vote(l, 3, 2);
	while (l->w->writer.number < 5 || l->w->writer.synced < 20000) {
		append_durably(l, 7, 3, LEN);
	}
	keep(l, "older");
	last_batch = 3;
	append_durably(l, last_batch, 3, LEN);
	last_at = l->w->writer.synced - wal_record_size(LEN);
	for (;;) { /* until the keeper has prepared what is to be swapped and deleted below */
		char path[512];

		(void)snprintf(path, sizeof(path), "%s/%s", l->dir, SEG(7));
		if (access(path, F_OK) == 0) {
			break;
		}
		last_batch = 1;
		append_durably(l, last_batch, 3, LEN);
		last_at = l->w->writer.synced - wal_record_size(LEN);
	}
	assert_int_equal(l->w->writer.number, 5);
	log_close(l);
}

static void make_log(struct log *l)
{
	payload_salt = 1;
	make_one_log(l);
	keep(l, "other");
	assert_int_equal(sh("rm -rf '%s'/*", l->dir), 0);
	l->last = 0;
	payload_salt = 0;
	make_one_log(l);
	keep(l, "whole");
}

static void flip_last_payload(const struct log *l)
{
	flip(l, SEG(5), last_at + WAL_RECORD_BYTES + 77, 3);
}
static void flip_last_sum(const struct log *l)
{
	flip(l, SEG(5), last_at + 5, 0);
}
static void flip_last_prev(const struct log *l)
{
	flip(l, SEG(5), last_at + 8, 0);
}
static void flip_last_segment(const struct log *l)
{
	flip(l, SEG(5), last_at + 33, 1);
}
static void flip_last_offset(const struct log *l)
{
	flip(l, SEG(5), last_at + 40, 4);
}
static void flip_last_len(const struct log *l)
{
	flip(l, SEG(5), last_at + 50, 7);
}
static void flip_middle_of_last(const struct log *l)
{
	flip(l, SEG(5), 12000, 6);
}
static void flip_first_record_of_last(const struct log *l)
{
	flip(l, SEG(5), WAL_HEADER_BYTES + 16, 0);
}
static void flip_header_of_last(const struct log *l)
{
	flip(l, SEG(5), 18, 0);
}
static void flip_earlier(const struct log *l)
{
	flip(l, SEG(2), 30000, 0);
}
static void flip_first_record(const struct log *l)
{
	flip(l, SEG(1), WAL_HEADER_BYTES + 60, 0);
}
static void flip_header_of_first(const struct log *l)
{
	flip(l, SEG(1), 0, 0);
}
static void flip_header_of_middle(const struct log *l)
{
	flip(l, SEG(3), 50, 2);
}
static void zero_header_of_middle(const struct log *l)
{
	zero(l, SEG(3), 0, WAL_HEADER_BYTES);
}
static void zero_header_of_last(const struct log *l)
{
	zero(l, SEG(5), 0, WAL_HEADER_BYTES);
}
static void zero_end_of_last(const struct log *l)
{
	zero(l, SEG(5), 10000, 64 << 10);
}
static void zero_last_record(const struct log *l)
{
	zero(l, SEG(5), last_at, 64 << 10);
}
static void zero_sector(const struct log *l)
{
	zero(l, SEG(4), 20480, 20992);
}
static void cut_last(const struct log *l)
{
	cut(l, SEG(5), 15000);
}
static void cut_last_behind_the_end(const struct log *l)
{
	cut(l, SEG(5), (64 << 10) - 1);
}
static void cut_last_to_nothing(const struct log *l)
{
	cut(l, SEG(5), 0);
}
static void cut_earlier(const struct log *l)
{
	cut(l, SEG(2), 15000);
}
static void del_first(const struct log *l)
{
	del(l, SEG(1));
}
static void del_middle(const struct log *l)
{
	del(l, SEG(3));
}
static void del_last(const struct log *l)
{
	del(l, SEG(5));
}
static void del_last_and_prepared(const struct log *l)
{
	del(l, SEG(5));
	del(l, SEG(6));
	del(l, SEG(7));
}
static void del_all_segments(const struct log *l)
{
	del(l, "log/*");
}
static void del_directory(const struct log *l)
{
	del(l, "log");
}
static void swap_middle(const struct log *l)
{
	swap(l, SEG(2), SEG(3));
}
static void swap_last(const struct log *l)
{
	swap(l, SEG(4), SEG(5));
}
static void swap_last_with_prepared(const struct log *l)
{
	swap(l, SEG(5), SEG(6));
}
static void older_copy_of_last(const struct log *l)
{
	assert_int_equal(sh("cp '%s.older/" SEG(5) "' '%s/" SEG(5) "'", l->dir, l->dir), 0);
}
static void older_copy_of_log(const struct log *l)
{
	assert_int_equal(
		sh("rm -r '%s/log' && cp -a '%s.older/log' '%s/log'", l->dir, l->dir, l->dir), 0);
}
static void segment_of_another_log(const struct log *l)
{
	assert_int_equal(sh("cp '%s.other/" SEG(3) "' '%s/" SEG(3) "'", l->dir, l->dir), 0);
}
static void another_log(const struct log *l)
{
	assert_int_equal(
		sh("rm -r '%s/log' && cp -a '%s.other/log' '%s/log'", l->dir, l->dir, l->dir), 0);
}
static void zero_vote(const struct log *l)
{
	zero(l, "vote", 0, 8192);
}
static void flip_both_votes(const struct log *l)
{
	flip(l, "vote", 24, 0);
	flip(l, "vote", 4096 + 24, 0);
}
static void del_vote(const struct log *l)
{
	del(l, "vote");
}
static void lower_term(const struct log *l)
{
	struct wal_dir dir = {.path = (char *)l->dir, .fd = open(l->dir, O_RDONLY), .log_fd = -1};
	uint64_t v[WAL_TWIN_VALUES] = {2, 1};
	struct wal_error e;

	assert_int_equal(wal_twin_create(&dir, WAL_TWIN_VOTE, v, &e), 0);
	(void)close(dir.fd);
}
static void zero_mark(const struct log *l)
{
	zero(l, "mark", 0, 8192);
}
static void del_mark(const struct log *l)
{
	del(l, "mark");
}

static void flip_vote(const struct log *l)
{
	flip(l, "vote", 25, 0);
}
static void flip_second_vote(const struct log *l)
{
	flip(l, "vote", 4096 + 33, 0);
}
static void cut_vote(const struct log *l)
{
	cut(l, "vote", 4096);
}
static void zero_one_mark(const struct log *l)
{
	zero(l, "mark", 0, 4096);
}
static void garbage_behind_the_end(const struct log *l)
{
	uint8_t garbage[3000];
	uint64_t seed = 7;

	for (size_t i = 0; i < sizeof(garbage); i++) {
		garbage[i] = (uint8_t)rnd(&seed, 256);
	}
	put(l, SEG(5), last_at + wal_record_size(LEN), garbage, sizeof(garbage));
}
static void old_records_behind_the_end(const struct log *l)
{
	size_t len;
	uint8_t *old = slurp(l, SEG(4), &len);
	uint64_t at = last_at + wal_record_size(LEN);

	put(l, SEG(5), at, old + at, len - at);
	free(old);
}
static void del_prepared(const struct log *l)
{
	del(l, SEG(6));
	del(l, SEG(7));
}
static void del_reserve(const struct log *l)
{
	del(l, "reserve");
}
static void flip_prepared(const struct log *l)
{
	flip(l, SEG(6), 3, 3);
}

struct row {
	const char *name;
	void (*damage)(const struct log *l);
	const char *file; /* that the refusal names; NULL: it opens, and nothing is missing */
};

/* clang-format off */
static const struct row rows[] = {
	{"bit in the last record's payload", flip_last_payload, SEG(5)},
	{"bit in the last record's checksum", flip_last_sum, SEG(5)},
	{"bit in the last record's chain", flip_last_prev, SEG(5)},
	{"bit in the last record's segment", flip_last_segment, SEG(5)},
	{"bit in the last record's offset", flip_last_offset, SEG(5)},
	{"bit in the last record's length", flip_last_len, SEG(5)},
	{"bit in the middle of the last segment", flip_middle_of_last, SEG(5)},
	{"bit in the last segment's first record", flip_first_record_of_last, SEG(5)},
	{"bit in the last segment's header", flip_header_of_last, SEG(5)},
	{"bit in an earlier segment", flip_earlier, SEG(2)},
	{"bit in the first record", flip_first_record, SEG(1)},
	{"bit in the first header", flip_header_of_first, SEG(1)},
	{"bit in a header", flip_header_of_middle, SEG(3)},
	{"header zeroed", zero_header_of_middle, SEG(3)},
	{"last header zeroed", zero_header_of_last, SEG(5)},
	{"last segment zeroed from the middle", zero_end_of_last, SEG(5)},
	{"last record zeroed", zero_last_record, SEG(5)},
	{"a sector zeroed", zero_sector, SEG(4)},
	{"last segment cut", cut_last, SEG(5)},
	{"last segment cut behind the last record", cut_last_behind_the_end, SEG(5)},
	{"last segment cut to nothing", cut_last_to_nothing, SEG(5)},
	{"earlier segment cut", cut_earlier, SEG(2)},
	{"first segment deleted", del_first, SEG(1)},
	{"a segment deleted", del_middle, SEG(3)},
	{"last segment deleted", del_last, SEG(5)},
	{"last segment and all after it deleted", del_last_and_prepared, SEG(5)},
	{"all segments deleted", del_all_segments, SEG(1)},
	{"log directory deleted", del_directory, "log"},
	{"two segments swapped", swap_middle, SEG(2)},
	{"last two segments swapped", swap_last, SEG(4)},
	{"last segment swapped with a prepared one", swap_last_with_prepared, SEG(5)},
	{"older copy of the last segment", older_copy_of_last, SEG(5)},
	{"older copy of the log directory", older_copy_of_log, SEG(5)},
	{"a segment of another log", segment_of_another_log, SEG(3)},
	{"another log", another_log, SEG(5)},
	{"vote zeroed", zero_vote, "vote"},
	{"bit in both slots of the vote", flip_both_votes, "vote"},
	{"vote deleted", del_vote, "vote"},
	{"term before the log's", lower_term, "vote"},
	{"mark zeroed", zero_mark, "mark"},
	{"mark deleted", del_mark, "mark"},

	{"bit in one slot of the vote", flip_vote, NULL},
	{"bit in the other slot of the vote", flip_second_vote, NULL},
	{"vote cut to one slot", cut_vote, NULL},
	{"one slot of the mark zeroed", zero_one_mark, NULL},
	{"garbage behind the end", garbage_behind_the_end, NULL},
	{"another segment's records behind the end", old_records_behind_the_end, NULL},
	{"prepared segments deleted", del_prepared, NULL},
	{"garbage in a prepared segment", flip_prepared, NULL},
	{"reserve deleted", del_reserve, NULL},
};
/* clang-format on */

/* Refused: -EUCLEAN, a sentence with `file` and an offset, and nothing was changed. */
static void assert_refused(struct log *l, const char *file)
{
	int rc;

	keep(l, "damaged");
	rc = log_try_open(l, false);
	assert_int_equal(rc, -EUCLEAN);
	if (strstr(l->err, file) == NULL) {
		fail_msg("%s should name %s", l->err, file);
	}
	assert_non_null(strstr(l->err, "offset "));
	assert_int_equal(sh("diff -r '%s.damaged' '%s'", l->dir, l->dir), 0);
}

static void assert_nothing_missing(struct log *l)
{
	assert_recovered(l, l->last, false);
	assert_int_equal(l->r.term, 3);
	assert_int_equal(l->r.vote, 2);
	assert_false(l->r.truncated_tail);
}

static void damage_is_refused_or_harmless(void **state)
{
	struct log *l = *state;

	make_log(l);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		print_message("  %s\n", rows[i].name);
		put_back(l, "whole");
		rows[i].damage(l);
		if (rows[i].file != NULL) {
			assert_refused(l, rows[i].file);
			continue;
		}
		log_open(l, false);
		assert_nothing_missing(l);
		reopen(l);
		assert_nothing_missing(l);
		log_close(l);
	}
}

/* clang-format off */
static const struct row rows_without_mark[] = {
	{"bit in the middle of the last segment", flip_middle_of_last, SEG(5)},
	{"bit in the last segment's first record", flip_first_record_of_last, SEG(5)},
	{"bit in the last segment's header", flip_header_of_last, SEG(5)},
	{"last header zeroed", zero_header_of_last, SEG(5)},
	{"bit in an earlier segment", flip_earlier, SEG(2)},
	{"bit in a header", flip_header_of_middle, SEG(3)},
	{"last segment cut", cut_last, SEG(5)},
	{"a segment deleted", del_middle, SEG(3)},
	{"last segment deleted", del_last, SEG(5)},
	{"last two segments swapped", swap_last, SEG(4)},
	{"last segment swapped with a prepared one", swap_last_with_prepared, SEG(6)},

	{"bit in the last record's payload", flip_last_payload, NULL},
	{"bit in the last record's chain", flip_last_prev, NULL},
	{"bit in the last record's length", flip_last_len, NULL},
	{"last record zeroed", zero_last_record, NULL},
};
/* clang-format on */

/* A crash right after the last batch: only that batch cannot be told from a torn one. */
static void without_a_mark_only_the_last_batch_is_in_doubt(void **state)
{
	struct log *l = *state;

	make_log(l);
	for (size_t i = 0; i < ARRAY_SIZE(rows_without_mark); i++) {
		const struct row *row = &rows_without_mark[i];

		print_message("  %s\n", row->name);
		put_back(l, "whole");
		assert_int_equal(sh("cp '%s.new/mark' '%s/mark'", l->dir, l->dir), 0);
		row->damage(l);
		if (row->file != NULL) {
			assert_refused(l, row->file);
			continue;
		}
		log_open(l, false);
		assert_recovered(l, l->last - last_batch, true);
		log_close(l);
	}
}

static void random_damage(const struct log *l, uint64_t *seed)
{
	static const char *const files[] = {
		SEG(1), SEG(2), SEG(3), SEG(4), SEG(5), SEG(5), SEG(5), SEG(6), "vote", "mark"};
	const char *file = files[rnd(seed, ARRAY_SIZE(files))];
	uint64_t size = size_of(l, file), at = rnd(seed, size);

	switch (rnd(seed, 3)) {
	case 0:
		zero(l, file, at & ~511u, MIN((at & ~511u) + 512, size));
		break;
	case 1:
		cut(l, file, at);
		break;
	default:
		if (file[0] == 'v' || file[0] == 'm') {
			at = (at & 4096) + at % 56;
		}
		flip(l, file, at, (unsigned)rnd(seed, 8));
	}
}

static void any_damage_is_refused_or_harmless(void **state)
{
	struct log *l = *state;
	unsigned refused = 0;

	make_log(l);
	for (uint64_t run = 1; run <= 200; run++) {
		uint64_t seed = run * 0x9e3779b97f4a7c15u;
		int rc;

		put_back(l, "whole");
		random_damage(l, &seed);
		rc = log_try_open(l, false);
		if (rc < 0) {
			assert_int_equal(rc, -EUCLEAN);
			assert_non_null(strstr(l->err, "offset "));
			refused++;
			continue;
		}
		assert_nothing_missing(l);
		log_close(l);
	}
	assert_true(refused > 50);
}

/* --- crashes -------------------------------------------------------------------------------- */

/* Of what lies between the images `a` and `b` of a file, some sectors were written, some not, some
 * in part. */
static void tear(uint8_t *a, const uint8_t *b, size_t len, uint64_t *seed)
{
	uint64_t mode = rnd(seed, 4);

	for (size_t at = 0; at < len; at += 512) {
		size_t n = MIN(len - at, 512);
		uint64_t how = mode < 3 ? mode : rnd(seed, 3);

		if (mode < 3 && rnd(seed, 4) == 0) {
			how = rnd(seed, 3);
		}
		if (memcmp(a + at, b + at, n) == 0 || how == 0) {
			continue;
		}
		memcpy(a + at, b + at, how == 1 ? n : rnd(seed, n));
	}
}

/* From the image "before" (all of it durable) to the present one: the last batch is torn. */
static void tear_last_batch(const struct log *l, uint64_t number, uint64_t *seed)
{
	char name[WAL_NAME_BYTES], path[512];
	struct log before = {0};
	size_t len;
	uint8_t *a, *b;

	wal_segment_name(number, name);
	b = slurp(l, name, &len);
	(void)snprintf(before.dir, sizeof(before.dir), "%.200s.before", l->dir);
	(void)snprintf(path, sizeof(path), "%s/%s", before.dir, name);
	a = access(path, F_OK) == 0 ? slurp(&before, name, &len) : xcalloc(1, len);
	tear(a, b, len, seed);
	put(l, name, 0, a, len);
	assert_int_equal(sh("cp '%s'/mark '%s'/vote '%s'", before.dir, before.dir, l->dir), 0);
	free(a);
	free(b);
}

/* With the last batch torn in any way, all that was durable before it is there, and the log
 * that goes on from there is read back too. */
static void a_torn_batch_is_cut_off(void **state)
{
	struct log *l = *state;
	unsigned torn = 0;

	log_open(l, true);
	save_vote(l, 1, 1);
	append_durably(l, 20, 1, 300);
	for (uint64_t run = 1; run <= 150; run++) {
		uint64_t seed = run * 0x9e3779b97f4a7c15u, before, after, number;

		log_close(l);
		keep(l, "before");
		before = l->last;
		log_open(l, false);
		number = l->w->writer.number;
		append_durably(l, 1 + rnd(&seed, 40), run, (uint32_t)rnd(&seed, 900));
		if (l->w->writer.number != number) {
			number = l->w->writer.number; /* earlier ones were durable before */
		}
		log_close(l);
		tear_last_batch(l, number, &seed);
		log_open(l, false);
		torn += l->r.truncated_tail;
		after = l->r.prev_index + l->r.n_entries;
		assert_in_range(after, before, l->last);
		l->last = after;
		assert_recovered(l, after, false);
		save_vote(l, run + 1, 1);
		append_durably(l, 1 + rnd(&seed, 3), run + 1, (uint32_t)rnd(&seed, 300));
		reopen(l);
		assert_false(l->r.truncated_tail);
		wal_compact(l->w, l->last - MIN(l->last - 1, 30));
		l->base = l->last - MIN(l->last - 1, 30) - 1;
	}
	assert_true(torn > 30);
}

static void append_for_ever(struct log *l, int fd)
{
	log_open(l, true);
	save_vote(l, 1, 1);
	for (;;) {
		append_durably(l, 1 + l->last % 50, 1, 200);
		if (write(fd, &l->durable, sizeof(l->durable)) != sizeof(l->durable)) {
			_exit(1);
		}
	}
}

static void a_killed_process_loses_nothing(void **state)
{
	struct log *l = *state;
	uint64_t durable = 0;
	int fds[2], status;
	pid_t child;

	assert_int_equal(pipe(fds), 0);
	child = fork();
	if (child == 0) {
		(void)close(fds[0]);
		append_for_ever(l, fds[1]);
	}
	(void)close(fds[1]);
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(read(fds[0], &durable, sizeof(durable)), sizeof(durable));
	}
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	while (read(fds[0], &durable, sizeof(durable)) == sizeof(durable)) {
	}
	(void)close(fds[0]);
	for (uint64_t i = 1; i < MODEL_MAX; i++) {
		l->model[i] = (struct model_entry){1, 200};
	}
	log_open(l, false);
	assert_recovered(l, durable, true);
	l->last = l->r.prev_index + l->r.n_entries;
	append_durably(l, 10, 1, 200);
	reopen(l);
}

/* A write of the vote that a crash has torn was never reported: either vote may be there. */
static void a_torn_vote_opens_with_a_whole_one(void **state)
{
	struct log *l = *state;
	size_t len;
	uint8_t *a, *b;

	log_open(l, true);
	save_vote(l, 4, 2);
	log_close(l);
	a = slurp(l, "vote", &len);
	log_open(l, false);
	save_vote(l, 5, 3);
	log_close(l);
	b = slurp(l, "vote", &len);
	for (size_t n = 0; n <= 56; n++) { /* `n` bytes of one of the slots have been written */
		for (size_t slot = 0; slot < 2; slot++) {
			put(l, "vote", 0, slot == 0 ? a : b, len);
			put(l, "vote", 4096, a + 4096, len - 4096);
			put(l, "vote", 4096 * slot, b + 4096 * slot, n);
			log_open(l, false);
			assert_int_equal(l->r.term, l->r.vote + 2); /* of one vote */
			assert_in_range(
				l->r.term, slot == 0 && n < 56 ? 4 : 5, n > 0 ? 5 : 4 + slot);
			log_close(l);
		}
	}
	free(a);
	free(b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(damage_is_refused_or_harmless),
		T(without_a_mark_only_the_last_batch_is_in_doubt),
		T(any_damage_is_refused_or_harmless),
		T(a_torn_batch_is_cut_off),
		T(a_killed_process_loses_nothing),
		T(a_torn_vote_opens_with_a_whole_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
