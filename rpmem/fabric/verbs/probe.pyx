"""Does memory that is not pinned really work? Try it instead of asking the device.

Devices with on-demand paging can reach file memory that cannot be pinned, but some kernels complete
such WRITEs and put the bytes somewhere else. So before a pool is registered that way, an unnamed
file next to its part is tried: patterns are written to it through two queue pairs that are
connected to each other, before and after its pages are dropped, and every byte is compared, both in
the mapping and in the file.
"""

import os
import time

from libc.errno cimport EINVAL
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

from rpmem.fabric.verbs.ibv cimport *
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.memory cimport Device, Domain, active_port
from rpmem.errors import DeadlineExceeded, FabricFailure

bind_libibverbs()

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_READ
    enum: PROT_WRITE
    enum: MAP_SHARED
    enum: MAP_SHARED_VALIDATE
    enum: MAP_SYNC
    enum: MADV_DONTNEED
    enum: MS_SYNC
    void *MAP_FAILED
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int msync(void *address, size_t length, int flags)
    int madvise(void *address, size_t length, int advice)

cdef enum:
    SIZE = (2 << 20) + 5 * 4096
    LARGEST = 3 * 4096
    PAGE = 4096
    PATIENCE = 3                  # most seconds for one WRITE or READ

# Offsets and lengths: within a page, across pages, several pages, first and last bytes.
PLACES = (
    (0, 8), (4608, 64), (8190, 10), (12388, 12288), (65536 + 7, 1), (131072 - 8, 16),
    (1 << 20, 4096), ((2 << 20) - 100, 200), (SIZE - 8, 8),
)

_found = {}


def on_demand_works(Domain domain not None, size_t address):
    """Find out whether memory like that at `address` can be registered on demand.

    Parameters
    ----------
    domain : Domain
    address : int
        An address in the mapping of a file.

    Returns
    -------
    str or None
        Why not; None if it works.
    """
    path = _file_at(address)
    if path is None:
        return "on demand is only tried with files"
    folder = os.path.dirname(path)
    try:
        key = (domain.device.name, os.stat(folder).st_dev)
        if key not in _found:
            _found[key] = examine(domain, folder)
    except OSError as error:
        return f"registering it on demand could not be tried in {folder}: {error.strerror}"
    return _found[key]


def _file_at(size_t address):
    """The path of the file that is mapped at `address`, or None if there is none."""
    with open("/proc/self/maps") as file:
        for line in file:
            bounds, _, rest = line.partition(" ")
            low, high = (int(bound, 16) for bound in bounds.split("-"))
            if low <= address < high:
                path = rest.split(None, 4)[4:]
                if path and path[0].startswith("/"):
                    return path[0].rstrip("\n").removesuffix(" (deleted)")
                return None
    return None


def examine(Domain domain not None, str folder, *, bint on_demand=True):
    """Try memory of a file in `folder`; return why it does not work, or None.

    Parameters
    ----------
    domain : Domain
    folder : str
    on_demand : bool
        False: try pinned memory, which has to work.
    """
    cdef Probe probe
    descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SIZE)
        probe = Probe(domain, descriptor, on_demand)
        try:
            return probe.run()
        finally:
            probe.close()
    except FabricFailure as error:
        return f"registering it on demand does not work ({error.what})"
    except DeadlineExceeded:
        return "writing to it on demand does not complete"
    finally:
        os.close(descriptor)


