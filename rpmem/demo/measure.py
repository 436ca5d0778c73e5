"""Latencies of `Pool.persist` and of a local msync, measured in turns."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rpmem.pool.pool import Pool

SIZES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)

_SECONDS, _PATIENCE = 0.25, 1.0  # seconds per size: usual, and at most
_FEWEST, _ENOUGH, _MOST = 5, 50, 400
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Latencies:
    """The measurements for one size, in microseconds.

    Parameters
    ----------
    size : int
        Bytes per call.
    persist, msync : ndarray
        One value per call.
    """

    size: int
    persist: np.ndarray[Any, np.dtype[np.float64]]
    msync: np.ndarray[Any, np.dtype[np.float64]]


class Msync:
    """A plain mapped file next to the pool's, made durable with msync alone.

    Parameters
    ----------
    directory : Path
        Where the file is made; it is removed immediately, but its mapping lives on.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "msync-only"
        with open(path, "w+b") as file:
            os.posix_fallocate(file.fileno(), 0, SIZES[-1])
            self._map = mmap.mmap(file.fileno(), SIZES[-1])
        path.unlink()

    def write(self, value: int, size: int) -> None:
        """Change the first `size` bytes."""
        self._map[:size] = bytes([value]) * size

    def sync(self, size: int) -> None:
        """Make them durable; msync takes whole pages."""
        self._map.flush(0, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


def measure(pool: Pool, directory: Path) -> list[Latencies]:
    """Measure every size.

    Parameters
    ----------
    pool : Pool
        Gets an array ``scratch`` of 1 MiB.
    directory : Path
        For the file that is only msync'ed: use the directory of the local pool.

    Returns
    -------
    list of Latencies
        In the order of `SIZES`. Within a size the two are measured in turns, so that disturbances
        affect both.
    """
    scratch = pool.array("scratch", SIZES[-1], "u1")
    plain = Msync(directory)
    try:
        return [_measure_size(pool, scratch, plain, size) for size in SIZES]
    finally:
        plain.close()


def _measure_size(pool: Pool, scratch: Any, plain: Msync, size: int) -> Latencies:
    part = scratch[:size]
    persists: list[float] = []
    msyncs: list[float] = []
    started = time.perf_counter()
    turn = 0
    while turn < _WARM_UP + _FEWEST or _goes_on(turn, time.perf_counter() - started):
        part[:] = turn % 256
        plain.write(turn % 256, size)
        persists.append(_microseconds(lambda: pool.persist(part)))
        msyncs.append(_microseconds(lambda: plain.sync(size)))
        turn += 1
    return Latencies(size, np.array(persists[_WARM_UP:]), np.array(msyncs[_WARM_UP:]))


def _goes_on(turn: int, seconds: float) -> bool:
    """Whether to measure on: until there is enough or, on a slow disk, until time is up."""
    if turn < _WARM_UP + _ENOUGH:
        return seconds < _PATIENCE
    return turn < _MOST and seconds < _SECONDS


def _microseconds(call: Callable[[], None]) -> float:
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e3
