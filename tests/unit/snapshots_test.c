/*
 * snapshots_test.c - own snapshots, and snapshots from node to node.
 */
#include "snapshots_fixture.h"

/* --- own snapshots -------------------------------------------------------------------------- */

static void a_new_directory_has_no_snapshot(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->ours.meta.index, 0);
	assert_null(f->ours.meta.config);
	assert_int_equal(load(&f->ours), -ENOENT);
	assert_int_equal(count_files(&f->ours), 0);
}

static void a_snapshot_is_there_after_a_restart(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 120, 3000001);
	reopen(&f->ours);
	assert_int_equal(f->ours.meta.index, 120);
	assert_int_equal(f->ours.meta.term, 7);
	assert_int_equal(f->ours.meta.config_len, sizeof CONFIG);
	assert_string_equal((char *)f->ours.meta.config, CONFIG);
	assert_int_equal(f->ours.meta.payload_bytes, 3000001);
	assert_loads(&f->ours, 3000001, 120);
}

static void a_snapshot_can_be_loaded_right_after_it_is_done(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 120, 1000);
	assert_loads(&f->ours, 1000, 120);
}

static void a_snapshot_may_be_empty(void **state)
{
	struct fixture *f = *state;

	snapshots_own_begin(f->ours.s, 1, 1, NULL, 0);
	snapshots_own_finish(f->ours.s);
	WAIT_FOR(&f->ours, f->ours.n_done == 1);
	reopen(&f->ours);
	assert_int_equal(f->ours.meta.index, 1);
	assert_int_equal(f->ours.meta.config_len, 0);
	assert_int_equal(f->ours.meta.payload_bytes, 0);
	assert_loads(&f->ours, 0, 0);
}

static void chunks_of_any_size_make_one_payload(void **state)
{
	struct fixture *f = *state;
	const size_t sizes[] = {1, 0, 3, 4096, 262144, 262145, 7, 1000000};
	uint8_t *p = payload(2000000, 5);
	size_t len = 0;

	begin(&f->ours, 5);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		snapshots_own_append(f->ours.s, p + len, sizes[i]);
		len += sizes[i];
		if (i % 2 == 0) { /* some come while a job runs, some after it */
			WAIT_FOR(&f->ours, f->ours.n_written > 0 && f->ours.buffered == 0);
		}
	}
	snapshots_own_finish(f->ours.s);
	WAIT_FOR(&f->ours, f->ours.n_done == 1);
	reopen(&f->ours);
	assert_loads(&f->ours, len, 5);
	free(p);
}

/* The caller paces itself by it. */
static void what_still_waits_to_be_written_is_told(void **state)
{
	struct fixture *f = *state;

	begin(&f->ours, 5);
	append(&f->ours, 100, 1);
	append(&f->ours, 50, 2); /* while the first is being written */
	WAIT_FOR(&f->ours, f->ours.n_written == 1);
	assert_int_equal(f->ours.buffered, 50);
	WAIT_FOR(&f->ours, f->ours.n_written == 2);
	assert_int_equal(f->ours.buffered, 0);
}

static void a_newer_snapshot_replaces_the_older(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 9, 100);
	take_snapshot(&f->ours, 10, 200);
	settle(&f->ours);
	assert_int_equal(count_files(&f->ours), 1);
	assert_true(exists(&f->ours, "10-7"));
	reopen(&f->ours);
	assert_loads(&f->ours, 200, 10);
}

static void a_second_begin_drops_an_unfinished_one(void **state)
{
	struct fixture *f = *state;

	begin(&f->ours, 5);
	append(&f->ours, 500000, 1); /* being written when the next begins */
	begin(&f->ours, 6);          /* never started */
	begin(&f->ours, 7);
	append(&f->ours, 1000, 7);
	snapshots_own_finish(f->ours.s);
	WAIT_FOR(&f->ours, f->ours.n_done == 1);
	assert_int_equal(f->ours.done_index, 7);
	settle(&f->ours);
	assert_int_equal(f->ours.n_done, 1);
	assert_int_equal(count_files(&f->ours), 1);
	assert_loads(&f->ours, 1000, 7);
}

