# cython: language_level=3
"""The messages of the native protocol as an initiator sends them."""

from libc.stdint cimport uint64_t

from rpmem.steps.step cimport link_t, operation_t


# All UPDATEs of an operation: 0 when they are sent, LANE_AGAIN to be called again, or a fault.
cdef int send_updates(link_t *link, operation_t *operation, uint64_t written_above) noexcept nogil
# Have the target copy a range to the lane's staging buffer.
cdef int send_fetch(link_t *link, uint64_t offset, uint64_t length) noexcept nogil
