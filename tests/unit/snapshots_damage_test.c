/*
 * snapshots_damage_test.c - what damage to a stopped node's snapshots, and failing disks do.
 */
#include "snapshots_fixture.h"

/* --- damage --------------------------------------------------------------------------------- */

static void any_flipped_bit_is_found(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 100);
	close_node(&f->ours);
	file = read_file(&f->ours, "50-7", &len);
	for (size_t at = 0; at < len; at++) {
		uint8_t bit = (uint8_t)(1u << at % 8);

		file[at] ^= bit;
		write_file(&f->ours, "50-7", file, len);
		assert_damaged(&f->ours, "/snap/50-7: offset ");
		file[at] ^= bit;
	}
	write_file(&f->ours, "50-7", file, len);
	open_node(&f->ours);
	assert_loads(&f->ours, 100, 50);
	free(file);
}

static void the_place_of_the_damage_is_named(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;
	char place[32];

	take_snapshot(&f->ours, 50, 600000); /* blocks of 262144, 262144 and 75712 bytes */
	close_node(&f->ours);
	file = read_file(&f->ours, "50-7", &len);
	file[len - 24 - 100] ^= 1; /* in the last block */
	write_file(&f->ours, "50-7", file, len);
	(void)snprintf(place, sizeof place, "offset %zu:", len - 24 - 75712 - 16);
	assert_damaged(&f->ours, place);
	free(file);
}

static void a_file_cut_anywhere_is_found(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 100);
	close_node(&f->ours);
	file = read_file(&f->ours, "50-7", &len);
	for (size_t cut = 0; cut < len; cut++) {
		write_file(&f->ours, "50-7", file, cut);
		assert_damaged(&f->ours, "/snap/50-7: offset ");
	}
	file = xrealloc(file, len + 1);
	file[len] = 0;
	write_file(&f->ours, "50-7", file, len + 1);
	assert_damaged(&f->ours, "/snap/50-7: offset ");
	free(file);
}

static void a_file_under_the_name_of_another_is_found(void **state)
{
	struct fixture *f = *state;
	char from[256];

	take_snapshot(&f->ours, 50, 100);
	close_node(&f->ours);
	(void)snprintf(from, sizeof from, "%s", path_of(&f->ours, "50-7"));
	assert_int_equal(rename(from, path_of(&f->ours, "51-7")), 0);
	assert_damaged(&f->ours, "/snap/51-7");
}

/* The log may begin behind the newest. */
static void an_older_one_is_no_substitute_for_a_damaged_one(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 100);
	close_node(&f->ours);
	file = read_file(&f->ours, "50-7", &len);
	write_file(&f->ours, "60-7", file, len / 2);
	assert_damaged(&f->ours, "/snap/60-7");
	assert_true(exists(&f->ours, "50-7")); /* nothing is removed from a damaged directory */
	assert_true(exists(&f->ours, "60-7"));
	free(file);
}

static void damage_after_the_start_is_found_by_loading(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 1000);
	file = read_file(&f->ours, "50-7", &len);
	file[len - 100] ^= 1;
	write_file(&f->ours, "50-7", file, len);
	assert_int_equal(load(&f->ours), -EUCLEAN);
	assert_int_equal(f->ours.loaded_len, 0); /* before the first piece */
	assert_non_null(strstr(f->ours.err, "/snap/50-7: offset "));
	free(file);
}

static int refuse_piece(void *ctx, const void *data, size_t len)
{
	return -EPROTO;
}

static void a_refused_piece_ends_the_loading(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 1000);
	assert_int_equal(
		snapshots_load(f->ours.s, refuse_piece, NULL, f->ours.err, sizeof f->ours.err),
		-EPROTO);
	assert_non_null(strstr(f->ours.err, "/snap/50-7"));
}

static void leftovers_are_removed_and_strangers_left_alone(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 100);
	close_node(&f->ours);
	file = read_file(&f->ours, "50-7", &len);
	write_file(&f->ours, "tmp-own", file, len / 2); /* torn */
	write_file(&f->ours, "tmp-leader", file, len);  /* whole, and yet not published */
	write_file(&f->ours, "49-7", "older", 5);
	write_file(&f->ours, "051-7", "not a name of ours", 18);
	write_file(&f->ours, "notes", "somebody's", 10);
	open_node(&f->ours);
	assert_int_equal(f->ours.meta.index, 50);
	assert_false(exists(&f->ours, "tmp-own"));
	assert_false(exists(&f->ours, "tmp-leader"));
	assert_false(exists(&f->ours, "49-7"));
	assert_true(exists(&f->ours, "051-7"));
	assert_true(exists(&f->ours, "notes"));
	free(file);
}

