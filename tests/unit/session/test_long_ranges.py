"""Ranges longer than a message, which travel inside several."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest

from rpmem.session.lanes import Lanes
from tests.support import faulty_rpmemd
from tests.support.fabrics import TCP
from tests.support.targets import Node

PAGE = 4096


@pytest.mark.parametrize("provider", ["stream", TCP])
@pytest.mark.parametrize("medium", ["volatile", "pmem", "shadow"])
def test_long_relaxed_ranges_arrive_whole(monkeypatch, medium, provider):
    """Where nothing has to be msynced, the longest travel inside messages.

    What the shadow's file holds is what was flushed.
    """
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no tmpfs at /dev/shm")
    options = {}
    if medium == "pmem":
        monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "1")
    elif medium == "shadow":
        original = Lanes.group

        def as_messages(self, step, owner):
            self._ready = self._ready.replaced(medium="volatile")
            return original(self, step, owner)

        monkeypatch.setattr(Lanes, "group", as_messages)
        options["command"] = faulty_rpmemd.command()
    chance = random.Random(7)
    mebi, piece = 1 << 20, 1 << 19
    buffer = bytearray(9 * mebi)
    expected = bytearray(len(buffer))
    lengths = [mebi - 1, mebi, mebi + 1, mebi + piece - 1, mebi + piece, mebi + piece + 1]
    lengths += [2 * mebi, 5 * mebi + 3, 8 * mebi]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        node = Node.local(Path(folder), provider=provider, step="send-after-write", **options)
        with node.create(buffer, nlanes=1) as replica:
            assert replica.medium == ("page" if medium == "shadow" else medium)
            for length in lengths:
                offset = PAGE + chance.randrange(len(buffer) - PAGE - length)
                end = offset + length
                buffer[offset:end] = expected[offset:end] = chance.randbytes(length)
                if length % 2:
                    replica.flush(offset, length, relaxed=True)
                    replica.drain()
                else:
                    replica.persist(offset, length, relaxed=True)
            ranges = [(PAGE + 8, 3 * mebi), (4 * mebi, 100), (4 * mebi + 512, 2 * mebi + 8)]
            for offset, length in ranges:
                buffer[offset : offset + length] = chance.randbytes(length)
                expected[offset : offset + length] = buffer[offset : offset + length]
            replica.persist_many(ranges, relaxed=True)
            got = bytearray(len(buffer) - PAGE)
            replica.read(got, PAGE)
            assert got == expected[PAGE:]
        assert node.image()[PAGE : len(buffer)] == expected[PAGE:]
