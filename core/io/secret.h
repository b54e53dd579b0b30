/*
 * secret.h - comparing the cluster's secret with what a stranger claims it is.
 */
#ifndef COORDFS_IO_SECRET_H
#define COORDFS_IO_SECRET_H

#include <stdbool.h>

/* The time taken depends on the length of `given` only, so that answers cannot be used to
 * guess the secret byte by byte. */
bool secret_equal(const char *secret, const char *given);

#endif
