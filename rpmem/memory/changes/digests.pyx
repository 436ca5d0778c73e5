"""A digest of each page of a region, as all copies last acknowledged it.

The digest is XXH3 with 128 bits and a secret of its own for each object: two contents of a page
have the same one by chance only, about once in 2**128 comparisons, and nobody who writes to the
pool can look for two that have.

What counts as known is what was sent, never what is in the memory, which other threads may store to
at any time: a page is copied, the copy is hashed and sent, and the digest is believed once every
replica has acknowledged that copy. Until then, and if that fails, nothing is known of the page.
"""

import os

from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.unistd cimport _SC_PAGESIZE, sysconf

from rpmem.base.bounds cimport is_outside
from rpmem.memory.changes.lender cimport Lender
from rpmem.memory.changes.pageset cimport (
    PageSet, bytes_of, extent_t, page_at, page_behind, pages_add, pages_has, pages_mark, pages_next,
    pages_remove, pageset_t,
)
from rpmem.memory.changes.xxh3 cimport SECRET_SIZE, XXH128_hash_t, XXH3_128bits_withSecret
from rpmem.memory.region cimport Region
from rpmem.base.words cimport rpmem_copy_words

from rpmem.base.handles import refuse_copy
from rpmem.errors import BufferRefused, ClosedError, RangeError


cdef inline digest_t digest_of(const digests_t *digests, const char *data,
                               uint64_t length) noexcept nogil:
    cdef XXH128_hash_t found = XXH3_128bits_withSecret(data, length, digests.secret, SECRET_SIZE)
    cdef digest_t digest
    digest.low, digest.high = found.low64, found.high64
    return digest


cdef inline extent_t bytes_of_page(const digests_t *digests, uint64_t page) noexcept nogil:
    return bytes_of(digests.known, page, page + 1, 0, digests.known.size)


cdef inline uint64_t end_of(const digests_t *digests, uint64_t offset,
                            uint64_t length) noexcept nogil:
    """The page behind those that a range touches, which are none if it is empty."""
    return page_behind(digests.known, offset + length) if length else 0


cdef bint has_changed(const digests_t *digests, uint64_t page) noexcept nogil:
    cdef extent_t where
    cdef digest_t now
    if not pages_has(digests.known, page):
        return True
    where = bytes_of_page(digests, page)
    now = digest_of(digests, digests.base + where.offset, where.length)
    return now.low != digests.of_page[page].low or now.high != digests.of_page[page].high


cdef void digests_changed(const digests_t *digests, pageset_t *pages, uint64_t offset,
                          uint64_t length) noexcept nogil:
    cdef uint64_t page
    for page in range(page_at(digests.known, offset), end_of(digests, offset, length)):
        if has_changed(digests, page):
            # Of two threads that add to a word neither undoes what the other did.
            pages_mark(pages, page, page + 1)


cdef void digests_copy(digests_t *digests, const pageset_t *pages, uint64_t offset,
                       uint64_t length, char *staging) noexcept nogil:
    cdef uint64_t first = page_at(digests.known, offset), end = end_of(digests, offset, length)
    cdef uint64_t after, page
    cdef extent_t where
    cdef char *there
    # Also of pages that are not in the set: what an earlier call copied was not acknowledged.
    pages_remove(digests.copied, first, end)
    while pages_next(pages, &first, &after, end):
        pages_remove(digests.known, first, after)
        for page in range(first, after):
            where = bytes_of_page(digests, page)
            there = staging + (where.offset - offset)
            rpmem_copy_words(there, digests.base + where.offset, where.length)
            digests.of_page[page] = digest_of(digests, there, where.length)
        pages_add(digests.copied, first, after)
        first = after


cdef void digests_confirm(digests_t *digests, const pageset_t *pages, uint64_t offset,
                          uint64_t length) noexcept nogil:
    cdef uint64_t first = page_at(digests.known, offset), end = end_of(digests, offset, length)
    cdef uint64_t after, page
    while pages_next(pages, &first, &after, end):
        for page in range(first, after):
            if pages_has(digests.copied, page):
                pages_add(digests.known, page, page + 1)
        pages_remove(digests.copied, first, after)
        first = after


