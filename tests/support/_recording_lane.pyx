# cython: language_level=3
"""A lane without a fabric: it records posts, has its own pool, and answers or not.

The target's side runs inside `poll`, in the same thread. Data of a WRITE or a message is in the
`pool` immediately; completions and answers come when `poll` is called, unless they are withheld.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from rpmem.wire.lane cimport (
    COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN, LANE_LOST, POST_SIGNAL, Lane,
    completion_t, fabric_ops_t, iovec, lane_t, queue_t,
)
from rpmem.wire.messages cimport (
    MESSAGE_REPLY, MESSAGE_UPDATE, REPLY_DONE, UPDATE_ANSWER, WRITTEN_SHIFT, descriptor_t,
    header_t, reply_t,
)
from rpmem.wire.pmdk_messages cimport (
    PMDK_MODE_MASK, PMDK_PERSIST_SEND, pmdk_reply_t, pmdk_request_t,
)

cdef enum:
    MOST = 4096
    WRITE = 0
    READ = 1
    SEND = 2
    FLUSH = 3
    WORD = 4
    SLOTS = 8
    SLOT_SIZE = 64

KINDS = ("write", "read", "send", "flush", "word")

ctypedef struct post_t:
    uint32_t kind
    uint64_t offset
    uint64_t length
    uint32_t flags
    uint32_t mode                # of a message: its flags, or PMDK's mode

ctypedef struct world_t:
    lane_t lane
    queue_t queue
    post_t posts[MOST]           # a ring: the lane's thread fills it, the test's empties it
    uint32_t posted
    uint32_t told
    uint32_t waiting[MOST]       # kinds of completions that are due
    uint32_t due
    uint32_t replies[MOST]       # sequence numbers that are to be answered
    uint32_t owed
    uint32_t free_slots[SLOTS]
    uint32_t slots
    uint32_t status              # of the answers
    uint32_t longer              # bytes an answer has more than it should
    uint32_t sent
    uint32_t gathered            # messages with data from outside of the send buffer
    bint withholds_posts
    bint withholds_answers
    bint only_writes             # there is no room for anything else
    bint pmdk
    char *pool
    uint64_t size
    uint64_t base                # PMDK's address of the pool


cdef inline world_t *of_lane(lane_t *lane) noexcept nogil:
    return <world_t *> lane.user


cdef int note(world_t *world, uint32_t kind, uint64_t offset, uint64_t length, uint32_t flags,
              uint32_t mode) noexcept nogil:
    cdef post_t *post
    if world.posted - world.told == MOST:
        world.lane.state = LANE_LOST
        return LANE_LOST
    post = &world.posts[world.posted % MOST]
    post.kind, post.offset, post.length = kind, offset, length
    post.flags, post.mode = flags, mode
    world.posted += 1
    return 0


cdef int completes(world_t *world, uint32_t kind, uint32_t flags) noexcept nogil:
    if flags & POST_SIGNAL:
        world.waiting[world.due] = kind
        world.due += 1
    return 0


cdef int lane_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                    uint64_t length, uint32_t flags) noexcept nogil:
    cdef world_t *world = of_lane(lane)
    if note(world, WRITE, offset, length, flags, 0) < 0 or offset + length > world.size:
        return LANE_LOST
    memcpy(world.pool + offset, source, length)
    return completes(world, COMPLETED_WRITE, flags)


cdef int lane_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                   uint64_t length, uint32_t flags) noexcept nogil:
    cdef world_t *world = of_lane(lane)
    if world.only_writes:
        return LANE_AGAIN
    if note(world, READ, offset, length, flags, 0) < 0 or offset + length > world.size:
        return LANE_LOST
    memcpy(destination, world.pool + offset, length)
    return completes(world, COMPLETED_READ, flags)


cdef int lane_flush(lane_t *lane, uint64_t offset, uint64_t length,
                    uint32_t flags) noexcept nogil:
    cdef world_t *world = of_lane(lane)
    if world.only_writes:
        return LANE_AGAIN
    if note(world, FLUSH, offset, length, flags, 0) < 0:
        return LANE_LOST
    return completes(world, COMPLETED_READ, flags)


cdef int lane_word(lane_t *lane, const void *source, uint64_t offset,
                   uint32_t flags) noexcept nogil:
    cdef world_t *world = of_lane(lane)
    if note(world, WORD, offset, 8, flags, 0) < 0:
        return LANE_LOST
    memcpy(world.pool + offset, source, 8)
    return completes(world, COMPLETED_WRITE, flags)


cdef int take_update(world_t *world, const char *message, uint64_t length) noexcept nogil:
    """Store what a native message carries; note every range of it."""
    cdef const header_t *header = <const header_t *> message
    cdef const descriptor_t *ranges = <const descriptor_t *> (message + sizeof(header_t))
    cdef const char *data = <const char *> (ranges + header.count)
    cdef uint64_t n
    cdef uint32_t i
    if header.kind != MESSAGE_UPDATE or header.sequence != world.sent:
        return LANE_LOST
    if header.count == 0:
        note(world, SEND, 0, 0, 0, header.flags)
    for i in range(header.count):
        n = ranges[i].length
        if n >> WRITTEN_SHIFT:
            n &= ~(<uint64_t> 1 << WRITTEN_SHIFT)
        else:
            memcpy(world.pool + ranges[i].offset, data, n)
            data += n
        note(world, SEND, ranges[i].offset, n, 0, header.flags)
    if data != message + length:
        return LANE_LOST
    if header.flags & UPDATE_ANSWER:
        world.replies[world.owed] = header.sequence
        world.owed += 1
    return 0


cdef int take_request(world_t *world, const char *message) noexcept nogil:
    """Store what a message of PMDK's carries."""
    cdef const pmdk_request_t *request = <const pmdk_request_t *> message
    cdef uint64_t offset = request.address - world.base
    cdef uint32_t mode = request.flags & PMDK_MODE_MASK
    if mode == PMDK_PERSIST_SEND:
        memcpy(world.pool + offset, message + sizeof(pmdk_request_t), request.size)
    note(world, SEND, offset, request.size, 0, mode)
    world.replies[world.owed] = world.sent
    world.owed += 1
    return 0


