# cython: language_level=3
"""The calls of one replica by offset and length, without a detour through Python."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem._core cimport Replicator


cdef class Calls:
    """The base of `rpmem.Replica`: librpmem's calls, straight to a Replicator."""
    cdef Replicator core         # None: the replica is not connected or is closed
    cdef uint32_t index          # of the replica in `core`
    cdef bint lent               # used by a pool: through this object it can only be read
    cdef object register         # registers local memory to read into
    cdef uint64_t first          # bytes before it are not read
    cdef Replicator own(self)
    cdef int run(self, object offset, object length, uint32_t flags, object lane) except -1
