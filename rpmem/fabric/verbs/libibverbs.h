/* Libibverbs, opened at run time. Its header defines some other functions as calls of these. */
#ifndef RPMEM_LIBIBVERBS_H
#define RPMEM_LIBIBVERBS_H

#include <infiniband/verbs.h>

#include "rpmem/base/library.h"

#define RPMEM_LIBIBVERBS_DEVICES(SEEK)                                                           \
	SEEK(struct ibv_device **, ibv_get_device_list, "IBVERBS_1.1", (int *count), (count))    \
	SEEK(void, ibv_free_device_list, "IBVERBS_1.1", (struct ibv_device * *list), (list))     \
	SEEK(const char *, ibv_get_device_name, "IBVERBS_1.1", (struct ibv_device * device),     \
	     (device))                                                                           \
	SEEK(struct ibv_context *, ibv_open_device, "IBVERBS_1.1", (struct ibv_device * device), \
	     (device))                                                                           \
	SEEK(int, ibv_close_device, "IBVERBS_1.1", (struct ibv_context * context), (context))    \
	SEEK(int, ibv_query_device, "IBVERBS_1.1",                                               \
	     (struct ibv_context * context, struct ibv_device_attr * found), (context, found))   \
	SEEK(int, ibv_query_port, "IBVERBS_1.1",                                                 \
	     (struct ibv_context * context, uint8_t port, struct _compat_ibv_port_attr * found), \
	     (context, port, found))                                                             \
	SEEK(int, ibv_query_gid, "IBVERBS_1.1",                                                  \
	     (struct ibv_context * context, uint8_t port, int index, union ibv_gid * gid),       \
	     (context, port, index, gid))

#define RPMEM_LIBIBVERBS_MEMORY(SEEK)                                                            \
	SEEK(struct ibv_pd *, ibv_alloc_pd, "IBVERBS_1.1", (struct ibv_context * context),       \
	     (context))                                                                          \
	SEEK(int, ibv_dealloc_pd, "IBVERBS_1.1", (struct ibv_pd * domain), (domain))             \
	SEEK(struct ibv_mr *, ibv_reg_mr, "IBVERBS_1.1",                                         \
	     (struct ibv_pd * domain, void *address, size_t length, int access),                 \
	     (domain, address, length, access))                                                  \
	SEEK(struct ibv_mr *, ibv_reg_mr_iova2, "IBVERBS_1.8",                                   \
	     (struct ibv_pd * domain, void *address, size_t length, uint64_t iova,               \
	      unsigned int access),                                                              \
	     (domain, address, length, iova, access))                                            \
	SEEK(int, ibv_dereg_mr, "IBVERBS_1.1", (struct ibv_mr * memory), (memory))

#define RPMEM_LIBIBVERBS_QUEUES(SEEK)                                                            \
	SEEK(struct ibv_comp_channel *, ibv_create_comp_channel, "IBVERBS_1.0",                  \
	     (struct ibv_context * context), (context))                                          \
	SEEK(int, ibv_destroy_comp_channel, "IBVERBS_1.0", (struct ibv_comp_channel * channel),  \
	     (channel))                                                                          \
	SEEK(struct ibv_cq *, ibv_create_cq, "IBVERBS_1.1",                                      \
	     (struct ibv_context * context, int size, void *user,                                \
	      struct ibv_comp_channel *channel, int vector),                                     \
	     (context, size, user, channel, vector))                                             \
	SEEK(int, ibv_resize_cq, "IBVERBS_1.1", (struct ibv_cq * queue, int size),               \
	     (queue, size))                                                                      \
	SEEK(int, ibv_destroy_cq, "IBVERBS_1.1", (struct ibv_cq * queue), (queue))               \
	SEEK(int, ibv_get_cq_event, "IBVERBS_1.1",                                               \
	     (struct ibv_comp_channel * channel, struct ibv_cq **queue, void **user),            \
	     (channel, queue, user))                                                             \
	SEEK(void, ibv_ack_cq_events, "IBVERBS_1.1",                                             \
	     (struct ibv_cq * queue, unsigned int count), (queue, count))                        \
	SEEK(struct ibv_qp *, ibv_create_qp, "IBVERBS_1.1",                                      \
	     (struct ibv_pd * domain, struct ibv_qp_init_attr * wanted), (domain, wanted))       \
	SEEK(int, ibv_modify_qp, "IBVERBS_1.1",                                                  \
	     (struct ibv_qp * pair, struct ibv_qp_attr * wanted, int mask),                      \
	     (pair, wanted, mask))                                                               \
	SEEK(int, ibv_destroy_qp, "IBVERBS_1.1", (struct ibv_qp * pair), (pair))                 \
	SEEK(struct ibv_qp_ex *, ibv_qp_to_qp_ex, "IBVERBS_1.6", (struct ibv_qp * pair), (pair))

#define RPMEM_LIBIBVERBS_LIST(SEEK)   \
	RPMEM_LIBIBVERBS_DEVICES(SEEK) \
	RPMEM_LIBIBVERBS_MEMORY(SEEK)  \
	RPMEM_LIBIBVERBS_QUEUES(SEEK)

RPMEM_LIBRARY(rpmem_libibverbs, RPMEM_LIBIBVERBS_LIST)

#endif
