# cython: language_level=3
"""Contents of digests: a digest of each page of a region, as the copies last acknowledged it."""

from libc.stdint cimport uint64_t

from rpmem.memory.changes.lender cimport Lender
from rpmem.memory.changes.pageset cimport PageSet, pageset_t
from rpmem.memory.changes.xxh3 cimport SECRET_SIZE
from rpmem.memory.region cimport Region

ctypedef struct digest_t:
    uint64_t low
    uint64_t high

ctypedef struct digests_t:
    const char *base          # the region's first byte
    pageset_t *known          # pages whose digest is that of what all copies have
    pageset_t *copied         # pages whose digest is that of a copy on its way to them
    digest_t *of_page
    unsigned char secret[SECRET_SIZE]


cdef class PageDigests:
    cdef digests_t c
    cdef Region region
    cdef PageSet known
    cdef PageSet copied
    # Raise unless such a set and such a range can be used.
    cdef int check(self, PageSet pages, uint64_t offset, uint64_t length) except -1
    # Whether the range begins and ends where pages do.
    cdef bint is_window(self, uint64_t offset, uint64_t length) noexcept


cdef class CopiedPages(Lender):
    cdef PageDigests digests
    cdef PageSet pages
    cdef uint64_t length


# Add the pages of the range whose digest is not known or not that of the memory.
cdef void digests_changed(const digests_t *digests, pageset_t *pages, uint64_t offset,
                          uint64_t length) noexcept nogil
# Copy the pages of a window to `staging`, which stands for its bytes, and note the copies' digests.
cdef void digests_copy(digests_t *digests, const pageset_t *pages, uint64_t offset,
                       uint64_t length, char *staging) noexcept nogil
# All copies have what was copied of these pages.
cdef void digests_confirm(digests_t *digests, const pageset_t *pages, uint64_t offset,
                          uint64_t length) noexcept nogil
# Nothing is known any more of the pages that a range touches.
cdef void digests_forget(digests_t *digests, uint64_t offset, uint64_t length) noexcept nogil
