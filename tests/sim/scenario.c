/*
 * scenario.c - a cluster that does what a script says.
 *
 * One command a line; `#` begins a comment. Nodes are numbers, or, after `roles`, L for the
 * leader of that moment and F, G, H, I for the others in the order of their ids.
 *
 *     nodes 3, ttl 5000, timeo 30000, snapshot 2000, trailing 0    at first, if at all
 *     roles
 *     cut L | F G           no frames between the two sides     cut L > F    one direction
 *     heal                  of all cuts and delays              delay L > F 800
 *     crash 1   reboot 1   restart 1   pause 1   resume 1   stop 1 (cleanly)
 *     disk 1 300 (ms a sync)   disk 1 fails
 *     add at=1 id=4   remove at=1 id=2    ask for it: `await 5000 answered 1`
 *     join 4                the process of a server that was added
 *     lock at=1 owner=7 name=x ex wait     (sh; nowait)
 *     unlock owner=7   interrupt owner=7   close owner=7   value owner=7 text
 *     remember              the sessions of this moment
 *     forget 1              for good: a server that was removed
 *     tick 2000
 *     expect CONDITION   expect not CONDITION   await 2000 CONDITION
 *
 *     granted 7   waiting 7   lost 7   ended 7 busy (with this status)
 *     token 8 > 7           the last token of owner 8 is larger than that of owner 7
 *     holders x 1   waiters x 0   value x text    (at the leader)
 *     leader 1   leader none   led (by somebody)
 *     session 1   same-session 1 (as remembered)   snapshot 1 (has taken or received one)
 *     member 4   answered 1   up 1   agree
 *
 * All checks of a chaotic run apply, and each script ends as such a run does: everything is
 * repaired, everybody lets go, and nothing must be left (heal.c).
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define WORDS_MAX 24
#define OWNERS_MAX SIM_CLIENTS_MAX

struct script {
	const char *path;
	unsigned line;
	struct sim *sim;
	bool started;
	char *word[WORDS_MAX + 1];
	size_t n_words;
	uint64_t role[5]; /* L F G H I; 0: not known */
	uint64_t session[SIM_IDS_MAX + 1];
	struct sim_client *client[OWNERS_MAX]; /* by the script's owner */
};

static const char *running_path;
static unsigned running_line;

/* --- words --------------------------------------------------------------------------- */

static _Noreturn void bad_script(const struct script *x, const char *what)
{
	(void)fprintf(stderr, "%s:%u: %s\n", x->path, x->line, what);
	exit(2);
}

static const char *word(const struct script *x, size_t i)
{
	if (i >= x->n_words) {
		bad_script(x, "something is missing");
	}
	return x->word[i];
}

static bool word_is(const struct script *x, size_t i, const char *what)
{
	return i < x->n_words && strcmp(x->word[i], what) == 0;
}

static uint64_t number(const struct script *x, const char *text)
{
	char *end;
	uint64_t v = strtoull(text, &end, 10);

	if (end == text || *end != '\0') {
		bad_script(x, "not a number");
	}
	return v;
}

static uint64_t node_id(const struct script *x, const char *text)
{
	static const char letters[] = "LFGHI";
	const char *letter = text[0] != '\0' && text[1] == '\0' ? strchr(letters, text[0]) : NULL;
	uint64_t id = letter != NULL ? x->role[letter - letters] : number(x, text);

	if (id == 0 || id > SIM_IDS_MAX) {
		bad_script(x, "no such node");
	}
	return id;
}

static struct sim_node *node_at(const struct script *x, size_t i)
{
	return cluster_node(x->sim, node_id(x, word(x, i)));
}

/* The value of `key=value`; NULL: there is none. */
static const char *named(const struct script *x, const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 1; i < x->n_words; i++) {
		if (strncmp(x->word[i], key, len) == 0 && x->word[i][len] == '=') {
			return x->word[i] + len + 1;
		}
	}
	return NULL;
}

static const char *must_be_named(const struct script *x, const char *key)
{
	const char *value = named(x, key);

	if (value == NULL) {
		bad_script(x, "an argument is missing");
	}
	return value;
}

