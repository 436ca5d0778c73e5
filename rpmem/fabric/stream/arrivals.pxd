# cython: language_level=3
"""What arrives on a lane over a byte stream."""

from libc.stdint cimport uint32_t

from rpmem.fabric.stream.structs cimport stream_lane_t
from rpmem.wire.lane cimport completion_t, lane_t


# A function of `fabric_ops_t`.
cdef int stream_receive(lane_t *lane, uint32_t slot) noexcept nogil
# Take what has arrived apart: the number of completions. The lane's state has any fault.
cdef int take(stream_lane_t *own, completion_t *out, int room) noexcept nogil
# Whether a poll gets further although nothing arrives.
cdef bint is_ready(const stream_lane_t *own) noexcept nogil
