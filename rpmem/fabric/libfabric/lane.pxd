# cython: language_level=3
"""A lane over one connected endpoint of libfabric (FI_EP_MSG)."""

from libc.stdint cimport uint32_t

from rpmem.fabric.libfabric.fi cimport fi_info
from rpmem.fabric.libfabric.memory cimport Domain, Memory
from rpmem.fabric.libfabric.ops cimport fi_lane_t
from rpmem.fabric.libfabric.queue cimport Queue
from rpmem.fabric.shared.lane cimport ConnectedLane


cdef class FabricLane(ConnectedLane):
    """A lane over one endpoint."""
    cdef unsigned int born            # fork generation
    cdef fi_lane_t *own
    cdef Queue queue
    cdef Domain domain
    cdef Memory pool
    cdef int limit(self, fi_info *info) except -1
    cdef int make_buffers(self, tuple send, tuple receive, bint passive) except -1
    cdef int make_endpoint(self, fi_info *info) except -1
    cpdef close(self)
