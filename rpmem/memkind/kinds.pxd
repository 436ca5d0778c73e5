# cython: language_level=3
"""Contents of kinds: memory of libmemkind's kinds, as numpy uses it."""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t


cdef extern from "rpmem/memkind/libmemkind.h" nogil:
    ctypedef struct memkind_struct "struct memkind":
        pass
    ctypedef memkind_struct *memkind_t


# The state behind a handler that numpy's arrays keep. It outlives the Kind that made it: the last
# array frees it.
cdef struct heap_t:
    cnp.PyDataMem_Handler handler
    memkind_t kind
    bint of_file              # made by us, in a file: ours to destroy, not for child processes
    unsigned int born         # see fork_generation
    int64_t blocks            # live allocations; accessed atomically only
    int64_t bytes


cdef class Kind:
    cdef readonly str name
    cdef heap_t *heap         # owned by `capsule`; NULL once closed
    cdef object capsule       # the handler, in numpy's form

    cdef check(self)


cdef class FileKind(Kind):
    cdef readonly str directory
    cdef readonly uint64_t max_size
