/*
 * curl_loop.h - libcurl's multi interface on a uv loop.
 *
 * libcurl says which sockets it wants to watch for what, and when it wants to be
 * called next; this file turns that into uv_poll handles and one uv_timer. What
 * libcurl wants is noted when it says so and carried out when control comes
 * back from it: within one call it often asks for something and takes it back,
 * and every change would cost system calls.
 *
 * libcurl closes its sockets itself. It says CURL_POLL_REMOVE before it does;
 * the uv_poll handle stops at that moment, and its memory goes in uv's close
 * callback, so a new socket with the same number gets a handle of its own.
 */
#ifndef COORDFS_IO_CURL_LOOP_H
#define COORDFS_IO_CURL_LOOP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct curl_socket;

struct curl_loop_events {
	void *ctx;
	/* A transfer has ended; remove it from here or later. */
	void (*ended)(void *ctx, CURL *easy, CURLcode rc);
	/* libcurl begins (or goes on) to watch a socket for this transfer, or stops. Comes from
	 * inside libcurl: only take note. */
	void (*watching)(void *ctx, CURL *easy, curl_socket_t fd, bool begins);
	/* What woke libcurl up (a socket or its timer) has been dealt with. */
	void (*woken)(void *ctx);
};

struct curl_loop {
	uv_loop_t *loop; /* borrowed */
	CURLM *multi;    /* owned */
	uv_timer_t timer;
	struct curl_socket *changed; /* wants differ from what uv does */
	struct curl_loop_events events;
	size_t open; /* uv handles whose close callback is still to come */
	void (*closed)(void *ctx);
};

void curl_loop_init(struct curl_loop *c, uv_loop_t *loop, const struct curl_loop_events *events);
/* All transfers have been removed. `closed` is called with events.ctx. */
void curl_loop_close(struct curl_loop *c, void (*closed)(void *ctx));

/* 0 or -ENOMEM. Nothing happens before the next turn of the loop. */
int curl_loop_add(struct curl_loop *c, CURL *easy);
/* Ends the transfer; it is not reported. Not from inside one of libcurl's callbacks. */
void curl_loop_remove(struct curl_loop *c, CURL *easy);

/* Let libcurl try to write to `fd` now. Any number of these, then curl_loop_settle(), which also
 * reports transfers that ended. */
void curl_loop_write(struct curl_loop *c, curl_socket_t fd);
void curl_loop_settle(struct curl_loop *c);

#endif
