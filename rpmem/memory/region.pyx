"""Mapped memory: pool parts, buffers and scratch memory, and how each is made durable.

A :class:`Region` is one contiguous range of virtual memory made of one or more segments. How it is
made durable is decided per segment when it is mapped: by cache-line flushes if libpmem2 says that
the medium is persistent memory, by ``msync`` for files behind the page cache, not at all if nothing
would survive anyway. After that only function pointers are followed.
"""

import os

from rpmem.errors import BufferRefused, ClosedError, FlushFailed, RangeError, UsageError

from rpmem.base.handles import refuse_copy

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    Py_buffer,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.errno cimport ERANGE, EROFS
from libc.stdint cimport uint64_t, uintptr_t

from posix.mman cimport madvise

from rpmem.base.bounds cimport is_outside
from rpmem.memory.mapping cimport (
    mapping_leave, mapping_of_memory, mapping_of_parts, mapping_of_zeros, mapping_release, natural,
)
from rpmem.memory.media cimport (
    DEEP, FLUSH, PERSIST, across, act, is_pmem, is_volatile, segment_t, unit_of, verb_t,
)
from rpmem.memory.refusal cimport refusal_first, refusal_free, refusal_init, refusal_note
from rpmem.base.words cimport rpmem_copy_words


cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif
    """
    const int MADV_POPULATE_WRITE

cdef enum:
    PAGE_SIZE = 4096
    # Below this many bytes a cache-line flush takes less time than releasing the GIL.
    FLUSH_WORTH_THE_GIL = 4096


cdef inline int on_range(
    Region region, verb_t verb, uint64_t offset, uint64_t length,
) noexcept nogil:
    if is_outside(offset, length, 0, region.size):
        return ERANGE
    cdef int rc = refusal_first(&region.refusal)
    if rc != 0 or length == 0:
        return rc
    if region.mapped.count == 1:
        rc = act(region.mapped.segments, verb, region.base + offset, length)
    else:
        rc = across(region.mapped.segments, region.mapped.count, verb, offset, length)
    return refusal_note(&region.refusal, rc)


# As with numpy's arrays, the collector must not see the exporter behind `source`: it would clear a
# memoryview whose buffer is still exported, and releasing the buffer would then crash.
@cython.no_gc
cdef class Region:
    """Contiguous memory that can be made durable; exports its bytes as a writable buffer.

    A region mapped with ``writable=False`` exports a read-only buffer and cannot be made durable.

    Made by :meth:`map_parts`, :meth:`from_buffer` or :meth:`anonymous`. The mapping lives as long
    as it is in use: :meth:`close` is refused while views exist.
    """

    def __cinit__(self):
        self.writable = True
        self.medium = "volatile"
        self.granularity = 1
        self.gil_threshold = <uint64_t> -1
        self.label = "region"
        self.pins = []
        refusal_init(&self.refusal)

    def __init__(self):
        raise TypeError("a Region is made by map_parts, from_buffer or anonymous")

    def __dealloc__(self):
        release(self)
        refusal_free(&self.refusal)

    # --- making ---

    @staticmethod
    def map_parts(parts, force_pmem=False, writable=True):
        """Map parts of open files end to end.

        Parameters
        ----------
        parts : sequence of (fd, file_offset, length)
            Readable and, unless `writable` is false, writable files; offsets and lengths are
            multiples of the page size. The descriptors may be closed afterwards.
        force_pmem : bool
            Treat the medium as persistent memory whatever libpmem2 finds. In the environment,
            ``PMEM_IS_PMEM_FORCE=1`` does the same, and ``=0`` the opposite.
        writable : bool
            Whether the memory can be written to.

        Returns
        -------
        Region
        """
        cdef Region region = Region.__new__(Region)
        region.writable = writable
        mapping_of_parts(
            &region.mapped, parts, &region.refusal, force_pmem, writable, region.label)
        settle(region)
        return region

    @staticmethod
    def from_buffer(source, writable=True):
        """Use any C-contiguous buffer as a region; it is kept alive and in place.

        Its medium is "volatile", as nothing is known about the memory.
        """
        if isinstance(source, Region):
            raise BufferRefused(
                "a Region was given where a plain buffer is expected",
                hint="use the Region itself, so that its medium is not lost")
        cdef Region region = Region.__new__(Region)
        try:
            PyObject_GetBuffer(
                source, &region.source, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        except (BufferError, TypeError, ValueError) as error:
            kind = "writable contiguous" if writable else "contiguous"
            raise BufferRefused(
                f"{type(source).__name__} has no {kind} memory: {error}") from error
        region.writable = writable
        region.has_source = True
        if region.source.len <= 0:
            raise BufferRefused(f"the {type(source).__name__} is empty")
        mapping_of_memory(&region.mapped, <char *> region.source.buf,
                          <uint64_t> region.source.len, &region.refusal)
        settle(region)
        region.label = type(source).__name__
        return region

    @staticmethod
    def anonymous(size):
        """Zeroed scratch memory without a file."""
        cdef Region region = Region.__new__(Region)
        mapping_of_zeros(&region.mapped, size, &region.refusal)
        settle(region)
        region.label = "anonymous memory"
        return region

    # --- using ---

    @property
    def address(self):
        """Address of the first byte; 0 once closed."""
        return <uintptr_t> self.base

    @property
    def segment_count(self):
        """How many segments it is made of."""
        return self.mapped.count

    @property
    def parts(self):
        """The (file offset, length) of each part, as :meth:`map_parts` was given them."""
        return [(self.mapped.segments[index].file_offset, self.mapped.segments[index].length)
                for index in range(self.mapped.count)]

    @property
    def viewed(self):
        """Whether views of the memory exist."""
        return self.exports != 0

    @property
    def closed(self):
        """Whether the memory has been given back."""
        return self.base == NULL

    @property
    def refused(self):
        """The errno of the medium's first refusal; 0 if it has refused nothing.

        From then on every call that makes something durable raises it: the kernel may have dropped
        what it could not write, and would report success when asked again.
        """
        return refusal_first(&self.refusal)

    def refuse(self, int number):
        """Record a refusal by the medium, because a call outside the region failed.

        Parameters
        ----------
        number : int
            The errno, for instance of an fsync of a file that the region maps.
        """
        refusal_note(&self.refusal, number)

    def leave(self, descriptors):
        """Leave the memory to its views: what is stored from now on reaches no file.

        At any moment, every thread finds the same bytes there. Nothing can be made durable through
        this region any more.

        Parameters
        ----------
        descriptors : sequence of int
            Of the files, in the order in which they were mapped.

        Raises
        ------
        PoolSetError
            A part cannot be mapped so, as with a DAX device: stores may still reach it.
        """
        alive(self)
        if self.has_source or not self.writable:
            raise UsageError("only writable memory of files can be left", where=self.label)
        if len(descriptors) != self.mapped.count:
            raise UsageError(
                f"{len(descriptors)} descriptors for {self.mapped.count} parts", where=self.label)
        self.left = True
        mapping_leave(&self.mapped, descriptors)

    def __len__(self):
        return <Py_ssize_t> self.size

    def persist(self, offset, length):
        """Make a range durable on this machine before returning.

        Raises
        ------
        RangeError
            The range is not inside the region.
        FlushFailed
            The medium refused; the range must not be considered durable.
        """
        run(self, PERSIST, offset, length)

    def flush(self, offset, length):
        """Start writing a range back; :meth:`drain` waits until it is durable."""
        run(self, FLUSH, offset, length)

    def drain(self):
        """Wait until every range flushed by this thread is durable."""
        alive(self)
        cdef int rc = self.c_drain()
        if rc != 0:
            raise failed(self, "drain", rc)

    def deep_persist(self, offset, length):
        """Make a range durable, down to the lowest persistence domain software can reach."""
        run(self, DEEP, offset, length)

    def write(self, offset, source):
        """Copy a buffer into the region, each aligned 8-byte word of it by a single store.

        A concurrent reader, or one after a crash, sees every such word either old or new. Nothing
        is flushed.
        """
        cdef uint64_t at = natural(offset, "offset")
        cdef Py_buffer data
        alive(self)
        if not self.writable:
            raise failed(self, "be written to", EROFS)
        PyObject_GetBuffer(source, &data, PyBUF_SIMPLE)
        try:
            within(self, at, <uint64_t> data.len)
            rpmem_copy_words(self.base + at, <const char *> data.buf, <size_t> data.len)
        finally:
            PyBuffer_Release(&data)

    def populate(self, offset, length):
        """Let the kernel map the pages of a range that is about to be stored to, all at once.

        What they hold stays. Without it, the first store to each page is interrupted. Where the
        kernel cannot do it (before Linux 5.14), nothing happens.
        """
        cdef uint64_t at = natural(offset, "offset")
        cdef uint64_t count = natural(length, "length")
        cdef uintptr_t first
        alive(self)
        within(self, at, count)
        if count == 0 or not self.writable:
            return
        first = <uintptr_t> (self.base + at)
        count += first % PAGE_SIZE
        first -= first % PAGE_SIZE
        self.busy += 1
        with nogil:
            madvise(<void *> first, count, MADV_POPULATE_WRITE)
        self.busy -= 1

    cdef int c_flush(self, uint64_t offset, uint64_t length) noexcept nogil:
        return on_range(self, FLUSH, offset, length)

    cdef int c_drain(self) noexcept nogil:
        cdef int rc = 0
        if self.fence != NULL:
            rc = self.fence.drain(self.fence)
        return refusal_note(&self.refusal, rc)

    cdef int c_persist(self, uint64_t offset, uint64_t length) noexcept nogil:
        return on_range(self, PERSIST, offset, length)

    cdef int c_deep(self, uint64_t offset, uint64_t length) noexcept nogil:
        return on_range(self, DEEP, offset, length)

    def __getbuffer__(self, Py_buffer *view, int flags):
        alive(self)
        PyBuffer_FillInfo(
            view, self, self.base, <Py_ssize_t> self.size, not self.writable, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1

    cpdef pin(self, str what):
        """Refuse to close until :meth:`unpin` is called with the same words."""
        alive(self)
        self.pins.append(what)

    cpdef unpin(self, str what):
        """Undo one :meth:`pin`."""
        self.pins.remove(what)

    def close(self):
        """Give the memory back. Closing again is harmless.

        Raises
        ------
        BufferError
            Views of the memory exist, or something else still uses it; nothing was closed.
        """
        users = []
        if self.exports:
            users.append(f"{self.exports} view{'s' if self.exports > 1 else ''} of its memory")
        users.extend(self.pins)
        if self.busy:
            users.append("a flush in another thread")
        if users:
            raise BufferError(f"{self.label} cannot be closed: still used by {', '.join(users)}")
        release(self)

    def __enter__(self):
        alive(self)
        return self

    def __exit__(self, *_):
        self.close()

    def __reduce__(self):
        refuse_copy(
            self, "Copy its bytes (bytearray(region)), or map the files in the other process.")

    def __repr__(self):
        state = "closed" if self.base == NULL else f"{self.size} bytes, {self.medium}"
        return f"<Region {self.label}: {state}>"


# --- beginning and end of a region -------------------------------------------------------------


cdef settle(Region self):
    """Summarize the segments: the region's medium is the weakest of theirs."""
    cdef segment_t *segment
    cdef bint pages = False, nothing = False
    self.base = self.mapped.base
    self.size = self.mapped.size
    for index in range(self.mapped.count):
        segment = &self.mapped.segments[index]
        self.granularity = max(self.granularity, unit_of(segment))
        if is_pmem(segment):
            self.fence = segment
        elif is_volatile(segment):
            nothing = True
        else:
            pages = True
    if nothing:
        self.medium = "volatile"
    else:
        self.medium = "page" if pages else "pmem"
    # In persistent memory, one flush over all would write back every line in between.
    self.spans = pages and self.fence == NULL
    if pages:
        self.gil_threshold = 1
    elif self.fence != NULL:
        self.gil_threshold = FLUSH_WORTH_THE_GIL
    only_to_be_read(self)


