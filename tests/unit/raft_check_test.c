/*
 * raft_check_test.c - raft_check() notices what must never be.
 *
 * Each case breaks one fact in a child process, which must then abort.
 */
#include "raft_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/raft/raft_internal.h"

static void commit_past_the_log(struct raft *r)
{
	r->commit = rlog_last(&r->log) + 1;
}

static void applied_past_commit(struct raft *r)
{
	r->applied = r->commit + 1;
}

static void durable_before_it_was_queued(struct raft *r)
{
	r->durable = r->queued + 1;
}

static void queued_past_the_log(struct raft *r)
{
	r->queued = rlog_last(&r->log) + 1;
	r->durable = 0;
}

static void a_term_that_falls(struct raft *r)
{
	(*rlog_at(&r->log, 1))->term = 9;
}

static void a_gap(struct raft *r)
{
	(*rlog_at(&r->log, 2))->index = 7;
}

static void an_entry_of_the_future(struct raft *r)
{
	(*rlog_at(&r->log, 2))->term = 9;
}

static void a_released_entry(struct raft *r)
{
	(*rlog_at(&r->log, 2))->refs = 0;
}

static void a_snapshot_of_what_is_not_applied(struct raft *r)
{
	r->snapshot_index = r->applied + 1;
}

static void a_log_compacted_past_the_snapshot(struct raft *r)
{
	rlog_compact(&r->log, 1);
}

static void a_durable_term_of_the_future(struct raft *r)
{
	r->durable_term = r->term + 1;
}

static void matched_past_the_log(struct raft *r)
{
	r->matched = rlog_last(&r->log) + 1;
}

static void a_configuration_that_is_not_in_the_log(struct raft *r)
{
	r->configs[r->n_configs - 1].index = rlog_last(&r->log) + 1;
}

static void a_leader_who_follows_another(struct raft *r)
{
	r->leader = 2;
}

static void a_follower_of_itself(struct raft *r)
{
	r->role = RAFT_FOLLOWER;
}

static void a_transfer_without_leadership(struct raft *r)
{
	r->role = RAFT_FOLLOWER;
	r->leader = 0;
	r->transfer_to = 2;
}

static void a_leader_without_its_own_durable_vote(struct raft *r)
{
	r->durable_vote = 0;
}

static bool check_aborts(struct raft *r, void (*break_it)(struct raft *r))
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		(void)signal(SIGABRT, SIG_DFL); /* cmocka would report it as the parent's */
		(void)dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
		break_it(r);
		raft_check(r);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void every_broken_fact_is_noticed(void **state)
{
	void (*const breaks[])(struct raft *) = {
		commit_past_the_log,
		applied_past_commit,
		durable_before_it_was_queued,
		queued_past_the_log,
		a_term_that_falls,
		a_gap,
		an_entry_of_the_future,
		a_released_entry,
		a_snapshot_of_what_is_not_applied,
		a_log_compacted_past_the_snapshot,
		a_durable_term_of_the_future,
		matched_past_the_log,
		a_configuration_that_is_not_in_the_log,
		a_leader_who_follows_another,
		a_follower_of_itself,
		a_transfer_without_leadership,
		a_leader_without_its_own_durable_vote,
	};
	struct fixture *f = fixture_new(3);

	(void)state;
	elect(f, 1);
	(void)propose(f, 1, "x");
	settle(f);
	raft_check(raft_of(f, 1));
	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		if (!check_aborts(raft_of(f, 1), breaks[i])) {
			fail_msg("raft_check() did not notice number %zu", i);
		}
	}
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_broken_fact_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
