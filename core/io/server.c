/*
 * server.c - see server.h.
 *
 * Start: identity, snapshot, log, node, streams; each refuses with a sentence.
 * Every input marks the turn; a check handle (after the poll for I/O) and a
 * prepare handle (before it, for what timers did) flush a marked turn.
 * End: streams, log, snapshot files, handles, then `closed`.
 */
#include "core/io/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/clock.h"
#include "core/io/identity.h"
#include "core/io/members_http.h"
#include "core/io/peers.h"
#include "core/io/snapshots.h"
#include "core/io/wal.h"

#define SECRET_BYTES_MIN 16
#define SECRET_BYTES_MAX 4096
#define HANDLES 4

struct server {
	struct server_options o;
	struct server_events events;
	struct env env;
	struct identity identity;
	uv_loop_t *loop;
	uv_timer_t tick;
	uv_check_t after_poll;
	uv_prepare_t before_poll;
	uv_idle_t more; /* active while the node wants another turn without an input */
	int open_handles;
	bool marked; /* inputs have come since the last flush */
	bool closing;
	char *secret; /* owned */
	char listen[RAFT_ADDR_MAX];
	struct wal *wal;
	struct snapshots *snapshots;
	struct peers *peers;
	struct node *node;
	int load_error; /* of the snapshot being loaded */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* --- the env: node -> world ----------------------------------------------------------------- */

static void env_log_append(void *ctx, uint64_t gen, struct raft_entry *const *entries, size_t n)
{
	wal_append(((struct server *)ctx)->wal, gen, entries, n);
}

static void env_log_truncate(void *ctx, uint64_t from)
{
	wal_truncate(((struct server *)ctx)->wal, from);
}

static void env_log_compact(void *ctx, uint64_t first)
{
	struct server *s = ctx;

	if (!s->closing) { /* a snapshot was finished while the log is being closed */
		wal_compact(s->wal, first);
	}
}

static void env_log_reset(void *ctx, uint64_t index, uint64_t term)
{
	wal_reset(((struct server *)ctx)->wal, index, term);
}

static void env_save_vote(void *ctx, uint64_t term, uint64_t vote)
{
	wal_save_vote(((struct server *)ctx)->wal, term, vote);
}

static void env_snap_begin(
	void *ctx, uint64_t index, uint64_t term, const void *config, size_t config_len)
{
	snapshots_own_begin(((struct server *)ctx)->snapshots, index, term, config, config_len);
}

static void env_snap_append(void *ctx, const void *data, size_t len)
{
	snapshots_own_append(((struct server *)ctx)->snapshots, data, len);
}

static void env_snap_finish(void *ctx)
{
	snapshots_own_finish(((struct server *)ctx)->snapshots);
}

static void env_snap_abort(void *ctx)
{
	snapshots_own_abort(((struct server *)ctx)->snapshots);
}

static void env_snap_read(void *ctx, uint64_t to, uint64_t index, uint64_t offset, size_t max)
{
	snapshots_read(((struct server *)ctx)->snapshots, to, index, offset, max);
}

static void env_snap_receive(void *ctx, uint64_t from, uint64_t index, uint64_t term,
	uint64_t offset, const void *data, size_t len, bool done)
{
	snapshots_receive(
		((struct server *)ctx)->snapshots, from, index, term, offset, data, len, done);
}

static int env_snap_load(
	void *ctx, int (*piece)(void *arg, const void *data, size_t len), void *arg)
{
	struct server *s = ctx;
	char err[512] = "";
	int rc = snapshots_load(s->snapshots, piece, arg, err, sizeof err);

	if (rc < 0) {
		TRACE(&s->o.trace, TRACE_ERROR, "snapshot.unusable", "text=\"%s\"", err);
	}
	return rc;
}

static void env_send(void *ctx, uint64_t to, const void *frame, size_t len)
{
	struct server *s = ctx;

	if (!s->closing) { /* a chunk of a snapshot was read when the streams were closed already */
		peers_send(s->peers, to, frame, len);
	}
}

static void env_peers(void *ctx, const struct raft_config *config)
{
	struct server *s = ctx;

	if (s->peers != NULL) {
		peers_set(s->peers, config);
	}
}

static void env_fatal(void *ctx, const char *text)
{
	struct server *s = ctx;

	s->events.fatal(s->events.ctx, text);
}

static void env_stopped(void *ctx)
{
	struct server *s = ctx;

	s->events.stopped(s->events.ctx);
}

static void make_env(struct server *s)
{
	s->env = (struct env){
		.ctx = s,
		.trace = s->o.trace,
		.log_append = env_log_append,
		.log_truncate = env_log_truncate,
		.log_compact = env_log_compact,
		.log_reset = env_log_reset,
		.save_vote = env_save_vote,
		.snap_begin = env_snap_begin,
		.snap_append = env_snap_append,
		.snap_finish = env_snap_finish,
		.snap_abort = env_snap_abort,
		.snap_read = env_snap_read,
		.snap_receive = env_snap_receive,
		.snap_load = env_snap_load,
		.send = env_send,
		.peers = env_peers,
		.fatal = env_fatal,
		.stopped = env_stopped,
	};
}

/* --- events: world -> node ------------------------------------------------------------------ */

void server_input(struct server *s)
{
	s->marked = true;
	node_set_now(s->node, clock_boot_ms(), clock_unix_ms());
}

static void on_log_durable(void *ctx, uint64_t gen, uint64_t index)
{
	struct server *s = ctx;

	server_input(s);
	node_log_durable(s->node, gen, index);
}

static void on_vote_durable(void *ctx, uint64_t term, uint64_t vote)
{
	struct server *s = ctx;

	server_input(s);
	node_vote_durable(s->node, term, vote);
}

static void on_log_reset(void *ctx, uint64_t index)
{
	struct server *s = ctx;

	server_input(s);
	node_log_reset(s->node, index);
}

static void on_low_space(void *ctx, bool low)
{
	struct server *s = ctx;

	TRACE(&s->o.trace, low ? TRACE_ERROR : TRACE_INFO, "disk.space", "%s dir=%s",
		low ? "low: this node will not lead until there is room" : "ok", s->o.dir);
	server_input(s);
	node_low_space(s->node, low);
}

static void on_failed(void *ctx, int error, const char *text)
{
	env_fatal(ctx, text);
}

static void on_snap_written(void *ctx, size_t buffered)
{
	struct server *s = ctx;

	server_input(s);
	node_snap_written(s->node, buffered);
}

static void on_snap_done(void *ctx, uint64_t index)
{
	struct server *s = ctx;

	server_input(s);
	node_snap_done(s->node, index);
}

static void on_snap_received(
	void *ctx, uint64_t from, uint64_t index, uint64_t next_offset, bool done)
{
	struct server *s = ctx;

	server_input(s);
	node_snap_received(s->node, from, index, next_offset, done);
}

static void on_snap_chunk(void *ctx, uint64_t to, uint64_t index, uint64_t offset, const void *data,
	size_t len, uint64_t total, int error)
{
	struct server *s = ctx;

	server_input(s);
	node_snap_chunk(s->node, to, index, offset, data, len, total, error);
}

static bool on_admit(void *ctx, uint64_t id, const uint8_t uuid[16])
{
	return node_admits(((struct server *)ctx)->node, id, uuid);
}

static void on_frame(void *ctx, uint64_t from, const void *body, size_t len)
{
	struct server *s = ctx;

	server_input(s);
	node_frame(s->node, from, body, len);
}

static void on_up(void *ctx, uint64_t id)
{
	struct server *s = ctx;

	server_input(s);
	node_peer_up(s->node, id);
}

static void on_turn(void *ctx)
{
	/* The check handle flushes, with what else this iteration brings. */
}

static void on_request(void *ctx, struct peers_request *r, const char *method, const char *path,
	const void *body, size_t len)
{
	struct server *s = ctx;

	server_input(s);
	members_http_request(s->node, r, method, path, body, len);
}

/* --- turns ---------------------------------------------------------------------------------- */

static void on_more(uv_idle_t *handle)
{
	server_input(handle->data);
}

static void flush(struct server *s)
{
	if (!s->marked || s->closing) {
		return;
	}
	s->marked = false;
	/* An input may have taken long (a snapshot was loaded): does the lease still hold? */
	node_set_now(s->node, clock_boot_ms(), clock_unix_ms());
	node_flush(s->node);
	peers_flush(s->peers);
	if (node_wants_turn(s->node)) {
		(void)uv_idle_start(&s->more, on_more); /* fails only for a NULL callback */
	} else {
		(void)uv_idle_stop(&s->more); /* never fails */
	}
	if (s->events.flushed != NULL) {
		s->events.flushed(s->events.ctx);
	}
}

static void on_after_poll(uv_check_t *handle)
{
	flush(handle->data);
}

static void on_before_poll(uv_prepare_t *handle)
{
	flush(handle->data);
}

static void on_tick(uv_timer_t *handle)
{
	struct server *s = handle->data;

	server_input(s);
	node_tick(s->node);
}

static void start_turns(struct server *s)
{
	uint64_t every = MAX(s->o.node.raft.heartbeat_ms / 4, 1);

	(void)uv_timer_init(s->loop, &s->tick); /* these four cannot fail */
	(void)uv_check_init(s->loop, &s->after_poll);
	(void)uv_prepare_init(s->loop, &s->before_poll);
	(void)uv_idle_init(s->loop, &s->more);
	s->tick.data = s;
	s->after_poll.data = s;
	s->before_poll.data = s;
	s->more.data = s;
	s->open_handles = HANDLES;
	(void)uv_timer_start(&s->tick, on_tick, every, every);
	(void)uv_check_start(&s->after_poll, on_after_poll);
	(void)uv_prepare_start(&s->before_poll, on_before_poll);
}

/* --- start: who we are ---------------------------------------------------------------------- */

static int read_secret(struct server *s, char *err, size_t err_size)
{
	char text[SECRET_BYTES_MAX + 1];
	FILE *f = fopen(s->o.secret_file, "re");
	struct stat st;
	size_t len;

	if (f == NULL || fstat(fileno(f), &st) < 0) {
		(void)snprintf(err, err_size, "the secret file %s cannot be read: %s",
			s->o.secret_file, strerror(errno));
		return -ENOENT;
	}
	if ((st.st_mode & 077) != 0) {
		(void)fclose(f); /* only looked at */
		(void)snprintf(err, err_size, "the secret file %s is open to others; chmod 600 it",
			s->o.secret_file);
		return -EPERM;
	}
	len = fread(text, 1, SECRET_BYTES_MAX, f);
	(void)fclose(f); /* only read from */
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r')) {
		len--;
	}
	text[len] = '\0';
	if (len < SECRET_BYTES_MIN || strlen(text) != len || strpbrk(text, "\r\n") != NULL) {
		(void)snprintf(err, err_size,
			"the secret in %s must be one line of at least %d bytes", s->o.secret_file,
			SECRET_BYTES_MIN);
		return -EINVAL;
	}
	s->secret = xstrdup(text);
	return 0;
}

