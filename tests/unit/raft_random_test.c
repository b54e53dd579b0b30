/*
 * raft_random_test.c - a few hundred seeds of a hostile network.
 *
 * Messages are lost, doubled and reordered, links cut one way and both,
 * servers crash with their disk's queue half written, snapshots are taken, members
 * change, leadership is handed over. The fixture's checkers watch every effect; in the end
 * everything heals, and the cluster must work again. A failure names its seed:
 * RAFT_SEED=n runs that one alone, RAFT_SEEDS=n another number of them, with RAFT_TRACE=1 it
 * tells what happened.
 */
#include "raft_fixture.h"

#include <signal.h>

#include "coordfs/util.h"

#define SEEDS 1000
#define STEPS 10000

#ifdef COORDFS_PLANT
unsigned coordfs_planted; /* RAFT_PLANT=n: bug number n of core/raft/plant.h; this must fail */
#endif

static uint64_t running; /* the seed, 0 after the last one */

struct chaos {
	struct fixture *f;
	uint64_t random;
	uint64_t reads;
	bool joined[SERVERS_MAX];
};

static uint64_t draw(struct chaos *c, uint64_t n)
{
	c->random ^= c->random << 13; /* xorshift64 (Marsaglia 2003) */
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random % n;
}

static uint64_t any_server(struct chaos *c)
{
	return 1 + draw(c, SERVERS_MAX - 1);
}

/* Somebody who believes to lead: NULL if the dice found none. */
static struct server *any_leader(struct chaos *c)
{
	for (int i = 0; i < SERVERS_MAX; i++) {
		struct server *s = &c->f->servers[any_server(c)];

		if (s->raft != NULL && raft_role(s->raft) == RAFT_LEADER) {
			return s;
		}
	}
	return NULL;
}

static void some_message(struct chaos *c)
{
	struct fixture *f = c->f;
	size_t nth;

	if (f->n_net == 0) {
		return;
	}
	nth = draw(c, 4) == 0 ? draw(c, MIN(f->n_net, (size_t)32)) : 0;
	switch (draw(c, 25)) {
	case 0:
		drop(f, nth);
		break;
	case 1:
		duplicate(f, nth);
		break;
	default:
		deliver(f, nth);
		break;
	}
	while (f->n_net > 400) {
		drop(f, 0);
	}
}

static void some_time(struct chaos *c)
{
	struct fixture *f = c->f;

	f->now += draw(c, 400) == 0 ? draw(c, 2000) : 1 + draw(c, 20);
	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		if (f->servers[id].raft != NULL && draw(c, 20) != 0) {
			raft_tick(f->servers[id].raft, f->now);
			flush(f, id);
		}
	}
}

static void some_proposals(struct chaos *c)
{
	struct server *s = any_leader(c);
	uint64_t index;
	char command[40];

	if (s == NULL) {
		return;
	}
	for (uint64_t n = draw(c, 6); n > 0; n--) {
		int len = snprintf(command, sizeof command, "%016" PRIx64, draw(c, UINT64_MAX));

		(void)raft_propose(s->raft, command, (size_t)len, &index); /* refused is fine */
	}
	if (draw(c, 2) == 0) {
		flush(c->f, s->id);
	}
}

static void some_read(struct chaos *c)
{
	struct server *s = any_leader(c);

	if (s != NULL && ask_read(c->f, s->id, ++c->reads) == 0 && draw(c, 2) == 0) {
		flush(c->f, s->id);
	}
}

static void some_change(struct chaos *c)
{
	struct server *s = any_leader(c);
	uint64_t id = any_server(c);

	if (s == NULL) {
		return;
	}
	switch (draw(c, 3)) {
	case 0:
		/* An id is never used again after a removal. */
		if (!c->joined[id] &&
			raft_change_config(s->raft, RAFT_ADD_LEARNER, id, "a:1") == 0) {
			c->joined[id] = true;
			if (c->f->servers[id].raft == NULL) {
				join(c->f, id);
			}
		}
		break;
	case 1:
		(void)raft_change_config(s->raft, RAFT_PROMOTE, id, NULL);
		break;
	case 2:
		if (raft_config(s->raft)->n > 3) {
			(void)raft_change_config(s->raft, RAFT_REMOVE, id, NULL);
		}
		break;
	default:
		break;
	}
}

/* Some of what was queued is on the disk, though raft was never told. */
static void some_crash(struct chaos *c)
{
	uint64_t id = any_server(c);

	if (!c->joined[id]) {
		return;
	}
	if (c->f->servers[id].raft == NULL) {
		restart(c->f, id);
		return;
	}
	for (uint64_t n = draw(c, 4); n > 0; n--) {
		(void)disk_work(c->f, id, false);
	}
	crash(c->f, id);
	if (draw(c, 2) == 0) {
		restart(c->f, id);
	}
}