cdef only_to_be_read(Region self):
    """Make a read-only region refuse everything from the beginning."""
    if not self.writable:
        refusal_note(&self.refusal, EROFS)


cdef release(Region self):
    mapping_release(&self.mapped)
    self.base = NULL
    self.size = 0
    self.fence = NULL
    if self.has_source:
        self.has_source = False
        PyBuffer_Release(&self.source)


# --- errors and arguments ----------------------------------------------------------------------

cdef run(Region self, verb_t verb, object offset, object length):
    cdef uint64_t at, count
    cdef int rc
    at = natural(offset, "offset")
    count = natural(length, "length")
    alive(self)
    if self.left:
        raise ClosedError("its memory was left to its views", where=self.label)
    within(self, at, count)
    if count < self.gil_threshold:
        rc = on_range(self, verb, at, count)
    else:
        self.busy += 1
        with nogil:
            rc = on_range(self, verb, at, count)
        self.busy -= 1
    if rc != 0:
        raise failed(self, "flush", rc)


cdef within(Region self, uint64_t offset, uint64_t length):
    if is_outside(offset, length, 0, self.size):
        raise RangeError(
            f"{length} bytes at offset {offset} are not inside its {self.size} bytes",
            where=self.label)


cdef alive(Region self):
    if self.base == NULL:
        raise ClosedError("the region is closed", where=self.label)


cdef failed(Region self, what, int rc):
    if not self.writable:
        return UsageError("it is mapped read-only", where=self.label, errno=EROFS)
    return FlushFailed(
        f"the medium refused to {what}: {os.strerror(rc)}", where=self.label, errno=rc,
        hint="what was written since the last success may be lost, and every later call fails "
             "too: check the device, then close the pool and open it again")
