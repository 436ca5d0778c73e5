# cython: language_level=3
"""A lane at the target's end without a fabric: it is fed messages and keeps the answers.

Built by tests.support.compiled; never part of the package.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from rpmem.wire.lane cimport (
    COMPLETED_RECEIVE, Lane, completion_t, fabric_ops_t, iovec, lane_t, queue_t,
)

cdef enum:
    SLOT_SIZE = 1 << 16
    ANSWER_SIZE = 64
    MOST = 64

ctypedef struct world_t:
    queue_t queue                # first: a queue is its world
    lane_t lane
    uint64_t length              # of the message that waits; 0: none
    uint32_t taken, handled      # messages; handled are those after which it was asked again
    char answers[MOST][ANSWER_SIZE]
    uint32_t sizes[MOST]
    uint32_t answered


cdef int fed_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                  uint32_t flags) noexcept nogil:
    cdef world_t *world = <world_t *> lane.queue
    cdef uint32_t at = world.answered
    memcpy(world.answers[at], vector.iov_base, vector.iov_len)
    world.sizes[at] = <uint32_t> vector.iov_len
    world.answered = at + 1
    return 0


cdef int fed_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    return 0


cdef int fed_poll(queue_t *queue, completion_t *out, int room) noexcept nogil:
    cdef world_t *world = <world_t *> queue
    world.handled = world.taken
    if world.length == 0:
        return 0
    world.taken += 1
    out.lane = &world.lane
    out.kind = COMPLETED_RECEIVE
    out.slot = 0
    out.length = world.length
    world.length = 0
    return 1


cdef int fed_wait(queue_t *queue, int milliseconds) noexcept nogil:
    return 1


cdef void fed_wake(queue_t *queue) noexcept nogil:
    pass


cdef fabric_ops_t OPS
OPS.send = fed_send
OPS.receive = fed_receive
OPS.poll = fed_poll
OPS.wait = fed_wait
OPS.wake = fed_wake


cdef class FedLane(Lane):
    """The only lane of a service."""

    cdef world_t *world

    def __cinit__(self):
        self.world = <world_t *> calloc(1, sizeof(world_t))
        self.c = &self.world.lane
        self.c.ops = &OPS
        self.c.queue = &self.world.queue
        self.world.queue.ops = &OPS
        self.world.queue.spins = True
        self.c.send_slots = 1
        self.c.send_size = ANSWER_SIZE
        self.c.send_area = <char *> calloc(1, ANSWER_SIZE)
        self.c.receive_slots = 1
        self.c.receive_size = SLOT_SIZE
        self.c.receive_area = <char *> calloc(1, SLOT_SIZE)

    @property
    def handled(self):
        """How many messages have been dealt with."""
        return self.world.handled

    def __dealloc__(self):
        if self.world != NULL:
            free(self.c.send_area)
            free(self.c.receive_area)
            free(self.world)

    def feed(self, bytes message):
        """Let the next poll find a message."""
        if len(message) > SLOT_SIZE:
            raise ValueError("no buffer is as large as that")
        memcpy(self.c.receive_area, <const char *> message, len(message))
        self.world.length = len(message)

    @property
    def answers(self):
        """The answers so far."""
        return [self.world.answers[i][:self.world.sizes[i]] for i in range(self.world.answered)]
