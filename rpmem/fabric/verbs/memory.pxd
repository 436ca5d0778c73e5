# cython: language_level=3
"""RDMA devices, protection domains and registered memory."""

from libc.stdint cimport uint64_t

from rpmem.fabric.verbs.ibv cimport ibv_context, ibv_device, ibv_mr, ibv_pd


cdef class Device:
    """An opened RDMA device and its abilities."""
    cdef ibv_context *context
    cdef unsigned int born            # see fork_generation
    cdef object keep                  # the owner of the context, if it is not ours
    cdef readonly str name
    cdef readonly bint flushes        # persistent RDMA FLUSH and ATOMIC WRITE
    cdef readonly bint on_demand      # claims to work without pinned memory
    cdef readonly int queue_limit     # work requests per send queue
    cdef readonly int completion_limit
    cdef readonly int pair_limit
    cdef readonly int reads_in        # READs it answers at the same time
    cdef readonly int reads_out       # READs it can have under way at the same time
    cdef int inline_size              # inline bytes in a work request; -1: not tried yet
    cdef unsigned int vector          # completion vector of the next queue

    @staticmethod
    cdef Device open(ibv_device *device)

    @staticmethod
    cdef Device adopt(size_t context, object keep)
    cdef int query(self) except -1
    cdef uint64_t message_limit(self, int port) except 0


cdef class Domain:
    """A protection domain, which limits what one session's lanes can reach."""
    cdef ibv_pd *pd
    cdef object keep                  # the owner of the domain, if it is not ours
    cdef readonly object fabric
    cdef readonly Device device
    cpdef close(self)


cdef class Memory:
    """A registered range of memory."""
    cdef ibv_mr *mr
    cdef ibv_mr copied                # describes memory that the user registered
    cdef Domain domain
    cdef object keep
    cdef readonly uint64_t key
    cdef readonly uint64_t address    # to which the other side adds offsets
    cdef readonly bint flushes        # registered for persistent RDMA FLUSH
    cdef readonly bint on_demand      # not pinned, and proved to work: see probe.pyx
    cdef int borrow(self, object key) except -1
    cdef int register(self, size_t address, size_t length, int access) except -1
    cdef int register_unpinned(self, size_t address, size_t length, int access,
                               int number) except -1
    cpdef close(self)


cdef int active_port(Device device) except -1