static int draw(void *out, size_t bytes)
{
	return getrandom(out, bytes, 0) == (ssize_t)bytes ? 0 : -EIO;
}

static int bootstrap(struct server *s, char *err, size_t err_size)
{
	int rc = identity_parse_servers(s->o.peers, &s->identity.servers, err, err_size);

	if (rc < 0) {
		return rc;
	}
	if (s->identity.servers.n > RAFT_VOTERS_MAX) {
		(void)snprintf(err, err_size, "a new cluster has at most %d nodes; others join it",
			RAFT_VOTERS_MAX);
		return -EINVAL;
	}
	s->identity.id = s->o.id;
	if (raft_config_find(&s->identity.servers, s->o.id) == NULL) {
		(void)snprintf(err, err_size, "--id %llu is not in the list of --peers",
			(unsigned long long)s->o.id);
		return -EINVAL;
	}
	return 0;
}

static int make_identity(struct server *s, char *err, size_t err_size)
{
	int rc;

	if (s->o.join != NULL && s->o.listen == NULL) {
		(void)snprintf(err, err_size, "--join needs --listen HOST:PORT");
		return -EINVAL;
	}
	if (s->o.join == NULL && (s->o.peers == NULL || s->o.id == 0)) {
		(void)snprintf(err, err_size,
			"%s is new: give --id and --peers to start a cluster, or --join", s->o.dir);
		return -EINVAL;
	}
	rc = draw(s->identity.uuid, sizeof s->identity.uuid);
	if (rc == 0 && s->o.join != NULL) {
		rc = members_http_join(s->o.join, s->secret, s->o.listen, &s->identity.id,
			&s->identity.servers, err, err_size);
	} else if (rc == 0) {
		rc = bootstrap(s, err, err_size);
	}
	if (rc < 0) {
		return rc;
	}
	return identity_store(s->o.dir, &s->identity, err, err_size);
}

