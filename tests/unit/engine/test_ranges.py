"""Which bytes a view means: exactly its own and small gaps between them, never beyond the pool."""

from __future__ import annotations

import array
import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem._core import Replicator
from rpmem.errors import BufferRefused, ClosedError, RangeError
from rpmem.memory.region import Region

SIZE = 1 << 15
#: A gap of a cache line or less between two runs of bytes is not worth a range of its own.
LARGEST_GAP = 64
MOST_RANGES = SIZE // 16  # more than that overlap, and are one

POOL = bytearray(SIZE)
DTYPES = [
    np.dtype(text)
    for text in ("u1", "<i2", ">f4", "f8", "c16", "S3", "S70", "U2", "V5", "datetime64[ns]", "?")
] + [
    np.dtype([("a", "u1"), ("b", "f8")]),
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    np.dtype([("t", "datetime64[s]"), ("v", "f4", (3,))]),
    np.dtype({"names": ["x"], "formats": ["u2"], "offsets": [90], "itemsize": 200}),
]


@pytest.fixture(scope="module")
def core():
    region = Region.from_buffer(POOL)
    core = Replicator(region, [], local=False, floor=0)
    yield core
    core.close()


def reach(shape, strides):
    """Return how far below and above the first element the elements begin."""
    moves = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    return sum(move for move in moves if move < 0), sum(move for move in moves if move > 0)


@st.composite
def views(draw):
    """Any view of POOL: every shape, stride (negative, zero, overlapping) and alignment."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 7), max_size=4)))
    small = st.integers(-3, 3).map(lambda times: times * dtype.itemsize)
    near = st.integers(-150, 150)
    far = st.integers(-2500, 2500)
    strides = tuple(draw(st.one_of(small, near, far)) for _ in shape)
    if 0 in shape:
        return np.ndarray(shape, dtype, POOL, 0)
    low, high = reach(shape, strides)
    room = SIZE - (high - low) - dtype.itemsize
    if room < 0:
        strides = tuple(stride // 16 for stride in strides)
        low, high = reach(shape, strides)
        room = SIZE - (high - low) - dtype.itemsize
    offset = draw(st.one_of(st.just(0), st.just(room), st.integers(0, room))) - low
    return np.ndarray(shape, dtype, POOL, offset, strides)


def bytes_of(view):
    """Return a mask of the pool's bytes that belong to elements of `view`: the slow way."""
    mask = np.zeros(SIZE, dtype=bool)
    if view.size == 0:
        return mask
    starts = np.array(view.__array_interface__["data"][0] - address())
    for size, stride in zip(view.shape, view.strides, strict=True):
        starts = np.add.outer(starts, np.arange(size) * stride)
    for start in starts.ravel():
        mask[start : start + view.itemsize] = True
    return mask


def address():
    return np.frombuffer(POOL, dtype=np.uint8).__array_interface__["data"][0]


def covered(ranges):
    mask = np.zeros(SIZE, dtype=bool)
    for offset, length in ranges:
        assert length > 0
        assert offset >= 0
        assert offset + length <= SIZE
        mask[offset : offset + length] = True
    return mask


