/*
 * command_fuzz.c - a command, the payload of a log entry, means one thing.
 *
 * What is read from it, packed and read again must be the same. See
 * wire_frame_fuzz.c for why the input itself may differ.
 */
#include "fuzz.h"

#include "coordfs/util.h"
#include "core/wire.pb-c.h"
#include "known.h"

struct packed {
	uint8_t *data; /* owned */
	size_t len;
};

static struct packed pack(const Wire__Command *c)
{
	struct packed p = {.len = wire__command__get_packed_size(c)};

	p.data = xmalloc(p.len);
	ASSERT(wire__command__pack(c, p.data) == p.len);
	return p;
}

static void check_round_trip(const Wire__Command *c)
{
	struct packed first = pack(c);
	struct packed second;
	Wire__Command *again = wire__command__unpack(NULL, first.len, first.data);

	ASSERT(again != NULL);
	ASSERT(again->op_case == c->op_case);
	second = pack(again);
	ASSERT(first.len == second.len);
	ASSERT(memcmp(first.data, second.data, first.len) == 0);
	wire__command__free_unpacked(again, NULL);
	free(first.data);
	free(second.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Wire__Command *c = wire__command__unpack(NULL, size, data);

	if (c != NULL) {
		drop_unknown(&c->base, free);
		check_round_trip(c);
		wire__command__free_unpacked(c, NULL);
	}
	return 0;
}
