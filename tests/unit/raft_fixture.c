/*
 * raft_fixture.c - the world around the rafts of a test.
 */
#include "raft_fixture.h"

#include <errno.h>

#include <utlist.h>

#include "coordfs/util.h"

enum op_kind {
	OP_APPEND,
	OP_TRUNCATE,
	OP_VOTE,
	OP_CHUNK_READ,
	OP_CHUNK_WRITE,
	OP_RESET, /* of the log, behind an installed snapshot */
};

struct disk_op {
	enum op_kind kind;
	uint64_t gen;
	struct raft_entry **entries;
	size_t n;
	uint64_t from; /* truncate: index; chunks: the other server */
	uint64_t term;
	uint64_t vote;
	uint64_t index;
	uint64_t offset;
	size_t max;
	bool done;
	struct raft_config config;
	struct disk_op *prev, *next;
};

struct packet {
	struct raft_msg m;
	struct raft_config config;
	struct packet *prev, *next;
};

/* --- env: the disk's queue --------------------------------------------------------------- */

static struct disk_op *op_new(struct server *s, enum op_kind kind)
{
	struct disk_op *op = xcalloc(1, sizeof *op);

	op->kind = kind;
	DL_APPEND(s->ops, op);
	return op;
}

static void op_free(struct server *s, struct disk_op *op)
{
	DL_DELETE(s->ops, op);
	for (size_t i = 0; i < op->n; i++) {
		raft_entry_unref(op->entries[i]);
	}
	free(op->entries);
	raft_config_fini(&op->config);
	free(op);
}

static void env_append(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t n)
{
	struct server *s = ctx;
	struct disk_op *op = op_new(s, OP_APPEND);

	op->gen = gen;
	op->n = n;
	op->entries = xmemdup(entries, n * sizeof op->entries[0]);
	for (size_t i = 0; i < n; i++) {
		(void)raft_entry_ref(entries[i]);
		history_saw_entry(s->f->history, entries[i]);
	}
}

static void env_truncate(void *ctx, uint64_t from)
{
	op_new(ctx, OP_TRUNCATE)->from = from;
}

static void env_save_vote(void *ctx, uint64_t term, uint64_t vote)
{
	struct disk_op *op = op_new(ctx, OP_VOTE);

	op->term = term;
	op->vote = vote;
}

static void env_snapshot_read(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
	struct disk_op *op = op_new(ctx, OP_CHUNK_READ);

	op->from = to;
	op->index = index;
	op->offset = offset;
	op->max = max;
}

/* Every byte tells which snapshot it belongs to. */
static uint8_t snapshot_byte(const struct snapshot_file *file, uint64_t at)
{
	uint64_t words[2] = {file->index, file->digest};

	return at < sizeof words ? ((uint8_t *)words)[at] : (uint8_t)(file->digest + at);
}

static void env_snapshot_write(void *ctx, const struct raft_msg *m)
{
	struct server *s = ctx;
	struct disk_op *op = op_new(s, OP_CHUNK_WRITE);
	int rc;

	if (m->offset == 0) {
		s->incoming_len = 0;
	}
	assert_int_equal(m->offset, s->incoming_len);
	s->incoming = xrealloc(s->incoming, s->incoming_len + m->data_len);
	memcpy(s->incoming + s->incoming_len, m->data, m->data_len);
	s->incoming_len += m->data_len;
	s->chunks_written++;
	op->from = m->from;
	op->index = m->index;
	op->term = m->log_term;
	op->offset = s->incoming_len;
	op->done = m->done;
	rc = raft_config_copy(m->config, &op->config);
	assert_int_equal(rc, 0);
}

/* --- env: the rest ----------------------------------------------------------------------- */

static void packet_free(struct fixture *f, struct packet *p)
{
	DL_DELETE(f->net, p);
	f->n_net--;
	for (size_t i = 0; i < p->m.n_entries; i++) {
		raft_entry_unref(p->m.entries[i]);
	}
	free(p->m.entries);
	free((void *)(uintptr_t)p->m.data);
	raft_config_fini(&p->config);
	free(p);
}

