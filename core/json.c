/*
 * json.c - see json.h.
 */
#include "core/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

char *json_quote(char *out, const char *bytes, size_t len)
{
	static const char hex[] = "0123456789abcdef";

	*out++ = '"';
	for (size_t i = 0; i < len; i++) {
		unsigned char b = (unsigned char)bytes[i];

		if (b >= 0x20 && b < 0x7f && b != '"' && b != '\\') {
			*out++ = (char)b;
		} else {
			memcpy(out, "\\u00", 4);
			out[4] = hex[b >> 4];
			out[5] = hex[b & 15];
			out += 6;
		}
	}
	*out++ = '"';
	return out;
}

/* What stands before a value. */
static void begin(struct json *j, const char *key)
{
	if (j->comma) {
		wire_buf_append(&j->text, ",", 1);
	}
	j->comma = true;
	if (key != NULL) {
		wire_buf_append(&j->text, "\"", 1);
		wire_buf_append(&j->text, key, strlen(key));
		wire_buf_append(&j->text, "\":", 2);
	}
}

void json_open(struct json *j, const char *key, char bracket)
{
	begin(j, key);
	wire_buf_append(&j->text, &bracket, 1);
	j->comma = false;
}

void json_close(struct json *j, char bracket)
{
	wire_buf_append(&j->text, &bracket, 1);
	j->comma = true;
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
	char text[24];
	int len = snprintf(text, sizeof text, "%" PRIu64, value);

	begin(j, key);
	wire_buf_append(&j->text, text, (size_t)len);
}

void json_bool(struct json *j, const char *key, bool value)
{
	begin(j, key);
	wire_buf_append(&j->text, value ? "true" : "false", value ? 4 : 5);
}

void json_bytes(struct json *j, const char *key, const void *bytes, size_t len)
{
	char *at;

	begin(j, key);
	at = (char *)wire_buf_reserve(&j->text, JSON_QUOTED_MAX(len));
	j->text.len += (size_t)(json_quote(at, bytes, len) - at);
}

void json_string(struct json *j, const char *key, const char *text)
{
	json_bytes(j, key, text, strlen(text));
}
