# cython: language_level=3
"""The target's in-band service: how it handles each message of each lane."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from rpmem.wire.lane cimport lane_t, queue_t
from rpmem.memory.region cimport Region


# Why a lane was given up.
cdef enum:
    DROP_NONE = 0
    DROP_LOST = 1            # the initiator is gone
    DROP_GARBLED = 2         # it broke the protocol
    DROP_RANGE = 3           # it referred to bytes outside the pool
    DROP_MEDIUM = 4          # the medium refused a flush

ctypedef struct served_t:
    lane_t *lane
    uint32_t number           # of the lane in its session
    uint32_t sequence         # of the last message
    uint64_t low              # bytes waiting for a flush, on media with a single flush
    uint64_t high
    bint deep
    bint owes_reply
    uint64_t reply[2]
    uint32_t reply_size
    uint32_t dropped
    int32_t medium_error      # errno behind DROP_MEDIUM
    char *staging             # what the initiator can READ if it cannot reach the pool

# Handle the message in `message`: 0, or a DROP_ reason.
ctypedef int (*handler_t)(Service service, served_t *served, const char *message,
                          uint64_t length) noexcept nogil


cdef class Service:
    cdef Region region
    cdef Region staging          # a piece for each lane, or None
    cdef uint64_t staged         # size of a piece
    cdef uint64_t size           # bytes that the initiator may touch
    cdef uint64_t base           # added to offsets by PMDK's initiators
    cdef uint64_t floor          # bytes at the start that messages may not write to
    cdef uint64_t read_floor     # and that they may not read
    cdef bint spans              # medium: one flush over all ranges since the last answer
    cdef handler_t handler
    cdef list lanes
    cdef list queues
    cdef served_t *served
    cdef uint32_t count
    cdef uint64_t spin_ns
    cdef object on_drop
    cdef volatile int stopping
    cdef readonly uint64_t messages
    cdef readonly uint64_t flushes

    cdef int note(self, served_t *served, uint64_t offset, uint64_t length) noexcept nogil
    cdef int settle(self, served_t *served) noexcept nogil
    cdef int send_reply(self, served_t *served) noexcept nogil
    cdef int take(self, served_t *served, uint32_t slot, uint64_t length) noexcept nogil
    cdef void drop(self, served_t *served, uint32_t reason, int detail) noexcept nogil
    cdef void serve(self, queue_t *queue, uint32_t alive) noexcept nogil
