/*
 * state.c - the machine itself: a command comes in, its kind decides who
 * carries it out, the outcome is told.
 */
#include "core/state/internal.h"

#include <errno.h>

#include "core/state/scratch.h"

void state_limits_default(struct state_limits *l)
{
	*l = (struct state_limits){
		.locks_max = (size_t)16 << 20,
		.waiters_max = (size_t)1 << LOCK_TOKEN_SHIFT,
		.session_claims_max = (size_t)16 << 20,
		.records_max = 8192,
	};
}

struct state *state_new(const struct state_limits *limits, const struct state_hooks *hooks)
{
	struct state *s = xcalloc(1, sizeof *s);

	if (limits != NULL) {
		s->limits = *limits;
	} else {
		state_limits_default(&s->limits);
	}
	ASSERT(s->limits.waiters_max <= (size_t)1 << LOCK_TOKEN_SHIFT);
	state_set_hooks(s, hooks);
	return s;
}

void state_set_hooks(struct state *s, const struct state_hooks *hooks)
{
	s->hooks = hooks != NULL ? *hooks : (struct state_hooks){0};
}

static void free_claims(struct claim *list)
{
	struct claim *c, *next;

	DL_FOREACH_SAFE (list, c, next) {
		free(c);
	}
}

void state_free(struct state *s)
{
	struct lock *l, *next_lock;
	struct session *session, *next_session;
	struct member *m, *next_member;

	if (s == NULL) {
		return;
	}
	if (s->snap != NULL) {
		snapshot_orphan(s->snap);
	}
	HASH_CLEAR(hh, s->claims);
	HASH_CLEAR(hh, s->locks_by_name);
	HASH_CLEAR(hh, s->sessions_by_id);
	DL_FOREACH_SAFE (s->locks, l, next_lock) {
		free_claims(l->holders);
		free_claims(l->waiters);
		free(l->value);
		free(l);
	}
	DL_FOREACH_SAFE (s->sessions, session, next_session) {
		free(session);
	}
	HASH_ITER (hh, s->members, m, next_member) {
		HASH_DELETE(hh, s->members, m);
		free(m);
	}
	free(s);
}

/* --- commands ----------------------------------------------------------------------------- */

void core_task_from_wire(struct core_task *t, const Wire__Task *w)
{
	*t = (struct core_task){0};
	if (w != NULL) {
		t->pid = w->pid;
		t->start = w->start;
		memcpy(t->command, w->command, strnlen(w->command, sizeof t->command - 1));
	}
}

/* `op` has `name`, `owner` and `kind`; the rest are further fields. */
#define LOCK_REF(op, ...)                                                                          \
	(&(struct lock_ref){.name = (op)->name.data,                                               \
		.name_len = (op)->name.len,                                                        \
		.owner = (op)->owner,                                                              \
		.kind = (op)->kind,                                                                \
		__VA_ARGS__})

static enum status apply_to_lock(
	struct state *s, struct session *of, const Wire__Command *cmd, uint64_t *ret_token)
{
	switch (cmd->op_case) {
	case WIRE__COMMAND__OP_LOCK_ACQUIRE:
		return lock_acquire(s, of, cmd->seq, cmd->lock_acquire, ret_token);
	case WIRE__COMMAND__OP_LOCK_CANCEL:
		return lock_cancel(
			s, of, LOCK_REF(cmd->lock_cancel), cmd->lock_cancel->acquire_seq);
	case WIRE__COMMAND__OP_LOCK_RELEASE:
		return lock_release(s, of,
			LOCK_REF(cmd->lock_release,
				.range = {cmd->lock_release->start, cmd->lock_release->end}));
	case WIRE__COMMAND__OP_LOCK_SET_VALUE:
		return lock_set_value(
			s, of, LOCK_REF(cmd->lock_set_value), &cmd->lock_set_value->value);
	case WIRE__COMMAND__OP_SESSION_OPEN:
	case WIRE__COMMAND__OP_SESSION_END:
	case WIRE__COMMAND__OP__NOT_SET:
	case _WIRE__COMMAND__OP__CASE_IS_INT_SIZE:
		break;
	}
	UNREACHABLE();
}

static void apply_of_session(struct state *s, const Wire__Command *cmd)
{
	struct session *of = session_accept(s, cmd);
	uint64_t token = 0;
	enum status st;

	if (of == NULL) {
		return;
	}
	st = apply_to_lock(s, of, cmd, &token);
	if (s->hooks.result != NULL) {
		s->hooks.result(s->hooks.ctx, cmd->incarnation, cmd->seq, st, token);
	}
}

