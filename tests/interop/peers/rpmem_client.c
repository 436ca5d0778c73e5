/*
 * rpmem_client: drives every call of librpmem from commands on standard input.
 *
 * One command a line, one JSON object a line in answer.  A session has several slots,
 * each with local memory, attributes and at most one open replica; `use N` picks one.
 *
 *   use N                             pick slot N (0..7)
 *   pool SIZE [null|skew N]           local memory; null or misaligned on purpose
 *   attr none|zero|HEX                attributes for create and setattr: NULL, all
 *                                     zero, or 104 bytes as they go over the wire
 *   create TARGET SET NLANES          rpmem_create ("-" as NLANES: a NULL pointer)
 *   open TARGET SET NLANES            rpmem_open; answers with the attributes
 *   openblind TARGET SET NLANES       rpmem_open without asking for attributes
 *   fill OFFSET LENGTH SEED           local memory := pattern (see below)
 *   set OFFSET HEX                    local memory := bytes
 *   get OFFSET LENGTH                 local bytes as hex
 *   persist OFFSET LENGTH LANE FLAGS
 *   flush OFFSET LENGTH LANE FLAGS
 *   drain LANE FLAGS
 *   deep OFFSET LENGTH LANE
 *   read OFFSET LENGTH LANE           answers with bytes as hex and whether they
 *                                     equal local memory (same: true)
 *   compare OFFSET LENGTH LANE        the same without the bytes
 *   setattr                           rpmem_set_attr with the slot's attributes
 *   close
 *   remove TARGET SET FLAGS
 *   version MAJOR MINOR               rpmem_check_version
 *   errormsg                          rpmem_errormsg
 *   threads N ROUNDS LENGTH WHAT      N threads, thread k on lane k and its own slice;
 *                                     WHAT: persist relaxed flush flushrelaxed deep read
 *   time WHAT OFFSET LENGTH COUNT     latencies of COUNT calls on lane 0, nanoseconds
 *   quit
 *
 * The pattern: the byte at pool offset o is (SEED + 7 * o + 13 * (o >> 8)) mod 256.
 */

#include <errno.h>
#include <inttypes.h>
#include <librpmem.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SLOTS 8
#define MAX_THREADS 256
#define ATTR_SIZE 104

struct slot {
	RPMEMpool *replica;
	char *map;	/* what mmap gave */
	size_t map_size;
	char *memory;	/* what librpmem is told */
	size_t size;
	struct rpmem_pool_attr attr;
	bool has_attr;
};

static struct slot slots[SLOTS];

static void
put_string(const char *name, const char *text)
{
	printf(",\"%s\":", name);
	if (text == NULL) {
		fputs("null", stdout);
		return;
	}
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20 || *c >= 0x7f)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void
put_hex(const char *name, const void *data, size_t length)
{
	const unsigned char *bytes = data;
	printf(",\"%s\":\"", name);
	for (size_t i = 0; i < length; i++)
		printf("%02x", bytes[i]);
	putchar('"');
}

static void
begin(const char *call)
{
	printf("{\"call\":\"%s\"", call);
}

static void
end(void)
{
	puts("}");
	fflush(stdout);
}

/* The outcome of a call that says 0 or -1 (rpmem_remove: also other values). */
static void
report(const char *call, int rc, int error)
{
	begin(call);
	printf(",\"rc\":%d,\"errno\":%d", rc, rc ? error : 0);
	if (rc)
		put_string("message", rpmem_errormsg());
	end();
}

static void
complain(const char *what)
{
	begin("error");
	put_string("message", what);
	end();
}