static bool flag(const struct script *x, const char *what)
{
	for (size_t i = 1; i < x->n_words; i++) {
		if (strcmp(x->word[i], what) == 0) {
			return true;
		}
	}
	return false;
}

static unsigned lock_index(struct script *x, const char *name)
{
	unsigned i;

	for (i = 0; i < SIM_LOCKS_MAX && x->sim->locks[i].name[0] != '\0'; i++) {
		if (strcmp(x->sim->locks[i].name, name) == 0) {
			return i;
		}
	}
	if (i == SIM_LOCKS_MAX) {
		bad_script(x, "too many locks");
	}
	(void)snprintf(x->sim->locks[i].name, sizeof x->sim->locks[i].name, "%s", name);
	return i;
}

static struct sim_client *client_of(const struct script *x, const char *text)
{
	uint64_t owner = number(x, text);

	if (owner >= OWNERS_MAX || x->client[owner] == NULL) {
		bad_script(x, "no such owner");
	}
	return x->client[owner];
}

/* --- conditions ---------------------------------------------------------------------- */

static const struct lock *lock_at_leader(const struct script *x, const char *name)
{
	const struct sim_node *leader = cluster_leader(x->sim);

	return leader == NULL ? NULL : state_lock(node_state(leader->node), name, strlen(name));
}

static bool client_condition(const struct script *x, size_t i, bool *ret_known)
{
	*ret_known = true;
	if (word_is(x, i, "granted")) {
		return client_of(x, word(x, i + 1))->holds;
	}
	if (word_is(x, i, "waiting")) {
		return client_of(x, word(x, i + 1))->op != NULL;
	}
	if (word_is(x, i, "lost")) {
		return client_of(x, word(x, i + 1))->state == CLIENT_LOST;
	}
	if (word_is(x, i, "ended")) {
		const struct sim_client *c = client_of(x, word(x, i + 1));

		return c->op == NULL && strcmp(status_name(c->last), word(x, i + 2)) == 0;
	}
	if (word_is(x, i, "token")) {
		return client_of(x, word(x, i + 1))->token > client_of(x, word(x, i + 3))->token;
	}
	*ret_known = false;
	return false;
}

static bool lock_condition(const struct script *x, size_t i, bool *ret_known)
{
	const struct lock *l = lock_at_leader(x, word(x, MIN(i + 1, x->n_words - 1)));

	*ret_known = true;
	if (word_is(x, i, "holders")) {
		return (l == NULL ? 0 : l->n_holders) == number(x, word(x, i + 2));
	}
	if (word_is(x, i, "waiters")) {
		return (l == NULL ? 0 : l->n_waiters) == number(x, word(x, i + 2));
	}
	if (word_is(x, i, "value")) {
		return l != NULL && l->value_len >= strlen(word(x, i + 2)) &&
		       memcmp(l->value, word(x, i + 2), strlen(word(x, i + 2))) == 0;
	}
	*ret_known = false;
	return false;
}

static bool leader_condition(const struct script *x, size_t i)
{
	const struct sim_node *leader = cluster_leader(x->sim);

	if (word_is(x, i, "led")) {
		return leader != NULL && raft_leader_ready(node_raft(leader->node));
	}
	if (word_is(x, i + 1, "none")) {
		return leader == NULL;
	}
	return leader != NULL && leader == node_at(x, i + 1);
}

static bool node_condition(const struct script *x, size_t i)
{
	const struct sim_node *n = node_at(x, i + 1);
	const struct sim_node *leader = cluster_leader(x->sim);

	if (word_is(x, i, "member")) {
		return leader != NULL &&
		       raft_config_find(raft_config(node_raft(leader->node)), n->id) != NULL;
	}
	if (word_is(x, i, "answered")) {
		return !n->change.under_way;
	}
	if (word_is(x, i, "up")) {
		return n->presence == SIM_UP;
	}
	if (!cluster_runs(n)) {
		return false;
	}
	if (word_is(x, i, "session")) {
		return node_lease_end(n->node) > 0;
	}
	if (word_is(x, i, "same-session")) {
		return node_session(n->node) != 0 && node_session(n->node) == x->session[n->id];
	}
	if (word_is(x, i, "snapshot")) {
		return n->disk.newest.index > 0 &&
		       raft_snapshot_index(node_raft(n->node)) == n->disk.newest.index;
	}
	bad_script(x, "not a condition");
}

