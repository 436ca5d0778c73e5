# cython: language_level=3
"""Lanes over libfabric connected endpoints (FI_EP_MSG), any provider that offers them."""

from libc.stdint cimport uint64_t

from rpmem.fabric.libfabric.fi cimport (
    fi_info, fid_cq, fid_domain, fid_eq, fid_fabric, fid_mr, fid_pep,
)
from rpmem.fabric.libfabric.ops cimport fi_lane_t, fi_queue_t
from rpmem.wire.lane cimport Lane


cdef class Fabric:
    """One provider, towards one address."""
    cdef unsigned int born            # fork generation
    cdef fi_info *info
    cdef fid_fabric *fabric
    cdef fid_eq *events
    cdef readonly str provider
    cdef str host                     # what it was made for
    cdef int port
    cdef readonly bint commits        # offers commit-complete
    cdef bint listens
    cdef list early                   # events that came before they were waited for
    cdef object next_event(self, double timeout)
    cdef nudge(self)
    cpdef close(self)


cdef class Domain:
    """Where memory is registered and endpoints live."""
    cdef unsigned int born            # fork generation
    cdef fid_domain *domain
    cdef readonly Fabric fabric
    cpdef close(self)


cdef class Memory:
    """A registered range of memory."""
    cdef unsigned int born            # fork generation
    cdef fid_mr *mr
    cdef Domain domain
    cdef object keep
    cdef readonly uint64_t key
    cdef readonly uint64_t address    # what the other side adds offsets to
    cpdef close(self)


cdef class Queue:
    """A completion queue that can be polled or slept on."""
    cdef unsigned int born            # fork generation
    cdef fi_queue_t c
    cdef Domain domain
    cdef fid_cq *open(self, size_t size, int wait) except NULL
    cpdef close(self)


cdef class FabricLane(Lane):
    """A lane over one endpoint."""
    cdef unsigned int born            # fork generation
    cdef fi_lane_t *own
    cdef Queue queue
    cdef Domain domain
    cdef Memory buffers
    cdef Memory pool
    cdef char *area
    cdef readonly bint connected


cdef class Request:
    """Somebody who wants to connect."""
    cdef fi_info *info
    cdef Listener listener
    cdef Listener behind              # where libfabric takes over what has waited at the door
    cdef object visitor               # what waits there
    cdef readonly bytes data          # the private data that came with it
    cdef readonly tuple peer          # (address, port)
    cdef enter(self)
    cdef leave(self)


cdef class Listener:
    """A passive endpoint, or a door before one."""
    cdef unsigned int born            # fork generation
    cdef fid_pep *endpoint
    cdef object door
    cdef Fabric inner                 # behind the door
    cdef readonly Fabric fabric
    cdef readonly int port
    cdef Request await_request(self, tuple peer)
    cpdef close(self)
