/* PMDK's librpmem, timed. Arguments: TARGET SET SIZE LANES. Job lines as drive.c, exchanges:
 * persist, persist-relaxed, flush-drain (DEPTH flushes of SIZE, one drain), persist-each (DEPTH
 * persists), read, and create, open, remove (a whole life cycle each; the named call is timed).
 */
#include "common.h"

#include <librpmem.h>
#include <pthread.h>
#include <sys/mman.h>

struct job {
	char exchange[32];
	uint64_t size, count, warmup, depth, span;
	int threads;
};

struct worker {
	const struct job *job;
	unsigned lane;
	uint64_t *samples;
	pthread_t thread;
};

static const char *target, *set;
static RPMEMpool *replica;
static uint8_t *pool, *landing;
static uint64_t pool_size;
static unsigned lanes;
static pthread_barrier_t barrier;
static uint64_t began;

static void must(int rc, const char *what)
{
	if (rc)
		die("%s: %s", what, rpmem_errormsg());
}

static void open_replica(int create)
{
	struct rpmem_pool_attr attributes = {.signature = "BENCH", .major = 1};
	unsigned granted = lanes;

	if (create)
		replica = rpmem_create(target, set, pool, pool_size, &granted, &attributes);
	else
		replica = rpmem_open(target, set, pool, pool_size, &granted, &attributes);
	if (!replica)
		die("rpmem_%s: %s", create ? "create" : "open", rpmem_errormsg());
	if (granted < lanes)
		lanes = granted;
}

static void once(const struct job *job, uint64_t offset, unsigned lane)
{
	const char *what = job->exchange;

	if (!strcmp(what, "persist")) {
		must(rpmem_persist(replica, offset, job->size, lane, 0), what);
	} else if (!strcmp(what, "persist-relaxed")) {
		must(rpmem_persist(replica, offset, job->size, lane, RPMEM_PERSIST_RELAXED), what);
	} else if (!strcmp(what, "read")) {
		must(rpmem_read(replica, landing + offset, offset, job->size, lane), what);
	} else if (!strcmp(what, "flush-drain")) {
		for (uint64_t i = 0; i < job->depth; i++)
			must(rpmem_flush(replica, offset + i * job->size, job->size, lane, 0), what);
		must(rpmem_drain(replica, lane, 0), what);
	} else if (!strcmp(what, "persist-each")) {
		for (uint64_t i = 0; i < job->depth; i++)
			must(rpmem_persist(replica, offset + i * 2 * job->size, job->size, lane, 0), what);
	} else {
		die("no such exchange: %s", what);
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	const struct job *job = w->job;
	uint64_t stride = job->size < 64 ? 64 : job->size, slots = job->span / stride;
	uint64_t home = 4096 + w->lane * job->span;

	if (!slots)
		slots = 1;
	for (uint64_t i = 0; i < job->warmup; i++)
		once(job, home + i % slots * stride, w->lane);
	if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
		began = now_ns();
	for (uint64_t i = 0; i < job->count; i++) {
		uint64_t start = now_ns();

		once(job, home + i % slots * stride, w->lane);
		w->samples[i] = now_ns() - start;
	}
	return NULL;
}

static uint64_t life(const char *what)
{
	uint64_t start = now_ns(), took = 0;

	open_replica(1);
	if (!strcmp(what, "create"))
		took = now_ns() - start;
	must(rpmem_close(replica), "rpmem_close");
	if (!strcmp(what, "open")) {
		start = now_ns();
		open_replica(0);
		took = now_ns() - start;
		must(rpmem_close(replica), "rpmem_close");
	}
	start = now_ns();
	must(rpmem_remove(target, set, 0), "rpmem_remove");
	if (!strcmp(what, "remove"))
		took = now_ns() - start;
	replica = NULL;
	return took;
}

static int is_life(const char *what)
{
	return !strcmp(what, "create") || !strcmp(what, "open") || !strcmp(what, "remove");
}

int main(int argc, char **argv)
{
	char line[256], size[24], chunk[24], span[24];

	if (argc != 5)
		die("usage: pmdk TARGET SET SIZE LANES");
	target = argv[1];
	set = argv[2];
	pool_size = parse_size(argv[3]);
	lanes = (unsigned)atoi(argv[4]);
	pool = mmap(NULL, pool_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	landing = mmap(NULL, pool_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pool == MAP_FAILED || landing == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	memset(pool, 0x5a, pool_size);
	memset(landing, 0, pool_size);
	printf("{\"connected\":0,\"clock_ns\":%llu}\n", (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		struct worker workers[64];
		struct job job = {0};
		unsigned long long count, warmup, depth;
		uint64_t *samples;

		if (sscanf(line, "%31s %23s %llu %llu %d %llu %23s %23s", job.exchange, size, &count,
			   &warmup, &job.threads, &depth, chunk, span) != 8)
			die("not a job: %s", line);
		job.size = parse_size(size);
		job.span = parse_size(span);
		job.count = count;
		job.warmup = warmup;
		job.depth = depth;
		samples = calloc(count * (uint64_t)job.threads + 1, sizeof(*samples));
		began = now_ns();
		if (is_life(job.exchange)) {
			if (replica)
				die("life cycles need a session of their own");
			for (uint64_t i = 0; i < warmup + count; i++) {
				uint64_t took = life(job.exchange);

				if (i >= warmup)
					samples[i - warmup] = took;
			}
			put_samples(job.exchange, 0, now_ns() - began, 0, samples, count);
			free(samples);
			continue;
		}
		if (!replica)
			open_replica(1);
		if (job.threads < 1 || (unsigned)job.threads > lanes || job.size > job.span ||
		    4096 + job.span * (uint64_t)job.threads > pool_size)
			die("job does not fit: %s", line);
		pthread_barrier_init(&barrier, NULL, (unsigned)job.threads);
		for (int t = 0; t < job.threads; t++) {
			workers[t] = (struct worker){.job = &job, .lane = (unsigned)t, .samples = samples + (uint64_t)t * count};
			if (t)
				pthread_create(&workers[t].thread, NULL, work, &workers[t]);
		}
		work(&workers[0]);
		for (int t = 1; t < job.threads; t++)
			pthread_join(workers[t].thread, NULL);
		put_samples(job.exchange, job.size, now_ns() - began, job.size * count * (uint64_t)job.threads,
			    samples, count * (uint64_t)job.threads);
		pthread_barrier_destroy(&barrier);
		free(samples);
	}
	if (replica) {
		must(rpmem_close(replica), "rpmem_close");
		must(rpmem_remove(target, set, 0), "rpmem_remove");
	}
	return 0;
}
