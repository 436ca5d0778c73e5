/* librpma: WRITE + flush, READ, and messages between two processes, over a verbs device.
 *
 *   rpma serve ADDRESS SIZE PATH OFFSET PERSIST SPIN_US   PATH "-": memory; PERSIST pmem or none
 *   rpma drive ADDRESS PORT SIZE                          job lines as drive.c
 *
 * Exchanges: read, write-flush (the library's flush: persistent where the memory is, else to
 * visibility), write-read (its WRITE and an 8-byte READ), write-send (WRITE, SEND, a reply) and
 * send-data (the data copied behind the message: the library sends one piece of memory).
 */
#include "verbs.h"

#include <immintrin.h>
#include <librpma.h>
#include <poll.h>
#include <stdbool.h>

static void ok(int rc, const char *what)
{
	if (rc)
		die("%s: %s", what, rpma_err_2str(rc));
}

struct rpma {
	struct rpma_peer *peer;
	struct rpma_conn_cfg *cfg;
	struct rpma_conn *conn;
	struct rpma_cq *cq;
	struct rpma_mr_local *pool_mr, *messages_mr;
	struct rpma_mr_remote *remote;
	enum rpma_flush_type flush;
	uint8_t *pool, *sends, *receives;
	uint64_t pool_size;
	uint32_t slot, posted;
};

static void open_peer(struct rpma *r, const char *address, enum rpma_util_ibv_context_type type)
{
	struct ibv_context *context;

	ok(rpma_utils_get_ibv_context(address, type, &context), "no verbs device at that address");
	ok(rpma_peer_new(context, &r->peer), "rpma_peer_new");
	ok(rpma_conn_cfg_new(&r->cfg), "rpma_conn_cfg_new");
	rpma_conn_cfg_set_sq_size(r->cfg, DEPTH);
	rpma_conn_cfg_set_rq_size(r->cfg, SLOTS);
	rpma_conn_cfg_set_cq_size(r->cfg, DEPTH + SLOTS);
	r->sends = pool_memory("-", 0, 2 * SLOTS * MESSAGE);
	r->receives = r->sends + SLOTS * MESSAGE;
	ok(rpma_mr_reg(r->peer, r->sends, 2 * SLOTS * MESSAGE,
		       RPMA_MR_USAGE_SEND | RPMA_MR_USAGE_RECV | RPMA_MR_USAGE_READ_DST, &r->messages_mr),
	   "rpma_mr_reg");
}

static void receive_first(struct rpma *r, struct rpma_conn_req *request)
{
	for (uintptr_t slot = SLOTS; slot < 2 * SLOTS; slot++)
		ok(rpma_conn_req_recv(request, r->messages_mr, slot * MESSAGE, MESSAGE, (void *)slot),
		   "rpma_conn_req_recv");
}

static void receive_again(struct rpma *r, uint64_t slot)
{
	ok(rpma_recv(r->conn, r->messages_mr, slot * MESSAGE, MESSAGE, (void *)slot), "rpma_recv");
}

static void established(struct rpma *r)
{
	enum rpma_conn_event event;

	ok(rpma_conn_next_event(r->conn, &event), "rpma_conn_next_event");
	if (event != RPMA_CONN_ESTABLISHED)
		die("no connection: %s", rpma_utils_conn_event_2str(event));
	ok(rpma_conn_get_cq(r->conn, &r->cq), "rpma_conn_get_cq");
}

static int room(struct rpma *r)
{
	return ++r->posted % SIGNAL_EVERY ? RPMA_F_COMPLETION_ON_ERROR : RPMA_F_COMPLETION_ALWAYS;
}

static int taken(struct rpma *r, struct ibv_wc *wc)
{
	int rc = rpma_cq_get_wc(r->cq, 1, wc, NULL);

	if (rc == RPMA_E_NO_COMPLETION)
		return 0;
	ok(rc, "rpma_cq_get_wc");
	return 1;
}

/* --- the target ------------------------------------------------------------------------ */

__attribute__((target("clwb"))) static void persist_pmem(uint8_t *address, size_t size)
{
	uintptr_t line = (uintptr_t)address & ~63ul, end = (uintptr_t)address + size;

	for (; line < end; line += 64)
		_mm_clwb((void *)line);
	_mm_sfence();
}

static void handle(struct rpma *r, const struct ibv_wc *wc, bool persists)
{
	const struct request *asked = (void *)(r->sends + wc->wr_id * MESSAGE);

	if (wc->status)
		exit(0);
	if (wc->opcode != IBV_WC_RECV)
		return;
	if (asked->offset > r->pool_size || asked->length > r->pool_size - asked->offset)
		die("request outside the pool");
	if (asked->mode == MODE_STORE)
		memcpy(r->pool + asked->offset, asked + 1, asked->length);
	if (persists)
		persist_pmem(r->pool + asked->offset, asked->length);
	receive_again(r, wc->wr_id);
	ok(rpma_send(r->conn, r->messages_mr, 0, sizeof(struct reply), room(r), NULL), "rpma_send");
}

