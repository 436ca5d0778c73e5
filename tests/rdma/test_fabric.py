"""The objects of the verbs fabric, both ends in one process."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rpmem import Region
from rpmem.errors import ConnectFailed, DeadlineExceeded, ProviderUnavailable
from rpmem.fabric import providers
from tests.rdma.support.node import INITIATOR

SIZE = 1 << 20
PROOF = bytes(range(40))
CYCLES = int(os.environ.get("RPMEM_TEST_CYCLES", "50"))


@dataclass
class End:
    """One end: a fabric, a domain, and what was made in it."""

    module: Any
    fabric: Any
    made: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self.domain = self.module.Domain(self.fabric)

    def queue(self):
        queue = self.module.Queue(self.domain)
        self.made.append(queue)
        return queue

    def lane(self, number=0, request=None, slots=16):
        queue = self.queue()
        size = (slots, 256)
        lane = self.module.FabricLane(self.domain, queue, number, size, size, None, request)
        self.made.append(lane)
        return lane

    def close(self):
        for each in reversed(self.made):
            each.close()
        self.domain.close()
        self.fabric.close()


@pytest.fixture(scope="module")
def module():
    return providers.load("verbs")


@pytest.fixture
def listening(module):
    end = End(module, module.Fabric("verbs", INITIATOR, listen=True))
    end.listener = module.Listener(end.fabric)
    yield end
    end.listener.close()
    end.close()


@pytest.fixture
def calling(module, listening):
    end = End(module, module.Fabric("verbs", INITIATOR, listening.listener.port))
    yield end
    end.close()


def await_event(listener, lanes=None, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        event = listener.next(0.5, {} if lanes is None else lanes)
        if event is not None:
            return event
    raise AssertionError("nothing happened at the listener")


def connect(calling, listening, number=0):
    """Return both ends of a connected lane."""
    lane = calling.lane(number)
    lane.connect(PROOF)
    request = await_event(listening.listener)
    other = listening.lane(number, request)
    other.post_receives()
    other.accept()
    calling.fabric.await_lanes([lane], 10)
    assert await_event(listening.listener, {other.key: other}) is other
    return lane, other


def test_a_request_brings_its_proof_and_its_origin(calling, listening):
    lane = calling.lane()
    lane.connect(PROOF)
    request = await_event(listening.listener)
    # RDMA-CM fills up what it carries with zeros.
    assert request.data[: len(PROOF)] == PROOF
    assert not any(request.data[len(PROOF) :])
    assert request.peer[0] == INITIATOR
    assert not lane.connected
    request.reject()


def test_both_ends_are_connected(calling, listening):
    lane, other = connect(calling, listening)
    assert lane.connected
    assert other.connected
    assert (lane.fault, other.fault) == ((0, 0), (0, 0))
    assert lane.inline_limit >= 64
    assert lane.counts == (0, 0)


def test_a_rejected_lane_says_so(calling, listening):
    lane = calling.lane(3)
    lane.connect(PROOF)
    await_event(listening.listener).reject()
    with pytest.raises(ConnectFailed, match="refused lane 3"):
        calling.fabric.await_lanes([lane], 10)


def test_nobody_listens(calling, listening):
    listening.listener.close()
    lane = calling.lane()
    lane.connect(PROOF)
    with pytest.raises(ConnectFailed, match="nobody listens"):
        calling.fabric.await_lanes([lane], 10)


def test_a_request_that_is_dropped_is_turned_down(calling, listening):
    lane = calling.lane()
    lane.connect(PROOF)
    await_event(listening.listener)
    with pytest.raises(ConnectFailed, match="refused"):
        calling.fabric.await_lanes([lane], 10)


def test_a_silent_target_is_given_up_in_time(calling):
    lane = calling.lane()
    lane.connect(PROOF)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="1 of 1 lanes"):
        calling.fabric.await_lanes([lane], 1.0)
    assert time.monotonic() - start < 10


def test_proofs_have_a_limit(calling):
    lane = calling.lane()
    with pytest.raises(ConnectFailed, match="56 bytes"):
        lane.connect(bytes(57))


@pytest.mark.parametrize("host", ["192.0.2.1", "no such name"])
def test_no_device_leads_there(module, host):
    with pytest.raises(ProviderUnavailable):
        module.Fabric("verbs", host, 1)


def test_an_address_of_no_device_cannot_be_listened_on(module):
    with pytest.raises(ProviderUnavailable):
        module.Fabric("verbs", "192.0.2.1", listen=True)


def test_loopback_means_the_first_device(module):
    end = module.Fabric("verbs", "127.0.0.1", listen=True)
    listener = module.Listener(end)
    assert listener.port
    listener.close()
    end.close()


def test_fabrics_describe_themselves(listening):
    facts = listening.fabric.description
    assert facts["provider"] == "verbs"
    assert facts["domain"].startswith("rxe")
    assert facts["lane_limit"] >= 64
    assert listening.fabric.pins
    assert not listening.fabric.commits


def test_devices_are_listed(module):
    found = module.devices()
    assert found
    assert all(each["name"].startswith("rxe") and each["up"] for each in found)


def test_a_queue_grows_with_its_lanes(module, listening, calling):
    queue = listening.queue()
    for number in range(8):
        lane = calling.lane(number)
        lane.connect(PROOF)
        while not isinstance(request := await_event(listening.listener), module.Request):
            pass  # that the lane before is connected
        size = (16, 64)
        other = module.FabricLane(listening.domain, queue, number, size, (200, 64), None, request)
        listening.made.append(other)
        other.post_receives()
        other.accept()
        calling.fabric.await_lanes([lane], 10)


def test_memory_has_a_key_of_its_own(module, listening):
    with Region.anonymous(SIZE) as region:
        first, second = (
            module.Memory(listening.domain, region.address, SIZE, remote=True, keep=region)
            for _ in range(2)
        )
        assert first.key != second.key
        assert first.address == region.address
        assert first.handle
        with pytest.raises(BufferError):
            region.close()
        first.close()
        second.close()


def held():
    """Descriptors, mapped queues, and what the kernel counts of RDMA objects."""
    counted = subprocess.run(["rdma", "resource"], capture_output=True, text=True, check=True)
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count("uverbs"), counted.stdout


def test_nothing_is_left_behind(module):
    def once():
        here = End(module, module.Fabric("verbs", INITIATOR, listen=True))
        here.listener = module.Listener(here.fabric)
        there = End(module, module.Fabric("verbs", INITIATOR, here.listener.port))
        connect(there, here)
        there.close()
        here.listener.close()
        here.close()

    once()
    before = held()
    for _ in range(CYCLES):
        once()
    assert held() == before
