"""Which bytes of the local copy a call writes back."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from rpmem._core import Replicator
from rpmem.errors import FlushFailed
from rpmem.memory.region import Region
from tests.support.compiled import compiled

SIZE = 16 << 20
MIB = 1 << 20


class Written:
    """A region whose flushes are noted, and the core over it."""

    def __init__(self, directory: Path) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.refused_at = -1
        with open(directory / "a", "w+b") as file:
            file.truncate(SIZE)
            self.region = Region.map_parts([(file.fileno(), 0, SIZE)])
        compiled("_hooked_media").hook(self.region, self._called)
        self.core = Replicator(self.region, [], local=True, floor=0)

    def _called(self, verb: str, offset: int, length: int) -> int:
        self.calls.append((verb, offset, offset + length))
        return errno.EIO if offset <= self.refused_at < offset + length else 0


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def covered(written: Written, at: int) -> bool:
    return any(begin <= at < end for _, begin, end in written.calls)


def test_ranges_near_each_other_are_one_write_back(written: Written):
    written.core.persist_many([(8192, 64), (65536, 64), (4096, 8)])
    assert len(written.calls) == 1
    assert covered(written, 4096)
    assert covered(written, 65599)


@pytest.mark.parametrize("verb", ["persist", "deep"])
def test_what_lies_between_ranges_far_apart_is_left_alone(written: Written, verb: str):
    """It may be a gigabyte that the program stored and has not made durable yet."""
    ranges = [(8192, 64), (15 * MIB, 64), (8 * MIB, 64)]
    if verb == "persist":
        written.core.persist_many(ranges)
    else:
        rows = np.frombuffer(memoryview(written.region), np.uint8).reshape(16, MIB)
        written.core.deep_persist(rows[::8, :64])
        ranges = [(0, 64), (8 * MIB, 64)]
    for offset, length in ranges:
        assert covered(written, offset)
        assert covered(written, offset + length - 1)
    assert not covered(written, 4 * MIB)
    assert not covered(written, 12 * MIB)
    assert {name for name, _, _ in written.calls} == {verb}


def test_many_ranges_are_one_write_back_however_far_apart(written: Written):
    written.core.persist_many([(index * MIB, 64) for index in range(16)])
    assert len(written.calls) == 1
    assert covered(written, 15 * MIB + 63)


@pytest.mark.parametrize("at", [8192, 8 * MIB, 15 * MIB])
def test_the_refusal_of_one_of_them_is_one_of_all(written: Written, at: int):
    written.refused_at = at
    with pytest.raises(FlushFailed):
        written.core.persist_many([(8192, 64), (8 * MIB, 64), (15 * MIB, 64)])
