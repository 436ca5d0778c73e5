# cython: language_level=3
"""Contents of held: a range of the pool that no call has under way, on any copy."""

from libc.stdint cimport int32_t, uint64_t

from rpmem._core cimport Replicator
from rpmem.steps.step cimport range_t


cdef class Held:
    cdef Replicator core      # None once released
    cdef range_t range
    cdef int32_t lane         # -1: there are no replicas
    cdef bint late            # something that was sent may arrive after the release
    cdef int check(self, uint64_t length) except -1
    cdef void let_go(self) noexcept
