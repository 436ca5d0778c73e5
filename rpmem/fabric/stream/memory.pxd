# cython: language_level=3
"""Memory that lanes over byte streams reach, and its domain."""

from libc.stdint cimport uint64_t


cdef class Domain:
    """What lanes and memory belong to."""
    cdef readonly object fabric
    cdef Memory exposed               # what the other side of its lanes reaches, if anything
    cpdef close(self)


cdef class Memory:
    """A range of memory, which needs no registration."""
    cdef char *base
    cdef size_t length
    cdef readonly uint64_t key
    cdef readonly uint64_t address
    cdef object keep
    cpdef close(self)
