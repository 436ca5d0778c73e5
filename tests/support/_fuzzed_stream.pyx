# cython: language_level=3
"""Any bytes at all for a side of a stream lane, before and after its handshake.

A run of an input (`feed`) is judged by itself: frames must have done what a second reading of them,
`told`, says, and nothing around the memory in reach may have changed. Compiled for the
coverage-guided run (`tests.fuzz`), the sanitizers judge as well, and libFuzzer makes the inputs.
Built by tests.support.compiled; never part of the package.
"""

from libc.errno cimport EPIPE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort, calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from rpmem.fabric.stream.handshake cimport Handshake
from rpmem.fabric.stream.ops cimport STREAM_OPS
from rpmem.fabric.stream.structs cimport INBOX, INLINE, stream_lane_t, stream_queue_t
from rpmem.fabric.stream.transport cimport transport_t
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN, LANE_GARBLED,
    LANE_LOST, LANE_UP, POST_SIGNAL, completion_t, iovec, message_at,
)

import socket
import sys

from rpmem.fabric.stream.keyring import Keyring

cdef extern from "<dlfcn.h>" nogil:
    void *RTLD_DEFAULT
    void *dlsym(void *library, const char *name)

cdef enum:
    SLOTS = 4
    SLOT = 256                   # bytes of a message at most
    REACH = 4096                 # bytes that the other side may WRITE and READ
    LIMIT = 2048                 # of one WRITE or READ
    GUARD = 64                   # bytes around each of these that nothing may touch
    UNTOUCHED = 0xA5
    HEADER = 16
    HOW = 4

#: Bytes of every input that say how it is fed; the rest is what arrives.
PRELUDE = HOW
KINDS = ("target", "initiator", "hello", "answer", "secret-target", "secret-initiator")
NONCE = bytes(range(16))
TOKENS = [bytes([index]) * 32 for index in (1, 2)]

ctypedef struct result_t:
    int state
    uint32_t received, read, written

ctypedef struct area_t:          # memory between two guards
    char *all
    char *memory
    size_t size

ctypedef struct world_t:
    stream_lane_t lane
    stream_queue_t queue
    stream_lane_t *lanes[1]
    area_t exposed, messages, wanted
    const uint8_t *data
    size_t size, at
    uint32_t chance
    bint hesitates               # the socket takes and gives in small pieces
    uint64_t sum                 # of what was sent: every byte has been looked at

ctypedef int (*fuzz_t)(const uint8_t *data, size_t size)
ctypedef int (*driver_t)(int *count, char ***words, fuzz_t fuzz)

# Bytes of guards: none where a sanitizer watches the ends of what is allocated.
cdef size_t guard = 0 if dlsym(RTLD_DEFAULT, "__asan_init") != NULL else GUARD
cdef uint32_t more_reach = 0     # a fault planted on purpose: bytes in reach that are not there
cdef int chosen = 0


# --- what the lane stands on ------------------------------------------------------------

cdef uint32_t drawn(world_t *world, uint32_t most) noexcept nogil:
    world.chance = world.chance * 1103515245u + 12345u
    return (world.chance >> 16) % most


cdef ssize_t fed_receive(transport_t *transport, const iovec *vector, size_t count) noexcept nogil:
    cdef world_t *world = <world_t *> transport.state
    cdef size_t room = world.size - world.at
    cdef size_t total = 0
    cdef size_t i
    cdef size_t n
    if room == 0:
        return -EPIPE
    if world.hesitates:
        room = min(room, <size_t> drawn(world, 40))
    for i in range(count):
        n = min(vector[i].iov_len, room - total)
        memcpy(vector[i].iov_base, world.data + world.at, n)
        world.at += n
        total += n
    return total


cdef ssize_t fed_send(transport_t *transport, const iovec *vector, size_t count) noexcept nogil:
    cdef world_t *world = <world_t *> transport.state
    cdef size_t total = 0
    cdef size_t i
    cdef size_t k
    cdef size_t room = drawn(world, 60) if world.hesitates else <size_t> -1
    for i in range(count):
        for k in range(min(vector[i].iov_len, room - total)):
            world.sum += (<uint8_t *> vector[i].iov_base)[k]
            total += 1
    return total