static bool holds(const struct script *x, size_t i)
{
	bool known;
	bool yes;

	if (word_is(x, i, "not")) {
		return !holds(x, i + 1);
	}
	yes = client_condition(x, i, &known);
	if (!known) {
		yes = lock_condition(x, i, &known);
	}
	if (known) {
		return yes;
	}
	if (word_is(x, i, "leader") || word_is(x, i, "led")) {
		return leader_condition(x, i);
	}
	if (word_is(x, i, "agree")) {
		return cluster_leader(x->sim) != NULL && watch_agree(x->sim);
	}
	return node_condition(x, i);
}

static void expect(struct script *x)
{
	if (!holds(x, 1)) {
		sim_fail(x->sim, "expectation", "it is not so");
	}
}

static void await(struct script *x)
{
	uint64_t until_us = x->sim->now_us + number(x, word(x, 1)) * SIM_MS;

	while (!holds(x, 2)) {
		if (x->sim->now_us >= until_us) {
			sim_fail(x->sim, "expectation", "it did not come to be so in time");
		}
		sim_run_until(x->sim, x->sim->now_us + SIM_MS);
	}
}

/* --- what happens to nodes ----------------------------------------------------------- */

static void find_roles(struct script *x)
{
	const struct sim_node *leader = cluster_leader(x->sim);
	size_t next = 1;

	if (leader == NULL) {
		bad_script(x, "nobody leads");
	}
	memset(x->role, 0, sizeof x->role);
	x->role[0] = leader->id;
	for (unsigned id = 1; id <= SIM_IDS_MAX && next < ARRAY_SIZE(x->role); id++) {
		if (x->sim->nodes[id].presence != SIM_ABSENT && id != leader->id) {
			x->role[next++] = id;
		}
	}
}

static void cut(struct script *x)
{
	bool right = false;
	bool hold = flag(x, "hold");
	uint64_t left_ids = 0;
	uint64_t right_ids = 0;
	bool both_ways = flag(x, "|");

	for (size_t i = 1; i < x->n_words; i++) {
		if (word_is(x, i, "|") || word_is(x, i, ">")) {
			right = true;
		} else if (!word_is(x, i, "hold")) {
			*(right ? &right_ids : &left_ids) |= UINT64_C(1) << node_id(x, x->word[i]);
		}
	}
	for (unsigned a = 1; a <= SIM_IDS_MAX; a++) {
		for (unsigned b = 1; b <= SIM_IDS_MAX; b++) {
			if ((left_ids >> a & 1) == 0 || (right_ids >> b & 1) == 0) {
				continue;
			}
			net_cut(x->sim, a, b, hold);
			if (both_ways) {
				net_cut(x->sim, b, a, hold);
			}
		}
	}
}

static void delay(struct script *x)
{
	struct link *l = &x->sim->net.link[node_id(x, word(x, 1))][node_id(x, word(x, 3))];

	l->delay_us = (uint32_t)(number(x, word(x, 4)) * SIM_MS);
}

static void disk(struct script *x)
{
	struct disk *d = &node_at(x, 1)->disk;

	if (word_is(x, 2, "fails")) {
		d->sync_fails = 1;
	} else {
		d->latency_us = (uint32_t)(number(x, word(x, 2)) * SIM_MS);
	}
}

static void join(struct script *x)
{
	struct sim_node *n = node_at(x, 1);
	const struct sim_node *leader = cluster_leader(x->sim);

	if (leader == NULL || n->presence != SIM_ABSENT) {
		bad_script(x, "it cannot join");
	}
	x->sim->next_id = MAX(x->sim->next_id, n->id + 1);
	cluster_join(x->sim, n->id, raft_config(node_raft(leader->node)));
}

