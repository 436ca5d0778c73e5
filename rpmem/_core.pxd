# cython: language_level=3
"""The core: a region, its replicas, and the calls that make ranges durable on all of them."""

from cpython.buffer cimport Py_buffer
cimport cython
from libc.stdint cimport int32_t, uint32_t, uint64_t

from rpmem.engine.engine cimport engine_t, outcome_t
from rpmem.memory.changes.lender cimport Lender
from rpmem.memory.changes.pageset cimport PageSet
from rpmem.memory.region cimport Region
from rpmem.steps.step cimport range_t


@cython.final
cdef class Replicator:
    """A region and its replicas."""
    cdef Region region           # the memory that is replicated
    cdef const char *pool
    cdef readonly uint64_t size
    cdef readonly uint64_t floor  # bytes before it are the header, not to be written
    cdef bint local              # make durable here, too
    cdef list groups
    cdef list unsettled          # ranges of calls that were interrupted
    cdef engine_t engine
    cdef unsigned int born       # fork generation
    cdef object closed_error
    cdef object on_store         # told of reads into the region, or None
    cdef list marked             # sets that were marked in: a call may still do it
    cdef Py_ssize_t busy         # calls in progress
    cdef object idle             # a condition, once a thread has waited for their end
    # the hot path
    cdef outcome_t run(self, const range_t *ranges, size_t count, uint32_t flags,
                       int32_t lane) noexcept nogil
    cdef outcome_t run_lent(self, const range_t *ranges, size_t count, Lender lender,
                            const range_t *whole) noexcept nogil
    cdef outcome_t lost(self) noexcept nogil
    cdef int32_t check(self, const range_t *ranges, size_t count) noexcept nogil
    # around it
    cdef int over(self) except -1
    cdef int usable(self) except -1
    cdef int32_t lane_number(self, object lane) except -2
    cdef int call(self, object x, uint32_t flags, int32_t lane) except -1
    cdef int checked_run(self, const range_t *ranges, size_t count, uint32_t flags,
                         int32_t lane) except -1
    cdef int checked_lent(self, const range_t *ranges, size_t count, Lender lender,
                          const range_t *whole) except -1
    cdef int settle(self, outcome_t outcome, const range_t *ranges, size_t count) except -1
    cdef int outside(self, const range_t *ranges, size_t count) except -1
    cdef int read_into(self, uint32_t index, object buffer, uint64_t offset, int32_t number,
                       object register, uint32_t flags=?) except -1
    cdef int note_store(self, const Py_buffer *view) except -1
    cdef int keep(self, PageSet pages) except -1
    cdef int drain_lanes(self, int32_t number) except -1
    cdef bint needs_drain(self, uint32_t lane) noexcept
    cdef int finish(self, outcome_t outcome) except -1
    cdef object remote_error(self, outcome_t outcome)
    cdef uint32_t scratch_of(self, uint32_t index) noexcept