static int
nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool
from_hex(const char *text, unsigned char *out, size_t length)
{
	if (strlen(text) != 2 * length)
		return false;
	for (size_t i = 0; i < length; i++) {
		int high = nibble(text[2 * i]);
		int low = nibble(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		out[i] = (unsigned char)(high << 4 | low);
	}
	return true;
}

static uint32_t
get_be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void
put_be32(unsigned char *p, uint32_t v)
{
	p[0] = (unsigned char)(v >> 24);
	p[1] = (unsigned char)(v >> 16);
	p[2] = (unsigned char)(v >> 8);
	p[3] = (unsigned char)v;
}

static void
unpack_attr(const unsigned char *wire, struct rpmem_pool_attr *attr)
{
	memcpy(attr->signature, wire, 8);
	attr->major = get_be32(wire + 8);
	attr->compat_features = get_be32(wire + 12);
	attr->incompat_features = get_be32(wire + 16);
	attr->ro_compat_features = get_be32(wire + 20);
	memcpy(attr->poolset_uuid, wire + 24, 16);
	memcpy(attr->uuid, wire + 40, 16);
	memcpy(attr->next_uuid, wire + 56, 16);
	memcpy(attr->prev_uuid, wire + 72, 16);
	memcpy(attr->user_flags, wire + 88, 16);
}

static void
pack_attr(const struct rpmem_pool_attr *attr, unsigned char *wire)
{
	memcpy(wire, attr->signature, 8);
	put_be32(wire + 8, attr->major);
	put_be32(wire + 12, attr->compat_features);
	put_be32(wire + 16, attr->incompat_features);
	put_be32(wire + 20, attr->ro_compat_features);
	memcpy(wire + 24, attr->poolset_uuid, 16);
	memcpy(wire + 40, attr->uuid, 16);
	memcpy(wire + 56, attr->next_uuid, 16);
	memcpy(wire + 72, attr->prev_uuid, 16);
	memcpy(wire + 88, attr->user_flags, 16);
}

static void
fill(struct slot *s, size_t offset, size_t length, unsigned seed)
{
	for (size_t o = offset; o < offset + length; o++)
		s->memory[o] = (char)(seed + 7 * o + 13 * (o >> 8));
}

static void
cmd_pool(struct slot *s, size_t size, const char *how, size_t skew)
{
	if (s->map != NULL)
		munmap(s->map, s->map_size);
	s->map_size = size + 4096 + skew;
	s->map = mmap(NULL, s->map_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->map == MAP_FAILED) {
		s->map = NULL;
		complain("mmap");
		return;
	}
	bool null = how != NULL && strcmp(how, "null") == 0;
	s->memory = null ? NULL : s->map + skew;
	s->size = size;
	begin("pool");
	printf(",\"rc\":0,\"size\":%zu", size);
	end();
}

static void
cmd_attr(struct slot *s, const char *text)
{
	unsigned char wire[ATTR_SIZE];
	s->has_attr = strcmp(text, "none") != 0;
	if (!s->has_attr || strcmp(text, "zero") == 0) {
		memset(&s->attr, 0, sizeof(s->attr));
	} else if (from_hex(text, wire, ATTR_SIZE)) {
		unpack_attr(wire, &s->attr);
	} else {
		complain("attr wants none, zero or 208 hex digits");
		return;
	}
	begin("attr");
	printf(",\"rc\":0");
	end();
}

static void
cmd_connect(struct slot *s, const char *call, const char *target, const char *set,
		const char *lanes)
{
	unsigned nlanes = (unsigned)strtoul(lanes, NULL, 0);
	unsigned *wish = strcmp(lanes, "-") == 0 ? NULL : &nlanes;
	bool blind = strcmp(call, "openblind") == 0;
	struct rpmem_pool_attr got;
	memset(&got, 0xee, sizeof(got));
	errno = 0;
	if (strcmp(call, "create") == 0)
		s->replica = rpmem_create(target, set, s->memory, s->size, wish,
				s->has_attr ? &s->attr : NULL);
	else
		s->replica = rpmem_open(target, set, s->memory, s->size, wish,
				blind ? NULL : &got);
	int error = errno;

	begin(call);
	printf(",\"rc\":%d,\"errno\":%d,\"nlanes\":%u", s->replica ? 0 : -1,
			s->replica ? 0 : error, nlanes);
	if (s->replica == NULL) {
		put_string("message", rpmem_errormsg());
	} else if (strcmp(call, "open") == 0) {
		unsigned char wire[ATTR_SIZE];
		pack_attr(&got, wire);
		put_hex("attributes", wire, ATTR_SIZE);
	}
	end();
}

static void
cmd_read(struct slot *s, const char *call, size_t offset, size_t length, unsigned lane)
{
	char *buffer = malloc(length ? length : 1);
	if (buffer == NULL) {
		complain("malloc");
		return;
	}
	errno = 0;
	int rc = rpmem_read(s->replica, buffer, offset, length, lane);
	int error = errno;
	begin(call);
	printf(",\"rc\":%d,\"errno\":%d", rc, rc ? error : 0);
	if (rc) {
		put_string("message", rpmem_errormsg());
	} else {
		bool inside = offset <= s->size && length <= s->size - offset;
		bool same = inside && memcmp(buffer, s->memory + offset, length) == 0;
		printf(",\"same\":%s", same ? "true" : "false");
		if (strcmp(call, "read") == 0)
			put_hex("bytes", buffer, length);
	}
	end();
	free(buffer);
}

/* One call of the named kind; the flag bits are those of persist and flush. */
static int
one_call(struct slot *s, const char *what, size_t offset, size_t length, unsigned lane,
		char *buffer)
{
	if (strcmp(what, "persist") == 0)
		return rpmem_persist(s->replica, offset, length, lane, 0);
	if (strcmp(what, "relaxed") == 0)
		return rpmem_persist(s->replica, offset, length, lane,
				RPMEM_PERSIST_RELAXED);
	if (strcmp(what, "deep") == 0)
		return rpmem_deep_persist(s->replica, offset, length, lane);
	if (strcmp(what, "read") == 0)
		return rpmem_read(s->replica, buffer, offset, length, lane);
	unsigned flags = strcmp(what, "flushrelaxed") == 0 ? RPMEM_FLUSH_RELAXED : 0;
	int rc = rpmem_flush(s->replica, offset, length, lane, flags);
	return rc ? rc : rpmem_drain(s->replica, lane, 0);
}

struct worker {
	pthread_t thread;
	struct slot *slot;
	const char *what;
	unsigned lane;
	unsigned rounds;
	size_t length;
	size_t slice;	/* this thread's own part of the pool */
	size_t offset;
	unsigned done;
	int rc;
	int error;
	bool differs;
};

static void *
work(void *argument)
{
	struct worker *w = argument;
	size_t steps = w->slice / w->length;
	char *buffer = malloc(w->length);
	for (unsigned round = 0; round < w->rounds && w->rc == 0; round++) {
		size_t offset = w->offset + (round % steps) * w->length;
		fill(w->slot, offset, w->length, w->lane * 31 + round);
		if (strcmp(w->what, "read") == 0)
			w->rc = rpmem_persist(w->slot->replica, offset, w->length,
					w->lane, RPMEM_PERSIST_RELAXED);
		errno = 0;
		if (w->rc == 0)
			w->rc = one_call(w->slot, w->what, offset, w->length, w->lane,
					buffer);
		w->error = w->rc ? errno : 0;
		if (strcmp(w->what, "read") == 0 && w->rc == 0 &&
				memcmp(buffer, w->slot->memory + offset, w->length)) {
			w->differs = true;
			break;
		}
		w->done += w->rc == 0;
	}
	free(buffer);
	return NULL;
}

static void
cmd_threads(struct slot *s, unsigned count, unsigned rounds, size_t length,
		const char *what)
{
	static struct worker workers[MAX_THREADS];
	size_t slice = count ? (s->size - 4096) / count / 4096 * 4096 : 0;
	if (count == 0 || count > MAX_THREADS || length == 0 || length > slice) {
		complain("threads: count or length out of range");
		return;
	}
	memset(workers, 0, sizeof(workers));
	for (unsigned i = 0; i < count; i++) {
		workers[i] = (struct worker){ .slot = s, .what = what, .lane = i,
			.rounds = rounds, .length = length, .slice = slice,
			.offset = 4096 + i * slice };
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) {
			complain("pthread_create");
			exit(1);
		}
	}
	unsigned done = 0;
	int rc = 0;
	int error = 0;
	bool differs = false;
	for (unsigned i = 0; i < count; i++) {
		pthread_join(workers[i].thread, NULL);
		done += workers[i].done;
		differs |= workers[i].differs;
		if (workers[i].rc && rc == 0) {
			rc = workers[i].rc;
			error = workers[i].error;
		}
	}
	begin("threads");
	printf(",\"rc\":%d,\"errno\":%d,\"done\":%u,\"differs\":%s,\"slice\":%zu", rc,
			error, done, differs ? "true" : "false", slice);
	end();
}