cdef bint fed_pending(const transport_t *transport) noexcept nogil:
    return False


cdef void fed_shut(transport_t *transport) noexcept nogil:
    pass


cdef area_t allocated(size_t size) noexcept nogil:
    cdef area_t area
    area.size = size
    area.all = <char *> malloc(size + 2 * guard)
    area.memory = area.all + guard
    memset(area.all, UNTOUCHED, size + 2 * guard)
    memset(area.memory, 0, size)
    return area


cdef bint intact(const area_t *area) noexcept nogil:
    cdef size_t i
    for i in range(guard):
        if (<uint8_t *> area.all)[i] != UNTOUCHED:
            return False
        if (<uint8_t *> area.memory)[area.size + i] != UNTOUCHED:
            return False
    return True


cdef world_t *new_world(bint target) noexcept nogil:
    cdef world_t *world = <world_t *> calloc(1, sizeof(world_t))
    cdef stream_lane_t *lane = &world.lane
    world.exposed = allocated(REACH)
    world.messages = allocated(SLOTS * SLOT)
    world.wanted = allocated(REACH)
    lane.base.ops = &STREAM_OPS
    lane.base.queue = &world.queue.base
    lane.base.operation_limit = LIMIT
    lane.base.receive_area = world.messages.memory
    lane.base.receive_slots = SLOTS
    lane.base.receive_size = SLOT
    lane.inbox = <char *> malloc(INBOX)
    lane.spill = <char *> malloc(INLINE)
    lane.posted = <uint32_t *> calloc(SLOTS, sizeof(uint32_t))
    lane.base.messages = <const char **> calloc(SLOTS, sizeof(char *))
    if target:
        lane.exposed = world.exposed.memory
        lane.exposed_size = REACH + more_reach
    lane.transport.send = fed_send
    lane.transport.receive = fed_receive
    lane.transport.pending = fed_pending
    lane.transport.shut = fed_shut
    lane.transport.state = world
    lane.transport.descriptor = 0x7fffffff
    world.queue.epoll = -1       # there is one lane, and nobody sleeps
    world.queue.lanes = world.lanes
    world.queue.count = 1
    world.lanes[0] = lane
    return world


cdef void free_world(world_t *world) noexcept nogil:
    free(world.exposed.all)
    free(world.messages.all)
    free(world.wanted.all)
    free(world.lane.inbox)
    free(world.lane.spill)
    free(world.lane.posted)
    free(<void *> world.lane.base.messages)
    free(world)


# --- what frames say, read once more ----------------------------------------------------

cdef uint64_t number(const uint8_t *data, int size) noexcept nogil:
    cdef uint64_t found = 0
    cdef int i
    for i in range(size):
        found |= <uint64_t> data[i] << 8 * i
    return found


cdef uint32_t wanted_length(uint8_t shape, uint32_t index) noexcept nogil:
    """Bytes of the READ of that number that an initiator has asked for."""
    return (shape * (index + 1) * 7) % 300


