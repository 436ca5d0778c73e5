# cython: language_level=3
"""Contents of pageset: a set of pages of a region, one bit for each."""

from libc.stdint cimport uint64_t


# Bytes of the region.
ctypedef struct extent_t:
    uint64_t offset
    uint64_t length

# Page k holds the offsets from k * size - skew up to the next page, as far as the region has them.
ctypedef struct pageset_t:
    uint64_t *words
    uint64_t pages
    uint64_t page_size        # a power of two
    uint64_t skew             # bytes of page 0 that lie before the region
    uint64_t size             # of the region, in bytes


cdef class PageSet:
    cdef pageset_t c
    cdef int check(self, uint64_t offset, uint64_t length) except -1


# Pages from `first` up to `end`.
cdef void pages_add(pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
cdef void pages_remove(pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
# The same as pages_add for threads that do it at once, beside one that moves pages away.
cdef void pages_mark(pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
cdef void pages_move(pageset_t *pages, pageset_t *marked) noexcept nogil
cdef bint pages_has(const pageset_t *pages, uint64_t page) noexcept nogil
cdef uint64_t pages_count(const pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
# The next run of pages in [first[0], end): its begin and its end, or False.
cdef bint pages_next(const pageset_t *pages, uint64_t *first, uint64_t *after,
                     uint64_t end) noexcept nogil
# The bytes of pages [first, after), as far as they lie in [low, high) of the region.
cdef extent_t bytes_of(const pageset_t *pages, uint64_t first, uint64_t after, uint64_t low,
                       uint64_t high) noexcept nogil
# The page of an offset, and the first page that has nothing before an offset.
cdef inline uint64_t page_at(const pageset_t *pages, uint64_t offset) noexcept nogil:
    return (offset + pages.skew) // pages.page_size


cdef inline uint64_t page_behind(const pageset_t *pages, uint64_t offset) noexcept nogil:
    return (offset + pages.skew + pages.page_size - 1) // pages.page_size