static void change_members(struct script *x, enum raft_change kind)
{
	struct sim_node *at = cluster_node(x->sim, node_id(x, must_be_named(x, "at")));

	cluster_change(at, kind, node_id(x, must_be_named(x, "id")));
}

static bool node_command(struct script *x)
{
	const char *c = x->word[0];

	if (strcmp(c, "crash") == 0 || strcmp(c, "reboot") == 0) {
		cluster_crash(node_at(x, 1), c[0] == 'r');
	} else if (strcmp(c, "restart") == 0) {
		cluster_start(node_at(x, 1));
	} else if (strcmp(c, "pause") == 0) {
		cluster_pause(node_at(x, 1));
	} else if (strcmp(c, "resume") == 0) {
		cluster_resume(node_at(x, 1));
	} else if (strcmp(c, "stop") == 0) {
		cluster_stop(node_at(x, 1));
	} else if (strcmp(c, "forget") == 0) {
		cluster_forget(node_at(x, 1));
	} else if (strcmp(c, "join") == 0) {
		join(x);
	} else if (strcmp(c, "disk") == 0) {
		disk(x);
	} else if (strcmp(c, "add") == 0) {
		change_members(x, RAFT_ADD_LEARNER);
	} else if (strcmp(c, "remove") == 0) {
		change_members(x, RAFT_REMOVE);
	} else {
		return false;
	}
	return true;
}

/* --- what clients do ----------------------------------------------------------------- */

static void lock(struct script *x)
{
	uint64_t at = node_id(x, must_be_named(x, "at"));
	uint64_t owner = number(x, must_be_named(x, "owner"));

	if (owner >= OWNERS_MAX) {
		bad_script(x, "too large an owner");
	}
	if (x->client[owner] == NULL) {
		x->client[owner] = client_new(x->sim, at);
	}
	client_lock(x->client[owner], lock_index(x, must_be_named(x, "name")), flag(x, "sh"),
		!flag(x, "nowait"));
}

static bool client_command(struct script *x)
{
	const char *c = x->word[0];
	const char *owner = named(x, "owner");
	const char *at = named(x, "at");
	struct sim_node *n;

	if (owner == NULL) {
		return false;
	}
	n = cluster_node(x->sim, at != NULL ? node_id(x, at) : client_of(x, owner)->node);
	if (n->presence != SIM_UP || !turn_begin(n)) {
		bad_script(x, "the node does not run");
	}
	if (strcmp(c, "lock") == 0) {
		lock(x);
	} else if (strcmp(c, "unlock") == 0) {
		client_unlock(client_of(x, owner));
	} else if (strcmp(c, "interrupt") == 0) {
		client_interrupt(client_of(x, owner));
	} else if (strcmp(c, "close") == 0) {
		client_close(client_of(x, owner));
	} else if (strcmp(c, "value") == 0) {
		client_set_value(client_of(x, owner), word(x, 2), strlen(word(x, 2)));
	} else {
		bad_script(x, "not a command");
	}
	turn_end(n);
	return true;
}

/* --- the script ---------------------------------------------------------------------- */

static bool setting(struct script *x)
{
	struct sim_profile *p = &x->sim->profile;
	const char *c = x->word[0];
	static const char *const names[] = {"nodes", "ttl", "timeo", "snapshot", "trailing"};
	size_t i = 0;

	while (i < ARRAY_SIZE(names) && strcmp(names[i], c) != 0) {
		i++;
	}
	if (i == ARRAY_SIZE(names)) {
		return false;
	}
	if (x->started) {
		bad_script(x, "too late for a setting");
	}
	switch (i) {
	case 0:
		p->nodes = (unsigned)number(x, word(x, 1));
		break;
	case 1:
		p->ttl_ms = (uint32_t)number(x, word(x, 1));
		break;
	case 2:
		p->timeo_ms = (uint32_t)number(x, word(x, 1));
		break;
	case 3:
		p->snapshot_bytes = number(x, word(x, 1));
		break;
	default:
		p->trailing = number(x, word(x, 1));
		break;
	}
	return true;
}