static void packet_add(struct fixture *f, const struct raft_msg *m)
{
	struct packet *p = xcalloc(1, sizeof *p);

	p->m = *m;
	p->m.entries = NULL;
	if (m->n_entries > 0) {
		p->m.entries = xmemdup(m->entries, m->n_entries * sizeof m->entries[0]);
	}
	for (size_t i = 0; i < m->n_entries; i++) {
		(void)raft_entry_ref(m->entries[i]);
	}
	if (m->data != NULL) {
		p->m.data = xmemdup(m->data, m->data_len);
	}
	if (m->config != NULL) {
		assert_int_equal(raft_config_copy(m->config, &p->config), 0);
		p->m.config = &p->config;
	}
	DL_APPEND(f->net, p);
	f->n_net++;
}

static void env_send(void *ctx, const struct raft_msg *m)
{
	struct server *s = ctx;
	struct fixture *f = s->f;
	struct raft_msg *last;

	assert_int_equal(m->from, s->id);
	if (m->to >= SERVERS_MAX) {
		return; /* nobody is there */
	}
	last = &f->last[m->from][m->to][m->kind];
	if (m->kind == RAFT_VOTE_RESP && m->ok) {
		history_saw_vote(f->history, m);
	}
	*last = *m;
	last->entries = NULL;
	last->data = NULL;
	last->config = NULL;
	f->sent[m->from][m->kind]++;
	f->entries_sent += m->n_entries;
	if (!f->cut[m->from][m->to] && !f->muted[m->kind]) {
		packet_add(f, m);
	}
}

static void env_apply(void *ctx, const struct raft_entry *e)
{
	struct server *s = ctx;
	uint64_t digest = digest_of_entry(e);

	assert_int_equal(e->index, s->applied + 1);
	s->applied = e->index;
	s->digest = digest_mix(s->digest, &digest, sizeof digest);
	history_saw_applied(s->f->history, e->index, e->term, s->digest);
	if (s->propose_on_apply > 0 && raft_role(s->raft) == RAFT_LEADER) {
		uint64_t index;

		s->propose_on_apply--;
		assert_int_equal(raft_propose(s->raft, "more", 4, &index), 0);
	}
}

static void env_read_ready(void *ctx, uint64_t read_id, uint64_t index, bool ok)
{
	struct server *s = ctx;

	history_read_answered(s->f->history, read_id, index, ok);
	assert_true(!ok || index <= s->applied);
	if (s->n_answers == ANSWERS_MAX) {
		s->n_answers = 0;
	}
	s->answers[s->n_answers++] = (struct read_answer){.id = read_id, .index = index, .ok = ok};
}

static void env_role_changed(void *ctx)
{
	struct server *s = ctx;

	s->role_changes++;
	assert_true(raft_term(s->raft) >= s->term_of_last_role);
	s->term_of_last_role = raft_term(s->raft);
	if (raft_role(s->raft) == RAFT_LEADER) {
		history_saw_leader(s->f->history, s->id, s->raft);
	}
}

static void env_config_changed(void *ctx, const struct raft_config *config)
{
	struct server *s = ctx;

	assert_ptr_equal(config, raft_config(s->raft));
	s->config_changes++;
}

static void emit(void *ctx, enum trace_level level, const char *event, const char *kv)
{
	struct server *s = ctx;

	if (strcmp(event, "raft.bad_message") == 0) {
		s->bad_messages++;
	}
	if (getenv("RAFT_TRACE") != NULL) {
		(void)fprintf(stderr, "%6" PRIu64 " %s %s\n", s->f->now, event, kv);
	}
}

/* --- servers ----------------------------------------------------------------------------- */