/* One process per directory: a second one would vote and write beside the first. */
static int claim_dir(struct server *s, char *err, size_t err_size)
{
	char path[4096];
	int fd;
	int rc = 0;

	if (mkdir(s->o.dir, 0700) < 0 && errno != EEXIST) {
		rc = -errno;
		(void)snprintf(err, err_size, "%s cannot be made: %s", s->o.dir, strerror(-rc));
		return rc;
	}
	(void)snprintf(path, sizeof path, "%s/lock", s->o.dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
		rc = -errno;
		(void)snprintf(err, err_size,
			rc == -EWOULDBLOCK ? "%s is in use by another coordd"
					   : "%s cannot be locked",
			s->o.dir);
	}
	return rc; /* the descriptor stays open as long as the process lives */
}

static int find_identity(struct server *s, char *err, size_t err_size)
{
	int rc = claim_dir(s, err, err_size);

	if (rc < 0) {
		return rc;
	}
	rc = identity_load(s->o.dir, &s->identity, err, err_size);
	if (rc == -ENOENT) {
		rc = identity_check_new(s->o.dir, err, err_size);
		if (rc == 0) {
			rc = make_identity(s, err, err_size);
		}
	}
	if (rc == 0 && s->o.id != 0 && s->o.id != s->identity.id) {
		(void)snprintf(err, err_size, "%s belongs to node %llu, not to node %llu", s->o.dir,
			(unsigned long long)s->identity.id, (unsigned long long)s->o.id);
		rc = -EINVAL;
	}
	return rc;
}

