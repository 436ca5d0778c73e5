"""A queue of lanes over byte streams, few and many: each is found, and sleeps end."""

from __future__ import annotations

import contextlib
import random

import pytest

from tests.unit.fabric.test_stream_lanes import LOST, MESSAGE, Wired, frame


@pytest.fixture(params=[0, 1, 3, 4, 9], ids="{} beside it".format)
def wired(request):
    with Wired(beside=request.param) as made:
        yield made


def test_what_comes_on_any_lane_is_found(wired):
    ends = [wired.other, *wired.others]
    for turn in range(5):
        order = random.Random(turn).sample(range(len(ends)), len(ends))
        for number in order:
            ends[number].sendall(frame(MESSAGE, b"%d" % number))
            assert wired.raw.wait(wired.lane, 5000)
            assert wired.polled() == [("receive", b"%d" % number)]
        for number in order:
            ends[number].sendall(frame(MESSAGE, b"%d" % number))
        found = wired.polled(len(ends))
        assert sorted(found) == sorted(("receive", b"%d" % number) for number in order)
        assert not wired.raw.wait(wired.lane, 5)


def test_a_lane_that_ends_leaves_the_others(wired):
    for number, end in enumerate(wired.others):
        end.close()
        assert wired.raw.wait(wired.lane, 5000)
        assert wired.polled() == [("fault", b"")]
        assert wired.beside[number].fault == (LOST, 0)
        assert not wired.raw.wait(wired.lane, 5)
        wired.beside[number].close()
        wired.other.sendall(frame(MESSAGE, b"still there"))
        assert wired.raw.wait(wired.lane, 5000)
        assert wired.polled() == [("receive", b"still there")]


def test_a_wait_ends_when_something_comes_or_somebody_rings(wired):
    assert not wired.raw.wait(wired.lane, 10)
    wired.raw.wake(wired.lane)
    assert wired.raw.wait(wired.lane, 5000)
    assert not wired.raw.wait(wired.lane, 10)
    wired.other.sendall(frame(MESSAGE, b"x"))
    assert wired.raw.wait(wired.lane, 5000)


def test_a_wait_ends_when_there_is_room_for_what_was_not_sent(wired):
    """In the middle of a post, and where nothing of it was taken."""
    wired.other.setblocking(False)

    def fill():
        while wired.raw.write(wired.lane, bytes(4096), 0) == 0:
            pass

    def empty():
        got = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                got += len(wired.other.recv(1 << 20))
        return got

    for _ in range(3):
        fill()
        assert not wired.raw.wait(wired.lane, 10)
        assert empty() > 4096
        assert wired.raw.wait(wired.lane, 5000), "there is room"
        wired.raw.poll(wired.lane)
    # Who has nothing to send any more sleeps.
    while empty():
        wired.raw.poll(wired.lane)
    wired.raw.poll(wired.lane)
    assert not wired.raw.wait(wired.lane, 10)