cdef class Probe:
    """A file registered on demand, and a pair of connected queue pairs."""
    cdef Domain domain
    cdef int descriptor
    cdef char *mapping
    cdef char *buffer                 # ordinary memory, pinned
    cdef ibv_mr *there
    cdef ibv_mr *here
    cdef ibv_cq *cq
    cdef ibv_qp *ends[2]
    cdef bytearray expected

    def __cinit__(self, Domain domain not None, int descriptor, bint on_demand):
        cdef void *memory = NULL
        cdef int access = IBV_ACCESS_LOCAL_WRITE
        where = domain.device.name
        self.domain = domain
        self.descriptor = descriptor
        self.expected = bytearray(os.urandom(SIZE))
        memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC,
                      descriptor, 0)
        if memory == MAP_FAILED:
            memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        must(-1 if memory == MAP_FAILED else 0, "mmap", where)
        self.mapping = <char *> memory
        memcpy(self.mapping, <char *> self.expected, SIZE)
        if posix_memalign(&memory, PAGE, LARGEST):
            raise MemoryError("no memory for a probe")
        self.buffer = <char *> memory
        self.here = ibv_reg_mr(domain.pd, self.buffer, LARGEST, access)
        must(-1 if self.here == NULL else 0, "ibv_reg_mr", where)
        access |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ
        if on_demand:
            access |= IBV_ACCESS_ON_DEMAND
        self.there = ibv_reg_mr(domain.pd, self.mapping, SIZE, access)
        must(-1 if self.there == NULL else 0, "ibv_reg_mr", where)
        self.cq = ibv_create_cq(domain.device.context, 16, NULL, NULL, 0)
        must(-1 if self.cq == NULL else 0, "ibv_create_cq", where)
        self.make_pairs()

    cdef int make_pairs(self) except -1:
        """Make two queue pairs, connected to each other through a port of the device."""
        cdef ibv_qp_init_attr_ex wanted
        cdef ibv_qp_attr state
        cdef Device device = self.domain.device
        cdef int end
        port = active_port(device)
        if port == 0:
            raise FabricFailure("no port is up", where=device.name)
        for end in range(2):
            memset(&wanted, 0, sizeof(wanted))
            wanted.qp_type = IBV_QPT_RC
            wanted.send_cq = wanted.recv_cq = self.cq
            wanted.cap.max_send_wr = wanted.cap.max_recv_wr = 4
            wanted.cap.max_send_sge = wanted.cap.max_recv_sge = 1
            wanted.comp_mask = IBV_QP_INIT_ATTR_PD
            wanted.pd = self.domain.pd
            self.ends[end] = ibv_create_qp_ex(device.context, &wanted)
            must(-1 if self.ends[end] == NULL else 0, "ibv_create_qp_ex", device.name)
            memset(&state, 0, sizeof(state))
            state.qp_state = IBV_QPS_INIT
            state.port_num = <uint8_t> port
            state.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ
            must(ibv_modify_qp(self.ends[end], &state,
                               IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT
                               | IBV_QP_ACCESS_FLAGS), "ibv_modify_qp", device.name)
        for end in range(2):
            self.connect(end, <uint8_t> port)
        return 0

    cdef int connect(self, int end, uint8_t port) except -1:
        cdef ibv_qp_attr state
        cdef ibv_port_attr found
        cdef Device device = self.domain.device
        cdef int index
        memset(&found, 0, sizeof(found))
        must(ibv_query_port(device.context, port, &found), "ibv_query_port", device.name)
        memset(&state, 0, sizeof(state))
        state.qp_state = IBV_QPS_RTR
        state.path_mtu = found.active_mtu
        state.dest_qp_num = self.ends[1 - end].qp_num
        state.max_dest_rd_atomic = 1
        state.min_rnr_timer = 12
        state.ah_attr.port_num = port
        state.ah_attr.dlid = found.lid
        if found.link_layer == IBV_LINK_LAYER_ETHERNET:
            index = self.internet_gid(port, found.gid_tbl_len)
            state.ah_attr.is_global = 1
            state.ah_attr.grh.hop_limit = 1
            state.ah_attr.grh.sgid_index = <uint8_t> index
            must(ibv_query_gid(device.context, port, index, &state.ah_attr.grh.dgid),
                 "ibv_query_gid", device.name)
        must(ibv_modify_qp(self.ends[end], &state,
                           IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN
                           | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
             "ibv_modify_qp", device.name)
        memset(&state, 0, sizeof(state))
        state.qp_state = IBV_QPS_RTS
        state.timeout = 14
        state.retry_cnt = state.rnr_retry = 7
        state.max_rd_atomic = 1
        must(ibv_modify_qp(self.ends[end], &state,
                           IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY
                           | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
             "ibv_modify_qp", device.name)
        return 0

    cdef int internet_gid(self, uint8_t port, int count) except -1:
        """Index of the port's first GID that is an IPv4 address, else of its first GID."""
        cdef ibv_gid gid
        cdef int index
        for index in range(min(count, 256)):
            if ibv_query_gid(self.domain.device.context, port, index, &gid) == 0:
                if (<char *> gid.raw)[:12] == bytes(10) + b"\xff\xff":
                    return index
        return 0

    cdef int move(self, int opcode, uint64_t offset, uint32_t length) except -1:
        """Do one WRITE or READ between the buffer and the file."""
        cdef ibv_send_wr request
        cdef ibv_send_wr *bad = NULL
        cdef ibv_sge piece
        cdef ibv_wc done
        cdef int n = 0
        memset(&request, 0, sizeof(request))
        piece.addr = <uint64_t> <uintptr_t> self.buffer
        piece.length = length
        piece.lkey = self.here.lkey
        request.sg_list = &piece
        request.num_sge = 1
        request.opcode = opcode
        request.send_flags = IBV_SEND_SIGNALED
        request.wr.rdma.remote_addr = <uint64_t> <uintptr_t> self.mapping + offset
        request.wr.rdma.rkey = self.there.rkey
        must(ibv_post_send(self.ends[0], &request, &bad), "ibv_post_send")
        deadline = time.monotonic() + PATIENCE
        while n == 0:
            n = ibv_poll_cq(self.cq, 1, &done)
            if n == 0 and time.monotonic() > deadline:
                raise DeadlineExceeded("nothing was returned")
        must(0 if n == 1 and done.status == IBV_WC_SUCCESS else EINVAL, "a probing WRITE or READ")
        return 0

    def run(self):
        """Return why it does not work, or None."""
        # The file's pages are new, then clean, then dropped, then clean again.
        for prepare in (None, self.clean, self.drop, self.clean):
            if prepare is not None:
                prepare()
            for offset, length in PLACES:
                data = os.urandom(length)
                memcpy(self.buffer, <const char *> data, length)
                self.move(IBV_WR_RDMA_WRITE, offset, length)
                self.expected[offset:offset + length] = data
            if not self.holds():
                return "on demand the device puts bytes into the wrong place"
            for offset, length in PLACES:
                memset(self.buffer, 0, length)
                self.move(IBV_WR_RDMA_READ, offset, length)
                if self.buffer[:length] != self.expected[offset:offset + length]:
                    return "on demand the device reads bytes from the wrong place"
        self.drop()
        return None if self.holds() else "what a device wrote on demand is not kept by the file"

    def holds(self):
        """Whether the file has the right content, both as mapped and as read."""
        return (self.mapping[:SIZE] == self.expected
                and os.pread(self.descriptor, SIZE, 0) == self.expected)

    def clean(self):
        """Write back: a page written to afterwards has to become dirty again."""
        must(msync(self.mapping, SIZE, MS_SYNC), "msync")

    def drop(self):
        """Write back and drop the pages: the device has to fault them in again."""
        self.clean()
        must(madvise(self.mapping, SIZE, MADV_DONTNEED), "madvise")
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free everything."""
        cdef int end
        for end in range(2):
            if self.ends[end] != NULL:
                ibv_destroy_qp(self.ends[end])
                self.ends[end] = NULL
        if self.cq != NULL:
            ibv_destroy_cq(self.cq)
            self.cq = NULL
        for registered in (<size_t> self.there, <size_t> self.here):
            if registered:
                ibv_dereg_mr(<ibv_mr *> <size_t> registered)
        self.there = self.here = NULL
        if self.mapping != NULL:
            munmap(self.mapping, SIZE)
            self.mapping = NULL
        free(self.buffer)
        self.buffer = NULL
