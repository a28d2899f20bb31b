/*
 * SplitMix64: 64-bit numbers, evenly spread, one after the other from any start. Whoever
 * sees one of them can compute the next: they are not for secrets.
 */
#ifndef SPLITMIX_H
#define SPLITMIX_H

#include <stddef.h>
#include <stdint.h>

/* The next number. `state` is any number at first, and moves on with each call. */
static inline uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* The next number below `bound`, which is not 0, without the bias that a bare remainder has. */
static inline size_t splitmix64_below(uint64_t *state, size_t bound)
{
	uint64_t unbiased = UINT64_MAX - UINT64_MAX % bound;
	uint64_t random;

	do {
		random = splitmix64(state);
	} while (random >= unbiased);
	return random % bound;
}

#endif
