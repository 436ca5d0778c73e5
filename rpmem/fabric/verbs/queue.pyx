"""Posting, polling, sleeping and waking: the functions of a verbs lane and its queue.

Numbers in work request ids: the lane's slot in its queue (16 bits), what kind of completion
it is (8 bits), and the number of the work request, or of the receive buffer (32 bits).
"""

cimport cython
from libc.errno cimport (
    EACCES, ECONNRESET, EFAULT, EINVAL, EIO, EMSGSIZE, ENOBUFS, ENODEV, EREMOTEIO, ETIMEDOUT,
)
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl
from posix cimport unistd

from rpmem.base.fork cimport is_copy
from rpmem.fabric.verbs.ibv cimport *
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_SEND, COMPLETED_WRITE,
    LANE_AGAIN, LANE_LOST, LANE_UP, POST_MORE, POST_SIGNAL, completion_t, fabric_ops_t, iovec,
    lane_t, queue_t,
)
from rpmem.fabric.verbs.rdmacm cimport *
from rpmem.fabric.verbs.memory cimport Domain, must
from rpmem.errors import FabricFailure

cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *descriptors, unsigned long count, int timeout)

cdef extern from "<sys/eventfd.h>" nogil:
    enum: EFD_NONBLOCK
    enum: EFD_CLOEXEC
    int eventfd(unsigned int value, int flags)

cdef enum:
    FIRST_CAPACITY = 256
    LOOK_ASIDE = 4096            # polls between two looks at the connections' events
    OPCODE_FLUSH = 1000          # ours: these two are never posted as a list
    OPCODE_WORD = 1001
    SLOT_SHIFT = 48
    KIND_SHIFT = 40

cdef uint64_t NEVER = <uint64_t> -1


# --- faults ----------------------------------------------------------------------------------

cdef void lane_lost(verbs_lane_t *own, int detail) noexcept nogil:
    """The lane's connection is gone; whoever polls its queue is told once."""
    if own.base.state == LANE_UP:
        own.base.state = LANE_LOST
        own.base.detail = detail
    if not own.reported and own.base.queue != NULL:
        (<verbs_queue_t *> own.base.queue).trouble = True


cdef int errno_of(int status) noexcept nogil:
    """What a work completion's status comes to."""
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


# --- handing over ----------------------------------------------------------------------------

cdef int submit_list(verbs_lane_t *own) noexcept nogil:
    """As a linked list, which every device takes."""
    cdef ibv_send_wr *bad = NULL
    cdef ibv_send_wr *last = &own.chain[own.pending - 1]
    cdef ibv_send_wr *following = last.next
    cdef int rc
    last.next = NULL
    rc = ibv_post_send(own.pair, own.chain, &bad)
    last.next = following
    return rc


cdef int submit_direct(verbs_lane_t *own) noexcept nogil:
    """One by one into the device's queue, then its doorbell."""
    cdef ibv_qp_ex *pair = own.direct
    cdef ibv_send_wr *request
    cdef uint32_t i
    cdef int opcode
    ibv_wr_start(pair)
    for i in range(own.pending):
        request = &own.chain[i]
        opcode = <int> request.opcode
        pair.wr_id = request.wr_id
        pair.wr_flags = request.send_flags
        if opcode == <int> OPCODE_FLUSH:
            placement_flush(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr,
                            request.sg_list.length)
            continue
        if opcode == <int> OPCODE_WORD:
            placement_write_word(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr,
                                 <const void *> <uintptr_t> request.sg_list.addr)
            continue
        if opcode == IBV_WR_RDMA_WRITE:
            ibv_wr_rdma_write(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr)
        elif opcode == IBV_WR_RDMA_READ:
            ibv_wr_rdma_read(pair, request.wr.rdma.rkey, request.wr.rdma.remote_addr)
        else:
            ibv_wr_send(pair)
        if request.send_flags & IBV_SEND_INLINE:
            ibv_wr_set_inline_data(pair, <void *> <uintptr_t> request.sg_list.addr,
                                   request.sg_list.length)
        else:
            ibv_wr_set_sge_list(pair, request.num_sge, request.sg_list)
    return ibv_wr_complete(pair)