/* Polls for a while after the last message, then sleeps; the library keeps its queue armed. */
static void serve_forever_rpma(struct rpma *r, bool persists, uint64_t spin_us)
{
	struct pollfd fds[3] = {{-1, POLLIN, 0}, {-1, POLLIN, 0}, {0, POLLIN, 0}};
	uint64_t last = 0, quiet = 0;
	struct ibv_wc wc;

	ok(rpma_cq_get_fd(r->cq, &fds[0].fd), "rpma_cq_get_fd");
	ok(rpma_conn_get_event_fd(r->conn, &fds[1].fd), "rpma_conn_get_event_fd");
	for (;;) {
		if (taken(r, &wc)) {
			handle(r, &wc, persists);
			quiet = 0;
			continue;
		}
		poll_pause(&quiet);
		if (quiet % 64)
			continue;
		if (quiet == 64)
			last = now_ns();
		if (now_ns() - last < spin_us * 1000)
			continue;
		poll(fds, 3, -1);
		if (fds[1].revents || fds[2].revents)
			exit(0);
		ok(rpma_cq_wait(r->cq), "rpma_cq_wait");
		quiet = 0;
	}
}

static void serve(struct rpma *r, const char *address, bool persists, uint64_t spin_us)
{
	enum { OPEN = RPMA_MR_USAGE_READ_SRC | RPMA_MR_USAGE_WRITE_DST | RPMA_MR_USAGE_FLUSH_TYPE_VISIBILITY };
	struct rpma_conn_private_data told;
	struct rpma_conn_req *request;
	struct rpma_ep *ep = NULL;
	size_t descriptor_size;
	uint8_t descriptor[128];
	char port[16];
	int number = 0;

	open_peer(r, address, RPMA_UTIL_IBV_CONTEXT_LOCAL);
	/* Plain memory cannot be registered for persistent flushes. */
	if (rpma_mr_reg(r->peer, r->pool, r->pool_size, OPEN | RPMA_MR_USAGE_FLUSH_TYPE_PERSISTENT, &r->pool_mr))
		ok(rpma_mr_reg(r->peer, r->pool, r->pool_size, OPEN, &r->pool_mr), "rpma_mr_reg");
	ok(rpma_mr_get_descriptor_size(r->pool_mr, &descriptor_size), "rpma_mr_get_descriptor_size");
	if (descriptor_size > sizeof(descriptor))
		die("the descriptor is too large");
	ok(rpma_mr_get_descriptor(r->pool_mr, descriptor), "rpma_mr_get_descriptor");
	/* It does not report its port, so use the first free one. */
	for (number = 20000; number < 20100 && !ep; number++) {
		snprintf(port, sizeof(port), "%d", number);
		if (rpma_ep_listen(r->peer, address, port, &ep))
			ep = NULL;
	}
	if (!ep)
		die("rpma_ep_listen: no free port");
	printf("{\"port\":%s}\n", port);
	fflush(stdout);
	told = (struct rpma_conn_private_data){descriptor, (uint8_t)descriptor_size};
	ok(rpma_ep_next_conn_req(ep, r->cfg, &request), "rpma_ep_next_conn_req");
	receive_first(r, request);
	ok(rpma_conn_req_connect(&request, &told, &r->conn), "rpma_conn_req_connect");
	established(r);
	serve_forever_rpma(r, persists, spin_us);
}

/* --- the initiator --------------------------------------------------------------------- */

static void await(struct rpma *r, enum ibv_wc_opcode wanted)
{
	uint64_t empty = 0;
	struct ibv_wc wc;

	do {
		while (!taken(r, &wc))
			poll_pause(&empty);
		if (wc.status != IBV_WC_SUCCESS)
			die("operation failed: %s", ibv_wc_status_str(wc.status));
		if (wc.opcode == IBV_WC_RECV)
			receive_again(r, wc.wr_id);
		/* a SEND that was only to make room may come first */
	} while (wanted == IBV_WC_RECV ? wc.opcode != IBV_WC_RECV : wc.opcode == IBV_WC_SEND);
}

static void send_message(struct rpma *r, uint32_t mode, uint64_t size, uint64_t inside)
{
	uint64_t place = r->slot++ % SLOTS * MESSAGE;
	struct request *asked = (void *)(r->sends + place);

	*asked = (struct request){.mode = mode, .length = size};
	memcpy(asked + 1, r->pool, inside);
	ok(rpma_send(r->conn, r->messages_mr, place, sizeof(*asked) + inside, room(r), NULL), "rpma_send");
	await(r, IBV_WC_RECV);
}

static void write_it(struct rpma *r, uint64_t size)
{
	ok(rpma_write(r->conn, r->remote, 0, r->pool_mr, 0, size, RPMA_F_COMPLETION_ON_ERROR, NULL), "rpma_write");
}

