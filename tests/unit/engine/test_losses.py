"""A replica is lost once: every call that finds it lost tells what the first one found."""

from __future__ import annotations

import pytest

from rpmem.errors import DeadlineExceeded, FlushFailed
from rpmem.wire.messages import REPLY_FLUSH_FAILED
from tests.support.posts import Bench

PLACE = (4096, 8)


def expire(bench: Bench) -> None:
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded, match="fault -5"):
        bench.core.persist(PLACE, lane=0)


def test_another_lane_tells_the_first_ones_fault():
    bench = Bench("send-after-write", lanes=3)
    expire(bench)
    for lane in (2, 0, 1):
        with pytest.raises(DeadlineExceeded, match="fault -5"):
            bench.core.persist(PLACE, lane=lane)


def test_another_lane_tells_what_was_refused():
    bench = Bench("send-after-write", lanes=2)
    bench.lane.refuse(REPLY_FLUSH_FAILED)
    for lane in (0, 1):
        with pytest.raises(FlushFailed, match=f"refused with {REPLY_FLUSH_FAILED}") as caught:
            bench.core.persist(PLACE, lane=lane)
        assert caught.value.errno == 5


def test_an_end_from_outside_comes_too_late_to_be_the_cause():
    bench = Bench("send-after-write", lanes=2)
    expire(bench)
    bench.group.abort()
    with pytest.raises(DeadlineExceeded, match="fault -5"):
        bench.core.persist(PLACE, lane=1)


def test_a_fault_comes_too_late_to_be_the_cause_of_an_end_from_outside():
    bench = Bench("send-after-write", lanes=2)
    bench.group.abort()
    for lane in (0, 1):
        with pytest.raises(DeadlineExceeded, match="fault -6"):
            bench.core.persist(PLACE, lane=lane)
