/*
 * wal_recover.c - what is on the disk, and whether it is whole.
 *
 * How a torn tail is told from damage is said at the head of wal.c. Here:
 * segments are read in order from the mark's first one, each record is checked
 * and folded into the list of entries; reading stops where no whole record of
 * this place follows. Then everything that could prove that more had been
 * durable is asked: the next segment's header, records further on, the mark.
 *
 * Files are read through a window, so memory does not depend on their size.
 */
#include "core/io/wal_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW_BYTES (4u << 20)

/* --- a window on a file --------------------------------------------------------------------- */

struct window {
	const struct wal_file *file;
	uint64_t bytes; /* of the file */
	uint64_t at;
	size_t len;
	uint8_t *buf; /* WINDOW_BYTES */
};

/* `n` bytes at `offset`; the caller knows that the file has them. */
static int window_get(struct window *win, uint64_t offset, size_t n, const uint8_t **ret_bytes,
	struct wal_error *e)
{
	if (offset < win->at || offset + n > win->at + win->len) {
		int rc = wal_file_read(win->file, win->buf,
			(size_t)MIN(win->bytes - offset, WINDOW_BYTES), offset, &win->len, e);

		if (rc < 0) {
			return rc;
		}
		win->at = offset;
		if (win->len < n) {
			return wal_damage(
				e, win->file->dir, win->file->name, offset, "the file ends here");
		}
	}
	*ret_bytes = win->buf + (offset - win->at);
	return 0;
}

enum found {
	FOUND_NOTHING, /* no record of this place: zeros, or what the file held before */
	FOUND_TORN,    /* the header is of this place, the checksum does not match */
	FOUND_RECORD,
};

/* What is at `offset` of segment `number`? ret_data: the payload, until the next call. */
static int window_record(struct window *win, uint64_t number, uint64_t offset,
	enum found *ret_found, struct wal_record *ret_record, const uint8_t **ret_data,
	struct wal_error *e)
{
	const uint8_t *p = NULL;
	int rc;

	*ret_found = FOUND_NOTHING;
	if (offset + WAL_RECORD_BYTES > win->bytes) {
		return 0;
	}
	rc = window_get(win, offset, WAL_RECORD_BYTES, &p, e);
	if (rc < 0) {
		return rc;
	}
	wal_record_decode(p, ret_record);
	if (ret_record->segment != number || ret_record->offset != offset) {
		return 0;
	}
	*ret_found = FOUND_TORN;
	if (ret_record->len > RAFT_ENTRY_BYTES_MAX ||
		offset + wal_record_size(ret_record->len) > win->bytes) {
		return 0;
	}
	rc = window_get(win, offset, WAL_RECORD_BYTES + ret_record->len, &p, e);
	if (rc < 0) {
		return rc;
	}
	if (wal_record_whole(ret_record, p)) {
		*ret_found = FOUND_RECORD;
		*ret_data = p + WAL_RECORD_BYTES;
	}
	return 0;
}

/* --- the entries ---------------------------------------------------------------------------- */

struct recovery {
	struct wal *w;
	struct wal_recovered *r;
	size_t cap; /* of r->entries */
	const uint64_t *mark;
	uint64_t *numbers; /* owned; of the files <number>.seg, ascending */
	size_t n_numbers;
	uint8_t *buf; /* owned; WINDOW_BYTES */

	/* The segment being read; in the end the last one. */
	struct wal_file file;
	struct wal_header header;
	uint64_t offset; /* where the next record is expected */
	uint64_t sum;
	uint64_t max_index;
	bool mark_seen; /* the mark's place is a place between two records */
};

static void fold_forget(struct wal_recovered *r, size_t from)
{
	while (r->n_entries > from) {
		raft_entry_unref(r->entries[--r->n_entries]);
	}
}

static uint64_t fold_last_index(const struct wal_recovered *r)
{
	return r->prev_index + r->n_entries;
}

static uint64_t fold_last_term(const struct wal_recovered *r)
{
	return r->n_entries > 0 ? r->entries[r->n_entries - 1]->term : r->prev_term;
}

