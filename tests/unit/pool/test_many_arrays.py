"""Arrays by the thousand, attributes, other names, and what is zero already."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rpmem
from rpmem.errors import (
    ArrayExists,
    ArrayNotFound,
    CatalogueCorrupt,
    FlushFailed,
    PoolFull,
    RangeError,
    ReplicaLost,
    UsageError,
)
from rpmem.pool.attrs import Attrs
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.catalogue.extents import PAGE_ALIGNMENT, Free, alignment_of, room
from rpmem.pool.superblock import Layout
from tests.unit.pool.test_catalogue import POOL_ID, CrashMedium, fresh, put, read, reload, wanted

SIZE = 16 << 20


@pytest.fixture
def pool(tmp_path):
    with rpmem.Pool.create(tmp_path / "pool", SIZE) as made:
        yield made


# --- free stretches ---


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_stretches_against_a_map_of_blocks(seed):
    """What is taken is free, aligned and inside; what is refused fits nowhere."""
    dice = random.Random(seed)
    blocks = 400
    free, taken = Free(0, blocks * 64), {}
    busy = np.zeros(blocks, bool)
    for _ in range(120):
        if taken and dice.random() < 0.45:
            begin = dice.choice(list(taken))
            end = taken.pop(begin)
            free.give_back(begin, end)
            busy[begin // 64 : end // 64] = False
        else:
            length = dice.choice([0, 1, 64, 65, 500, 4096, 5000])
            alignment = alignment_of(length)
            count = room(length) // 64
            try:
                begin = free.take(length, alignment)
            except PoolFull:
                step = alignment // 64
                assert all(busy[at : at + count].any() for at in range(0, blocks - count + 1, step))
                continue
            assert begin % alignment == 0
            assert begin // 64 + count <= blocks
            assert not busy[begin // 64 : begin // 64 + count].any()
            busy[begin // 64 : begin // 64 + count] = True
            taken[begin] = begin + count * 64
        assert free.size == int((~busy).sum()) * 64
    again = Free(0, blocks * 64, taken.items())
    assert (again.size, again.largest) == (free.size, free.largest)


def test_many_extents_are_all_or_none():
    free = Free(0, 1 << 20)
    before = free.size
    assert free.take_each([1, 64, 65]) == ([0, 64, 128], [(0, 256)])
    with pytest.raises(PoolFull):
        free.take_each([4096, 100, 2 << 20])
    assert free.size == before - 256
    offsets, spans = free.take_each([100, 4096, 5000])
    assert spans == [(at, at + size) for at, size in zip(offsets, (128, 4096, 5056), strict=True)]
    assert [offset % PAGE_ALIGNMENT for offset in offsets[1:]] == [0, 0]
    assert free.take_each([]) == ([], [])


# --- zeros ---


class Counting(CrashMedium):
    zeroed = 0

    def zero(self, offset, length):
        self.zeroed += length
        super().zero(offset, length)


def test_above_the_mark_nothing_is_zeroed_and_below_it_everything():
    medium = Counting()
    catalogue = Catalogue.format(medium, Layout.plan(len(medium.seen), POOL_ID), zeroed=True)
    before = medium.zeroed
    put(catalogue, "a", 8192)
    put(catalogue, "b", 100)
    assert medium.zeroed == before
    entry = catalogue.find("a")
    assert read(medium)._root.mark >= catalogue.find("b").end
    medium.write(entry.offset, b"\xee" * 8192)
    catalogue.remove("a")
    put(catalogue, "c", 8192)
    assert medium.zeroed == before + 8192
    assert not medium.seen[entry.offset : entry.end].any()


def test_the_mark_is_durable_before_anything_is_stored_above_it():
    medium, catalogue = fresh()
    catalogue.create_all(wanted([f"{index:0250}" for index in range(60)], 1))
    mark = read(medium)._root.mark
    assert all(end <= mark for _, end in catalogue.spans)

    def store(offset, data):
        if offset >= 32768:
            assert offset + len(data) <= read(medium)._root.mark
        CrashMedium.store(medium, offset, data)

    medium.store = store
    with suppress(PoolFull):
        for index in range(60, 1000):
            put(catalogue, f"{index:0250}", 1)
    assert 60 < len(catalogue.entries) < 1000


def test_nothing_above_the_mark_is_trusted_after_a_torn_root():
    medium, catalogue = fresh()
    put(catalogue, "a")
    slot = catalogue._layout.slot_offset(1 - catalogue._slot)
    medium.seen[slot : slot + 64] = 0xEE
    medium.seen[57344:] = 0xEE
    again = reload(medium)
    put(again, "b", 20000)
    entry = again.find("b")
    assert not medium.seen[entry.offset : entry.end].any()


def test_a_buffer_is_not_trusted():
    memory = np.full(SIZE, 0xEE, np.uint8)
    with rpmem.Pool.create(memory) as pool:
        assert not pool.array("a", 1 << 20, "u1").any()
    assert rpmem.Pool.open(memory).close() is None


def test_a_pool_from_files_in_a_buffer_is_not_trusted(tmp_path):
    rpmem.Pool.create(tmp_path / "pool", SIZE).close()
    memory = np.frombuffer(bytearray((tmp_path / "pool").read_bytes()), np.uint8)
    memory[1 << 20 :] = 0xEE
    with rpmem.Pool.open(memory) as pool:
        assert not pool.array("a", 4 << 20, "u1").any()


@pytest.mark.parametrize("where", ["here", "there"])
def test_files_that_were_there_before_are_not_trusted(tmp_path, monkeypatch, where):
    """Their headers are zero, which is all that is asked of them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    part = tmp_path / "part0"
    part.write_bytes(bytes(4096) + b"\xee" * (SIZE - 4096))
    described = tmp_path / "old.set"
    described.write_text(f"PMEMPOOLSET\n{SIZE} {part}\n")
    local, spec = (described, "local: new.set") if where == "here" else (None, "local: old.set")
    local = local or tmp_path / "pool"
    size = None if where == "here" else SIZE
    parts = 1 if where == "here" else 0
    with rpmem.Pool.create(local, size, spec, parts=parts) as pool:
        array = pool.array("a", 4 << 20, "u1")
        assert not array.any()
        assert not pool.read(array).any()


