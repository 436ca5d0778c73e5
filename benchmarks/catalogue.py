"""What the catalogue costs: ``python -m benchmarks.catalogue [FOLDER]``, about half a minute.

Pools with few names and with many are open at the same time and take turns, so that what else the
machine does meets them alike; each has one replica at ``local:``. Times are medians, and the
bounds are what CHANGELOG promises. FOLDER needs 3 GiB.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rpmem

_NAMES = (10, 10_000, 100_000)
_TURNS = 300
_MANY = 10_000
_REPEATS = 7
_GIB = 1 << 30
_MIB = 1 << 20
#: Bytes of a record that makes one array, about.
_RECORD = 96


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _line(what: str, found: float, bound: float | None = None) -> None:
    print(f"{what:58} {found:9.2f}" + ("" if bound is None else f"  (at most {bound:g})"))


class _Room:
    """Pools with their replicas in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str, size: int) -> rpmem.Pool:
        replica = f"local:{self._folder} {name}.set"
        return rpmem.Pool.create(self._folder / name, size, replica, parts=1)

    def open(self, name: str) -> rpmem.Pool:
        return rpmem.Pool.open(self._folder / name, f"local:{self._folder} {name}.set")


def _measure_one_more(room: _Room) -> float:
    """Print what one more array costs beside what is there already; return milliseconds."""
    pools = {count: room.create(f"p{count}", 192 * _MIB) for count in _NAMES}
    for count, pool in pools.items():
        pool.arrays({f"array {index}": (3, "f8") for index in range(count - 1)})
        pool.array("bytes", _RECORD, "u1")
    times: dict[int, list[float]] = {count: [] for count in _NAMES}
    persists: list[float] = []
    probes = {count: pool["bytes"] for count, pool in pools.items()}
    for turn in range(_TURNS):
        for count, pool in pools.items():
            pool.persist(probes[count])  # wakes the target, which slept while others had their turn
            probes[count][:] = turn % 256
            persists.append(_seconds(functools.partial(pool.persist, probes[count])))
            times[count].append(_seconds(functools.partial(pool.array, f"n{turn}", 3)))
    probes.clear()
    median = {count: statistics.median(each) for count, each in times.items()}
    persist = statistics.median(persists)
    _line(f"persist of {_RECORD} bytes, ms", persist * 1e3)
    for count in _NAMES:
        _line(f"one more array beside {count}, ms", median[count] * 1e3)
    for count in _NAMES[1:]:
        _line(f"  beside {count} / beside {_NAMES[0]}", median[count] / median[_NAMES[0]], 1.5)
    _line(f"  beside {_NAMES[-1]} / persist", median[_NAMES[-1]] / persist, 3)
    for pool in pools.values():
        pool.close()
    return median[_NAMES[0]]


def _measure_many(room: _Room, one: float) -> None:
    """Print what many arrays in one change cost."""
    times = []
    for repeat in range(_REPEATS):
        with room.create(f"many{repeat}", 32 * _MIB) as pool:
            wanted = {f"array {index}": (3, "f8") for index in range(_MANY)}
            times.append(_seconds(lambda pool=pool, wanted=wanted: pool.arrays(wanted)))
    found = statistics.median(times)
    _line(f"{_MANY} arrays in one change, ms", found * 1e3)
    _line(f"  {_MANY} at once / one", found / one, 20)


def _measure_open(room: _Room) -> None:
    """Print how long opening takes with many names."""
    alone, opened = [], []
    path = room._folder / f"p{_NAMES[-1]}"
    for _ in range(_REPEATS):
        for times, open_ in (
            (alone, lambda: rpmem.Pool.open(path, readonly=True)),
            (opened, lambda: room.open(path.name)),
        ):
            begun = time.perf_counter()
            pool = open_()
            times.append(time.perf_counter() - begun)
            pool.close()
    _line(f"open with {_NAMES[-1]} names to look at it, s", statistics.median(alone), 0.5)
    _line(f"open with {_NAMES[-1]} names and a replica, s", statistics.median(opened), 0.5)


def _measure_large(room: _Room) -> None:
    """Print what a large array costs in files that were made for the pool."""
    times: dict[int, list[float]] = {_MIB: [], _GIB: []}
    for repeat in range(3):
        with room.create(f"large{repeat}", _GIB + 64 * _MIB) as pool:
            for size, found in times.items():
                name = f"array of {size}"
                found.append(_seconds(lambda p=pool, n=name, s=size: p.array(n, s, "u1")))
        rpmem.remove(f"local:{room._folder}", f"large{repeat}.set", pool_set=True)
        (room._folder / f"large{repeat}").unlink()
    small, large = (statistics.median(each) for each in times.values())
    _line("array of 1 MiB, ms", small * 1e3)
    _line("array of 1 GiB, ms", large * 1e3)
    _line("  1 GiB / 1 MiB", large / small, 5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the pools are made, and removed")
    folder = Path(tempfile.mkdtemp(prefix="rpmem-catalogue-", dir=parser.parse_args().folder))
    os.environ.setdefault("RPMEM_LOG_LEVEL", "1")
    try:
        room = _Room(folder)
        one = _measure_one_more(room)
        _measure_many(room, one)
        _measure_open(room)
        _measure_large(room)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