static int fold_truncate(struct recovery *rec, const struct wal_record *record, struct wal_error *e)
{
	struct wal_recovered *r = rec->r;

	if (record->index > fold_last_index(r)) {
		return wal_damage(e, &rec->w->dir, rec->file.name, record->offset,
			"truncation to %" PRIu64 " of a log that ends at %" PRIu64, record->index,
			fold_last_index(r));
	}
	if (record->index >= r->prev_index) {
		fold_forget(r, (size_t)(record->index - r->prev_index));
		return 0;
	}
	fold_forget(r, 0);
	r->prev_index = record->index;
	r->prev_term = record->term;
	return 0;
}

static int fold_entry(struct recovery *rec, const struct wal_record *record, const uint8_t *data,
	struct wal_error *e)
{
	struct wal_recovered *r = rec->r;

	if (record->index != fold_last_index(r) + 1 || record->term < fold_last_term(r)) {
		return wal_damage(e, &rec->w->dir, rec->file.name, record->offset,
			"entry %" PRIu64 " of term %" PRIu64 " does not follow entry %" PRIu64
			" of term %" PRIu64,
			record->index, record->term, fold_last_index(r), fold_last_term(r));
	}
	if (r->n_entries == rec->cap) {
		rec->cap = rec->cap ? 2 * rec->cap : 1024;
		r->entries = xrealloc(r->entries, rec->cap * sizeof(*r->entries));
	}
	r->entries[r->n_entries++] = raft_entry_new(record->index, record->term,
		(enum raft_entry_kind)(record->kind - WAL_NOOP), data, record->len);
	rec->max_index = MAX(rec->max_index, record->index);
	return 0;
}

static int fold_record(struct recovery *rec, const struct wal_record *record, const uint8_t *data,
	struct wal_error *e)
{
	switch (record->kind) {
	case WAL_NOOP:
	case WAL_COMMAND:
	case WAL_CONFIG:
		return fold_entry(rec, record, data, e);
	case WAL_TRUNCATE:
		return fold_truncate(rec, record, e);
	default:
		return wal_damage(e, &rec->w->dir, rec->file.name, record->offset,
			"record of kind %u, which this release does not know", record->kind);
	}
}

/* --- one segment ---------------------------------------------------------------------------- */

static void note_mark(struct recovery *rec)
{
	if (rec->header.number == rec->mark[WAL_MARK_SEGMENT] &&
		rec->offset == rec->mark[WAL_MARK_OFFSET] && rec->sum == rec->mark[WAL_MARK_SUM]) {
		rec->mark_seen = true;
	}
}

/* Fold the records from the header on, up to where no whole record follows. */
static int read_records(struct recovery *rec, struct window *win, struct wal_error *e)
{
	const struct wal_dir *dir = &rec->w->dir;

	for (;;) {
		struct wal_record record;
		enum found found;
		const uint8_t *data;
		int rc;

		note_mark(rec);
		rc = window_record(win, rec->header.number, rec->offset, &found, &record, &data, e);
		if (rc < 0 || found != FOUND_RECORD) {
			return rc;
		}
		if (record.prev != rec->sum) {
			return wal_damage(e, dir, rec->file.name, rec->offset,
				"the record is whole but does not follow the one before");
		}
		rc = fold_record(rec, &record, data, e);
		if (rc < 0) {
			return rc;
		}
		rec->offset += wal_record_size(record.len);
		rec->sum = record.sum;
	}
}

/*
 * Look for whole records of segment `number` from `offset` on. ret_synced: the
 * largest length that any of them knows to have been durable; ret_end: where the
 * last of them ends, `offset`: there is none.
 */
static int scan(struct window *win, uint64_t number, uint64_t offset, uint64_t *ret_synced,
	uint64_t *ret_end, struct wal_error *e)
{
	*ret_synced = 0;
	*ret_end = offset;
	while (offset + WAL_RECORD_BYTES <= win->bytes) {
		struct wal_record record;
		enum found found;
		const uint8_t *data;
		int rc = window_record(win, number, offset, &found, &record, &data, e);

		if (rc < 0) {
			return rc;
		}
		if (found == FOUND_RECORD) {
			*ret_synced = MAX(*ret_synced, record.synced);
			offset += wal_record_size(record.len);
			*ret_end = offset;
		} else {
			offset += 8;
		}
	}
	return 0;
}