static void read_it(struct rpma *r, struct rpma_mr_local *into, uint64_t size)
{
	ok(rpma_read(r->conn, into, 0, r->remote, 0, size, RPMA_F_COMPLETION_ALWAYS, NULL), "rpma_read");
	await(r, IBV_WC_RDMA_READ);
}

static void once(struct rpma *r, const char *exchange, uint64_t size)
{
	if (!strcmp(exchange, "read")) {
		read_it(r, r->pool_mr, size);
	} else if (!strcmp(exchange, "write-flush")) {
		write_it(r, size);
		ok(rpma_flush(r->conn, r->remote, 0, size, r->flush, RPMA_F_COMPLETION_ALWAYS, NULL), "rpma_flush");
		await(r, IBV_WC_RDMA_READ);
	} else if (!strcmp(exchange, "write-read")) {
		write_it(r, size);
		read_it(r, r->messages_mr, 8);
	} else if (!strcmp(exchange, "write-send")) {
		write_it(r, size);
		send_message(r, MODE_FLUSH, size, 0);
	} else if (!strcmp(exchange, "send-data")) {
		send_message(r, MODE_STORE, size, size);
	} else {
		die("no such exchange: %s", exchange);
	}
}

static void connect_to(struct rpma *r, const char *address, const char *port)
{
	struct rpma_conn_private_data told;
	struct rpma_conn_req *request;
	struct rpma_peer_cfg *direct;
	int types;

	open_peer(r, address, RPMA_UTIL_IBV_CONTEXT_REMOTE);
	ok(rpma_mr_reg(r->peer, r->pool, r->pool_size, RPMA_MR_USAGE_WRITE_SRC | RPMA_MR_USAGE_READ_DST, &r->pool_mr),
	   "rpma_mr_reg");
	ok(rpma_conn_req_new(r->peer, address, port, r->cfg, &request), "rpma_conn_req_new");
	receive_first(r, request);
	ok(rpma_conn_req_connect(&request, NULL, &r->conn), "rpma_conn_req_connect");
	established(r);
	ok(rpma_conn_get_private_data(r->conn, &told), "rpma_conn_get_private_data");
	ok(rpma_mr_remote_from_descriptor(told.ptr, told.len, &r->remote), "rpma_mr_remote_from_descriptor");
	/* The library has to be told that WRITEs reach persistent memory. */
	ok(rpma_peer_cfg_new(&direct), "rpma_peer_cfg_new");
	ok(rpma_peer_cfg_set_direct_write_to_pmem(direct, true), "rpma_peer_cfg_set_direct_write_to_pmem");
	ok(rpma_conn_apply_remote_peer_cfg(r->conn, direct), "rpma_conn_apply_remote_peer_cfg");
	ok(rpma_mr_remote_get_flush_type(r->remote, &types), "rpma_mr_remote_get_flush_type");
	r->flush = types & RPMA_MR_USAGE_FLUSH_TYPE_PERSISTENT ? RPMA_FLUSH_TYPE_PERSISTENT
							       : RPMA_FLUSH_TYPE_VISIBILITY;
}

static void run(struct rpma *r, const char *line)
{
	char exchange[32], size_text[24], rest[128];
	unsigned long long count, warmup;
	uint64_t *samples, size, wall = 0;

	if (sscanf(line, "%31s %23s %llu %llu %127s", exchange, size_text, &count, &warmup, rest) != 5)
		die("not a job: %s", line);
	size = parse_size(size_text);
	if (size > r->pool_size || size > MESSAGE - sizeof(struct request))
		die("job does not fit: %s", line);
	samples = there(calloc(count + 1, sizeof(*samples)), "calloc");
	for (uint64_t i = 0; i < warmup + count; i++) {
		uint64_t start = now_ns();

		if (i == warmup)
			wall = start;
		once(r, exchange, size);
		if (i >= warmup)
			samples[i - warmup] = now_ns() - start;
	}
	put_samples(exchange, size, now_ns() - wall, size * count, samples, count);
	free(samples);
}

int main(int argc, char **argv)
{
	struct rpma r = {0};
	char line[256];

	if (argc == 8 && !strcmp(argv[1], "serve")) {
		r.pool_size = parse_size(argv[3]);
		r.pool = pool_memory(argv[4], parse_size(argv[5]), r.pool_size);
		serve(&r, argv[2], !strcmp(argv[6], "pmem"), parse_size(argv[7]));
		return 0;
	}
	if (argc != 5 || strcmp(argv[1], "drive"))
		die("usage: rpma serve ADDRESS SIZE PATH OFFSET PERSIST SPIN_US | drive ADDRESS PORT SIZE");
	r.pool_size = parse_size(argv[4]);
	r.pool = pool_memory("-", 0, r.pool_size);
	memset(r.pool, 0x5a, r.pool_size);
	connect_to(&r, argv[2], argv[3]);
	printf("{\"persistent\":%d,\"clock_ns\":%llu}\n", r.flush == RPMA_FLUSH_TYPE_PERSISTENT,
	       (unsigned long long)clock_cost());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		run(&r, line);
	rpma_conn_disconnect(r.conn);
	return 0;
}
