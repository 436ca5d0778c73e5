/* Connecting the raw reference over RDMA-CM. */
#include "verbs.h"

#include <fcntl.h>
#include <netdb.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	WAIT_MS = 10000,
	OPEN = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
	PLACING = IBV_ACCESS_FLUSH_GLOBAL | IBV_ACCESS_FLUSH_PERSISTENT,
};

uint8_t *pool_memory(const char *path, uint64_t offset, size_t size)
{
	int shared = strcmp(path, "-") ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	int fd = shared == MAP_SHARED ? open(path, O_RDWR) : -1;
	void *p;

	if (shared == MAP_SHARED && fd < 0)
		die("%s: %s", path, strerror(errno));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, shared | MAP_POPULATE, fd, (off_t)offset);
	if (p == MAP_FAILED)
		die("mmap %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return p;
}

/* Waits for an event; returns how many concurrent READs the other side asks for. */
static uint64_t expect(struct connection *c, enum rdma_cm_event_type wanted, struct rdma_cm_id **id,
		       struct grant *grant)
{
	struct rdma_cm_event *event;
	uint64_t depth;

	must(rdma_get_cm_event(c->events, &event), "rdma_get_cm_event");
	if (event->event != wanted)
		die("%s instead of %s (%d)", rdma_event_str(event->event), rdma_event_str(wanted), event->status);
	if (id)
		*id = event->id;
	if (grant && event->param.conn.private_data_len >= sizeof(*grant))
		memcpy(grant, event->param.conn.private_data, sizeof(*grant));
	depth = event->param.conn.responder_resources;
	rdma_ack_cm_event(event);
	return depth;
}

static struct addrinfo *resolved(const char *address, const char *port)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;

	if (getaddrinfo(address, port, &hints, &found))
		die("%s is no address", address);
	return found;
}

/* Everything between knowing the device and asking for the connection, or accepting it. */
static void prepare(struct connection *c, int passive)
{
	struct ibv_context *device = c->id->verbs;
	struct ibv_device_attr_ex limits;
	struct ibv_pd *pd = there(ibv_alloc_pd(device), "ibv_alloc_pd");
	int access = IBV_ACCESS_LOCAL_WRITE;
	struct ibv_qp_init_attr_ex wanted = {
		.qp_type = IBV_QPT_RC,
		.cap = {DEPTH, SLOTS, 2, 1, INLINE},
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_SEND,
	};

	must(ibv_query_device_ex(device, NULL, &limits), "ibv_query_device_ex");
	if (limits.device_cap_flags_ex & IB_UVERBS_DEVICE_FLUSH_PERSISTENT)
		wanted.send_ops_flags |= IBV_QP_EX_WITH_FLUSH;
	c->channel = there(ibv_create_comp_channel(device), "ibv_create_comp_channel");
	c->cq = there(ibv_create_cq(device, DEPTH + SLOTS, NULL, c->channel, 0), "ibv_create_cq");
	wanted.send_cq = wanted.recv_cq = c->cq;
	must(rdma_create_qp_ex(c->id, &wanted), "rdma_create_qp_ex");
	c->qp = c->id->qp;
	c->inline_limit = wanted.cap.max_inline_data;
	c->direct = there(ibv_qp_to_qp_ex(c->qp), "ibv_qp_to_qp_ex");
	if (passive) {
		access = OPEN | (wanted.send_ops_flags & IBV_QP_EX_WITH_FLUSH ? PLACING : 0);
		/* Plain memory cannot be registered for flushing. */
		c->pool_mr = ibv_reg_mr(pd, c->pool, c->pool_size, (unsigned)access);
		c->grant.flushes = c->pool_mr && access & PLACING;
		access = OPEN;
	}
	if (!c->pool_mr)
		c->pool_mr = there(ibv_reg_mr(pd, c->pool, c->pool_size, access), "ibv_reg_mr");
	c->sends = pool_memory("-", 0, 2 * SLOTS * MESSAGE);
	c->receives = c->sends + SLOTS * MESSAGE;
	c->message_mr = there(ibv_reg_mr(pd, c->sends, 2 * SLOTS * MESSAGE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
	for (uint64_t slot = 0; slot < SLOTS; slot++)
		post_receive(c, slot);
}

void post_receive(struct connection *c, uint64_t slot)
{
	struct ibv_sge piece = {(uintptr_t)(c->receives + slot * MESSAGE), MESSAGE, c->message_mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = ID_RECEIVE | slot, .sg_list = &piece, .num_sge = 1}, *bad;

	must(ibv_post_recv(c->qp, &wr, &bad), "ibv_post_recv");
}

unsigned room_flag(struct connection *c)
{
	return ++c->posted % SIGNAL_EVERY ? 0 : IBV_SEND_SIGNALED;
}

void connection_listen(struct connection *c, const char *address)
{
	struct rdma_conn_param told = {.responder_resources = 16, .initiator_depth = 16, .rnr_retry_count = 7};
	struct ibv_qp_attr open = {.qp_access_flags = OPEN | PLACING};
	struct rdma_cm_id *listener;
	uint64_t reads;

	c->events = there(rdma_create_event_channel(), "rdma_create_event_channel");
	must(rdma_create_id(c->events, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
	must(rdma_bind_addr(listener, resolved(address, NULL)->ai_addr), "rdma_bind_addr");
	must(rdma_listen(listener, 1), "rdma_listen");
	printf("{\"port\":%d}\n", ntohs(rdma_get_src_port(listener)));
	fflush(stdout);
	reads = expect(c, RDMA_CM_EVENT_CONNECT_REQUEST, &c->id, NULL);
	prepare(c, 1);
	c->grant.address = (uintptr_t)c->pool;
	c->grant.size = c->pool_size;
	c->grant.key = c->pool_mr->rkey;
	told.responder_resources = (uint8_t)(reads < 16 ? reads : 16);
	told.private_data = &c->grant;
	told.private_data_len = sizeof(c->grant);
	must(rdma_accept(c->id, &told), "rdma_accept");
	/* librdmacm's own choice leaves FLUSH out */
	if (c->grant.flushes)
		must(ibv_modify_qp(c->qp, &open, IBV_QP_ACCESS_FLAGS), "ibv_modify_qp");
	expect(c, RDMA_CM_EVENT_ESTABLISHED, NULL, NULL);
}

void connection_connect(struct connection *c, const char *address, const char *port)
{
	struct rdma_conn_param told = {.responder_resources = 16, .initiator_depth = 16, .retry_count = 7,
				       .rnr_retry_count = 7};

	c->events = there(rdma_create_event_channel(), "rdma_create_event_channel");
	must(rdma_create_id(c->events, &c->id, NULL, RDMA_PS_TCP), "rdma_create_id");
	must(rdma_resolve_addr(c->id, NULL, resolved(address, port)->ai_addr, WAIT_MS), "rdma_resolve_addr");
	expect(c, RDMA_CM_EVENT_ADDR_RESOLVED, NULL, NULL);
	must(rdma_resolve_route(c->id, WAIT_MS), "rdma_resolve_route");
	expect(c, RDMA_CM_EVENT_ROUTE_RESOLVED, NULL, NULL);
	prepare(c, 0);
	must(rdma_connect(c->id, &told), "rdma_connect");
	expect(c, RDMA_CM_EVENT_ESTABLISHED, NULL, &c->grant);
}