def test_new_files_need_no_zeros(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with rpmem.Pool.create(tmp_path / "pool", SIZE, "local: new.set", parts=1) as pool:
        assert pool._arrays._catalogue._root.mark < 1 << 20


# --- many at once ---


def test_many_arrays_in_one_change(pool):
    forms = {f"a{index}": (index % 7, "f8") for index in range(3000)}
    forms["fortran"] = ((3, 4), "i2", "F")
    forms["list"] = ([2, 2], [("x", "f4"), ("y", "i8")])
    made = pool.arrays(forms)
    assert list(made) == list(forms) == pool.names() == pool.keys()
    assert made["a5"].shape == (5,)
    assert made["fortran"].flags.f_contiguous
    assert made["list"].dtype.names == ("x", "y")
    made["a6"][:] = 6
    assert (pool["a6"] == 6).all()
    assert "nothing" not in made
    with pytest.raises(KeyError):
        made["nothing"]
    assert pool.arrays({"a6": (6, "f8"), "more": (1, "u1")})["a6"][0] == 6
    assert pool.arrays({}) == {}
    assert [name for name, array in pool.items() if array.size == 6][:2] == ["a6", "a13"]
    assert pool.get("a6") is not None
    assert pool.get("nothing") is None
    assert pool.get("nothing", 7) == 7


@pytest.mark.parametrize(
    ("forms", "error"),
    [
        ({"new": (3, "f8"), "old": (4, "f8")}, ArrayExists),
        ({"new": (3, "f8"), "huge": (SIZE, "f8")}, PoolFull),
        ({"new": (3, "f8"), "": (3, "f8")}, UsageError),
        ({"new": (3, "f8"), "odd": 3}, UsageError),
        ({"new": (3, "f8"), "odd": (3,)}, UsageError),
        ({"new": (3, "f8"), "odd": (3, "O")}, rpmem.DtypeRefused),
    ],
)
def test_many_arrays_are_all_or_none(pool, forms, error):
    pool.array("old", 3)
    free = pool.free
    with pytest.raises(error):
        pool.arrays(forms)
    assert pool.names() == ["old"]
    assert pool.free == free


def test_readonly_pools_are_not_changed(tmp_path):
    path = tmp_path / "pool"
    with rpmem.Pool.create(path, SIZE) as pool:
        pool.array("a", 3)
        pool.attrs("a")["unit"] = "K"
    with rpmem.Pool.open(path, readonly=True) as pool:
        assert pool.attrs("a") == {"unit": "K"}
        for change in (
            lambda: pool.arrays({"b": (3, "f8")}),
            lambda: pool.rename("a", "b"),
            lambda: pool.attrs("a").update(unit="m"),
        ):
            with pytest.raises(UsageError, match="readonly"):
                change()
        assert list(pool.arrays({"a": (3, "f8")})) == ["a"]


def test_very_many_records_are_few_after_a_close(tmp_path):
    path = tmp_path / "pool"
    with rpmem.Pool.create(path, SIZE) as pool:
        for index in range(2200):
            pool.array(f"a{index}", 1)
        names = pool.names()
    with rpmem.Pool.open(path) as pool:
        assert pool._arrays._catalogue._contents.records < 10
        assert pool.names() == names


# --- other names ---


def test_an_array_gets_another_name_and_its_views_live_on(tmp_path):
    path = tmp_path / "pool"
    with rpmem.Pool.create(path, SIZE) as pool:
        array = pool.array("a", 3)
        pool.array("b", 3)
        pool.attrs("a")["unit"] = "K"
        array[:] = 5
        pool.persist(array)
        pool.rename("a", "c")
        assert pool.names() == ["b", "c"]
        with pytest.raises(BufferError):
            del pool["c"]
        for old, new, error in (
            ("a", "d", ArrayNotFound),
            ("b", "c", ArrayExists),
            ("b", "b", ArrayExists),
            ("b", "", UsageError),
            (7, "d", ArrayNotFound),
        ):
            with pytest.raises(error):
                pool.rename(old, new)
        del array
    with rpmem.Pool.open(path) as pool:
        assert (pool["c"] == 5).all()
        assert pool.attrs("c") == {"unit": "K"}
        pool.array("a", 1)
        assert pool.attrs("a") == {}


# --- attributes ---


def test_attributes_are_durable_and_go_with_their_array(tmp_path):
    path = tmp_path / "pool"
    values = {"unit": "K", "range": [1, 2.5, None], "nested": {"ä": True}}
    with rpmem.Pool.create(path, SIZE) as pool:
        pool.array("a", 3)
        pool.attrs().update(title="run 7")
        pool.attrs("a").update(values, more=1)
        del pool.attrs("a")["more"]
        with pytest.raises(KeyError):
            del pool.attrs("a")["more"]
        with pytest.raises(ArrayNotFound):
            pool.attrs("b")
    with rpmem.Pool.open(path) as pool:
        assert pool.attrs() == {"title": "run 7"}
        attrs = pool.attrs("a")
        assert attrs == values
        assert attrs["range"] == [1, 2.5, None]
        del pool["a"]
        with pytest.raises(ArrayNotFound):
            attrs["unit"]
        pool.array("a", 3)
        assert pool.attrs("a") == {}
        pool.attrs().clear()
        assert len(pool.attrs()) == 0


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"bytes", "x" * 70_000, np.float32(1)])
def test_attributes_that_are_no_json_or_too_large_are_refused(pool, value):
    pool.attrs()["a"] = 1
    with pytest.raises(UsageError):
        pool.attrs()["b"] = value
    assert pool.attrs() == {"a": 1}


