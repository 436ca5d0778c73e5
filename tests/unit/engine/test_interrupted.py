"""What a call that did not come to its end leaves alive, and what a forked child leaves alone."""

from __future__ import annotations

import os

import pytest

from rpmem._core import Replicator
from tests.support.alarm import Alarm, alarm
from tests.support.posts import EVERY, Bench


@pytest.mark.parametrize("step", EVERY)
def test_a_buffer_that_may_still_be_written_to_is_kept(step):
    """The READ that was posted may end at any time, until its lane is closed."""
    bench = Bench(step, timeout=20.0)
    bench.lane.withhold(posts=True, answers=True)
    buffer = bytearray(64)
    with pytest.raises(Alarm), alarm():
        bench.core.read(0, buffer, 4096)
    with pytest.raises(BufferError):
        buffer.clear()


def test_a_signal_is_not_lost_behind_an_earlier_failure_of_the_same_drain():
    """One replica refuses on the first lane; the other hangs on the second."""
    refusing, hanging = (Bench("send-after-write", lanes=2, timeout=20.0) for _ in range(2))
    core = Replicator(
        refusing.region, [refusing.group, hanging.group], local=False, floor=0, timeout_s=20.0
    )
    for lane in range(2):
        core.flush((4096 * (lane + 1), 64), lane=lane)
    refusing.lanes[0].refuse(1)
    hanging.lanes[1].withhold(posts=True, answers=True)
    with pytest.raises(Alarm), alarm():
        core.drain()
    assert refusing.group.failed


@pytest.mark.parametrize("step", EVERY)
def test_a_forked_child_does_not_drain_its_parents_lanes(step):
    bench = Bench(step)
    bench.core.flush((4096, 64))
    bench.lane.posts()
    child = os.fork()
    if child == 0:
        bench.core.drain_rest()
        os._exit(len(bench.lane.posts()))
    assert os.waitpid(child, 0)[1] == 0
    bench.core.drain()
