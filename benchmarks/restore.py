"""What it costs to restore a pool: ``python -m benchmarks.restore [FOLDER]``, half a minute.

A pool of 1 GiB has a replica at ``local:``. In each turn the replica is sent everything, and a new
local copy is made from it. Of a restore, three times are told apart: until the first report of
progress (two sessions, and a file that gets all its blocks), from the first to the last (every byte
is read, and compared with digests that the target takes of what it holds), and after it (the new
epoch, and the file gets its name). A full send is the same bytes from the first report to the last,
to a replica whose pages exist. Medians of all turns; the bound is what CHANGELOG promises. FOLDER
needs 3 GiB, and is best on tmpfs: all that is measured is memory then.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import rpmem

_SIZE = 1 << 30
_ARRAY = _SIZE - (8 << 20)
_TURNS = 7


class _Times:
    """Takes reports of progress, and their times."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.seen: list[float] = []

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        self.seen.append(time.perf_counter())

    @property
    def before(self) -> float:
        """Seconds before the first report."""
        return self.seen[0] - self.begun

    @property
    def seconds(self) -> float:
        """Seconds from the first report to the last."""
        return self.seen[-1] - self.seen[0]


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

    def send(self) -> float:
        """Send the replica everything; return the seconds."""
        with rpmem.Pool.open(self._path, []):
            pass
        times, compares = _Times(), rpmem.Replica.compares
        rpmem.Replica.compares = property(lambda _: False)  # type: ignore[misc,method-assign,assignment]
        # A map of what it has missed would spare most of it.
        replica = self._replica
        try:
            with rpmem.Pool.open(self._path, replica, discard=replica, progress=times):
                pass
        finally:
            rpmem.Replica.compares = compares  # type: ignore[misc,method-assign]
        return times.seconds

    def restore(self) -> tuple[float, float, float]:
        """Restore the lost local copy; return seconds before, while, and after it is read."""
        self._path.unlink()
        times = _Times()
        pool = rpmem.Pool.restore(self._path, self._replica, progress=times)
        after = time.perf_counter() - times.seen[-1]
        pool.close()
        return times.before, times.seconds, after


def _line(what: str, found: float, bound: float | None = None) -> None:
    print(f"{what:58} {found:9.3f}" + ("" if bound is None else f"  (at most {bound:g})"))


def _measure(bench: _Bench) -> None:
    sent, restored = [], []
    for _ in range(_TURNS):
        sent.append(bench.send())
        restored.append(bench.restore())
    before, reading, after = (statistics.median(each) for each in zip(*restored, strict=True))
    _line("a full send, s", statistics.median(sent))
    _line("a restore: reading, with digests of both sides, s", reading)
    _line("  of a full send", reading / statistics.median(sent), 1.3)
    _line("a restore: two sessions, and a new file, s", before)
    _line("a restore: the new epoch, and the file's name, s", after)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the pool is made, and removed")
    folder = Path(tempfile.mkdtemp(prefix="rpmem-restore-", dir=parser.parse_args().folder))
    os.environ.setdefault("RPMEM_LOG_LEVEL", "1")
    try:
        _measure(_Bench(folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
