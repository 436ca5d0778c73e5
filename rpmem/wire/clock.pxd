# cython: language_level=3
"""The clock that polling goes by.

A pointer, and not the function: a test that has a fabric of its own in the process has time go by
as that fabric likes.
"""

from libc.stdint cimport uint64_t


# Nanoseconds, from some moment on.
cdef uint64_t (*now)() noexcept nogil
