"""Mapped memory: pool parts, buffers and scratch memory, and how each is made durable.

A :class:`Region` is one contiguous range of virtual memory made of one or more segments. What
"durable" takes is decided per segment when it is mapped: cache-line flushes where libpmem2 says
that the medium is persistent memory, ``msync`` for files behind the page cache, nothing where
nothing would survive anyway. After that only function pointers are followed.
"""

import os

from rpmem.errors import (
    BufferRefused,
    ClosedError,
    FlushFailed,
    PoolSetError,
    RangeError,
    UsageError,
    from_oserror,
    remedy_of,
)

from rpmem.base.handles import refuse_copy
from rpmem.memory.nvdimm import is_persistent

cimport cython
from cpython.number cimport PyNumber_Index
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    Py_buffer,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.errno cimport ERANGE, EROFS, errno
from libc.limits cimport INT_MAX
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from posix.mman cimport (
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    munmap,
)
from posix.stat cimport S_ISREG, fstat, struct_stat
from posix.types cimport off_t
from posix.unistd cimport _SC_PAGESIZE, sysconf

from rpmem.memory.words cimport rpmem_copy_words
from rpmem.memory.libpmem2 cimport (
    PMEM2_GRANULARITY_CACHE_LINE,
    PMEM2_GRANULARITY_PAGE,
    PMEM2_PROT_READ,
    pmem2_config,
    pmem2_config_delete,
    pmem2_config_new,
    pmem2_config_set_length,
    pmem2_config_set_offset,
    pmem2_config_set_protection,
    pmem2_config_set_required_store_granularity,
    pmem2_config_set_vm_reservation,
    pmem2_errormsg,
    pmem2_map,
    pmem2_map_delete,
    pmem2_map_from_existing,
    pmem2_map_get_address,
    pmem2_map_get_store_granularity,
    pmem2_map_new,
    pmem2_source,
    pmem2_source_delete,
    pmem2_source_device_id,
    pmem2_source_device_usc,
    pmem2_source_from_anon,
    pmem2_source_from_fd,
    pmem2_vm_reservation,
    pmem2_vm_reservation_delete,
    pmem2_vm_reservation_new,
)
from rpmem.memory.media cimport (
    DEEP,
    FLUSH,
    PERSIST,
    across,
    act,
    errno_of,
    is_pmem,
    is_volatile,
    segment_t,
    set_medium_of_file,
    set_medium_pmem,
    set_medium_volatile,
    verb_t,
)
from rpmem.memory.refusal cimport refusal_first, refusal_free, refusal_init, refusal_note


cdef enum:
    # Below this many bytes a cache-line flush is over sooner than the GIL is handed back.
    FLUSH_WORTH_THE_GIL = 4096

cdef size_t PAGE = <size_t> sysconf(_SC_PAGESIZE)


cdef int region_copy_strict(void *destination, const void *source, size_t length) noexcept nogil:
    return rpmem_copy_words(<char *> destination, <const char *> source, length)


cdef inline int on_range(
    Region region, verb_t verb, uint64_t offset, uint64_t length,
) noexcept nogil:
    if not region_holds(region.size, offset, length):
        return ERANGE
    cdef int rc = refusal_first(&region.refusal)
    if rc != 0 or length == 0:
        return rc
    if region.segment_count == 1:
        rc = act(region.segments, verb, region.base + offset, length)
    else:
        rc = across(region.segments, region.segment_count, verb, offset, length)
    return refusal_note(&region.refusal, rc)