static int
by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static uint64_t
now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void
cmd_time(struct slot *s, const char *what, size_t offset, size_t length, unsigned count)
{
	uint64_t *took = calloc(count ? count : 1, sizeof(*took));
	char *buffer = malloc(length ? length : 1);
	int rc = 0;
	int error = 0;
	unsigned done = 0;
	for (; done < count && rc == 0; done++) {
		uint64_t start = now();
		errno = 0;
		rc = one_call(s, what, offset, length, 0, buffer);
		error = rc ? errno : 0;
		took[done] = now() - start;
	}
	begin("time");
	printf(",\"rc\":%d,\"errno\":%d,\"count\":%u", rc, error, done);
	if (rc == 0 && done > 0) {
		qsort(took, done, sizeof(*took), by_value);
		printf(",\"min\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p99\":%" PRIu64
				",\"max\":%" PRIu64, took[0], took[done / 2],
				took[(size_t)done * 99 / 100], took[done - 1]);
	}
	end();
	free(buffer);
	free(took);
}

/* Commands that need an open replica in the slot. */
static bool
run_on_replica(struct slot *s, const char *c, char **a, int n)
{
	size_t offset = n > 1 ? strtoull(a[1], NULL, 0) : 0;
	size_t length = n > 2 ? strtoull(a[2], NULL, 0) : 0;
	unsigned third = n > 3 ? (unsigned)strtoul(a[3], NULL, 0) : 0;
	unsigned flags = n > 4 ? (unsigned)strtoul(a[4], NULL, 0) : 0;
	int rc;

	errno = 0;
	if (strcmp(c, "persist") == 0 && n == 5) {
		rc = rpmem_persist(s->replica, offset, length, third, flags);
	} else if (strcmp(c, "flush") == 0 && n == 5) {
		rc = rpmem_flush(s->replica, offset, length, third, flags);
	} else if (strcmp(c, "drain") == 0 && n == 3) {
		rc = rpmem_drain(s->replica, (unsigned)offset, (unsigned)length);
	} else if (strcmp(c, "deep") == 0 && n == 4) {
		rc = rpmem_deep_persist(s->replica, offset, length, third);
	} else if (strcmp(c, "setattr") == 0 && n == 1) {
		rc = rpmem_set_attr(s->replica, s->has_attr ? &s->attr : NULL);
	} else if (strcmp(c, "close") == 0 && n == 1) {
		rc = rpmem_close(s->replica);
		s->replica = NULL;
	} else if ((strcmp(c, "read") == 0 || strcmp(c, "compare") == 0) && n == 4) {
		cmd_read(s, c, offset, length, third);
		return true;
	} else if (strcmp(c, "threads") == 0 && n == 5) {
		cmd_threads(s, (unsigned)offset, (unsigned)length,
				strtoull(a[3], NULL, 0), a[4]);
		return true;
	} else if (strcmp(c, "time") == 0 && n == 5) {
		cmd_time(s, a[1], length, strtoull(a[3], NULL, 0), flags);
		return true;
	} else {
		return false;
	}
	report(c, rc, errno);
	return true;
}

