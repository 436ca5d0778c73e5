# cython: language_level=3
"""Lanes over verbs queue pairs, as the core and the target's service use them.

Posts are kept back while POST_MORE says that another follows, and handed to the device
together: one doorbell.  Every post is counted against the depth of the send queue until a
later one that asked for a completion has completed.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.fabric.verbs.ibv cimport (
    ibv_comp_channel, ibv_cq, ibv_qp, ibv_qp_cap, ibv_qp_ex, ibv_send_wr, ibv_sge, ibv_wc,
)
from rpmem.wire.lane cimport fabric_ops_t, lane_t, queue_t
from rpmem.fabric.verbs.rdmacm cimport rdma_cm_id, rdma_event_channel
from rpmem.fabric.verbs.memory cimport Domain


cdef enum:
    BATCH = 16
    CHAIN = 32                    # work requests that are handed over together at most
    PIECES = 2                    # buffers that one SEND gathers

ctypedef struct verbs_queue_t:
    queue_t base
    ibv_cq *cq
    ibv_comp_channel *channel     # says when the armed queue has something
    rdma_event_channel *events    # says when a connection ends
    int bell                      # an eventfd: wakes whoever sleeps
    verbs_lane_t **lanes          # by slot; NULL: gone
    uint32_t slots
    uint32_t polls
    bint trouble                  # a lane has a fault that was not reported yet
    ibv_wc stash[BATCH]           # taken out while going to sleep
    int stashed

ctypedef struct verbs_lane_t:
    lane_t base
    ibv_qp *pair
    ibv_qp_ex *direct             # posts go straight into the device's queue; or NULL
    rdma_cm_id *id
    uint64_t tag                  # of this lane, in work request ids
    uint64_t remote_address
    uint32_t remote_key
    bint reported                 # its fault is known to whoever polls
    # the send queue
    uint32_t depth
    uint32_t posted               # number of the last work request
    uint32_t retired              # number of the last one known to be complete
    uint32_t unsignalled          # since the last one that asked for a completion
    uint32_t signal_every
    # kept back, to be handed over together
    uint32_t pending
    bint gathers                  # a SEND among them has several pieces
    bint places                   # a FLUSH or an ATOMIC WRITE is among them
    ibv_send_wr chain[CHAIN]
    ibv_sge pieces[CHAIN * PIECES]
    # counted for whoever measures
    uint64_t requests
    uint64_t doorbells


cdef class Queue:
    """A completion queue, with all that whoever sleeps on it has to hear."""
    cdef verbs_queue_t c
    cdef Domain domain
    cdef uint32_t capacity
    cdef uint32_t reserved
    cdef int enter(self, verbs_lane_t *lane, uint32_t completions) except -1
    cdef int leave(self, verbs_lane_t *lane) noexcept
    cpdef close(self)


cdef const fabric_ops_t *verbs_ops() noexcept nogil
cdef int lane_submit(verbs_lane_t *own) noexcept nogil
cdef void lane_lost(verbs_lane_t *own, int detail) noexcept nogil