cdef result_t told(const uint8_t *data, size_t size, bint target, uint32_t reads, uint32_t writes,
                   uint8_t shape, char *exposed) noexcept nogil:
    """What the frames must lead to; `exposed` becomes what the memory in reach must be."""
    cdef result_t result
    cdef uint64_t length
    cdef uint64_t offset
    cdef size_t at = 0
    cdef size_t body
    cdef size_t stored
    cdef int kind
    cdef int flags
    memset(&result, 0, sizeof(result))
    result.state = LANE_LOST
    while size - at >= HEADER:
        length = number(data + at, 4)
        kind = data[at + 4]
        flags = data[at + 5]
        offset = number(data + at + 8, 8)
        result.state = LANE_GARBLED
        if flags > 3 or (flags and kind != 2) or (kind != 1 and number(data + at + 6, 2)):
            return result
        at += HEADER
        body = min(length, size - at)
        if kind == 1:
            if offset or length > SLOT:
                return result
        elif kind == 2 or kind == 3:
            if not target or length > LIMIT or offset > REACH or length > REACH - offset:
                return result
            if kind == 2:
                stored = body
                if flags & 2 and body < length:
                    # Of an aligned word, all or nothing.
                    stored -= min(body, (offset + body) & 7)
                memcpy(exposed + offset, data + at, stored)
            else:
                body = length = 0
        elif kind == 4:
            if offset or result.read == reads or length != wanted_length(shape, result.read):
                return result
        elif kind != 5 or offset or length or result.written == writes:
            return result
        result.state = LANE_LOST
        if body < length:
            return result
        at += body
        result.received += kind == 1
        result.read += kind == 4
        result.written += kind == 5
    return result


# --- a run --------------------------------------------------------------------------

cdef uint32_t posted_reads(world_t *world, uint32_t count, uint8_t shape) noexcept nogil:
    """Ask for so many READs, each into its place; the number that were taken."""
    cdef uint32_t index
    cdef uint32_t place = 0
    cdef uint32_t length
    for index in range(count):
        length = wanted_length(shape, index)
        if STREAM_OPS.read(&world.lane.base, world.wanted.memory + place, NULL, 0, length,
                           POST_SIGNAL):
            return index
        place += length
    return count


cdef uint32_t posted_writes(world_t *world, uint32_t count) noexcept nogil:
    cdef uint32_t index
    for index in range(count):
        if STREAM_OPS.write(&world.lane.base, world.wanted.memory, NULL, 0, 8, POST_SIGNAL):
            return index
    return count


cdef result_t polled(world_t *world, size_t most) noexcept nogil:
    """Poll until the lane has ended; its state stays LANE_UP if it does not."""
    cdef completion_t completions[3]
    cdef result_t result
    cdef const char *message
    cdef uint32_t slot
    cdef uint64_t k
    cdef size_t turn
    cdef int n
    cdef int i
    memset(&result, 0, sizeof(result))
    for slot in range(SLOTS):
        STREAM_OPS.receive(&world.lane.base, slot)
    for turn in range(most):
        n = STREAM_OPS.poll(&world.queue.base, completions, 1 + <int> drawn(world, 3))
        for i in range(n):
            if completions[i].kind == COMPLETED_RECEIVE:
                result.received += 1
                slot = completions[i].slot
                if slot >= SLOTS or completions[i].length > SLOT:
                    return result
                message = message_at(&world.lane.base, slot)
                for k in range(completions[i].length):
                    world.sum += <uint8_t> message[k]
                STREAM_OPS.receive(&world.lane.base, slot)
            result.read += completions[i].kind == COMPLETED_READ
            result.written += completions[i].kind == COMPLETED_WRITE
            if completions[i].kind == COMPLETED_FAULT:
                result.state = world.lane.base.state
                return result
    return result


cdef const char *frames(const uint8_t *data, size_t size, bint target) noexcept nogil:
    """Feed frames to a lane of this side; what is wrong about what it did, or NULL."""
    cdef world_t *world = new_world(target)
    cdef char *exposed = <char *> calloc(1, REACH)
    cdef const char *wrong = NULL
    cdef result_t found
    cdef result_t due
    cdef uint32_t reads = 0
    cdef uint32_t writes = 0
    if not target:
        reads = posted_reads(world, data[1] & 7, data[2])
        writes = posted_writes(world, data[1] >> 3 & 7)
    world.data = data + HOW
    world.size = size - HOW
    world.chance = data[3]
    world.hesitates = data[0] & 1
    found = polled(world, 100 + 4 * size)
    due = told(world.data, world.size, target, reads, writes, data[2], exposed)
    if found.state == LANE_UP:
        wrong = "the lane does not end"
    elif found.state != due.state:
        wrong = "the lane ended for another reason"
    elif (found.received != due.received or found.read != due.read
          or found.written != due.written):
        wrong = "other things were completed"
    elif memcmp(exposed, world.exposed.memory, REACH):
        wrong = "the memory in reach is not what was written"
    elif not (intact(&world.exposed) and intact(&world.messages) and intact(&world.wanted)):
        wrong = "memory out of reach has changed"
    free(exposed)
    free_world(world)
    return wrong


