"""What happens to stored bytes as a pool ends, in what order, and where that goes wrong."""

from __future__ import annotations

import contextlib
import errno
import logging
import os

import numpy as np
import pytest

import rpmem
from rpmem.base.pool_format import POOL_FLOOR, RECORD_OFFSET, RECORD_SIZE
from rpmem.errors import FlushFailed, PoolSetError
from rpmem.files.poolfiles import PoolFiles
from rpmem.pool import settling
from rpmem.pool.settling import _stretches
from rpmem.session.replica import Replica
from tests.support.behind import need_digests
from tests.support.kernel import tells_no_stores
from tests.support.media import record_in, state_of, wait_unlocked
from tests.support.pools import SIZE, PoolNode, fill
from tests.support.recorded import Recorded

need_digests()
KERNEL = pytest.param(
    "kernel",
    marks=pytest.mark.skipif(bool(tells_no_stores()), reason=tells_no_stores() or "-"),
)
VIEWS = pytest.mark.parametrize("views", ["views live", "no views"])


@pytest.fixture
def node(tmp_path):
    return PoolNode(tmp_path / "node1")


@pytest.fixture
def other(tmp_path):
    return PoolNode(tmp_path / "node2")


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local"


@pytest.fixture(params=["page", "pmem"])
def medium(request):
    with Recorded(request.param).installed() as recorded:
        yield recorded


@pytest.fixture
def page():
    with Recorded("page").installed() as recorded:
        yield recorded


def stored(local, *nodes, **how):
    """Return a pool, and an array of it that was persisted as 1 and stored to as 2."""
    specs = [each.spec() for each in nodes]
    pool = rpmem.Pool.create(local, SIZE, specs, parts=1, **how)
    array = fill(pool)
    array[:] = 2.0
    return pool, array


def end(pool, array, views):
    """End the pool in one of the two ways; `array` is the only view, in a list."""
    if views == "no views":
        array.clear()
        pool.close()
    else:
        with pool:
            pass


def span(pool, array):
    return array.ctypes.data - pool._region.address, array.nbytes


@VIEWS
def test_all_is_durable_on_every_copy_before_one_is_marked(medium, local, node, other, views):
    pool, array = stored(local, node, other)
    offset, length = span(pool, array)
    expected = array.tobytes()
    seen = []

    def watch(event):
        in_record = RECORD_OFFSET <= event.offset < RECORD_OFFSET + RECORD_SIZE
        if event.verb == "persist" and in_record:
            images = [local.read_bytes(), node.image(), other.image()]
            seen.append([image[offset : offset + length] == expected for image in images])
            assert state_of(node.image())[1] == "BEGUN"

    medium.watch = watch
    views_of = [array]
    del array
    end(pool, views_of, views)
    medium.watch = None
    assert seen
    assert seen[0] == [True, True, True]
    assert [state_of(image)[1] for image in (local.read_bytes(), node.image())] == ["CLEAN"] * 2


@VIEWS
def test_a_local_medium_that_refuses_what_was_stored(page, local, node, views):
    pool, array = stored(local, node)
    begin, length = span(pool, array)

    def refuses(event):
        return (
            errno.EIO
            if begin < event.offset + event.length and event.offset < begin + length
            else 0
        )

    page.refuses = refuses
    views_of = [array]
    del array
    with pytest.raises(FlushFailed, match="not marked as complete"):
        end(pool, views_of, views)
    page.refuses = None
    assert pool.closed
    assert state_of(local.read_bytes())[1] == "BEGUN"
    wait_unlocked(node.directory / "pool.set")
    # Alone, it is equal to all others of its epoch.
    assert node.state()[1] == "CLEAN"


def test_nothing_is_sent_from_memory_that_was_refused(page, local, node, monkeypatch):
    pool, array = stored(local, node)
    begin, length = span(pool, array)
    pool.persist(array)
    page.refuses = lambda event: errno.EIO if event.offset == begin else 0
    with pytest.raises(FlushFailed):
        pool.persist(array)
    page.refuses = None
    array[:] = 1.0  # as the kernel would show what the disk has
    monkeypatch.setattr(Replica, "digests", None)
    del array
    with pytest.raises(FlushFailed):
        pool.close()
    wait_unlocked(node.directory / "pool.set")
    assert (np.frombuffer(node.image()[begin : begin + length]) == 2).all()


