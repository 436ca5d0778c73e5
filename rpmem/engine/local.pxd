# cython: language_level=3
"""Making ranges durable in the local medium."""

from libc.stdint cimport uint32_t

from rpmem.memory.region cimport Region
from rpmem.steps.step cimport range_t


# 0 or an errno.
cdef int local_durable(Region region, const range_t *ranges, size_t count,
                       uint32_t flags) noexcept nogil
