# cython: language_level=3
"""The queue for completions of libfabric."""

from rpmem.fabric.libfabric.fi cimport fid_cq
from rpmem.fabric.libfabric.memory cimport Domain
from rpmem.fabric.libfabric.ops cimport fi_queue_t


cdef class Queue:
    """A completion queue that can be polled or slept on."""
    cdef unsigned int born            # fork generation
    cdef fi_queue_t c
    cdef Domain domain
    cdef fid_cq *open(self, size_t size, int wait) except NULL
    cpdef close(self)
