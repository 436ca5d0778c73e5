"""The target's in-band service loop.

Initiators are not trusted: every length, offset and sequence number of a message is
checked before a byte of it is used. A lane that breaks a rule gets an answer with the reason, is
given up, and is reported to the session; its data since the last answer was never acknowledged.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from rpmem.base.bounds cimport is_outside
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_RECEIVE, LANE_AGAIN, LANE_GARBLED, POST_INLINE, Lane, completion_t,
    iovec, lane_t, message_at, queue_t,
)
from rpmem.wire.messages cimport (
    MESSAGE_FETCH, MESSAGE_REPLY, MESSAGE_UPDATE, REPLY_BAD_MESSAGE, REPLY_BAD_RANGE, REPLY_DONE,
    REPLY_FLUSH_FAILED, UPDATE_ANSWER, UPDATE_DEEP, WRITTEN_SHIFT, descriptor_t, header_t,
    reply_t,
)
from rpmem.wire.pmdk_messages cimport (
    PMDK_DEEP_PERSIST, PMDK_MODE_MASK, PMDK_PERSIST_SEND, pmdk_reply_t, pmdk_request_t,
)
from rpmem.memory.region cimport Region
from rpmem.base.words cimport rpmem_copy_words
from rpmem.wire.apart cimport keep_apart
from rpmem.wire.clock cimport now
from rpmem.wire.polling cimport after_empty_poll, politeness, politeness_t

from rpmem.errors import FlushFailed, MalformedMessage, RangeError

cdef enum:
    BATCH = 16
    LOOK_AT_CLOCK = 32        # empty polls between two readings
    SLICE_MS = 500               # longest sleep in ms; `stop` wakes the queue

LOST = "the initiator hung up"

DROP_REASONS = {
    DROP_LOST: LOST,
    DROP_GARBLED: "the initiator broke the in-band protocol",
    DROP_RANGE: "the initiator named bytes outside the pool",
    DROP_MEDIUM: "the medium refused a flush: what was not acknowledged is not durable there",
}


def error_for(str reason, str text, int number):
    """The error that tells an initiator why its lane was given up."""
    if reason == DROP_REASONS[DROP_MEDIUM]:
        return FlushFailed(text, errno=number or None)
    if reason == DROP_REASONS[DROP_RANGE]:
        return RangeError(text)
    return MalformedMessage(text)


# --- native messages ---------------------------------------------------------------

cdef void reply_native(served_t *served, uint8_t status, uint32_t number) noexcept nogil:
    """Prepare an answer to the initiator for everything up to the last message."""
    cdef reply_t *reply = <reply_t *> served.reply
    memset(reply, 0, sizeof(reply_t))
    reply.kind = MESSAGE_REPLY
    reply.status = status
    reply.sequence = served.sequence
    reply.number = number
    served.reply_size = sizeof(reply_t)
    served.owes_reply = True


cdef inline int medium_failed(served_t *served, int number) noexcept nogil:
    served.medium_error = number
    reply_native(served, REPLY_FLUSH_FAILED, number)
    return DROP_MEDIUM


cdef inline int settle_native(Service service, served_t *served) noexcept nogil:
    """Answer: the answer says that everything before it is durable."""
    cdef int rc = service.settle(served)
    if rc:
        return medium_failed(served, rc)
    reply_native(served, REPLY_DONE, 0)
    return DROP_NONE


cdef int fetch(Service service, served_t *served, const char *message,
               uint64_t length) noexcept nogil:
    """Check a FETCH, copy its range to the staging buffer, answer."""
    cdef const header_t *header = <const header_t *> message
    cdef const descriptor_t *wanted = <const descriptor_t *> (message + sizeof(header_t))
    if (header.flags != UPDATE_ANSWER or header.count != 1
            or header.sequence != <uint32_t> (served.sequence + 1)
            or length != sizeof(header_t) + sizeof(descriptor_t)
            or wanted.length > service.staged):
        reply_native(served, REPLY_BAD_MESSAGE, 0)
        return DROP_GARBLED
    if is_outside(wanted.offset, wanted.length, service.read_floor, service.size):
        reply_native(served, REPLY_BAD_RANGE, 0)
        return DROP_RANGE
    served.sequence = header.sequence
    memcpy(served.staging, service.region.base + wanted.offset, wanted.length)
    return settle_native(service, served)


cdef int native_handler(Service service, served_t *served, const char *message,
                        uint64_t length) noexcept nogil:
    """Check an UPDATE, store its data, make its ranges durable, answer if asked."""
    cdef const header_t *header = <const header_t *> message
    cdef const descriptor_t *descriptors = <const descriptor_t *> (message + sizeof(header_t))
    cdef const char *data
    cdef uint64_t n, left
    cdef uint32_t i
    cdef bint written
    cdef int rc
    if length < sizeof(header_t):
        reply_native(served, REPLY_BAD_MESSAGE, 0)
        return DROP_GARBLED
    if header.kind == MESSAGE_FETCH and served.staging != NULL:
        return fetch(service, served, message, length)
    if (header.kind != MESSAGE_UPDATE or header.flags & ~(UPDATE_ANSWER | UPDATE_DEEP)
            or header.sequence != <uint32_t> (served.sequence + 1)
            or length < sizeof(header_t) + <uint64_t> header.count * sizeof(descriptor_t)):
        reply_native(served, REPLY_BAD_MESSAGE, 0)
        return DROP_GARBLED
    data = <const char *> (descriptors + header.count)
    left = length - (data - message)
    for i in range(header.count):
        n = descriptors[i].length
        written = n >> WRITTEN_SHIFT
        n &= ~(<uint64_t> 1 << WRITTEN_SHIFT)
        if not written:
            if n > left:
                reply_native(served, REPLY_BAD_MESSAGE, 0)
                return DROP_GARBLED
            left -= n
        if is_outside(descriptors[i].offset, n, service.floor, service.size):
            reply_native(served, REPLY_BAD_RANGE, i)
            return DROP_RANGE
    if left:
        reply_native(served, REPLY_BAD_MESSAGE, 0)
        return DROP_GARBLED

    served.sequence = header.sequence
    served.deep = served.deep or (header.flags & UPDATE_DEEP) != 0
    for i in range(header.count):
        n = descriptors[i].length
        if not n >> WRITTEN_SHIFT:
            rpmem_copy_words(service.region.base + descriptors[i].offset, data, n)
            data += n
        n &= ~(<uint64_t> 1 << WRITTEN_SHIFT)
        rc = service.note(served, descriptors[i].offset, n)
        if rc:
            return medium_failed(served, rc)
    if header.flags & UPDATE_ANSWER:
        return settle_native(service, served)
    return DROP_NONE


# --- PMDK's messages ---------------------------------------------------------------

cdef int pmdk_handler(Service service, served_t *served, const char *message,
                      uint64_t length) noexcept nogil:
    """Check a request of PMDK 0.1, carry it out, reply.

    Its replies cannot report a failure: the lane is given up instead.
    """
    cdef const pmdk_request_t *request = <const pmdk_request_t *> message
    cdef pmdk_reply_t *reply = <pmdk_reply_t *> served.reply
    cdef uint64_t offset
    cdef uint32_t mode
    cdef int rc
    if length < sizeof(pmdk_request_t) or request.lane != served.number:
        return DROP_GARBLED
    mode = request.flags & PMDK_MODE_MASK
    if length != sizeof(pmdk_request_t) + (request.size if mode == PMDK_PERSIST_SEND else 0):
        return DROP_GARBLED
    offset = request.address - service.base
    if request.address < service.base or is_outside(offset, request.size, 0, service.size):
        return DROP_RANGE
    if mode == PMDK_PERSIST_SEND:
        rpmem_copy_words(service.region.base + offset, message + sizeof(pmdk_request_t),
                         request.size)
    served.deep = mode == PMDK_DEEP_PERSIST
    rc = service.note(served, offset, request.size) if request.size else 0
    if rc == 0:
        rc = service.settle(served)
    if rc:
        served.medium_error = rc
        return DROP_MEDIUM
    served.sequence += 1
    reply.flags = 0
    reply.lane = served.number
    served.reply_size = sizeof(pmdk_reply_t)
    served.owes_reply = True
    return DROP_NONE


# --- the service -------------------------------------------------------------------

cdef class Service:
    """Serves the lanes of one session.

    Parameters
    ----------
    region : Region
        The pool.
    size : int
        How many bytes of it the initiator asked for.
    floor : int
        Bytes at the start (the header) that messages may not write to.
    lanes : list of Lane
        Connected lanes with their receives posted.
    queues : list
        The queue objects, one per service thread; every lane's queue is one of them.
    spin_s : float
        Seconds to poll after the last traffic before sleeping.
    dialect : {"native", "pmdk"}
        The in-band protocol.
    base : int
        With PMDK's protocol, the address of the pool as reported to initiators.
    staging : Region, optional
        Registered memory, an equal piece for each lane, into which ranges are copied on demand if
        the fabric cannot reach the pool.
    read_floor : int
        Bytes at the start that messages may not read.
    on_drop : callable
        ``on_drop(lane, reason, errno)``, called from service threads.
    """

    def __cinit__(self, Region region not None, uint64_t size, uint64_t floor, list lanes,
                  list queues, *, double spin_s, object on_drop, str dialect="native",
                  uint64_t base=0, Region staging=None, uint64_t read_floor=0):
        cdef Lane lane
        cdef uint32_t i
        self.region = region
        self.size = min(size, region.size)
        self.floor = floor
        self.read_floor = read_floor
        self.spans = region.spans
        self.handler = native_handler if dialect == "native" else pmdk_handler
        self.base = base
        self.lanes = list(lanes)
        self.queues = list(queues)
        self.count = <uint32_t> len(lanes)
        self.staging = staging
        if staging is not None and self.count:
            self.staged = staging.size // self.count
        self.spin_ns = <uint64_t> (spin_s * 1e9)
        self.on_drop = on_drop
        self.served = <served_t *> calloc(self.count + 1, sizeof(served_t))
        if self.served == NULL:
            raise MemoryError("no memory for the lanes")
        for i in range(self.count):
            lane = <Lane?> lanes[i]
            lane.c.user = &self.served[i]
            self.served[i].lane = lane.c
            self.served[i].number = i
            self.served[i].low = <uint64_t> -1
            if self.staged:
                self.served[i].staging = staging.base + i * self.staged

    def __dealloc__(self):
        free(self.served)

    cdef int note(self, served_t *served, uint64_t offset, uint64_t length) noexcept nogil:
        """Start the write-back of a changed range, or remember it for the next answer."""
        if self.spans:
            served.low = min(served.low, offset)
            served.high = max(served.high, offset + length)
            return 0
        if served.deep:
            return self.region.c_deep(offset, length)
        return self.region.c_flush(offset, length)

    cdef int settle(self, served_t *served) noexcept nogil:
        """Make everything noted on this lane durable; 0 on success."""
        cdef uint64_t low = served.low, high = served.high
        cdef bint deep = served.deep
        served.low = <uint64_t> -1
        served.high = 0
        served.deep = False
        self.flushes += 1
        if not self.spans:
            return self.region.c_drain()
        if low >= high:
            return self.region.c_drain()
        if deep:
            return self.region.c_deep(low, high - low)
        return self.region.c_persist(low, high - low)

    cdef int send_reply(self, served_t *served) noexcept nogil:
        """Send the pending answer; it stays pending while there is no room."""
        cdef lane_t *lane = served.lane
        cdef iovec vector
        cdef int rc
        vector.iov_base = lane.send_area + (served.sequence % lane.send_slots) * lane.send_size
        vector.iov_len = served.reply_size
        memcpy(vector.iov_base, served.reply, served.reply_size)
        rc = lane.ops.send(lane, &vector, &lane.send_handle, 1,
                           POST_INLINE if lane.inline_limit >= served.reply_size else 0)
        if rc == LANE_AGAIN:
            return 0
        served.owes_reply = False
        return rc

    cdef int take(self, served_t *served, uint32_t slot, uint64_t length) noexcept nogil:
        """Handle one received message, release its buffer, answer."""
        cdef lane_t *lane = served.lane
        cdef int reason
        self.messages += 1
        reason = self.handler(self, served, message_at(lane, slot), length)
        if reason == DROP_NONE and lane.ops.receive(lane, slot) < 0:
            reason = DROP_LOST
        if served.owes_reply and self.send_reply(served) < 0 and reason == DROP_NONE:
            reason = DROP_LOST
        return reason

    cdef void drop(self, served_t *served, uint32_t reason, int detail) noexcept nogil:
        """Give a lane up and tell the session why."""
        if served.dropped:
            return
        served.dropped = reason
        with gil:
            self.on_drop(served.number, DROP_REASONS[reason], detail)

    cdef void serve(self, queue_t *queue, uint32_t alive) noexcept nogil:
        """Serve every lane of `queue` until stopped or none is left."""
        cdef completion_t completions[BATCH]
        cdef served_t *served
        cdef uint64_t last = now(), moved = 0
        cdef politeness_t manners = politeness()
        cdef uint32_t idle = 0, i, reason
        cdef int n, k
        cdef bint owing = False, garbled
        while not self.stopping and alive:
            n = queue.ops.poll(queue, completions, BATCH)
            if n > 0:
                idle = 0
                last = 0
                for k in range(n):
                    served = <served_t *> completions[k].lane.user
                    if served.dropped:
                        continue
                    if completions[k].kind == COMPLETED_RECEIVE:
                        reason = self.take(served, completions[k].slot, completions[k].length)
                    elif completions[k].kind == COMPLETED_FAULT:
                        garbled = served.lane.state == LANE_GARBLED
                        reason = DROP_GARBLED if garbled else DROP_LOST
                    else:
                        continue
                    if reason:
                        alive -= 1
                        self.drop(served, reason, served.medium_error)
                    elif served.owes_reply:
                        owing = True
                if self.spin_ns or not queue.calls or not alive:
                    continue
            if owing:
                owing = False
                for i in range(self.count):
                    served = &self.served[i]
                    if served.lane.queue == queue and served.owes_reply and not served.dropped:
                        if self.send_reply(served) < 0:
                            alive -= 1
                            self.drop(served, DROP_LOST, 0)
                        elif served.owes_reply:
                            owing = True
            idle += 1
            if queue.spins and self.spin_ns:
                if after_empty_poll(&manners, queue, idle) and queue.neighbour:
                    keep_apart(queue.neighbour, &moved)
                if idle % LOOK_AT_CLOCK:
                    continue
            if last == 0:
                last = now()
            if not queue.spins or now() - last >= self.spin_ns:
                if queue.ops.wait(queue, 1 if owing else SLICE_MS) > 0:
                    last = 0

    def run(self, uint32_t thread):
        """Serve the lanes of one queue; returns when stopped or when all are gone."""
        cdef Lane first
        cdef Lane lane
        cdef uint32_t alive = 0
        cdef queue_t *queue = NULL
        mine = [lane for i, lane in enumerate(self.lanes) if i % len(self.queues) == thread]
        if not mine:
            return
        first = mine[0]
        queue = first.c.queue
        alive = <uint32_t> len(mine)
        with nogil:
            self.serve(queue, alive)

    def stop(self):
        """Make every `run` return; they must be joined before lanes are closed."""
        cdef Lane lane
        self.stopping = 1
        for lane in self.lanes:
            lane.c.ops.wake(lane.c.queue)

    @property
    def dropped(self):
        """The lanes given up, each with the reason."""
        cdef uint32_t i
        return {i: DROP_REASONS[self.served[i].dropped]
                for i in range(self.count) if self.served[i].dropped}
