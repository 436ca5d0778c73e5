"""Nothing of a thousand connections is left: descriptors, queues, memory, kernel's objects."""

from __future__ import annotations

import os
import re
import threading
import time

import pytest

from rpmem.fabric import providers
from tests.rdma.support.node import INITIATOR
from tests.rdma.test_fabric import PROOF, End, await_event, held

CYCLES = int(os.environ.get("RPMEM_TEST_CYCLES", "1000"))
# What a cycle may cost for good: far less than one page of a lane's buffers.
BYTES_EACH = 2048


@pytest.fixture(params=["verbs", "ofi-verbs"])
def provider(request):
    return request.param


def both(provider):
    """Two ends, a lane between them."""
    module = providers.load(provider)
    here = End(module, module.Fabric(provider, INITIATOR, listen=True))
    here.listener = module.Listener(here.fabric)
    there = End(module, module.Fabric(provider, INITIATOR, here.listener.port))
    lane = there.lane()
    lane.connect(PROOF)
    # libfabric takes its own steps only where somebody reads its events.
    waiting = threading.Thread(target=there.fabric.await_lanes, args=([lane], 20))
    waiting.start()
    request = await_event(here.listener)
    other = here.lane(0, request)
    other.post_receives()
    other.accept()
    assert await_event(here.listener, {other.key: other}) is other
    waiting.join()
    assert lane.connected
    return here, there


def close(here, there):
    there.close()
    here.listener.close()
    here.close()


def settled(expected, seconds=10.0):
    """What is held, once the kernel has taken back what it takes back in its own time."""
    deadline = time.monotonic() + seconds
    while (now := held()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return now


def resident():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) << 10


def test_a_lane_that_stays_is_seen(provider):
    """The negative control."""
    close(*both(provider))
    before = held()
    ends = both(provider)
    during = held()
    for kind in ("pd", "cq", "qp", "cm_id", "mr"):
        pattern = rf"\b{kind} (\d+)"
        counts = [sum(map(int, re.findall(pattern, what[2]))) for what in (before, during)]
        assert counts[1] > counts[0], kind
    assert during[0] > before[0]
    close(*ends)
    del ends  # a device is open as long as somebody has it
    assert settled(before) == before


@pytest.mark.timeout(300)
def test_a_thousand_connections_leave_nothing(provider):
    for _ in range(5):
        close(*both(provider))
    before, bytes_before = held(), resident()
    for _ in range(CYCLES):
        close(*both(provider))
    assert settled(before) == before
    assert resident() - bytes_before < BYTES_EACH * CYCLES + (1 << 20)