# The collector must not see the exporter behind `source`: it would take a memoryview apart while
# its buffer is still out, and giving the buffer back would then crash. As numpy's arrays.
@cython.no_gc
cdef class Region:
    """Contiguous memory that can be made durable; exports its bytes as a writable buffer.

    One that is mapped to be looked at exports a read-only buffer, and refuses to be made durable.

    Made by :meth:`map_parts`, :meth:`from_buffer` or :meth:`anonymous`. The mapping lives as
    long as anything uses it: :meth:`close` is refused while views exist.
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
        """Map parts of open files one behind the other.

        Parameters
        ----------
        parts : sequence of (fd, file_offset, length)
            Readable and, unless `writable` is false, writable files; offsets and lengths are
            multiples of the page size. The descriptors may be closed afterwards.
        force_pmem : bool
            Take the medium for persistent memory whatever libpmem2 finds. The environment's
            ``PMEM_IS_PMEM_FORCE`` does the same with 1, and the opposite with 0.
        writable : bool
            Whether the memory can be written to.

        Returns
        -------
        Region
        """
        wish = os.environ.get("PMEM_IS_PMEM_FORCE", "")
        cdef Region region = Region.__new__(Region)
        region.writable = writable
        prepare(region, parts)
        if force_pmem or wish == "1":
            map_plain(region, parts)
            take_for_pmem(region)
        elif wish == "0" or not map_pmem2(region, parts):
            map_plain(region, parts)
            classify_plain(region, parts)
        settle(region)
        return region

    @staticmethod
    def from_buffer(source, writable=True):
        """Take any C-contiguous buffer as a region; it is kept alive and unmoved.

        Its medium is "volatile": nothing is known about what lies below it.
        """
        if isinstance(source, Region):
            raise BufferRefused(
                "a Region was given where a plain buffer is expected",
                hint="use the Region itself: its medium would be lost")
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
        one_segment(region, <char *> region.source.buf, <uint64_t> region.source.len)
        only_to_be_read(region)
        region.label = type(source).__name__
        return region

    @staticmethod
    def anonymous(size):
        """Zeroed scratch memory that no file stands behind."""
        cdef uint64_t wanted = natural(size, "size")
        if wanted == 0 or wanted > <uint64_t> -1 - PAGE:
            raise RangeError(f"a region of {size} bytes cannot be made")
        cdef Region region = Region.__new__(Region)
        cdef size_t length = (wanted + PAGE - 1) & ~(PAGE - 1)
        region.mapping = mmap(
            NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if region.mapping == MAP_FAILED:
            region.mapping = NULL
            raise refused_memory(size, errno)
        region.mapping_length = length
        one_segment(region, <char *> region.mapping, wanted)
        region.label = "anonymous memory"
        return region

    # --- using ---

    @property
    def address(self):
        """Address of the first byte; 0 once closed."""
        return <uintptr_t> self.base

    @property
    def closed(self):
        """Whether the memory has been given back."""
        return self.base == NULL

    @property
    def refused(self):
        """The errno of what the medium refused first; 0 while it refused nothing.

        Every call that makes something durable raises it from then on: the kernel may have
        dropped what it could not write, and would say that all is well when asked again.
        """
        return refusal_first(&self.refusal)

    def refuse(self, int number):
        """Take the medium for one that refused, because a call beside the region failed.

        Parameters
        ----------
        number : int
            The errno, for instance of an fsync of a file below the region.
        """
        refusal_note(&self.refusal, number)

    def __len__(self):
        return <Py_ssize_t> self.size

    def persist(self, offset, length):
        """Make a range durable on this machine before returning.

        Raises
        ------
        RangeError
            The range is not inside the region.
        FlushFailed
            The medium refused; the range must not be taken for durable.
        """
        run(self, PERSIST, offset, length)

    def flush(self, offset, length):
        """Start writing a range back; :meth:`drain` waits for it."""
        run(self, FLUSH, offset, length)

    def drain(self):
        """Wait until every range flushed by this thread is durable."""
        alive(self)
        cdef int rc = self.c_drain()
        if rc != 0:
            raise failed(self, "drain", rc)

    def deep_persist(self, offset, length):
        """Make a range durable in the lowest domain that software can reach."""
        run(self, DEEP, offset, length)

    def write(self, offset, source):
        """Copy a buffer into the region, each aligned 8-byte word of it by a single store.

        Whoever looks meanwhile, and whatever crashes, sees every such word old or new. Nothing is
        flushed.
        """
        cdef uint64_t at = natural(offset, "offset")
        cdef Py_buffer data
        alive(self)
        if not self.writable:
            raise failed(self, "be written to", EROFS)
        PyObject_GetBuffer(source, &data, PyBUF_SIMPLE)
        try:
            within(self, at, <uint64_t> data.len)
            region_copy_strict(self.base + at, data.buf, <size_t> data.len)
        finally:
            PyBuffer_Release(&data)

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
        """Give the memory back; harmless when done twice.

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


