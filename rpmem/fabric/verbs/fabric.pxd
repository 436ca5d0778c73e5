# cython: language_level=3
"""Connecting verbs lanes over RDMA-CM: the fabric `verbs`."""

from libc.stdint cimport uint32_t

from rpmem.wire.lane cimport Lane
from rpmem.fabric.verbs.rdmacm cimport rdma_cm_id, rdma_event_channel
from rpmem.fabric.verbs.memory cimport Device, Domain, Memory
from rpmem.fabric.verbs.queue cimport Queue, verbs_lane_t


cdef enum stage_t:
    STAGE_NEW
    STAGE_ADDRESS                 # it is known which device leads there
    STAGE_ROUTE                   # and how
    STAGE_ASKING
    STAGE_CONNECTED
    STAGE_FAILED


cdef class Fabric:
    """An RDMA device, towards one address."""
    cdef rdma_event_channel *events
    cdef rdma_cm_id *bound            # the address to listen on
    cdef bytes peer                   # a sockaddr
    cdef unsigned int born            # see fork_generation
    cdef uint32_t depth               # work requests in a lane's send queue
    cdef dict joining                 # id to FabricLane: not yet connected
    cdef readonly str provider
    cdef readonly str host
    cdef readonly Device device
    cdef readonly object shared       # the user's own protection domain, or None
    cdef int bind(self, bytes address) except -1
    cdef int reach(self, bytes address) except -1
    cdef object turn(self, double timeout)
    cpdef close(self)


cdef class FabricLane(Lane):
    """A lane over one queue pair."""
    cdef verbs_lane_t *own
    cdef Fabric fabric
    cdef Queue queue
    cdef Domain domain
    cdef Memory buffers
    cdef Memory pool
    cdef char *area
    cdef stage_t stage
    cdef object problem               # what ended it while it was being connected
    cdef bint passive
    cdef int reads                    # READs the target answers at once
    cdef readonly bint connected
    cdef int prepare(self, tuple send, tuple receive, Memory pool, Request request) except -1
    cdef int make_area(self, tuple send, tuple receive, uint32_t scratch) except -1
    cdef int make_id(self) except -1
    cdef int make_pair(self) except -1
    cdef int move(self, int state) except -1
    cdef int await_stage(self, stage_t wanted, int milliseconds) except -1
    cdef int on_event(self, int kind, int status) except -1
    cdef int join(self) except -1


cdef class Request:
    """Somebody who wants to connect."""
    cdef rdma_cm_id *id
    cdef unsigned int born            # see fork_generation
    cdef int reads                    # READs that it would like to have on their way at once
    cdef readonly bytes data          # the private data that came with it
    cdef readonly tuple peer          # (address, port)


cdef class Listener:
    """Listens on the fabric's address."""
    cdef readonly Fabric fabric
    cdef readonly int port
    cpdef close(self)
