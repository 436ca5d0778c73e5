# cython: language_level=3
"""Contents of lender: bytes of a region that calls take from another place."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t


cdef class Lender:
    cdef Py_buffer view       # the place
    cdef bint has_view
    cdef readonly uint64_t offset
    # Put the bytes there. Called once for each send, when nothing older can arrive any more.
    cdef void fill(self) noexcept nogil
