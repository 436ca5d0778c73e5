"""Polling a verbs queue, sleeping on it, waking the sleeper; faults of its lanes."""

from libc.errno cimport (
    EACCES, ECONNRESET, EFAULT, EIO, EMSGSIZE, ENOBUFS, ENODEV, EREMOTEIO, ETIMEDOUT,
)
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memmove
from posix cimport unistd

from rpmem.fabric.shared.descriptors cimport c_poll, pollfd, readable, watched
from rpmem.fabric.verbs.ibv cimport *
from rpmem.fabric.verbs.rdmacm cimport *
from rpmem.fabric.verbs.structs cimport (
    BATCH, KIND_SHIFT, SLOT_SHIFT, verbs_lane_t, verbs_queue_t,
)
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_RECEIVE, COMPLETED_SEND, LANE_LOST, LANE_UP, completion_t, queue_t,
)

bind_libibverbs()
bind_librdmacm()

cdef enum:
    LOOK_ASIDE = 4096            # polls between two checks of the connections' events


# --- faults ----------------------------------------------------------------------------------

cdef void lane_lost(verbs_lane_t *own, int detail) noexcept nogil:
    """The lane's connection is gone; polling its queue reports that once."""
    if own.base.state == LANE_UP:
        own.base.state = LANE_LOST
        own.base.detail = detail
    if not own.reported and own.base.queue != NULL:
        (<verbs_queue_t *> own.base.queue).trouble = True


cdef int errno_of(int status) noexcept nogil:
    """The errno for a work completion's status."""
    if status == IBV_WC_WR_FLUSH_ERR:
        return ECONNRESET
    if status == IBV_WC_RETRY_EXC_ERR:
        return ETIMEDOUT
    if status == IBV_WC_RNR_RETRY_EXC_ERR:
        return ENOBUFS
    if status == IBV_WC_REM_ACCESS_ERR:
        return EACCES
    if status == IBV_WC_LOC_PROT_ERR:
        return EFAULT
    if status == IBV_WC_LOC_LEN_ERR:
        return EMSGSIZE
    if status == IBV_WC_REM_INV_REQ_ERR or status == IBV_WC_REM_OP_ERR:
        return EREMOTEIO
    return EIO


# --- completions -----------------------------------------------------------------------------

cdef int report(verbs_lane_t *own, completion_t *out) noexcept nogil:
    """Report that a lane is lost, once."""
    if own.reported:
        return 0
    own.reported = True
    out.lane = &own.base
    out.kind = COMPLETED_FAULT
    out.slot = 0
    out.length = 0
    return 1


cdef int take(verbs_queue_t *queue, const ibv_wc *entry, completion_t *out) noexcept nogil:
    """Process one work completion; 1 if the caller of poll needs it."""
    cdef uint64_t slot = entry.wr_id >> SLOT_SHIFT
    cdef uint32_t kind = <uint32_t> (entry.wr_id >> KIND_SHIFT) & 0xff
    cdef uint32_t number = <uint32_t> entry.wr_id
    cdef verbs_lane_t *own
    if slot >= queue.slots or queue.lanes[slot] == NULL:
        return 0
    own = queue.lanes[slot]
    if entry.status != IBV_WC_SUCCESS:
        lane_lost(own, errno_of(entry.status))
        return report(own, out)
    if kind != COMPLETED_RECEIVE:
        own.retired = number
        if kind == COMPLETED_SEND:
            return 0
    out.lane = &own.base
    out.kind = kind
    out.slot = number
    out.length = entry.byte_len
    return 1


cdef void hear(verbs_queue_t *queue) noexcept nogil:
    """Take the connections' events, some of which mean that a lane is lost."""
    cdef rdma_cm_event *event = NULL
    cdef verbs_lane_t *own
    cdef int kind
    while rdma_get_cm_event(queue.events, &event) == 0:
        own = <verbs_lane_t *> event.id.context
        kind = event.event
        rdma_ack_cm_event(event)
        if own == NULL or own.base.queue != &queue.base:
            continue
        if kind == RDMA_CM_EVENT_DEVICE_REMOVAL:
            lane_lost(own, ENODEV)
        elif kind != RDMA_CM_EVENT_ESTABLISHED and kind != RDMA_CM_EVENT_ADDR_CHANGE:
            lane_lost(own, ECONNRESET)


cdef void look_aside(verbs_queue_t *queue) noexcept nogil:
    """Check whether a connection has ended, which the queue itself would not show."""
    if readable(queue.events.fd, 0):
        hear(queue)


cdef int report_all(verbs_queue_t *queue, completion_t *out, int room) noexcept nogil:
    """Report lanes that were lost without a work completion to show it."""
    cdef uint32_t slot
    cdef int used = 0
    queue.trouble = False
    for slot in range(queue.slots):
        if queue.lanes[slot] == NULL or queue.lanes[slot].base.state == LANE_UP:
            continue
        if used == room:
            queue.trouble = True
            break
        used += report(queue.lanes[slot], &out[used])
    return used


cdef int verbs_poll(queue_t *base, completion_t *out, int room) noexcept nogil:
    cdef verbs_queue_t *queue = <verbs_queue_t *> base
    cdef ibv_wc entries[BATCH]
    cdef ibv_wc *source = entries
    cdef int used = 0, i, n
    room = min(room, <int> BATCH)
    if queue.stashed:
        n = min(room, queue.stashed)
        memcpy(entries, queue.stash, n * sizeof(ibv_wc))
        queue.stashed -= n
        memmove(queue.stash, &queue.stash[n], queue.stashed * sizeof(ibv_wc))
    else:
        n = ibv_poll_cq(queue.cq, room, entries)
        if n < 0:
            return LANE_LOST
    for i in range(n):
        used += take(queue, &source[i], &out[used])
    if n == 0:
        queue.polls += 1
        if queue.polls % LOOK_ASIDE == 0:
            look_aside(queue)
        # Only now: completions from before the end still count.
        if queue.trouble:
            used = report_all(queue, out, room)
    return used


cdef int verbs_wait(queue_t *base, int milliseconds) noexcept nogil:
    cdef verbs_queue_t *queue = <verbs_queue_t *> base
    cdef pollfd descriptors[3]
    cdef ibv_cq *rung = NULL
    cdef void *user = NULL
    cdef uint64_t count = 0
    cdef int n
    if queue.stashed or queue.trouble:
        return 1
    # Completions that arrive before the queue is armed do not ring: arm it, then poll once more.
    if ibv_req_notify_cq(queue.cq, 0):
        return 1
    n = ibv_poll_cq(queue.cq, BATCH, queue.stash)
    if n != 0:
        queue.stashed = max(n, 0)
        return 1
    descriptors[0] = watched(queue.channel.fd)
    descriptors[1] = watched(queue.events.fd)
    descriptors[2] = watched(queue.bell)
    if c_poll(descriptors, 3, milliseconds) <= 0:
        return 0
    if descriptors[0].revents and ibv_get_cq_event(queue.channel, &rung, &user) == 0:
        ibv_ack_cq_events(rung, 1)
    if descriptors[1].revents:
        hear(queue)
    if descriptors[2].revents:
        # Several rings are read as one.
        unistd.read(queue.bell, &count, sizeof(count))
    return 1


cdef void verbs_wake(queue_t *base) noexcept nogil:
    cdef uint64_t one = 1
    unistd.write((<verbs_queue_t *> base).bell, &one, sizeof(one))
