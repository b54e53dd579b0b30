/*
 * wal_format.c - segment headers, records, vote and mark: bytes and checksums.
 *
 * All numbers are little-endian. Each checksum is the first field and covers
 * all that follows it.
 *
 *   header, at 0        record, multiples of 8     slot of vote and mark, at 0 and 4096
 *    0 sum               0 sum                      0 sum
 *    8 magic             8 prev: the sum before     8 magic
 *   16 number           16 index                   16 gen
 *   24 bytes            24 term                    24 values (4)
 *   32 prev_index       32 segment
 *   40 prev_term        40 offset (32 bits)
 *   48 prev_end         44 synced (32 bits)
 *   56 prev_sum         48 len (32 bits)
 *   64 flags            52 kind (8 bits), 0, 0, 0
 *                       56 payload, padded to 8
 */
#include "core/io/wal_internal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <xxhash.h>

#define HEADER_MAGIC 0x31306c6177736663u /* "cfswal01": the digits are the format's version */
#define VOTE_MAGIC 0x313065746f767363u   /* "csvote01" */
#define MARK_MAGIC 0x31306b72616d7363u   /* "csmark01" */
#define HEADER_SUMMED 72u
#define HEADER_RESET 1u
#define SLOT_BYTES (24u + 8u * WAL_TWIN_VALUES)
#define SLOT_STRIDE 4096u /* a block each: one bad block leaves the other slot */

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

void wal_segment_name(uint64_t number, char ret_name[WAL_NAME_BYTES])
{
	(void)snprintf(ret_name, WAL_NAME_BYTES, "log/%010" PRIu64 ".seg", number);
}

void wal_spare_name(uint64_t number, char ret_name[WAL_NAME_BYTES])
{
	(void)snprintf(ret_name, WAL_NAME_BYTES, "log/spare-%" PRIu64 ".seg", number);
}

/* --- segment headers ------------------------------------------------------------------------ */

uint64_t wal_header_encode(const struct wal_header *h, uint8_t *buf)
{
	uint64_t sum;

	memset(buf, 0, WAL_HEADER_BYTES);
	put64(buf + 8, HEADER_MAGIC);
	put64(buf + 16, h->number);
	put64(buf + 24, h->bytes);
	put64(buf + 32, h->prev_index);
	put64(buf + 40, h->prev_term);
	put64(buf + 48, h->prev_end);
	put64(buf + 56, h->prev_sum);
	put64(buf + 64, h->reset ? HEADER_RESET : 0);
	sum = XXH3_64bits_withSeed(buf + 8, HEADER_SUMMED - 8, h->prev_sum);
	put64(buf, sum);
	return sum;
}

bool wal_header_decode(const uint8_t *buf, struct wal_header *ret_header, uint64_t *ret_sum)
{
	struct wal_header h = {
		.number = get64(buf + 16),
		.bytes = get64(buf + 24),
		.prev_index = get64(buf + 32),
		.prev_term = get64(buf + 40),
		.prev_end = get64(buf + 48),
		.prev_sum = get64(buf + 56),
		.reset = get64(buf + 64) == HEADER_RESET,
	};
	uint64_t sum = XXH3_64bits_withSeed(buf + 8, HEADER_SUMMED - 8, h.prev_sum);

	if (get64(buf + 8) != HEADER_MAGIC || get64(buf) != sum) {
		return false;
	}
	*ret_header = h;
	*ret_sum = sum;
	return true;
}

/* --- records -------------------------------------------------------------------------------- */

size_t wal_record_size(uint32_t len)
{
	return WAL_RECORD_BYTES + (((size_t)len + 7) & ~(size_t)7);
}

void wal_record_encode(struct wal_record *r, const void *data, uint8_t *buf)
{
	put64(buf + 8, r->prev);
	put64(buf + 16, r->index);
	put64(buf + 24, r->term);
	put64(buf + 32, r->segment);
	put32(buf + 40, r->offset);
	put32(buf + 44, r->synced);
	put32(buf + 48, r->len);
	put32(buf + 52, r->kind);
	if (r->len > 0) {
		memcpy(buf + WAL_RECORD_BYTES, data, r->len);
	}
	memset(buf + WAL_RECORD_BYTES + r->len, 0,
		wal_record_size(r->len) - WAL_RECORD_BYTES - r->len);
	r->sum = XXH3_64bits_withSeed(buf + 8, WAL_RECORD_BYTES - 8 + r->len, r->prev);
	put64(buf, r->sum);
}

void wal_record_decode(const uint8_t *buf, struct wal_record *ret_record)
{
	*ret_record = (struct wal_record){
		.sum = get64(buf),
		.prev = get64(buf + 8),
		.index = get64(buf + 16),
		.term = get64(buf + 24),
		.segment = get64(buf + 32),
		.offset = get32(buf + 40),
		.synced = get32(buf + 44),
		.len = get32(buf + 48),
		.kind = buf[52],
	};
}

bool wal_record_whole(const struct wal_record *r, const uint8_t *buf)
{
	return XXH3_64bits_withSeed(buf + 8, WAL_RECORD_BYTES - 8 + r->len, r->prev) == r->sum;
}

/* --- vote and mark -------------------------------------------------------------------------- */

static const char *twin_name(enum wal_twin_kind kind)
{
	return kind == WAL_TWIN_VOTE ? WAL_VOTE_FILE : WAL_MARK_FILE;
}

