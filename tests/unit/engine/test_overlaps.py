"""Two lanes have no order: what overlaps goes one after the other, and nothing else waits."""

from __future__ import annotations

import threading
import time

import pytest

from rpmem._core import Replicator
from rpmem.errors import DeadlineExceeded
from tests.support.alarm import Alarm, alarm
from tests.support.posts import EVERY, NATIVE, Bench

PATIENCE = 20.0
#: How long something is watched that must not happen.
WATCHED = 0.02


def bench_of(step):
    return Bench(step, lanes=3, timeout=PATIENCE)


def begun(bench, call, *arguments, lane, **keywords):
    """Start a call in a thread; return it once it has posted something."""
    thread = threading.Thread(target=call, args=arguments, kwargs={"lane": lane, **keywords})
    thread.start()
    while not bench.lanes[lane].posts():
        assert thread.is_alive()
    return thread


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("where", [(150, 100), (100, 1), (199, 1)])
def test_a_call_waits_for_another_that_has_bytes_of_it(step, relaxed, where):
    bench = bench_of(step)
    bench.lanes[0].withhold(posts=True, answers=True)
    first = begun(bench, bench.core.persist, (100, 100), lane=0, relaxed=relaxed)
    # Beside it nothing waits: below, above, and around it in one call.
    bench.core.persist((0, 100), lane=1)
    bench.core.persist((200, 100), lane=1)
    bench.core.persist_many([(0, 100), (200, 100)], lane=1)
    bench.lanes[1].posts()
    second = threading.Thread(target=bench.core.persist, args=(where,), kwargs={"lane": 1})
    second.start()
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        assert not bench.lanes[1].posts()
        assert second.is_alive()
    bench.lanes[0].withhold()
    first.join()
    second.join()
    assert bench.lanes[1].posts()


@pytest.mark.parametrize("count", [3, 80, 2000])
@pytest.mark.parametrize("step", NATIVE)
def test_many_ranges_are_waited_for_in_any_order(step, count):
    bench = bench_of(step)
    ranges = [(4096 + 200 * number, 100) for number in range(count)][::-1]
    bench.lanes[0].withhold(posts=True, answers=True)
    first = begun(bench, bench.core.persist_many, ranges, lane=0)
    wanted = [(ranges[0][0] + 99, 1), (0, 8), (8, 8), (16, 8)]
    second = threading.Thread(target=bench.core.persist_many, args=(wanted,), kwargs={"lane": 1})
    second.start()
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        assert not bench.lanes[1].posts()
        assert second.is_alive()
    bench.lanes[0].withhold()
    first.join()
    second.join()
    assert bench.lanes[1].posts()


def shortest(turn):
    """Return the shortest of some turns, in seconds; a busy machine makes many of them long."""
    found = 1.0
    for _ in range(20):
        found = min(found, turn())
        if found < 0.025:
            break
    return found


@pytest.mark.parametrize("lane", [0, 1])
def test_who_waits_goes_on_at_once(lane):
    # For the same lane, or for bytes that another has: both look for signals 20 times a second.
    bench = bench_of("send-after-write")

    def turn():
        bench.lanes[0].withhold(posts=True, answers=True)
        bench.lanes[0].posts()
        first = begun(bench, bench.core.persist, (100, 100), lane=0)
        second = threading.Thread(
            target=bench.core.persist, args=((100, 100),), kwargs={"lane": lane}
        )
        second.start()
        time.sleep(0.005)
        bench.lanes[0].withhold()
        first.join()
        since = time.monotonic()
        second.join()
        return time.monotonic() - since

    assert shortest(turn) < 0.025


def test_there_are_no_more_lanes_than_there_are():
    bench = Bench("send-after-write", lanes=3, timeout=1.0)
    ended = []

    def persist(number):
        try:
            bench.core.persist((4096 * number, 8))
        except DeadlineExceeded:
            ended.append(number)

    for lane in bench.lanes:
        lane.withhold(posts=True, answers=True)
    calls = [threading.Thread(target=persist, args=(number,)) for number in range(8)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(PATIENCE)
        assert not call.is_alive()
    assert sorted(ended) == list(range(8))
    assert sum(len(lane.posts()) for lane in bench.lanes) == 3


def test_lanes_come_and_go_in_any_order():
    bench = bench_of("send-after-write")
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)):
        calls = {}
        for lane in order:
            bench.lanes[lane].withhold(posts=True, answers=True)
            bench.lanes[lane].posts()
            calls[lane] = begun(bench, bench.core.persist, (4096 * lane, 8), lane=lane)
        for lane in (1, 2, 0):
            bench.lanes[lane].withhold()
            calls[lane].join(PATIENCE)
            assert not calls[lane].is_alive()


@pytest.mark.parametrize("step", EVERY)
def test_a_call_that_waits_is_ended_by_a_signal(step):
    bench = bench_of(step)
    bench.lanes[0].withhold(posts=True, answers=True)
    first = begun(bench, bench.core.persist, (100, 100), lane=0)
    since = time.monotonic()
    with pytest.raises(Alarm), alarm():
        bench.core.persist((100, 100), lane=1)
    assert time.monotonic() - since < PATIENCE / 2
    assert not bench.lanes[1].posts()
    bench.lanes[0].withhold()
    first.join()
    bench.core.persist((100, 100), lane=1)


