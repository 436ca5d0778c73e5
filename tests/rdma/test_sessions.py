"""Sessions between the two hosts: every provider with every medium at the target."""

from __future__ import annotations

import mmap
import os

import pytest

import rpmem
from tests.rdma.support.node import HEADER, MEGABYTE, TARGET
from tests.rdma.support.places import PLACES

SIZE = 8 * MEGABYTE
PROVIDERS = ("tcp", "ofi-verbs", "verbs")
RANGES = [(HEADER, 8), (8191, 66), (12288, 4096), (100_001, 70_003), (MEGABYTE, MEGABYTE + 5)]


@pytest.fixture
def memory():
    with mmap.mmap(-1, SIZE) as buffer:
        buffer[:] = os.urandom(SIZE)
        yield buffer


def is_expected(replica, provider, place):
    """Whether the pool is reached directly, and by the best step that the place allows."""
    if provider != "tcp" and not place.pinned:
        return replica.staged and replica.step == "send-after-write"
    best = {"tcp": "commit", "ofi-verbs": "send-after-write", "verbs": "flush"}[provider]
    step = best if place.medium == "pmem" else "send-after-write"
    return not replica.staged and replica.step in (step, "send-after-write")


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_was_persisted_is_there(provider, where, target, memory):
    place = PLACES[where]
    with place.parts(SIZE) as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=2, provider=provider)
        assert (replica.provider, replica.medium) == (provider, place.medium)
        assert is_expected(replica, provider, place)
        assert replica.level == ("visible" if place.medium == "volatile" else "persistent")
        # A device keeps what an earlier pool left on it.
        model = bytearray(place.content(lines, SIZE))
        for relaxed in (False, True):
            for offset, length in RANGES:
                memory[offset : offset + length] = os.urandom(length)
                replica.persist(offset, length, relaxed=relaxed)
                model[offset : offset + length] = memory[offset : offset + length]
        for offset, length in RANGES[:4]:
            at = offset + 3 * MEGABYTE
            replica.flush(at, length)
            model[at : at + length] = memory[at : at + length]
        replica.drain()
        replica.deep_persist(5 * MEGABYTE, 200)
        model[5 * MEGABYTE : 5 * MEGABYTE + 200] = memory[5 * MEGABYTE : 5 * MEGABYTE + 200]
        back = bytearray(SIZE - HEADER)
        replica.read(back, HEADER)
        assert back == model[HEADER:]
        replica.close()
        assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]

        with target.open(name, memory, nlanes=1, provider=provider) as again:
            assert again.attributes.signature == b"RDMATEST"
            # Up to the size of a lane's own memory by way of it, beyond straight into the buffer.
            for length in (1, 100, 1 << 16, (1 << 16) + 1, 200_003):
                part = bytearray(length)
                again.read(part, MEGABYTE + 7)
                assert part == model[MEGABYTE + 7 : MEGABYTE + 7 + length], length
            # A device cannot write to the pages of a file on a disk.
            with open("/mnt/disk/landing", "w+b") as file:
                file.truncate(MEGABYTE)
                with mmap.mmap(file.fileno(), MEGABYTE) as landing:
                    again.read(landing, 2 * MEGABYTE)
                    assert landing[:] == model[2 * MEGABYTE : 3 * MEGABYTE]
        rpmem.remove(TARGET, name, command=target.command)
