"""The target's loop: what it makes durable before it answers, on media that record it."""

from __future__ import annotations

import errno
import threading
from typing import NamedTuple

import pytest

from rpmem.errors import FlushFailed, ReplicaLost
from rpmem.memory.region import Region
from tests.support.compiled import compiled
from tests.support.pair import pair

PAGE = 4096


class Event(NamedTuple):
    verb: str
    offset: int
    length: int


class Target:
    """Both ends in this process, the target's region on a medium that records.

    Parameters
    ----------
    medium : {"page", "pmem", "volatile"}
        What it passes for.
    """

    def __init__(self, monkeypatch, medium: str) -> None:
        self.events: list[Event] = []
        self.refuses = None
        made = Region.anonymous
        compiled("_hooked_media")

        def anonymous(size):
            region = made(size)
            compiled("_hooked_media").hook(region, self._called, medium=medium)
            return region

        monkeypatch.setattr("tests.support.pair.Region", _Regions(anonymous))

    def _called(self, verb, offset, length):
        event = Event(verb, offset, length)
        self.events.append(event)
        return self.refuses(event) if self.refuses is not None else 0

    def covered(self, offset: int, length: int) -> bool:
        """Whether every byte was flushed since `events` was cleared."""
        left = set(range(offset, offset + length))
        for verb, begin, count in self.events:
            if verb != "drain":
                left -= set(range(begin, begin + count))
        return not left


class _Regions:
    """Stands in for the class `Region` where both ends are made."""

    def __init__(self, anonymous) -> None:
        self.anonymous = anonymous


@pytest.fixture(params=["page", "pmem"])
def target(request, monkeypatch):
    made = Target(monkeypatch, request.param)
    made.medium = request.param
    return made


RANGES = [(9 * PAGE, 64), (3 * PAGE, 8), (40 * PAGE, 200), (17 * PAGE, 8)]


@pytest.mark.parametrize("order", [1, -1])
def test_every_range_is_flushed_before_the_answer(target, order):
    with pair() as both:
        core = both.connect()
        target.events.clear()
        core.persist_many(RANGES[::order])
        for offset, length in RANGES:
            assert target.covered(offset, length)
        verbs = [event.verb for event in target.events]
        if target.medium == "page":
            # One over all of them: the kernel writes only the pages that are dirty.
            assert verbs == ["persist"]
        else:
            assert verbs == ["flush"] * len(RANGES) + ["drain"]


@pytest.mark.parametrize("order", [1, -1])
def test_flushes_are_drained_before_the_answer(target, order):
    with pair() as both:
        core = both.connect()
        target.events.clear()
        for offset, length in RANGES[::order]:
            core.flush((offset, length))
        core.drain()
        for offset, length in RANGES:
            assert target.covered(offset, length)
        assert target.events[-1].verb == ("persist" if target.medium == "page" else "drain")


def test_deep_goes_all_the_way_to_the_medium(target):
    with pair() as both:
        core = both.connect()
        target.events.clear()
        core.deep_persist((5 * PAGE, 100))
        deep = [event for event in target.events if event.verb == "deep"]
        assert len(deep) == 1
        assert target.covered(5 * PAGE, 100)
        target.events.clear()
        core.persist((5 * PAGE, 100))
        assert "deep" not in [event.verb for event in target.events]


def test_a_deep_range_of_several_messages_is_deep_from_end_to_end(target):
    with pair(message_size=1 << 12) as both:
        core = both.connect()
        target.events.clear()
        core.deep_persist((8 * PAGE, 16 * PAGE))
        left = set(range(8 * PAGE, 24 * PAGE))
        for verb, offset, length in target.events:
            if verb == "deep":
                left -= set(range(offset, offset + length))
        assert not left


@pytest.mark.parametrize("verb", ["persist", "deep_persist", "flush"])
def test_a_refused_flush_is_an_error_and_ends_the_lane(target, verb):
    with pair() as both:
        core = both.connect()
        core.persist((PAGE, 8))
        target.refuses = lambda event: errno.EIO if event.offset // PAGE == 7 else 0

        def call():
            getattr(core, verb)((7 * PAGE, 8))
            core.drain()

        with pytest.raises(ReplicaLost):
            call()
        report = both.first_report()
        assert isinstance(report, FlushFailed)
        assert report.errno == errno.EIO
        with pytest.raises(ReplicaLost):
            core.persist((PAGE, 8))


def test_a_refusal_on_one_lane_is_one_for_every_lane(target):
    """The medium is the same, and would say that all is well."""
    with pair(lanes=2) as both:
        core = both.connect()
        once = threading.Event()

        def refuses(event):
            if event.offset // PAGE == 7 and not once.is_set():
                once.set()
                return errno.EIO
            return 0

        target.refuses = refuses
        with pytest.raises(ReplicaLost):
            core.persist((7 * PAGE, 8), lane=0)
        assert once.is_set()
        assert both.there.refused == errno.EIO

        with pytest.raises(ReplicaLost):
            core.persist((9 * PAGE, 8), lane=1)


def test_a_drain_that_is_refused_is_no_answer(monkeypatch):
    target = Target(monkeypatch, "pmem")
    with pair() as both:
        core = both.connect()
        target.refuses = lambda event: errno.EIO if event.verb == "drain" else 0
        with pytest.raises(ReplicaLost):
            core.persist((PAGE, 8))
        assert isinstance(both.first_report(), FlushFailed)
