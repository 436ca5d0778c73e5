# cython: language_level=3
"""The table of functions of the fake fabric's lanes: what engine, steps and service call."""

from rpmem.wire.lane cimport fabric_ops_t


cdef const fabric_ops_t *fake_ops() noexcept nogil
