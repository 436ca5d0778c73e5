# cython: language_level=3
"""How things move in the world of the fake fabric, and the table of functions of its lanes."""

from rpmem.wire.lane cimport fabric_ops_t


cdef const fabric_ops_t *fake_ops() noexcept nogil