static void some_partition(struct chaos *c)
{
	uint64_t a = any_server(c);
	uint64_t b = any_server(c);

	switch (draw(c, 5)) {
	case 0:
		cut(c->f, a, b);
		break;
	case 1:
		c->f->cut[a][b] = true;
		break;
	case 2:
		isolate(c->f, a);
		break;
	default:
		heal(c->f);
		break;
	}
}

static void some_transfer(struct chaos *c)
{
	struct server *s = any_leader(c);

	if (s != NULL) {
		(void)raft_transfer(s->raft, draw(c, 2) == 0 ? 0 : any_server(c), c->f->now);
	}
}

static void some_snapshot(struct chaos *c)
{
	uint64_t id = any_server(c);

	if (c->f->servers[id].raft != NULL) {
		take_snapshot(c->f, id);
	}
}

static void step(struct chaos *c)
{
	uint64_t dice = draw(c, 1000);

	if (dice < 500) {
		some_message(c);
	} else if (dice < 600) {
		some_time(c);
	} else if (dice < 840) {
		(void)disk_work(c->f, any_server(c), true);
	} else if (dice < 930) {
		some_proposals(c);
	} else if (dice < 955) {
		some_read(c);
	} else if (dice < 965) {
		some_snapshot(c);
	} else if (dice < 970) {
		some_change(c);
	} else if (dice < 984) {
		some_partition(c);
	} else if (dice < 990) {
		some_crash(c);
	} else if (dice < 993) {
		some_transfer(c);
	}
	flush(c->f, any_server(c));
}

/* Every server that is still a member agrees on everything. */
static void works_again(struct chaos *c)
{
	struct fixture *f = c->f;
	const struct raft_config *config;
	uint64_t leader;
	uint64_t index;

	heal(f);
	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		if (c->joined[id] && f->servers[id].raft == NULL) {
			restart(f, id);
		}
	}
	pass(f, 5000);
	leader = leader_of(f);
	assert_int_not_equal(leader, 0);
	index = propose(f, leader, "last");
	pass(f, 1000);
	assert_commit(f, leader, index);
	config = raft_config(raft_of(f, leader));
	for (size_t i = 0; i < config->n; i++) {
		assert_int_equal(server(f, config->servers[i].id)->applied, index);
		assert_int_equal(
			server(f, config->servers[i].id)->digest, server(f, leader)->digest);
	}
	check_logs(f);
}

static void run(uint64_t seed)
{
	struct chaos c = {.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};

	c.f = fixture_new(seed % 2 == 0 ? 3 : 5);
	c.f->options.seed = seed;
	c.f->options.trailing_entries = draw(&c, 20);
	c.f->options.append_entries_max = 1 + draw(&c, 8);
	c.f->options.inflight_max = 1 + draw(&c, 8);
	c.f->options.snapshot_chunk_bytes = 100 + draw(&c, 1000);
	for (uint64_t id = 1; id < SERVERS_MAX; id++) {
		c.joined[id] = c.f->servers[id].raft != NULL;
		if (c.joined[id]) {
			restart(c.f, id);
		}
	}
	for (int i = 0; i < STEPS; i++) {
		step(&c);
		if (i % 100 == 0) {
			check_logs(c.f);
		}
	}
	works_again(&c);
	fixture_free(c.f);
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value == NULL ? otherwise : strtoull(value, NULL, 10);
}

static void no_seed_breaks_a_promise(void **state)
{
	uint64_t one = from_environment("RAFT_SEED", 0);
	uint64_t seeds = from_environment("RAFT_SEEDS", SEEDS);

	(void)state;
#ifdef COORDFS_PLANT
	coordfs_planted = 1u << from_environment("RAFT_PLANT", 31);
#endif
	for (running = one != 0 ? one : 1; running <= (one != 0 ? one : seeds); running++) {
		run(running);
	}
	running = 0;
}

static int name_the_seed(void **state)
{
	(void)state;
	if (running != 0) {
		(void)fprintf(stderr, "failed with RAFT_SEED=%" PRIu64 "\n", running);
	}
	return 0;
}

/* A failed ASSERT does not come back to cmocka. */
static void on_abort(int signum)
{
	(void)signum;
	(void)name_the_seed(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(no_seed_breaks_a_promise, name_the_seed),
	};

	(void)signal(SIGABRT, on_abort);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