/* The header of a file; ret_used: whether it is that of segment `number`. */
static int read_header(const struct wal_file *f, uint64_t number, struct wal_header *ret_header,
	uint64_t *ret_sum, bool *ret_used, struct wal_error *e)
{
	uint8_t buf[WAL_HEADER_BYTES];
	size_t got;
	int rc = wal_file_read(f, buf, sizeof(buf), 0, &got, e);

	if (rc < 0) {
		return rc;
	}
	*ret_used = got == sizeof(buf) && wal_header_decode(buf, ret_header, ret_sum);
	if (*ret_used && ret_header->number != number) {
		return wal_damage(e, f->dir, f->name, 16,
			"this is segment %" PRIu64 " under another's name", ret_header->number);
	}
	return 0;
}

static int check_size(const struct wal_file *f, const struct wal_header *h, struct wal_error *e)
{
	uint64_t bytes;
	int rc = wal_file_size(f, &bytes, e);

	if (rc == 0 && bytes != h->bytes) {
		return wal_damage(e, f->dir, f->name, MIN(bytes, h->bytes),
			"the file has %" PRIu64 " bytes and should have %" PRIu64, bytes, h->bytes);
	}
	return rc;
}

/* Does the header `h` of the next segment follow on what was read? */
static int check_follows(const struct recovery *rec, const struct wal_header *h, const char *name,
	struct wal_error *e)
{
	const struct wal_dir *dir = &rec->w->dir;

	if (h->prev_end != rec->offset) {
		return wal_damage(e, dir, rec->file.name, rec->offset,
			"no whole record here, but the next segment says that this one was durable "
			"up "
			"to %" PRIu64,
			h->prev_end);
	}
	if (h->prev_sum != rec->sum) {
		return wal_damage(e, dir, name, 0, "the segment does not follow the one before");
	}
	if (!h->reset && (h->prev_index != fold_last_index(rec->r) ||
				 h->prev_term != fold_last_term(rec->r))) {
		return wal_damage(e, dir, name, 32,
			"begins after entry %" PRIu64 ", the segment before ends with %" PRIu64,
			h->prev_index, fold_last_index(rec->r));
	}
	return 0;
}

/*
 * Segment `number`, if it is in use: make it the current one and fold its
 * records. ret_used = false: it was never begun, or is not known to have been.
 */
static int read_segment(struct recovery *rec, uint64_t number, bool *ret_used, struct wal_error *e)
{
	bool first = number == rec->mark[WAL_MARK_FIRST];
	struct wal_file f;
	struct wal_header h;
	struct window win;
	char name[WAL_NAME_BYTES];
	uint64_t sum;
	int rc;

	wal_segment_name(number, name);
	rc = wal_file_open(&rec->w->dir, name, O_RDWR, &f, e);
	if (rc < 0) {
		return rc;
	}
	rc = read_header(&f, number, &h, &sum, ret_used, e);
	if (rc == 0 && *ret_used) {
		rc = check_size(&f, &h, e);
	}
	if (rc == 0 && *ret_used && !first) {
		rc = check_follows(rec, &h, name, e);
	}
	if (rc < 0 || !*ret_used) {
		wal_file_close(&f);
		return rc;
	}
	wal_file_close(&rec->file);
	if (first || h.reset) {
		rec->w->writer.first = number;
		rec->w->writer.n_live = 0;
		fold_forget(rec->r, 0);
		rec->r->prev_index = h.prev_index;
		rec->r->prev_term = h.prev_term;
	}
	rec->file = f;
	rec->header = h;
	rec->offset = WAL_HEADER_BYTES;
	rec->sum = sum;
	rec->max_index = 0;
	win = (struct window){.file = &rec->file, .bytes = h.bytes, .buf = rec->buf};
	rc = read_records(rec, &win, e);
	wal_writer_add_live(&rec->w->writer, rec->max_index);
	return rc;
}

/* --- the end -------------------------------------------------------------------------------- */

/*
 * A segment after the last one that is in use: prepared, or begun by a write that
 * never became durable; damage, if it must have been durable. ret_clean: nothing of
 * it was ever written.
 */