static const struct raft_env env_template = {
	.append = env_append,
	.truncate = env_truncate,
	.save_vote = env_save_vote,
	.send = env_send,
	.apply = env_apply,
	.read_ready = env_read_ready,
	.role_changed = env_role_changed,
	.config_changed = env_config_changed,
	.snapshot_read = env_snapshot_read,
	.snapshot_write = env_snapshot_write,
};

struct server *server(struct fixture *f, uint64_t id)
{
	assert_true(id > 0 && id < SERVERS_MAX);
	return &f->servers[id];
}

struct raft *raft_of(struct fixture *f, uint64_t id)
{
	struct raft *r = server(f, id)->raft;

	assert_non_null(r);
	return r;
}

static void disk_forget_from(struct server *s, size_t n)
{
	while (s->n_entries > n) {
		raft_entry_unref(s->entries[--s->n_entries]);
	}
}

/* As a driver must: a log that the snapshot has made obsolete is restarted behind it. */
static void reset_obsolete_log(struct server *s)
{
	const struct raft_entry *last;

	if (s->n_entries == 0) {
		return;
	}
	last = s->entries[s->n_entries - 1];
	if (raft_term_at(s->raft, last->index) != last->term) {
		disk_forget_from(s, 0);
	}
}

static void start(struct server *s)
{
	struct fixture *f = s->f;
	struct raft_options o = f->options;
	struct raft_env env = env_template;
	struct raft_start st = {
		.term = s->term,
		.vote = s->vote,
		.snapshot_index = s->snapshot.index,
		.snapshot_term = s->snapshot.term,
		.config = &s->snapshot.config,
		.entries = s->entries,
		.n_entries = s->n_entries,
	};

	o.id = s->id;
	o.seed = f->options.seed * 31 + s->id;
	o.trace = (struct tracer){.emit = emit, .ctx = s, .max = TRACE_DEBUG};
	env.ctx = s;
	s->applied = s->snapshot.index;
	s->digest = s->snapshot.digest;
	s->term_of_last_role = 0;
	assert_int_equal(raft_new(&o, &env, &st, f->now, &s->raft), 0);
	reset_obsolete_log(s);
	raft_check(s->raft);
}

static void bootstrap(struct fixture *f, size_t voters, struct raft_config *ret_config)
{
	ret_config->n = voters;
	ret_config->servers = xcalloc(voters, sizeof ret_config->servers[0]);
	for (size_t i = 0; i < voters; i++) {
		ret_config->servers[i].id = i + 1;
		ret_config->servers[i].voter = true;
		(void)snprintf(
			ret_config->servers[i].addr, RAFT_ADDR_MAX, "127.0.0.1:%zu", 7000 + i);
	}
}

struct fixture *fixture_new(size_t voters)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	f->history = history_new();
	f->now = 1000;
	f->snapshot_bytes = 1000;
	raft_options_default(&f->options);
	f->options.seed = 1;
	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		f->servers[id].f = f;
		f->servers[id].id = id;
		bootstrap(f, voters, &f->servers[id].snapshot.config);
	}
	for (uint64_t id = 1; id <= voters; id++) {
		start(&f->servers[id]);
	}
	return f;
}

static void server_fini(struct server *s)
{
	raft_free(s->raft);
	while (s->ops != NULL) {
		op_free(s, s->ops);
	}
	disk_forget_from(s, 0);
	free(s->entries);
	free(s->incoming);
	raft_config_fini(&s->snapshot.config);
}

void fixture_free(struct fixture *f)
{
	while (f->net != NULL) {
		packet_free(f, f->net);
	}
	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		server_fini(&f->servers[id]);
	}
	history_free(f->history);
	free(f);
}

void join(struct fixture *f, uint64_t id)
{
	struct server *s = server(f, id);

	assert_null(s->raft);
	start(s);
}

