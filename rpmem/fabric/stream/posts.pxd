# cython: language_level=3
"""Posting frames on a lane over a byte stream."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.fabric.stream.structs cimport stream_lane_t
from rpmem.wire.lane cimport iovec, lane_t


# The connection is gone, for the reason in `rc`: LANE_LOST.
cdef int lost(stream_lane_t *own, ssize_t rc) noexcept nogil
# Send what is left of the last post: 0 or LANE_AGAIN.
cdef int flush(stream_lane_t *own) noexcept nogil
# Send a frame with the bytes of a vector: 0, LANE_AGAIN if nothing was sent, or a fault.
cdef int post(stream_lane_t *own, uint32_t kind, uint32_t flags, uint64_t offset, uint64_t length,
              const iovec *vector, size_t count, bint copies) noexcept nogil
# Send the DONEs that are owed: 0 or LANE_AGAIN.
cdef int confirm(stream_lane_t *own) noexcept nogil
# Functions of `fabric_ops_t`.
cdef int stream_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                     uint32_t flags) noexcept nogil
cdef int stream_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                      uint64_t length, uint32_t flags) noexcept nogil
cdef int stream_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                     uint64_t length, uint32_t flags) noexcept nogil