static int judge_unused(
	const struct recovery *rec, uint64_t number, bool *ret_clean, struct wal_error *e)
{
	struct wal_file f;
	struct wal_header h;
	struct window win = {.file = &f, .buf = rec->buf};
	uint64_t synced = 0, end = 0, sum;
	char name[WAL_NAME_BYTES];
	bool used = false;
	int rc;

	wal_segment_name(number, name);
	rc = wal_file_open(&rec->w->dir, name, O_RDWR, &f, e);
	if (rc < 0) {
		return rc;
	}
	rc = wal_file_size(&f, &win.bytes, e);
	if (rc == 0) {
		rc = read_header(&f, number, &h, &sum, &used, e);
	}
	if (rc == 0 && !used) {
		rc = scan(&win, number, WAL_HEADER_BYTES, &synced, &end, e);
	}
	if (rc == 0 && (used || synced > 0)) {
		wal_segment_name(rec->header.number + 1, name);
		rc = wal_damage(e, &rec->w->dir, name, 0,
			"the segment's header is damaged, but what follows it was durable");
	}
	wal_file_close(&f);
	*ret_clean = end == WAL_HEADER_BYTES && win.bytes == rec->w->segment_bytes;
	return rc;
}

/* Hand a prepared segment to the keeper, remove what is none. */
static int settle_unused(struct recovery *rec, uint64_t number, bool clean, struct wal_error *e)
{
	struct wal_keeper *k = &rec->w->keeper;
	struct wal_ready ready = {.number = number};
	char name[WAL_NAME_BYTES];
	int rc;

	wal_segment_name(number, name);
	if (!clean || number != k->next || k->n_ready == WAL_READY_MAX) {
		return wal_file_unlink(&rec->w->dir, name, e);
	}
	rc = wal_file_open(&rec->w->dir, name, O_RDWR, &ready.file, e);
	if (rc < 0) {
		return rc;
	}
	rc = wal_file_zero(&ready.file, 0, WAL_HEADER_BYTES, e); /* it may be torn */
	if (rc == 0) {
		rc = wal_file_sync(&ready.file, e);
	}
	k->ready[k->n_ready++] = ready;
	k->next++;
	return rc;
}

static int check_mark(const struct recovery *rec, struct wal_error *e)
{
	const struct wal_dir *dir = &rec->w->dir;
	uint64_t segment = rec->mark[WAL_MARK_SEGMENT];
	uint64_t offset = rec->mark[WAL_MARK_OFFSET];
	char name[WAL_NAME_BYTES];

	if (rec->mark_seen) {
		return 0;
	}
	if (segment > rec->header.number) {
		wal_segment_name(rec->header.number + 1, name);
		return wal_damage(e, dir, name, 0,
			"the segment is damaged or missing; the log was durable up to segment "
			"%" PRIu64 ", offset %" PRIu64,
			segment, offset);
	}
	if (segment == rec->header.number && offset > rec->offset) {
		return wal_damage(e, dir, rec->file.name, rec->offset,
			"no whole record here, but the log was durable up to %" PRIu64, offset);
	}
	wal_segment_name(segment, name);
	return wal_damage(
		e, dir, name, offset, "the log is not the one that the mark was made for");
}

/*
 * Reading has stopped in the last segment. Damage, if a whole record further on
 * knows more to have been durable; else what is there is a torn tail, which is
 * written over with zeros, so that nothing of it is found when the log has grown
 * up to it. What was read may never have been synced: sync it now.
 */
static int judge_tail(struct recovery *rec, struct wal_error *e)
{
	struct window win = {.file = &rec->file, .bytes = rec->header.bytes, .buf = rec->buf};
	struct wal_record record;
	enum found found;
	const uint8_t *data;
	uint64_t synced = 0;
	uint64_t end = 0;
	int rc = window_record(&win, rec->header.number, rec->offset, &found, &record, &data, e);

	if (rc == 0) {
		rc = scan(&win, rec->header.number, rec->offset, &synced, &end, e);
	}
	if (rc < 0) {
		return rc;
	}
	if (synced > rec->offset) {
		return wal_damage(e, &rec->w->dir, rec->file.name, rec->offset,
			"no whole record here, but later ones show that the log was durable up to "
			"%" PRIu64,
			synced);
	}
	if (found == FOUND_TORN || end > rec->offset) {
		rec->r->truncated_tail = true;
		end = MAX(end, MIN(rec->offset + WAL_RECORD_BYTES, rec->header.bytes));
		rc = wal_file_zero(&rec->file, rec->offset, end, e);
	}
	return rc < 0 ? rc : wal_file_sync(&rec->file, e);
}

