"""The calls of libfabric on behalf of the core: the table behind `fabric_ops_t`.

All of it is nogil and allocates nothing. See fi_msg(3), fi_rma(3), fi_cq(3).
"""

from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from rpmem.fabric.libfabric.fi cimport (
    FI_COMMIT_COMPLETE, FI_COMPLETION, FI_DELIVERY_COMPLETE, FI_EAVAIL, FI_ETRUNC, FI_INJECT,
    FI_MORE, fi_cq_err_entry, fi_cq_msg_entry, fi_cq_read, fi_cq_readerr, fi_cq_signal, fi_msg,
    fi_msg_rma, fi_readmsg, fi_recvmsg, fi_rma_iov, fi_sendmsg, fi_trywait, fi_writemsg, fid_cq,
    fid_t,
)
from rpmem.fabric.shared.descriptors cimport readable
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_RECEIVE, COMPLETED_SEND, LANE_AGAIN, LANE_GARBLED, LANE_LOST,
    LANE_UP, POST_COMMIT, POST_DELIVERED, POST_INLINE, POST_MORE, POST_SIGNAL, WATCH_POSTS,
    WATCH_RECEIVES, completion_t, iovec, lane_t, queue_t,
)

cdef extern from *:
    """
    #define rpmem_exchange(place, value) __atomic_exchange_n((place), (value), __ATOMIC_SEQ_CST)
    """
    int rpmem_exchange(int *place, int value) nogil

cdef enum:
    BATCH = 16
    PATIENCE = 24                # empty polls until queues other than the awaited one are checked
    LOOK_ASIDE = 4               # polls between two such checks
    LOOK_RARELY = 64             # the same, after this many polls
    LOOK_AT_ALL = 27             # makes the next poll such a check
    AT_ONCE = 4096               # larger posts need polls of their queue to make progress
    BYTES_PER_POLL = 512         # and progress at least this fast


cdef inline int lost(lane_t *lane, long rc) noexcept nogil:
    """A post was refused: no room, or the connection is gone."""
    if rc == -EAGAIN:
        return LANE_AGAIN
    lane.detail = <int> -rc
    lane.state = LANE_LOST
    return LANE_LOST


cdef inline int posted(fi_lane_t *own, uint64_t flags, long rc) noexcept nogil:
    """Update the counts of what is under way after a post."""
    if rc:
        return lost(&own.base, rc)
    if flags & FI_COMPLETION:
        own.unsignalled = 0
        own.unsignalled_bytes = 0
        own.signals += 1
    return 0


cdef inline uint64_t post_flags(fi_lane_t *own, uint32_t flags, uint64_t length) noexcept nogil:
    """Our flags as libfabric's; asks for a completion now and then, so that the queue drains."""
    cdef fi_queue_t *queue = <fi_queue_t *> own.base.queue
    cdef uint64_t out = 0
    if length > AT_ONCE:
        queue.moving += length // BYTES_PER_POLL
    own.unsignalled += 1
    own.unsignalled_bytes += length
    if (flags & POST_SIGNAL or own.unsignalled >= own.signal_every
            or own.unsignalled_bytes >= own.signal_bytes):
        out |= FI_COMPLETION
    if flags & POST_INLINE:
        out |= FI_INJECT
    if flags & POST_MORE:
        out |= FI_MORE
    if flags & POST_COMMIT:
        out |= FI_COMMIT_COMPLETE
    if flags & POST_DELIVERED:
        out |= FI_DELIVERY_COMPLETE
    return out


ctypedef struct one_sided_t:
    iovec local
    fi_rma_iov remote
    fi_msg_rma message
    void *handle


cdef inline void fill_one_sided(fi_lane_t *own, one_sided_t *post, void *local, void *handle,
                                uint64_t offset, uint64_t length) noexcept nogil:
    memset(&post.message, 0, sizeof(post.message))
    post.local.iov_base = local
    post.local.iov_len = length
    post.remote.addr = own.remote_address + offset
    post.remote.len = length
    post.remote.key = own.remote_key
    post.handle = handle
    post.message.msg_iov = &post.local
    post.message.desc = &post.handle
    post.message.iov_count = 1
    post.message.rma_iov = &post.remote
    post.message.rma_iov_count = 1


cdef inline int post_one_sided(fi_lane_t *own, void *local, void *handle, uint64_t offset,
                               uint64_t length, uint32_t flags, bint reads) noexcept nogil:
    cdef one_sided_t post
    cdef uint64_t out
    if own.signals >= own.window:
        return LANE_AGAIN
    fill_one_sided(own, &post, local, handle, offset, length)
    out = post_flags(own, flags, length)
    if reads:
        post.message.context = &own.read
        return posted(own, out, fi_readmsg(own.endpoint, &post.message, out))
    post.message.context = &own.wrote if flags & POST_SIGNAL else &own.sent
    return posted(own, out, fi_writemsg(own.endpoint, &post.message, out))


cdef int fabric_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                      uint64_t length, uint32_t flags) noexcept nogil:
    return post_one_sided(<fi_lane_t *> lane, <void *> source, handle, offset, length, flags, False)


cdef int fabric_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                     uint64_t length, uint32_t flags) noexcept nogil:
    return post_one_sided(<fi_lane_t *> lane, destination, handle, offset, length, flags, True)


