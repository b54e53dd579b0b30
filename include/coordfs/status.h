/*
 * status.h - how an operation of the cluster ended.
 *
 * A refusal is not an error of the program: it is a value of the protocol. The
 * front-ends turn it into an errno or an HTTP status, each in one table.
 */
#ifndef COORDFS_STATUS_H
#define COORDFS_STATUS_H

enum status {
	ST_OK,
	ST_WAITING,   /* queued; a grant follows. Never given to a front-end's callback */
	ST_BUSY,      /* somebody else has it and the caller would not wait: EWOULDBLOCK */
	ST_CANCELLED, /* the caller was interrupted: EINTR */
	ST_TIMEOUT,   /* the cluster did not answer in time: ETIMEDOUT */
	ST_LOST,      /* the session that held it has ended: EIO */
	ST_DENIED,    /* the caller does not hold it: EPERM */
	ST_TOO_BIG,   /* EFBIG */
	ST_NO_SPACE,  /* a limit of the store is reached, or the disk is full: ENOSPC */
	ST_STALE,     /* a command of an ended session or a former incarnation: not carried out */
	ST_SHUTDOWN,  /* this node is stopping: ESHUTDOWN */
	ST_MAX_,
};

const char *status_name(enum status s);

#endif
