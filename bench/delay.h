/*
 * delay.h - a proxy that holds every byte back for a fixed time: a stand-in for
 * a longer network where the kernel has no netem.
 */
#ifndef COORDFS_BENCH_DELAY_H
#define COORDFS_BENCH_DELAY_H

#define DELAY_PORT_OFFSET 100

/* Accept on first_port + DELAY_PORT_OFFSET + i of 127.0.0.1, i < n, and pass on to first_port + i,
 * both ways. Does not return. */
_Noreturn void delay_run(unsigned first_port, unsigned n, unsigned delay_ms);

#endif
