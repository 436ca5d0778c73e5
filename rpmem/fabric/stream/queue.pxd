# cython: language_level=3
"""The queue of lanes over byte streams."""

from rpmem.fabric.stream.memory cimport Domain
from rpmem.fabric.stream.structs cimport stream_queue_t


cdef class Queue:
    """Lanes that are polled or slept on together."""
    cdef unsigned int born            # fork generation
    cdef stream_queue_t c
    cdef Domain domain
    cpdef close(self)
