"""A target that never answers gets no more messages than its window, and none twice."""

from __future__ import annotations

import threading
import time

import pytest

from rpmem.errors import RpmemError
from tests.support.pair import SIZE, pair
from tests.support.raw_session import raw_lane

SOON = 20.0
MESSAGE = 8192


def silent(both):
    """Connect to a target that takes messages and does nothing about them; return its lane."""
    both.server._serve = lambda: None
    core = both.connect(patience=0.5)
    deadline = time.monotonic() + SOON
    while not both.server._lanes and time.monotonic() < deadline:
        time.sleep(0.001)
    (lane,) = both.server._lanes
    return core, lane


def work(core, call):
    try:
        call(core)
    except RpmemError:
        return  # nobody answers


CALLS = {
    "a long range": lambda core: core.persist((0, SIZE)),
    "many ranges": lambda core: core.persist_many([(n * 8192, 5000) for n in range(100)]),
    "flushes": lambda core: [core.flush((n * 8192, 5000)) for n in range(100)] and core.drain(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("window", [1, 4])
def test_as_many_messages_as_the_window(each_fabric, window, call):
    raw = raw_lane()
    # Where WRITEs store words whole, one message names all of it.
    most = 1 if call == "a long range" and each_fabric == "stream" else window
    with pair(window=window, message_size=MESSAGE) as both:
        core, lane = silent(both)
        thread = threading.Thread(target=work, args=(core, CALLS[call]), daemon=True)
        thread.start()
        seen = []
        while thread.is_alive():
            for kind, data in raw.poll(lane):
                if kind == "receive":
                    seen.append(int.from_bytes(data[4:8], "little"))
            time.sleep(0.001)
        thread.join(SOON)
        assert len(seen) == most
        assert len(set(seen)) == most, "each message has a number of its own"
