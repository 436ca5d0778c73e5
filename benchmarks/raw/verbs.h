/* The raw reference over libibverbs: one connection, as both sides know it. */
#ifndef RAW_VERBS_H
#define RAW_VERBS_H

#include "common.h"

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

enum {
	SLOTS = 16,
	MESSAGE = (64 << 10) + 64,
	DEPTH = 128,
	INLINE = 256,
	SIGNAL_EVERY = 32, /* not waited for: they only make room */
};
enum { MODE_STORE = 1, MODE_FLUSH = 2 };
enum { ID_RECEIVE = 1ull << 32, ID_WANTED = 2ull << 32 };

struct request {
	uint32_t mode, spare;
	uint64_t offset, length;
};

struct reply {
	uint64_t done;
};

/* told when the connection is accepted */
struct grant {
	uint64_t address, size;
	uint32_t key, flushes;
};

struct connection {
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_qp_ex *direct; /* NULL if the device has no FLUSH */
	struct ibv_mr *pool_mr, *message_mr;
	uint8_t *pool;
	size_t pool_size;
	uint8_t *sends, *receives; /* SLOTS of MESSAGE bytes each */
	uint32_t posted, slot, inline_limit;
	struct grant grant;
};

/* memory of the pool: a device's or a file's at an offset, or of its own */
uint8_t *pool_memory(const char *path, uint64_t offset, size_t size);
void connection_listen(struct connection *c, const char *address);
void connection_connect(struct connection *c, const char *address, const char *port);
void post_receive(struct connection *c, uint64_t slot);
/* IBV_SEND_SIGNALED once in a while */
unsigned room_flag(struct connection *c);
void serve_forever(struct connection *c, const char *persist, uint64_t spin_us);

static inline void must(int rc, const char *what)
{
	if (rc)
		die("%s: %s", what, strerror(rc > 0 ? rc : errno));
}

static inline void *there(void *p, const char *what)
{
	if (!p)
		die("%s: %s", what, strerror(errno));
	return p;
}

#endif
