/* Raw libibverbs: the cost of a persist that is written directly in C.
 *
 *   verbs serve ADDRESS SIZE PATH OFFSET PERSIST SPIN_US   PATH "-": memory; PERSIST pmem or none
 *   verbs drive ADDRESS PORT SIZE                          job lines as drive.c
 *
 * All requests of one operation are handed over together.
 */
#include "verbs.h"

#include <unistd.h>

static struct connection c;
static uint8_t *landing;
static struct ibv_mr *landing_mr;

static void await(void)
{
	struct ibv_wc wc[SLOTS];
	uint64_t empty = 0;

	for (int wanted = 1; wanted;) {
		int n = ibv_poll_cq(c.cq, SLOTS, wc);

		if (n == 0)
			poll_pause(&empty);
		for (int i = 0; i < n; i++) {
			if (wc[i].status)
				die("operation failed: %s", ibv_wc_status_str(wc[i].status));
			if (wc[i].wr_id & ID_RECEIVE)
				post_receive(&c, wc[i].wr_id & 0xffff);
			if (wc[i].wr_id & (ID_RECEIVE | ID_WANTED))
				wanted = 0;
		}
	}
}

static void one_sided(struct ibv_send_wr *wr, struct ibv_sge *piece, enum ibv_wr_opcode opcode,
		      uint64_t offset, uint64_t size)
{
	*piece = (struct ibv_sge){(uintptr_t)(c.pool + offset), (uint32_t)size, c.pool_mr->lkey};
	*wr = (struct ibv_send_wr){.sg_list = piece, .num_sge = 1, .opcode = opcode};
	wr->wr.rdma.remote_addr = c.grant.address + offset;
	wr->wr.rdma.rkey = c.grant.key;
	if (opcode == IBV_WR_RDMA_WRITE && size <= c.inline_limit)
		wr->send_flags = IBV_SEND_INLINE;
}

static void post(struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;

	must(ibv_post_send(c.qp, wr, &bad), "ibv_post_send");
}

/* --- the exchanges --------------------------------------------------------------------- */

static void read_remote(uint64_t offset, uint64_t size)
{
	struct ibv_send_wr wr;
	struct ibv_sge piece;

	one_sided(&wr, &piece, IBV_WR_RDMA_READ, offset, size);
	piece.addr = (uintptr_t)landing;
	piece.lkey = landing_mr->lkey;
	wr.send_flags = IBV_SEND_SIGNALED;
	wr.wr_id = ID_WANTED;
	post(&wr);
	await();
}

static void write_read(uint64_t offset, uint64_t size)
{
	struct ibv_send_wr wr[2];
	struct ibv_sge piece[2];

	one_sided(&wr[0], &piece[0], IBV_WR_RDMA_WRITE, offset, size);
	one_sided(&wr[1], &piece[1], IBV_WR_RDMA_READ, offset, 8);
	piece[1].addr = (uintptr_t)landing;
	piece[1].lkey = landing_mr->lkey;
	wr[0].next = &wr[1];
	wr[1].send_flags = IBV_SEND_SIGNALED;
	wr[1].wr_id = ID_WANTED;
	post(wr);
	await();
}

static void write_flush(uint64_t offset, uint64_t size)
{
	struct ibv_qp_ex *qp = c.direct;

	ibv_wr_start(qp);
	qp->wr_id = 0;
	qp->wr_flags = size <= c.inline_limit ? IBV_SEND_INLINE : 0;
	ibv_wr_rdma_write(qp, c.grant.key, c.grant.address + offset);
	if (size <= c.inline_limit)
		ibv_wr_set_inline_data(qp, c.pool + offset, size);
	else
		ibv_wr_set_sge(qp, c.pool_mr->lkey, (uintptr_t)(c.pool + offset), (uint32_t)size);
	qp->wr_id = ID_WANTED;
	qp->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_flush(qp, c.grant.key, c.grant.address + offset, size, IBV_FLUSH_PERSISTENT, IBV_FLUSH_RANGE);
	must(ibv_wr_complete(qp), "ibv_wr_complete");
	await();
}

static struct request *next_message(uint32_t mode, uint64_t offset, uint64_t size)
{
	struct request *r = (void *)(c.sends + c.slot++ % SLOTS * MESSAGE);

	*r = (struct request){.mode = mode, .offset = offset, .length = size};
	return r;
}

