/*
 * status_errno.c - see status_errno.h.
 */
#include "fs/status_errno.h"

#include <errno.h>

#include "coordfs/util.h"

int errno_of(enum status st)
{
	switch (st) {
	case ST_OK:
		return 0;
	case ST_BUSY:
		return EWOULDBLOCK;
	case ST_CANCELLED:
		return EINTR;
	case ST_TIMEOUT:
		return ETIMEDOUT;
	case ST_LOST:
	case ST_STALE:
		return EIO;
	case ST_DENIED:
		return EPERM;
	case ST_TOO_BIG:
		return EFBIG;
	case ST_NO_SPACE:
		return ENOSPC;
	case ST_SHUTDOWN:
		return ESHUTDOWN;
	case ST_WAITING:
	case ST_MAX_:
		break;
	}
	UNREACHABLE();
}
