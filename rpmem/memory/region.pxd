"""Contents of region: mapped memory, and how each piece of it is made durable."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t

from rpmem.memory.mapping cimport mapping_t
from rpmem.memory.media cimport segment_t
from rpmem.memory.refusal cimport refusal_t


cdef class Region:
    cdef char *base                 # NULL once closed
    cdef readonly uint64_t size     # 0 once closed
    cdef mapping_t mapped           # its segments, and the state that close() has to undo
    cdef segment_t *fence           # the segment whose drain covers all; NULL: nothing to do
    cdef refusal_t refusal          # the first refusal of a segment, kept for good
    cdef readonly bint spans        # one flush over several ranges costs no more than each alone
    cdef uint64_t gil_threshold     # Python calls on longer ranges release the GIL
    cdef readonly bint writable     # False: mapped read-only, every flush gives EROFS
    cdef bint left                  # the memory is private by now: flushes would do nothing
    cdef readonly str medium        # "pmem", "page" or "volatile"
    cdef readonly int granularity   # bytes written back together: 1, 64 or the page size
    cdef public str label           # names the region in error messages
    cdef Py_buffer source           # from_buffer: the exporter's buffer
    cdef bint has_source
    # close() is refused while these are in use
    cdef Py_ssize_t exports
    cdef Py_ssize_t busy
    cdef list pins
    cdef object __weakref__

    # Return 0 or an errno; ERANGE if the range is not inside the region. Never raise, need no GIL.
    # Once one has failed on a range inside, all of them return its errno for good.
    cdef int c_flush(self, uint64_t offset, uint64_t length) noexcept nogil
    cdef int c_drain(self) noexcept nogil
    cdef int c_persist(self, uint64_t offset, uint64_t length) noexcept nogil
    cdef int c_deep(self, uint64_t offset, uint64_t length) noexcept nogil

    # While pinned, close() is refused, naming `what`: for lanes that registered the memory.
    cpdef pin(self, str what)
    cpdef unpin(self, str what)