void crash(struct fixture *f, uint64_t id)
{
	struct server *s = server(f, id);

	raft_free(TAKE(s->raft));
	while (s->ops != NULL) {
		op_free(s, s->ops);
	}
	s->disk_held = false;
	history_crashed(f->history, id);
}

void restart(struct fixture *f, uint64_t id)
{
	if (server(f, id)->raft != NULL) {
		crash(f, id);
	}
	start(server(f, id));
}

/* --- disks ------------------------------------------------------------------------------- */

static void write_entries(struct server *s, const struct disk_op *op)
{
	s->entries = xrealloc(s->entries, (s->n_entries + op->n) * sizeof s->entries[0]);
	for (size_t i = 0; i < op->n; i++) {
		if (s->n_entries > 0) {
			assert_int_equal(
				op->entries[i]->index, s->entries[s->n_entries - 1]->index + 1);
		}
		s->entries[s->n_entries++] = raft_entry_ref(op->entries[i]);
	}
}

static void truncate_entries(struct server *s, uint64_t from)
{
	while (s->n_entries > 0 && s->entries[s->n_entries - 1]->index >= from) {
		disk_forget_from(s, s->n_entries - 1);
	}
}

static void read_chunk(struct server *s, const struct disk_op *op)
{
	size_t total = s->f->snapshot_bytes;
	uint8_t data[4096];
	size_t len = op->offset < total ? MIN(op->max, total - op->offset) : 0;

	if (op->index != s->snapshot.index) {
		raft_snapshot_chunk(s->raft, op->from, op->index, op->offset, NULL, 0, 0, -ESTALE);
		return;
	}
	assert_true(len <= sizeof data);
	for (size_t i = 0; i < len; i++) {
		data[i] = snapshot_byte(&s->snapshot, op->offset + i);
	}
	raft_snapshot_chunk(s->raft, op->from, op->index, op->offset, data, len, total, 0);
}

/* The file is durable; the log on the disk still is what it was: a crash may come here. */
static void keep_snapshot(struct server *s, struct disk_op *op)
{
	struct disk_op *reset;
	uint64_t words[2];

	assert_true(op->offset == s->incoming_len && s->incoming_len >= sizeof words);
	memcpy(words, s->incoming, sizeof words);
	assert_int_equal(words[0], op->index);
	raft_config_fini(&s->snapshot.config);
	s->snapshot = (struct snapshot_file){
		.index = op->index, .term = op->term, .config = op->config, .digest = words[1]};
	op->config = (struct raft_config){.n = 0};
	for (size_t i = 0; i < s->incoming_len; i++) {
		assert_int_equal(s->incoming[i], snapshot_byte(&s->snapshot, i));
	}
	reset = op_new(s, OP_RESET);
	reset->from = op->from;
	reset->index = op->index;
	reset->offset = op->offset;
}

static void install_snapshot(struct server *s, const struct disk_op *op)
{
	disk_forget_from(s, 0);
	s->applied = s->snapshot.index;
	s->digest = s->snapshot.digest;
	assert_int_equal(s->digest, history_digest_at(s->f->history, s->applied));
	raft_snapshot_written(s->raft, op->from, op->index, op->offset, true);
}

static void carry_out(struct server *s, struct disk_op *op, bool tell)
{
	switch (op->kind) {
	case OP_APPEND:
		write_entries(s, op);
		if (tell) {
			raft_log_durable(s->raft, op->gen, op->entries[op->n - 1]->index);
		}
		break;
	case OP_TRUNCATE:
		truncate_entries(s, op->from);
		break;
	case OP_VOTE:
		s->term = op->term;
		s->vote = op->vote;
		if (tell) {
			raft_vote_durable(s->raft, op->term, op->vote);
		}
		break;
	case OP_CHUNK_READ:
		read_chunk(s, op);
		break;
	case OP_CHUNK_WRITE:
		if (op->done) {
			keep_snapshot(s, op);
		} else {
			raft_snapshot_written(s->raft, op->from, op->index, op->offset, false);
		}
		break;
	case OP_RESET:
		install_snapshot(s, op);
		break;
	}
}