cdef int lane_submit(verbs_lane_t *own) noexcept nogil:
    """Hand over what was kept back: 0, or the lane is lost."""
    cdef int rc
    if own.pending == 0:
        return 0
    rc = submit_list(own) if own.direct == NULL or own.gathers else submit_direct(own)
    own.pending = 0
    own.gathers = own.places = False
    own.doorbells += 1
    if rc:
        lane_lost(own, rc if rc > 0 else EIO)
        return LANE_LOST
    return 0


cdef inline ibv_send_wr *claim(verbs_lane_t *own, int *rc) noexcept nogil:
    """The next work request to fill in, or NULL and why not."""
    if own.base.state != LANE_UP:
        rc[0] = own.base.state
        return NULL
    if own.posted - own.retired >= own.depth:
        # What was kept back may be what has to complete to make room.
        rc[0] = lane_submit(own)
        if rc[0] == 0:
            rc[0] = LANE_AGAIN
        return NULL
    return &own.chain[own.pending]


cdef inline int post(verbs_lane_t *own, ibv_send_wr *request, uint64_t kind,
                     uint32_t flags, uint64_t to_copy) noexcept nogil:
    """Count what `claim` gave; hand it over unless more is to come.

    `to_copy` bytes go into the work request itself, if it takes as many.
    """
    own.posted += 1
    own.unsignalled += 1
    own.requests += 1
    request.send_flags = IBV_SEND_INLINE if to_copy <= own.base.inline_limit else 0
    if flags & POST_SIGNAL:
        request.send_flags |= IBV_SEND_SIGNALED
        own.unsignalled = 0
    elif own.unsignalled >= own.signal_every:
        # Nobody waits for this one: it only makes room.
        request.send_flags |= IBV_SEND_SIGNALED
        own.unsignalled = 0
        kind = COMPLETED_SEND
    request.wr_id = own.tag | kind << KIND_SHIFT | own.posted
    own.pending += 1
    if flags & POST_MORE and own.pending < CHAIN:
        return 0
    return lane_submit(own)


# --- the table of functions ------------------------------------------------------------------

cdef inline uint32_t key_of(void *handle) noexcept nogil:
    return (<ibv_mr *> handle).lkey if handle != NULL else 0


cdef inline void fill_one_sided(verbs_lane_t *own, ibv_send_wr *request, int opcode,
                                const void *local, void *handle, uint64_t offset,
                                uint64_t length) noexcept nogil:
    request.opcode = opcode
    request.num_sge = 1
    request.sg_list.addr = <uint64_t> <uintptr_t> local
    request.sg_list.length = <uint32_t> length
    request.sg_list.lkey = key_of(handle)
    request.wr.rdma.remote_addr = own.remote_address + offset
    request.wr.rdma.rkey = own.remote_key


cdef int verbs_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                     uint64_t length, uint32_t flags) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef int rc = 0
    cdef ibv_send_wr *request = claim(own, &rc)
    if request == NULL:
        return rc
    fill_one_sided(own, request, IBV_WR_RDMA_WRITE, source, handle, offset, length)
    return post(own, request, COMPLETED_WRITE, flags, length)


cdef int verbs_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                    uint64_t length, uint32_t flags) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef int rc = 0
    cdef ibv_send_wr *request = claim(own, &rc)
    if request == NULL:
        return rc
    fill_one_sided(own, request, IBV_WR_RDMA_READ, destination, handle, offset, length)
    return post(own, request, COMPLETED_READ, flags, NEVER)


cdef int verbs_flush(lane_t *lane, uint64_t offset, uint64_t length,
                     uint32_t flags) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef int rc = 0
    cdef ibv_send_wr *request
    if own.gathers and lane_submit(own) < 0:
        return LANE_LOST
    request = claim(own, &rc)
    if request == NULL:
        return rc
    own.places = True
    fill_one_sided(own, request, OPCODE_FLUSH, NULL, NULL, offset, length)
    return post(own, request, COMPLETED_WRITE, flags, NEVER)


cdef int verbs_write_word(lane_t *lane, const void *source, uint64_t offset,
                          uint32_t flags) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef int rc = 0
    cdef ibv_send_wr *request
    if own.gathers and lane_submit(own) < 0:
        return LANE_LOST
    request = claim(own, &rc)
    if request == NULL:
        return rc
    own.places = True
    fill_one_sided(own, request, OPCODE_WORD, source, NULL, offset, 8)
    return post(own, request, COMPLETED_WRITE, flags, NEVER)


