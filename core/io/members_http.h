/*
 * members_http.h - POST /members: changes of the membership by HTTP.
 */
#ifndef COORDFS_IO_MEMBERS_HTTP_H
#define COORDFS_IO_MEMBERS_HTTP_H

#include "core/io/peers.h"
#include "core/node.h"

/* Any authenticated request that is not a peer stream; answers each once, now or later. */
void members_http_request(struct node *n, struct peers_request *r, const char *method,
	const char *path, const void *body, size_t len);

/* Ask `through` to add `addr`; blocks. Gives the id and the servers, this one among them as a
 * learner. */
int members_http_join(const char *through, const char *secret, const char *addr, uint64_t *ret_id,
	struct raft_config *ret_servers, char *err, size_t err_size);

#endif
