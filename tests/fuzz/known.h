/*
 * known.h - a message without what this release does not know of it.
 *
 * protobuf-c keeps unknown fields and packs them again. It also accepts field
 * number 0 where the tag is a longer varint than it need be, but refuses the
 * short form that it then writes itself. Nobody here packs a received message
 * again, so round trips are asserted of the known fields.
 */
#ifndef COORDFS_TESTS_KNOWN_H
#define COORDFS_TESTS_KNOWN_H

#include <protobuf-c/protobuf-c.h>

/* Takes unknown fields out of `m` and of all messages in it. `release` is free() if they were
 * unpacked by the system's allocator, NULL if their memory goes with something else. */
void drop_unknown(ProtobufCMessage *m, void (*release)(void *p));

#endif