static void apply(struct state *s, uint64_t index, const Wire__Command *cmd)
{
	s->index = index;
	s->unix_ms = cmd->unix_ms;
	s->n_granted = 0;
	if (cmd->op_case == WIRE__COMMAND__OP_SESSION_OPEN) {
		session_open(s, index, cmd->session_open);
	} else if (cmd->op_case == WIRE__COMMAND__OP_SESSION_END) {
		session_end(s, index, cmd->session_end);
	} else {
		apply_of_session(s, cmd);
	}
}

static int command_check(const Wire__Command *cmd)
{
	if (cmd == NULL || cmd->format == 0) {
		return -EBADMSG;
	}
	if (cmd->format > WIRE_FORMAT) {
		return -EPROTO;
	}
	return cmd->op_case == WIRE__COMMAND__OP__NOT_SET ? -EBADMSG : 0;
}

static struct state_origin origin_of(const Wire__Command *cmd)
{
	switch (cmd->op_case) {
	case WIRE__COMMAND__OP_SESSION_OPEN:
		return (struct state_origin){.node = cmd->session_open->node};
	case WIRE__COMMAND__OP_SESSION_END:
		return (struct state_origin){.session = cmd->session_end->session,
			.incarnation = cmd->session_end->incarnation};
	case WIRE__COMMAND__OP_LOCK_ACQUIRE:
	case WIRE__COMMAND__OP_LOCK_CANCEL:
	case WIRE__COMMAND__OP_LOCK_RELEASE:
	case WIRE__COMMAND__OP_LOCK_SET_VALUE:
	case WIRE__COMMAND__OP__NOT_SET:
	case _WIRE__COMMAND__OP__CASE_IS_INT_SIZE:
		break;
	}
	return (struct state_origin){
		.session = cmd->session, .incarnation = cmd->incarnation, .seq = cmd->seq};
}

int state_vet(const void *command, size_t len, struct state_origin *ret_origin)
{
	struct scratch scratch;
	Wire__Command *cmd;
	int rc;

	scratch_init(&scratch);
	cmd = wire__command__unpack(&scratch.allocator, len, command);
	rc = command_check(cmd);
	if (rc == 0) {
		*ret_origin = origin_of(cmd);
	}
	scratch_fini(&scratch);
	return rc;
}

bool state_names_owner(const void *command, size_t len, uint64_t *ret_node, uint8_t ret_uuid[16])
{
	struct scratch scratch;
	const Wire__Command *cmd;
	bool names;

	scratch_init(&scratch);
	cmd = wire__command__unpack(&scratch.allocator, len, command);
	names = command_check(cmd) == 0 && cmd->op_case == WIRE__COMMAND__OP_SESSION_OPEN &&
		cmd->session_open->uuid.len == STATE_UUID_BYTES;
	if (names) {
		*ret_node = cmd->session_open->node;
		memcpy(ret_uuid, cmd->session_open->uuid.data, STATE_UUID_BYTES);
	}
	scratch_fini(&scratch);
	return names;
}

int state_apply(struct state *s, uint64_t index, const void *command, size_t len)
{
	struct scratch scratch;
	Wire__Command *cmd;
	int rc;

	ASSERT(index > s->index);
	scratch_init(&scratch);
	cmd = wire__command__unpack(&scratch.allocator, len, command);
	rc = command_check(cmd);
	if (rc == 0) {
		apply(s, index, cmd);
	}
	scratch_fini(&scratch);
	return rc;
}

void state_skip(struct state *s, uint64_t index)
{
	ASSERT(index > s->index);
	s->index = index;
}

/* --- reads -------------------------------------------------------------------------------- */

uint64_t state_index(const struct state *s)
{
	return s->index;
}

uint64_t state_epoch(const struct state *s)
{
	return s->epoch;
}

uint64_t state_unix_ms(const struct state *s)
{
	return s->unix_ms;
}

const struct session *state_session(const struct state *s, uint64_t id)
{
	return session_find(s, id);
}

const struct session *state_session_of_node(const struct state *s, uint64_t node)
{
	const struct member *m = member_find(s, node);

	return m != NULL ? m->session : NULL;
}

const struct session *state_sessions(const struct state *s)
{
	return s->sessions;
}

size_t state_n_sessions(const struct state *s)
{
	return s->n_sessions;
}

const struct lock *state_lock(const struct state *s, const void *name, size_t name_len)
{
	return name_len <= CORE_NAME_MAX ? lock_find(s, name, name_len) : NULL;
}

const struct lock *state_locks(const struct state *s)
{
	return s->locks;
}

size_t state_n_locks(const struct state *s)
{
	return s->n_locks;
}

const struct claim *state_claim(const struct state *s, uint64_t session, uint64_t owner)
{
	return claim_find(s, session, owner);
}

const uint8_t *state_member_uuid(const struct state *s, uint64_t node)
{
	const struct member *m = member_find(s, node);

	return m != NULL && m->has_uuid ? m->uuid : NULL;
}

uint64_t state_member_max(const struct state *s)
{
	return s->member_max;
}