/* Commands on local memory and those that make a replica. */
static bool
run_local(struct slot *s, const char *c, char **a, int n)
{
	size_t offset = n > 1 ? strtoull(a[1], NULL, 0) : 0;
	size_t length = n > 2 ? strtoull(a[2], NULL, 0) : 0;

	if (strcmp(c, "pool") == 0 && n >= 2) {
		cmd_pool(s, offset, n > 2 ? a[2] : NULL,
				n > 3 ? strtoull(a[3], NULL, 0) : 0);
	} else if (strcmp(c, "attr") == 0 && n == 2) {
		cmd_attr(s, a[1]);
	} else if ((strcmp(c, "create") == 0 || strcmp(c, "open") == 0 ||
			strcmp(c, "openblind") == 0) && n == 4) {
		if (s->replica != NULL)
			complain("this slot has an open replica");
		else
			cmd_connect(s, c, a[1], a[2], a[3]);
	} else if (strcmp(c, "fill") == 0 && n == 4) {
		fill(s, offset, length, (unsigned)strtoul(a[3], NULL, 0));
		report(c, 0, 0);
	} else if (strcmp(c, "set") == 0 && n == 3) {
		if (from_hex(a[2], (unsigned char *)s->memory + offset, strlen(a[2]) / 2))
			report(c, 0, 0);
		else
			complain("set wants hex digits");
	} else if (strcmp(c, "get") == 0 && n == 3) {
		begin(c);
		printf(",\"rc\":0");
		put_hex("bytes", s->memory + offset, length);
		end();
	} else {
		return false;
	}
	return true;
}

static bool
run_global(const char *c, char **a, int n)
{
	if (strcmp(c, "remove") == 0 && n == 4) {
		errno = 0;
		int rc = rpmem_remove(a[1], a[2], (int)strtol(a[3], NULL, 0));
		report(c, rc, errno);
	} else if (strcmp(c, "version") == 0 && n == 3) {
		const char *verdict = rpmem_check_version(
				(unsigned)strtoul(a[1], NULL, 0),
				(unsigned)strtoul(a[2], NULL, 0));
		begin(c);
		printf(",\"rc\":%d,\"errno\":0", verdict ? -1 : 0);
		put_string("message", verdict);
		end();
	} else if (strcmp(c, "errormsg") == 0 && n == 1) {
		begin(c);
		printf(",\"rc\":0");
		put_string("message", rpmem_errormsg());
		end();
	} else {
		return false;
	}
	return true;
}

int
main(void)
{
	struct slot *current = &slots[0];
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) > 0) {
		char *a[8];
		int n = 0;
		char *rest = line;
		for (char *word; n < 8 && (word = strtok_r(rest, " \t\n", &rest)); )
			a[n++] = word;
		if (n == 0)
			continue;
		if (strcmp(a[0], "quit") == 0)
			break;
		if (strcmp(a[0], "use") == 0 && n == 2) {
			current = &slots[strtoul(a[1], NULL, 0) % SLOTS];
			report("use", 0, 0);
		} else if (run_global(a[0], a, n) || run_local(current, a[0], a, n)) {
			continue;
		} else if (current->replica == NULL) {
			complain("no replica is open, or the command is unknown");
		} else if (!run_on_replica(current, a[0], a, n)) {
			complain("unknown command or wrong number of words");
		}
	}
	for (int i = 0; i < SLOTS; i++) {
		if (slots[i].replica != NULL)
			rpmem_close(slots[i].replica);
	}
	free(line);
	return 0;
}
