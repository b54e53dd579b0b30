/*
 * plants.h - the known bugs that sim_planted can switch on in the core.
 *
 * One list over the three places that have them (core/raft/plant.h,
 * core/state/plant.h, core/plant.h), by name.
 */
#ifndef COORDFS_SIM_PLANTS_H
#define COORDFS_SIM_PLANTS_H

#include <stddef.h>
#include <stdint.h>

#include "tests/sim/sim.h"

struct sim_plant {
	const char *name;
	unsigned raft, state, node; /* masks that the core looks at */
	enum sim_bias bias;         /* what brings it out */
	uint64_t seeds;             /* within so many it must be caught */
};

/* NULL: there is no such bug, or this program was built without any. */
const struct sim_plant *plant_find(const char *name);
/* All of them; n is 0 in a program built without any. */
const struct sim_plant *plant_list(size_t *ret_n);
/* NULL: none. */
void plant_switch_on(const struct sim_plant *p);

#endif