cdef int lane_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                   uint32_t flags) noexcept nogil:
    cdef world_t *world = of_lane(lane)
    cdef char message[1 << 16]
    cdef uint64_t length = 0
    cdef size_t i
    if world.only_writes:
        return LANE_AGAIN
    for i in range(count):
        if length + vector[i].iov_len > sizeof(message):
            return LANE_LOST
        memcpy(message + length, vector[i].iov_base, vector[i].iov_len)
        length += vector[i].iov_len
    world.sent += 1
    world.gathered += count > 1
    return take_request(world, message) if world.pmdk else take_update(world, message, length)


cdef int lane_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    cdef world_t *world = of_lane(lane)
    world.free_slots[world.slots] = slot
    world.slots += 1
    return 0


cdef uint64_t fill_answer(world_t *world, char *buffer, uint32_t sequence) noexcept nogil:
    cdef reply_t *reply = <reply_t *> buffer
    cdef pmdk_reply_t *short_reply = <pmdk_reply_t *> buffer
    memset(buffer, 0, SLOT_SIZE)
    if world.pmdk:
        short_reply.lane = world.lane.index
        return sizeof(pmdk_reply_t) + world.longer
    reply.kind = MESSAGE_REPLY
    reply.status = world.status
    reply.sequence = sequence
    reply.number = 5 if world.status != REPLY_DONE else 0
    return sizeof(reply_t) + world.longer


cdef int lane_poll(queue_t *queue, completion_t *out, int room) noexcept nogil:
    cdef world_t *world = <world_t *> (<char *> queue - <size_t> &(<world_t *> NULL).queue)
    cdef int n = 0
    cdef uint32_t i
    while n < room and world.due and not world.withholds_posts:
        world.due -= 1
        out[n].lane = &world.lane
        out[n].kind = world.waiting[world.due]
        n += 1
    while n < room and world.owed and world.slots and not world.withholds_answers:
        world.slots -= 1
        out[n].lane = &world.lane
        out[n].kind = COMPLETED_RECEIVE
        out[n].slot = world.free_slots[world.slots]
        out[n].length = fill_answer(
            world, world.lane.receive_area + out[n].slot * SLOT_SIZE, world.replies[0])
        world.owed -= 1
        for i in range(world.owed):
            world.replies[i] = world.replies[i + 1]
        n += 1
    return n


