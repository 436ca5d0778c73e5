# cython: language_level=3
"""The one-sided posts of the steps: WRITEs of ranges and words, FLUSHes, READs of 8 bytes."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.steps.step cimport link_t, operation_t, range_t
from rpmem.wire.lane cimport lane_t


cdef inline uint64_t part_of(const lane_t *lane, uint64_t left) noexcept nogil:
    """How many of a range's remaining bytes the next one-sided operation takes."""
    return left if left <= lane.operation_limit else lane.piece


# Each returns 0 once everything is posted, LANE_AGAIN to be called again, or a fault.
cdef int write_ranges(link_t *link, operation_t *operation, uint64_t above, uint64_t most,
                      uint32_t flags, uint32_t last) noexcept nogil
cdef int write_words(link_t *link, operation_t *operation) noexcept nogil
cdef int post_flush(link_t *link, const range_t *r, uint32_t flags) noexcept nogil
cdef int flush_ranges(link_t *link, operation_t *operation, uint32_t flags) noexcept nogil
cdef int read_back(link_t *link, const range_t *r) noexcept nogil

# Whether it consists of only a few aligned 8-byte words: each takes a separate request.
cdef bint is_words(const operation_t *operation) noexcept nogil
