# cython: language_level=3
"""A lane over one connected socket."""

from rpmem.fabric.shared.lane cimport ConnectedLane
from rpmem.fabric.stream.handshake cimport Handshake
from rpmem.fabric.stream.memory cimport Domain, Memory
from rpmem.fabric.stream.queue cimport Queue
from rpmem.fabric.stream.structs cimport stream_lane_t


cdef class FabricLane(ConnectedLane):
    """A lane over one socket."""
    cdef unsigned int born            # fork generation
    cdef stream_lane_t *own
    cdef Queue queue
    cdef Domain domain
    cdef Memory exposed
    cdef object request
    cdef readonly object call
    cdef Handshake secret             # what encrypts it, or None
    cdef int take_socket(self, int descriptor, Handshake secret) except -1
    cpdef close(self)
