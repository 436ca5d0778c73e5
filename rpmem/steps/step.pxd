# cython: language_level=3
"""Durability steps: how a replica's bytes become durable, chosen once per session.

``step_t`` is the strategy; ``link_t`` is the initiator's side of one lane under it;
``operation_t`` is one call (persist, flush, drain, read) under way.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from rpmem.wire.lane cimport LANE_AGAIN, completion_t, lane_t


cdef enum:
    OPERATION_RELAXED = 1     # durability only: torn 8-byte words are allowed on a crash
    OPERATION_DEEP = 2
    OPERATION_FLUSH = 4       # start without waiting: a later drain waits
    OPERATION_DRAIN = 8       # wait for the earlier flushes
    OPERATION_HELD = 16       # on a lane that its caller holds

cdef enum:
    OPERATION_PENDING = 0
    OPERATION_DONE = 1

ctypedef struct range_t:
    uint64_t offset
    uint64_t length

ctypedef struct operation_t:
    const range_t *ranges
    size_t count
    uint32_t flags
    # progress
    uint32_t phase
    size_t index              # current range
    uint64_t done             # bytes of the range already posted
    uint32_t last_sequence    # the message whose reply ends the operation
    const char *source        # address of pool offset 0; NULL: that of the link's pool (`is_lent`)
    # replaces the step's own; used by READs
    int (*advance)(link_t *link, operation_t *operation) noexcept nogil
    char *destination
    void *handle
    # called before the first post, when nothing older of the ranges can arrive any more
    void (*prepare)(void *context) noexcept nogil
    void *context

cdef enum:
    MOST_DEFERRED = 64

# Limits of the ways in which data travels: the same on all lanes of a replica.
ctypedef struct limits_t:
    uint32_t message_size
    uint32_t window           # most unanswered messages
    uint32_t copy_limit       # a message's last range up to this size is copied, not gathered
    uint64_t put_limit        # relaxed data up to this size also travels inside a message,
    uint64_t put_most         # and so does data above this size
    uint64_t staging          # one-sided operations reach a buffer of this size; 0: the pool

ctypedef struct link_t:
    lane_t *lane
    const step_t *step
    const char *pool          # local address of pool offset 0
    uint64_t pool_size
    uint64_t remote_base      # the target's address of pool offset 0 (PMDK's messages name it)
    limits_t limits
    uint32_t sequence         # of the last message sent
    uint32_t answered         # of the last reply
    uint32_t asked            # of the last message that asked for a reply
    uint32_t outstanding      # signalled one-sided operations not yet completed
    range_t last_flushed      # one-sided steps: the range that a drain has to read or flush again
    # small flushes wait here for the drain, which sends them together
    range_t deferred[MOST_DEFERRED]
    uint32_t deferred_count
    uint64_t deferred_bytes
    operation_t backlog       # sends them earlier if there is no room for more
    bint undrained            # flushed or interrupted data was left behind on it
    range_t adrift            # unanswered WRITEs of an interrupted call

ctypedef struct step_t:
    const char *name
    # post as much as fits; OPERATION_DONE, OPERATION_PENDING or a fault
    int (*advance)(link_t *link, operation_t *operation) noexcept nogil
    # process one completion of this lane; 0 or a fault
    int (*complete)(link_t *link, const completion_t *completion) noexcept nogil


cdef inline bint is_lent(const link_t *link, const operation_t *operation) noexcept nogil:
    """Whether the bytes are not in the link's pool but in memory lent for this call.

    Such memory is not registered, and its owner uses it again even if the call was interrupted: so
    its bytes are copied into messages, and no post refers to it.
    """
    return operation.source != link.pool


cdef inline int pending_or(int rc) noexcept nogil:
    """A step's result after a failed post: PENDING to try again, or the fault."""
    return OPERATION_PENDING if rc == LANE_AGAIN else rc