# --- how a region is mapped and given back ----------------------------------------------------


cdef prepare(Region self, parts):
    cdef uint64_t total = 0, offset, length
    cdef struct_stat info
    if len(parts) == 0:
        raise UsageError("a region needs at least one part")
    self.segments = <segment_t *> calloc(len(parts), sizeof(segment_t))
    if self.segments == NULL:
        raise MemoryError()
    for index, part in enumerate(parts):
        try:
            fd, file_offset, part_length = part
        except (TypeError, ValueError) as error:
            raise UsageError(f"part {index} is no (descriptor, offset, length)") from error
        if natural(fd, "descriptor") > INT_MAX:
            raise RangeError(f"part {index}: {fd} is no descriptor")
        offset = natural(file_offset, "file offset")
        length = natural(part_length, "length")
        if length == 0 or offset % PAGE or length % PAGE:
            raise RangeError(
                f"part {index}: offset {offset} and length {length} must be multiples of "
                f"{PAGE} bytes")
        if fstat(<int> fd, &info) != 0:
            raise refused("examine", errno)
        if S_ISREG(info.st_mode) and not region_holds(info.st_size, offset, length):
            # Touching a page behind the end of the file would kill the process.
            raise RangeError(
                f"part {index}: {length} bytes at offset {offset} reach behind the end of "
                f"the file ({info.st_size} bytes)")
        if length > <uint64_t> (1 << 62) - total:
            raise RangeError("the parts are together larger than the address space")
        self.segments[index].start = total
        self.segments[index].length = length
        self.segments[index].file_offset = offset
        self.segments[index].refusal = &self.refusal
        total += length
        self.segment_count += 1
    self.size = total


cdef bint map_pmem2(Region self, parts) except -1:
    """Let libpmem2 map and classify every part; false where a plain mapping should be tried."""
    cdef pmem2_vm_reservation *reservation = NULL
    cdef segment_t *segment
    cdef int rc = 0
    cdef bint devices = False
    if self.segment_count > 1:
        rc = pmem2_vm_reservation_new(&reservation, NULL, self.size)
        self.reservation = reservation
    for index, (fd, _, _) in enumerate(parts):
        devices = devices or not is_regular(fd)
        if rc == 0:
            rc = map_one(&self.segments[index], <int> fd, reservation, self.writable)
    if rc == 0:
        self.base = self.segments[0].base
        for index, (fd, _, _) in enumerate(parts):
            segment = &self.segments[index]
            if pmem2_map_get_store_granularity(
                    <pmem2_map *> segment.map) == PMEM2_GRANULARITY_PAGE:
                classify(segment, fd)
            elif is_persistent(fd):
                set_medium_pmem(segment, False)
            elif is_regular(fd):
                # The file system knows how to flush; what that is worth is its device's.
                classify(segment, fd)
            else:
                set_medium_volatile(segment)
        return True
    if devices:
        # A device is never behind the page cache: msync would promise what it cannot keep.
        raise PoolSetError(
            f"libpmem2 cannot map it: {(<bytes> pmem2_errormsg()).decode(errors='replace')}",
            where=self.label, errno=errno_of(rc), hint=remedy_of(errno_of(rc)))
    unmap(self)
    return False


