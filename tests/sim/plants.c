/*
 * plants.c - see plants.h. Without COORDFS_PLANT the list is empty.
 *
 * Some of the core's safeguards stand one behind the other, and one that is taken
 * away leaves nothing to see:
 *   - DUPLICATE_APPLIED alone: the leader lets no duplicate into the log;
 *     so it is planted together with a leader that does.
 *   - EXTEND_EXPIRING is not in the list: a leader proposes a session's end only after a
 *     silence longer than any lease that it, or a leader before it, has granted, and a node
 *     whose lease has run out has forgotten the session: a late answer prolongs nothing.
 */
#include "tests/sim/plants.h"

#include "core/plant.h"
#include "core/raft/plant.h"
#include "core/state/plant.h"

#ifdef COORDFS_PLANT

#define BIT(bug) (1u << (bug))

unsigned coordfs_planted;
unsigned coordfs_planted_state;
unsigned coordfs_planted_node;

static const struct sim_plant plants[] = {
	{"commit-old-term", BIT(PLANT_COMMIT_OLD_TERM), 0, 0, BIAS_SHORT_LEADERS, 4000},
	{"vote-not-persisted", BIT(PLANT_VOTE_NOT_PERSISTED), 0, 0, BIAS_NONE, 100},
	{"ack-before-durable", BIT(PLANT_ACK_BEFORE_DURABLE), 0, 0, BIAS_NONE, 100},
	{"leader-counts-unsynced", BIT(PLANT_LEADER_COUNTS_UNSYNCED), 0, 0, BIAS_NONE, 1000},
	{"ack-beyond-match", BIT(PLANT_ACK_BEYOND_MATCH), 0, 0, BIAS_NONE, 500},
	{"no-read-round", BIT(PLANT_NO_READ_ROUND), 0, 0, BIAS_LEASES, 1000},
	{"config-not-undone", BIT(PLANT_CONFIG_NOT_UNDONE), 0, 0, BIAS_NONE, 1000},
	{"double-vote", BIT(PLANT_DOUBLE_VOTE), 0, 0, BIAS_NONE, 500},
	{"no-pump-on-cancel", 0, BIT(PLANT_STATE_NO_PUMP_ON_CANCEL), 0, BIAS_NONE, 100},
	{"token-reuse", 0, BIT(PLANT_STATE_TOKEN_REUSE), 0, BIAS_NONE, 100},
	{"duplicate-applied", 0, BIT(PLANT_STATE_DUPLICATE_APPLIED), BIT(PLANT_RESEND_UNDEDUPED),
		BIAS_NONE, 500},
	{"lease-from-receive", 0, 0, BIT(PLANT_LEASE_FROM_RECEIVE), BIAS_LEASES, 1000},
	{"lease-no-round", 0, 0, BIT(PLANT_LEASE_NO_ROUND), BIAS_LEASES, 1000},
	{"expire-early", 0, 0, BIT(PLANT_EXPIRE_EARLY), BIAS_NONE, 500},
	{"no-failstop", 0, 0, BIT(PLANT_NO_FAILSTOP), BIAS_NONE, 500},
	{"cancel-forgotten", 0, 0, BIT(PLANT_CANCEL_FORGOTTEN), BIAS_NONE, 100},
};

const struct sim_plant *plant_list(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(plants);
	return plants;
}

void plant_switch_on(const struct sim_plant *p)
{
	if (p != NULL) {
		coordfs_planted = p->raft;
		coordfs_planted_state = p->state;
		coordfs_planted_node = p->node;
	}
}

#else

const struct sim_plant *plant_list(size_t *ret_n)
{
	*ret_n = 0;
	return NULL;
}

void plant_switch_on(const struct sim_plant *p)
{
	ASSERT(p == NULL);
}

#endif

const struct sim_plant *plant_find(const char *name)
{
	size_t n;
	const struct sim_plant *list = plant_list(&n);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(list[i].name, name) == 0) {
			return &list[i];
		}
	}
	return NULL;
}
