# cython: language_level=3
"""Contents of kinds: memory of libmemkind's kinds, as numpy takes it."""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t


cdef extern from "<memkind.h>" nogil:
    ctypedef struct memkind_struct "struct memkind":
        pass
    ctypedef memkind_struct *memkind_t


# What stands behind a handler that numpy's arrays keep. It outlives the Kind that made it: the
# last array gives it back.
cdef struct heap_t:
    cnp.PyDataMem_Handler handler
    memkind_t kind
    bint of_file              # made by us, in a file: ours to destroy, and not for children
    unsigned int born         # see fork_generation
    int64_t blocks            # live allocations; only with atomic operations
    int64_t bytes


cdef class Kind:
    cdef readonly str name
    cdef heap_t *heap         # owned by `capsule`; NULL once closed
    cdef object capsule       # the handler, as numpy wants it

    cdef check(self)


cdef class FileKind(Kind):
    cdef readonly str directory
    cdef readonly uint64_t max_size
