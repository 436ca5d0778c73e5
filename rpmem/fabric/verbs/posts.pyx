"""Posting to a verbs queue pair, and the table of all functions of the fabric."""

from libc.errno cimport EINVAL, EIO
from libc.stdint cimport uint32_t, uint64_t, uintptr_t

from rpmem.fabric.verbs.completions cimport lane_lost, verbs_poll, verbs_wait, verbs_wake
from rpmem.fabric.verbs.ibv cimport *
from rpmem.fabric.verbs.structs cimport CHAIN, KIND_SHIFT, PIECES, verbs_lane_t
from rpmem.wire.lane cimport (
    COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_SEND, COMPLETED_WRITE, LANE_AGAIN, LANE_LOST,
    LANE_UP, POST_MORE, POST_SIGNAL, fabric_ops_t, iovec, lane_t,
)

cdef enum:
    OPCODE_FLUSH = 1000          # our own numbers: these two are never posted as a list
    OPCODE_WORD = 1001

cdef uint64_t NEVER = <uint64_t> -1


# --- handing over ----------------------------------------------------------------------------

cdef int submit_list(verbs_lane_t *own) noexcept nogil:
    """Hand over a linked list, which every device accepts."""
    cdef ibv_send_wr *bad = NULL
    cdef ibv_send_wr *last = &own.chain[own.pending - 1]
    cdef ibv_send_wr *following = last.next
    cdef int rc
    last.next = NULL
    rc = ibv_post_send(own.pair, own.chain, &bad)
    last.next = following
    return rc


cdef int submit_direct(verbs_lane_t *own) noexcept nogil:
    """Put requests one by one into the device's queue, then ring its doorbell."""
    cdef ibv_qp_ex *pair = own.direct
    cdef ibv_send_wr *request
    cdef uint32_t i
    cdef int opcode
    ibv_wr_start(pair)
    for i in range(own.pending):
        request = &own.chain[i]
        opcode = <int> request.opcode
        pair.wr_id = request.wr_id
        pair.wr_flags = request.send_flags
        if opcode == <int> OPCODE_FLUSH:
            placement_flush(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr,
                            request.sg_list.length)
            continue
        if opcode == <int> OPCODE_WORD:
            placement_write_word(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr,
                                 <const void *> <uintptr_t> request.sg_list.addr)
            continue
        if opcode == IBV_WR_RDMA_WRITE:
            ibv_wr_rdma_write(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr)
        elif opcode == IBV_WR_RDMA_READ:
            ibv_wr_rdma_read(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr)
        else:
            ibv_wr_send(pair)
        if request.send_flags & IBV_SEND_INLINE:
            ibv_wr_set_inline_data(pair, <void *> <uintptr_t> request.sg_list.addr,
                                   request.sg_list.length)
        else:
            ibv_wr_set_sge_list(pair, request.num_sge, request.sg_list)
    return ibv_wr_complete(pair)


cdef int lane_submit(verbs_lane_t *own) noexcept nogil:
    """Hand over posts that were held back: 0, or the lane is lost."""
    cdef int rc
    if own.pending == 0:
        return 0
    rc = submit_list(own) if own.direct == NULL or own.gathers else submit_direct(own)
    own.pending = 0
    own.gathers = own.places = False
    own.doorbells += 1
    if rc:
        lane_lost(own, rc if rc > 0 else EIO)
        return LANE_LOST
    return 0


cdef inline ibv_send_wr *claim(verbs_lane_t *own, int *rc) noexcept nogil:
    """Return the next work request to fill in, or NULL and the reason."""
    if own.base.state != LANE_UP:
        rc[0] = own.base.state
        return NULL
    if own.posted - own.retired >= own.depth:
        # The posts held back may be those that have to complete to make room.
        rc[0] = lane_submit(own)
        if rc[0] == 0:
            rc[0] = LANE_AGAIN
        return NULL
    return &own.chain[own.pending]


cdef inline int post(verbs_lane_t *own, ibv_send_wr *request, uint64_t kind,
                     uint32_t flags, uint64_t to_copy) noexcept nogil:
    """Count the request from `claim`; hand it over unless more will follow.

    `to_copy` bytes go into the work request itself, if they fit.
    """
    own.posted += 1
    own.unsignalled += 1
    own.requests += 1
    request.send_flags = IBV_SEND_INLINE if to_copy <= own.base.inline_limit else 0
    if flags & POST_SIGNAL:
        request.send_flags |= IBV_SEND_SIGNALED
        own.unsignalled = 0
    elif own.unsignalled >= own.signal_every:
        # No call waits for this completion: it only makes room.
        request.send_flags |= IBV_SEND_SIGNALED
        own.unsignalled = 0
        kind = COMPLETED_SEND
    request.wr_id = own.tag | kind << KIND_SHIFT | own.posted
    own.pending += 1
    if flags & POST_MORE and own.pending < CHAIN:
        return 0
    return lane_submit(own)


# --- the table of functions ------------------------------------------------------------------