bool disk_work(struct fixture *f, uint64_t id, bool tell)
{
	struct server *s = server(f, id);
	struct disk_op *op = s->ops;

	if (s->raft == NULL || op == NULL) {
		return false;
	}
	carry_out(s, op, tell);
	op_free(s, op);
	return true;
}

void hold_disk(struct fixture *f, uint64_t id)
{
	server(f, id)->disk_held = true;
}

void release_disk(struct fixture *f, uint64_t id)
{
	server(f, id)->disk_held = false;
}

/* --- network ----------------------------------------------------------------------------- */

static struct packet *nth_packet(struct fixture *f, size_t nth)
{
	struct packet *p = f->net;

	assert_true(nth < f->n_net);
	while (nth-- > 0) {
		p = p->next;
	}
	return p;
}

void deliver(struct fixture *f, size_t nth)
{
	struct packet *p = nth_packet(f, nth);
	struct server *s = server(f, p->m.to);

	if (s->raft != NULL && !f->cut[p->m.from][p->m.to]) {
		raft_recv(s->raft, &p->m, f->now);
	}
	packet_free(f, p);
}

void drop(struct fixture *f, size_t nth)
{
	packet_free(f, nth_packet(f, nth));
}

void duplicate(struct fixture *f, size_t nth)
{
	packet_add(f, &nth_packet(f, nth)->m);
}

void flush(struct fixture *f, uint64_t id)
{
	struct server *s = server(f, id);

	if (s->raft != NULL) {
		raft_flush(s->raft, f->now);
		raft_check(s->raft);
	}
}

void tick(struct fixture *f, uint64_t id, uint64_t ms)
{
	f->now += ms;
	raft_tick(raft_of(f, id), f->now);
	flush(f, id);
}

static bool work(struct fixture *f)
{
	bool did = false;

	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		flush(f, id);
		while (!f->servers[id].disk_held && disk_work(f, id, true)) {
			did = true;
		}
		flush(f, id);
	}
	return did;
}

void settle(struct fixture *f)
{
	while (work(f) || f->n_net > 0) {
		for (size_t n = f->n_net; n > 0; n--) {
			deliver(f, 0);
		}
	}
}

void pass(struct fixture *f, uint64_t ms)
{
	for (uint64_t end = f->now + ms; f->now < end;) {
		f->now += 10;
		for (uint64_t id = 1; id < SERVERS_MAX; id++) {
			if (f->servers[id].raft != NULL) {
				raft_tick(f->servers[id].raft, f->now);
			}
		}
		settle(f);
	}
}

void cut(struct fixture *f, uint64_t a, uint64_t b)
{
	f->cut[a][b] = true;
	f->cut[b][a] = true;
}

void isolate(struct fixture *f, uint64_t id)
{
	for (uint64_t other = 1; other < SERVERS_MAX; other++) {
		cut(f, id, other);
	}
}

void heal(struct fixture *f)
{
	memset(f->cut, 0, sizeof f->cut);
	memset(f->muted, 0, sizeof f->muted);
}

/* --- requests ---------------------------------------------------------------------------- */

void elect(struct fixture *f, uint64_t id)
{
	/* The first attempt may only tell it the others' term. */
	for (int i = 0; i < 3 && raft_role(raft_of(f, id)) != RAFT_LEADER; i++) {
		tick(f, id, 2 * (uint64_t)f->options.election_timeout_ms);
		settle(f);
	}
	assert_role(f, id, RAFT_LEADER);
}

uint64_t propose(struct fixture *f, uint64_t id, const char *command)
{
	uint64_t index;

	assert_int_equal(raft_propose(raft_of(f, id), command, strlen(command), &index), 0);
	return index;
}

int ask_read(struct fixture *f, uint64_t id, uint64_t read_id)
{
	int rc = raft_read_index(raft_of(f, id), read_id);

	if (rc == 0) {
		history_read_asked(f->history, id, read_id);
	}
	return rc;
}

