/*
 * message.c - is a received message possible at all?
 *
 * Everything a peer says is doubted here once (rule 12), so that the rest can
 * calculate with it. What is merely late or doubled passes: that is the network.
 */
#include "core/raft/raft_internal.h"

static bool in_range(const struct raft_msg *m)
{
	return m->term >= 1 && m->term <= RAFT_NUMBER_MAX && m->index <= RAFT_NUMBER_MAX &&
	       m->log_term <= RAFT_NUMBER_MAX && m->commit <= RAFT_NUMBER_MAX &&
	       m->round <= RAFT_NUMBER_MAX && m->offset <= RAFT_NUMBER_MAX;
}

/* An index and its term: both or neither, and no entry is younger than the message. */
static bool is_position(const struct raft_msg *m)
{
	return (m->index == 0) == (m->log_term == 0) && m->log_term <= m->term;
}

static const char *entry_fault(const struct raft_entry *e)
{
	struct raft_config config;

	if (e->len > RAFT_ENTRY_BYTES_MAX) {
		return "entry too long";
	}
	switch (e->kind) {
	case RAFT_NOOP:
	case RAFT_COMMAND:
		return NULL;
	case RAFT_CONFIG:
		if (raft_config_decode(e->data, e->len, &config) < 0) {
			return "entry is not a configuration";
		}
		raft_config_fini(&config);
		return NULL;
	}
	return "unknown kind of entry";
}

static const char *append_fault(const struct raft_msg *m)
{
	uint64_t term = m->log_term;

	if (!is_position(m)) {
		return "no position in a log";
	}
	if (m->n_entries > 0 && m->entries == NULL) {
		return "entries missing";
	}
	for (size_t i = 0; i < m->n_entries; i++) {
		const struct raft_entry *e = m->entries[i];
		const char *fault;

		if (e == NULL || e->index != m->index + 1 + i) {
			return "gap between entries";
		}
		if (e->term == 0 || e->term < term || e->term > m->term) {
			return "terms of entries out of order";
		}
		term = e->term;
		fault = entry_fault(e);
		if (fault != NULL) {
			return fault;
		}
	}
	return NULL;
}

static const char *snapshot_fault(const struct raft_msg *m)
{
	struct raft_config config;

	if (m->index == 0 || !is_position(m)) {
		return "no position in a log";
	}
	if (m->data_len > RAFT_NUMBER_MAX || (m->data_len > 0 && m->data == NULL)) {
		return "chunk missing";
	}
	if (m->data_len == 0 && !m->done) {
		return "empty chunk";
	}
	if (m->config == NULL || raft_config_copy(m->config, &config) < 0) {
		return "no configuration";
	}
	raft_config_fini(&config);
	return NULL;
}

const char *raft_message_fault(const struct raft *r, const struct raft_msg *m)
{
	if (m->to != r->o.id || m->from == 0 || m->from == r->o.id) {
		return "wrong address";
	}
	if (!in_range(m)) {
		return "number out of range";
	}
	switch (m->kind) {
	case RAFT_PREVOTE_REQ:
	case RAFT_VOTE_REQ:
		return is_position(m) && m->log_term < m->term ? NULL : "no position in a log";
	case RAFT_APPEND_REQ:
		return append_fault(m);
	case RAFT_SNAPSHOT_REQ:
		return snapshot_fault(m);
	case RAFT_PREVOTE_RESP:
	case RAFT_VOTE_RESP:
	case RAFT_APPEND_RESP:
	case RAFT_SNAPSHOT_RESP:
	case RAFT_TIMEOUT_NOW:
		return NULL;
	}
	return "unknown kind";
}
