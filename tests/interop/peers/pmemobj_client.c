/*
 * pmemobj_client: a libpmemobj program on a pool set with a remote replica.
 *
 *   pmemobj_client create POOLSET           an empty pool
 *   pmemobj_client append POOLSET COUNT     COUNT transactions
 *   pmemobj_client run POOLSET              transactions until killed; prints the number
 *                                           of each one when it is committed
 *   pmemobj_client die POOLSET COUNT        COUNT transactions, then SIGKILL in the
 *                                           middle of one more
 *   pmemobj_client check POOLSET            opens (and so recovers) and checks
 *   pmemobj_client touch POOLSET COUNT      COUNT times pmemobj_persist without
 *                                           transactions, then pmemobj_flush and drain
 *
 * Every transaction allocates a node, links it, and changes two counters that must agree
 * with each other and with the list.  Answers are JSON objects, one a line.
 */

#include <errno.h>
#include <inttypes.h>
#include <libpmemobj.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAYOUT "rpmem-interop"
#define WORDS 30

POBJ_LAYOUT_BEGIN(interop);
POBJ_LAYOUT_ROOT(interop, struct root);
POBJ_LAYOUT_TOID(interop, struct node);
POBJ_LAYOUT_END(interop);

struct node {
	TOID(struct node) next;
	uint64_t number;
	uint64_t words[WORDS];
};

struct root {
	TOID(struct node) head;
	uint64_t count;
	uint64_t scratch;
	char gap[4096];		/* the counters lie on different pages */
	uint64_t again;
};

static int
fail(const char *what)
{
	int error = errno;
	printf("{\"ok\":false,\"what\":\"%s\",\"errno\":%d,\"message\":\"", what, error);
	for (const char *c = pmemobj_errormsg(); *c; c++)
		putchar(*c == '"' || *c == '\\' || *c < ' ' ? '\'' : *c);
	puts("\"}");
	return 1;
}

/* One transaction; with `die` the process kills itself when half of it is done. */
static int
append(PMEMobjpool *pool, bool die)
{
	TOID(struct root) root = POBJ_ROOT(pool, struct root);
	int failed = 0;
	TX_BEGIN(pool) {
		TX_ADD_FIELD(root, head);
		TX_ADD_FIELD(root, count);
		TOID(struct node) node = TX_NEW(struct node);
		D_RW(node)->number = D_RO(root)->count;
		for (uint64_t i = 0; i < WORDS; i++)
			D_RW(node)->words[i] = D_RO(root)->count * 1000 + i;
		D_RW(node)->next = D_RO(root)->head;
		D_RW(root)->head = node;
		D_RW(root)->count++;
		if (die) {
			/* What a crash may leave behind: the new counter is out. */
			pmemobj_persist(pool, &D_RW(root)->count, sizeof(uint64_t));
			pmemobj_persist(pool, &D_RW(root)->head, sizeof(node));
			kill(getpid(), SIGKILL);
		}
		TX_ADD_FIELD(root, again);
		D_RW(root)->again++;
	} TX_ONABORT {
		failed = 1;
	} TX_END
	return failed;
}

static int
check(PMEMobjpool *pool)
{
	TOID(struct root) root = POBJ_ROOT(pool, struct root);
	uint64_t count = D_RO(root)->count;
	uint64_t seen = 0;
	bool good = count == D_RO(root)->again;
	TOID(struct node) node = D_RO(root)->head;
	while (!TOID_IS_NULL(node) && seen <= count) {
		uint64_t number = D_RO(node)->number;
		good &= number == count - 1 - seen;
		for (uint64_t i = 0; i < WORDS; i++)
			good &= D_RO(node)->words[i] == number * 1000 + i;
		seen++;
		node = D_RO(node)->next;
	}
	good &= seen == count;
	printf("{\"ok\":true,\"count\":%" PRIu64 ",\"seen\":%" PRIu64
			",\"consistent\":%s,\"scratch\":%" PRIu64 "}\n",
			count, seen, good ? "true" : "false", D_RO(root)->scratch);
	return 0;
}

static int
touch(PMEMobjpool *pool, uint64_t count)
{
	TOID(struct root) root = POBJ_ROOT(pool, struct root);
	uint64_t *scratch = &D_RW(root)->scratch;
	for (uint64_t i = 0; i < count; i++) {
		*scratch += 1;
		pmemobj_persist(pool, scratch, sizeof(*scratch));
	}
	memset(D_RW(root)->gap, (int)*scratch, sizeof(D_RW(root)->gap));
	pmemobj_flush(pool, D_RW(root)->gap, sizeof(D_RW(root)->gap));
	pmemobj_drain(pool);
	printf("{\"ok\":true,\"scratch\":%" PRIu64 "}\n", *scratch);
	return 0;
}

static int
act(PMEMobjpool *pool, const char *what, uint64_t count)
{
	if (strcmp(what, "check") == 0)
		return check(pool);
	if (strcmp(what, "touch") == 0)
		return touch(pool, count);
	bool forever = strcmp(what, "run") == 0;
	for (uint64_t i = 0; forever || i < count; i++) {
		if (append(pool, false))
			return fail("transaction");
		if (forever) {
			printf("{\"committed\":%" PRIu64 "}\n", i + 1);
			fflush(stdout);
		}
	}
	if (strcmp(what, "die") == 0)
		append(pool, true);
	printf("{\"ok\":true,\"appended\":%" PRIu64 "}\n", count);
	return 0;
}

int
main(int argc, char **argv)
{
	static const char *const verbs[] = { "append", "run", "die", "check", "touch" };
	uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;
	bool known = false;

	if (argc == 3 && strcmp(argv[1], "create") == 0) {
		PMEMobjpool *pool = pmemobj_create(argv[2], LAYOUT, 0, 0600);
		if (pool == NULL)
			return fail("create");
		pmemobj_close(pool);
		puts("{\"ok\":true}");
		return 0;
	}
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		known |= argc > 2 && strcmp(argv[1], verbs[i]) == 0;
	if (!known) {
		fprintf(stderr, "usage: %s create|append|run|die|check|touch POOLSET [COUNT]\n",
				argv[0]);
		return 2;
	}
	PMEMobjpool *pool = pmemobj_open(argv[2], LAYOUT);
	if (pool == NULL)
		return fail("open");
	int status = act(pool, argv[1], count);
	pmemobj_close(pool);
	return status;
}
