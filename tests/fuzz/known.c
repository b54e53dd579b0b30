#include "known.h"

#include <string.h>

/* Where the messages of one field are, and how many: 0 if it is not set. */
static ProtobufCMessage **messages_of(
	ProtobufCMessage *m, const ProtobufCFieldDescriptor *field, size_t *ret_n)
{
	uint8_t *at = (uint8_t *)m + field->offset;
	uint32_t set;

	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		memcpy(ret_n, (uint8_t *)m + field->quantifier_offset, sizeof *ret_n);
		return *(ProtobufCMessage ***)(void *)at;
	}
	*ret_n = *(ProtobufCMessage **)(void *)at != NULL;
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		memcpy(&set, (uint8_t *)m + field->quantifier_offset, sizeof set);
		*ret_n = set == field->id;
	}
	return (ProtobufCMessage **)(void *)at;
}

static void drop_own(ProtobufCMessage *m, void (*release)(void *p))
{
	for (unsigned i = 0; i < m->n_unknown_fields && release != NULL; i++) {
		release(m->unknown_fields[i].data);
	}
	if (m->unknown_fields != NULL && release != NULL) {
		release(m->unknown_fields);
	}
	m->n_unknown_fields = 0;
	m->unknown_fields = NULL;
}

void drop_unknown(ProtobufCMessage *m, void (*release)(void *p))
{
	drop_own(m, release);
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &m->descriptor->fields[i];
		ProtobufCMessage **list;
		size_t n;

		if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
			continue;
		}
		list = messages_of(m, field, &n);
		for (size_t j = 0; j < n; j++) {
			drop_unknown(list[j], release);
		}
	}
}
