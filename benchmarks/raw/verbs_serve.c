/* The raw reference's target: stores or flushes as messages ask, and replies. */
#include "verbs.h"

#include <immintrin.h>
#include <poll.h>

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

static void answer(struct connection *c)
{
	struct reply *reply = (struct reply *)c->sends;
	struct ibv_sge piece = {(uintptr_t)reply, sizeof(*reply), c->message_mr->lkey};
	struct ibv_send_wr wr = {.sg_list = &piece, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad;

	reply->done++;
	wr.send_flags = IBV_SEND_INLINE | room_flag(c);
	must(ibv_post_send(c->qp, &wr, &bad), "ibv_post_send");
}

/* Sleeps until something arrives, or ends with the connection or with standard input. */
static void rest(struct connection *c)
{
	struct pollfd fds[3] = {{c->channel->fd, POLLIN, 0}, {c->events->fd, POLLIN, 0}, {0, POLLIN, 0}};
	struct ibv_cq *cq;
	void *user;

	poll(fds, 3, -1);
	if (fds[1].revents || fds[2].revents)
		exit(0);
	must(ibv_get_cq_event(c->channel, &cq, &user), "ibv_get_cq_event");
	ibv_ack_cq_events(cq, 1);
}

void serve_forever(struct connection *c, const char *persist_how, uint64_t spin_us)
{
	void (*persist)(uint8_t *, size_t) = strcmp(persist_how, "pmem") ? persist_none : persist_pmem;
	struct ibv_wc wc[SLOTS];
	uint64_t last = 0, quiet = 0;
	int armed = 0;

	for (;;) {
		int n = ibv_poll_cq(c->cq, SLOTS, wc);

		for (int i = 0; i < n; i++) {
			uint64_t slot = wc[i].wr_id & 0xffff;
			const struct request *r = (void *)(c->receives + slot * MESSAGE);

			if (wc[i].status)
				exit(0);
			if (!(wc[i].wr_id & ID_RECEIVE))
				continue;
			if (r->offset > c->pool_size || r->length > c->pool_size - r->offset)
				die("request outside the pool");
			if (r->mode == MODE_STORE)
				memcpy(c->pool + r->offset, r + 1, r->length);
			persist(c->pool + r->offset, r->length);
			post_receive(c, slot);
			answer(c);
		}
		if (n > 0) {
			quiet = 0;
			armed = 0;
			continue;
		}
		poll_pause(&quiet);
		if (quiet % 64)
			continue;
		if (quiet == 64)
			last = now_ns();
		if (now_ns() - last < spin_us * 1000)
			continue;
		/* Completions that arrive before the queue is armed do not ring: poll once more. */
		if (!armed) {
			must(ibv_req_notify_cq(c->cq, 0), "ibv_req_notify_cq");
			armed = 1;
			continue;
		}
		rest(c);
		armed = 0;
		quiet = 0;
	}
}