def _pair():
    made = socket.socketpair()
    for each in made:
        each.setblocking(False)
    return made


def _flight(bytes data, int lane):
    """Feed a handshake; what is wrong, or None."""
    here, there = _pair()
    with here, there:
        handshake = Handshake(here.fileno(), Keyring(NONCE, TOKENS), lane)
        half = len(data) * data[3] // 255 if data[0] & 1 else HOW
        try:
            for piece in (data[HOW:half], data[max(half, HOW):]):
                there.send(piece)
                if handshake.proceed():
                    return "a handshake was completed without the key"
        except OSError:
            pass
        return "a handshake was completed without the key" if handshake.done else None


def _secret(bytes data, bint target):
    """Feed an encrypted lane what a peer with the key sends, and what comes from one without."""
    cdef world_t *world = new_world(target)
    cdef Handshake ours
    cdef result_t found
    here, there = _pair()
    try:
        other = Handshake(there.fileno(), Keyring(NONCE, TOKENS), 0 if target else -1)
        ours = Handshake(here.fileno(), Keyring(NONCE, TOKENS), -1 if target else 0)
        while not (ours.done and other.done):
            other.proceed()
            ours.proceed()
        world.lane.transport = ours.transport()
        if not target:
            posted_reads(world, data[1] & 7, data[2])
            posted_writes(world, data[1] >> 3 & 7)
        rest = data[HOW:]
        while rest:
            # One byte says how many follow, and whether as they are.
            count = rest[0] & 0x7f
            piece = rest[1:1 + count]
            if rest[0] & 0x80:
                there.send(piece)
            elif piece:
                other.send(piece)
            rest = rest[1 + count:]
        there.shutdown(socket.SHUT_WR)
        found = polled(world, 100 + 4 * len(data))
        if found.state == LANE_UP:
            return "the lane does not end"
        if not (intact(&world.exposed) and intact(&world.messages) and intact(&world.wanted)):
            return "memory out of reach has changed"
        return None
    finally:
        here.close()
        there.close()
        free_world(world)


def feed(int kind, bytes data not None):
    """Run an input of the kind of this number; what is wrong, or None."""
    cdef const char *wrong
    data += bytes(max(HOW - len(data), 0))
    if kind < 2:
        wrong = frames(<const uint8_t *> <const char *> data, len(data), kind == 0)
        return None if wrong == NULL else (<bytes> wrong).decode()
    if kind < 4:
        return _flight(data, -1 if kind == 2 else 1)
    return _secret(data, kind == 4)


cdef int fuzz(const uint8_t *data, size_t size) noexcept:
    wrong = feed(chosen, (<const char *> data)[:size])
    if wrong is not None:
        print(f"{KINDS[chosen]}: {wrong}", file=sys.stderr, flush=True)
        abort()
    return 0


def drive(str kind, list words, bint planted):
    """Let libFuzzer make inputs until its options, behind its command, end that.

    `planted`: the lane is told that twice as many bytes are in reach as there are.
    """
    global chosen, more_reach
    cdef driver_t driver = <driver_t> dlsym(RTLD_DEFAULT, "LLVMFuzzerRunDriver")
    cdef char **arguments = <char **> calloc(len(words) + 1, sizeof(char *))
    cdef int count = len(words)
    cdef int index
    if driver == NULL:
        raise RuntimeError("there is no libFuzzer in this process")
    kept = [word.encode() for word in words]
    for index in range(count):
        arguments[index] = kept[index]
    chosen = KINDS.index(kind)
    more_reach = REACH if planted else 0
    return driver(&count, &arguments, fuzz)
