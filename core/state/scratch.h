/*
 * scratch.h - memory for unpacking one protobuf message, on the caller's stack.
 *
 * protobuf-c allocates each message and each field by itself. Here it takes
 * them from a few KiB on the stack, and from blocks on the heap beyond that; all
 * of it goes at once. The size of what is unpacked is limited by the caller, so
 * running out of memory is not an answer: see xmalloc().
 */
#ifndef COORDFS_STATE_SCRATCH_H
#define COORDFS_STATE_SCRATCH_H

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

/* Enough for every command but those with large values. */
#define SCRATCH_STACK_BYTES 2048

struct scratch_block;

struct scratch {
	ProtobufCAllocator allocator; /* pass to unpack; needs no free_unpacked */
	struct scratch_block *blocks; /* owned */
	uint8_t *at;
	size_t left;
	alignas(max_align_t) uint8_t first[SCRATCH_STACK_BYTES];
};

void scratch_init(struct scratch *s);
void scratch_fini(struct scratch *s);

#endif
