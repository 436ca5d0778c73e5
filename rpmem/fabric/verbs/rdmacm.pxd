# cython: language_level=3
"""The part of librdmacm that rpmem uses; a module that does begins with `bind_librdmacm`."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from rpmem.base.library cimport bind, rpmem_symbol_t
from rpmem.fabric.verbs.ibv cimport ibv_context, ibv_qp_attr


cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        unsigned short sa_family


cdef extern from "rpmem/fabric/verbs/librdmacm.h" nogil:
    const rpmem_symbol_t *rpmem_librdmacm

    struct rdma_event_channel:
        int fd
    struct rdma_cm_id:
        ibv_context *verbs
        void *context
        uint8_t port_num
    struct rdma_conn_param:
        const void *private_data
        uint8_t private_data_len
        uint8_t responder_resources
        uint8_t initiator_depth
        uint8_t flow_control
        uint8_t retry_count
        uint8_t rnr_retry_count
        uint32_t qp_num
    union event_param_t:          # unnamed in rdma_cma.h
        rdma_conn_param conn
    struct rdma_cm_event:
        rdma_cm_id *id
        rdma_cm_id *listen_id
        int event
        int status
        event_param_t param

    enum: RDMA_PS_TCP
    enum: RDMA_OPTION_ID
    enum: RDMA_OPTION_ID_ACK_TIMEOUT
    enum: RDMA_CM_EVENT_ADDR_RESOLVED
    enum: RDMA_CM_EVENT_ROUTE_RESOLVED
    enum: RDMA_CM_EVENT_CONNECT_REQUEST
    enum: RDMA_CM_EVENT_CONNECT_RESPONSE
    enum: RDMA_CM_EVENT_CONNECT_ERROR
    enum: RDMA_CM_EVENT_UNREACHABLE
    enum: RDMA_CM_EVENT_REJECTED
    enum: RDMA_CM_EVENT_ESTABLISHED
    enum: RDMA_CM_EVENT_DISCONNECTED
    enum: RDMA_CM_EVENT_DEVICE_REMOVAL
    enum: RDMA_CM_EVENT_ADDR_CHANGE
    enum: RDMA_CM_EVENT_TIMEWAIT_EXIT

    rdma_event_channel *rdma_create_event_channel()
    void rdma_destroy_event_channel(rdma_event_channel *channel)
    int rdma_get_cm_event(rdma_event_channel *channel, rdma_cm_event **event)
    int rdma_ack_cm_event(rdma_cm_event *event)
    const char *rdma_event_str(int event)

    int rdma_create_id(rdma_event_channel *channel, rdma_cm_id **id, void *context, int space)
    int rdma_destroy_id(rdma_cm_id *id)
    int rdma_migrate_id(rdma_cm_id *id, rdma_event_channel *channel)
    int rdma_set_option(rdma_cm_id *id, int level, int name, void *value, size_t length)
    int rdma_bind_addr(rdma_cm_id *id, sockaddr *address)
    int rdma_resolve_addr(rdma_cm_id *id, sockaddr *source, sockaddr *destination,
                          int milliseconds)
    int rdma_resolve_route(rdma_cm_id *id, int milliseconds)
    int rdma_listen(rdma_cm_id *id, int backlog)
    int rdma_connect(rdma_cm_id *id, rdma_conn_param *parameters)
    int rdma_establish(rdma_cm_id *id)
    int rdma_accept(rdma_cm_id *id, rdma_conn_param *parameters)
    int rdma_reject(rdma_cm_id *id, const void *data, uint8_t length)
    int rdma_disconnect(rdma_cm_id *id)
    int rdma_init_qp_attr(rdma_cm_id *id, ibv_qp_attr *attributes, int *mask)
    uint16_t rdma_get_src_port(rdma_cm_id *id)
    sockaddr *rdma_get_local_addr(rdma_cm_id *id)
    sockaddr *rdma_get_peer_addr(rdma_cm_id *id)


cdef inline int bind_librdmacm() except -1:
    """Open librdmacm, or raise MissingExtension."""
    return bind("librdmacm", rpmem_librdmacm)
