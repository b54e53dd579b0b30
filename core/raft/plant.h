/*
 * plant.h - known bugs that can be switched on, to show that the checkers see them.
 *
 * Only a build with COORDFS_PLANT has them; in any other PLANTED() is a
 * constant and the code around it is what it says. The simulator sets bits of
 * `coordfs_planted`; each must then make a checker fail.
 */
#ifndef COORDFS_RAFT_PLANT_H
#define COORDFS_RAFT_PLANT_H

/* Bit numbers of coordfs_planted. */
enum raft_plant {
	PLANT_COMMIT_OLD_TERM,        /* rule 1: commit older terms by counting (figure 8) */
	PLANT_VOTE_NOT_PERSISTED,     /* rule 3: a vote is forgotten by a restart */
	PLANT_ACK_BEFORE_DURABLE,     /* rule 2: a follower acknowledges what is not on its disk */
	PLANT_LEADER_COUNTS_UNSYNCED, /* rule 4: the leader counts its own unsynced tail */
	PLANT_ACK_BEYOND_MATCH,       /* rule 2: a follower acknowledges its own last entry */
	PLANT_NO_READ_ROUND,          /* ReadIndex answered without asking a majority */
	PLANT_CONFIG_NOT_UNDONE,      /* rule 11: a truncated configuration stays in force */
	PLANT_DOUBLE_VOTE,            /* rule 3: more than one vote in a term */
};

#ifdef COORDFS_PLANT
extern unsigned coordfs_planted; /* defined by the simulator */
#define PLANTED(bug) ((coordfs_planted & (1u << (bug))) != 0)
#else
#define PLANTED(bug) 0
#endif

#endif
