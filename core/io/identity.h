/*
 * identity.h - who a data directory is: DIR/identity, a JSON file.
 *
 * Kept outside the log, so that a node whose log was lost knows that it had one
 * (and had voted): such a node must not come back under its old id. The servers
 * are those of the bootstrap or of the moment of joining: the configuration in
 * force before the log's first one.
 */
#ifndef COORDFS_IO_IDENTITY_H
#define COORDFS_IO_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/raft/raft.h"

struct identity {
	uint64_t id;
	uint8_t uuid[16];
	bool initialised; /* a log has been made: its absence is a loss */
	struct raft_config servers;
};

void identity_fini(struct identity *i);

/* -ENOENT there is none; -EUCLEAN not an identity; others from the system. `err`: one sentence. */
int identity_load(const char *dir, struct identity *ret_identity, char *err, size_t err_size);
/* A directory without an identity must be without everything else, too: the identity is written
 * first, so what is there is another node's, or has lost its own. -EUCLEAN */
int identity_check_new(const char *dir, char *err, size_t err_size);
/* Durable when it returns 0: written aside, synced, renamed, directory synced. */
int identity_store(const char *dir, const struct identity *i, char *err, size_t err_size);

/* "1=host:port,2=host:port" -> servers, all voters; ids up to UINT32_MAX. -EINVAL with a sentence
 * in `err`. */
int identity_parse_servers(
	const char *text, struct raft_config *ret_config, char *err, size_t err_size);

/* Is this "host:port" with a port from 1 to 65535? */
bool identity_addr_valid(const char *addr);

#endif