cdef int fabric_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                     uint32_t flags) noexcept nogil:
    cdef fi_lane_t *own = <fi_lane_t *> lane
    cdef fi_msg message
    cdef uint64_t length = 0
    cdef size_t i
    cdef uint64_t out
    if own.signals >= own.window:
        return LANE_AGAIN
    memset(&message, 0, sizeof(message))
    message.msg_iov = vector
    message.desc = handles
    message.iov_count = count
    message.context = &own.sent
    for i in range(count):
        length += vector[i].iov_len
    out = post_flags(own, flags, length)
    return posted(own, out, fi_sendmsg(own.endpoint, &message, out))


cdef int fabric_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    cdef fi_lane_t *own = <fi_lane_t *> lane
    cdef iovec local
    cdef fi_msg message
    cdef long rc
    local.iov_base = lane.receive_area + <size_t> slot * lane.receive_size
    local.iov_len = lane.receive_size
    memset(&message, 0, sizeof(message))
    message.msg_iov = &local
    message.desc = &lane.send_handle
    message.iov_count = 1
    message.context = &own.received[slot]
    rc = fi_recvmsg(own.endpoint, &message, FI_COMPLETION)
    return 0 if rc == 0 else lost(lane, rc)


cdef int fabric_fault(fid_cq *cq, completion_t *out) noexcept nogil:
    """An operation ended in an error: find out and report its lane."""
    cdef fi_cq_err_entry error
    cdef context_t *context
    memset(&error, 0, sizeof(error))
    if fi_cq_readerr(cq, &error, 0) <= 0 or error.op_context == NULL:
        return 0
    context = <context_t *> error.op_context
    if context.lane.state == LANE_UP:
        # A message too long for its buffer breaks the protocol, not the connection.
        context.lane.state = LANE_GARBLED if error.err == FI_ETRUNC else LANE_LOST
        context.lane.detail = error.err
    out.lane = context.lane
    out.kind = COMPLETED_FAULT
    out.slot = context.slot
    out.length = 0
    return 1


cdef int poll_one(fid_cq *cq, completion_t *out, int room) noexcept nogil:
    """Completions of one libfabric queue."""
    cdef fi_cq_msg_entry entries[BATCH]
    cdef context_t *context
    cdef ssize_t n = fi_cq_read(cq, entries, room if room < BATCH else BATCH)
    cdef ssize_t i
    cdef int used = 0
    if n == -EAGAIN:
        return 0
    if n == -<ssize_t> FI_EAVAIL:
        return fabric_fault(cq, out)
    if n < 0:
        return LANE_LOST
    for i in range(n):
        context = <context_t *> entries[i].op_context
        if context == NULL:
            continue
        if context.kind != COMPLETED_RECEIVE:
            (<fi_lane_t *> context.lane).signals -= 1
        if context.kind == COMPLETED_SEND:
            continue
        out[used].lane = context.lane
        out[used].kind = context.kind
        out[used].slot = context.slot
        out[used].length = entries[i].len
        used += 1
    return used


cdef int fabric_poll(queue_t *base, completion_t *out, int room) noexcept nogil:
    # An empty poll of `tcp` is a system call, so poll the queue where the answer is expected.
    cdef fi_queue_t *queue = <fi_queue_t *> base
    cdef bint aside
    cdef int n = 0
    if queue.posts == queue.receives:
        return poll_one(queue.receives, out, room)
    queue.polls += 1
    # One-sided operations of the other side leave no completions here, so a target that serves only
    # those looks aside rarely: no answer is awaited from it.
    aside = queue.polls > PATIENCE and queue.polls % (
        LOOK_ASIDE if queue.polls < LOOK_RARELY else LOOK_RARELY) == 0
    if base.watch & WATCH_RECEIVES or aside:
        n = poll_one(queue.receives, out, room)
    if n == 0 and (base.watch & WATCH_POSTS or queue.moving or aside):
        if queue.moving:
            queue.moving -= 1
        n = poll_one(queue.posts, out, room)
    if n:
        queue.polls = 0
    return n


cdef int fabric_wait(queue_t *base, int milliseconds) noexcept nogil:
    cdef fi_queue_t *queue = <fi_queue_t *> base
    cdef fid_cq *first
    cdef fid_cq *last
    cdef fid_t watched[1]
    watched[0] = &queue.bell.fid
    # Polling one queue also processes what has arrived for the other. So after arming the bell
    # poll both, the awaited one last; otherwise the event that would ring it may already be
    # consumed.
    if base.watch & WATCH_POSTS:
        first, last = queue.receives, queue.posts
    else:
        first, last = queue.posts, queue.receives
    # This also clears the bell, no matter who rang it.
    if (fi_trywait(queue.fabric, watched, 1) or rpmem_exchange(&queue.woken, 0)
            or fi_cq_read(first, NULL, 0) != -EAGAIN or fi_cq_read(last, NULL, 0) != -EAGAIN):
        queue.polls = LOOK_AT_ALL
        return 1
    if not readable(queue.descriptor, milliseconds):
        return 0
    rpmem_exchange(&queue.woken, 0)
    queue.polls = LOOK_AT_ALL
    return 1


cdef void fabric_wake(queue_t *base) noexcept nogil:
    cdef fi_queue_t *queue = <fi_queue_t *> base
    rpmem_exchange(&queue.woken, 1)
    fi_cq_signal(queue.bell)


FI_OPS.write = fabric_write
FI_OPS.read = fabric_read
FI_OPS.send = fabric_send
FI_OPS.receive = fabric_receive
FI_OPS.poll = fabric_poll
FI_OPS.wait = fabric_wait
FI_OPS.wake = fabric_wake
