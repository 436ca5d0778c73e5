"""Bytes that come back from a replica: piece by piece, each at its place."""

from __future__ import annotations

import os

import pytest

from rpmem.memory.region import Region
from rpmem.pool import transfer

SIZE = 4096


@pytest.mark.parametrize(
    "ranges", [[(0, 100)], [(7, 64)], [(7, 65)], [(7, 200), (1000, 1), (3000, 129)]], ids=str
)
def test_a_range_is_overwritten_to_its_end_and_no_further(monkeypatch, ranges):
    monkeypatch.setattr(transfer, "CHUNK", 64)
    there = os.urandom(SIZE)
    done = []

    def read(piece, offset):
        assert len(piece) <= 64
        piece[:] = there[offset : offset + len(piece)]

    with Region.anonymous(SIZE) as region:
        transfer.into_place(ranges, region, read, lambda *each: done.append(each))
        with memoryview(region) as view:
            found = bytes(view)
    expected = bytearray(SIZE)
    for offset, length in ranges:
        expected[offset : offset + length] = there[offset : offset + length]
    assert found == bytes(expected)
    assert sum(length for _, length in done) == sum(length for _, length in ranges)
    assert all(offset + length <= SIZE for offset, length in done)
