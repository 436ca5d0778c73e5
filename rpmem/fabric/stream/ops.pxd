# cython: language_level=3
"""The table of functions on lanes and queues of byte streams."""

from rpmem.fabric.stream.structs cimport stream_lane_t, stream_queue_t
from rpmem.wire.lane cimport fabric_ops_t


cdef fabric_ops_t STREAM_OPS
# Let the bell end the queue's waits: 0, or minus the errno.
cdef int queue_ring(stream_queue_t *queue) noexcept nogil
# Let the queue look at a lane, or no longer: 0, or minus the errno. Not while it is polled.
cdef int queue_add(stream_queue_t *queue, stream_lane_t *own) noexcept nogil
cdef void queue_remove(stream_queue_t *queue, stream_lane_t *own) noexcept nogil
