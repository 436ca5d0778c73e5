"""What digests of two copies cost: ``python -m benchmarks.digests [FOLDER]``, half a minute.

A pool of 1 GiB has a replica at ``local:``, and once its program dies without having changed
anything. Then the copies are compared: both sides take digests of everything, and nothing is sent.
Beside it, two processes of their own map the same two files at the same time and take xxh3 of them,
block by block, with nothing to wait for and nobody to tell. Times are those from the first report
of progress to the last, of the two processes the longer one, and medians of all turns. The bound is
what CHANGELOG promises. FOLDER needs 3 GiB, and is best on tmpfs: all that is measured is memory.
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
from pathlib import Path

import numpy as np

import rpmem

_SIZE = 1 << 30
_ARRAY = _SIZE - (8 << 20)
_TURNS = 7

_DIES = """
import os, sys, rpmem
rpmem.Pool.open(sys.argv[1], sys.argv[2])
os._exit(0)
"""
_BARE = """
import os, sys, time
from rpmem.memory.changes.unit_digests import unit_digests
from rpmem.memory.region import Region
file = os.open(sys.argv[1], os.O_RDWR)
size = os.fstat(file).st_size
region = Region.map_parts([(file, 0, size)])
print("ready", flush=True)
sys.stdin.readline()
begun = time.perf_counter()
unit_digests(region, 0, size, 1 << 20, bytes(32))
print(time.perf_counter() - begun, flush=True)
"""


class _Times:
    """Takes reports of progress, and the time of the first and the last."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        self._seen.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self._seen[-1] - self._seen[0]


class _Bench:
    """A pool and its replica.

    Parameters
    ----------
    folder : Path
        Where both are made.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "sets").mkdir()
        self._path = folder / "pool"
        self._replica = f"local:{folder}/sets a.set"
        with rpmem.Pool.create(self._path, _SIZE, self._replica, parts=1) as pool:
            array = pool.array("bytes", _ARRAY, "u1")
            array[:] = np.random.default_rng(1).integers(0, 256, _ARRAY, dtype="u1")
            pool.persist(array)
            del array
        (part,) = (each for each in (folder / "sets").iterdir() if each.stat().st_size >= _SIZE)
        self._files = (self._path, part)

    def compare(self) -> float:
        """Compare the copies, which are equal; return the seconds."""
        subprocess.run([sys.executable, "-c", _DIES, self._path, self._replica], check=True)
        times = _Times()
        with rpmem.Pool.open(self._path, self._replica, progress=times):
            pass
        return times.seconds

    def bare(self) -> float:
        """Take xxh3 of both files in two processes; return the seconds of the longer one."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        both = [
            subprocess.Popen([sys.executable, "-c", _BARE, file], **pipes)  # type: ignore[call-overload]
            for file in self._files
        ]
        for each in both:
            each.stdout.readline()
        for each in both:
            each.stdin.write("go\n")
            each.stdin.flush()
        return max(float(each.communicate()[0]) for each in both)


def _line(what: str, found: float, bound: float | None = None) -> None:
    print(f"{what:58} {found:9.3f}" + ("" if bound is None else f"  (at most {bound:g})"))


def _measure(bench: _Bench) -> None:
    ours, bare = [], []
    for _ in range(_TURNS):
        ours.append(bench.compare())
        bare.append(bench.bare())
    _line("digests of both sides, s", statistics.median(ours))
    _line("two bare processes that take xxh3, s", statistics.median(bare))
    _line("  ours of theirs", statistics.median(ours) / statistics.median(bare), 1.4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the pool is made, and removed")
    folder = Path(tempfile.mkdtemp(prefix="rpmem-digests-", dir=parser.parse_args().folder))
    os.environ.setdefault("RPMEM_LOG_LEVEL", "1")
    try:
        _measure(_Bench(folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