cdef int lane_wait(queue_t *queue, int milliseconds) noexcept nogil:
    return 0


cdef void lane_wake(queue_t *queue) noexcept nogil:
    pass


cdef fabric_ops_t OPS
OPS.write = lane_write
OPS.read = lane_read
OPS.send = lane_send
OPS.receive = lane_receive
OPS.poll = lane_poll
OPS.wait = lane_wait
OPS.wake = lane_wake
OPS.flush = lane_flush
OPS.write_word = lane_word


cdef class RecordingLane(Lane):
    """One lane to a pool of its own.

    Parameters
    ----------
    size : int
        Bytes of the pool.
    delivers : bool
        Whether it answers WRITEs itself.
    pmdk : bool
        Messages are PMDK's.
    base : int
        With PMDK's messages: the address of the pool.
    """

    cdef world_t *world

    def __cinit__(self, uint64_t size, *, bint delivers=False, bint pmdk=False, uint64_t base=0,
                  uint32_t message_size=65536, uint64_t operation_limit=1 << 30,
                  bint words=False):
        self.world = <world_t *> calloc(1, sizeof(world_t))
        self.c = &self.world.lane
        self.c.user = self.world
        self.c.ops = &OPS
        self.c.queue = &self.world.queue
        self.world.queue.ops = &OPS
        self.world.queue.spins = True
        self.world.pool = <char *> calloc(1, size)
        self.world.size = size
        self.world.pmdk = pmdk
        self.world.base = base
        self.c.remote_size = size
        self.c.delivers = delivers
        self.c.words = words
        self.c.operation_limit = operation_limit
        self.c.piece = operation_limit
        self.c.send_slots = SLOTS
        self.c.send_size = message_size
        self.c.send_area = <char *> calloc(SLOTS, message_size)
        self.c.receive_slots = SLOTS
        self.c.receive_size = SLOT_SIZE
        self.c.receive_area = <char *> calloc(SLOTS, SLOT_SIZE)
        self.c.scratch_size = 4096
        self.c.scratch = <char *> calloc(1, 4096)

    def __dealloc__(self):
        if self.world != NULL:
            free(self.world.pool)
            free(self.c.send_area)
            free(self.c.receive_area)
            free(self.c.scratch)
            free(self.world)

    def withhold(self, *, bint posts=False, bint answers=False, bint only_writes=False):
        """Keep completions of one-sided posts, or answers to messages, back; take only WRITEs."""
        self.world.only_writes = only_writes
        self.world.withholds_posts = posts
        self.world.withholds_answers = answers

    def refuse(self, uint32_t status):
        """Answer with this status from now on; 0: done."""
        self.world.status = status

    def lengthen(self, int32_t longer):
        """Answer with so many bytes too many from now on; with too few when it is negative."""
        self.world.longer = <uint32_t> longer

    @property
    def messages(self):
        """How many were sent, of any kind."""
        return self.world.sent

    @property
    def gathered(self):
        """How many of them took data from where it was, instead of a copy of it."""
        return self.world.gathered

    def volunteer(self):
        """Answer a message that was never sent, before any other answer."""
        cdef uint32_t i
        for i in range(self.world.owed, 0, -1):
            self.world.replies[i] = self.world.replies[i - 1]
        self.world.replies[0] = self.world.sent + 5
        self.world.owed += 1

    def read_pool(self, uint64_t offset, size_t length):
        """What the target has."""
        return self.world.pool[offset:offset + length]

    def posts(self):
        """What was posted since it was last asked: tuples of kind, offset, length, flags, mode."""
        cdef uint32_t posted = self.world.posted
        cdef const post_t *post
        out = []
        while self.world.told != posted:
            post = &self.world.posts[self.world.told % MOST]
            out.append((KINDS[post.kind], post.offset, post.length, post.flags, post.mode))
            self.world.told += 1
        return out
