# cython: language_level=3
"""A fabric as the core sees it: queues, lanes, and one table of functions.

A *lane* is one connection with its own send accounting; a *queue* is where its
completions arrive (one per lane on the initiator, one per service thread on the
target). Of a fabric, the core and the target's service call only the functions in ``fabric_ops_t``;
each fabric fills the table once.

All functions are ``noexcept nogil``. They return 0 or a count on success, ``LANE_AGAIN`` when there
is no room (poll the queue, then call again), and otherwise a fault (``LANE_LOST`` ...), which is
also stored in the lane.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cpdef enum:
    LANE_UP = 0
    LANE_AGAIN = -1          # no room now; poll and try again
    LANE_LOST = -2           # the connection is gone
    LANE_REFUSED = -3        # the other side reported an error (status and errno in the lane)
    LANE_GARBLED = -4        # the other side broke the protocol
    LANE_EXPIRED = -5        # the deadline passed
    LANE_ABORTED = -6        # the session was marked as failed from outside
    LANE_INTERRUPTED = -7    # a read was given up before its data came

cdef enum:
    COMPLETED_SEND = 1
    COMPLETED_RECEIVE = 2
    COMPLETED_WRITE = 3
    COMPLETED_READ = 4
    COMPLETED_FAULT = 5      # lane->state says which

cpdef enum:
    POST_SIGNAL = 1          # ask for a completion
    POST_COMMIT = 2          # complete only when the bytes are in the persistence domain
    POST_INLINE = 4          # the buffer may be reused when the call returns
    POST_MORE = 8            # another post follows immediately
    POST_DELIVERED = 16      # complete only when the bytes are in the target's memory
    POST_WORDS = 32          # store each aligned 8-byte word whole, if the lane has `words`


ctypedef struct completion_t:
    lane_t *lane
    uint32_t kind
    uint32_t slot            # the receive buffer, for COMPLETED_RECEIVE
    uint64_t length          # bytes received

ctypedef struct fabric_ops_t:
    # one-sided: `offset` is an offset into the target's pool
    int (*write)(lane_t *lane, const void *source, void *handle, uint64_t offset,
                 uint64_t length, uint32_t flags) noexcept nogil
    int (*read)(lane_t *lane, void *destination, void *handle, uint64_t offset,
                uint64_t length, uint32_t flags) noexcept nogil
    # two-sided; `handles` belong to the entries of `vector` (NULL: not registered)
    int (*send)(lane_t *lane, const iovec *vector, void **handles, size_t count,
                uint32_t flags) noexcept nogil
    int (*receive)(lane_t *lane, uint32_t slot) noexcept nogil
    # up to `room` completions, never blocks
    int (*poll)(queue_t *queue, completion_t *out, int room) noexcept nogil
    # sleep until there may be something to poll; 1, or 0 after `milliseconds`
    int (*wait)(queue_t *queue, int milliseconds) noexcept nogil
    # end the current wait, or the next one, from any thread
    void (*wake)(queue_t *queue) noexcept nogil
    # if the fabric `flushes`, else NULL: bytes written to this range become persistent; an aligned
    # 8-byte word is stored, whole or not at all, after all earlier posts
    int (*flush)(lane_t *lane, uint64_t offset, uint64_t length, uint32_t flags) noexcept nogil
    int (*write_word)(lane_t *lane, const void *source, uint64_t offset,
                      uint32_t flags) noexcept nogil

cdef enum:
    WATCH_RECEIVES = 1
    WATCH_POSTS = 2

ctypedef struct queue_t:
    const fabric_ops_t *ops
    uint32_t watch           # the events looked for at every poll; others now and then
    bint spins               # on this fabric, polling without blocking makes fast progress
    # every poll is a system call; sleeps end, too, where a post that had no room may be tried again
    bint calls
    uint32_t neighbour       # 1 + the processor that sent the last message, if known and of here

ctypedef struct lane_t:
    const fabric_ops_t *ops
    queue_t *queue
    int32_t state            # LANE_UP or the fault that ended it
    int32_t detail           # errno (or the fabric's own number) of the fault
    int32_t refusal          # LANE_REFUSED: the status that the other side answered with
    uint32_t index
    # the target's pool as this lane may address it
    uint64_t remote_size
    void *pool_handle         # registration of the local pool, NULL if none is needed
    bint needs_handles        # local memory must be registered to be posted
    bint delivers             # POST_DELIVERED is answered by the target itself, in order
    bint words                # a WRITE can store aligned 8-byte words whole
    # limits that were negotiated or reported by the fabric
    uint64_t operation_limit  # bytes per WRITE or READ
    uint64_t piece            # the size of pieces in which long ranges go fastest
    uint32_t inline_limit     # most bytes for POST_INLINE
    # message buffers, registered by the fabric if it needs that
    char *send_area
    void *send_handle
    uint32_t send_slots
    uint32_t send_size
    char *receive_area
    uint32_t receive_slots
    uint32_t receive_size
    const char **messages     # where those are that lie elsewhere, by slot; NULL: none does
    # registered by the fabric if it needs that: receives the data of read-after-write, and data on
    # its way to memory that is not registered
    char *scratch
    void *scratch_handle
    uint32_t scratch_size
    void *user                # the core's or the service's own data


cdef inline const char *message_at(const lane_t *lane, uint32_t slot) noexcept nogil:
    """A message, until its queue is polled or slept on, or its buffer posted again."""
    if lane.messages != NULL:
        return lane.messages[slot]
    return lane.receive_area + <size_t> slot * lane.receive_size


cdef class Lane:
    """A connected lane as a Python object; owns the struct that ``c`` points to."""
    cdef lane_t *c
    cpdef close(self)
