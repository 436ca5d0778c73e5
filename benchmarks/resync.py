"""What it costs to bring a copy up to date: ``python -m benchmarks.resync [FOLDER]``, a minute.

A pool of 1 GiB has a replica at ``local:``. In each turn one hundredth of the pages change while
the replica is away, and once its program dies without having changed anything; then the replica is
brought up to date by what it is known to have missed, by what differs and, for comparison, by a
full send of the same bytes. Times are those from the first report of progress to the last, which
leaves out how files are mapped and lanes connected, and medians of all turns. Bytes are those of
the control session in both directions and of the ranges sent. Memory is what the program and its
target have to themselves at most, beyond what they have at the first report. The bounds are what
CHANGELOG promises. FOLDER needs 3 GiB, and is best on tmpfs: all that is measured is memory then.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.launch.child import ChildTransport
from rpmem.pool.absent import Absent

_SIZE = 1 << 30
_PAGE = 4096
_ARRAY = _SIZE - (8 << 20)
_TURNS = 5
_SHARE = 0.01

_DIES = """
import os, sys, rpmem
rpmem.Pool.open(sys.argv[1], sys.argv[2])
os._exit(0)
"""


def _line(what: str, found: float, bound: float | None = None) -> None:
    print(f"{what:58} {found:9.3f}" + ("" if bound is None else f"  (at most {bound:g})"))


class _Wire:
    """Counts what goes to all targets and comes from them, from now on."""

    def __init__(self) -> None:
        self.control = self.data = 0
        send, receive = ChildTransport.send, ChildTransport.receive
        persist, persist_many = rpmem.Replica.persist, rpmem.Replica.persist_many

        def sent(transport: ChildTransport, data: bytes, *rest: Any) -> None:
            self.control += len(data)
            send(transport, data, *rest)

        def received(transport: ChildTransport, *rest: Any) -> bytes:
            data = receive(transport, *rest)
            self.control += len(data)
            return data

        def one(replica: Any, offset: int, length: int, **how: Any) -> None:
            self.data += length
            persist(replica, offset, length, **how)

        def many(replica: Any, ranges: Iterable[tuple[int, int]], **how: Any) -> None:
            self.data += sum(length for _, length in ranges)
            persist_many(replica, ranges, **how)

        ChildTransport.send, ChildTransport.receive = sent, received  # type: ignore[method-assign,assignment]
        rpmem.Replica.persist, rpmem.Replica.persist_many = one, many  # type: ignore[method-assign,assignment]

    @property
    def all(self) -> int:
        """Bytes in all."""
        return self.control + self.data


def _own_memory() -> int:
    """Return the private memory of this process and of its children, in bytes."""
    children = "".join(each.read_text() for each in Path("/proc/self/task").glob("*/children"))
    kibibytes = 0
    for process in ["self", *children.split()]:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            kibibytes += int(value.split()[0]) if name == "RssAnon" else 0
    return kibibytes << 10


class _Times:
    """Takes reports of progress: the time of the first and the last, and the memory at each."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._memory: list[int] = []

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        self._seen.append(time.perf_counter())
        self._memory.append(_own_memory())

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self._seen[-1] - self._seen[0]

    @property
    def memory(self) -> int:
        """How much more memory there was at any report than at the first, in bytes."""
        return max(self._memory) - self._memory[0]


def _nothing(*_: Any, **__: Any) -> None:
    """Know nothing of what a copy has missed."""


class _Bench:
    """A pool and its replica."""

    def __init__(self, folder: Path) -> None:
        (folder / "sets").mkdir()
        self._path = folder / "pool"
        self._replica = f"local:{folder}/sets a.set"
        self._chance = np.random.default_rng(1)
        self._compares, self._find = rpmem.Replica.compares, Absent.find
        self.memory = 0
        with rpmem.Pool.create(self._path, _SIZE, self._replica, parts=1) as pool:
            array = pool.array("bytes", _ARRAY, "u1")
            array[:] = self._chance.integers(0, 256, _ARRAY, dtype="u1")
            pool.persist(array)
            del array

    def change(self) -> int:
        """Change some pages while the replica is away; return their bytes."""
        pages = self._chance.choice(_ARRAY // _PAGE, int(_SIZE // _PAGE * _SHARE), replace=False)
        with rpmem.Pool.open(self._path, []) as pool:
            array = pool["bytes"]
            skip = -pool.entry("bytes").offset % _PAGE
            array[skip + np.minimum(pages, _ARRAY // _PAGE - 2) * _PAGE] += 1
            pool.persist()
            del array
        return len(pages) * _PAGE

    def die(self) -> None:
        """Open the pool with the replica, and let the process die."""
        subprocess.run([sys.executable, "-c", _DIES, self._path, self._replica], check=True)

    def join(self, wire: _Wire, how: str) -> tuple[int, float]:
        """Open the pool with the replica; return bytes on the wire, and seconds.

        Parameters
        ----------
        wire : _Wire
        how : {"map", "digests", "whole"}
            What is known of the replica, or can be found out.
        """
        before, times = wire.all, _Times()
        rpmem.Replica.compares = (  # type: ignore[misc,method-assign]
            property(lambda _: False) if how == "whole" else self._compares
        )
        Absent.find = self._find if how == "map" else _nothing  # type: ignore[method-assign]
        with rpmem.Pool.open(self._path, self._replica, progress=times):
            found = wire.all - before
            seconds = times.seconds
            times(0, 0, "open")
        self.memory = max(self.memory, times.memory)
        return found, seconds


def _measure(bench: _Bench, wire: _Wire) -> None:
    full, missed, differing, equal = [], [], [], []
    wires: dict[str, list[float]] = {"missed": [], "differing": [], "equal": []}
    for _ in range(_TURNS):
        changed = bench.change()
        found, seconds = bench.join(wire, "map")
        wires["missed"].append(found / changed)
        missed.append(seconds)
        changed = bench.change()
        found, seconds = bench.join(wire, "digests")
        wires["differing"].append((found - 0.005 * _SIZE) / changed)
        differing.append(seconds)
        bench.die()
        found, seconds = bench.join(wire, "digests")
        wires["equal"].append(100 * found / _SIZE)
        equal.append(seconds)
        bench.change()
        full.append(bench.join(wire, "whole")[1])
    whole = statistics.median(full)
    _line("a full send, s", whole)
    _line(f"{_SHARE:.0%} of the pages changed while away, known, s", statistics.median(missed))
    _line("  of a full send", statistics.median(missed) / whole, 0.1)
    _line("  bytes / changed", max(wires["missed"]), 1.05)
    _line(f"{_SHARE:.0%} of the pages changed while away, s", statistics.median(differing))
    _line("  of a full send", statistics.median(differing) / whole, 0.7)
    _line("  bytes, less 0.5 % of the pool / changed", max(wires["differing"]), 1.05)
    _line("a program that died and had changed nothing, s", statistics.median(equal))
    _line("  of a full send", statistics.median(equal) / whole)
    _line("  bytes, % of the pool", max(wires["equal"]), 0.5)
    _line("memory for it, MiB", bench.memory / (1 << 20), _SIZE / 30_000 / (1 << 20) + 16)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the pool is made, and removed")
    folder = Path(tempfile.mkdtemp(prefix="rpmem-resync-", dir=parser.parse_args().folder))
    os.environ.setdefault("RPMEM_LOG_LEVEL", "1")
    try:
        _measure(_Bench(folder), _Wire())
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
