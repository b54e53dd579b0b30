/*
 * peers_ask.c - one HTTP request to any node, and its answer: blocking.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>

#include "coordfs/util.h"
#include "core/io/peers.h"

#define CONNECT_MS 2000L
#define TOTAL_MS 15000L
#define ANSWER_BYTES_MAX (16u << 20) /* arbitrary */

struct answer {
	char *text; /* owned; with a NUL behind it */
	size_t len;
};

/* CURLOPT_WRITEFUNCTION */
static size_t answer_append(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;
	size_t bytes = size * n;

	if (bytes > ANSWER_BYTES_MAX - a->len) {
		return 0; /* ends the transfer with CURLE_WRITE_ERROR */
	}
	a->text = xrealloc(a->text, a->len + bytes + 1);
	memcpy(a->text + a->len, data, bytes);
	a->len += bytes;
	a->text[a->len] = '\0';
	return bytes;
}

static int errno_of(CURLcode code)
{
	static const struct {
		CURLcode code;
		int error;
	} known[] = {
		{CURLE_URL_MALFORMAT, -EINVAL},
		{CURLE_COULDNT_RESOLVE_HOST, -EADDRNOTAVAIL},
		{CURLE_COULDNT_CONNECT, -ECONNREFUSED},
		{CURLE_OPERATION_TIMEDOUT, -ETIMEDOUT},
		{CURLE_OUT_OF_MEMORY, -ENOMEM},
		{CURLE_WRITE_ERROR, -EFBIG},
		{CURLE_GOT_NOTHING, -ECONNRESET},
		{CURLE_SEND_ERROR, -ECONNRESET},
		{CURLE_RECV_ERROR, -ECONNRESET},
		{CURLE_WEIRD_SERVER_REPLY, -EPROTO},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].code == code) {
			return known[i].error;
		}
	}
	return -EIO;
}

static void easy_cleanup(CURL **easy)
{
	curl_easy_cleanup(*easy); /* accepts NULL */
}

static void slist_free(struct curl_slist **list)
{
	curl_slist_free_all(*list); /* accepts NULL */
}

/* -ENOMEM, -EINVAL: the secret or the address is too long. */
static int ask_setup(
	CURL *easy, struct curl_slist **headers, const char *host_port, const char *secret)
{
	char url[512], line[2048];
	static const char *const fixed[] = {"Content-Type: application/json", "Expect:"};

	if (snprintf(url, sizeof url, "http://%s", host_port) >= (int)sizeof url ||
		snprintf(line, sizeof line, "Authorization: Bearer %s", secret) >=
			(int)sizeof line) {
		return -EINVAL;
	}
	*headers = curl_slist_append(NULL, line);
	for (size_t i = 0; i < ARRAY_SIZE(fixed) && *headers != NULL; i++) {
		if (curl_slist_append(*headers, fixed[i]) == NULL) {
			return -ENOMEM;
		}
	}
	if (*headers == NULL || curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK) {
		return -ENOMEM;
	}
	return 0;
}

static CURLcode ask_perform(CURL *easy, const struct curl_slist *headers, const char *method,
	const char *path, const char *body, struct answer *a)
{
	/* Only strings are copied and can fail, for memory; libcurl then refuses to perform. */
	(void)curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, path);
	(void)curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	if (body != NULL) {
		(void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
		(void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	}
	(void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	(void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, answer_append);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, a);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	(void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TOTAL_MS);
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	return curl_easy_perform(easy);
}

int peers_ask(const char *host_port, const char *secret, const char *method, const char *path,
	const char *body, char **ret_body, char *err, size_t err_size)
{
	CLEANUP(easy_cleanup) CURL *easy = NULL;
	CLEANUP(slist_free) struct curl_slist *headers = NULL;
	CLEANUP(freep) char *text = NULL;
	char reason[CURL_ERROR_SIZE] = "";
	struct answer a = {.text = xcalloc(1, 1)};
	long status = 0;
	CURLcode code;
	int rc;

	easy = curl_easy_init(); /* also initialises the library, thread-safely */
	rc = easy == NULL ? -ENOMEM : ask_setup(easy, &headers, host_port, secret);
	if (rc < 0) {
		free(a.text);
		(void)snprintf(err, err_size, "cannot ask %s: %s", host_port, strerror(-rc));
		return rc;
	}
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, reason);
	code = ask_perform(easy, headers, method, path, body, &a);
	text = a.text;
	if (code != CURLE_OK) {
		(void)snprintf(err, err_size, "cannot ask %s: %s", host_port,
			reason[0] != '\0' ? reason : curl_easy_strerror(code));
		return errno_of(code);
	}
	(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status); /* the transfer is over */
	*ret_body = TAKE(text);
	return (int)status;
}
