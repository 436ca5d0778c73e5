# cython: language_level=3
"""Lanes over verbs queue pairs and their queues, as structs.

Posts are held back while POST_MORE says that another follows, and handed to the device together,
with one doorbell. Every post counts against the depth of the send queue until it, or a later one,
is known to have completed.

Work request ids consist of the lane's slot in its queue (16 bits), the kind of completion (8 bits),
and the number of the work request or of the receive buffer (32 bits).
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.fabric.verbs.ibv cimport (
    ibv_comp_channel, ibv_cq, ibv_qp, ibv_qp_ex, ibv_send_wr, ibv_sge, ibv_wc,
)
from rpmem.fabric.verbs.rdmacm cimport rdma_cm_id, rdma_event_channel
from rpmem.wire.lane cimport lane_t, queue_t


cdef enum:
    BATCH = 16
    CHAIN = 32                    # most work requests handed over together
    PIECES = 2                    # most buffers that one SEND gathers
    SLOT_SHIFT = 48
    KIND_SHIFT = 40

ctypedef struct verbs_queue_t:
    queue_t base
    ibv_cq *cq
    ibv_comp_channel *channel     # readable when the armed queue has a completion
    rdma_event_channel *events    # readable when a connection ends
    int bell                      # an eventfd that wakes the sleeping thread
    verbs_lane_t **lanes          # by slot; NULL: gone
    uint32_t slots
    uint32_t polls
    bint trouble                  # a lane has a fault that is not reported yet
    ibv_wc stash[BATCH]           # completions taken while going to sleep
    int stashed

ctypedef struct verbs_lane_t:
    lane_t base
    ibv_qp *pair
    ibv_qp_ex *direct             # posts go straight into the device's queue; or NULL
    rdma_cm_id *id
    uint64_t tag                  # this lane's bits in work request ids
    uint64_t remote_address
    uint32_t remote_key
    bint reported                 # its fault was reported by a poll
    # the send queue
    uint32_t depth
    uint32_t posted               # number of the last work request
    uint32_t retired              # number of the last one known to be complete
    uint32_t unsignalled          # since the last one that asked for a completion
    uint32_t signal_every
    # held back, to be handed over together
    uint32_t pending
    bint gathers                  # a SEND among them has several pieces
    bint places                   # a FLUSH or an ATOMIC WRITE is among them
    ibv_send_wr chain[CHAIN]
    ibv_sge pieces[CHAIN * PIECES]
    # counted for measurements
    uint64_t requests
    uint64_t doorbells
