#include "core/state/scratch.h"

#include "coordfs/util.h"

#define BLOCK_BYTES 16384 /* arbitrary: a few large fields, or many small ones */

struct scratch_block {
	struct scratch_block *next;
	alignas(max_align_t) uint8_t bytes[];
};

static size_t align_up(size_t bytes)
{
	size_t unit = alignof(max_align_t);

	return (bytes + unit - 1) / unit * unit;
}

static void scratch_grow(struct scratch *s, size_t bytes)
{
	size_t size = MAX(bytes, (size_t)BLOCK_BYTES);
	struct scratch_block *b = xmalloc(sizeof *b + size);

	b->next = s->blocks;
	s->blocks = b;
	s->at = b->bytes;
	s->left = size;
}

static void *scratch_alloc(void *ctx, size_t bytes)
{
	struct scratch *s = ctx;
	size_t take;
	void *p;

	if (bytes > SIZE_MAX / 2) {
		return NULL;
	}
	take = align_up(bytes);
	if (take > s->left) {
		scratch_grow(s, take);
	}
	p = s->at;
	s->at += take;
	s->left -= take;
	return p;
}

/* All of it goes in scratch_fini(). */
static void scratch_release(void *ctx, void *p)
{
}

void scratch_init(struct scratch *s)
{
	s->allocator = (ProtobufCAllocator){
		.alloc = scratch_alloc,
		.free = scratch_release,
		.allocator_data = s,
	};
	s->blocks = NULL;
	s->at = s->first;
	s->left = sizeof s->first;
}

void scratch_fini(struct scratch *s)
{
	while (s->blocks != NULL) {
		struct scratch_block *b = s->blocks;

		s->blocks = b->next;
		free(b);
	}
}
