# cython: language_level=3
"""The messages that an initiator sends in the native protocol."""

from libc.stdint cimport uint64_t

from rpmem.steps.step cimport link_t, operation_t


# Send an operation's UPDATEs: 0 once all are sent, LANE_AGAIN to be called again, or a fault.
cdef int send_updates(link_t *link, operation_t *operation, uint64_t written_above) noexcept nogil
# Ask the target to copy a range to the lane's staging buffer.
cdef int send_fetch(link_t *link, uint64_t offset, uint64_t length) noexcept nogil
