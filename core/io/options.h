/*
 * options.h - the command line of coordd.
 */
#ifndef COORDFS_IO_OPTIONS_H
#define COORDFS_IO_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/io/server.h"

struct options {
	struct server_options server;
	const char *mountpoint; /* NULL: no mount */
	bool read_only;
	bool allow_other;
	int lost_signal; /* 0: none */
	enum trace_level log_level;
};

/* Returns -1 to go on, else the exit status (--help, --version, usage errors). Strings are borrowed
 * from argv. */
int options_parse(int argc, char **argv, struct options *ret_options);

#endif