static void write_send(uint64_t offset, uint64_t size)
{
	struct ibv_sge piece[2];
	struct ibv_send_wr wr[2];

	one_sided(&wr[0], &piece[0], IBV_WR_RDMA_WRITE, offset, size);
	piece[1] = (struct ibv_sge){(uintptr_t)next_message(MODE_FLUSH, offset, size), sizeof(struct request),
				    c.message_mr->lkey};
	wr[0].next = &wr[1];
	wr[1] = (struct ibv_send_wr){.sg_list = &piece[1], .num_sge = 1, .opcode = IBV_WR_SEND};
	wr[1].send_flags = IBV_SEND_INLINE | room_flag(&c);
	post(wr);
	await();
}

/* the data behind the header: copied as long as the device takes both at once, else gathered */
static void send_data(uint64_t offset, uint64_t size)
{
	struct request *r = next_message(MODE_STORE, offset, size);
	struct ibv_sge piece[2] = {{(uintptr_t)r, sizeof(*r), c.message_mr->lkey},
				   {(uintptr_t)(c.pool + offset), (uint32_t)size, c.pool_mr->lkey}};
	struct ibv_send_wr wr = {.sg_list = piece, .num_sge = 2, .opcode = IBV_WR_SEND};

	wr.send_flags = room_flag(&c);
	if (sizeof(*r) + size <= c.inline_limit) {
		memcpy(r + 1, c.pool + offset, size);
		piece[0].length += (uint32_t)size;
		wr.num_sge = 1;
		wr.send_flags |= IBV_SEND_INLINE;
	}
	post(&wr);
	await();
}

static const struct {
	const char *name;
	void (*once)(uint64_t offset, uint64_t size);
} exchanges[] = {
	{"read", read_remote},	     {"write-read", write_read}, {"write-flush", write_flush},
	{"write-send", write_send}, {"send-data", send_data},
};

/* --- jobs ------------------------------------------------------------------------------ */

static void run(const char *line)
{
	char exchange[32], size_text[24], rest[64];
	unsigned long long count, warmup;
	void (*once)(uint64_t, uint64_t) = NULL;
	uint64_t *samples, size, wall = 0;

	if (sscanf(line, "%31s %23s %llu %llu %63s", exchange, size_text, &count, &warmup, rest) != 5)
		die("not a job: %s", line);
	size = parse_size(size_text);
	for (size_t i = 0; i < sizeof(exchanges) / sizeof(*exchanges); i++)
		if (!strcmp(exchange, exchanges[i].name))
			once = exchanges[i].once;
	if (!once || size > c.pool_size || size > MESSAGE - sizeof(struct request))
		die("job does not fit: %s", line);
	if (once == write_flush && !c.grant.flushes)
		die("no persistent FLUSH there");
	samples = there(calloc(count + 1, sizeof(*samples)), "calloc");
	for (uint64_t i = 0; i < warmup + count; i++) {
		uint64_t start = now_ns();

		if (i == warmup)
			wall = start;
		once(0, size);
		if (i >= warmup)
			samples[i - warmup] = now_ns() - start;
	}
	put_samples(exchange, size, now_ns() - wall, size * count, samples, count);
	free(samples);
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc == 8 && !strcmp(argv[1], "serve")) {
		c.pool_size = parse_size(argv[3]);
		c.pool = pool_memory(argv[4], parse_size(argv[5]), c.pool_size);
		connection_listen(&c, argv[2]);
		serve_forever(&c, argv[6], parse_size(argv[7]));
	}
	if (argc != 5 || strcmp(argv[1], "drive"))
		die("usage: verbs serve ADDRESS SIZE PATH OFFSET PERSIST SPIN_US | drive ADDRESS PORT SIZE");
	c.pool_size = parse_size(argv[4]);
	c.pool = pool_memory("-", 0, c.pool_size);
	memset(c.pool, 0x5a, c.pool_size);
	connection_connect(&c, argv[2], argv[3]);
	landing = pool_memory("-", 0, MESSAGE);
	landing_mr = there(ibv_reg_mr(c.qp->pd, landing, MESSAGE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
	printf("{\"inline\":%u,\"flushes\":%u,\"clock_ns\":%llu}\n", c.inline_limit, c.grant.flushes,
	       (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		run(line);
	rdma_disconnect(c.id);
	return 0;
}
