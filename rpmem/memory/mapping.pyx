"""How memory is mapped, and how the medium of each segment is found out.

libpmem2 maps and classifies what it can; anything else is mapped plainly and classified by its file
system. Where there is no libpmem2, that is all but devices, which are refused. As in PMDK,
`PMEM_IS_PMEM_FORCE` decides instead if it is set.
"""

import os

from rpmem.base.remedies import from_oserror, remedy_of
from rpmem.errors import MissingExtension, PoolSetError, RangeError, UsageError

from rpmem.memory.nvdimm import is_persistent

from cpython.number cimport PyNumber_Index
from libc.errno cimport errno
from libc.limits cimport INT_MAX
from libc.stdint cimport uint64_t
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

from rpmem.base.bounds cimport is_outside
from rpmem.memory.libpmem2 cimport (
    PMEM2_GRANULARITY_CACHE_LINE,
    PMEM2_GRANULARITY_PAGE,
    PMEM2_PROT_READ,
    bind_libpmem2,
    pmem2_config,
    pmem2_config_delete,
    pmem2_config_new,
    pmem2_config_set_length,
    pmem2_config_set_offset,
    pmem2_config_set_protection,
    pmem2_config_set_required_store_granularity,
    pmem2_config_set_vm_reservation,
    pmem2_deep_flush,
    pmem2_errormsg,
    pmem2_get_drain_fn,
    pmem2_get_flush_fn,
    pmem2_get_persist_fn,
    pmem2_map,
    pmem2_map_delete,
    pmem2_map_from_existing,
    pmem2_map_get_address,
    pmem2_map_get_store_granularity,
    pmem2_map_new,
    pmem2_source,
    pmem2_source_delete,
    pmem2_source_from_anon,
    pmem2_source_from_fd,
    pmem2_vm_reservation,
    pmem2_vm_reservation_delete,
    pmem2_vm_reservation_new,
)
from rpmem.memory.media cimport (
    errno_of,
    segment_t,
    set_medium_of_file,
    set_medium_pmem,
    set_medium_volatile,
)
from rpmem.memory.refusal cimport refusal_t

cdef extern from "rpmem/memory/dax.h" nogil:
    int rpmem_is_dax(int folder, const char *path)

cdef enum:
    MOST_AT_ONCE = 64

cdef size_t PAGE = <size_t> sysconf(_SC_PAGESIZE)
cdef bint HAS_PMEM2 = False


cdef int mapping_of_parts(mapping_t *mapping, object parts, refusal_t *refusal, bint force_pmem,
                          bint writable, str label) except -1:
    wish = os.environ.get("PMEM_IS_PMEM_FORCE", "")
    prepare(mapping, parts, refusal)
    if force_pmem or wish == "1":
        need_pmem2(label)
        map_plain(mapping, parts, writable)
        take_for_pmem(mapping)
    elif wish == "0" or not map_pmem2(mapping, parts, writable, label):
        map_plain(mapping, parts, writable)
        classify_plain(mapping, parts)
    return 0


cdef int mapping_of_memory(mapping_t *mapping, char *base, uint64_t length,
                           refusal_t *refusal) except -1:
    mapping.segments = <segment_t *> calloc(1, sizeof(segment_t))
    if mapping.segments == NULL:
        raise MemoryError()
    mapping.count = 1
    mapping.segments.base = base
    mapping.segments.length = length
    mapping.segments.refusal = refusal
    set_medium_volatile(mapping.segments)
    mapping.base = base
    mapping.size = length
    return 0