@pytest.mark.parametrize(("relaxed", "lane"), [(False, 1), (True, 0)])
@pytest.mark.parametrize("step", EVERY)
def test_what_an_interrupted_call_left_is_waited_for(step, relaxed, lane):
    bench = bench_of(step)
    left = bench.lanes[0]
    left.withhold(posts=True, answers=True)
    with pytest.raises(Alarm), alarm():
        bench.core.persist((100, 100), lane=0, relaxed=relaxed)
    other = threading.Thread(target=bench.core.persist, args=((150, 8),), kwargs={"lane": lane})
    bench.core.persist((0, 100), lane=2)
    for each in bench.lanes:
        each.posts()
    other.start()
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        assert other.is_alive()
        assert not any(post[1:3] == (150, 8) for post in bench.lanes[lane].posts())
    left.withhold()
    other.join()
    assert bench.core.take_unsettled() == [(100, 100)]


@pytest.mark.parametrize("step", EVERY)
def test_a_write_of_an_interrupted_call_is_waited_for(step):
    bench = bench_of(step)
    left = bench.lanes[0]
    # The call comes no further than its WRITE, which nothing has answered by then.
    left.withhold(posts=True, answers=True, only_writes=True)
    with pytest.raises(Alarm), alarm():
        bench.core.persist((4096, 300_000), lane=0, relaxed=True)
    assert any(post[0] == "write" for post in left.posts())
    left.withhold(posts=True, answers=True)
    other = threading.Thread(target=bench.core.persist, args=((5000, 8),), kwargs={"lane": 1})
    other.start()
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        assert other.is_alive()
        assert not bench.lanes[1].posts()
    left.withhold()
    other.join()
    assert bench.lanes[1].posts()


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False)])
@pytest.mark.parametrize("between", [False, True])
def test_one_sided_data_and_messages_of_one_lane_do_not_overtake_each_other(first, second, between):
    bench = bench_of("send-after-write")
    lane = bench.lanes[0]
    bench.core.flush((0, 100_000), lane=0, relaxed=first)
    if between:
        bench.core.flush((500_000, 64_800), lane=0)  # one message: too long to wait for the drain
    lane.posts()
    lane.withhold(posts=True, answers=True)
    where = (20_000, 40_000)
    other = threading.Thread(
        target=bench.core.persist, args=(where,), kwargs={"lane": 0, "relaxed": second}
    )
    other.start()
    while not (posts := lane.posts()):
        assert other.is_alive()
    assert [post[0] for post in posts] == ["send"]
    assert posts[0][2] == 0, "the first is the drain, which has no data"
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        assert other.is_alive()
        assert not lane.posts()
    lane.withhold()
    other.join()


@pytest.mark.parametrize("where", [40_000, 90_000])
@pytest.mark.parametrize("step", NATIVE)
def test_what_was_flushed_is_drained_before_another_lane_has_it(step, where):
    bench = bench_of(step)
    left = bench.lanes[0]
    bench.core.flush((0, 100_000), lane=0)  # more than waits for the drain
    left.posts()
    bench.core.persist((200_000, 8), lane=1)
    bench.core.flush((50_000, 1000), lane=0)
    assert not any(post[2] == 0 for post in left.posts()), "nobody has to wait yet"
    bench.core.persist((where, 8), lane=1)
    drained = left.posts()
    assert drained
    bench.core.persist((where, 8), lane=1)
    bench.core.drain()
    assert not left.posts(), "there is nothing left to be drained"


@pytest.mark.parametrize("step", NATIVE)
def test_what_is_left_at_the_end_is_drained(step):
    bench = bench_of(step)
    left = bench.lanes[0]
    left.withhold(posts=True, answers=True)
    with pytest.raises(Alarm), alarm():
        bench.core.persist((100, 100), lane=0, relaxed=True)
    bench.core.close()
    rest = threading.Thread(target=bench.core.drain_rest)
    rest.start()
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        assert rest.is_alive()
    left.withhold()
    rest.join()


@pytest.mark.parametrize("step", EVERY)
def test_what_was_flushed_is_drained_by_the_next_engine_of_its_lanes(step):
    bench = bench_of(step)
    bench.core.flush((4096, 64), lane=1)
    core = Replicator(bench.region, [bench.group], local=False, floor=0, timeout_s=PATIENCE)
    core.drain()
    with memoryview(bench.region) as view:
        assert bench.lanes[1].read_pool(4096, 64) == bytes(view[4096:4160])
    bench.lanes[1].posts()
    core.drain()
    assert not bench.lanes[1].posts()


def test_the_end_of_the_last_call_is_waited_for():
    bench = bench_of("send-after-write")
    assert bench.core.wait_for_calls(0)
    bench.lanes[0].withhold(answers=True)
    calls = [begun(bench, bench.core.persist, (0, 8), lane=0)]
    bench.lanes[1].withhold(answers=True)
    calls.append(begun(bench, bench.core.persist, (64, 8), lane=1))
    assert not bench.core.wait_for_calls(WATCHED)
    bench.lanes[0].withhold()
    calls[0].join()
    assert not bench.core.wait_for_calls(WATCHED)
    bench.lanes[1].withhold()
    assert bench.core.wait_for_calls()
    assert bench.core.calls == 0
    calls[1].join()
