"""A pool whose replica comes and goes, and what the replica is sent when it is back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

import rpmem
from tests.support.media import parts_of, wait_unlocked
from tests.support.pools import OWN, PoolNode
from tests.support.without import Installation, is_built

PAGE = 4096
#: So that the last block is not whole, and several pieces are compared one by one.
SIZE = (20 << 20) + 5 * PAGE
LENGTH = 18 << 20
#: What is the pool's own and may differ besides: roots and log of the catalogue, the superblock.
FEW = 16
_PART = "rpmem.memory.changes.unit_digests"


def need_digests() -> None:
    """Skip the module that calls it where copies cannot be compared."""
    if not is_built(_PART):
        pytest.skip(f"{_PART} is not built here", allow_module_level=True)


def without_digests(folder: Path) -> Installation:
    """Return an installation that cannot compare copies."""
    return Installation(folder, _PART)


_DIES = """
import os, sys, rpmem
pool = rpmem.Pool.open(sys.argv[1], [])
for at in map(int, sys.argv[2:]):
    pool["a"][at] ^= 1
os._exit(0)
"""


class Sent(list[tuple[int, int]]):
    """The ranges that replicas are sent to bring them up to date, and whether relaxed.

    Parameters
    ----------
    patch : MonkeyPatch
        Ends with the test.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.relaxed: set[bool] = set()
        one, many = rpmem.Replica.persist, rpmem.Replica.persist_many

        def persist(replica: Any, offset: int, length: int, *, relaxed: bool = False) -> None:
            self.append((offset, length))
            self.relaxed.add(relaxed)
            one(replica, offset, length, relaxed=relaxed)

        def persist_many(
            replica: Any, ranges: Iterable[tuple[int, int]], *, relaxed: bool = False
        ) -> None:
            self.extend((int(offset), int(length)) for offset, length in ranges)
            self.relaxed.add(relaxed)
            many(replica, ranges, relaxed=relaxed)

        patch.setattr(rpmem.Replica, "persist", persist)
        patch.setattr(rpmem.Replica, "persist_many", persist_many)

    @property
    def pages(self) -> set[int]:
        """Numbers of their pages."""
        return {
            page
            for offset, length in self
            for page in range(offset // PAGE, -(-(offset + length) // PAGE))
        }


class Place:
    """A pool of one array of random bytes, and its replica.

    Parameters
    ----------
    folder : Path
        Where both are made.
    """

    def __init__(self, folder: Path) -> None:
        self.local = folder / "local"
        self.node = PoolNode(folder / "node")
        self.replica = self.node.spec()
        memory = np.random.default_rng(1).integers(0, 256, LENGTH, dtype="u1")
        with rpmem.Pool.create(self.local, SIZE, self.replica, parts=1) as pool:
            pool.array("a", LENGTH, "u1")[:] = memory
            pool.persist()
            self.offset = pool.entry("a").offset
        self.check()

    def check(self) -> None:
        """Compare all bytes that copies have in common."""
        ours = self.local.read_bytes()[OWN:]
        assert len(ours) == SIZE - OWN
        assert self.node.contents()[: len(ours)] == ours

    def page(self, index: int) -> int:
        """Return the page of a byte of the array."""
        return (self.offset + index) // PAGE

    def alone(self, change: Callable[[Any], object]) -> None:
        """Change the array while the replica is away."""
        with rpmem.Pool.open(self.local, []) as pool:
            change(pool["a"])
            pool.persist(pool["a"])

    def die(self, *places: int) -> None:
        """Store to some places while the replica is away, and let the program die."""
        words = [sys.executable, "-c", _DIES, str(self.local), *map(str, places)]
        subprocess.run(words, check=True)

    def reopen(self, **how: Any) -> None:
        """Open the pool with its replica, and close it."""
        with rpmem.Pool.open(self.local, self.replica, **how):
            pass
        self.settle()

    def settle(self) -> None:
        """Wait until no rpmemd has the replica any more."""
        wait_unlocked(self.node.directory / "pool.set")

    @contextmanager
    def file(self) -> Iterator[BinaryIO]:
        """Give the replica's file, from the first byte of the pool on."""
        (part,) = parts_of(self.node.directory / "pool.set")
        with open(part, "r+b") as file:
            yield file
