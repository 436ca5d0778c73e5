/* What the floors of the lanes share: a connection, and the ways to wait for it. */
#ifndef RAW_FLOOR_H
#define RAW_FLOOR_H

#include "common.h"

#include <openssl/ssl.h>

enum { ANSWER = 16, LARGEST = 64 << 20, RECORD = 16384, RECORDS = 4 };

enum cipher { PLAIN, ON_SOCKET, IN_MEMORY };

/* How to wait: poll for so long, giving the core away every so many empty polls; then sleep. */
struct waiting {
	uint64_t poll_ns;  /* 0: sleep at once, in the system call itself */
	uint64_t patience; /* empty polls before each sched_yield; 0: never */
};

struct link {
	int fd;
	enum cipher cipher;
	struct waiting waiting;
	uint64_t empty, since;
	SSL *ssl;
	BIO *in, *out; /* IN_MEMORY: where records come from and go to */
	uint8_t *records;
};

/* "spin", "pause", "yield", "block"; with a number of microseconds, "spin20": then sleep */
void parse_waiting(struct waiting *waiting, const char *text);
/* Makes it ready; with a cipher this is the handshake. A server polls 2 ms at most. */
void link_open(struct link *link, int fd, enum cipher cipher, const struct waiting *waiting, int server);
/* Sends all of it. */
void link_put(struct link *link, const void *data, size_t size);
/* Returns as soon as there is something: at least one byte, at most SIZE; 0 at the end. */
size_t link_get(struct link *link, void *where, size_t size);

#endif
