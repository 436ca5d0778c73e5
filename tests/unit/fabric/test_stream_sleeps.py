"""Initiators that never poll, over plain and over encrypted lanes."""

from __future__ import annotations

import platform
import random
import threading
import time
from pathlib import Path

import pytest

from tests.support.pair import pair
from tests.support.secret import secret_pair
from tests.unit.service.test_service import Target

#: Of x86-64.
RECVFROM, POLL = "45", "7"
PAGE = 4096


@pytest.fixture(params=[pair, secret_pair], ids=["plain", "encrypted"])
def connected(request):
    """What makes both ends, over lanes of sockets."""
    options = {"provider": "stream"} if request.param is pair else {}
    return lambda **more: request.param(**options, **more)


def sleeps_in(thread: int, wanted: set[str], patience_s: float = 20.0) -> set[str]:
    """Return in which of these system calls a thread is seen to sleep; wait for all of them."""
    end = time.monotonic() + patience_s
    seen: set[str] = set()
    while seen != wanted and time.monotonic() < end:
        words = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
        seen |= wanted & {words[0]}
        time.sleep(0.0001)
    return seen


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other numbers of system calls")
def test_a_lane_alone_is_slept_on_by_receiving(connected, monkeypatch):
    """For 10 ms; then by `poll`, which others can end; and so on."""
    target = Target(monkeypatch, "page")
    goes_on = threading.Event()
    with connected(lanes=1) as both:
        core = both.connect(spin=0.0)
        core.persist((PAGE, 8))
        target.refuses = lambda _: 0 if goes_on.wait(30.0) else 1
        caller = threading.Thread(target=core.persist, args=((PAGE, 8),))
        caller.start()
        try:
            assert caller.native_id is not None
            assert sleeps_in(caller.native_id, {RECVFROM, POLL}) == {RECVFROM, POLL}
        finally:
            goes_on.set()
            caller.join()


def test_what_comes_while_a_side_sleeps_is_whole(connected):
    order = random.Random(20)
    with connected(lanes=2) as both:
        core = both.connect(spin=0.0)
        memory = memoryview(both.here)
        for turn in range(200):
            length = order.choice([1, 8, 64, 4096, 16384, 20000, 70000])
            offset = order.randrange(PAGE, both.here.size - length)
            data = order.randbytes(length)
            memory[offset : offset + length] = data
            core.persist((offset, length), lane=turn % 2)
            back = bytearray(length)
            core.read(0, back, offset)
            assert back == data