static void a_snapshot_that_is_being_published_is_not_dropped(void **state)
{
	struct fixture *f = *state;

	begin(&f->ours, 5);
	snapshots_own_finish(f->ours.s); /* its only job is running now */
	begin(&f->ours, 7);
	append(&f->ours, 1000, 7);
	WAIT_FOR(&f->ours, f->ours.n_done == 1);
	assert_int_equal(f->ours.done_index, 5);
	snapshots_own_finish(f->ours.s);
	WAIT_FOR(&f->ours, f->ours.n_done == 2);
	assert_int_equal(f->ours.done_index, 7);
	assert_loads(&f->ours, 1000, 7);
}

static void an_aborted_snapshot_leaves_nothing(void **state)
{
	struct fixture *f = *state;

	snapshots_own_abort(f->ours.s); /* of nothing */
	begin(&f->ours, 5);
	append(&f->ours, 1000, 1);
	WAIT_FOR(&f->ours, f->ours.n_written == 1);
	assert_true(exists(&f->ours, "tmp-own"));
	snapshots_own_abort(f->ours.s);
	settle(&f->ours);
	assert_int_equal(count_files(&f->ours), 0);
	assert_int_equal(f->ours.n_done, 0);
}

static void closing_gives_up_what_is_being_written(void **state)
{
	struct fixture *f = *state;
	unsigned events;

	begin(&f->ours, 5);
	append(&f->ours, 1000000, 1);
	snapshots_receive(f->ours.s, 2, 9, 7, 0, "x", 1, false);
	snapshots_read(f->ours.s, 2, 5, 0, 100);
	events = f->ours.n_events;
	close_node(&f->ours);
	assert_int_equal(f->ours.n_events, events);
	assert_int_equal(count_files(&f->ours), 0);
}

/* --- from node to node ---------------------------------------------------------------------- */

static void a_snapshot_is_transferred_chunk_by_chunk(void **state)
{
	struct fixture *f = *state;
	const size_t sizes[] = {1000000, 65536, 99991};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		take_snapshot(&f->ours, 50 + i, 600000);
		transfer(&f->ours, &f->theirs, 50 + i, 0, sizes[i]);
		assert_true(f->theirs.installed);
		assert_loads(&f->theirs, 600000, (uint32_t)(50 + i));
		settle(&f->theirs);
		assert_int_equal(count_files(&f->theirs), 1);
	}
	reopen(&f->theirs);
	assert_int_equal(f->theirs.meta.index, 52);
	assert_string_equal((char *)f->theirs.meta.config, CONFIG);
	assert_loads(&f->theirs, 600000, 52);
}

static void a_chunk_that_does_not_follow_is_answered_with_what_would(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 1000);
	read_chunk(&f->ours, 50, 0, 300);
	send_chunk(&f->theirs, 1, 50, 0, f->ours.chunk, 300, false);
	assert_int_equal(f->theirs.next_offset, 300);
	send_chunk(&f->theirs, 1, 50, 600, f->ours.chunk, 300, false); /* one was lost */
	assert_int_equal(f->theirs.next_offset, 300);
	send_chunk(&f->theirs, 1, 50, 299, f->ours.chunk, 300, true);
	assert_int_equal(f->theirs.next_offset, 300);
	assert_false(f->theirs.installed);

	transfer(&f->ours, &f->theirs, 50, 300, 300); /* resumes */
	assert_true(f->theirs.installed);
	assert_loads(&f->theirs, 1000, 50);
}

static void offset_0_starts_over(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 1000);
	send_chunk(&f->theirs, 1, 50, 0, "something longer, and else", 26, false);
	assert_int_equal(f->theirs.next_offset, 26);
	transfer(&f->ours, &f->theirs, 50, 0, 10);
	assert_true(f->theirs.installed);
	assert_loads(&f->theirs, 1000, 50);
}