void take_snapshot(struct fixture *f, uint64_t id)
{
	struct server *s = server(f, id);
	uint64_t index = raft_applied(s->raft);
	struct raft_config config;
	uint64_t first;
	size_t gone = 0;

	if (index <= s->snapshot.index) {
		return;
	}
	assert_int_equal(raft_config_copy(raft_config_at(s->raft, index), &config), 0);
	raft_config_fini(&s->snapshot.config);
	s->snapshot = (struct snapshot_file){.index = index,
		.term = raft_term_at(s->raft, index),
		.config = config,
		.digest = s->digest};
	first = raft_snapshot_taken(s->raft, index);
	while (gone < s->n_entries && s->entries[gone]->index < first) {
		raft_entry_unref(s->entries[gone++]);
	}
	if (gone > 0) {
		s->n_entries -= gone;
		memmove(s->entries, s->entries + gone, s->n_entries * sizeof s->entries[0]);
	}
}

void tell(struct fixture *f, uint64_t to, struct raft_msg msg)
{
	msg.to = to;
	raft_recv(raft_of(f, to), &msg, f->now);
	flush(f, to);
	while (!server(f, to)->disk_held && disk_work(f, to, true)) {
		flush(f, to);
	}
}

void tell_entries(struct fixture *f, uint64_t from, uint64_t to, uint64_t term, uint64_t prev,
	uint64_t prev_term, const uint64_t *terms, size_t n, uint64_t commit)
{
	struct raft_entry *entries[64];

	assert_true(n <= ARRAY_SIZE(entries));
	for (size_t i = 0; i < n; i++) {
		entries[i] = raft_entry_new(prev + 1 + i, terms[i], RAFT_COMMAND, "told", 4);
	}
	tell(f, to,
		(struct raft_msg){.kind = RAFT_APPEND_REQ,
			.from = from,
			.term = term,
			.index = prev,
			.log_term = prev_term,
			.commit = commit,
			.entries = entries,
			.n_entries = n});
	for (size_t i = 0; i < n; i++) {
		raft_entry_unref(entries[i]);
	}
}

/* --- what is seen ------------------------------------------------------------------------ */

struct raft_msg *last_sent(struct fixture *f, uint64_t from, uint64_t to, enum raft_msg_kind kind)
{
	struct raft_msg *m = &f->last[from][to][kind];

	return m->kind == kind ? m : NULL;
}

void forget_sent(struct fixture *f)
{
	memset(f->last, 0, sizeof f->last);
	memset(f->sent, 0, sizeof f->sent);
	f->entries_sent = 0;
}

uint64_t leader_of(struct fixture *f)
{
	uint64_t leader = 0;

	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		if (f->servers[id].raft != NULL && raft_role(f->servers[id].raft) == RAFT_LEADER) {
			if (leader != 0) {
				return 0;
			}
			leader = id;
		}
	}
	return leader;
}

void assert_role(struct fixture *f, uint64_t id, enum raft_role role)
{
	assert_int_equal(raft_role(raft_of(f, id)), role);
}

void assert_commit(struct fixture *f, uint64_t id, uint64_t index)
{
	assert_int_equal(raft_commit(raft_of(f, id)), index);
}

void assert_all_applied(struct fixture *f, uint64_t index)
{
	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		if (f->servers[id].raft != NULL) {
			assert_int_equal(f->servers[id].applied, index);
		}
	}
}

void check_logs(struct fixture *f)
{
	for (uint64_t a = 1; a < SERVERS_MAX; a++) {
		for (uint64_t b = a + 1; b < SERVERS_MAX; b++) {
			if (f->servers[a].raft != NULL && f->servers[b].raft != NULL) {
				history_check_logs(f->servers[a].raft, f->servers[b].raft);
			}
		}
	}
}