static void start(struct script *x)
{
	struct sim *s = x->sim;

	cluster_init(s, s->profile.nodes);
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		if (s->profile.snapshot_bytes > 0) {
			s->nodes[id].options.snapshot_log_bytes = s->profile.snapshot_bytes;
		}
		s->nodes[id].options.raft.trailing_entries = s->profile.trailing;
		s->nodes[id].drift_ppm = 0;
	}
	for (unsigned id = 1; id <= s->profile.nodes; id++) {
		cluster_start(&s->nodes[id]);
	}
	x->started = true;
}

static void remember(struct script *x)
{
	for (unsigned id = 1; id <= SIM_IDS_MAX; id++) {
		const struct sim_node *n = &x->sim->nodes[id];

		x->session[id] = cluster_runs(n) ? node_session(n->node) : 0;
	}
}

static void run_command(struct script *x)
{
	const char *c = x->word[0];

	if (setting(x)) {
		return;
	}
	if (!x->started) {
		start(x);
	}
	if (strcmp(c, "expect") == 0) {
		expect(x);
	} else if (strcmp(c, "await") == 0) {
		await(x);
	} else if (strcmp(c, "tick") == 0) {
		sim_run_until(x->sim, x->sim->now_us + number(x, word(x, 1)) * SIM_MS);
	} else if (strcmp(c, "roles") == 0) {
		find_roles(x);
	} else if (strcmp(c, "remember") == 0) {
		remember(x);
	} else if (strcmp(c, "cut") == 0) {
		cut(x);
	} else if (strcmp(c, "heal") == 0) {
		net_heal_all(x->sim);
	} else if (strcmp(c, "delay") == 0) {
		delay(x);
	} else if (!node_command(x) && !client_command(x)) {
		bad_script(x, "not a command");
	}
}

static void run_line(struct script *x, char *line)
{
	char *save = NULL;
	char *w;

	line[strcspn(line, "#\n")] = '\0';
	x->n_words = 0;
	for (w = strtok_r(line, " \t", &save); w != NULL; w = strtok_r(NULL, " \t", &save)) {
		if (x->n_words == WORDS_MAX) {
			bad_script(x, "too many words");
		}
		x->word[x->n_words++] = w;
	}
	if (x->n_words > 0) {
		SIM_TRACE(x->sim, 0, "script", "%s:%u: %s %s", x->path, x->line, x->word[0],
			x->n_words > 1 ? x->word[1] : "");
		run_command(x);
	}
}

static void script_failed(const struct sim *s, const char *check, const char *text)
{
	sim_print_tail(s);
	(void)fprintf(stderr, "%s:%u: at %" PRIu64 " ms: %s: %s\n", running_path, running_line,
		s->now_us / 1000, check, text);
	(void)fflush(NULL);
	_exit(EXIT_FAILURE);
}

static struct sim *script_world(bool print)
{
	struct sim_options o = {
		.seed = 1,
		.print = print,
		.tail = print ? 0 : 100,
		.failed = script_failed,
	};
	struct sim *s = sim_new(&o);

	s->scripted = true;
	s->profile = (struct sim_profile){
		.nodes = 3,
		.ttl_ms = 5000,
		.timeo_ms = 30000,
		.think_us = SIM_MS,
		.hold_us = SIM_MS,
		.trailing = 8192,
	};
	s->net.delay_us = 500;
	s->net.spread_us = 100;
	s->net.ordered = true;
	return s;
}

int scenario_run(const char *path, bool print)
{
	struct script x = {.path = path};
	char line[512];
	FILE *f = fopen(path, "re");

	if (f == NULL) {
		(void)fprintf(stderr, "sim: %s: %s\n", path, strerror(errno));
		return 2;
	}
	x.sim = script_world(print);
	running_path = path;
	while (fgets(line, sizeof line, f) != NULL) {
		running_line = ++x.line;
		run_line(&x, line);
	}
	(void)fclose(f);
	x.sim->scripted = false;
	heal_run(x.sim);
	sim_free(x.sim);
	(void)printf("%s: good\n", path);
	return 0;
}