cdef inline uint32_t key_of(void *handle) noexcept nogil:
    return (<ibv_mr *> handle).lkey if handle != NULL else 0


cdef inline void fill_one_sided(verbs_lane_t *own, ibv_send_wr *request, int opcode,
                                const void *local, void *handle, uint64_t offset,
                                uint64_t length) noexcept nogil:
    request.opcode = opcode
    request.num_sge = 1
    request.sg_list.addr = <uint64_t> <uintptr_t> local
    request.sg_list.length = <uint32_t> length
    request.sg_list.lkey = key_of(handle)
    request.wr.rdma.remote_addr = own.remote_address + offset
    request.wr.rdma.rkey = own.remote_key


cdef inline int post_one_sided(verbs_lane_t *own, int opcode, const void *local, void *handle,
                               uint64_t offset, uint64_t length, uint64_t kind,
                               uint32_t flags, uint64_t to_copy) noexcept nogil:
    cdef int rc = 0
    cdef ibv_send_wr *request = claim(own, &rc)
    if request == NULL:
        return rc
    fill_one_sided(own, request, opcode, local, handle, offset, length)
    return post(own, request, kind, flags, to_copy)


cdef int verbs_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                     uint64_t length, uint32_t flags) noexcept nogil:
    return post_one_sided(<verbs_lane_t *> lane, IBV_WR_RDMA_WRITE, source, handle, offset, length,
                          COMPLETED_WRITE, flags, length)


cdef int verbs_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                    uint64_t length, uint32_t flags) noexcept nogil:
    return post_one_sided(<verbs_lane_t *> lane, IBV_WR_RDMA_READ, destination, handle, offset,
                          length, COMPLETED_READ, flags, NEVER)


cdef inline int place(verbs_lane_t *own, int opcode, const void *source, uint64_t offset,
                      uint64_t length, uint32_t flags) noexcept nogil:
    """Post a request that cannot be part of a list."""
    cdef int rc = 0
    cdef ibv_send_wr *request
    if own.gathers and lane_submit(own) < 0:
        return LANE_LOST
    request = claim(own, &rc)
    if request == NULL:
        return rc
    own.places = True
    fill_one_sided(own, request, opcode, source, NULL, offset, length)
    return post(own, request, COMPLETED_WRITE, flags, NEVER)


cdef int verbs_flush(lane_t *lane, uint64_t offset, uint64_t length,
                     uint32_t flags) noexcept nogil:
    return place(<verbs_lane_t *> lane, OPCODE_FLUSH, NULL, offset, length, flags)


cdef int verbs_write_word(lane_t *lane, const void *source, uint64_t offset,
                          uint32_t flags) noexcept nogil:
    return place(<verbs_lane_t *> lane, OPCODE_WORD, source, offset, 8, flags)


cdef int verbs_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                    uint32_t flags) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef uint64_t length
    cdef int rc = 0
    cdef size_t i
    cdef ibv_send_wr *request
    if count > PIECES:
        lane_lost(own, EINVAL)
        return LANE_LOST
    if count > 1:
        # When requests are built one by one, rdma-core's driver for soft-RoCE adds up the lengths
        # of several pieces wrongly, with or without copying them; as a list they are right.
        if own.places and lane_submit(own) < 0:
            return LANE_LOST
    request = claim(own, &rc)
    if request == NULL:
        return rc
    own.gathers = own.gathers or count > 1
    request.opcode = IBV_WR_SEND
    request.num_sge = <int> count
    length = vector[0].iov_len if count == 1 else NEVER
    for i in range(count):
        request.sg_list[i].addr = <uint64_t> <uintptr_t> vector[i].iov_base
        request.sg_list[i].length = <uint32_t> vector[i].iov_len
        request.sg_list[i].lkey = key_of(handles[i])
    return post(own, request, COMPLETED_SEND, flags, length)


cdef int verbs_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef ibv_recv_wr request
    cdef ibv_recv_wr *bad = NULL
    cdef ibv_sge piece
    cdef int rc
    piece.addr = <uint64_t> <uintptr_t> (lane.receive_area + <size_t> slot * lane.receive_size)
    piece.length = lane.receive_size
    piece.lkey = key_of(lane.send_handle)
    request.wr_id = own.tag | <uint64_t> COMPLETED_RECEIVE << KIND_SHIFT | slot
    request.next = NULL
    request.sg_list = &piece
    request.num_sge = 1
    if lane.state != LANE_UP:
        return lane.state
    rc = ibv_post_recv(own.pair, &request, &bad)
    if rc:
        lane_lost(own, rc if rc > 0 else EIO)
        return LANE_LOST
    return 0


cdef fabric_ops_t OPS
OPS.write = verbs_write
OPS.read = verbs_read
OPS.send = verbs_send
OPS.receive = verbs_receive
OPS.poll = verbs_poll
OPS.wait = verbs_wait
OPS.wake = verbs_wake
OPS.flush = verbs_flush
OPS.write_word = verbs_write_word


cdef const fabric_ops_t *verbs_ops() noexcept nogil:
    return &OPS
