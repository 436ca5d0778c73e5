# cython: language_level=3
"""Whether a range is inside another: the one check that every copy of bytes relies on."""

from libc.stdint cimport uint64_t


cdef inline bint is_outside(uint64_t offset, uint64_t length, uint64_t floor,
                            uint64_t size) noexcept nogil:
    """True unless [offset, offset + length) is in [floor, size); never wraps."""
    return offset < floor or length > size or offset > size - length
