/*
 * raft_history.h - what was ever seen of a cluster, whoever has crashed since, and the
 * promises that must hold over all of it.
 *
 * Each function fails the test when what it is told contradicts what it was told before.
 */
#ifndef COORDFS_TESTS_RAFT_HISTORY_H
#define COORDFS_TESTS_RAFT_HISTORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/raft/raft.h"

#define SERVERS_MAX 8 /* ids 1 .. 7 */

struct history;

struct history *history_new(void);
void history_free(struct history *h);

/* An (index, term) has one content, for ever. */
void history_saw_entry(struct history *h, const struct raft_entry *e);
/* One leader a term; it has every entry that was ever applied. */
void history_saw_leader(struct history *h, uint64_t id, const struct raft *r);
/* One vote a term for each server, over its restarts. */
void history_saw_vote(struct history *h, const struct raft_msg *m);
/* The same is applied at an index everywhere. `digest`: of the state machine afterwards. */
void history_saw_applied(struct history *h, uint64_t index, uint64_t term, uint64_t digest);
uint64_t history_digest_at(const struct history *h, uint64_t index);
/* A read is answered once, with an index not older than anything applied when it was asked. */
void history_read_asked(struct history *h, uint64_t id, uint64_t read_id);
void history_read_answered(struct history *h, uint64_t read_id, uint64_t index, bool ok);
/* Nothing that this server was asked will be answered. */
void history_crashed(struct history *h, uint64_t id);
void history_check_logs(const struct raft *a, const struct raft *b);

uint64_t digest_mix(uint64_t digest, const void *data, size_t len);
uint64_t digest_of_entry(const struct raft_entry *e);

#endif
