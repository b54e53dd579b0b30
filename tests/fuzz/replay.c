/*
 * replay.c - runs a fuzz target without libFuzzer.
 *
 *     fuzz_TARGET CORPUS_DIR MUTATIONS SEED
 *
 * Each file of the corpus as it is, then MUTATIONS inputs made from each. The
 * n-th mutation of a file depends on the file, n and SEED alone, so a failure
 * repeats; which input it was is printed when the target dies.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "coordfs/util.h"
#include "fuzz.h"

#define INPUT_BYTES_MAX 4096 /* arbitrary; corpus files are tiny */

struct input {
	uint8_t data[INPUT_BYTES_MAX];
	size_t len;
};

static char running[PATH_MAX + 64]; /* for the signal handler */

static void target_died(int sig)
{
	(void)!write(STDERR_FILENO, running, strlen(running)); /* dying anyway */
	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
}

/* splitmix64 */
static uint64_t draw(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static size_t draw_below(uint64_t *seed, size_t limit)
{
	return (size_t)(draw(seed) % limit);
}

static void insert(struct input *in, size_t at, const uint8_t *data, size_t len)
{
	uint8_t copy[16];

	len = MIN(len, MIN(sizeof copy, INPUT_BYTES_MAX - in->len));
	memcpy(copy, data, len); /* `data` may be part of the input */
	memmove(in->data + at + len, in->data + at, in->len - at);
	memcpy(in->data + at, copy, len);
	in->len += len;
}

static void cut(struct input *in, size_t at, size_t len)
{
	len = MIN(len, in->len - at);
	memmove(in->data + at, in->data + at + len, in->len - at - len);
	in->len -= len;
}

/* Bytes where decoders have their limits. */
static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0x4a};

static void mutate_once(struct input *in, uint64_t *seed)
{
	size_t at;

	if (in->len == 0) {
		insert(in, 0, &edges[draw_below(seed, sizeof edges)], 1);
		return;
	}
	at = draw_below(seed, in->len);
	switch (draw_below(seed, 7)) {
	case 0:
		in->data[at] ^= (uint8_t)(1u << draw_below(seed, 8));
		break;
	case 1:
		in->data[at] = (uint8_t)draw(seed);
		break;
	case 2:
		in->data[at] = edges[draw_below(seed, sizeof edges)];
		break;
	case 3:
		insert(in, at, &edges[draw_below(seed, sizeof edges)], 1);
		break;
	case 4: /* a piece of it twice: fields that come again */
		insert(in, at, in->data + at, MIN(in->len - at, 1 + draw_below(seed, 16)));
		break;
	case 5:
		cut(in, at, 1 + draw_below(seed, 4));
		break;
	case 6:
		in->len = at;
		break;
	default:
		UNREACHABLE();
	}
}

static void run(const struct input *in, const char *path, unsigned long n)
{
	/* On the heap by itself, so that a read past it is seen. */
	uint8_t *copy = xmemdup(in->data, in->len);

	(void)snprintf(running, sizeof running, "replay: %s, mutation %lu\n", path, n);
	(void)LLVMFuzzerTestOneInput(copy, in->len);
	free(copy);
}

static int run_file(const char *path, unsigned long mutations, uint64_t seed)
{
	struct input original = {0};
	struct input in;
	FILE *file = fopen(path, "rb");

	if (file == NULL) {
		(void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		return -1;
	}
	original.len = fread(original.data, 1, sizeof original.data, file);
	(void)fclose(file); /* read only */
	run(&original, path, 0);
	for (unsigned long n = 1; n <= mutations; n++) {
		uint64_t s = seed + n * 0x2545f4914f6cdd1du;

		in = original;
		for (size_t k = 1 + draw_below(&s, 4); k > 0; k--) {
			mutate_once(&in, &s);
		}
		run(&in, path, n);
	}
	return 0;
}

static int is_input(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int run_corpus(const char *dir, unsigned long mutations, uint64_t seed)
{
	struct dirent **names = NULL;
	char path[PATH_MAX];
	int n = scandir(dir, &names, is_input, alphasort);
	int rc = n > 0 ? 0 : -1;

	if (n <= 0) {
		(void)fprintf(stderr, "replay: no corpus in %s\n", dir);
	}
	for (int i = 0; i < n; i++) {
		(void)snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
		if (run_file(path, mutations, seed) < 0) {
			rc = -1;
		}
		free(names[i]);
	}
	free(names);
	return rc;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		(void)fprintf(stderr, "usage: %s CORPUS_DIR MUTATIONS SEED\n", argv[0]);
		return 2;
	}
	(void)signal(SIGABRT, target_died);
	return run_corpus(argv[1], strtoul(argv[2], NULL, 10), strtoull(argv[3], NULL, 10)) < 0;
}