cdef int verbs_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                    uint32_t flags) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef uint64_t length
    cdef int rc = 0
    cdef size_t i
    cdef ibv_send_wr *request
    if count > PIECES:
        lane_lost(own, EINVAL)
        return LANE_LOST
    if count > 1:
        # Where requests are built one by one, rdma-core's driver of soft-RoCE adds up the lengths
        # of several pieces wrongly, with or without copying them; as a list it is right.
        if own.places and lane_submit(own) < 0:
            return LANE_LOST
    request = claim(own, &rc)
    if request == NULL:
        return rc
    own.gathers = own.gathers or count > 1
    request.opcode = IBV_WR_SEND
    request.num_sge = <int> count
    length = vector[0].iov_len if count == 1 else NEVER
    for i in range(count):
        request.sg_list[i].addr = <uint64_t> <uintptr_t> vector[i].iov_base
        request.sg_list[i].length = <uint32_t> vector[i].iov_len
        request.sg_list[i].lkey = key_of(handles[i])
    return post(own, request, COMPLETED_SEND, flags, length)


cdef int verbs_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    cdef verbs_lane_t *own = <verbs_lane_t *> lane
    cdef ibv_recv_wr request
    cdef ibv_recv_wr *bad = NULL
    cdef ibv_sge piece
    cdef int rc
    piece.addr = <uint64_t> <uintptr_t> (lane.receive_area + <size_t> slot * lane.receive_size)
    piece.length = lane.receive_size
    piece.lkey = key_of(lane.send_handle)
    request.wr_id = own.tag | <uint64_t> COMPLETED_RECEIVE << KIND_SHIFT | slot
    request.next = NULL
    request.sg_list = &piece
    request.num_sge = 1
    if lane.state != LANE_UP:
        return lane.state
    rc = ibv_post_recv(own.pair, &request, &bad)
    if rc:
        lane_lost(own, rc if rc > 0 else EIO)
        return LANE_LOST
    return 0


# --- completions -----------------------------------------------------------------------------

cdef int report(verbs_lane_t *own, completion_t *out) noexcept nogil:
    """Say that a lane is lost, once."""
    if own.reported:
        return 0
    own.reported = True
    out.lane = &own.base
    out.kind = COMPLETED_FAULT
    out.slot = 0
    out.length = 0
    return 1


cdef int take(verbs_queue_t *queue, const ibv_wc *entry, completion_t *out) noexcept nogil:
    """One work completion: 1 when it is of interest to whoever polls."""
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
    """Take the connections' events: some say that a lane is lost."""
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
    """Has a connection ended?  Nothing in the queue would say so."""
    cdef pollfd descriptor
    descriptor.fd = queue.events.fd
    descriptor.events = POLLIN
    descriptor.revents = 0
    if c_poll(&descriptor, 1, 0) > 0:
        hear(queue)


cdef int report_all(verbs_queue_t *queue, completion_t *out, int room) noexcept nogil:
    """Lanes that were lost without a work completion that said so."""
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
        # Only now: completions that came before the end count.
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
    # What arrives before the queue is armed rings nothing: so arm it, then look once more.
    if ibv_req_notify_cq(queue.cq, 0):
        return 1
    n = ibv_poll_cq(queue.cq, BATCH, queue.stash)
    if n != 0:
        queue.stashed = max(n, 0)
        return 1
    descriptors[0].fd = queue.channel.fd
    descriptors[1].fd = queue.events.fd
    descriptors[2].fd = queue.bell
    for n in range(3):
        descriptors[n].events = POLLIN
        descriptors[n].revents = 0
    if c_poll(descriptors, 3, milliseconds) <= 0:
        return 0
    if descriptors[0].revents and ibv_get_cq_event(queue.channel, &rung, &user) == 0:
        ibv_ack_cq_events(rung, 1)
    if descriptors[1].revents:
        hear(queue)
    if descriptors[2].revents:
        # Rings of one moment count as one.
        unistd.read(queue.bell, &count, sizeof(count))
    return 1


cdef void verbs_wake(queue_t *base) noexcept nogil:
    cdef uint64_t one = 1
    unistd.write((<verbs_queue_t *> base).bell, &one, sizeof(one))


