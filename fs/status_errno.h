/*
 * status_errno.h - how an operation of the cluster ended, as the caller of a system call
 * hears it. The only place where fs/ turns a status into an errno.
 */
#ifndef COORDFS_FS_STATUS_ERRNO_H
#define COORDFS_FS_STATUS_ERRNO_H

#include "coordfs/status.h"

/* Positive errno, 0 for ST_OK. */
int errno_of(enum status st);

#endif
