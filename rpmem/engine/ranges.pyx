"""Which bytes of a pool an object means: a pair, a buffer, or a strided view."""

cimport cython
from cpython.buffer cimport (
    PyBUF_STRIDES, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from rpmem.base.bounds cimport is_outside

from rpmem.errors import BufferRefused, RangeError

# Gaps up to a cache line are not worth a range of their own: the line is flushed anyway.
cdef enum:
    GAP = 64
    MOST_DIMENSIONS = 64


cdef void ranges_init(ranges_t *ranges) noexcept:
    ranges.items = ranges.few
    ranges.count = 0
    ranges.capacity = RANGES_INLINE


cdef void ranges_free(ranges_t *ranges) noexcept:
    if ranges.items != ranges.few:
        free(ranges.items)
    ranges.items = ranges.few


cdef int reserve(ranges_t *ranges, size_t count) except -1:
    cdef range_t *items
    if count <= ranges.capacity:
        return 0
    if ranges.items == ranges.few:
        items = <range_t *> malloc(count * sizeof(range_t))
        if items != NULL:
            memcpy(items, ranges.few, ranges.count * sizeof(range_t))
    else:
        items = <range_t *> realloc(ranges.items, count * sizeof(range_t))
    if items == NULL:
        raise MemoryError(f"no memory for {count} ranges")
    ranges.items = items
    ranges.capacity = count
    return 0


cdef int outside(object x) except -1:
    raise RangeError(
        f"the {type(x).__name__} given does not lie inside the pool: persist takes arrays and "
        "views that the pool handed out",
        hint="indexing with a list or a mask (a[[1, 2]], a[a > 0]) copies, and so do most "
             "operations: assign into what pool.array(...) gave, and persist a slice of that or "
             "(offset, length)")


cdef int strided(ranges_t *ranges, const char *base, Py_ssize_t itemsize, int dimensions,
                 const Py_ssize_t *shape, const Py_ssize_t *strides, const char *pool,
                 uint64_t size, object x) except -1:
    """Append the ranges of a strided view: as few as cover it without gaps over a line."""
    cdef int64_t extent[MOST_DIMENSIONS]
    cdef int64_t step[MOST_DIMENSIONS]
    cdef int64_t counter[MOST_DIMENSIONS]
    cdef int64_t block = itemsize, offset, last, e, s
    cdef uint64_t low, span
    cdef size_t total = 1
    cdef int n = 0, i, j
    if dimensions > MOST_DIMENSIONS:
        raise BufferRefused(f"an array of {dimensions} dimensions cannot be persisted")
    for i in range(dimensions):
        if shape[i] == 0:
            return 0
        if shape[i] == 1 or strides[i] == 0:
            continue
        e, s = shape[i], strides[i]
        # As an unsigned number: the smallest stride has no positive one.
        span = <uint64_t> s if s > 0 else 0 - <uint64_t> s
        if span > size // <uint64_t> (e - 1):
            outside(x)
        if s < 0:
            base += (e - 1) * s
            s = -s
        # insertion sort, smallest step first
        j = n
        while j > 0 and step[j - 1] > s:
            step[j], extent[j] = step[j - 1], extent[j - 1]
            j -= 1
        step[j], extent[j] = s, e
        n += 1
    # Runs of items, or of runs, that nearly touch are one range.
    j = 0
    while j < n and step[j] <= block + GAP:
        block = (extent[j] - 1) * step[j] + block
        j += 1
    last = block
    for i in range(j, n):
        # Beyond the bound below the exact number does not matter.
        total = total * extent[i] if total <= size else total
        last += (extent[i] - 1) * step[i]
        counter[i] = 0
    low = <uint64_t> base - <uint64_t> pool
    if <uint64_t> base < <uint64_t> pool or is_outside(low, <uint64_t> last, 0, size):
        outside(x)
    if total > size // sizeof(range_t):
        # More runs than lie apart from each other: they overlap, and all of them cost less.
        reserve(ranges, ranges.count + 1)
        ranges.items[ranges.count].offset = low
        ranges.items[ranges.count].length = <uint64_t> last
        ranges.count += 1
        return 0
    reserve(ranges, ranges.count + total)
    offset = <int64_t> low
    while True:
        ranges.items[ranges.count].offset = <uint64_t> offset
        ranges.items[ranges.count].length = <uint64_t> block
        ranges.count += 1
        i = j
        while i < n:
            counter[i] += 1
            offset += step[i]
            if counter[i] < extent[i]:
                break
            offset -= extent[i] * step[i]
            counter[i] = 0
            i += 1
        if i == n:
            return 0


# The interface is somebody else's: its sequences are as long as they are.
@cython.boundscheck(True)
cdef int from_interface(ranges_t *ranges, object x, const char *pool, uint64_t size) except -1:
    """Arrays whose dtype the buffer protocol cannot describe (datetime64, for one)."""
    cdef Py_ssize_t shape[MOST_DIMENSIONS]
    cdef Py_ssize_t strides[MOST_DIMENSIONS]
    cdef Py_ssize_t step
    cdef int i, n
    cdef Py_ssize_t itemsize
    cdef size_t data
    try:
        interface = x.__array_interface__
        n = len(interface["shape"])
        if n > MOST_DIMENSIONS:
            raise BufferRefused(f"an array of {n} dimensions cannot be persisted")
        itemsize = x.itemsize
        given = interface.get("strides")
        data = interface["data"][0]
        for i in range(n):
            shape[i] = interface["shape"][i]
            if given is not None:
                strides[i] = given[i]
            if shape[i] < 0 or itemsize < 0:
                raise ValueError("a size is negative")
            if shape[i] == 0 or itemsize == 0:
                return 0
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise BufferRefused(
            f"the __array_interface__ of the {type(x).__name__} means nothing: {error}") from error
    if given is None:
        step = itemsize
        for i in range(n - 1, -1, -1):
            strides[i] = step
            if <uint64_t> step > size // <uint64_t> shape[i]:
                outside(x)
            step *= shape[i]
    return strided(ranges, <const char *> data, itemsize, n, shape, strides, pool, size, x)


cdef extern from "Python.h":
    # Declared without an exception: who calls it looks for one.
    unsigned long long plain_number "PyLong_AsUnsignedLongLong"(object number) noexcept


cdef bint plain_pair(range_t *out, object offset, object length) noexcept:
    """The usual case, two ints that fit; False when it is anything else."""
    cdef uint64_t most = <uint64_t> -1
    if type(offset) is not int or type(length) is not int:
        return False
    out.offset = plain_number(offset)
    out.length = plain_number(length)
    if (out.offset == most or out.length == most) and PyErr_Occurred():
        PyErr_Clear()
        return False
    return True


cdef int natural(object number, uint64_t *out) except -1:
    """An integer of any type, but no float: half a byte is a mistake."""
    out[0] = number if type(number) is int else PyNumber_Index(number)
    return 0


cdef int range_of(range_t *out, object offset, object length, uint64_t size) except -1:
    """The range of two integers; RangeError when one is none, or cannot lie in any pool."""
    if plain_pair(out, offset, length):
        return 0
    try:
        natural(offset, &out.offset)
        natural(length, &out.length)
    except OverflowError as error:
        raise RangeError(f"the range ({offset}, {length}) is outside the pool of {size} bytes"
                         ) from error
    except TypeError as error:
        raise RangeError(f"a range is a pair of integers, not ({offset!r}, {length!r})"
                         ) from error
    return 0


cdef int ranges_of(ranges_t *ranges, object x, const char *pool, uint64_t size) except -1:
    """Append the ranges that `x` means; RangeError or BufferRefused when it means none."""
    cdef Py_buffer view
    cdef uint64_t low
    cdef int i
    if type(x) is tuple:
        if len(<tuple> x) != 2:
            raise RangeError(f"a range is (offset, length), not a tuple of {len(x)}")
        reserve(ranges, ranges.count + 1)
        range_of(&ranges.items[ranges.count], (<tuple> x)[0], (<tuple> x)[1], size)
        if ranges.items[ranges.count].length:
            ranges.count += 1
        return 0
    if not PyObject_CheckBuffer(x):
        raise BufferRefused(
            f"there is no memory to persist in an object of type {type(x).__name__}",
            hint="pass an array or view of the pool, (offset, length), or nothing for all")
    try:
        PyObject_GetBuffer(x, &view, PyBUF_STRIDES)
    except (ValueError, BufferError) as error:
        if hasattr(x, "__array_interface__"):
            return from_interface(ranges, x, pool, size)
        raise BufferRefused(
            f"the memory of the {type(x).__name__} cannot be persisted: {error}") from error
    try:
        if view.len == 0:
            return 0
        if view.suboffsets != NULL:
            # Exporters that follow pointers owe us a refusal; not all of them pay.
            for i in range(view.ndim):
                if view.suboffsets[i] >= 0:
                    raise BufferRefused(
                        f"the memory of the {type(x).__name__} is not in one piece")
        # Without strides, as ctypes exports, or without a shape: one behind the other.
        if (view.ndim == 0 or view.shape == NULL or view.strides == NULL
                or view.ndim == 1 and view.strides[0] == view.itemsize):
            low = <uint64_t> view.buf - <uint64_t> pool
            if (<uint64_t> view.buf >= <uint64_t> pool
                    and not is_outside(low, <uint64_t> view.len, 0, size)):
                reserve(ranges, ranges.count + 1)
                ranges.items[ranges.count].offset = low
                ranges.items[ranges.count].length = <uint64_t> view.len
                ranges.count += 1
                return 0
            outside(x)
        return strided(ranges, <const char *> view.buf, view.itemsize, view.ndim, view.shape,
                       view.strides, pool, size, x)
    finally:
        PyBuffer_Release(&view)
