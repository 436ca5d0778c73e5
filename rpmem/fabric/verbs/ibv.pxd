# cython: language_level=3
"""The part of libibverbs that rpmem uses; a module that does begins with `bind_libibverbs`."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from rpmem.base.library cimport bind, rpmem_symbol_t


cdef extern from "rpmem/fabric/verbs/libibverbs.h" nogil:
    const rpmem_symbol_t *rpmem_libibverbs

    # --- devices ---
    struct ibv_device:
        pass
    struct ibv_context:
        ibv_device *device
        int num_comp_vectors
        int cmd_fd
    struct ibv_device_attr:
        char fw_ver[64]
        uint64_t max_mr_size
        uint32_t vendor_id
        int max_qp
        int max_qp_wr
        int max_sge
        int max_cq
        int max_cqe
        int max_mr
        int max_qp_rd_atom
        int max_qp_init_rd_atom
        uint8_t phys_port_cnt
    struct odp_transports_t:      # unnamed in verbs.h, like the other *_t here
        uint32_t rc_odp_caps
    struct ibv_odp_caps:
        uint64_t general_caps
        odp_transports_t per_transport_caps
    struct ibv_device_attr_ex:
        ibv_device_attr orig_attr
        ibv_odp_caps odp_caps
        uint64_t device_cap_flags_ex
    enum: IBV_ODP_SUPPORT
    enum: IBV_ODP_SUPPORT_WRITE
    enum: IBV_ODP_SUPPORT_READ
    enum: IBV_ODP_SUPPORT_SEND
    enum: IBV_ODP_SUPPORT_RECV
    struct ibv_query_device_ex_input:
        pass
    struct ibv_port_attr:
        int state
        int max_mtu
        int active_mtu
        int gid_tbl_len
        uint32_t max_msg_sz
        uint16_t lid
        uint8_t link_layer
    enum: IBV_PORT_ACTIVE
    enum: IBV_LINK_LAYER_ETHERNET
    union ibv_gid:
        uint8_t raw[16]

    ibv_device **ibv_get_device_list(int *count)
    void ibv_free_device_list(ibv_device **devices)
    const char *ibv_get_device_name(ibv_device *device)
    uint64_t ibv_get_device_guid(ibv_device *device)
    ibv_context *ibv_open_device(ibv_device *device)
    int ibv_close_device(ibv_context *context)
    int ibv_query_device_ex(ibv_context *context, const ibv_query_device_ex_input *wanted,
                            ibv_device_attr_ex *attributes)
    int ibv_query_port(ibv_context *context, uint8_t port, ibv_port_attr *attributes)
    int ibv_query_gid(ibv_context *context, uint8_t port, int index, ibv_gid *gid)

    # --- memory ---
    struct ibv_pd:
        ibv_context *context
    struct ibv_mr:
        ibv_context *context
        ibv_pd *pd
        void *addr
        size_t length
        uint32_t lkey
        uint32_t rkey
    enum: IBV_ACCESS_LOCAL_WRITE
    enum: IBV_ACCESS_REMOTE_WRITE
    enum: IBV_ACCESS_REMOTE_READ
    enum: IBV_ACCESS_ON_DEMAND

    ibv_pd *ibv_alloc_pd(ibv_context *context)
    int ibv_dealloc_pd(ibv_pd *pd)
    ibv_mr *ibv_reg_mr(ibv_pd *pd, void *address, size_t length, int access)
    int ibv_dereg_mr(ibv_mr *mr)

    # --- completion queues ---
    struct ibv_comp_channel:
        int fd
    struct ibv_cq:
        int cqe
    struct ibv_wc:
        uint64_t wr_id
        int status
        uint32_t byte_len
        uint32_t qp_num
    enum: IBV_WC_SUCCESS
    enum: IBV_WC_LOC_LEN_ERR
    enum: IBV_WC_LOC_PROT_ERR
    enum: IBV_WC_WR_FLUSH_ERR
    enum: IBV_WC_REM_INV_REQ_ERR
    enum: IBV_WC_REM_ACCESS_ERR
    enum: IBV_WC_REM_OP_ERR
    enum: IBV_WC_RETRY_EXC_ERR
    enum: IBV_WC_RNR_RETRY_EXC_ERR

    ibv_comp_channel *ibv_create_comp_channel(ibv_context *context)
    int ibv_destroy_comp_channel(ibv_comp_channel *channel)
    ibv_cq *ibv_create_cq(ibv_context *context, int size, void *user, ibv_comp_channel *channel,
                          int vector)
    int ibv_resize_cq(ibv_cq *cq, int size)
    int ibv_destroy_cq(ibv_cq *cq)
    int ibv_poll_cq(ibv_cq *cq, int room, ibv_wc *out)
    int ibv_req_notify_cq(ibv_cq *cq, int solicited_only)
    int ibv_get_cq_event(ibv_comp_channel *channel, ibv_cq **cq, void **user)
    void ibv_ack_cq_events(ibv_cq *cq, unsigned int count)

    # --- queue pairs ---
    struct ibv_qp_cap:
        uint32_t max_send_wr
        uint32_t max_recv_wr
        uint32_t max_send_sge
        uint32_t max_recv_sge
        uint32_t max_inline_data
    struct ibv_qp_init_attr_ex:
        void *qp_context
        ibv_cq *send_cq
        ibv_cq *recv_cq
        ibv_qp_cap cap
        int qp_type
        int sq_sig_all
        uint32_t comp_mask
        ibv_pd *pd
        uint64_t send_ops_flags
    enum: IBV_QPT_RC
    enum: IBV_QP_INIT_ATTR_PD
    enum: IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
    enum: IBV_QP_EX_WITH_RDMA_WRITE
    enum: IBV_QP_EX_WITH_RDMA_READ
    enum: IBV_QP_EX_WITH_SEND
    struct ibv_global_route:
        ibv_gid dgid
        uint8_t sgid_index
        uint8_t hop_limit
    struct ibv_ah_attr:
        ibv_global_route grh
        uint16_t dlid
        uint8_t is_global
        uint8_t port_num
    struct ibv_qp_attr:
        int qp_state
        int path_mtu
        uint32_t rq_psn
        uint32_t sq_psn
        uint32_t dest_qp_num
        unsigned int qp_access_flags
        ibv_ah_attr ah_attr
        uint16_t pkey_index
        uint8_t max_rd_atomic
        uint8_t max_dest_rd_atomic
        uint8_t min_rnr_timer
        uint8_t port_num
        uint8_t timeout
        uint8_t retry_cnt
        uint8_t rnr_retry
    enum: IBV_QP_STATE
    enum: IBV_QP_ACCESS_FLAGS
    enum: IBV_QP_PKEY_INDEX
    enum: IBV_QP_PORT
    enum: IBV_QP_AV
    enum: IBV_QP_PATH_MTU
    enum: IBV_QP_TIMEOUT
    enum: IBV_QP_RETRY_CNT
    enum: IBV_QP_RNR_RETRY
    enum: IBV_QP_RQ_PSN
    enum: IBV_QP_SQ_PSN
    enum: IBV_QP_MAX_QP_RD_ATOMIC
    enum: IBV_QP_MAX_DEST_RD_ATOMIC
    enum: IBV_QP_MIN_RNR_TIMER
    enum: IBV_QP_DEST_QPN
    enum: IBV_QPS_INIT
    enum: IBV_QPS_RTR
    enum: IBV_QPS_RTS
    enum: IBV_QPS_ERR
    struct ibv_qp:
        ibv_context *context
        uint32_t qp_num

    ibv_qp *ibv_create_qp_ex(ibv_context *context, ibv_qp_init_attr_ex *attributes)
    int ibv_modify_qp(ibv_qp *qp, ibv_qp_attr *attributes, int mask)
    int ibv_destroy_qp(ibv_qp *qp)

    # --- posting, as lists ---
    struct ibv_sge:
        uint64_t addr
        uint32_t length
        uint32_t lkey
    struct one_sided_t:
        uint64_t remote_addr
        uint32_t rkey
    union request_target_t:
        one_sided_t rdma
    struct ibv_send_wr:
        uint64_t wr_id
        ibv_send_wr *next
        ibv_sge *sg_list
        int num_sge
        int opcode
        unsigned int send_flags
        request_target_t wr
    struct ibv_recv_wr:
        uint64_t wr_id
        ibv_recv_wr *next
        ibv_sge *sg_list
        int num_sge
    enum: IBV_WR_RDMA_WRITE
    enum: IBV_WR_RDMA_READ
    enum: IBV_WR_SEND
    enum: IBV_SEND_SIGNALED
    enum: IBV_SEND_INLINE

    int ibv_post_send(ibv_qp *qp, ibv_send_wr *requests, ibv_send_wr **bad)
    int ibv_post_recv(ibv_qp *qp, ibv_recv_wr *requests, ibv_recv_wr **bad)

    # --- posting, one by one into the device's queue ---
    struct ibv_qp_ex:
        uint64_t wr_id
        unsigned int wr_flags
    ibv_qp_ex *ibv_qp_to_qp_ex(ibv_qp *qp)
    void ibv_wr_start(ibv_qp_ex *qp)
    int ibv_wr_complete(ibv_qp_ex *qp)
    void ibv_wr_rdma_write(ibv_qp_ex *qp, uint32_t key, uint64_t address)
    void ibv_wr_rdma_read(ibv_qp_ex *qp, uint32_t key, uint64_t address)
    void ibv_wr_send(ibv_qp_ex *qp)
    void ibv_wr_set_sge_list(ibv_qp_ex *qp, size_t count, const ibv_sge *list)
    void ibv_wr_set_inline_data(ibv_qp_ex *qp, void *data, size_t length)


cdef extern from "rpmem/fabric/verbs/placement.h" nogil:
    enum: PLACEMENT_OPERATIONS
    enum: PLACEMENT_ACCESS
    uint64_t PLACEMENT_DEVICE_FLUSH_PERSISTENT
    uint64_t PLACEMENT_DEVICE_ATOMIC_WRITE
    void placement_flush(ibv_qp_ex *qp, uint32_t key, uint64_t address, size_t length)
    void placement_write_word(ibv_qp_ex *qp, uint32_t key, uint64_t address, const void *word)


cdef inline int bind_libibverbs() except -1:
    """Open libibverbs, or raise MissingExtension."""
    return bind("libibverbs", rpmem_libibverbs)