/* --- the directory -------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Whole spares are kept for the keeper, others removed. */
static int adopt_spare(struct recovery *rec, uint64_t number, struct wal_error *e)
{
	struct wal_keeper *k = &rec->w->keeper;
	char name[WAL_NAME_BYTES];
	struct stat st;

	wal_spare_name(number, name);
	if (k->n_spares < WAL_SPARE_MAX && fstatat(rec->w->dir.fd, name, &st, 0) == 0 &&
		(uint64_t)st.st_size == rec->w->segment_bytes) {
		k->spares[k->n_spares++] = number;
		return 0;
	}
	return wal_file_unlink(&rec->w->dir, name, e);
}

/* Is `name` what `make` writes for some number? */
static bool parse_name(const char *name, const char *prefix,
	void (*make)(uint64_t number, char name[WAL_NAME_BYTES]), uint64_t *ret_number)
{
	char expected[WAL_NAME_BYTES];
	size_t skip = strlen(prefix);

	if (strncmp(name, prefix, skip) != 0 || name[skip] < '0' || name[skip] > '9') {
		return false;
	}
	*ret_number = strtoull(name + skip, NULL, 10);
	make(*ret_number, expected);
	return strcmp(expected + strlen("log/"), name) == 0;
}

static int list_name(struct recovery *rec, const char *name, struct wal_error *e)
{
	uint64_t number;

	if (parse_name(name, "spare-", wal_spare_name, &number)) {
		return adopt_spare(rec, number, e);
	}
	if (parse_name(name, "", wal_segment_name, &number)) {
		rec->numbers = xrealloc(rec->numbers, (rec->n_numbers + 1) * sizeof(uint64_t));
		rec->numbers[rec->n_numbers++] = number;
	}
	return 0; /* other files are not ours */
}

