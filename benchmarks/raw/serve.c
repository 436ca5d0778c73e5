/* The raw target: receives requests, copies or flushes, replies. */
#include "fabric.h"

#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fabric fabric;
static void (*persist)(uint8_t *address, size_t size);

static void persist_none(uint8_t *address, size_t size)
{
	(void)address;
	(void)size;
	__asm__ volatile("" ::: "memory");
}

__attribute__((target("clwb"))) static void persist_pmem(uint8_t *address, size_t size)
{
	uintptr_t line = (uintptr_t)address & ~63ul, end = (uintptr_t)address + size;

	for (; line < end; line += 64)
		_mm_clwb((void *)line);
	_mm_sfence();
}

static void persist_msync(uint8_t *address, size_t size)
{
	uintptr_t page = (uintptr_t)address & ~4095ul;

	if (msync((void *)page, (uintptr_t)address + size - page, MS_SYNC))
		die("msync: %s", strerror(errno));
}

static void reply(struct lane *lane)
{
	static const uint64_t word = 1;

	if (fabric.o.reply_inject) {
		while (fi_inject(lane->ep, &word, REPLY, 0) == -FI_EAGAIN)
			fi_cq_read(lane->tx_cq, NULL, 0);
	} else {
		struct iovec iov = {lane->send_buffer, REPLY};
		void *desc = fi_mr_desc(lane_mr(lane, 1));
		struct fi_msg msg = {.msg_iov = &iov, .desc = &desc, .iov_count = 1};

		while (fi_sendmsg(lane->ep, &msg, 0) == -FI_EAGAIN)
			fi_cq_read(lane->tx_cq, NULL, 0);
	}
}

static void serve(struct lane *lane, const struct fi_cq_msg_entry *entry)
{
	uint8_t *buffer = entry->op_context;
	struct request r;

	memcpy(&r, buffer, HEADER);
	if (r.mode != MODE_ECHO && (r.offset > fabric.pool_size || r.size > fabric.pool_size - r.offset))
		die("request outside the pool");
	if (r.mode == MODE_INLINE)
		memcpy(fabric.pool + r.offset, buffer + HEADER, r.size);
	if (r.mode != MODE_ECHO)
		persist(fabric.pool + r.offset, r.size);
	if (r.flags & WANTS_REPLY)
		reply(lane);
	fabric_post_recv(lane, (int)((size_t)(buffer - lane->recv_buffers) / lane->recv_size));
}

/* Waits until something arrives for the lanes of this thread. One-sided traffic leaves no
 * completions here, so spinning ends on time alone; with traffic this returns at once. */
static void rest(int first)
{
	struct pollfd fds[MAX_LANES];
	nfds_t n = 0;

	for (int i = first; i < fabric.o.lanes; i += fabric.o.threads) {
		struct fid *fid = &fabric.lanes[i].tx_cq->fid;

		if (fi_trywait(fabric.fabric, &fid, 1))
			return;
		fds[n++] = (struct pollfd){fabric.lanes[i].bell_fd, POLLIN, 0};
	}
	poll(fds, n, 100);
}

static void *serve_lanes(void *argument)
{
	int first = (int)(intptr_t)argument, step = fabric.o.threads, wait = fabric.o.wait;
	struct fi_cq_msg_entry entries[RECV_DEPTH];
	uint64_t last = now_ns(), quiet = 0;

	for (;;) {
		int busy = 0;

		for (int i = first; i < fabric.o.lanes; i += step) {
			struct lane *lane = &fabric.lanes[i];
			long n = cq_take(lane->cq, entries, fabric.o.batch, wait);

			for (long k = 0; k < n; k++)
				serve(lane, &entries[k]);
			busy |= n > 0;
		}
		if (busy) {
			quiet = 0;
			continue;
		}
		poll_pause(&quiet);
		if (!wait && quiet % 64 == 0) {
			uint64_t now = now_ns();

			if (quiet == 64)
				last = now;
			if (fabric.o.bell && now - last > fabric.o.spin_us * 1000) {
				rest(first);
				quiet = 0;
			}
		}
	}
	return NULL;
}

static void *until_stdin_closes(void *argument)
{
	char c;

	while (read(0, &c, 1) > 0)
		continue;
	(void)argument;
	_exit(0);
}

int main(int argc, char **argv)
{
	pthread_t watcher, threads[MAX_LANES];

	parse_options(&fabric.o, argc, argv);
	persist = !strcmp(fabric.o.persist, "pmem")    ? persist_pmem
		  : !strcmp(fabric.o.persist, "msync") ? persist_msync
						       : persist_none;
	fabric_open(&fabric, 1);
	pthread_create(&watcher, NULL, until_stdin_closes, NULL);
	fabric_listen(&fabric);
	for (int t = 1; t < fabric.o.threads; t++)
		pthread_create(&threads[t], NULL, serve_lanes, (void *)(intptr_t)t);
	serve_lanes((void *)0);
	return 0;
}