/* The files of two leaders may differ in their bytes. */
static void another_leader_or_snapshot_starts_from_0(void **state)
{
	struct fixture *f = *state;

	send_chunk(&f->theirs, 1, 50, 0, "0123456789", 10, false);
	send_chunk(&f->theirs, 3, 50, 10, "0123456789", 10, false);
	assert_int_equal(f->theirs.received_from, 3);
	assert_int_equal(f->theirs.next_offset, 0);
	send_chunk(&f->theirs, 1, 51, 10, "0123456789", 10, false);
	assert_int_equal(f->theirs.received_index, 51);
	assert_int_equal(f->theirs.next_offset, 0);
	send_chunk(&f->theirs, 1, 50, 10, "0123456789", 10, false); /* the first goes on */
	assert_int_equal(f->theirs.next_offset, 20);
}

static void a_transfer_does_not_begin_in_the_middle(void **state)
{
	struct fixture *f = *state;

	send_chunk(&f->theirs, 1, 50, 10, "0123456789", 10, true);
	assert_int_equal(f->theirs.next_offset, 0);
	assert_false(f->theirs.installed);
	assert_int_equal(count_files(&f->theirs), 0);
}

static void a_file_that_arrives_damaged_is_asked_for_again(void **state)
{
	struct fixture *f = *state;
	size_t len;
	uint8_t *file;

	take_snapshot(&f->ours, 50, 1000);
	file = read_file(&f->ours, "50-7", &len);
	file[len / 2] ^= 1;
	send_chunk(&f->theirs, 1, 50, 0, file, len, true);
	assert_int_equal(f->theirs.next_offset, 0);
	assert_false(f->theirs.installed);
	assert_int_equal(f->theirs.n_failed, 0);
	assert_int_equal(count_files(&f->theirs), 0);

	file[len / 2] ^= 1;
	send_chunk(&f->theirs, 1, 51, 0, file, len, true); /* is not what the leader says it is */
	assert_false(f->theirs.installed);
	send_chunk(&f->theirs, 1, 50, 0, file, len, true);
	assert_true(f->theirs.installed);
	assert_loads(&f->theirs, 1000, 50);
	free(file);
}

static void a_received_snapshot_older_than_the_newest_is_ignored(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 1000);
	snapshots_receive(f->ours.s, 1, 49, 7, 0, "x", 1, false);
	settle(&f->ours);
	assert_int_equal(f->ours.n_received, 0);
	assert_int_equal(count_files(&f->ours), 1);
}

static void an_own_snapshot_overtaken_by_a_received_one_is_removed(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 60, 1000);
	begin(&f->theirs, 50);
	append(&f->theirs, 1000, 50);
	transfer(&f->ours, &f->theirs, 60, 0, 500);
	snapshots_own_finish(f->theirs.s);
	WAIT_FOR(&f->theirs, f->theirs.n_done == 1);
	settle(&f->theirs);
	assert_int_equal(f->theirs.done_index, 50);
	assert_int_equal(count_files(&f->theirs), 1);
	assert_true(exists(&f->theirs, "60-7"));
	assert_loads(&f->theirs, 1000, 60);
}

static void only_so_many_chunks_may_wait(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 100; i++) {
		snapshots_receive(f->theirs.s, 1, 50, 7, i, "x", 1, false);
	}
	settle(&f->theirs);
	assert_int_equal(f->theirs.n_received, 16);
	assert_int_equal(f->theirs.next_offset, 16);
	send_chunk(&f->theirs, 1, 50, 16, "x", 1, false); /* it goes on */
	assert_int_equal(f->theirs.next_offset, 17);
}

static void only_so_many_reads_may_wait(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 1000);
	for (unsigned i = 0; i < 300; i++) {
		snapshots_read(f->ours.s, 2, 50, 0, 10);
	}
	settle(&f->ours);
	assert_int_equal(f->ours.n_chunks, 256);
	read_chunk(&f->ours, 50, 0, 10);
	assert_int_equal(f->ours.chunk_len, 10);
}

