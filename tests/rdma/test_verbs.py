"""Lanes over verbs, ours and libfabric's, under load, and what must not get in."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from rpmem import errors
from rpmem.base import environment
from rpmem.control.proof import pack_proof
from rpmem.fabric import providers
from tests.rdma.support.node import HEADER, MEGABYTE, TARGET
from tests.rdma.support.places import PLACES

SIZE = 8 * MEGABYTE


@pytest.fixture(params=["ofi-verbs", "verbs"])
def provider(request):
    return request.param


@pytest.fixture
def replica(target, provider):
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=4, provider=provider)
        replica.memory = memory
        replica.before = place.content(lines, SIZE)
        yield replica


def content(replica):
    back = bytearray(SIZE - HEADER)
    replica.read(back, HEADER)
    return bytes(HEADER) + back


def test_more_writes_than_the_send_queue_holds(replica):
    limit = min(replica._lanes.fabric.description["queue_size"], 400)
    memory = replica.memory
    # Long enough to be WRITTEN, and only the last asks for a completion.
    length, count = 2048, 3 * limit
    step = (SIZE - HEADER) // count // 64 * 64
    assert step >= length
    memory[:] = os.urandom(SIZE)
    ranges = [(HEADER + number * step, length) for number in range(count)]
    for relaxed in (True, False):
        replica.persist_many(ranges, relaxed=relaxed)
    there = content(replica)
    for offset, length in ranges:
        assert there[offset : offset + length] == memory[offset : offset + length]
    between = slice(HEADER + length, HEADER + step)
    assert there[between] == replica.before[between]


@pytest.mark.parametrize(
    "size", ["2", "1000000", *(pytest.param(n, marks=pytest.mark.slow) for n in ("1", "7", "40"))]
)
def test_the_size_of_the_work_queue(target, provider, monkeypatch, size):
    monkeypatch.setenv("RPMEM_WORK_QUEUE_SIZE", size)
    environment.current.cache_clear()
    place = PLACES["devdax"]
    ranges = [(HEADER + number * 8192, 4096) for number in range(120)]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        memory[:] = os.urandom(SIZE)
        name = target.pool_set("a.set", *lines)
        with target.create(name, memory, nlanes=1, provider=provider) as replica:
            used = replica._lanes.fabric.description["queue_size"]
            whole = providers.load(provider).Fabric(provider, TARGET, 1, queue_size=1 << 30)
            limit = whole.description["queue_size"]
            whole.close()
            assert used == min(max(2, int(size)), limit)
            replica.persist_many(ranges, relaxed=True)
            if provider == "verbs":
                requests, doorbells = replica._lanes.lanes[0].counts
                # No more than fit go together, and of a queue with room many do.
                assert doorbells >= (requests - 1) // used
                assert used < 40 or doorbells < requests / 4
            image = place.content(lines, SIZE)
            for offset, length in ranges:
                assert image[offset : offset + length] == memory[offset : offset + length]
    environment.current.cache_clear()


def test_many_flushes_before_a_drain(replica):
    memory = replica.memory
    memory[:] = os.urandom(SIZE)
    for number in range(600):
        replica.flush(HEADER + number * 4096, 100, relaxed=bool(number % 2))
    replica.drain()
    there = content(replica)
    for number in range(600):
        at = HEADER + number * 4096
        assert there[at : at + 100] == memory[at : at + 100]


def test_threads_on_lanes_of_their_own(replica):
    memory = replica.memory
    failed = []

    def work(thread):
        try:
            for turn in range(60):
                at = HEADER + (thread * 60 + turn) * 8192
                memory[at : at + 5000] = os.urandom(5000)
                replica.persist(at, 5000, relaxed=bool(turn % 2))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    there = content(replica)
    for number in range(360):
        at = HEADER + number * 8192
        assert there[at : at + 5000] == memory[at : at + 5000]


def test_reading_into_any_memory(replica):
    memory = replica.memory
    memory[HEADER : HEADER + 300_000] = os.urandom(300_000)
    replica.persist(HEADER, 300_000)
    for length in (1, 8, 4096, 299_999):
        into = bytearray(length)
        replica.read(into, HEADER + 1)
        assert into == memory[HEADER + 1 : HEADER + 1 + length]


def knock(provider, port, data, timeout=10):
    """Try to connect one lane as a stranger; True if it was let in."""
    module = providers.load(provider)
    strange = module.Fabric(provider, TARGET, port)
    domain = module.Domain(strange)
    queue = module.Queue(domain)
    lane = module.FabricLane(domain, queue, 0, (4, 256), (4, 64), None)
    try:
        lane.connect(data)
        strange.await_lanes([lane], timeout)
    except (errors.ConnectFailed, errors.DeadlineExceeded):
        return False
    else:
        return True
    finally:
        lane.close()
        queue.close()
        domain.close()
        strange.close()


def test_strangers_are_not_let_in_while_lanes_are_awaited(target, provider, monkeypatch):
    from rpmem.session import lanes

    seen = []
    original = lanes.Lanes._connect

    def after_strangers(self, host, timeout):
        port = self._ready.port
        proofs = (b"", b"x" * 56, pack_proof(0, b"?" * 32), pack_proof(999, b"?" * 32))
        seen.extend(knock(provider, port, data) for data in proofs)
        return original(self, host, timeout)

    monkeypatch.setattr(lanes.Lanes, "_connect", after_strangers)
    with PLACES["devdax"].parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        with target.create(name, memory, nlanes=2, provider=provider) as replica:
            ready = replica._lanes._ready
            replica.persist(HEADER, 1000)
            # All lanes are there: nobody listens any more, not even for a token of this session.
            assert not knock(provider, ready.port, pack_proof(0, ready.lanes[0].token), timeout=3)
            replica.persist(HEADER, 1000)
    assert seen == [False] * 4
    assert "without a valid token" in target.log.read_text()


def test_the_key_of_a_closed_session_opens_nothing(target, provider):
    with PLACES["devdax"].parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        with target.create(name, memory, nlanes=1, provider=provider) as first:
            stale = first._lanes._ready.lanes[0]
        with target.open(name, memory, nlanes=1, provider=provider) as second:
            fresh = second._lanes._ready.lanes[0]
            assert (fresh.key, fresh.address) != (stale.key, stale.address)
            second._lanes.lanes[0].aim(stale.address, stale.key, SIZE)
            with pytest.raises((errors.ReplicaLost, errors.DeadlineExceeded)):
                second.read(bytearray(64), HEADER)
