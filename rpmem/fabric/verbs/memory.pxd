# cython: language_level=3
"""RDMA devices, protection domains and registered memory."""

from libc.stdint cimport uint64_t

from rpmem.fabric.verbs.ibv cimport ibv_context, ibv_device, ibv_mr, ibv_pd


cdef class Device:
    """An opened RDMA device, and what it can do."""
    cdef ibv_context *context
    cdef unsigned int born            # see fork_generation
    cdef object keep                  # whose context it is, when it is not ours
    cdef readonly str name
    cdef readonly bint flushes        # persistent RDMA FLUSH and ATOMIC WRITE
    cdef readonly bint on_demand      # says that it can do without pinned memory
    cdef readonly int queue_limit     # work requests per send queue
    cdef readonly int completion_limit
    cdef readonly int pair_limit
    cdef readonly int reads_in        # READs it answers at once
    cdef readonly int reads_out       # READs it has on their way at once
    cdef int inline_size              # bytes that a work request holds; -1: not tried yet
    cdef unsigned int vector          # completion vector of the next queue

    @staticmethod
    cdef Device open(ibv_device *device)

    @staticmethod
    cdef Device adopt(size_t context, object keep)
    cdef int query(self) except -1
    cdef uint64_t message_limit(self, int port) except 0


cdef class Domain:
    """A protection domain: what one session's lanes can reach."""
    cdef ibv_pd *pd
    cdef object keep                  # whose domain it is, when it is not ours
    cdef readonly object fabric
    cdef readonly Device device
    cpdef close(self)


cdef class Memory:
    """A registered range of memory."""
    cdef ibv_mr *mr
    cdef ibv_mr copied                # stands for memory that the user registered
    cdef Domain domain
    cdef object keep
    cdef readonly uint64_t key
    cdef readonly uint64_t address    # what the other side adds offsets to
    cdef readonly bint flushes        # registered for persistent RDMA FLUSH
    cdef readonly bint on_demand      # not pinned: proved to work, see probe.pyx
    cdef int borrow(self, object key) except -1
    cdef int register(self, size_t address, size_t length, int access) except -1
    cdef int register_unpinned(self, size_t address, size_t length, int access,
                               int number) except -1
    cpdef close(self)


cdef int active_port(Device device) except -1
