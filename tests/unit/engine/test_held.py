"""What a comparison sees of calls: those under way, those left behind; how it keeps them out."""

from __future__ import annotations

import threading
import time

import pytest

import rpmem
from rpmem.engine.held import Held
from rpmem.errors import ClosedError, RangeError
from rpmem.memory.changes.pageset import PageSet
from tests.support.pools import PoolNode

PAGE = 4096


@pytest.fixture
def pool(tmp_path):
    node = PoolNode(tmp_path / "node")
    with rpmem.Pool.create(tmp_path / "p", "4MiB", node.spec(), parts=1) as pool:
        yield pool


@pytest.fixture
def core(pool):
    return pool._copies.core


@pytest.fixture
def pages(pool):
    return PageSet(pool._region.size)


PLACE = 1 << 20


def test_what_a_flush_left_behind_is_under_way(core, pages):
    core.under_way(pages)
    assert not pages
    core.flush((PLACE, 100))
    core.flush((PLACE + 3 * PAGE, 1))
    core.under_way(pages)
    assert PLACE in pages
    assert PLACE + 3 * PAGE in pages
    assert PLACE - 1 not in pages
    core.drain()
    pages.clear()
    core.under_way(pages)
    assert not pages


def test_a_range_that_is_held_is_under_way(core, pages):
    with core.hold(PLACE, PAGE):
        core.under_way(pages)
        assert len(pages) == 1
    pages.clear()
    core.under_way(pages)
    assert not pages


def test_who_holds_a_range_keeps_calls_out_of_it(core):
    done = threading.Event()

    def persist():
        core.persist((PLACE + 8, 8))
        done.set()

    with core.hold(PLACE, PAGE):
        thread = threading.Thread(target=persist)
        thread.start()
        core.persist((PLACE + PAGE, 8))  # others go on
        assert not done.wait(0.3)
    assert done.wait(10)
    thread.join()


def test_who_holds_a_range_has_waited_for_what_was_left_behind(pool, core):
    array = pool.array("a", 100, "u1")
    offset = pool.entry("a").offset
    for count in range(1, 30):
        array[:] = count
        core.flush((offset, 100))
        with core.hold(offset, 100) as held:
            there = bytearray(100)
            held.there(0, there)
            assert there == bytes([count]) * 100
    del array


def test_calls_mark_what_they_send(pool, core, pages):
    pool._copies.mark_passing(pages)
    core.persist((PLACE, 8))
    assert len(pages) == 1
    core.persist_many([(PLACE + PAGE, 8), (PLACE + 9 * PAGE, PAGE)])
    assert len(pages) == 3
    core.flush((PLACE + 20 * PAGE, 1))
    assert len(pages) == 4
    pages.clear()
    core.read(0, bytearray(8), PLACE)
    with core.hold(PLACE, PAGE) as held:
        held.there(0, bytearray(PAGE))
        assert not pages
        held.send(0, bytes(PAGE))
    assert len(pages) == 1
    core.mark_passing(None)
    pages.clear()
    core.persist((PLACE, 8))
    assert not pages


def test_what_is_lent_is_marked_too(tmp_path):
    node = PoolNode(tmp_path / "node")
    with rpmem.Pool.create(tmp_path / "p", "4MiB", node.spec(), parts=1, tracking="digest") as pool:
        array = pool.array("a", 4 * PAGE, "u1")
        pool.persist()
        pages = PageSet(pool._region.size)
        pool._copies.mark_passing(pages)
        array[PAGE] = 1
        pool.persist()
        assert pool.entry("a").offset + PAGE in pages
        del array


def test_one_replica_is_sent_bytes(tmp_path):
    nodes = [PoolNode(tmp_path / name) for name in "ab"]
    specs = [node.spec() for node in nodes]
    with rpmem.Pool.create(tmp_path / "p", "4MiB", specs, parts=1) as pool:
        core = pool._copies.core
        with core.hold(PLACE, 64) as held:
            held.send(1, bytes(range(64)))
            for number, wanted in enumerate((bytes(64), bytes(range(64)))):
                there = bytearray(64)
                held.there(number, there)
                assert there == wanted
            held.send(1, bytes(64))


def test_a_range_that_was_let_go(core):
    held = Held(core, PLACE, PAGE)
    held.release()
    held.release()
    with pytest.raises(ClosedError):
        held.here(bytearray(PAGE))
    core.persist((PLACE, 8))
    held = core.hold(PLACE, PAGE)
    del held  # lets go, too
    core.persist((PLACE, 8))
    assert core.wait_for_calls(1.0)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, PAGE), (PLACE, 0), (4 << 20, 1), (PLACE, 1 << 62)]
)
def test_ranges_that_cannot_be_held(core, offset, length):
    with pytest.raises(RangeError):
        core.hold(offset, length)
    assert core.calls == 0


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE + 1])
def test_buffers_of_another_length(core, length):
    with core.hold(PLACE, PAGE) as held:
        for call in (held.here, lambda each: held.there(0, each), held.store):
            with pytest.raises(RangeError):
                call(bytearray(length))
        with pytest.raises(RangeError):
            held.send(0, bytes(length))


def test_a_detach_waits_for_it(pool, core):
    held = core.hold(PLACE, PAGE)
    thread = threading.Thread(target=pool.detach, args=(0,))
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    with pytest.raises(ClosedError):
        held.there(0, bytearray(PAGE))
    held.release()
    thread.join()
    assert pool.replicas == []