def test_an_open_makes_durable_what_a_dead_writer_only_stored(medium, local, node):
    pool, array = stored(local, node)
    begin, length = span(pool, array)
    del array
    pool._copies.drop()
    pool._tracking.close()
    wait_unlocked(node.directory / "pool.set")
    medium.events.clear()
    begun = []

    def watch(event):
        if event.offset == RECORD_OFFSET or event.offset == RECORD_OFFSET + RECORD_SIZE // 2:
            begun.append(medium.covers(begin, length))

    medium.watch = watch
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert medium.covers(POOL_FLOOR, begin + length - POOL_FLOOR)
    # Before an epoch begins, and so before anybody sees it.
    assert begun[0]


@VIEWS
def test_what_was_stored_back_is_flushed_where_digests_see_no_change(page, local, node, views):
    """The kernel may have written what stood there meanwhile."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1, tracking="digest") as pool:
        array = fill(pool)
        pool.persist()
        offset, length = span(pool, array)
        array[:] = 2.0
        pool._region.persist(offset, length)
        array[:] = 1.0
        if views == "no views":
            del array
    assert state_of(local.read_bytes())[1] == "CLEAN"
    assert (np.frombuffer(local.read_bytes()[offset : offset + length]) == 1).all()


def test_an_open_after_a_close_flushes_no_arrays(page, local):
    pool, array = stored(local)
    begin, length = span(pool, array)
    del array
    pool.close()
    page.events.clear()
    pool = rpmem.Pool.open(local)
    assert not page.covers(begin, length)
    pool.close()


# --- views ------------------------------------------------------------------------------------


def no_again(monkeypatch):
    """Let memory be one that cannot be left, such as a DAX device."""
    again = PoolFiles.again

    @contextlib.contextmanager
    def refuses(files):
        with again(files) as (memory, _):

            def leave():
                raise PoolSetError("cannot separate memory from a part", errno=errno.EINVAL)

            yield memory, leave

    monkeypatch.setattr(PoolFiles, "again", refuses)


def test_a_copy_whose_views_cannot_be_cut_off_is_not_marked(local, node, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        no_again(patch)
        pool, array = stored(local, node)
        with pool:
            pass
    assert "cannot be kept from it" in caplog.text
    wait_unlocked(node.directory / "pool.set")
    assert state_of(local.read_bytes())[1] == node.state()[1] == "BEGUN"
    array[0] = 9.0
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert (pool["a"][0] == 9).all()
        assert (pool.read(pool["a"]) == pool["a"]).all()


def test_a_copy_without_views_does_not_need_it(local, node, monkeypatch):
    no_again(monkeypatch)
    pool, array = stored(local, node)
    del array
    pool.close()
    wait_unlocked(node.directory / "pool.set")
    assert state_of(local.read_bytes())[1] == node.state()[1] == "CLEAN"


@pytest.mark.parametrize("tracking", [KERNEL, "digest", "off"])
@pytest.mark.parametrize("when", ["before the look", "after the look", "after the end"])
def test_a_store_at_any_moment_of_the_end(local, node, monkeypatch, when, tracking):
    """It is on both copies, or on none of them."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1, tracking=tracking) as pool:
        array = fill(pool)
        pool.persist()
        faults = settling._faults
        calls = []

        def store_between():
            calls.append(0)
            moment = ("before the look", "after the look", "after the end").index(when)
            if len(calls) == 1 and moment == 0:
                array[:] = 3.0
            # Only a page that is watched has a fault for certain.
            found = faults() if tracking == "kernel" else (0, 0)
            if len(calls) == 2 and moment == 2:
                array[:] = 3.0
            return found

        again = PoolFiles.again

        @contextlib.contextmanager
        def storing(files):
            with again(files) as (memory, leave):

                def late():
                    if when == "after the look":
                        array[:] = 3.0
                    leave()

                yield memory, late

        monkeypatch.setattr(settling, "_faults", store_between)
        monkeypatch.setattr(PoolFiles, "again", storing)
    assert len(calls) == 2
    wait_unlocked(node.directory / "pool.set")
    assert state_of(local.read_bytes())[1] == node.state()[1] == "CLEAN"
    ours, theirs = local.read_bytes()[POOL_FLOOR:], node.contents()[: SIZE - POOL_FLOOR]
    assert ours == theirs
    with rpmem.Pool.open(local, []) as pool:
        assert (pool["a"] == (1.0 if when == "after the end" else 3.0)).all()


