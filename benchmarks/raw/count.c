/* Counts what a process hands to its RDMA device: a library for LD_PRELOAD.
 *
 * Everything passes through one of two tables of functions, whatever library calls them: that of
 * the opened device (ibv_post_send and its like are inline calls of it) or that of a queue pair
 * (ibv_wr_*). Both are fetched by a call that a preloaded library sees, and get our functions
 * put in front. The numbers are in the file that VERBS_COUNTS names.
 */
#include "common.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <sys/mman.h>
#include <unistd.h>

/* as in `NAMES` in benchmarks/rdma/counting.py */
enum { DOORBELLS, WRITES, READS, SENDS, FLUSHES, WORDS, OTHERS, RECEIVES, COMPLETIONS, COUNTERS };

static uint64_t *counters;
static struct ibv_context_ops device;
static struct ibv_qp_ex pair;

static void add(int which, uint64_t n)
{
	__atomic_fetch_add(&counters[which], n, __ATOMIC_RELAXED);
}

static void *real(const char *name)
{
	/* Not RTLD_NEXT: a Python extension loads the library for itself only. */
	void *library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NOLOAD);
	void *found = library ? dlsym(library, name) : NULL;

	if (!found)
		die("count: libibverbs has no %s", name);
	return found;
}

static void start_counting(void)
{
	const char *path = getenv("VERBS_COUNTS");
	int fd;

	if (counters)
		return;
	fd = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;
	if (fd < 0 || ftruncate(fd, COUNTERS * sizeof(*counters)))
		die("count: VERBS_COUNTS names no file that can be written");
	counters = mmap(NULL, COUNTERS * sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counters == MAP_FAILED)
		die("count: mmap: %s", strerror(errno));
	close(fd);
}

/* --- what goes by way of the device ----------------------------------------------------- */

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *first, struct ibv_send_wr **bad)
{
	for (const struct ibv_send_wr *wr = first; wr; wr = wr->next)
		switch (wr->opcode) {
		case IBV_WR_RDMA_WRITE: add(WRITES, 1); break;
		case IBV_WR_RDMA_READ: add(READS, 1); break;
		case IBV_WR_SEND: add(SENDS, 1); break;
		default: add(OTHERS, 1);
		}
	add(DOORBELLS, 1);
	return device.post_send(qp, first, bad);
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *first, struct ibv_recv_wr **bad)
{
	for (const struct ibv_recv_wr *wr = first; wr; wr = wr->next)
		add(RECEIVES, 1);
	return device.post_recv(qp, first, bad);
}

static int poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *entries)
{
	int n = device.poll_cq(cq, room, entries);

	if (n > 0)
		add(COMPLETIONS, (uint64_t)n);
	return n;
}

struct ibv_context *ibv_open_device(struct ibv_device *which)
{
	struct ibv_context *(*open_device)(struct ibv_device *) = real("ibv_open_device");
	struct ibv_context *context = open_device(which);

	if (!context)
		return NULL;
	start_counting();
	if (device.post_send && device.post_send != context->ops.post_send)
		die("count: devices of two kinds");
	device = context->ops;
	context->ops.post_send = post_send;
	context->ops.post_recv = post_recv;
	context->ops.poll_cq = poll_cq;
	return context;
}

/* --- what goes by way of a queue pair's own table --------------------------------------- */

static void wr_write(struct ibv_qp_ex *qp, uint32_t key, uint64_t address)
{
	add(WRITES, 1);
	pair.wr_rdma_write(qp, key, address);
}

static void wr_read(struct ibv_qp_ex *qp, uint32_t key, uint64_t address)
{
	add(READS, 1);
	pair.wr_rdma_read(qp, key, address);
}

static void wr_send(struct ibv_qp_ex *qp)
{
	add(SENDS, 1);
	pair.wr_send(qp);
}

static void wr_flush(struct ibv_qp_ex *qp, uint32_t key, uint64_t address, size_t length,
		     uint8_t type, uint8_t level)
{
	add(FLUSHES, 1);
	pair.wr_flush(qp, key, address, length, type, level);
}

static void wr_word(struct ibv_qp_ex *qp, uint32_t key, uint64_t address, const void *word)
{
	add(WORDS, 1);
	pair.wr_atomic_write(qp, key, address, word);
}

static int wr_complete(struct ibv_qp_ex *qp)
{
	add(DOORBELLS, 1);
	return pair.wr_complete(qp);
}

struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	struct ibv_qp_ex *(*to_qp_ex)(struct ibv_qp *) = real("ibv_qp_to_qp_ex");
	struct ibv_qp_ex *found = to_qp_ex(qp);

	if (!found || found->wr_complete == wr_complete)
		return found;
	pair = *found;
	found->wr_rdma_write = wr_write;
	found->wr_rdma_read = wr_read;
	found->wr_send = wr_send;
	found->wr_flush = wr_flush;
	found->wr_atomic_write = wr_word;
	found->wr_complete = wr_complete;
	return found;
}