/* --- start: what the disk has --------------------------------------------------------------- */

static int open_log(struct server *s, struct wal_recovered *rec, char *err, size_t err_size)
{
	struct wal_events events = {
		.ctx = s,
		.durable = on_log_durable,
		.vote_durable = on_vote_durable,
		.reset_done = on_log_reset,
		.low_space = on_low_space,
		.failed = on_failed,
	};
	struct wal_options o = {
		.dir = s->o.dir,
		.segment_bytes = s->o.segment_bytes,
		.create = !s->identity.initialised,
		.trace = s->o.trace,
	};
	int rc = wal_open(s->loop, &o, &events, &s->wal, rec, err, err_size);

	if (rc == -EEXIST && o.create) {
		o.create = false; /* made, and then stopped before it was marked */
		rc = wal_open(s->loop, &o, &events, &s->wal, rec, err, err_size);
	}
	if (rc == 0 && !s->identity.initialised) {
		s->identity.initialised = true;
		rc = identity_store(s->o.dir, &s->identity, err, err_size);
	}
	return rc;
}

static int open_snapshots(struct server *s, struct snap_meta *meta, char *err, size_t err_size)
{
	struct snap_events events = {
		.ctx = s,
		.own_written = on_snap_written,
		.own_done = on_snap_done,
		.received = on_snap_received,
		.chunk = on_snap_chunk,
		.failed = on_failed,
	};

	return snapshots_open(
		s->loop, s->o.dir, &events, &s->o.trace, &s->snapshots, meta, err, err_size);
}