cdef void digests_forget(digests_t *digests, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint64_t first = page_at(digests.known, offset), end = end_of(digests, offset, length)
    pages_remove(digests.known, first, end)
    pages_remove(digests.copied, first, end)


cdef class CopiedPages(Lender):
    """Pages of a window, copied when a call is about to send them; see `PageDigests.lend`."""

    def __cinit__(self, place, uint64_t offset, PageDigests digests not None,
                  PageSet pages not None, uint64_t length):
        if self.view.readonly:
            raise BufferRefused("pages are copied to a writable buffer")
        if <uint64_t> self.view.len < length:
            raise RangeError(f"a buffer of {self.view.len} bytes is less than the {length} to copy")
        self.digests = digests
        self.pages = pages
        self.length = length

    cdef void fill(self) noexcept nogil:
        digests_copy(&self.digests.c, &self.pages.c, self.offset, self.length,
                     <char *> self.view.buf)


cdef class PageDigests:
    """A digest of each page of a region, as all copies last acknowledged it.

    Parameters
    ----------
    region : Region
        The memory.
    size : int, optional
        How many of its bytes, from the first; all by default.

    Notes
    -----
    The pages are those of ``PageSet(size, region.address % page_size)``, and only such sets are
    taken. At first nothing is known of any page.

    Whatever reaches a copy in another way than by `lend` and `confirm` has to be forgotten: else a
    page that is given its former content again seems to be what the copies have.

    It is not made for two threads at once, except for `changed` (see there).
    """

    def __cinit__(self, Region region not None, size=None):
        cdef uint64_t length = region.size if size is None else size
        cdef bytes secret = os.urandom(SECRET_SIZE)
        if is_outside(0, length, 0, region.size):
            raise RangeError(f"{length} bytes are more than the {region.size} of the region",
                             where=region.label)
        skew = <uintptr_t> region.base % <uint64_t> sysconf(_SC_PAGESIZE)
        self.region = region
        self.known = PageSet(length, skew)
        self.copied = PageSet(length, skew)
        self.c.base = region.base
        self.c.known = &self.known.c
        self.c.copied = &self.copied.c
        memcpy(self.c.secret, <const char *> secret, SECRET_SIZE)
        self.c.of_page = <digest_t *> calloc(self.known.c.pages + 1, sizeof(digest_t))
        if self.c.of_page == NULL:
            raise MemoryError("no memory for the digests of pages")

    def __dealloc__(self):
        free(self.c.of_page)

    def __reduce__(self):
        refuse_copy(self, "It belongs to one pool.")

    def __len__(self):
        """How many pages' digests are known."""
        return len(self.known)

    def changed(self, PageSet pages not None, uint64_t offset, uint64_t length):
        """Add to a set every page that a range touches and that may not be what the copies have.

        Without the GIL, and several threads may do it at once with the same set, on any ranges. A
        thread that is late, still at it when the set has other uses again, can make pages appear in
        it, but none disappear.
        """
        self.check(pages, offset, length)
        self.region.busy += 1
        with nogil:
            digests_changed(&self.c, &pages.c, offset, length)
        self.region.busy -= 1

    def lend(self, PageSet pages not None, uint64_t offset, uint64_t length, staging):
        """Return what copies a set's pages in a window, each to its distance from its first byte.

        They are copied, and hashed there, once the call that sends them asks for it. Nothing is
        known of these pages then until they are confirmed. Other threads may store to the memory
        meanwhile: every aligned word of the copy is one that stood there, if the window begins at
        one and `staging` does.

        Parameters
        ----------
        pages : PageSet
            Those outside the window are left alone.
        offset, length : int
            The window: it begins and ends where pages do, or the region does.
        staging : buffer
            Writable, and at least as long as the window.

        Returns
        -------
        CopiedPages
        """
        self.check(pages, offset, length)
        if not self.is_window(offset, length):
            raise RangeError(f"(offset {offset}, length {length}) does not begin and end with "
                             "pages", where=self.region.label)
        # What an earlier call copied was not acknowledged.
        pages_remove(self.c.copied, page_at(self.c.known, offset), end_of(&self.c, offset, length))
        return CopiedPages(staging, offset, self, pages, length)

    def confirm(self, PageSet pages not None, uint64_t offset, uint64_t length):
        """Believe the digests of a set's pages in a window: all copies have what was copied.

        Of pages that were forgotten since they were copied, nothing is known.
        """
        self.check(pages, offset, length)
        digests_confirm(&self.c, &pages.c, offset, length)

    def forget(self, uint64_t offset, uint64_t length):
        """Know nothing any more of the pages that a range touches."""
        self.check(self.known, offset, length)
        digests_forget(&self.c, offset, length)

    cdef int check(self, PageSet pages, uint64_t offset, uint64_t length) except -1:
        if self.region.base == NULL:
            raise ClosedError("the region is closed", where=self.region.label)
        if pages.c.size != self.known.c.size or pages.c.skew != self.known.c.skew:
            raise RangeError("the set is not one of the pages of this region",
                             where=self.region.label)
        return self.known.check(offset, length)

    cdef bint is_window(self, uint64_t offset, uint64_t length) noexcept:
        cdef uint64_t end = offset + length
        cdef const pageset_t *grid = self.c.known
        if offset != 0 and (offset + grid.skew) % grid.page_size:
            return False
        return end == grid.size or (end + grid.skew) % grid.page_size == 0
