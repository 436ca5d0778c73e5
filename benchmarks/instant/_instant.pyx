# cython: language_level=3
"""Lanes whose other end answers before the requesting call has returned."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from rpmem.wire.lane cimport (
    COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_UP, POST_SIGNAL, Lane, completion_t, fabric_ops_t,
    iovec, lane_t, queue_t,
)
from rpmem.wire.messages cimport MESSAGE_REPLY, REPLY_DONE, UPDATE_ANSWER, header_t, reply_t

cdef enum:
    MESSAGE = 1 << 16
    SLOTS = 16


ctypedef struct state_t:
    queue_t queue
    lane_t lane
    uint32_t written
    bint answer
    uint32_t sequence


cdef int instant_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                       uint64_t length, uint32_t flags) noexcept nogil:
    if flags & POST_SIGNAL:
        (<state_t *> lane.user).written += 1
    return 0


cdef int instant_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                      uint64_t length, uint32_t flags) noexcept nogil:
    return instant_write(lane, destination, handle, offset, length, flags)


cdef int instant_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                      uint32_t flags) noexcept nogil:
    cdef const header_t *header = <const header_t *> vector[0].iov_base
    cdef state_t *state = <state_t *> lane.user
    if header.flags & UPDATE_ANSWER:
        state.answer = True
        state.sequence = header.sequence
    return 0


cdef int instant_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    return 0


cdef int instant_poll(queue_t *queue, completion_t *out, int room) noexcept nogil:
    cdef state_t *state = <state_t *> queue
    cdef reply_t *reply
    cdef int n = 0
    if state.answer:
        reply = <reply_t *> state.lane.receive_area
        reply.kind = MESSAGE_REPLY
        reply.status = REPLY_DONE
        reply.sequence = state.sequence
        out[0].lane = &state.lane
        out[0].kind = COMPLETED_RECEIVE
        out[0].slot = 0
        out[0].length = sizeof(reply_t)
        state.answer = False
        n = 1
    while state.written and n < room:
        out[n].lane = &state.lane
        out[n].kind = COMPLETED_WRITE
        state.written -= 1
        n += 1
    return n


cdef int instant_wait(queue_t *queue, int milliseconds) noexcept nogil:
    return 1


cdef void instant_wake(queue_t *queue) noexcept nogil:
    pass


cdef fabric_ops_t OPS
OPS.write = instant_write
OPS.read = instant_read
OPS.send = instant_send
OPS.receive = instant_receive
OPS.poll = instant_poll
OPS.wait = instant_wait
OPS.wake = instant_wake


cdef class InstantLane(Lane):
    """A lane that leads nowhere."""
    cdef state_t *state

    def __cinit__(self):
        cdef state_t *state = <state_t *> calloc(1, sizeof(state_t))
        if state == NULL:
            raise MemoryError("no memory for a lane")
        memset(state, 0, sizeof(state_t))
        state.queue.ops = &OPS
        state.queue.spins = True
        state.lane.ops = &OPS
        state.lane.queue = &state.queue
        state.lane.state = LANE_UP
        state.lane.remote_size = <uint64_t> 1 << 40
        state.lane.operation_limit = state.lane.piece = <uint64_t> 1 << 30
        state.lane.inline_limit = 128
        state.lane.send_slots = SLOTS
        state.lane.send_size = MESSAGE
        state.lane.send_area = <char *> calloc(SLOTS, MESSAGE)
        state.lane.receive_slots = 1
        state.lane.receive_size = 64
        state.lane.receive_area = <char *> calloc(1, 64)
        state.lane.user = state
        self.state = state
        self.c = &state.lane
        if state.lane.send_area == NULL or state.lane.receive_area == NULL:
            raise MemoryError("no memory for messages")

    def __dealloc__(self):
        if self.state != NULL:
            free(self.state.lane.send_area)
            free(self.state.lane.receive_area)
            free(self.state)