cdef int mapping_of_zeros(mapping_t *mapping, object size, refusal_t *refusal) except -1:
    cdef uint64_t wanted = natural(size, "size")
    if wanted == 0 or wanted > <uint64_t> -1 - PAGE:
        raise RangeError(f"a region cannot have {size} bytes")
    mapping.reserved_length = (wanted + PAGE - 1) & ~(PAGE - 1)
    mapping.reserved = mmap(NULL, mapping.reserved_length, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if mapping.reserved == MAP_FAILED:
        mapping.reserved = NULL
        raise refused_memory(size, errno)
    return mapping_of_memory(mapping, <char *> mapping.reserved, wanted, refusal)


cdef void mapping_release(mapping_t *mapping) noexcept:
    unmap(mapping)
    free(mapping.segments)
    mapping.segments = NULL
    mapping.count = 0
    mapping.size = 0


cdef int mapping_leave(mapping_t *mapping, object descriptors) except -1:
    cdef int fds[MOST_AT_ONCE]
    cdef int first, index, count, rc
    for first in range(0, mapping.count, MOST_AT_ONCE):
        count = min(mapping.count - first, <int> MOST_AT_ONCE)
        for index in range(count):
            fds[index] = descriptors[first + index]
        with nogil:
            rc = leave(&mapping.segments[first], fds, count)
        if rc != 0:
            raise refused("separate memory from", rc)
    return 0


cdef int leave(const segment_t *segments, const int *fds, int count) noexcept nogil:
    """Replace mappings by private ones of the same bytes, each at once for all threads."""
    cdef int index
    for index in range(count):
        # Not reserved: nearly all of it stays a view of the file.
        if mmap(segments[index].base, segments[index].length, PROT_READ | PROT_WRITE,
                MAP_FIXED | MAP_PRIVATE | MAP_NORESERVE, fds[index],
                <off_t> segments[index].file_offset) == MAP_FAILED:
            return errno
    return 0


cdef int prepare(mapping_t *mapping, object parts, refusal_t *refusal) except -1:
    """Check every part and describe its segment; nothing is mapped yet."""
    cdef uint64_t total = 0, offset, length
    cdef struct_stat info
    if len(parts) == 0:
        raise UsageError("a region needs at least one part")
    mapping.segments = <segment_t *> calloc(len(parts), sizeof(segment_t))
    if mapping.segments == NULL:
        raise MemoryError()
    for index, part in enumerate(parts):
        try:
            fd, file_offset, part_length = part
        except (TypeError, ValueError) as error:
            raise UsageError(f"part {index} is not (descriptor, offset, length)") from error
        if natural(fd, "descriptor") > INT_MAX:
            raise RangeError(f"part {index}: {fd} is not a descriptor")
        offset = natural(file_offset, "file offset")
        length = natural(part_length, "length")
        if length == 0 or offset % PAGE or length % PAGE:
            raise RangeError(
                f"part {index}: offset {offset} and length {length} must be multiples of "
                f"{PAGE} bytes")
        if fstat(<int> fd, &info) != 0:
            raise refused("examine", errno)
        mapping.segments[index].direct = not S_ISREG(info.st_mode) or rpmem_is_dax(<int> fd, "")
        if S_ISREG(info.st_mode) and is_outside(offset, length, 0, info.st_size):
            # Touching a page beyond the end of the file would kill the process.
            raise RangeError(
                f"part {index}: {length} bytes at offset {offset} reach beyond the end of "
                f"the file ({info.st_size} bytes)")
        if length > <uint64_t> (1 << 62) - total:
            raise RangeError("the parts are together larger than the address space")
        mapping.segments[index].start = total
        mapping.segments[index].length = length
        mapping.segments[index].file_offset = offset
        mapping.segments[index].refusal = refusal
        total += length
        mapping.count += 1
    mapping.size = total
    return 0


cdef bint map_pmem2(mapping_t *mapping, object parts, bint writable, str label) except -1:
    """Let libpmem2 map and classify every part; false if a plain mapping should be tried."""
    cdef pmem2_vm_reservation *reservation = NULL
    cdef segment_t *segment
    cdef int rc = 0
    cdef bint devices = False
    try:
        need_pmem2(label)
    except MissingExtension:
        # A device is never behind the page cache: msync would make a promise it cannot keep.
        if not all(is_regular(fd) for fd, _, _ in parts):
            raise
        return False
    if mapping.count > 1:
        rc = pmem2_vm_reservation_new(&reservation, NULL, mapping.size)
        mapping.reservation = reservation
    for index, (fd, _, _) in enumerate(parts):
        devices = devices or not is_regular(fd)
        if rc == 0:
            rc = map_one(&mapping.segments[index], <int> fd, reservation, writable)
    if rc == 0:
        mapping.base = mapping.segments[0].base
        for index, (fd, _, _) in enumerate(parts):
            segment = &mapping.segments[index]
            if pmem2_map_get_store_granularity(
                    <pmem2_map *> segment.map) == PMEM2_GRANULARITY_PAGE:
                classify(segment, fd)
            elif is_persistent(fd):
                set_medium_pmem(segment, False)
            elif is_regular(fd):
                # The file system knows how to flush; what that is worth depends on its device.
                classify(segment, fd)
            else:
                set_medium_volatile(segment)
        return True
    if devices:
        raise PoolSetError(
            f"libpmem2 cannot map it: {(<bytes> pmem2_errormsg()).decode(errors='replace')}",
            where=label, errno=errno_of(rc), hint=remedy_of(errno_of(rc)))
    unmap(mapping)
    return False


cdef int map_plain(mapping_t *mapping, object parts, bint writable) except -1:
    """Map every part, whatever its medium."""
    cdef segment_t *segment
    cdef void *address
    mapping.reserved_length = mapping.size
    mapping.reserved = mmap(
        NULL, mapping.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if mapping.reserved == MAP_FAILED:
        mapping.reserved = NULL
        raise refused("map", errno)
    for index, (fd, _, _) in enumerate(parts):
        segment = &mapping.segments[index]
        address = mmap(
            <char *> mapping.reserved + segment.start, segment.length,
            PROT_READ | PROT_WRITE if writable else PROT_READ,
            MAP_FIXED | MAP_SHARED, <int> fd, <off_t> segment.file_offset)
        if address == MAP_FAILED:
            raise refused("map", errno)
        segment.base = <char *> address
    mapping.base = <char *> mapping.reserved
    return 0


cdef int take_for_pmem(mapping_t *mapping) except -1:
    cdef pmem2_map *mapped
    cdef pmem2_source *source = NULL
    cdef segment_t *segment
    cdef int rc
    for index in range(mapping.count):
        segment = &mapping.segments[index]
        mapped = NULL
        # Any source works: libpmem2 only looks at the granularity given.
        rc = pmem2_source_from_anon(&source, segment.length)
        if rc == 0:
            rc = pmem2_map_from_existing(
                &mapped, source, segment.base, segment.length, PMEM2_GRANULARITY_CACHE_LINE)
            pmem2_source_delete(&source)
        if rc != 0:
            raise refused("take for pmem", errno_of(rc))
        use_map(segment, mapped)
        set_medium_pmem(segment, True)
    return 0


cdef void unmap(mapping_t *mapping) noexcept:
    cdef pmem2_vm_reservation *reservation = <pmem2_vm_reservation *> mapping.reservation
    cdef pmem2_map *mapped
    for index in range(mapping.count):
        mapped = <pmem2_map *> mapping.segments[index].map
        if mapped != NULL:
            pmem2_map_delete(&mapped)
        mapping.segments[index].map = NULL
        mapping.segments[index].base = NULL
    if reservation != NULL:
        pmem2_vm_reservation_delete(&reservation)
    mapping.reservation = NULL
    if mapping.reserved != NULL:
        munmap(mapping.reserved, mapping.reserved_length)
    mapping.reserved = NULL
    mapping.base = NULL


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
        use_map(segment, mapped)
        segment.base = <char *> pmem2_map_get_address(mapped)
    if config != NULL:
        pmem2_config_delete(&config)
    if source != NULL:
        pmem2_source_delete(&source)
    return rc


cdef void use_map(segment_t *segment, pmem2_map *mapped) noexcept:
    """Keep a mapping of libpmem2, and how it is flushed."""
    segment.map = mapped
    segment.pmem_flush = pmem2_get_flush_fn(mapped)
    segment.pmem_persist = pmem2_get_persist_fn(mapped)
    segment.pmem_drain = pmem2_get_drain_fn(mapped)
    segment.pmem_deep = deep_flush
    known = pmem2_map_get_store_granularity(mapped)
    segment.pmem_unit = 64 if known == PMEM2_GRANULARITY_CACHE_LINE else 1


cdef int deep_flush(void *mapped, void *address, size_t length) noexcept nogil:
    return pmem2_deep_flush(<pmem2_map *> mapped, address, length)


cdef int need_pmem2(str label) except -1:
    """Open libpmem2, at the first call that does."""
    global HAS_PMEM2
    if not HAS_PMEM2:
        try:
            bind_libpmem2()
        except MissingExtension as error:
            error.at(label)
            raise
        HAS_PMEM2 = True
    return 0


cdef int classify(segment_t *segment, int fd) except -1:
    cdef int rc = set_medium_of_file(segment, fd)
    if rc != 0:
        raise refused("examine", rc)
    return 0


cdef int classify_plain(mapping_t *mapping, object parts) except -1:
    for index, (fd, _, _) in enumerate(parts):
        classify(&mapping.segments[index], fd)
    return 0


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
        number = PyNumber_Index(value)  # not a float: half a byte is a mistake
    except OverflowError:
        number = -1
    if number < 0:
        raise RangeError(f"{name} {value} is negative or too large")
    return <uint64_t> number
