# cython: language_level=3
"""Lanes and queues of libfabric as structs, and the table of functions on them."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.fabric.libfabric.fi cimport fid_cq, fid_ep, fid_fabric
from rpmem.wire.lane cimport fabric_ops_t, lane_t, queue_t


# Passed with a post, returned by libfabric with its completion.
ctypedef struct context_t:
    lane_t *lane
    uint32_t kind
    uint32_t slot

ctypedef struct fi_queue_t:
    queue_t base
    fid_cq *receives
    fid_cq *posts             # the same as `receives` if one queue serves both
    fid_cq *bell              # the one that has a wait object
    fid_fabric *fabric
    int descriptor            # of the wait object
    int woken                 # by `wake`, but no `wait` has ended for it yet
    uint32_t polls
    uint64_t moving           # polls during which large posts may still be moving

ctypedef struct fi_lane_t:
    lane_t base
    fid_ep *endpoint
    uint64_t remote_address
    uint64_t remote_key
    uint32_t unsignalled      # posts since the last one that asked for a completion
    uint64_t unsignalled_bytes
    uint32_t signal_every     # posts,
    uint64_t signal_bytes     # or bytes, until the next completion is asked for
    uint32_t signals          # completions asked for that have not arrived
    uint32_t window           # posts wait when so many are due
    context_t sent
    context_t wrote
    context_t read
    context_t *received       # one per receive slot


cdef fabric_ops_t FI_OPS
