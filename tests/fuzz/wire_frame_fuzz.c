/*
 * wire_frame_fuzz.c - whatever a peer sends is refused, or means one thing.
 *
 * An accepted frame is encoded and decoded again: the second encoding must equal
 * the first. (The input itself may differ from both: fields in any order, zeros
 * sent, varints longer than they need to be.)
 */
#include "fuzz.h"

#include "coordfs/util.h"
#include "core/wire.h"
#include "known.h"

static void encode(struct wire_frame *f, struct wire_buf *out)
{
	if (wire_frame_raft(f) != NULL) {
		wire_encode_raft(wire_frame_raft(f), out);
	} else {
		wire_encode_frame(wire_frame_body(f), out);
	}
}

static void check_round_trip(struct wire_frame *f)
{
	struct wire_buf first = {0};
	struct wire_buf second = {0};
	struct wire_frame *again = NULL;
	int rc;

	/* The arena of `f` is ours, and the memory goes with it. */
	drop_unknown((ProtobufCMessage *)&wire_frame_body(f)->base, NULL);
	encode(f, &first);
	rc = wire_decode_frame(
		first.data + WIRE_FRAME_HEADER_BYTES, first.len - WIRE_FRAME_HEADER_BYTES, &again);
	ASSERT(rc == 0);
	encode(again, &second);
	ASSERT(first.len == second.len);
	ASSERT(memcmp(first.data, second.data, first.len) == 0);
	wire_frame_free(again);
	wire_buf_fini(&first);
	wire_buf_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_frame *f = NULL;

	if (wire_decode_frame(data, size, &f) < 0) {
		return 0;
	}
	if (wire_frame_body(f)->body_case != WIRE__FRAME__BODY__NOT_SET) { /* of a later release */
		check_round_trip(f);
	}
	wire_frame_free(f);
	return 0;
}
