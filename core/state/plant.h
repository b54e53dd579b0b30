/*
 * plant.h - bugs that a build for the simulator can switch on, to show that its
 * checkers catch them.
 *
 * Without COORDFS_PLANT, as in every build that runs anywhere else, each is a
 * constant false and leaves no code.
 */
#ifndef COORDFS_STATE_PLANT_H
#define COORDFS_STATE_PLANT_H

#include <stdbool.h>

/* Bit numbers of coordfs_planted_state. */
enum state_plant {
	PLANT_STATE_NO_PUMP_ON_CANCEL, /* who waits behind a removed waiter goes unseen */
	PLANT_STATE_TOKEN_REUSE,       /* one token for all grants of a session */
	PLANT_STATE_DUPLICATE_APPLIED, /* a command that came twice is carried out twice */
};

#ifdef COORDFS_PLANT
extern unsigned coordfs_planted_state; /* defined by the simulator */
#define STATE_PLANTED(bug) ((coordfs_planted_state & (1u << (bug))) != 0)
#else
#define STATE_PLANTED(bug) false
#endif

#endif
