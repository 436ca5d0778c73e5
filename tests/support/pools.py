"""Pools with named arrays, and the directories of this machine that stand for their targets."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rpmem
from rpmem.base.pool_format import POOL_FLOOR
from tests.support.media import image_of, state_of, state_of_record

SIZE = 8 << 20
#: What each copy has for itself: its header, and its record.
OWN = POOL_FLOOR


class PoolNode:
    """A pool set directory that stands for a target."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.target = f"local:{directory}"

    def spec(self, name: str = "pool.set") -> str:
        """Return what to give as a replica."""
        return f"{self.target} {name}"

    def image(self, name: str = "pool.set") -> bytes:
        """Return the replica as it lies in the files now."""
        return image_of(self.directory / name)

    def contents(self, name: str = "pool.set") -> bytes:
        """Return the replica as it lies in the files now, without what is its own."""
        return self.image(name)[OWN:]

    def state(self, name: str = "pool.set") -> tuple[int, str]:
        """Return the epoch's number and the mark as they lie in the files now."""
        return state_of(self.image(name))

    def files(self) -> list[str]:
        """Return the names of all files."""
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*"))


def local_bytes(path: Path, size: int = SIZE) -> bytes:
    """Return a pool of one file without what is that copy's own."""
    return path.read_bytes()[OWN:size]


def state_now(pool: rpmem.Pool) -> tuple[int, str]:
    """Return the epoch's number and the mark as the pool says them; compare `PoolNode.state`."""
    return state_of_record(pool.record)


def kill(replica: rpmem.Replica) -> None:
    """Kill the daemon of a replica, if nobody has done that yet."""
    assert replica.peer is not None
    with suppress(ProcessLookupError):
        os.kill(replica.peer.pid, signal.SIGKILL)


def fill(
    pool: rpmem.Pool, name: str = "a", value: float = 1.0, shape: tuple[int, ...] = (50, 100)
) -> NDArray[np.float64]:
    """Make an array of one value, durable everywhere."""
    array: Any = pool.array(name, shape)
    array[:] = value
    pool.persist(array)
    return array