cdef map_plain(Region self, parts):
    cdef segment_t *segment
    cdef void *address
    self.mapping_length = self.size
    self.mapping = mmap(
        NULL, self.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if self.mapping == MAP_FAILED:
        self.mapping = NULL
        raise refused("map", errno)
    for index, (fd, _, _) in enumerate(parts):
        segment = &self.segments[index]
        address = mmap(
            <char *> self.mapping + segment.start, segment.length,
            PROT_READ | PROT_WRITE if self.writable else PROT_READ,
            MAP_FIXED | MAP_SHARED, <int> fd, <off_t> segment.file_offset)
        if address == MAP_FAILED:
            raise refused("map", errno)
        segment.base = <char *> address
    self.base = <char *> self.mapping


cdef classify_plain(Region self, parts):
    for index, (fd, _, _) in enumerate(parts):
        classify(&self.segments[index], fd)


cdef take_for_pmem(Region self):
    cdef pmem2_map *mapped
    cdef pmem2_source *source = NULL
    cdef segment_t *segment
    cdef int rc
    for index in range(self.segment_count):
        segment = &self.segments[index]
        mapped = NULL
        # Any source will do: libpmem2 only looks at the granularity it is told.
        rc = pmem2_source_from_anon(&source, segment.length)
        if rc == 0:
            rc = pmem2_map_from_existing(
                &mapped, source, segment.base, segment.length, PMEM2_GRANULARITY_CACHE_LINE)
            pmem2_source_delete(&source)
        if rc != 0:
            raise refused("take for pmem", errno_of(rc))
        segment.map = mapped
        set_medium_pmem(segment, True)


cdef one_segment(Region self, char *base, uint64_t length):
    self.segments = <segment_t *> calloc(1, sizeof(segment_t))
    if self.segments == NULL:
        raise MemoryError()
    self.segment_count = 1
    self.segments.base = base
    self.segments.length = length
    self.segments.refusal = &self.refusal
    set_medium_volatile(self.segments)
    self.base = base
    self.size = length


cdef settle(Region self):
    """Sum the segments up: the weakest medium names the region."""
    cdef segment_t *segment
    cdef bint pages = False, nothing = False
    cdef bint lines = False
    for index in range(self.segment_count):
        segment = &self.segments[index]
        if is_pmem(segment):
            self.fence = segment
            lines = lines or pmem2_map_get_store_granularity(
                <pmem2_map *> segment.map) == PMEM2_GRANULARITY_CACHE_LINE
        elif is_volatile(segment):
            nothing = True
        else:
            pages = True
    if nothing:
        self.medium = "volatile"
    else:
        self.medium = "page" if pages else "pmem"
    self.granularity = <int> PAGE if pages else 64 if lines else 1
    # Of persistent memory a flush over all would write back every line in between.
    self.spans = pages and self.fence == NULL
    if pages:
        self.gil_threshold = 1
    elif self.fence != NULL:
        self.gil_threshold = FLUSH_WORTH_THE_GIL
    only_to_be_read(self)


cdef only_to_be_read(Region self):
    """Let a medium that is only looked at refuse everything from the beginning."""
    if not self.writable:
        refusal_note(&self.refusal, EROFS)


cdef unmap(Region self):
    cdef pmem2_vm_reservation *reservation = <pmem2_vm_reservation *> self.reservation
    cdef pmem2_map *mapped
    for index in range(self.segment_count):
        mapped = <pmem2_map *> self.segments[index].map
        if mapped != NULL:
            pmem2_map_delete(&mapped)
        self.segments[index].map = NULL
        self.segments[index].base = NULL
    if reservation != NULL:
        pmem2_vm_reservation_delete(&reservation)
    self.reservation = NULL
    if self.mapping != NULL:
        munmap(self.mapping, self.mapping_length)
    self.mapping = NULL
    self.base = NULL


cdef release(Region self):
    unmap(self)
    free(self.segments)
    self.segments = NULL
    self.segment_count = 0
    self.fence = NULL
    self.size = 0
    if self.has_source:
        self.has_source = False
        PyBuffer_Release(&self.source)


cdef int map_one(
    segment_t *segment, int fd, pmem2_vm_reservation *reservation, bint writable,
) noexcept:
    cdef pmem2_config *config = NULL
    cdef pmem2_source *source = NULL
    cdef pmem2_map *mapped = NULL
    cdef int rc = pmem2_source_from_fd(&source, fd)
    if rc == 0:
        rc = pmem2_config_new(&config)
    if rc == 0:
        rc = pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE)
    if rc == 0:
        rc = pmem2_config_set_offset(config, segment.file_offset)
    if rc == 0:
        rc = pmem2_config_set_length(config, segment.length)
    if rc == 0 and not writable:
        rc = pmem2_config_set_protection(config, PMEM2_PROT_READ)
    if rc == 0 and reservation != NULL:
        rc = pmem2_config_set_vm_reservation(config, reservation, segment.start)
    if rc == 0:
        rc = pmem2_map_new(&mapped, config, source)
    if rc == 0:
        segment.map = mapped
        segment.base = <char *> pmem2_map_get_address(mapped)
    if config != NULL:
        pmem2_config_delete(&config)
    if source != NULL:
        pmem2_source_delete(&source)
    return rc


