"""Two lanes have no order: what overlaps goes one after the other, and nothing else waits."""

from __future__ import annotations

import signal
import threading
import time

import pytest

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


@pytest.mark.parametrize("step", EVERY)
def test_a_call_that_waits_is_ended_by_a_signal(step):
    bench = bench_of(step)
    bench.lanes[0].withhold(posts=True, answers=True)
    first = begun(bench, bench.core.persist, (100, 100), lane=0)
    with pytest.raises(Alarm), alarm():
        bench.core.persist((100, 100), lane=1)
    assert not bench.lanes[1].posts()
    bench.lanes[0].withhold()
    first.join()
    bench.core.persist((100, 100), lane=1)


class Alarm(Exception):
    """A signal has come."""


class alarm:  # noqa: N801
    """Raise `Alarm` in the main thread soon."""

    def __enter__(self):
        self._before = signal.signal(signal.SIGALRM, self._raise)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def _raise(*_):
        raise Alarm


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


@pytest.mark.parametrize("step", NATIVE)
def test_what_was_flushed_is_drained_before_another_lane_has_it(step):
    bench = bench_of(step)
    left = bench.lanes[0]
    bench.core.flush((0, 100_000), lane=0)  # more than waits for the drain
    left.posts()
    bench.core.persist((200_000, 8), lane=1)
    bench.core.flush((50_000, 1000), lane=0)
    assert not any(post[2] == 0 for post in left.posts()), "nobody has to wait yet"
    bench.core.persist((40_000, 8), lane=1)
    drained = left.posts()
    assert drained
    bench.core.persist((40_000, 8), lane=1)
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