static void slot_encode(const struct wal_twin *t, enum wal_twin_kind kind, uint8_t *buf)
{
	put64(buf + 8, kind == WAL_TWIN_VOTE ? VOTE_MAGIC : MARK_MAGIC);
	put64(buf + 16, t->gen);
	for (size_t i = 0; i < WAL_TWIN_VALUES; i++) {
		put64(buf + 24 + 8 * i, t->v[i]);
	}
	put64(buf, XXH3_64bits(buf + 8, SLOT_BYTES - 8));
}

/* The slot's generation, 0: not whole. */
static uint64_t slot_decode(
	const uint8_t *buf, enum wal_twin_kind kind, uint64_t ret_v[WAL_TWIN_VALUES])
{
	if (get64(buf) != XXH3_64bits(buf + 8, SLOT_BYTES - 8) ||
		get64(buf + 8) != (kind == WAL_TWIN_VOTE ? VOTE_MAGIC : MARK_MAGIC)) {
		return 0;
	}
	for (size_t i = 0; i < WAL_TWIN_VALUES; i++) {
		ret_v[i] = get64(buf + 24 + 8 * i);
	}
	return get64(buf + 16);
}

/* To slot `first`, then to the other. */
static int twin_put(
	struct wal_twin *t, enum wal_twin_kind kind, unsigned first, struct wal_error *e)
{
	uint8_t buf[SLOT_BYTES];
	int rc = 0;

	slot_encode(t, kind, buf);
	for (unsigned i = 0; i < 2 && rc == 0; i++) {
		unsigned slot = first ^ i;

		rc = wal_file_write(&t->file, buf, sizeof(buf), slot * SLOT_STRIDE, e);
		if (rc == 0) {
			rc = wal_file_sync(&t->file, e);
		}
	}
	return rc;
}

int wal_twin_write(struct wal_twin *t, enum wal_twin_kind kind, const uint64_t v[WAL_TWIN_VALUES],
	struct wal_error *e)
{
	t->gen++;
	memcpy(t->v, v, sizeof(t->v));
	return twin_put(t, kind, 0, e);
}

int wal_twin_create(const struct wal_dir *dir, enum wal_twin_kind kind,
	const uint64_t v[WAL_TWIN_VALUES], struct wal_error *e)
{
	struct wal_twin t = {.gen = 1};
	char tmp[WAL_NAME_BYTES];
	int rc;

	memcpy(t.v, v, sizeof(t.v));
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", twin_name(kind));
	rc = wal_file_open(dir, tmp, O_RDWR | O_CREAT | O_TRUNC, &t.file, e);
	if (rc < 0) {
		return rc;
	}
	rc = wal_file_zero(&t.file, 0, 2u * SLOT_STRIDE, e);
	if (rc == 0) {
		rc = twin_put(&t, kind, 0, e);
	}
	wal_file_close(&t.file);
	if (rc == 0) {
		rc = wal_file_rename(dir, tmp, twin_name(kind), e);
	}
	return rc == 0 ? wal_dir_sync(dir, e) : rc;
}

/* Choose the newer slot; ret_same: both say the same. */
static int twin_choose(struct wal_twin *t, enum wal_twin_kind kind, bool *ret_same,
	unsigned *ret_older, struct wal_error *e)
{
	uint64_t gen[2], v[2][WAL_TWIN_VALUES] = {{0}};
	unsigned newer;
	int rc;

	for (unsigned slot = 0; slot < 2; slot++) {
		uint8_t buf[SLOT_BYTES] = {0};
		size_t got;

		rc = wal_file_read(&t->file, buf, sizeof(buf), slot * SLOT_STRIDE, &got, e);
		if (rc < 0) {
			return rc;
		}
		gen[slot] = slot_decode(buf, kind, v[slot]);
	}
	newer = gen[1] > gen[0];
	if (gen[newer] == 0) {
		return wal_damage(e, t->file.dir, t->file.name, 0,
			"both slots are damaged; it is unknown %s",
			kind == WAL_TWIN_VOTE ? "which votes were given"
					      : "how much log there was");
	}
	*ret_same = gen[0] == gen[1];
	if (*ret_same && memcmp(v[0], v[1], sizeof(v[0])) != 0) {
		return wal_damage(e, t->file.dir, t->file.name, SLOT_STRIDE,
			"the slots have one generation but different content");
	}
	t->gen = gen[newer];
	memcpy(t->v, v[newer], sizeof(t->v));
	*ret_older = newer ^ 1u;
	return 0;
}

int wal_twin_open(const struct wal_dir *dir, enum wal_twin_kind kind, struct wal_twin *ret_twin,
	bool *ret_repaired, struct wal_error *e)
{
	struct wal_twin t = {0};
	unsigned older = 0;
	bool same = true;
	int rc = wal_file_open(dir, twin_name(kind), O_RDWR, &t.file, e);

	if (rc < 0) {
		return rc;
	}
	rc = twin_choose(&t, kind, &same, &older, e);
	if (rc == 0 && !same) {
		t.gen++;
		rc = twin_put(&t, kind, older, e);
	}
	if (rc < 0) {
		wal_file_close(&t.file);
		return rc;
	}
	*ret_repaired = !same;
	*ret_twin = t;
	return 0;
}
