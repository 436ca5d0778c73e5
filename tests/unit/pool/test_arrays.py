"""Named arrays: forms, dtypes, views and who keeps what alive."""

from __future__ import annotations

import gc
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rpmem
from rpmem.errors import ArrayExists, CatalogueCorrupt, DtypeRefused, UsageError
from rpmem.pool.catalogue.entries import Entry
from rpmem.pool.forms import Form, describe_dtype, read_dtype

PARTICLE = np.dtype(
    {
        "names": ["id", "position", "when", "label", "tag", "flags"],
        "formats": ["<u4", ("<f4", (3,)), "<M8[ns]", "<U7", "S3", ">i2"],
        "offsets": [0, 8, 24, 32, 60, 64],
        "itemsize": 72,
    }
)
NESTED = np.dtype([("head", PARTICLE), ("matrix", "<f8", (2, 3)), ("inner", [("z", "c16")], 2)])


@pytest.fixture
def pool():
    with rpmem.Pool.create(bytearray(1 << 20)) as pool:
        yield pool


# --- dtypes ---


def through_json(dtype):
    return read_dtype(json.loads(json.dumps(describe_dtype(dtype))))


@pytest.mark.parametrize(
    "dtype",
    [
        "?", "i1", ">u8", "f2", "g", "c8", "M8[D]", ">m8[25us]", "S9", "U1", "V5",
        PARTICLE, NESTED, np.dtype([("a b", "i4"), ("ü", "u1")], align=True),
        np.dtype([(("title", "name"), "i4"), ("plain", "i8")]),
        np.dtype({"names": ["low", "word"], "formats": ["u1", "u4"], "offsets": [0, 0]}),
    ],
)  # fmt: skip
def test_dtypes_survive_json(dtype):
    wanted = np.dtype(dtype)
    found = through_json(wanted)
    assert found == wanted
    assert found.itemsize == wanted.itemsize


@given(hnp.nested_dtypes(max_itemsize=400))
@settings(max_examples=300, deadline=None)
def test_any_dtype_numpy_has_survives_or_is_refused(dtype):
    try:
        form = Form.of(2, dtype, "C")
    except DtypeRefused:
        assert dtype.itemsize == 0 or dtype.hasobject
        return
    assert through_json(form.dtype) == form.dtype


@pytest.mark.parametrize(
    "dtype",
    [
        object,
        "O",
        [("a", "f8"), ("b", "O")],
        [("a", [("deep", "i4"), ("down", object, (2,))])],
        np.dtype(("O", (2,))),
        np.dtypes.StringDType(),
        "U",
        "S0",
        [],
        "no such dtype",
        np.dtype("f8").newbyteorder,
    ],
)
def test_dtypes_that_mean_nothing_elsewhere_are_refused(pool, dtype):
    with pytest.raises(DtypeRefused) as caught:
        pool.array("a", 3, dtype)
    assert isinstance(caught.value, TypeError)
    assert pool.names() == []


@pytest.mark.parametrize(
    "described",
    ["|O", {"base": "O", "shape": [2]}, "nonsense", 5, None, [], {}, {"names": ["a"]},
     {"names": ["a"], "formats": ["O"], "offsets": [0], "itemsize": 8},
     {"names": ["a"], "formats": ["f8"], "offsets": [4], "itemsize": 8},
     {"names": ["a", "a"], "formats": ["f8", "f8"], "offsets": [0, 0], "itemsize": 8}],
)  # fmt: skip
def test_a_hostile_catalogue_cannot_make_objects(described):
    entry = Entry("a", 65536, 8, (1,), "C", described)
    with pytest.raises(CatalogueCorrupt):
        Form.from_entry(entry)


def test_an_extent_of_another_size_is_corrupt():
    with pytest.raises(CatalogueCorrupt, match="does not match"):
        Form.from_entry(Entry("a", 65536, 8, (2,), "C", "<f8"))


# --- shapes and orders ---


@given(
    shape=st.one_of(st.integers(0, 50), hnp.array_shapes(min_dims=0, max_dims=5, max_side=4)),
    dtype=st.sampled_from(["f8", "i1", PARTICLE, np.dtype(("i4", (2,))), "U3"]),
    order=st.sampled_from("CF"),
)
@settings(max_examples=200, deadline=None)
def test_arrays_are_what_numpy_would_make(shape, dtype, order):
    with rpmem.Pool.create(bytearray(1 << 20)) as pool:
        array = pool.array("a", shape, dtype, order)
        model = np.zeros(shape, dtype, order)
        assert array.shape == model.shape
        assert array.dtype == model.dtype
        if array.size > 1 and 1 not in array.shape:  # otherwise strides mean nothing
            assert array.strides == model.strides
        assert array.tobytes() == model.tobytes()
        again = pool.array("a", shape, dtype, order)
        assert again.flags.writeable
        if array.size:
            array.view(np.uint8 if array.ndim and order == "C" else array.dtype)[...] = 1
            assert again.tobytes() == array.tobytes() != model.tobytes()
        reopened = pool["a"]
        assert (reopened.shape, reopened.dtype, reopened.strides) == (
            array.shape,
            array.dtype,
            array.strides,
        )
        pool.persist(array)


