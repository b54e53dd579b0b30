/*
 * plant.h - known mistakes of the node that a test can switch on.
 *
 * They show that the simulator would notice them. Without COORDFS_PLANT every
 * PLANTED() is constant false and leaves nothing in the program.
 */
#ifndef COORDFS_PLANT_H
#define COORDFS_PLANT_H

enum node_plant {
	PLANT_LEASE_FROM_RECEIVE, /* the lease runs from the answer's arrival, not from the sending
				   */
	PLANT_LEASE_NO_ROUND,     /* a keep-alive is answered without a heartbeat round */
	PLANT_EXPIRE_EARLY,       /* a new leader's timers start in the past */
	PLANT_NO_FAILSTOP,        /* the end of the lease is not noticed */
	PLANT_EXTEND_EXPIRING,  /* a keep-alive is answered although the session's end is proposed,
				   or before the own term's first entry is applied */
	PLANT_RESEND_UNDEDUPED, /* the leader appends a command again that its log has */
	PLANT_CANCEL_FORGOTTEN, /* an interrupted wait is not taken back from the log */
};

#ifdef COORDFS_PLANT
extern unsigned coordfs_planted_node;
#define NODE_PLANTED(bug) ((coordfs_planted_node >> (bug)) & 1u)
#else
#define NODE_PLANTED(bug) 0
#endif

#endif
