/*
 * fuzz.h - what a fuzz target is: libFuzzer's entry point.
 *
 * With -Dfuzz=true and clang, libFuzzer calls it; else replay.c does, with the
 * committed corpus and mutations of it, as part of the test suite.
 */
#ifndef COORDFS_TESTS_FUZZ_H
#define COORDFS_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Survives any input; asserts what must hold of those that are accepted. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