@pytest.mark.parametrize("shape", [-1, (2, -2), 1.5, (2, "x"), None, "33", (1,) * 65])
def test_shapes_that_are_none(pool, shape):
    with pytest.raises(UsageError):
        pool.array("a", shape)


def test_too_large_is_refused_before_anything_happens(pool):
    with pytest.raises(UsageError, match="larger than any memory"):
        pool.array("a", (2**40, 2**40))
    with pytest.raises(rpmem.PoolFull):
        pool.array("a", 2**40)
    with pytest.raises(UsageError, match="'C' or 'F'"):
        pool.array("a", 3, order="K")


def test_reopening_with_another_form_says_both(pool):
    pool.array("a", (3, 4), "f4")
    for shape, dtype, order in [((4, 3), "f4", "C"), ((3, 4), "f8", "C"), ((3, 4), "f4", "F")]:
        with pytest.raises(ArrayExists) as caught:
            pool.array("a", shape, dtype, order)
        message = str(caught.value)
        assert "(3, 4)" in message
        assert "float32" in message
        assert str(shape) in message
        assert str(np.dtype(dtype)) in message
        assert repr(order) in message
    assert isinstance(caught.value, rpmem.RpmemError)


def test_order_means_nothing_in_one_dimension(pool):
    pool.array("a", 5, order="F")
    assert pool.array("a", (5,), order="C").shape == (5,)
    pool.array("b", (1, 5, 1), order="F")
    assert pool.array("b", (1, 5, 1)).shape == (1, 5, 1)


# --- lifetime ---


def views(array):
    return {
        "itself": lambda: array,
        "a slice": lambda: array[1:2],
        "a transpose": lambda: array.T,
        "a cast": lambda: array.view("u1"),
        "a field of a view of a view": lambda: array[::-1][1:][0:1].reshape(-1),
        "a memoryview": lambda: memoryview(array),
        "a scalar array": lambda: array[0, 0, ...],
    }


@pytest.mark.parametrize("kind", list(views(np.zeros((3, 3)))))
def test_any_view_keeps_its_array_and_the_pool(kind):
    pool = rpmem.Pool.create(bytearray(1 << 20))
    array = pool.array("a", (3, 3))
    pool.array("b", 3)
    view = views(array)[kind]()
    del array
    with pytest.raises(BufferError, match="'a'"):
        del pool["a"]
    with pytest.raises(BufferError, match="'a'"):
        pool.close()
    del pool["b"]
    assert pool.names() == ["a"]
    del view
    del pool["a"]
    assert pool.names() == []
    pool.close()


def test_views_in_reference_cycles_do_not_keep_a_pool_open():
    pool = rpmem.Pool.create(bytearray(1 << 20))
    gc.disable()
    try:
        cycle = [pool.array("a", 3)]
        cycle.append(cycle)
        del cycle
        pool.close()
    finally:
        gc.enable()


def test_neither_do_they_while_another_thread_collects():
    """Two collections do not go side by side: the second one does nothing."""
    begun, ends = threading.Event(), threading.Event()

    class Slow:
        def __del__(self):
            begun.set()
            ends.wait(30)

    pool = rpmem.Pool.create(bytearray(1 << 20))
    gc.disable()
    try:
        garbage = [Slow()]
        garbage.append(garbage)
        del garbage
        collector = threading.Thread(target=gc.collect)
        collector.start()
        assert begun.wait(30)
        cycle = [pool.array("a", 3)]
        cycle.append(cycle)
        del cycle
        threading.Timer(0.02, ends.set).start()
        pool.close()
        collector.join()
    finally:
        ends.set()
        gc.enable()


def test_a_copy_keeps_nothing():
    pool = rpmem.Pool.create(bytearray(1 << 20))
    copy = pool.array("a", 3).copy()
    pool.close()
    assert copy.tolist() == [0, 0, 0]


def test_deleted_room_is_reused_and_zero(pool):
    array = pool.array("a", 1000, "u1")
    array[:] = 255
    before = pool.entry("a").offset
    del array
    del pool["a"]
    array = pool.array("b", 1000, "u1")
    assert pool.entry("b").offset == before
    assert not array.any()
