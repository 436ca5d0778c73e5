# cython: language_level=3
"""The durability steps of the native protocol, by name."""

from rpmem.steps.step cimport link_t, step_t
from rpmem.wire.lane cimport lane_t


cdef const step_t *step_named(str name, const lane_t *lane) except NULL
# Post the lane's receive buffers; once, before the first operation.
cdef int link_prepare(link_t *link) noexcept nogil
