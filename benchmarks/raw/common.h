/* Shared by both ends of the raw references: clock, options, samples. */
#ifndef RAW_COMMON_H
#define RAW_COMMON_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Both ends may find themselves on one processor, each polling until the other's turn comes; with
 * a single one, nothing can arrive while it polls. */
static inline void poll_pause(uint64_t *empty)
{
	static uint64_t patience;

	if (!patience)
		patience = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 32 : 1;
	if (++*empty % patience == 0)
		sched_yield();
}

static inline void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* "4096", "64k", "16m", "1g" */
static inline uint64_t parse_size(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	switch (*end) {
	case 'g': case 'G': value <<= 10; /* fall through */
	case 'm': case 'M': value <<= 10; /* fall through */
	case 'k': case 'K': value <<= 10; end++; break;
	}
	if (*end != '\0')
		die("not a size: %s", text);
	return value;
}

static inline int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* the time between two successive readings of the clock */
static inline uint64_t clock_cost(void)
{
	uint64_t taken[1001];

	for (int i = 0; i < 1001; i++) {
		uint64_t start = now_ns();

		taken[i] = now_ns() - start;
	}
	qsort(taken, 1001, sizeof(*taken), by_value);
	return taken[500];
}

/* Samples go to stdout: a JSON line, then COUNT native-order uint64 nanoseconds. CPU: processor time
 * of all processes that took part. */
static inline void put_samples_of(const char *exchange, uint64_t size, uint64_t wall, uint64_t cpu,
				  uint64_t bytes, const uint64_t *samples, size_t count)
{
	printf("{\"exchange\":\"%s\",\"size\":%llu,\"wall_ns\":%llu,\"cpu_ns\":%llu,\"bytes\":%llu,\"count\":%zu}\n",
	       exchange, (unsigned long long)size, (unsigned long long)wall, (unsigned long long)cpu,
	       (unsigned long long)bytes, count);
	fwrite(samples, sizeof(*samples), count, stdout);
	fflush(stdout);
}

/* The same where processor time is measured from outside. */
static inline void put_samples(const char *exchange, uint64_t size, uint64_t wall,
			       uint64_t bytes, const uint64_t *samples, size_t count)
{
	put_samples_of(exchange, size, wall, 0, bytes, samples, count);
}

#endif
