# cython: language_level=3
"""The part of libfabric's API that rpmem uses (fabric.h and relatives, API 1.9).

A module that uses it begins with `bind_libfabric`.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from rpmem.base.library cimport bind, rpmem_symbol_t
from rpmem.wire.lane cimport iovec


cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    const rpmem_symbol_t *rpmem_libfabric
    uint32_t FI_VERSION(int major, int minor)
    uint64_t FI_MSG, FI_RMA, FI_SEND, FI_RECV, FI_READ, FI_WRITE
    uint64_t FI_REMOTE_READ, FI_REMOTE_WRITE, FI_TRANSMIT, FI_SOURCE
    uint64_t FI_INJECT, FI_COMPLETION, FI_DELIVERY_COMPLETE, FI_COMMIT_COMPLETE, FI_MORE
    uint64_t FI_RMA_PMEM
    enum: FI_ORDER_RAW
    enum: FI_ORDER_SAW
    enum: FI_EP_MSG
    enum: FI_SOCKADDR
    enum: FI_MR_BASIC
    enum: FI_MR_LOCAL
    enum: FI_MR_VIRT_ADDR
    enum: FI_MR_ALLOCATED
    enum: FI_MR_PROV_KEY
    enum: FI_THREAD_SAFE
    enum: FI_THREAD_DOMAIN
    enum: FI_PROGRESS_AUTO
    enum: FI_PROGRESS_MANUAL

    struct fid:
        pass
    ctypedef fid *fid_t
    struct fid_fabric:
        fid fid

    struct fi_tx_attr:
        uint64_t caps
        uint64_t mode
        uint64_t op_flags
        uint64_t msg_order
        uint64_t comp_order
        size_t inject_size
        size_t size
        size_t iov_limit
        size_t rma_iov_limit
    struct fi_rx_attr:
        uint64_t msg_order
        size_t size
        size_t iov_limit
    struct fi_ep_attr:
        int type
        size_t max_msg_size
    struct fi_domain_attr:
        char *name
        int threading
        int control_progress
        int data_progress
        int mr_mode
        size_t mr_key_size
        size_t cq_cnt
        size_t ep_cnt
        size_t tx_ctx_cnt
        size_t rx_ctx_cnt
    struct fi_fabric_attr:
        char *name
        char *prov_name
        uint32_t prov_version
    struct fi_info:
        fi_info *next
        uint64_t caps
        uint64_t mode
        uint32_t addr_format
        size_t src_addrlen
        size_t dest_addrlen
        void *src_addr
        void *dest_addr
        fid_t handle
        fi_tx_attr *tx_attr
        fi_rx_attr *rx_attr
        fi_ep_attr *ep_attr
        fi_domain_attr *domain_attr
        fi_fabric_attr *fabric_attr

    int fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
                   const fi_info *hints, fi_info **info)
    void fi_freeinfo(fi_info *info)
    fi_info *fi_allocinfo()
    fi_info *fi_dupinfo(const fi_info *info)
    int fi_fabric(fi_fabric_attr *attr, fid_fabric **fabric, void *context)
    int fi_close(fid *fid)
    const char *fi_strerror(int errnum)
    uint32_t fi_version()
    int fi_control(fid *fid, int command, void *arg)

cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    struct fid_eq:
        fid fid
    struct fid_cq:
        fid fid
    enum: FI_CONNREQ
    enum: FI_CONNECTED
    enum: FI_SHUTDOWN
    enum: FI_WAIT_NONE
    enum: FI_WAIT_UNSPEC
    enum: FI_WAIT_FD
    enum: FI_CQ_FORMAT_MSG
    enum: FI_GETWAIT
    uint64_t FI_SELECTIVE_COMPLETION

    struct fi_eq_attr:
        size_t size
        uint64_t flags
        int wait_obj
    struct fi_cq_attr:
        size_t size
        uint64_t flags
        int format
        int wait_obj
    struct fi_eq_cm_entry:
        fid_t fid
        fi_info *info
        uint8_t data[0]
    struct fi_eq_err_entry:
        fid_t fid
        void *context
        int err
        int prov_errno
        void *err_data
        size_t err_data_size
    struct fi_cq_msg_entry:
        void *op_context
        uint64_t flags
        size_t len
    struct fi_cq_err_entry:
        void *op_context
        uint64_t flags
        size_t len
        int err
        int prov_errno
        void *err_data
        size_t err_data_size

    int fi_eq_open(fid_fabric *fabric, fi_eq_attr *attr, fid_eq **eq, void *context)
    ssize_t fi_eq_sread(fid_eq *eq, uint32_t *event, void *buf, size_t len, int timeout,
                        uint64_t flags)
    ssize_t fi_eq_readerr(fid_eq *eq, fi_eq_err_entry *buf, uint64_t flags)
    ssize_t fi_cq_read(fid_cq *cq, void *buf, size_t count)
    ssize_t fi_cq_sread(fid_cq *cq, void *buf, size_t count, const void *cond, int timeout)
    ssize_t fi_cq_readerr(fid_cq *cq, fi_cq_err_entry *buf, uint64_t flags)
    int fi_cq_signal(fid_cq *cq)
    int fi_trywait(fid_fabric *fabric, fid_t *fids, int count)

cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    struct fid_domain:
        fid fid
    struct fid_mr:
        fid fid
        void *mem_desc
        uint64_t key
    struct fi_mr_attr:
        const iovec *mr_iov
        size_t iov_count
        uint64_t access
        uint64_t requested_key
    int fi_domain(fid_fabric *fabric, fi_info *info, fid_domain **domain, void *context)
    int fi_cq_open(fid_domain *domain, fi_cq_attr *attr, fid_cq **cq, void *context)
    int fi_mr_reg(fid_domain *domain, const void *buf, size_t len, uint64_t access,
                  uint64_t offset, uint64_t requested_key, uint64_t flags, fid_mr **mr,
                  void *context)
    uint64_t fi_mr_key(fid_mr *mr)
    void *fi_mr_desc(fid_mr *mr)
    int fi_mr_bind(fid_mr *mr, fid *bfid, uint64_t flags)
    int fi_mr_enable(fid_mr *mr)

cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    struct fid_ep:
        fid fid
    struct fid_pep:
        fid fid
    struct fi_msg:
        const iovec *msg_iov
        void **desc
        size_t iov_count
        uint64_t addr
        void *context
        uint64_t data
    int fi_endpoint(fid_domain *domain, fi_info *info, fid_ep **ep, void *context)
    int fi_passive_ep(fid_fabric *fabric, fi_info *info, fid_pep **pep, void *context)
    int fi_pep_bind(fid_pep *pep, fid *bfid, uint64_t flags)
    int fi_ep_bind(fid_ep *ep, fid *bfid, uint64_t flags)
    int fi_enable(fid_ep *ep)
    ssize_t fi_recvmsg(fid_ep *ep, const fi_msg *msg, uint64_t flags)
    ssize_t fi_recv(fid_ep *ep, void *buf, size_t len, void *desc, uint64_t src_addr,
                    void *context)
    ssize_t fi_sendmsg(fid_ep *ep, const fi_msg *msg, uint64_t flags)
    ssize_t fi_inject(fid_ep *ep, const void *buf, size_t len, uint64_t dest_addr)

cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    int fi_setname(fid_t fid, void *addr, size_t addrlen)
    int fi_getname(fid_t fid, void *addr, size_t *addrlen)
    int fi_listen(fid_pep *pep)
    int fi_connect(fid_ep *ep, const void *addr, const void *param, size_t paramlen)
    int fi_accept(fid_ep *ep, const void *param, size_t paramlen)
    int fi_reject(fid_pep *pep, fid_t handle, const void *param, size_t paramlen)
    int fi_shutdown(fid_ep *ep, uint64_t flags)

cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    struct fi_rma_iov:
        uint64_t addr
        size_t len
        uint64_t key
    struct fi_msg_rma:
        const iovec *msg_iov
        void **desc
        size_t iov_count
        uint64_t addr
        const fi_rma_iov *rma_iov
        size_t rma_iov_count
        void *context
        uint64_t data
    ssize_t fi_writemsg(fid_ep *ep, const fi_msg_rma *msg, uint64_t flags)
    ssize_t fi_readmsg(fid_ep *ep, const fi_msg_rma *msg, uint64_t flags)

cdef extern from "rpmem/fabric/libfabric/libfabric.h" nogil:
    enum: FI_EAGAIN
    enum: FI_EAVAIL
    enum: FI_ETRUNC
    enum: FI_EINTR
    enum: FI_ENODATA
    enum: FI_ECANCELED


cdef inline int bind_libfabric() except -1:
    """Open libfabric, or raise MissingExtension."""
    return bind("libfabric", rpmem_libfabric)
