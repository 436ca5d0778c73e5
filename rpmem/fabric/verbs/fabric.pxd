# cython: language_level=3
"""The RDMA device that leads to an address, or has it, and the events of its connections."""

from libc.stdint cimport uint32_t

from rpmem.fabric.shared.connecting cimport Connector
from rpmem.fabric.verbs.memory cimport Device
from rpmem.fabric.verbs.rdmacm cimport rdma_cm_id, rdma_event_channel


cdef class Fabric(Connector):
    """An RDMA device, for one address."""
    cdef rdma_event_channel *events
    cdef rdma_cm_id *bound            # the address to listen on
    cdef bytes peer                   # a sockaddr
    cdef uint32_t depth               # work requests in a lane's send queue
    cdef readonly Device device
    cdef readonly object shared       # the user's own protection domain, or None
    cdef int bind(self, bytes address) except -1
    cdef int reach(self, bytes address) except -1
    cdef bint is_readable(self, int limit_ms)
    cpdef close(self)
