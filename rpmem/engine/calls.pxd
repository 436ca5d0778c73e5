# cython: language_level=3
"""The calls of one replica, offset and length, without a detour through Python."""

from libc.stdint cimport uint32_t

from rpmem._core cimport Replicator


cdef class Calls:
    """What `rpmem.Replica` inherits: librpmem's calls, straight to a Replicator."""
    cdef Replicator core         # None: the replica is not connected, or closed
    cdef uint32_t index          # of the replica in it
    cdef bint lent               # a pool makes ranges durable on it; here it can only be read
    cdef object register         # of local memory, for reading into it
    cdef Replicator own(self)
    cdef int run(self, object offset, object length, uint32_t flags, object lane) except -1
