/* Connected endpoints over libfabric, as plainly as the API allows. */
#ifndef RAW_FABRIC_H
#define RAW_FABRIC_H

#include "common.h"
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>

enum { MAX_LANES = 64, RECV_DEPTH = 16, HEADER = 24, REPLY = 8 };

enum mode { MODE_FLUSH = 0, MODE_INLINE = 1, MODE_ECHO = 2 };

enum { WANTS_REPLY = 1 };

/* The beginning of a SEND; the data of MODE_INLINE follows. */
struct request {
	uint32_t mode;
	uint32_t flags;
	uint64_t offset;
	uint64_t size;
};

/* The server's memory, as reported when it accepts. */
struct grant {
	uint64_t key;
	uint64_t address;
	uint64_t size;
};

struct options {
	const char *provider;
	const char *host;
	const char *port;
	const char *file;	 /* server: pool file; none = anonymous memory */
	const char *persist;	 /* server: none, pmem, msync */
	uint64_t pool;
	uint64_t inline_limit;	 /* largest data of MODE_INLINE */
	int lanes;
	int recv_depth;		 /* RECVs posted on a lane */
	int wait;		 /* block in the provider instead of polling */
	int cq_wait;		 /* give CQs a wait object even when polling */
	int split_cq;		 /* receive and transmit in two CQs */
	int bell;		 /* the transmit CQ gets no completions, but a wait object: wait
				  * objects cost tcp three system calls a completion */
	int domain_per_lane;
	int threads;		 /* server: threads that serve lanes */
	int batch;		 /* completions per fi_cq_read */
	int reply_inject;
	uint64_t spin_us;	 /* server: how long to poll without traffic */
};

struct domain {
	struct fid_domain *domain;
	struct fid_mr *pool;	 /* the pool (server) or its copy (client) */
	struct fid_mr *messages;
};

struct lane {
	struct domain *domain;
	struct fid_ep *ep;
	struct fid_cq *cq, *tx_cq;	/* the same one unless split_cq or bell */
	int bell_fd;			/* readable when anything arrives */
	struct grant grant;
	uint8_t *recv_buffers, *send_buffer;
	size_t recv_size;
};

struct fabric {
	struct options o;
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_eq *eq;
	struct fid_pep *pep;
	uint8_t *pool, *messages;
	size_t pool_size, messages_size, recv_size, send_size;
	struct domain domains[MAX_LANES];
	int n_domains;
	struct lane lanes[MAX_LANES];
};

void parse_options(struct options *o, int argc, char **argv);
void fabric_open(struct fabric *f, int server);
void fabric_listen(struct fabric *f);
void fabric_connect(struct fabric *f);
void fabric_post_recv(struct lane *lane, int slot);
void fabric_close(struct fabric *f);
void check(long rc, const char *what);
void cq_fail(struct fid_cq *cq, long rc);

/* at least one completion, or none when MAY_BE_EMPTY */
static inline long cq_take(struct fid_cq *cq, struct fi_cq_msg_entry *entries, int batch, int wait)
{
	long n = wait ? fi_cq_sread(cq, entries, batch, NULL, 1000) : fi_cq_read(cq, entries, batch);

	if (n == -FI_EAGAIN || n == -FI_EINTR)
		return 0;
	if (n < 0)
		cq_fail(cq, n);
	return n;
}

static inline struct fid_mr *lane_mr(struct lane *lane, int messages)
{
	return messages ? lane->domain->messages : lane->domain->pool;
}

#endif