/*
 * The entries behind the snapshot. A snapshot that was received and then not followed by the
 * log's restart (the process died between) makes the log start over.
 */
static int fit_log(struct server *s, const struct wal_recovered *rec, const struct snap_meta *meta,
	struct raft_start *start, char *err, size_t err_size)
{
	uint64_t last = rec->prev_index + rec->n_entries;
	uint64_t at = meta->index;
	uint64_t term_at = rec->prev_term;

	start->term = rec->term;
	start->vote = rec->vote;
	start->snapshot_index = meta->index;
	start->snapshot_term = meta->term;
	if (rec->prev_index > at) {
		(void)snprintf(err, err_size,
			"the log in %s starts behind entry %llu, but the newest snapshot ends at "
			"%llu: "
			"a snapshot is missing. Remove the directory and let the node join as a "
			"new one",
			s->o.dir, (unsigned long long)rec->prev_index, (unsigned long long)at);
		return -EUCLEAN;
	}
	if (at > rec->prev_index && at <= last) {
		term_at = rec->entries[at - rec->prev_index - 1]->term;
	}
	if (at > last || term_at != meta->term) {
		wal_reset(s->wal, meta->index, meta->term);
		return 0;
	}
	if (last > at) {
		start->entries = rec->entries + (at - rec->prev_index);
		start->n_entries = (size_t)(last - at);
	}
	return 0;
}

static int start_node(struct server *s, const struct wal_recovered *rec,
	const struct snap_meta *meta, char *err, size_t err_size)
{
	struct raft_config config = {0};
	struct node_start start = {.snapshot = meta->index != 0, .resume = true};
	int rc = fit_log(s, rec, meta, &start.raft, err, err_size);

	if (rc < 0) {
		return rc;
	}
	start.raft.config = &s->identity.servers;
	if (meta->index != 0) {
		rc = raft_config_decode(meta->config, meta->config_len, &config);
		start.raft.config = &config;
	}
	s->o.node.raft.id = s->identity.id;
	s->o.node.raft.trace = s->o.trace;
	memcpy(s->o.node.uuid, s->identity.uuid, sizeof s->o.node.uuid);
	if (rc == 0) {
		rc = draw(&s->o.node.raft.seed, sizeof s->o.node.raft.seed);
	}
	if (rc == 0) {
		rc = node_new(&s->o.node, &s->env, &start, clock_boot_ms(), &s->node);
	}
	raft_config_fini(&config);
	if (rc < 0) {
		(void)snprintf(err, err_size, "the log or the snapshot in %s cannot be used: %s",
			s->o.dir, strerror(-rc));
	}
	return rc;
}

static int open_storage(struct server *s, char *err, size_t err_size)
{
	struct wal_recovered rec = {0};
	struct snap_meta meta = {0};
	int rc = open_snapshots(s, &meta, err, err_size);

	if (rc == 0) {
		rc = open_log(s, &rec, err, err_size);
	}
	if (rc == 0) {
		rc = start_node(s, &rec, &meta, err, err_size);
	}
	wal_recovered_fini(&rec);
	free(meta.config);
	return rc;
}

/* --- start: the others ---------------------------------------------------------------------- */

