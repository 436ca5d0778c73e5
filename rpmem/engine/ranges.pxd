# cython: language_level=3
"""From Python objects to ranges of a pool."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t

from rpmem.steps.step cimport range_t

cdef enum:
    RANGES_INLINE = 4

ctypedef struct ranges_t:
    range_t few[RANGES_INLINE]   # so that the usual case needs no allocation
    range_t *items
    size_t count
    size_t capacity


cdef void ranges_init(ranges_t *ranges) noexcept
cdef void ranges_free(ranges_t *ranges) noexcept
cdef int ranges_of(ranges_t *ranges, object x, const char *pool, uint64_t size) except -1
# Use a C-contiguous uint64 array of shape (n, 2) in place; the caller releases `view`.
cdef int array_of_ranges(Py_buffer *view, object x) except -1
cdef bint any_empty(const range_t *ranges, size_t count) noexcept nogil
cdef uint64_t offset_of(object offset, uint64_t size) except? <uint64_t> -1
cdef int range_of(range_t *out, object offset, object length, uint64_t size) except -1