static int list_directory(struct recovery *rec, struct wal_error *e)
{
	int fd = openat(rec->w->dir.fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	int rc = 0;

	if (d == NULL) {
		rc = wal_error_sys(e, &rec->w->dir, "log", "open", errno);
		if (fd >= 0) {
			(void)close(fd); /* only read */
		}
		return rc;
	}
	for (errno = 0; rc == 0 && (de = readdir(d)) != NULL; errno = 0) {
		rc = list_name(rec, de->d_name, e);
	}
	if (rc == 0 && errno != 0) {
		rc = wal_error_sys(e, &rec->w->dir, "log", "read", errno);
	}
	(void)closedir(d); /* only read */
	if (rec->n_numbers > 0) {
		qsort(rec->numbers, rec->n_numbers, sizeof(uint64_t), by_number);
	}
	return rc;
}

/* From the mark's first segment on, none may be missing. ret_at: which file that is. */
static int check_numbers(const struct recovery *rec, size_t *ret_at, struct wal_error *e)
{
	uint64_t expected = rec->mark[WAL_MARK_FIRST];
	char name[WAL_NAME_BYTES];
	size_t i = 0;

	while (i < rec->n_numbers && rec->numbers[i] < expected) {
		i++;
	}
	*ret_at = i;
	for (; i < rec->n_numbers && rec->numbers[i] == expected; i++) {
		expected++;
	}
	if (i < rec->n_numbers || expected <= rec->mark[WAL_MARK_SEGMENT]) {
		wal_segment_name(expected, name);
		return wal_damage(e, &rec->w->dir, name, 0, "the segment is missing");
	}
	return 0;
}

/* Judge all before anything is changed. `at`: the first file after the last segment in use. */
static int finish_unused(struct recovery *rec, size_t at, struct wal_error *e)
{
	bool *clean = xcalloc(rec->n_numbers, sizeof(*clean));
	int rc = 0;

	for (size_t i = at; rc == 0 && i < rec->n_numbers; i++) {
		rc = judge_unused(rec, rec->numbers[i], &clean[i], e);
	}
	if (rc == 0) {
		rc = judge_tail(rec, e);
	}
	rec->w->keeper.next = rec->header.number + 1;
	for (size_t i = at; rc == 0 && i < rec->n_numbers; i++) {
		rc = settle_unused(rec, rec->numbers[i], clean[i], e);
	}
	free(clean);
	return rc;
}

static int read_all(struct recovery *rec, struct wal_error *e)
{
	struct wal *w = rec->w;
	char name[WAL_NAME_BYTES];
	size_t at;
	bool used = true;
	int rc = check_numbers(rec, &at, e);

	while (rc == 0 && at < rec->n_numbers) {
		rc = read_segment(rec, rec->numbers[at], &used, e);
		if (!used) {
			break;
		}
		at++;
	}
	if (rc == 0 && w->writer.n_live == 0) {
		wal_segment_name(rec->mark[WAL_MARK_FIRST], name);
		rc = wal_damage(e, &w->dir, name, 0, "the header of the first segment is damaged");
	}
	if (rc == 0) {
		rc = check_mark(rec, e);
	}
	if (rc == 0) {
		rc = finish_unused(rec, at, e);
	}
	return rc == 0 ? wal_dir_sync_log(&w->dir, e) : rc;
}

/* --- the whole ------------------------------------------------------------------------------ */

static int read_vote(struct recovery *rec, struct wal_error *e)
{
	struct wal *w = rec->w;
	uint64_t term = w->writer.vote.v[WAL_VOTE_TERM];

	if (term < fold_last_term(rec->r)) {
		return wal_damage(e, &w->dir, WAL_VOTE_FILE, 0,
			"term %" PRIu64 " is before term %" PRIu64 " of the last entry", term,
			fold_last_term(rec->r));
	}
	rec->r->term = term;
	rec->r->vote = w->writer.vote.v[WAL_VOTE_VOTE];
	return 0;
}

static int open_twin(
	struct wal *w, enum wal_twin_kind kind, struct wal_twin *t, struct wal_error *e)
{
	bool repaired;
	int rc;

	t->file.fd = -1;
	rc = wal_twin_open(&w->dir, kind, t, &repaired, e);
	if (rc == -ENOENT) {
		return wal_damage(e, &w->dir, kind == WAL_TWIN_VOTE ? WAL_VOTE_FILE : WAL_MARK_FILE,
			0, "the file is missing, but there is a log");
	}
	if (rc == 0 && repaired) {
		TRACE(&w->trace, TRACE_WARN, "wal.slot_repaired", "file=%s/%s", w->dir.path,
			t->file.name);
	}
	return rc;
}

/* Hand over to the threads: the log goes on here. */
static void place_threads(struct recovery *rec)
{
	struct wal_writer *wr = &rec->w->writer;
	struct wal_keeper *k = &rec->w->keeper;
	struct stat st;

	wr->file = rec->file;
	rec->file.fd = -1;
	wr->number = rec->header.number;
	wr->bytes = rec->header.bytes;
	wr->synced = rec->offset;
	wr->buf_at = rec->offset;
	wr->sum = rec->sum;
	wr->last_index = fold_last_index(rec->r);
	wr->last_term = fold_last_term(rec->r);
	k->synced = (struct wal_place){rec->header.number, rec->offset, rec->sum};
	k->synced_ns = uv_hrtime();
	k->first = wr->first;
	k->oldest = MIN(rec->numbers[0], wr->first);
	if (fstatat(rec->w->dir.fd, WAL_RESERVE_FILE, &st, 0) == 0) {
		k->reserve_bytes = (uint64_t)st.st_size; /* without: 0, and it is made anew */
	}
}

int wal_recover(struct wal *w, struct wal_recovered *r, struct wal_error *e)
{
	struct recovery rec = {.w = w, .r = r, .file = {.fd = -1}};
	int rc;

	w->writer.file.fd = -1;
	w->keeper.mark.file.fd = -1;
	rc = open_twin(w, WAL_TWIN_VOTE, &w->writer.vote, e);
	if (rc == 0) {
		rc = open_twin(w, WAL_TWIN_MARK, &w->keeper.mark, e);
	}
	if (rc == 0) {
		rec.mark = w->keeper.mark.v;
		rec.buf = xmalloc(WINDOW_BYTES);
		rc = list_directory(&rec, e);
	}
	if (rc == 0) {
		rc = read_all(&rec, e);
	}
	if (rc == 0) {
		rc = read_vote(&rec, e);
	}
	if (rc == 0) {
		place_threads(&rec);
	}
	wal_file_close(&rec.file);
	free(rec.buf);
	free(rec.numbers);
	return rc;
}
