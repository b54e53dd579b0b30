/*
 * server.h - a node in the real world: the env of core/env.h made of a uv loop,
 * the log, snapshot files and peer streams.
 *
 * A turn is one iteration of the loop: whatever input comes calls server_input()
 * first, and once all inputs of the iteration are in, the node is flushed, once.
 */
#ifndef COORDFS_IO_SERVER_H
#define COORDFS_IO_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/node.h"

struct server;

struct server_options {
	const char *dir;
	uint64_t id;        /* 0: from the directory, or given by the cluster when joining */
	const char *peers;  /* ID=HOST:PORT,… ; first start of a new cluster */
	const char *join;   /* HOST:PORT ; first start of a node that joins */
	const char *listen; /* HOST:PORT ; NULL: what the cluster has for this id */
	const char *secret_file;
	struct node_options node; /* id, uuid and seed are filled in */
	size_t segment_bytes;     /* 0: the log's default */
	struct tracer trace;
};

struct server_events {
	void *ctx;
	/* The node cannot go on: end the process now, with `text` as the last line. */
	void (*fatal)(void *ctx, const char *text);
	/* server_shutdown() has ended: close the front-ends, then the server. */
	void (*stopped)(void *ctx);
	/* A turn was flushed. May be NULL. */
	void (*flushed)(void *ctx);
};

/* Reads the directory, joins a cluster if asked to, listens, starts. `err`: one sentence. */
int server_open(uv_loop_t *loop, const struct server_options *o, const struct server_events *events,
	struct server **ret_server, char *err, size_t err_size);

struct node *server_node(struct server *s);
uint64_t server_id(const struct server *s);
/* An input from outside is about to be delivered: tells the node the time. */
void server_input(struct server *s);
void server_shutdown(struct server *s, uint32_t max_ms);
/* Log, files and streams are closed; then `closed`, and `s` is gone. */
void server_close(struct server *s, void (*closed)(void *ctx), void *ctx);

#endif