cdef fabric_ops_t OPS
OPS.write = verbs_write
OPS.read = verbs_read
OPS.send = verbs_send
OPS.receive = verbs_receive
OPS.poll = verbs_poll
OPS.wait = verbs_wait
OPS.wake = verbs_wake
OPS.flush = verbs_flush
OPS.write_word = verbs_write_word


cdef const fabric_ops_t *verbs_ops() noexcept nogil:
    return &OPS


# --- the queue as an object ------------------------------------------------------------------

@cython.no_gc_clear  # what it refers to is needed until it is closed
cdef class Queue:
    """Where completions arrive: one per lane (initiator), one per service thread (target).

    Parameters
    ----------
    domain : Domain
    size : int
        Completions it holds; it grows with the lanes that use it.
    answers : bool
        Of no importance here: all completions arrive in one place.
    """

    def __cinit__(self, Domain domain, size_t size=0, *, bint answers=True):
        cdef unsigned int vector = 0
        where = domain.device.name
        self.c.bell = -1
        self.c.base.ops = &OPS
        self.c.base.spins = True
        self.domain = domain
        self.capacity = min(<int> max(size, <size_t> FIRST_CAPACITY),
                            domain.device.completion_limit)
        vector = domain.device.vector % max(1, domain.device.context.num_comp_vectors)
        domain.device.vector += 1
        self.c.channel = ibv_create_comp_channel(domain.device.context)
        must(-1 if self.c.channel == NULL else 0, "ibv_create_comp_channel", where)
        self.c.cq = ibv_create_cq(domain.device.context, <int> self.capacity, NULL,
                                  self.c.channel, <int> vector)
        must(-1 if self.c.cq == NULL else 0, "ibv_create_cq", where)
        self.capacity = <uint32_t> self.c.cq.cqe
        self.c.events = rdma_create_event_channel()
        must(-1 if self.c.events == NULL else 0, "rdma_create_event_channel", where)
        self.c.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        must(-1 if self.c.bell < 0 else 0, "eventfd", where)
        for descriptor in (self.c.channel.fd, self.c.events.fd):
            must(-1 if fcntl(descriptor, F_SETFL,
                             fcntl(descriptor, F_GETFL) | O_NONBLOCK) < 0 else 0, "fcntl", where)

    def __dealloc__(self):
        self.close()

    cdef int enter(self, verbs_lane_t *lane, uint32_t completions) except -1:
        """Make room for all the completions a lane may have at once, and give it a slot."""
        cdef verbs_lane_t **lanes
        cdef uint32_t slot = self.c.slots
        if self.reserved + completions > self.capacity:
            must(ibv_resize_cq(self.c.cq, <int> (self.reserved + completions)),
                 "ibv_resize_cq", self.domain.device.name)
            self.capacity = <uint32_t> self.c.cq.cqe
        if slot >> 16:
            raise FabricFailure("a queue cannot serve more than 65536 lanes")
        # Slots are not used again: what a lane leaves behind in the queue bears its number.
        lanes = <verbs_lane_t **> realloc(self.c.lanes, (slot + 1) * sizeof(verbs_lane_t *))
        if lanes == NULL:
            raise MemoryError("no memory for a lane")
        self.c.lanes = lanes
        self.c.lanes[slot] = lane
        self.c.slots += 1
        self.reserved += completions
        lane.tag = <uint64_t> slot << SLOT_SHIFT
        lane.base.queue = &self.c.base
        return 0

    cdef int leave(self, verbs_lane_t *lane) noexcept:
        """Forget a lane; what is still in the queue of it counts no more."""
        cdef uint32_t slot
        for slot in range(self.c.slots):
            if self.c.lanes[slot] == lane:
                self.c.lanes[slot] = NULL
        return 0

    cpdef close(self):
        """Free the queue; its lanes must be closed before."""
        if self.domain is not None and is_copy(self.domain.device.born):
            self.c.cq = NULL
            self.c.channel = NULL
            self.c.events = NULL
        if self.c.cq != NULL:
            ibv_destroy_cq(self.c.cq)
            self.c.cq = NULL
        if self.c.channel != NULL:
            ibv_destroy_comp_channel(self.c.channel)
            self.c.channel = NULL
        if self.c.events != NULL:
            rdma_destroy_event_channel(self.c.events)
            self.c.events = NULL
        if self.c.bell >= 0:
            unistd.close(self.c.bell)
            self.c.bell = -1
        free(self.c.lanes)
        self.c.lanes = NULL
        self.c.slots = 0
