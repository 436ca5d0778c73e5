# cython: language_level=3
"""The memory of a region: how it is mapped, what each segment is, how it is given back."""

from libc.stdint cimport uint64_t

from rpmem.memory.media cimport segment_t
from rpmem.memory.refusal cimport refusal_t


ctypedef struct mapping_t:
    char *base                      # NULL: nothing is mapped
    uint64_t size
    segment_t *segments             # in order of address, contiguous
    int count
    # to be undone
    void *reservation               # struct pmem2_vm_reservation *, or NULL
    void *reserved                  # our own mmap, or NULL
    size_t reserved_length


# Each fills a zeroed mapping or raises; the mapping has to be released either way. Parts are (fd,
# file offset, length), laid end to end; `label` is for errors.
cdef int mapping_of_parts(mapping_t *mapping, object parts, refusal_t *refusal, bint force_pmem,
                          bint writable, str label) except -1
cdef int mapping_of_memory(mapping_t *mapping, char *base, uint64_t length,
                           refusal_t *refusal) except -1
cdef int mapping_of_zeros(mapping_t *mapping, object size, refusal_t *refusal) except -1
cdef void mapping_release(mapping_t *mapping) noexcept
# Map every part anew in its place, privately: what is stored from now on reaches no file. Raises if
# one of them cannot be mapped so; others may be by then. Descriptors are given in order.
cdef int mapping_leave(mapping_t *mapping, object descriptors) except -1

# A whole number from 0 up, or a RangeError that names it.
cdef uint64_t natural(object value, str name) except? <uint64_t> -1
