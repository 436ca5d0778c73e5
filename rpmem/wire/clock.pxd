# cython: language_level=3
"""The clock that polling goes by.

It is a pointer so that a test with a fake fabric in the process can replace the clock with a
virtual one.
"""

from libc.stdint cimport uint64_t


# Nanoseconds since an arbitrary moment.
cdef uint64_t (*now)() noexcept nogil
