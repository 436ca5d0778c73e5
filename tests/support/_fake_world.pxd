# cython: language_level=3
"""The world of the fake fabric: lanes, what is on its way on them, targets, and what goes wrong.

See `_fake_traffic` for how things move and `_fake_fabric` for the objects of a fabric.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.memory.region cimport Region
from rpmem.wire.lane cimport fabric_ops_t, iovec, lane_t, queue_t
from rpmemd.service cimport Service

cdef enum:
    POSTS = 128                  # under way on a lane at most
    BACKS = 128
    SLOTS = 64
    LANES = 16
    TARGETS = 4
    REGISTERED = 64
    PAGE = 4096
    PENDING = 1024               # ranges that were flushed and not drained
    SMALL = 64
    POLL_NS = 500
    NOTICE_NS = 200000           # until a broken connection shows
    END_NS = 2000000             # until a session that was reported as failed has ended
    WRITE = 0
    READ = 1
    SEND = 2
    FLUSH = 3
    WORD = 4

cpdef enum:
    FAULT_NONE = 0
    FAULT_CUT = 1                # the connection of one lane breaks
    FAULT_CUT_ALL = 2            # those of all lanes to a target
    FAULT_SILENCE = 3            # nothing arrives any longer, and nobody says so
    FAULT_DROP_MESSAGE = 4       # one message is lost, those behind it are not
    FAULT_DROP_REPLY = 5         # one answer is lost, and the next ones are not
    FAULT_DOUBLE_MESSAGE = 6     # one message arrives twice
    FAULT_GARBLE = 7             # an answer is to a message that was never sent, or no answer
    FAULT_REFUSE = 8             # the medium refuses a flush
    FAULT_INTERRUPT = 9          # a signal comes
    FAULT_REFUSE_POST = 10       # a post is refused by the device
    FAULT_SILENT_INTERRUPT = 11  # a signal comes, and nothing else any longer
    FAULTS = 12

ctypedef struct memory_t:
    const char *base
    uint64_t length
    bint valid

ctypedef struct post_t:
    uint32_t kind
    uint32_t flags
    uint64_t at                  # when it arrives; `HELD`: another one is to follow first
    uint64_t offset
    uint64_t length
    uint32_t count
    iovec pieces[2]              # where its bytes are, or where a READ's go
    void *handles[2]
    char *copy                   # of what may change; owned

ctypedef struct back_t:
    uint64_t at
    uint32_t kind
    uint64_t length
    const char *place            # the answer, where it was not copied
    char copy[SMALL]
    bint again                   # comes a second time

ctypedef struct ring_t:
    back_t items[BACKS]
    uint32_t first
    uint32_t count
    uint64_t last_at

ctypedef struct end_t:
    lane_t base                  # first: a lane is its end
    conn_t *conn
    bint passive
    uint32_t slots[SLOTS]        # receive buffers that are free
    uint32_t first
    uint32_t count
    bint told                    # that the connection is broken

ctypedef struct conn_t:
    world_t *world
    target_t *target
    end_t *here
    end_t *there
    char *reach                  # what one-sided operations reach
    uint64_t reach_size
    post_t posts[POSTS]
    uint32_t first
    uint32_t count
    uint64_t last_at
    ring_t replies
    ring_t dones
    uint32_t arrived_slots[SLOTS]
    uint64_t arrived_sizes[SLOTS]
    uint32_t arrived_first
    uint32_t arrived
    bint broken
    uint64_t notice_at

ctypedef struct target_t:
    world_t *world
    char *memory
    char *image
    char *flushed                # content at the time of a flush that is not drained
    uint64_t size
    uint64_t low[PENDING]
    uint64_t lengths[PENDING]
    uint32_t pending
    bint reaches_domain          # what a one-sided operation stored is durable
    bint forgets                 # one-sided flushes and commits do nothing: a broken device
    bint silent
    uint64_t serve_at
    uint64_t end_at
    uint32_t faulty              # bits: faults that it had
    uint32_t refuses
    void *service

ctypedef struct world_t:
    uint64_t clock_ns
    uint64_t random
    conn_t *conns[LANES]
    uint32_t conn_count
    target_t *targets[TARGETS]
    uint32_t target_count
    memory_t memories[REGISTERED]
    uint32_t memory_count
    uint64_t delay_ns            # the longest
    uint32_t depth               # posts that a lane may have under way
    uint32_t again_in            # one post of so many finds no room; 0: none
    bint again                   # a post was told to try again
    uint32_t double_in           # one answer of so many comes twice; 0: none
    bint doubles_posts           # and completions of posts too, which no fabric may do
    bint early                   # a plain WRITE completes before it has arrived
    bint holds                   # posts wait for the last of several
    bint needs_handles
    bint fails_polls             # a broken connection shows as a failed poll, not a completion
    uint32_t fault
    uint32_t fault_at
    uint32_t fault_target
    uint32_t events
    bint armed                   # the fault waits for something that it can happen to
    uint32_t posted
    const char *complaint

ctypedef struct fake_queue_t:
    queue_t base                 # first: a queue is its base
    world_t *world
    target_t *target             # whose service polls it; NULL: the initiator's


cdef inline uint32_t draw(world_t *world, uint32_t below) noexcept nogil:
    """A number below `below`."""
    world.random ^= world.random << 13
    world.random ^= world.random >> 7
    world.random ^= world.random << 17
    return <uint32_t> (world.random >> 20) % below


cdef inline void complain(world_t *world, const char *what) noexcept nogil:
    if world.complaint == NULL:
        world.complaint = what


# Something that a fault has waited for: take note of it.
cdef void note_fault(target_t *target, uint32_t fault) noexcept nogil
# Break the connection of a lane, or those of all lanes to a target.
cdef void break_conn(conn_t *conn) noexcept nogil
cdef void break_all(target_t *target) noexcept nogil
# Count what happens; now and then it is time for the fault.
cdef void event(conn_t *conn) noexcept nogil
# Whether this is what the fault has waited for.
cdef bint happens(conn_t *conn, uint32_t fault) noexcept nogil


cdef class Target:
    """Memory of a target, with an image of what is durable of it."""
    cdef target_t c
    cdef readonly World world
    cdef readonly Region region
    cdef Service service


cdef class World:
    """Where fabrics, lanes and targets are, and what goes wrong there."""
    cdef world_t c
    cdef readonly list targets
    cdef readonly list listeners
    cdef readonly bint pins
    cdef readonly bint delivers
    cdef readonly uint32_t inline_limit
    cdef readonly uint64_t operation_limit
    cdef public object admit         # called where lanes are awaited: has targets accept them
    cdef object earlier
    cdef uint64_t (*earlier_clock)() noexcept nogil