/* --- failing disks -------------------------------------------------------------------------- */

static void a_failing_sync_of_the_file_is_the_end(void **state)
{
	struct fixture *f = *state;

	fail_call(&failing_fsync, 1, EIO);
	begin(&f->ours, 50);
	append(&f->ours, 100, 1);
	snapshots_own_finish(f->ours.s);
	assert_failed(&f->ours, -EIO, "tmp-own: fsync");
	assert_int_equal(f->ours.n_done, 0);
	assert_false(exists(&f->ours, "50-7"));
}

static void a_failing_sync_of_the_directory_is_the_end(void **state)
{
	struct fixture *f = *state;

	fail_call(&failing_fsync, 2, EIO);
	begin(&f->ours, 50);
	snapshots_own_finish(f->ours.s);
	assert_failed(&f->ours, -EIO, "fsync");
	assert_int_equal(f->ours.n_done, 0);
}

static void a_full_disk_is_the_end(void **state)
{
	struct fixture *f = *state;

	fail_call(&failing_write, 4, ENOSPC);
	begin(&f->ours, 50);
	append(&f->ours, 100, 1);
	assert_failed(&f->ours, -ENOSPC, "tmp-own: write");
}

static void an_error_found_while_flushing_is_the_end(void **state)
{
	struct fixture *f = *state;

	fail_call(&failing_flush, 1, EIO);
	begin(&f->ours, 50);
	append(&f->ours, 2000000, 1);
	assert_failed(&f->ours, -EIO, "tmp-own: sync_file_range");
}

static void a_file_system_that_cannot_flush_a_part_will_do(void **state)
{
	struct fixture *f = *state;

	fail_call(&failing_flush, 1, EINVAL);
	take_snapshot(&f->ours, 50, 2000000);
	assert_int_equal(f->ours.n_failed, 0);
	assert_loads(&f->ours, 2000000, 50);
}

static void a_failing_disk_of_the_receiver_is_the_end(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 1000);
	file = read_file(&f->ours, "50-7", &len);
	fail_call(&failing_fsync, 1, EIO);
	send_chunk(&f->theirs, 1, 50, 0, file, len, true);
	assert_failed(&f->theirs, -EIO, "tmp-leader: fsync");
	assert_int_equal(f->theirs.n_received, 0);
	free(file);
}

static void after_a_failure_nothing_happens_any_more(void **state)
{
	struct fixture *f = *state;
	unsigned events;

	fail_call(&failing_write, 1, ENOSPC);
	begin(&f->ours, 50);
	append(&f->ours, 100, 1);
	assert_failed(&f->ours, -ENOSPC, "write");
	events = f->ours.n_events;
	append(&f->ours, 100, 1);
	snapshots_own_finish(f->ours.s);
	snapshots_own_abort(f->ours.s);
	begin(&f->ours, 51);
	snapshots_receive(f->ours.s, 1, 60, 7, 0, "x", 1, false);
	snapshots_read(f->ours.s, 2, 50, 0, 1);
	settle(&f->ours);
	assert_int_equal(f->ours.n_events, events);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SNAP_TEST(any_flipped_bit_is_found),
		SNAP_TEST(the_place_of_the_damage_is_named),
		SNAP_TEST(a_file_cut_anywhere_is_found),
		SNAP_TEST(a_file_under_the_name_of_another_is_found),
		SNAP_TEST(an_older_one_is_no_substitute_for_a_damaged_one),
		SNAP_TEST(damage_after_the_start_is_found_by_loading),
		SNAP_TEST(a_refused_piece_ends_the_loading),
		SNAP_TEST(leftovers_are_removed_and_strangers_left_alone),
		SNAP_TEST(a_failing_sync_of_the_file_is_the_end),
		SNAP_TEST(a_failing_sync_of_the_directory_is_the_end),
		SNAP_TEST(a_full_disk_is_the_end),
		SNAP_TEST(an_error_found_while_flushing_is_the_end),
		SNAP_TEST(a_file_system_that_cannot_flush_a_part_will_do),
		SNAP_TEST(a_failing_disk_of_the_receiver_is_the_end),
		SNAP_TEST(after_a_failure_nothing_happens_any_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
