/*
 * status.c - the names of statuses, for logs and traces.
 */
#include "coordfs/status.h"

#include "coordfs/check.h"

const char *status_name(enum status s)
{
	switch (s) {
	case ST_OK:
		return "ok";
	case ST_WAITING:
		return "waiting";
	case ST_BUSY:
		return "busy";
	case ST_CANCELLED:
		return "cancelled";
	case ST_TIMEOUT:
		return "timeout";
	case ST_LOST:
		return "lost";
	case ST_DENIED:
		return "denied";
	case ST_TOO_BIG:
		return "too_big";
	case ST_NO_SPACE:
		return "no_space";
	case ST_STALE:
		return "stale";
	case ST_SHUTDOWN:
		return "shutdown";
	case ST_MAX_:
		break;
	}
	UNREACHABLE();
}
