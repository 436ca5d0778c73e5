"""What calls mark: for copies that are away, and for a replica that may be lost."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rpmem._core import Replicator
from rpmem.errors import DeadlineExceeded, RangeError, RpmemError
from rpmem.memory.changes.digests import PageDigests
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from tests.support.alarm import Alarm, alarm
from tests.support.posts import EVERY, NATIVE, SIZE, Bench

PAGE = 4096


def pages(found):
    """Return the numbers of a set's pages."""
    return [page for page in range(SIZE // PAGE) if page * PAGE in found]


@pytest.fixture
def doubtful():
    return PageSet(SIZE)


@pytest.fixture
def absent():
    return PageSet(SIZE)


def watched(step, doubtful, absent=None, **how):
    bench = Bench(step, **how)
    bench.core.mark_doubtful(doubtful)
    if absent is not None:
        bench.core.mark_absent([absent])
    return bench


# --- copies that are away ---------------------------------------------------------------------


@pytest.mark.parametrize("step", EVERY)
def test_every_kind_of_call_is_marked_for_a_copy_that_is_away(step, doubtful, absent):
    bench = watched(step, doubtful, absent)
    bench.core.persist((PAGE, 1))
    bench.core.persist_many([(3 * PAGE - 1, 2), (10 * PAGE, PAGE)])
    bench.core.flush((20 * PAGE, 100))
    bench.core.deep_persist((30 * PAGE, 8))
    bench.core.drain()
    bench.core.read(0, bytearray(64), 40 * PAGE)
    assert pages(absent) == [1, 2, 3, 10, 20, 30]
    assert pages(doubtful) == []


def test_calls_of_a_pool_without_replicas_are_marked(absent):
    region = Region.anonymous(SIZE)
    core = Replicator(region, [], local=True, floor=0)
    core.mark_absent([absent])
    core.persist((5 * PAGE, 10))
    core.flush((7 * PAGE, 10))
    assert pages(absent) == [5, 7]


def test_bytes_that_are_lent_are_copied_and_marked_without_replicas(absent):
    """The digest of a page is one of the bytes that were copied: they have to have been."""
    region = Region.anonymous(SIZE)
    core = Replicator(region, [], local=True, floor=0)
    core.mark_absent([absent])
    with memoryview(region) as view:
        view[:] = os.urandom(SIZE)
    digests, pending = PageDigests(region), PageSet(SIZE, region.address % PAGE)
    pending.add(8 * PAGE, PAGE)
    lender = digests.lend(pending, 0, SIZE, bytearray(SIZE))
    ranges = np.array([(8 * PAGE, PAGE)], dtype=np.uint64)
    core.persist_lent(ranges, lender, (0, SIZE))
    digests.confirm(pending, 0, SIZE)
    pending.clear()
    digests.changed(pending, 8 * PAGE, PAGE)
    assert pages(absent) == [8]
    assert pages(pending) == []


def test_several_copies_are_away(doubtful):
    bench = watched("send-after-write", doubtful)
    sets = [PageSet(SIZE) for _ in range(16)]
    bench.core.mark_absent(sets)
    bench.core.persist((PAGE, 1))
    bench.core.mark_absent(sets[:3])
    bench.core.persist((2 * PAGE, 1))
    assert [pages(each) for each in sets] == [[1, 2]] * 3 + [[1]] * 13
    with pytest.raises(RangeError, match="17"):
        bench.core.mark_absent([PageSet(SIZE) for _ in range(17)])
    with pytest.raises(RangeError):
        bench.core.mark_absent([PageSet(SIZE - PAGE)])


@pytest.mark.parametrize("step", EVERY)
def test_a_call_that_fails_is_marked_too(step, doubtful, absent):
    bench = watched(step, doubtful, absent)
    bench.lane.withhold(posts=True, answers=True)
    with pytest.raises(RpmemError):
        bench.core.persist((PAGE, 100))
    assert pages(absent) == [1]


# --- a replica that is lost -------------------------------------------------------------------


@pytest.mark.parametrize("step", EVERY)
def test_what_was_in_flight_is_doubtful_and_what_was_acknowledged_is_not(step, doubtful):
    bench = watched(step, doubtful)
    bench.core.persist((PAGE, 100))
    bench.lane.withhold(posts=True, answers=True)
    with pytest.raises(RpmemError):
        bench.core.persist_many([(5 * PAGE, 100), (9 * PAGE - 1, 2)])
    assert pages(doubtful) == [5, 8, 9]
    with pytest.raises(RpmemError):
        bench.core.persist((11 * PAGE, 1))
    assert pages(doubtful) == [5, 8, 9, 11]


def test_what_one_of_two_replicas_acknowledged_is_doubtful_all_the_same(doubtful):
    good, bad = Bench("send-after-write"), Bench("send-after-write")
    core = Replicator(good.region, [good.group, bad.group], local=False, floor=0, timeout_s=0.05)
    core.mark_doubtful(doubtful)
    bad.lane.withhold(posts=True, answers=True)
    with pytest.raises(RpmemError):
        core.persist((5 * PAGE, 100))
    assert not good.group.failed
    assert pages(doubtful) == [5]


@pytest.mark.parametrize("step", EVERY)
def test_flushes_that_were_drained_are_certain(step, doubtful):
    bench = watched(step, doubtful)
    bench.core.flush((5 * PAGE, 100))
    bench.core.drain()
    bench.group.abort()
    with pytest.raises(RpmemError):
        bench.core.drain()
    assert pages(doubtful) == []
    assert bench.core.left_behind() == []


@pytest.mark.parametrize("step", NATIVE)
def test_flushes_that_were_not_drained_are_doubtful(step, doubtful):
    bench = watched(step, doubtful, lanes=2)
    bench.core.flush((5 * PAGE, 100), lane=1)
    bench.core.flush((7 * PAGE, 100), lane=1)
    bench.core.flush((20 * PAGE, 100), lane=0)
    assert bench.core.left_behind() == [(20 * PAGE, 100), (5 * PAGE, 2 * PAGE + 100)]
    bench.lanes[1].withhold(posts=True, answers=True)
    with pytest.raises(RpmemError):
        bench.core.drain(lane=1)
    assert pages(doubtful) == [5, 6, 7]
    with pytest.raises(RpmemError):
        bench.core.drain()
    assert pages(doubtful) == [5, 6, 7, 20]


@pytest.mark.parametrize("step", NATIVE)
def test_a_drain_that_was_interrupted_leaves_what_it_was_to_drain(step, doubtful):
    bench = watched(step, doubtful, timeout=20.0)
    bench.core.flush((5 * PAGE, 100))
    bench.lane.withhold(posts=True, answers=True)
    with pytest.raises(Alarm), alarm():
        bench.core.drain()
    assert bench.core.left_behind() == [(5 * PAGE, 100)]


@pytest.mark.parametrize("step", NATIVE)
def test_a_call_that_was_interrupted_is_unsettled(step, doubtful):
    bench = watched(step, doubtful, timeout=20.0)
    bench.lane.withhold(posts=True, answers=True)
    with pytest.raises(Alarm), alarm():
        bench.core.persist((5 * PAGE, 100))
    assert bench.core.take_unsettled() == [(5 * PAGE, 100)]


@pytest.mark.parametrize("taken", ["every lane", "its bytes"])
@pytest.mark.parametrize("step", NATIVE)
def test_a_call_that_got_no_lane_is_unsettled(step, taken):
    """Copies are not sent what it names, though the local one may have it already."""
    bench = Bench(step, lanes=1 if taken == "every lane" else 2)
    held = (0, 8) if taken == "every lane" else (5 * PAGE, 8)
    with bench.core.hold(*held):
        with pytest.raises(DeadlineExceeded, match="no lane became free"):
            bench.core.persist_many([(5 * PAGE, 100), (9 * PAGE, 1)])
        assert bench.core.take_unsettled() == [(5 * PAGE, 100), (9 * PAGE, 1)]
        with pytest.raises(DeadlineExceeded, match="no lane became free"):
            bench.core.flush((5 * PAGE, 100))
        assert bench.core.take_unsettled() == [(5 * PAGE, 100)]
    assert bench.lane.posts() == []
    bench.core.persist((5 * PAGE, 100))
    assert bench.core.take_unsettled() == []


def test_reads_miss_nothing(doubtful):
    bench = watched("send-after-write", doubtful)
    bench.lane.withhold(posts=True, answers=True)
    with pytest.raises(RpmemError):
        bench.core.read(0, bytearray(64), 5 * PAGE)
    assert pages(doubtful) == []