cdef classify(segment_t *segment, int fd):
    cdef int rc = set_medium_of_file(segment, fd)
    if rc != 0:
        raise refused("examine", rc)


cdef bint is_regular(int fd) except -1:
    cdef struct_stat info
    if fstat(fd, &info) != 0:
        raise refused("examine", errno)
    return S_ISREG(info.st_mode)


cdef refused(what, int rc):
    return from_oserror(OSError(rc, os.strerror(rc)), f"cannot {what} a part")


cdef refused_memory(size, int rc):
    return from_oserror(
        OSError(rc, os.strerror(rc)), "there is no memory", where=f"{size} bytes of scratch memory")


cdef uint64_t natural(object value, str name) except? <uint64_t> -1:
    cdef long long number
    try:
        number = PyNumber_Index(value)  # no float: half a byte is a mistake
    except OverflowError:
        number = -1
    if number < 0:
        raise RangeError(f"{name} {value} is negative or too large")
    return <uint64_t> number


def device_identity(fd):
    """Return what a device below a file says of itself: (unsafe shutdowns, id).

    Returns
    -------
    tuple of (int, bytes)
        ``(0, b"")`` for all that is not an NVDIMM.
    """
    cdef pmem2_source *source = NULL
    cdef uint64_t shutdowns = 0
    cdef size_t length = 0
    cdef char *identity = NULL
    if pmem2_source_from_fd(&source, <int> fd) != 0:
        return 0, b""
    try:
        if pmem2_source_device_usc(source, &shutdowns) != 0:
            shutdowns = 0
        if pmem2_source_device_id(source, NULL, &length) != 0 or length == 0:
            return shutdowns, b""
        # Zeroed: libpmem2 appends to what is there.
        identity = <char *> calloc(length + 1, 1)
        if identity == NULL:
            raise MemoryError()
        if pmem2_source_device_id(source, identity, &length) != 0:
            return shutdowns, b""
        return shutdowns, <bytes> identity
    finally:
        free(identity)
        pmem2_source_delete(&source)


# --- errors and arguments ----------------------------------------------------------------------

cdef run(Region self, verb_t verb, object offset, object length):
    cdef uint64_t at, count
    cdef int rc
    at = natural(offset, "offset")
    count = natural(length, "length")
    alive(self)
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
    if not region_holds(self.size, offset, length):
        raise RangeError(
            f"{length} bytes at offset {offset} are not inside the {self.size} bytes there are",
            where=self.label)


cdef alive(Region self):
    if self.base == NULL:
        raise ClosedError("the region is closed", where=self.label)


cdef failed(Region self, what, int rc):
    if not self.writable:
        return UsageError("it is mapped only to be looked at", where=self.label, errno=EROFS)
    return FlushFailed(
        f"the medium refused to {what}: {os.strerror(rc)}", where=self.label, errno=rc,
        hint="what was written since the last success may be lost, and every later call fails, "
             "too: see to the device, then close the pool and open it again")
