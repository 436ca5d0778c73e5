"""The bytes of a pool that an object stands for: a pair, a buffer, or a strided view."""

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_STRIDES, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from rpmem.base.bounds cimport is_outside

from rpmem.errors import BufferRefused, RangeError

# Gaps up to a cache line are not worth a separate range: the line is flushed anyway.
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
        "views that belong to the pool",
        hint="indexing with a list or a mask (a[[1, 2]], a[a > 0]) copies, and so do most "
             "operations: assign to what pool.array(...) returned, and persist a slice of that, or "
             "(offset, length)")


# A view as repeated steps from one block of bytes to the next, the smallest step first.
ctypedef struct walk_t:
    const char *base              # the first byte
    int64_t block                 # contiguous bytes
    int count
    int64_t extent[MOST_DIMENSIONS]
    int64_t step[MOST_DIMENSIONS]


cdef int walk_of(walk_t *walk, int dimensions, const Py_ssize_t *shape, const Py_ssize_t *strides,
                 uint64_t size, object x) except -1:
    """Sort the dimensions that matter; 0 if the view has no elements."""
    cdef int64_t e, s
    cdef uint64_t span
    cdef int i, j
    walk.count = 0
    for i in range(dimensions):
        if shape[i] == 0:
            return 0
        if shape[i] == 1 or strides[i] == 0:
            continue
        e, s = shape[i], strides[i]
        # Unsigned: the most negative stride has no signed absolute value.
        span = <uint64_t> s if s > 0 else 0 - <uint64_t> s
        if span > size // <uint64_t> (e - 1):
            outside(x)
        if s < 0:
            walk.base += (e - 1) * s
            s = -s
        # insertion sort
        j = walk.count
        while j > 0 and walk.step[j - 1] > s:
            walk.step[j], walk.extent[j] = walk.step[j - 1], walk.extent[j - 1]
            j -= 1
        walk.step[j], walk.extent[j] = s, e
        walk.count += 1
    return 1


cdef void append_runs(ranges_t *ranges, const walk_t *walk, int first, uint64_t low) noexcept:
    """Append a range for each block, for the steps from `first` on; there is room for them."""
    cdef int64_t counter[MOST_DIMENSIONS]
    cdef int64_t offset = <int64_t> low
    cdef int i
    for i in range(first, walk.count):
        counter[i] = 0
    while True:
        ranges.items[ranges.count].offset = <uint64_t> offset
        ranges.items[ranges.count].length = <uint64_t> walk.block
        ranges.count += 1
        i = first
        while i < walk.count:
            counter[i] += 1
            offset += walk.step[i]
            if counter[i] < walk.extent[i]:
                break
            offset -= walk.extent[i] * walk.step[i]
            counter[i] = 0
            i += 1
        if i == walk.count:
            return


cdef int strided(ranges_t *ranges, const char *base, Py_ssize_t itemsize, int dimensions,
                 const Py_ssize_t *shape, const Py_ssize_t *strides, const char *pool,
                 uint64_t size, object x) except -1:
    """Append the ranges of a strided view: as few as possible, with gaps up to a line."""
    cdef walk_t walk
    cdef int64_t last
    cdef uint64_t low
    cdef size_t total = 1
    cdef int first = 0, i
    if dimensions > MOST_DIMENSIONS:
        raise BufferRefused(f"an array of {dimensions} dimensions cannot be persisted")
    walk.base = base
    walk.block = itemsize
    if not walk_of(&walk, dimensions, shape, strides, size, x):
        return 0
    # Runs of items, or of runs, that nearly touch become one range.
    while first < walk.count and walk.step[first] <= walk.block + GAP:
        walk.block = (walk.extent[first] - 1) * walk.step[first] + walk.block
        first += 1
    last = walk.block
    for i in range(first, walk.count):
        # Beyond the bound below the exact number does not matter.
        total = total * walk.extent[i] if total <= size else total
        last += (walk.extent[i] - 1) * walk.step[i]
    low = <uint64_t> walk.base - <uint64_t> pool
    if <uint64_t> walk.base < <uint64_t> pool or is_outside(low, <uint64_t> last, 0, size):
        outside(x)
    if total > size // sizeof(range_t):
        # More runs than fit without overlapping: one range over all of them costs less.
        reserve(ranges, ranges.count + 1)
        ranges.items[ranges.count].offset = low
        ranges.items[ranges.count].length = <uint64_t> last
        ranges.count += 1
        return 0
    reserve(ranges, ranges.count + total)
    append_runs(ranges, &walk, first, low)
    return 0


# The interface comes from foreign code, so the lengths of its sequences are not trusted.
@cython.boundscheck(True)
cdef int from_interface(ranges_t *ranges, object x, const char *pool, uint64_t size) except -1:
    """Arrays whose dtype the buffer protocol cannot describe, such as datetime64."""
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
            f"the __array_interface__ of the {type(x).__name__} makes no sense: {error}") from error
    if given is None:
        step = itemsize
        for i in range(n - 1, -1, -1):
            strides[i] = step
            if <uint64_t> step > size // <uint64_t> shape[i]:
                outside(x)
            step *= shape[i]
    return strided(ranges, <const char *> data, itemsize, n, shape, strides, pool, size, x)


cdef extern from "Python.h":
    # Declared without an exception: its caller checks for one.
    unsigned long long plain_number "PyLong_AsUnsignedLongLong"(object number) noexcept


cdef bint plain_pair(range_t *out, object offset, object length) noexcept:
    """The usual case, two ints that fit; False for anything else."""
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
    """An integer of any type, but not a float: half a byte is a mistake."""
    out[0] = number if type(number) is int else PyNumber_Index(number)
    return 0


cdef int range_of(range_t *out, object offset, object length, uint64_t size) except -1:
    """Make a range of two integers; RangeError if one is not, or cannot be in any pool."""
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
    """Append the ranges that `x` stands for; RangeError or BufferRefused if there are none."""
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
            hint="pass an array or view of the pool, (offset, length), or nothing for all of it")
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
            # Exporters with suboffsets should have refused the request; not all of them do.
            for i in range(view.ndim):
                if view.suboffsets[i] >= 0:
                    raise BufferRefused(
                        f"the memory of the {type(x).__name__} is not in one piece")
        # Without strides, like ctypes exports, or without a shape: the items are contiguous.
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


cdef uint64_t offset_of(object offset, uint64_t size) except? <uint64_t> -1:
    cdef range_t wanted
    range_of(&wanted, offset, 0, size)
    return wanted.offset


cdef int array_of_ranges(Py_buffer *view, object x) except -1:
    shape = tuple(getattr(x, "shape", ()))
    kind = getattr(getattr(x, "dtype", None), "str", None)
    if len(shape) != 2 or shape[1] != 2 or kind not in ("<u8", "=u8"):
        raise BufferRefused("an array of ranges has dtype uint64 and shape (n, 2)")
    try:
        PyObject_GetBuffer(x, view, PyBUF_C_CONTIGUOUS)
    except (ValueError, BufferError) as error:
        raise BufferRefused(f"an array of ranges has to be contiguous: {error}") from error
    return 0


cdef bint any_empty(const range_t *ranges, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if ranges[i].length == 0:
            return True
    return False