def runs(mask):
    """Return (start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.view(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@given(view=views())
def test_ranges_are_the_bytes_of_the_view_and_small_gaps(core, view):
    ranges = core.ranges_of(view)
    wanted, found = bytes_of(view), covered(ranges)
    assert not (wanted & ~found).any(), "bytes of the view were left out"
    if not wanted.any():
        assert ranges == []
        return
    for start, end in runs(found & ~wanted):
        assert end - start <= LARGEST_GAP or stretches(view) > MOST_RANGES
        assert wanted[start - 1], "a range begins before the view's bytes"
        assert wanted[end], "a range ends behind the view's bytes"


def stretches(view):
    """Return how many dense stretches of the inner dimensions a view has, each one counted."""
    count = 1
    block = view.itemsize
    dimensions = sorted(
        (abs(stride), size)
        for stride, size in zip(view.strides, view.shape, strict=True)
        if size > 1 and stride
    )
    for stride, size in dimensions:
        if count == 1 and stride <= block + LARGEST_GAP:
            block += (size - 1) * stride
        else:
            count *= size
    return count


def few(view):
    """Return how many ranges a view may become."""
    if view.size == 0:
        return 0
    return stretches(view) if stretches(view) <= MOST_RANGES else 1


@given(view=views())
def test_ranges_are_few(core, view):
    assert len(core.ranges_of(view)) == few(view)


def test_more_stretches_than_the_pool_has_room_for_are_one_range(core):
    """They overlap, so that all of them cost more than what lies between them."""
    view = np.ndarray((6, 7, 7, 7), np.uint8, POOL, 0, (66, 67, 68, 69))
    assert stretches(view) == 2058 > MOST_RANGES
    assert core.ranges_of(view) == [(0, 5 * 66 + 6 * (67 + 68 + 69) + 1)]


@pytest.mark.parametrize(
    ("index", "count"),
    [
        (np.s_[:], 1),
        (np.s_[3:5], 1),
        (np.s_[::-1], 1),
        (np.s_[:, 0], 16),
        (np.s_[:, ::2], 1),
        (np.s_[:, 10:20], 16),
        (np.s_[::4, ::-1], 4),
        (np.s_[5:6, 7:8], 1),
        (np.s_[0:0], 0),
        (np.s_[np.newaxis, :, np.newaxis, 0], 16),
    ],
)
def test_slices_of_a_matrix(core, index, count):
    matrix = np.ndarray((16, 32), np.float64, POOL, 4096)
    ranges = core.ranges_of(matrix[index])
    assert len(ranges) == count
    covered(ranges)


def test_order_does_not_matter(core):
    matrix = np.ndarray((8, 9, 10), np.float32, POOL, 64)
    fortran = np.ndarray((10, 9, 8), np.float32, POOL, 64, strides=(4, 40, 360))
    assert core.ranges_of(matrix) == core.ranges_of(fortran) == [(64, matrix.nbytes)]
    assert core.ranges_of(matrix.T) == [(64, matrix.nbytes)]


def test_views_that_are_broadcast_mean_each_byte_once(core):
    row = np.ndarray((4,), np.float64, POOL, 128)
    assert core.ranges_of(np.broadcast_to(row, (1000, 4))) == [(128, 32)]


def test_other_exporters(core):
    view = memoryview(POOL)
    assert core.ranges_of(view[100:200]) == [(100, 100)]
    assert core.ranges_of(view[100:200:2]) == [(100, 99)]
    assert core.ranges_of(view[200:100:-1]) == [(101, 100)]
    assert core.ranges_of(view[0:8].cast("Q")) == [(0, 8)]
    assert core.ranges_of(view.toreadonly()[8:16]) == [(8, 8)]
    assert core.ranges_of(POOL) == [(0, SIZE)]
    assert core.ranges_of(view[0:0]) == []


def test_pairs(core):
    assert core.ranges_of((0, SIZE)) == [(0, SIZE)]
    assert core.ranges_of((17, 3)) == [(17, 3)]
    assert core.ranges_of((np.int64(17), np.uint8(3))) == [(17, 3)]
    assert core.ranges_of((17, 0)) == []


@pytest.mark.parametrize(
    "pair", [(-1, 4), (0, -4), (1 << 64, 1), (0, 1 << 64), (1,), (1, 2, 3), (1.5, 2), ("a", 1)]
)
def test_pairs_that_are_no_range(core, pair):
    with pytest.raises(RangeError) as caught:
        core.persist(pair)
    assert str(caught.value)


@given(
    offset=st.one_of(st.integers(0, 2 * SIZE), st.integers(2**63 - 9, 2**64 - 1)),
    length=st.one_of(st.integers(1, 2 * SIZE), st.integers(2**63 - 9, 2**64 - 1)),
)
def test_pairs_outside_are_refused_and_never_wrap(core, offset, length):
    if offset + length <= SIZE:
        core.persist((offset, length))
        return
    for refuse in (
        lambda: core.persist((offset, length)),
        lambda: core.persist_many([(0, 8), (offset, length)]),
        lambda: core.persist_many(np.array([[0, 8], [offset, length]], dtype=np.uint64)),
    ):
        with pytest.raises(RangeError) as caught:
            refuse()
        assert f"offset {offset}" in str(caught.value)


@given(
    before=st.integers(0, 64),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(-900, 900), st.integers(-900, 900)),
    into=st.integers(-4000, 4000),
)
def test_views_that_leave_the_pool_are_refused(before, shape, strides, into):
    """The pool is the middle of a larger buffer: what reaches into the rest is refused."""
    start, size = 8192, 4096
    whole = bytearray(16384 + 4096)
    middle = memoryview(whole)[start : start + size]
    region = Region.from_buffer(middle)
    core = Replicator(region, [], local=False, floor=0)
    low, high = reach(shape, strides)
    begin = start + into + before
    inside = begin + low >= start and begin + high + 8 <= start + size
    if begin + low < 0 or begin + high + 8 > len(whole):
        return
    view = np.ndarray(shape, np.float64, whole, begin, strides)
    if inside:
        assert core.ranges_of(view)
    else:
        with pytest.raises(RangeError) as caught:
            core.ranges_of(view)
        assert "inside the pool" in str(caught.value)
        assert "pool.array" in str(caught.value)


@pytest.mark.parametrize(
    "thing",
    [
        np.zeros(4),
        np.zeros((3, 4))[:, ::2],
        bytearray(8),
        b"12345678",
        np.zeros(3, "datetime64[s]"),
        mmap.mmap(-1, 4096),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_memory_from_elsewhere_is_refused(core, thing):
    with pytest.raises(RangeError):
        core.persist(thing)


@pytest.mark.parametrize("thing", [7, "text", object(), [1, 2], {}, 1.5])
def test_things_without_memory_are_refused(core, thing):
    with pytest.raises(BufferRefused) as caught:
        core.persist(thing)
    assert "no memory" in str(caught.value)


@pytest.mark.parametrize(
    "ranges",
    [
        np.zeros((3, 2), np.int64),
        np.zeros((3, 3), np.uint64),
        np.zeros(4, np.uint64),
        np.zeros((3, 2), ">u8"),
        np.zeros((3, 2), np.float64),
    ],
    ids=lambda ranges: f"{ranges.dtype}{ranges.shape}",
)
def test_arrays_of_ranges_have_one_form(core, ranges):
    with pytest.raises(BufferRefused) as caught:
        core.persist_many(ranges)
    assert "uint64" in str(caught.value)


def test_arrays_of_ranges_that_are_not_contiguous(core):
    with pytest.raises(BufferRefused, match="contiguous"):
        core.persist_many(np.zeros((6, 4), np.uint64)[::2, ::2])


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), ()], ids=str)
def test_a_memoryview_of_ranges_has_one_dimension(core, shape):
    view = memoryview(np.zeros(shape, np.uint64))
    with pytest.raises(BufferRefused, match=rf"{len(shape)} dimensions.*numpy\.asarray"):
        core.persist_many(view)
    if len(shape) == 2:
        core.persist_many(np.asarray(view))


def test_persist_many_takes_what_persist_takes(core):
    matrix = np.ndarray((16, 32), np.float64, POOL, 4096)
    core.persist_many([matrix[:, 0], (0, 8), memoryview(POOL)[8:16], matrix[0:0]])
    core.persist_many(iter([(0, 8)]))
    core.persist_many([])
    core.persist_many(np.zeros((0, 2), np.uint64))
    core.persist_many(np.array([[0, 0], [8, 8]], np.uint64))


def test_the_header_is_not_touched():
    region = Region.anonymous(1 << 14)
    core = Replicator(region, [], local=True, floor=4096)
    memory = np.frombuffer(region, dtype=np.uint8)
    core.persist()
    core.persist(memory[4096:])
    for thing in (memory[:4096], memory[4095:5000], (0, 8), memory):
        with pytest.raises(RangeError) as caught:
            core.persist(thing)
        assert "header" in str(caught.value)
    with pytest.raises(RangeError):
        core.persist_many(np.array([[5000, 8], [4088, 16]], np.uint64))


def test_a_closed_core_refuses(core):
    region = Region.anonymous(4096)
    other = Replicator(region, [], local=True, floor=0)
    other.close("it is over")
    for call in (other.persist, other.drain, lambda: other.ranges_of((0, 8)), other.check_usable):
        with pytest.raises(ClosedError, match="it is over"):
            call()


# --- every exporter of buffers ---------------------------------------------------------------


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("n", ctypes.c_int32)]


class Packed(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("tag", ctypes.c_char), ("points", Point * 3)]


CTYPES = [
    ctypes.c_double,
    ctypes.c_double * 10,
    (ctypes.c_int16 * 4) * 5,
    ((ctypes.c_uint8 * 2) * 3) * 4,
    ctypes.c_char * 33,
    Point,
    Point * 7,
    Packed,
    Packed * 2,
    ctypes.c_void_p * 3,
    ctypes.c_char * 0,
]


@pytest.mark.parametrize("kind", CTYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("at", [0, 8, 4097])
def test_what_ctypes_lays_over_the_pool(core, kind, at):
    """Its buffers have a shape and no strides."""
    thing = kind.from_buffer(POOL, at)
    size = ctypes.sizeof(kind)
    expected = [(at, size)] if size else []
    assert core.ranges_of(thing) == expected
    assert core.ranges_of(memoryview(thing)) == expected
    with pytest.raises(RangeError):
        core.ranges_of((kind * 3)() if size else (ctypes.c_char * 3)())


MEMORYVIEWS = {
    "plain": (lambda: memoryview(POOL)[100:164], [(100, 64)]),
    "readonly": (lambda: memoryview(POOL)[100:164].toreadonly(), [(100, 64)]),
    "cast": (lambda: memoryview(POOL)[64:128].cast("d"), [(64, 64)]),
    "of two dimensions": (lambda: memoryview(POOL)[64:128].cast("H", (4, 8)), [(64, 64)]),
    "of no dimension": (lambda: memoryview(POOL)[64:72].cast("d", ()), [(64, 8)]),
    "backwards": (lambda: memoryview(POOL)[100:164][::-1], [(100, 64)]),
    "with steps": (lambda: memoryview(POOL)[0:1024:256], [(n, 1) for n in range(0, 1024, 256)]),
    "of nothing": (lambda: memoryview(POOL)[5:5], []),
    "of half-floats": (lambda: np.frombuffer(POOL, "f2", 4, 32), [(32, 8)]),
    "of a scalar": (lambda: np.frombuffer(POOL, "f8", 1, 32).reshape(()), [(32, 8)]),
    "of dates": (lambda: np.frombuffer(POOL, "M8[s]", 3, 64), [(64, 24)]),
    "of one date": (lambda: np.frombuffer(POOL, "m8[s]", 1, 64).reshape(()), [(64, 8)]),
    "of text": (lambda: np.frombuffer(POOL, ">U3", 2, 64), [(64, 24)]),
    "of void": (lambda: np.frombuffer(POOL, "V7", 2, 64), [(64, 14)]),
    "of records": (
        lambda: np.frombuffer(POOL, [("a", "i1"), ("b", "M8[s]")], 2, 64).view(np.recarray),
        [(64, 18)],
    ),
    "read-only array": (lambda: _locked(np.frombuffer(POOL, "i4", 4, 64)), [(64, 16)]),
    "of subarrays": (lambda: np.frombuffer(POOL, "(2,3)i2", 2, 64), [(64, 24)]),
}


def _locked(array):
    array.setflags(write=False)
    return array


@pytest.mark.parametrize("name", MEMORYVIEWS)
def test_views_of_every_kind(core, name):
    make, expected = MEMORYVIEWS[name]
    assert sorted(core.ranges_of(make())) == sorted(expected)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 20, 1 << 20), (3, 1 << 61)])
@pytest.mark.parametrize("stride", [1 << 40, -(1 << 40), 1 << 62, -(1 << 63), 4096])
def test_strides_that_no_memory_has(core, shape, stride):
    view = np.lib.stride_tricks.as_strided(
        np.frombuffer(POOL, "u1", 1, 64), shape, [stride] * len(shape)
    )
    with pytest.raises(RangeError):
        core.ranges_of(view)


def test_runs_that_overlap_without_number_are_one_range(core):
    """A million runs of 30 KB would take more memory than the pool has."""
    view = np.lib.stride_tricks.as_strided(
        np.frombuffer(POOL, "u1", 1, 64), (20, 20, 20, 20), (200, 201, 202, 203)
    )
    (found,) = core.ranges_of(view)
    assert found == (64, 19 * (200 + 201 + 202 + 203) + 1)


class WithoutBuffer(mmap.mmap):
    """Has no buffer, as it is closed, and an interface that a test chose."""

    itemsize = 16

    @classmethod
    def described(cls, interface):
        made = cls(-1, 4096)
        made.close()
        made.__array_interface__ = interface
        return made


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"shape": None, "data": (0, False)},
        {"shape": (4,), "data": None},
        {"shape": (4,), "data": (-1, False)},
        {"shape": (4,), "data": ("x", False)},
        {"shape": (-4,), "data": (64, False)},
        {"shape": (4, 4), "strides": (8,), "data": (64, False)},
        {"shape": (1,) * 65, "data": (64, False)},
        {"shape": (1 << 62, 1 << 62), "data": (64, False)},
        {"shape": (1 << 70,), "data": (64, False)},
        None,
    ],
)
def test_interfaces_that_mean_nothing(core, described):
    with pytest.raises((BufferRefused, RangeError)):
        core.ranges_of(WithoutBuffer.described(described))


@pytest.mark.parametrize("strides", [None, (32, 16)])
def test_an_interface_stands_in_for_a_buffer(core, strides):
    address = np.frombuffer(POOL, "u1").__array_interface__["data"][0]
    described = {"strides": strides, "data": (address + 64, False)}
    for shape, expected in ((2, 2), [(64, 4 * 16)]), ((2, 0), []):
        given = WithoutBuffer.described({"shape": shape, **described})
        assert core.ranges_of(given) == expected


@pytest.mark.parametrize("thing", [5, 2.5, None.__class__, object(), [1, 2], {1}, "text"])
def test_things_without_memory_are_named(core, thing):
    with pytest.raises(BufferRefused) as caught:
        core.ranges_of(thing)
    assert f"an object of type {type(thing).__name__}" in str(caught.value)


@pytest.mark.parametrize("index", [[1, 2], np.array([True] * 8), np.array([0])])
def test_a_copy_by_indexing_is_explained(core, index):
    array = np.frombuffer(POOL, "f8", 8, 64)
    with pytest.raises(RangeError, match="indexing with a list or a mask"):
        core.ranges_of(array[index])


@pytest.mark.filterwarnings("ignore:A builtin ctypes object")
@given(data=st.data())
def test_no_exporter_brings_the_process_down(core, data):
    """Anything laid over the pool, cut and cast: its bytes are named, or an error of ours."""
    at = data.draw(st.integers(0, SIZE - 512))
    kind = data.draw(st.sampled_from(CTYPES))
    makers = [
        lambda: kind.from_buffer(POOL, at),
        lambda: (kind * 2).from_buffer(POOL, at) if ctypes.sizeof(kind) else POOL,
        lambda: np.frombuffer(POOL, data.draw(st.sampled_from(DTYPES)), 1, at),
        lambda: memoryview(POOL)[at : at + 64 : data.draw(st.sampled_from([1, 2, 7, -1]))],
        lambda: array.array("d", [1.0, 2.0]),
        lambda: np.array([None, 1], object),
        lambda: kind(),
        lambda: mmap.mmap(-1, 4096),
    ]
    thing = data.draw(st.sampled_from(makers))()
    for wrapped in (thing, _or(thing, memoryview), _or(thing, np.asarray)):
        try:
            found = core.ranges_of(wrapped)
        except (BufferRefused, RangeError):
            continue
        assert all(offset >= 0 and offset + length <= SIZE for offset, length in found)


def _or(thing, wrap):
    try:
        return wrap(thing)
    except (TypeError, ValueError, BufferError):
        return thing


@pytest.mark.parametrize(
    "given", [{"shape": (3,)}, {"shape": ()}, {"ndim": 2, "shape": ()}, {"shape": (3, 2)}, {}]
)
def test_arrays_of_ranges_that_are_none(core, given):
    described = WithoutBuffer.described({})
    for name, value in given.items():
        setattr(described, name, value)
    with pytest.raises(BufferRefused):
        core.persist_many(described)