@pytest.mark.skipif(bool(tells_no_stores()), reason=tells_no_stores() or "-")
def test_what_the_kernel_tells_is_sent_and_nothing_is_compared(local, node, monkeypatch):
    for views in (True, False):
        name = local.with_name(f"local{views}")
        place = PoolNode(node.directory.with_name(f"there{views}"))
        pool = rpmem.Pool.create(name, SIZE, place.spec(), parts=1, tracking="kernel")
        array = fill(pool)
        pool.persist()
        array[3, 3] = 7
        monkeypatch.setattr(settling, "_faults", lambda: (0, 0))
        with monkeypatch.context() as patch:
            patch.setattr(Replica, "digests", None)
            if not views:
                del array
            with pool:
                pass
        with rpmem.Pool.open(name, []) as pool:
            assert pool["a"][3, 3] == 7
        wait_unlocked(place.directory / "pool.set")
        assert place.state()[1] == "CLEAN"


# --- replicas ---------------------------------------------------------------------------------


def test_replicas_that_go_on_alone_and_may_differ_are_not_marked(page, local, node, other):
    pool, array = stored(local, node, other)
    begin, _ = span(pool, array)
    page.refuses = lambda event: (
        errno.EIO if event.offset <= begin < event.offset + event.length else 0
    )
    del array
    with pytest.raises(FlushFailed):
        pool.close()
    for each in (node, other):
        wait_unlocked(each.directory / "pool.set")
        record = record_in(each.image())
        assert record is not None
        assert (record.epoch.number, record.mark.name) == (2, "BEGUN")


def test_a_restore_makes_durable_on_its_source_what_it_read(local, node, monkeypatch):
    """Whatever the source was sent last need not be durable there."""
    pool, array = stored(local, node)
    begin, length = span(pool, array)
    del array
    pool._copies.drop()
    pool._tracking.close()
    wait_unlocked(node.directory / "pool.set")
    covered = set()
    digests = Replica.digests

    def noted(replica, asked, *rest, **more):
        covered.update(range(asked[0] // 4096, -(-(asked[0] + asked[1]) // 4096)))
        return digests(replica, asked, *rest, **more)

    monkeypatch.setattr(Replica, "digests", noted)
    with rpmem.Pool.restore(local.with_name("again"), node.spec()):
        assert covered >= set(range(begin // 4096, (begin + length) // 4096))


def test_ranges_that_lie_near_each_other_are_compared_as_one():
    near = settling._NEAR
    ranges = np.array([[0, 10], [10 + near, 5], [16 + 2 * near, 1]], dtype=np.uint64)
    assert _stretches(ranges) == [(0, 15 + near), (16 + 2 * near, 17 + 2 * near)]
    assert _stretches(ranges[:0]) == []


def test_only_arrays_that_somebody_opened_are_looked_at(local, node, monkeypatch, caplog):
    pool, array = stored(local, node)
    del array
    pool.close()
    wait_unlocked(node.directory / "pool.set")
    monkeypatch.setattr(Replica, "digests", None)
    with rpmem.Pool.open(local, node.spec(), tracking="off") as pool:
        assert pool.names() == ["a"]
    assert node.state()[1] == "CLEAN"
    caplog.set_level(logging.INFO)
    assert os.path.exists(local)


@pytest.mark.parametrize("why", ["views cannot be cut off", "a child lives"])
def test_a_refusal_is_told_although_nothing_would_be_marked(page, local, node, monkeypatch, why):
    """Else the copy that lacks something would be what the next open goes on with."""
    pool, array = stored(local, node)
    begin, _ = span(pool, array)
    page.refuses = lambda event: errno.EIO if event.offset == begin else 0
    with pytest.raises(FlushFailed):
        pool.persist(array)
    page.refuses = None
    if why == "a child lives":
        monkeypatch.setattr("rpmem.pool.copies.has_children", lambda since: True)
    else:
        no_again(monkeypatch)
    with pytest.raises(FlushFailed, match="not marked as complete"), pool:
        pass
    wait_unlocked(node.directory / "pool.set")
    assert state_of(node.image()) == (2, "CLEAN")
    with pytest.raises(rpmem.StaleReplica):
        rpmem.Pool.open(local, node.spec())
