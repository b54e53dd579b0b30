/*
 * json.h - JSON text, written front to back.
 *
 * For what is written often or by the line; reports that are built as a tree use cJSON.
 * Values between json_open() and json_close() are members of that object (with a key) or
 * elements of that array (key NULL).
 */
#ifndef COORDFS_JSON_H
#define COORDFS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/wire.h"

/* Bytes that json_quote() may make of `len`. */
#define JSON_QUOTED_MAX(len) ((len)*6 + 2)

/* Zero-initialised is empty. */
struct json {
	struct wire_buf text; /* owned: wire_buf_fini() */
	bool comma;           /* the next value follows another */
};

/* Bytes as a JSON string: what is not printable ASCII is written as \u00XX, byte by byte, for names
 * and commands are bytes. Returns the end of what was written to `out`. */
char *json_quote(char *out, const char *bytes, size_t len);

void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);
void json_bytes(struct json *j, const char *key, const void *bytes, size_t len);
void json_string(struct json *j, const char *key, const char *text);

#endif
