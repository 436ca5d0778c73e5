"""What each durability step posts, counted: work requests and doorbells per call."""

from __future__ import annotations

import mmap
import os
from functools import partial

import pytest

from rpmem.base import environment
from rpmem.errors import FabricFailure
from tests.rdma.support.node import HEADER, MEGABYTE
from tests.rdma.support.places import PLACES

SIZE = 8 * MEGABYTE
LONG = 100_000


@pytest.fixture
def start(target):
    """Return what starts a session over verbs with a step, on the NVDIMM that is a device."""
    place = PLACES["devdax"]
    target.options.append("--persist-apm")
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        memory[:] = os.urandom(SIZE)
        name = target.pool_set("a.set", *lines)

        def begin(step, **options):
            replica = target.create(name, memory, nlanes=1, provider="verbs", step=step, **options)
            replica.memory = memory
            return replica

        yield begin


def counted(replica, call):
    """Return how many work requests and doorbells a call takes."""
    (lane,) = replica._lanes.lanes
    before = lane.counts
    call()
    return tuple(now - then for now, then in zip(lane.counts, before, strict=True))


# Work requests of one call, by relaxed and length; always one doorbell.
POSTED = {
    # One message with the data inside, or WRITE and a message that names them.
    "send-after-write": {(False, 64): 1, (True, 64): 1, (True, LONG): 2},
    # WRITE and READ.
    "read-after-write": {(True, 8): 2, (True, 4096): 2, (True, LONG): 2, (False, 64): 1},
    # WRITE and FLUSH, or ATOMIC WRITE and FLUSH.
    "flush": {(True, 64): 2, (True, LONG): 2, (False, 8): 2, (False, 64): 1},
}


@pytest.mark.parametrize("step", POSTED)
def test_a_call_rings_once(start, step):
    replica = start(step)
    assert replica.step == step
    at = 2 * MEGABYTE
    for (relaxed, length), requests in POSTED[step].items():
        replica.memory[at : at + length] = os.urandom(length)

        persist = partial(replica.persist, at, length, relaxed=relaxed)
        assert counted(replica, persist) == (requests, 1), (relaxed, length)
        there = bytearray(length)
        replica.read(there, at)
        assert there == replica.memory[at : at + length]
        at += length + 1000 & ~7


def test_many_ranges_take_few_doorbells(start):
    replica = start("flush")
    ranges = [(HEADER + number * 8000, 1000) for number in range(500)]
    requests, doorbells = counted(replica, lambda: replica.persist_many(ranges, relaxed=True))
    assert requests == 2 * len(ranges)
    assert doorbells <= requests // 16
    there = bytearray(SIZE - HEADER)
    replica.read(there, HEADER)
    for offset, length in ranges:
        assert (
            there[offset - HEADER : offset - HEADER + length]
            == (replica.memory[offset : offset + length])
        )
    # Neighbours are flushed together.
    ranges = [(HEADER + number * 128, 64) for number in range(16)]
    assert counted(replica, lambda: replica.persist_many(ranges, relaxed=True)) == (17, 1)


def test_words_are_written_whole(start):
    replica = start("flush")
    words = [(HEADER + number * 4096, 8) for number in range(4)]
    assert counted(replica, lambda: replica.persist_many(words)) == (8, 1)
    # Too many, or not aligned: then it is a message.
    more = [(HEADER + number * 4096, 8) for number in range(5)]
    assert counted(replica, lambda: replica.persist_many(more)) == (1, 1)
    assert counted(replica, lambda: replica.persist(HEADER + 4, 8)) == (1, 1)
    for offset, length in more:
        there = bytearray(length)
        replica.read(there, offset)
        assert there == replica.memory[offset : offset + length]


def test_flushes_wait_for_the_drain(start):
    replica = start("flush")
    for number in range(100):
        replica.flush(HEADER + number * 4096, 500, relaxed=True)
        replica.flush(HEADER + number * 4096 + 1000, 100)
    replica.drain()
    there = bytearray(100 * 4096)
    replica.read(there, HEADER)
    for number in range(100):
        at = number * 4096
        for start_, length in ((at, 500), (at + 1000, 100)):
            assert (
                there[start_ : start_ + length]
                == (replica.memory[HEADER + start_ : HEADER + start_ + length])
            )
    # The deepest flush is the target's work.
    assert counted(replica, lambda: replica.deep_persist(HEADER, 200)) == (1, 1)


def test_short_send_queues_are_enough(start, monkeypatch):
    monkeypatch.setenv("RPMEM_WORK_QUEUE_SIZE", "8")
    environment.current.cache_clear()
    try:
        replica = start("flush")
    finally:
        monkeypatch.undo()
        environment.current.cache_clear()
    ranges = [(HEADER + number * 8000, 500) for number in range(300)]
    replica.persist_many(ranges, relaxed=True)
    replica.persist(HEADER, SIZE - HEADER, relaxed=True)
    replica.persist(HEADER, SIZE - HEADER)
    there = bytearray(SIZE - HEADER)
    replica.read(there, HEADER)
    assert there == replica.memory[HEADER:]


def test_what_is_best_is_chosen(start):
    replica = start("auto")
    assert replica.step == "flush"
    assert replica.level == "persistent"


def test_flush_is_not_for_every_medium(target):
    place = PLACES["tmpfs"]
    with place.parts(SIZE) as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        with pytest.raises(FabricFailure, match="'flush' is not possible"):
            target.create(name, memory, nlanes=1, provider="verbs", step="flush")


def test_verbs_is_chosen_where_a_device_leads_there(target):
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        with target.create(name, memory, nlanes=1) as replica:
            assert replica.provider == "verbs"
            replica.persist(HEADER, 100)
