# cython: language_level=3
"""Media for tests: every flush of a region calls a Python function.

Built by tests.support.compiled; never part of the package.
"""

import sys
import weakref

from libc.errno cimport EIO, errno
from libc.stdint cimport uint64_t, uintptr_t
from posix.mman cimport MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap
from posix.types cimport off_t

from rpmem.memory.media cimport segment_t
from rpmem.memory.region cimport Region

# The function of each region, under the address of each of its segments.
cdef dict CALLS = {}


cdef int told(segment_t *segment, str verb, uint64_t offset, size_t length) noexcept:
    try:
        return CALLS[<uintptr_t> segment][0](verb, offset, length) or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return EIO


cdef int told_flush(segment_t *segment, char *address, size_t length) noexcept nogil:
    with gil:
        return told(segment, "flush", segment.start + (address - segment.base), length)


cdef int told_persist(segment_t *segment, char *address, size_t length) noexcept nogil:
    with gil:
        return told(segment, "persist", segment.start + (address - segment.base), length)


cdef int told_deep(segment_t *segment, char *address, size_t length) noexcept nogil:
    with gil:
        return told(segment, "deep", segment.start + (address - segment.base), length)


cdef int told_drain(segment_t *segment) noexcept nogil:
    with gil:
        return told(segment, "drain", 0, 0)


def forget(key, mine):
    # Segments are given back when a region is closed: the address may be another's by now.
    if CALLS.get(key) is mine:
        del CALLS[key]


def hook(Region region, call, *, str medium="page"):
    """Let a function stand behind the flushes of a region, whatever medium it was.

    Parameters
    ----------
    region : Region
        Just mapped.
    call : callable
        ``call(verb, offset, length)`` returns 0 (or None), or an errno: the medium refuses. `verb`
        is "flush", "persist", "deep" or "drain", the range is of the region, one call for each
        part that it touches.
    medium : {"page", "pmem", "volatile"}
        What it passes for; only "pmem" is ever drained.
    """
    cdef int index
    cdef segment_t *segment
    mine = [call]
    for index in range(region.segment_count):
        segment = &region.mapped.segments[index]
        segment.flush = told_flush
        segment.persist = told_persist
        segment.deep = told_deep
        segment.drain = told_drain
        CALLS[<uintptr_t> segment] = mine
        weakref.finalize(region, forget, <uintptr_t> segment, mine)
    region.fence = region.mapped.segments if medium == "pmem" else NULL
    region.medium = medium
    region.granularity = {"page": 4096, "pmem": 64, "volatile": 1}[medium]
    region.spans = medium == "page"
    region.gil_threshold = 1


cdef extern from *:
    ctypedef struct refusal_seen_t "rpmem_refusal":
        int first


def forget_refusal(Region region):
    """Let a region forget that its medium refused: as if only the failed call had been told.

    Parameters
    ----------
    region : Region
        Which nobody flushes meanwhile.
    """
    (<refusal_seen_t *> &region.refusal).first = 0


def make_private(Region region, spans):
    """Let the memory of a region be a private copy of its files: no store reaches them by itself.

    Parameters
    ----------
    region : Region
        Made of `spans`.
    spans : sequence of (fd, file_offset, length)
        Its parts.
    """
    cdef segment_t *segment
    cdef void *address
    for index, (fd, file_offset, _) in enumerate(spans):
        segment = &region.mapped.segments[index]
        address = mmap(segment.base, segment.length, PROT_READ | PROT_WRITE,
                       MAP_FIXED | MAP_PRIVATE, <int> fd, <off_t> file_offset)
        if address == MAP_FAILED:
            raise OSError(errno, "a part cannot be mapped privately")
