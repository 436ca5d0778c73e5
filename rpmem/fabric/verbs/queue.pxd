# cython: language_level=3
"""A completion queue of an RDMA device, with all events that wake a thread sleeping on it."""

from libc.stdint cimport uint32_t

from rpmem.fabric.verbs.memory cimport Domain
from rpmem.fabric.verbs.structs cimport verbs_lane_t, verbs_queue_t


cdef class Queue:
    """A completion queue, with all events that wake a thread sleeping on it."""
    cdef verbs_queue_t c
    cdef Domain domain
    cdef uint32_t capacity
    cdef uint32_t reserved
    cdef int enter(self, verbs_lane_t *lane, uint32_t completions) except -1
    cdef int leave(self, verbs_lane_t *lane) noexcept
    cpdef close(self)
