# cython: language_level=3
"""Lanes without any checks: any bytes in a message, any offset in a one-sided operation.

Built by tests.support.raw_session; never part of the package.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN,
    POST_COMMIT, POST_MORE, POST_SIGNAL, POST_WORDS, WATCH_POSTS, WATCH_RECEIVES, Lane, completion_t, iovec,
    lane_t, message_at,
)

import time

NAMES = {
    COMPLETED_FAULT: "fault",
    COMPLETED_READ: "read",
    COMPLETED_RECEIVE: "receive",
    COMPLETED_WRITE: "write",
}


def send(Lane lane, bytes message, double patience_s=10):
    """Post a message: 0 when it was taken, LANE_AGAIN when there was no room in time, a fault."""
    cdef iovec vector
    cdef void *handle = lane.c.send_handle
    cdef int rc
    # The buffers lie side by side: all of them are one for whoever sends more than was agreed.
    if len(message) > <Py_ssize_t> (lane.c.send_size * lane.c.send_slots):
        raise ValueError("the lane's send buffers are too small for that")
    deadline = time.monotonic() + patience_s
    while True:
        # One buffer for all: whoever sends before the last has gone sends something else.
        memcpy(lane.c.send_area, <const char *> message, len(message))
        vector.iov_base = lane.c.send_area
        vector.iov_len = len(message)
        rc = lane.c.ops.send(lane.c, &vector, &handle, 1, 0)
        if rc != LANE_AGAIN or time.monotonic() >= deadline:
            return rc
        poll(lane)


def write(Lane lane, bytes data, uint64_t offset, *, bint commit=False, bint more=False,
          bint words=False):
    """Post a one-sided WRITE at any offset; `more`: another post follows."""
    cdef uint32_t flags = POST_MORE if more else POST_SIGNAL
    if commit:
        flags |= POST_COMMIT
    if words:
        flags |= POST_WORDS
    memcpy(lane.c.scratch, <const char *> data, min(len(data), 4096))
    return lane.c.ops.write(lane.c, lane.c.scratch, lane.c.scratch_handle, offset,
                            min(len(data), 4096), flags)


def read(Lane lane, uint64_t offset, uint64_t length):
    """Post a one-sided READ at any offset; `scratch` has what came."""
    return lane.c.ops.read(lane.c, lane.c.scratch, lane.c.scratch_handle, offset,
                           min(length, <uint64_t> 4096), POST_SIGNAL)


def scratch(Lane lane, size_t length):
    """What the last READ brought."""
    return lane.c.scratch[:length]


def post_receives(Lane lane):
    """Post every receive buffer."""
    cdef uint32_t slot
    for slot in range(lane.c.receive_slots):
        lane.c.ops.receive(lane.c, slot)


def poll(Lane lane):
    """What has completed: a list of (kind, bytes)."""
    cdef completion_t completions[8]
    cdef lane_t *from_lane
    cdef int n, i
    out = []
    lane.c.queue.watch = WATCH_POSTS | WATCH_RECEIVES
    n = lane.c.ops.poll(lane.c.queue, completions, 8)
    if n < 0:
        return [("fault", b"")]
    for i in range(n):
        data = b""
        if completions[i].kind == COMPLETED_RECEIVE:
            from_lane = completions[i].lane  # of those on the queue
            data = message_at(from_lane, completions[i].slot)[:completions[i].length]
            lane.c.ops.receive(from_lane, completions[i].slot)
        out.append((NAMES.get(completions[i].kind, "other"), data))
    return out


def wait(Lane lane, int milliseconds):
    """Sleep until there may be something to poll; false when nothing was."""
    cdef int rc
    with nogil:
        rc = lane.c.ops.wait(lane.c.queue, milliseconds)
    return rc > 0


def wake(Lane lane):
    """End a wait."""
    lane.c.ops.wake(lane.c.queue)


def neighbour(Lane lane):
    """Where the lane's queue says that the last message came from: 1 + a processor, or 0."""
    return lane.c.queue.neighbour