@pytest.mark.parametrize("text", ["", "5", "[", "[" * 100_000])
def test_attributes_that_make_no_sense_are_a_typed_error(text):
    with pytest.raises(CatalogueCorrupt, match="make no sense"):
        len(Attrs(lambda: text, print))


def test_threads_do_not_undo_each_other_s_attributes(pool):
    def work(thread):
        for turn in range(20):
            pool.attrs()[f"{thread}.{turn}"] = turn

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pool.attrs()) == 80


# --- replicas ---


def test_a_change_that_a_replica_does_not_take_is_there_locally():
    """It is durable here, and the loss is reported."""
    for change, names in (
        (lambda c: put(c, "b"), ["a", "b"]),
        (lambda c: c.remove("a"), []),
        (lambda c: c.rename("a", "b"), ["b"]),
    ):
        medium, catalogue = fresh()
        put(catalogue, "a")

        def lost(_):
            raise ReplicaLost("cut")

        medium.spread = lost
        with pytest.raises(ReplicaLost):
            change(catalogue)
        assert list(catalogue.entries) == names
        medium.power_cut(0)
        assert list(read(medium).entries) == names


def test_a_change_that_the_local_medium_refuses_leaves_everything_as_it_was():
    medium, catalogue = fresh()
    put(catalogue, "a")
    free = catalogue.free

    def refused(*_):
        raise FlushFailed("refused")

    medium.spread = medium.persist = refused
    for change in (
        lambda: put(catalogue, "b"),
        lambda: catalogue.create_all(wanted([f"{index:0250}" for index in range(40)], 1)),
        lambda: catalogue.remove("a"),
    ):
        with pytest.raises(FlushFailed):
            change()
        assert list(catalogue.entries) == ["a"]
        assert catalogue.free == free


def test_the_catalogue_is_not_pulled_over(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with rpmem.Pool.create(tmp_path / "pool", SIZE, "local: new.set", parts=1) as pool:
        array = pool.array("a", 1000)
        begin, end = pool._arrays._catalogue.spans[0]
        with pytest.raises(RangeError, match="catalogue lies"):
            pool.pull((begin, end - begin))
        pool.pull(array)
        pool.pull()


def test_catalogues_of_a_model_and_of_the_pool_are_the_same(tmp_path):
    """Thousands of changes, with sessions between them; the log is written anew on the way."""
    dice = random.Random(7)
    path = tmp_path / "pool"
    rpmem.Pool.create(path, SIZE).close()
    model: dict[str, int] = {}
    attrs: dict[str, dict[str, int]] = {}
    for _ in range(6):
        with rpmem.Pool.open(path) as pool:
            for _ in range(300):
                name = f"n{dice.randrange(60)}"
                if name not in model:
                    model[name] = dice.randrange(200)
                    pool.array(name, model[name], "u1")
                elif dice.random() < 0.4:
                    del pool[name], model[name]
                    attrs.pop(name, None)
                elif dice.random() < 0.5:
                    attrs[name] = {"number": dice.randrange(100)}
                    pool.attrs(name).update(attrs[name])
                else:
                    new = f"r{os.urandom(4).hex()}"
                    model[new] = model.pop(name)
                    if name in attrs:
                        attrs[new] = attrs.pop(name)
                    pool.rename(name, new)
            assert pool.names() == list(model)
            assert {name: pool.entry(name).length for name in pool} == model
            assert {n: dict(pool.attrs(n)) for n in pool if pool.attrs(n)} == attrs
