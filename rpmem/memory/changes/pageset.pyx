"""A set of pages of a region, one bit for each.

Ranges of bytes go in and come out: what goes in covers every page that it touches, what is taken
out only the pages that lie in it wholly, and what comes out never exceeds the region.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.unistd cimport _SC_PAGESIZE, sysconf

from rpmem.base.bounds cimport is_outside

from rpmem.base.handles import refuse_copy
from rpmem.errors import RangeError

cdef extern from * nogil:
    """
    #define rpmem_ones(word) ((unsigned) __builtin_popcountll(word))
    #define rpmem_lowest(word) ((unsigned) __builtin_ctzll(word))
    #define rpmem_mark(word, bits) ((void) __atomic_fetch_or((word), (bits), __ATOMIC_SEQ_CST))
    #define rpmem_moved(word) __atomic_exchange_n((word), 0, __ATOMIC_SEQ_CST)
    """
    unsigned int rpmem_ones(uint64_t word)
    unsigned int rpmem_lowest(uint64_t word)
    void rpmem_mark(uint64_t *word, uint64_t bits)
    uint64_t rpmem_moved(uint64_t *word)

cdef enum:
    BITS = 64

cdef uint64_t ALL = <uint64_t> -1


cdef inline uint64_t mask_of(uint64_t word, uint64_t first, uint64_t end) noexcept nogil:
    """The bits of a word, by its number, for pages `first` to `end`, some of which are there."""
    cdef uint64_t mask = ALL
    if first > word * BITS:
        mask <<= first - word * BITS
    if end < (word + 1) * BITS:
        mask &= ALL >> ((word + 1) * BITS - end)
    return mask


cdef void pages_add(pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
    cdef uint64_t word
    if first >= end:
        return
    for word in range(first // BITS, (end - 1) // BITS + 1):
        pages.words[word] |= mask_of(word, first, end)


cdef void pages_remove(pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
    cdef uint64_t word
    if first >= end:
        return
    for word in range(first // BITS, (end - 1) // BITS + 1):
        pages.words[word] &= ~mask_of(word, first, end)


cdef void pages_mark(pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
    cdef uint64_t word
    if first >= end:
        return
    for word in range(first // BITS, (end - 1) // BITS + 1):
        rpmem_mark(&pages.words[word], mask_of(word, first, end))


cdef void pages_move(pageset_t *pages, pageset_t *marked) noexcept nogil:
    cdef uint64_t word
    for word in range(pages.pages // BITS + 1):
        if marked.words[word]:
            pages.words[word] |= rpmem_moved(&marked.words[word])


cdef bint pages_has(const pageset_t *pages, uint64_t page) noexcept nogil:
    return pages.words[page // BITS] >> (page % BITS) & 1


cdef uint64_t pages_count(const pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
    cdef uint64_t word, found = 0
    if first >= end:
        return 0
    for word in range(first // BITS, (end - 1) // BITS + 1):
        found += rpmem_ones(pages.words[word] & mask_of(word, first, end))
    return found


cdef uint64_t next_with(const pageset_t *pages, uint64_t first, uint64_t end,
                        uint64_t flip) noexcept nogil:
    """The first page from `first` on that is in the set, or (flip) that is not; or `end`."""
    cdef uint64_t word, found
    if first >= end:
        return end
    for word in range(first // BITS, (end - 1) // BITS + 1):
        found = (pages.words[word] ^ flip) & mask_of(word, first, end)
        if found:
            return word * BITS + rpmem_lowest(found)
    return end


cdef bint pages_next(const pageset_t *pages, uint64_t *first, uint64_t *after,
                     uint64_t end) noexcept nogil:
    first[0] = next_with(pages, first[0], end, 0)
    after[0] = next_with(pages, first[0], end, ALL)
    return first[0] < end


cdef extent_t bytes_of(const pageset_t *pages, uint64_t first, uint64_t after, uint64_t low,
                       uint64_t high) noexcept nogil:
    cdef uint64_t begin = first * pages.page_size, end = after * pages.page_size
    cdef extent_t found
    begin = max(low, begin - pages.skew if begin > pages.skew else 0)
    end = min(high, end - pages.skew if end > pages.skew else 0)
    found.offset = begin
    found.length = end - begin if end > begin else 0
    return found


cdef class PageSet:
    """A set of pages of a region.

    Parameters
    ----------
    size : int
        Bytes of the region.
    skew : int
        How far into a page of memory the region begins.

    Notes
    -----
    It is not made for two threads at once.
    """

    def __cinit__(self, uint64_t size, uint64_t skew=0):
        self.c.page_size = <uint64_t> sysconf(_SC_PAGESIZE)
        if skew >= self.c.page_size:
            raise RangeError(f"{skew} bytes are not less than a page")
        self.c.skew = skew
        self.c.size = size
        self.c.pages = (size + skew + self.c.page_size - 1) // self.c.page_size
        self.c.words = <uint64_t *> calloc(self.c.pages // BITS + 1, sizeof(uint64_t))
        if self.c.words == NULL:
            raise MemoryError("no memory for the set of changed pages")

    def __dealloc__(self):
        free(self.c.words)

    def __reduce__(self):
        refuse_copy(self, "It belongs to one pool.")

    @property
    def page_size(self):
        """Bytes of a page."""
        return self.c.page_size

    def add(self, uint64_t offset, uint64_t length):
        """Add every page that a range touches."""
        self.check(offset, length)
        if length:
            pages_add(&self.c, page_at(&self.c, offset), page_behind(&self.c, offset + length))

    def mark(self, uint64_t offset, uint64_t length):
        """The same as `add` beside threads that mark pages, too."""
        self.check(offset, length)
        if length:
            pages_mark(&self.c, page_at(&self.c, offset), page_behind(&self.c, offset + length))

    def add_all(self, PageSet other not None):
        """Add the pages of another set of the same region."""
        cdef uint64_t word
        if other.c.pages != self.c.pages or other.c.skew != self.c.skew:
            raise RangeError("the pages are those of another region")
        for word in range(self.c.pages // BITS + 1):
            self.c.words[word] |= other.c.words[word]

    def content(self):
        """Return the set as bytes, a bit for each page, those of the first eight pages first."""
        return (<char *> self.c.words)[: (self.c.pages + 7) // 8]

    def load(self, const unsigned char[::1] content not None):
        """Let the set be what `content` returned of another one, which may have fewer pages."""
        if <uint64_t> content.shape[0] > (self.c.pages + 7) // 8:
            raise RangeError("the pages are those of a larger region")
        self.clear()
        if content.shape[0]:
            memcpy(self.c.words, &content[0], content.shape[0])
        pages_remove(&self.c, self.c.pages, (self.c.pages // BITS + 1) * BITS)

    def discard(self, uint64_t offset, uint64_t length):
        """Take out every page all of whose bytes, as far as the region has them, are in a range."""
        cdef uint64_t first, end
        self.check(offset, length)
        first = 0 if offset == 0 else page_behind(&self.c, offset)
        end = self.c.pages
        if offset + length < self.c.size:
            end = page_at(&self.c, offset + length)
        pages_remove(&self.c, first, end)

    def clear(self):
        """Take out all pages."""
        memset(self.c.words, 0, (self.c.pages // BITS + 1) * sizeof(uint64_t))

    def update(self, PageSet other not None):
        """Add the pages of another set of the same region."""
        cdef uint64_t word
        if other.c.pages != self.c.pages:
            raise RangeError("the pages are those of another region")
        for word in range(self.c.pages // BITS + 1):
            self.c.words[word] |= other.c.words[word]

    def keep(self, PageSet other not None):
        """Take out the pages that another set of the same region has not."""
        cdef uint64_t word
        if other.c.pages != self.c.pages:
            raise RangeError("the pages are those of another region")
        for word in range(self.c.pages // BITS + 1):
            self.c.words[word] &= other.c.words[word]

    def move_from(self, PageSet marked not None):
        """Add the pages of another set of the same region, and take them out there.

        Threads may mark pages there meanwhile; those are added now, or stay.
        """
        if marked.c.pages != self.c.pages or marked is self:
            raise RangeError("the pages are those of another region")
        pages_move(&self.c, &marked.c)

    def ranges(self, uint64_t offset=0, length=None):
        """Return the bytes of the set's pages that are in a range: adjacent pages as one.

        Returns
        -------
        bytearray
            Offsets and lengths, as pairs of uint64.
        """
        cdef uint64_t whole = self.c.size - offset if length is None else length
        cdef uint64_t first, after, end
        cdef size_t runs = 0, k = 0
        cdef extent_t *found
        self.check(offset, whole)
        end = page_behind(&self.c, offset + whole) if whole else 0
        first = page_at(&self.c, offset)
        while pages_next(&self.c, &first, &after, end):
            runs += 1
            first = after
        pairs = bytearray(runs * sizeof(extent_t))
        found = <extent_t *> <char *> pairs
        first = page_at(&self.c, offset)
        while pages_next(&self.c, &first, &after, end):
            found[k] = bytes_of(&self.c, first, after, offset, offset + whole)
            k += 1
            first = after
        return pairs

    def __len__(self):
        return <Py_ssize_t> pages_count(&self.c, 0, self.c.pages)

    def __bool__(self):
        return next_with(&self.c, 0, self.c.pages, 0) < self.c.pages

    def __contains__(self, offset):
        """Whether the page of an offset is in the set."""
        cdef uint64_t at = offset
        self.check(at, 1)
        return pages_has(&self.c, page_at(&self.c, at))

    cdef int check(self, uint64_t offset, uint64_t length) except -1:
        if is_outside(offset, length, 0, self.c.size):
            raise RangeError(f"(offset {offset}, length {length}) is not in the {self.c.size} "
                             "bytes of the region")
        return 0