static int open_peers(struct server *s, char *err, size_t err_size)
{
	const struct raft_config *config = raft_config(node_raft(s->node));
	const struct raft_server *self = raft_config_find(config, s->identity.id);
	struct peers_events events = {
		.ctx = s,
		.admit = on_admit,
		.frame = on_frame,
		.up = on_up,
		.turn = on_turn,
		.request = on_request,
	};
	struct peers_options o = {
		.id = s->identity.id,
		.secret = s->secret,
		.listen = s->listen,
		.trace = s->o.trace,
	};
	int rc;

	if (s->o.listen != NULL) {
		(void)snprintf(s->listen, sizeof s->listen, "%s", s->o.listen);
	} else if (self != NULL) {
		(void)snprintf(s->listen, sizeof s->listen, "%s", self->addr);
	}
	if (!identity_addr_valid(s->listen)) {
		(void)snprintf(err, err_size, "--listen must be HOST:PORT");
		return -EINVAL;
	}
	memcpy(o.uuid, s->identity.uuid, sizeof o.uuid);
	rc = peers_open(s->loop, &o, &events, &s->peers, err, err_size);
	if (rc == 0) {
		peers_set(s->peers, config);
	}
	return rc;
}

int server_open(uv_loop_t *loop, const struct server_options *o, const struct server_events *events,
	struct server **ret_server, char *err, size_t err_size)
{
	struct server *s = xcalloc(1, sizeof *s);
	int rc;

	s->o = *o;
	s->events = *events;
	s->loop = loop;
	make_env(s);
	rc = read_secret(s, err, err_size);
	if (rc == 0) {
		rc = find_identity(s, err, err_size);
	}
	if (rc == 0) {
		rc = open_storage(s, err, err_size);
	}
	if (rc == 0) {
		rc = open_peers(s, err, err_size);
	}
	if (rc < 0) {
		return rc; /* the process ends: what is open goes with it, and nothing was promised
			    */
	}
	start_turns(s);
	TRACE(&s->o.trace, TRACE_INFO, "node.start", "id=%llu listen=%s dir=%s last=%llu term=%llu",
		(unsigned long long)s->identity.id, s->listen, s->o.dir,
		(unsigned long long)raft_last_index(node_raft(s->node)),
		(unsigned long long)raft_term(node_raft(s->node)));
	*ret_server = s;
	return 0;
}

struct node *server_node(struct server *s)
{
	return s->node;
}

uint64_t server_id(const struct server *s)
{
	return s->identity.id;
}

/* --- end ------------------------------------------------------------------------------------ */

void server_shutdown(struct server *s, uint32_t max_ms)
{
	server_input(s);
	node_shutdown(s->node, max_ms);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct server *s = handle->data;
	void (*closed)(void *ctx) = s->closed;
	void *ctx = s->closed_ctx;

	if (--s->open_handles > 0) {
		return;
	}
	node_free(s->node);
	identity_fini(&s->identity);
	free(s->secret);
	free(s);
	closed(ctx);
}

static void on_snapshots_closed(void *ctx)
{
	struct server *s = ctx;

	uv_close((uv_handle_t *)&s->tick, on_handle_closed);
	uv_close((uv_handle_t *)&s->after_poll, on_handle_closed);
	uv_close((uv_handle_t *)&s->before_poll, on_handle_closed);
	uv_close((uv_handle_t *)&s->more, on_handle_closed);
}

static void on_wal_closed(void *ctx)
{
	struct server *s = ctx;

	snapshots_close(s->snapshots, on_snapshots_closed, s);
}

static void on_peers_closed(void *ctx)
{
	struct server *s = ctx;

	wal_close(s->wal, on_wal_closed, s);
}

void server_close(struct server *s, void (*closed)(void *ctx), void *ctx)
{
	s->closing = true;
	s->closed = closed;
	s->closed_ctx = ctx;
	(void)uv_timer_stop(&s->tick); /* never fails */
	(void)uv_idle_stop(&s->more);
	peers_close(s->peers, on_peers_closed, s);
}
