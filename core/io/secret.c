/*
 * secret.c - see secret.h.
 */
#include "core/io/secret.h"

#include <stddef.h>
#include <string.h>

bool secret_equal(const char *secret, const char *given)
{
	size_t secret_len = strlen(secret);
	size_t given_len = strlen(given);
	/* volatile: the compiler must not notice that one difference settles it. */
	volatile unsigned char differs = secret_len != given_len;

	for (size_t i = 0; i < given_len; i++) {
		/* Past the secret's end its NUL is compared; the lengths differ then anyway. */
		differs |= (unsigned char)(secret[i < secret_len ? i : secret_len] ^ given[i]);
	}
	return differs == 0;
}
