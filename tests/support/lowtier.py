"""Replicas of a buffer of words: the part of the low tier that a workload needs."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.errors import RpmemError
from rpmem.files.header import PoolAttributes
from rpmem.session.replica import Replica
from tests.support.workload import Words, data_name

HEADER = 4096
#: Of a replica of the tests: it has a header, so that its first 4096 bytes are not to be touched.
ATTRIBUTES = PoolAttributes(signature=b"TESTPOOL", major=1)


class WordBuffer:
    """A buffer of equal shares of words, one per thread, and its replica.

    Parameters
    ----------
    threads : int
        Shares.
    words : int
        In each.
    """

    def __init__(self, threads: int, words: int) -> None:
        self.size = HEADER + threads * words * 8
        self.size += -self.size % 4096
        self.memory = mmap.mmap(-1, self.size)
        self.threads = threads
        self.words = words
        self.replica: Replica | None = None
        self._start = np.frombuffer(self.memory, np.uint8).__array_interface__["data"][0]

    def _offset(self, thread: int) -> int:
        return HEADER + thread * self.words * 8

    def views(self) -> list[dict[str, Words]]:
        """Return each thread's share by its name."""
        return [
            {data_name(thread): words}
            for thread, words in enumerate(self.arrays(self.memory).values())
        ]

    def arrays(self, image: Any) -> dict[str, Words]:
        """Return the shares in a pool's image, or in the buffer."""
        return {
            data_name(thread): np.frombuffer(image, np.uint64, self.words, self._offset(thread))
            for thread in range(self.threads)
        }

    def _ranges(self, view: Words) -> list[tuple[int, int]]:
        begin = view.__array_interface__["data"][0] - self._start
        if view.flags.c_contiguous:
            return [(begin, view.nbytes)]
        return [(begin + index * view.strides[0], view.itemsize) for index in range(len(view))]

    def _replica(self) -> Replica:
        assert self.replica is not None
        return self.replica

    def persist(self, x: Any = None, *, relaxed: bool = False) -> None:
        """As `rpmem.Pool.persist`."""
        ranges = self._ranges(x)
        if len(ranges) == 1:
            self._replica().persist(*ranges[0], relaxed=relaxed)
        else:
            self._replica().persist_many(ranges, relaxed=relaxed)

    def persist_many(self, ranges: Any, *, relaxed: bool = False) -> None:
        """As `rpmem.Pool.persist_many`; the ranges travel as an array."""
        table = np.array([pair for x in ranges for pair in self._ranges(x)], np.uint64)
        self._replica().persist_many(table, relaxed=relaxed)

    def flush(self, x: Any = None, *, relaxed: bool = False) -> None:
        """As `rpmem.Pool.flush`."""
        for offset, length in self._ranges(x):
            self._replica().flush(offset, length, relaxed=relaxed)

    def drain(self) -> None:
        """As `rpmem.Pool.drain`."""
        self._replica().drain()

    def deep_persist(self, x: Any = None) -> None:
        """As `rpmem.Pool.deep_persist`."""
        for offset, length in self._ranges(x):
            self._replica().deep_persist(offset, length)


def await_failure(replica: Replica, timeout: float = 30.0) -> RpmemError:
    """Wait until a replica knows that it is lost; return why."""
    deadline = time.monotonic() + timeout
    while replica.failure is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the replica has not noticed anything")
        time.sleep(0.002)
    return replica.failure


@contextmanager
def replicated(
    buffer: Any, directory: Path, name: str = "a.set", parts: int = 1, **options: Any
) -> Iterator[Replica]:
    """Create a replica of a buffer below a directory of this machine."""
    options.setdefault("attributes", ATTRIBUTES)
    options.setdefault("timeout", 30.0)
    if options.get("step", "auto") not in ("auto", "send-after-write"):
        # Not every fabric has them, whichever the environment prefers.
        options.setdefault("provider", "tcp")
    replica = rpmem.create(f"local:{directory}", name, buffer, parts=parts, **options)
    try:
        yield replica
    finally:
        replica.close()
