/* Librdmacm, opened at run time. */
#ifndef RPMEM_LIBRDMACM_H
#define RPMEM_LIBRDMACM_H

#include "rpmem/fabric/verbs/libibverbs.h"

#include <rdma/rdma_cma.h>

#define RPMEM_LIBRDMACM_EVENTS(SEEK)                                                             \
	SEEK(struct rdma_event_channel *, rdma_create_event_channel, "RDMACM_1.0", (void), ())   \
	SEEK(void, rdma_destroy_event_channel, "RDMACM_1.0",                                     \
	     (struct rdma_event_channel * channel), (channel))                                   \
	SEEK(int, rdma_get_cm_event, "RDMACM_1.0",                                               \
	     (struct rdma_event_channel * channel, struct rdma_cm_event **event),                \
	     (channel, event))                                                                   \
	SEEK(int, rdma_ack_cm_event, "RDMACM_1.0", (struct rdma_cm_event * event), (event))      \
	SEEK(const char *, rdma_event_str, "RDMACM_1.0", (enum rdma_cm_event_type event), (event))

#define RPMEM_LIBRDMACM_IDS(SEEK)                                                                \
	SEEK(int, rdma_create_id, "RDMACM_1.0",                                                  \
	     (struct rdma_event_channel * channel, struct rdma_cm_id **id, void *context,        \
	      enum rdma_port_space space),                                                       \
	     (channel, id, context, space))                                                      \
	SEEK(int, rdma_destroy_id, "RDMACM_1.0", (struct rdma_cm_id * id), (id))                 \
	SEEK(int, rdma_migrate_id, "RDMACM_1.0",                                                 \
	     (struct rdma_cm_id * id, struct rdma_event_channel * channel), (id, channel))       \
	SEEK(int, rdma_set_option, "RDMACM_1.0",                                                 \
	     (struct rdma_cm_id * id, int level, int name, void *value, size_t length),          \
	     (id, level, name, value, length))                                                   \
	SEEK(int, rdma_bind_addr, "RDMACM_1.0",                                                  \
	     (struct rdma_cm_id * id, struct sockaddr * address), (id, address))                 \
	SEEK(int, rdma_resolve_addr, "RDMACM_1.0",                                               \
	     (struct rdma_cm_id * id, struct sockaddr * source, struct sockaddr * destination,   \
	      int milliseconds),                                                                 \
	     (id, source, destination, milliseconds))                                            \
	SEEK(int, rdma_resolve_route, "RDMACM_1.0", (struct rdma_cm_id * id, int milliseconds),  \
	     (id, milliseconds))                                                                 \
	SEEK(__be16, rdma_get_src_port, "RDMACM_1.0", (struct rdma_cm_id * id), (id))

#define RPMEM_LIBRDMACM_CONNECTIONS(SEEK)                                                        \
	SEEK(int, rdma_listen, "RDMACM_1.0", (struct rdma_cm_id * id, int backlog),              \
	     (id, backlog))                                                                      \
	SEEK(int, rdma_connect, "RDMACM_1.0",                                                    \
	     (struct rdma_cm_id * id, struct rdma_conn_param * wanted), (id, wanted))            \
	SEEK(int, rdma_establish, "RDMACM_1.2", (struct rdma_cm_id * id), (id))                  \
	SEEK(int, rdma_accept, "RDMACM_1.0",                                                     \
	     (struct rdma_cm_id * id, struct rdma_conn_param * wanted), (id, wanted))            \
	SEEK(int, rdma_reject, "RDMACM_1.0",                                                     \
	     (struct rdma_cm_id * id, const void *data, uint8_t length), (id, data, length))     \
	SEEK(int, rdma_disconnect, "RDMACM_1.0", (struct rdma_cm_id * id), (id))                 \
	SEEK(int, rdma_init_qp_attr, "RDMACM_1.2",                                               \
	     (struct rdma_cm_id * id, struct ibv_qp_attr * found, int *mask), (id, found, mask))

#define RPMEM_LIBRDMACM_LIST(SEEK)   \
	RPMEM_LIBRDMACM_EVENTS(SEEK) \
	RPMEM_LIBRDMACM_IDS(SEEK)    \
	RPMEM_LIBRDMACM_CONNECTIONS(SEEK)

RPMEM_LIBRARY(rpmem_librdmacm, RPMEM_LIBRDMACM_LIST)

#endif