static void reading_what_was_replaced_is_stale(void **state)
{
	struct fixture *f = *state;

	read_chunk(&f->ours, 50, 0, 100); /* there is none yet */
	assert_int_equal(f->ours.chunk_error, -ESTALE);
	take_snapshot(&f->ours, 50, 1000);
	read_chunk(&f->ours, 50, 0, 100);
	assert_int_equal(f->ours.chunk_error, 0);
	take_snapshot(&f->ours, 51, 1000);
	read_chunk(&f->ours, 50, 100, 100);
	assert_int_equal(f->ours.chunk_error, -ESTALE);
	assert_int_equal(f->ours.chunk_len, 0);
}

/* Whichever comes first, the answer is right: bytes of the old one, or stale. */
static void reading_while_it_is_replaced_is_right_or_stale(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 100000);
	for (uint64_t index = 50; index < 70; index++) {
		unsigned chunks = f->ours.n_chunks;
		char name[16];
		uint8_t *file;
		size_t len;

		(void)snprintf(name, sizeof name, "%u-7", (unsigned)index);
		file = read_file(&f->ours, name, &len);
		snapshots_read(f->ours.s, 2, index, 0, 200000);
		take_snapshot(&f->ours, index + 1, 100000);
		WAIT_FOR(&f->ours, f->ours.n_chunks > chunks);
		if (f->ours.chunk_error != -ESTALE) {
			assert_int_equal(f->ours.chunk_error, 0);
			assert_int_equal(f->ours.chunk_len, len);
			assert_memory_equal(f->ours.chunk, file, len);
		}
		free(file);
	}
}

static void a_read_past_the_end_is_stale(void **state)
{
	struct fixture *f = *state;

	take_snapshot(&f->ours, 50, 1000);
	read_chunk(&f->ours, 50, 0, 10);
	read_chunk(&f->ours, 50, f->ours.total, 10);
	assert_int_equal(f->ours.chunk_error, -ESTALE);
	read_chunk(&f->ours, 50, UINT64_MAX, 10);
	assert_int_equal(f->ours.chunk_error, -ESTALE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SNAP_TEST(a_new_directory_has_no_snapshot),
		SNAP_TEST(a_snapshot_is_there_after_a_restart),
		SNAP_TEST(a_snapshot_can_be_loaded_right_after_it_is_done),
		SNAP_TEST(a_snapshot_may_be_empty),
		SNAP_TEST(chunks_of_any_size_make_one_payload),
		SNAP_TEST(what_still_waits_to_be_written_is_told),
		SNAP_TEST(a_newer_snapshot_replaces_the_older),
		SNAP_TEST(a_second_begin_drops_an_unfinished_one),
		SNAP_TEST(a_snapshot_that_is_being_published_is_not_dropped),
		SNAP_TEST(an_aborted_snapshot_leaves_nothing),
		SNAP_TEST(closing_gives_up_what_is_being_written),
		SNAP_TEST(a_snapshot_is_transferred_chunk_by_chunk),
		SNAP_TEST(a_chunk_that_does_not_follow_is_answered_with_what_would),
		SNAP_TEST(offset_0_starts_over),
		SNAP_TEST(another_leader_or_snapshot_starts_from_0),
		SNAP_TEST(a_transfer_does_not_begin_in_the_middle),
		SNAP_TEST(a_file_that_arrives_damaged_is_asked_for_again),
		SNAP_TEST(a_received_snapshot_older_than_the_newest_is_ignored),
		SNAP_TEST(an_own_snapshot_overtaken_by_a_received_one_is_removed),
		SNAP_TEST(only_so_many_chunks_may_wait),
		SNAP_TEST(only_so_many_reads_may_wait),
		SNAP_TEST(reading_what_was_replaced_is_stale),
		SNAP_TEST(reading_while_it_is_replaced_is_right_or_stale),
		SNAP_TEST(a_read_past_the_end_is_stale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
