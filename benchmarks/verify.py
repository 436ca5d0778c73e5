"""What it costs to verify: ``python -m benchmarks.verify [--quick] [FOLDER]``, a minute.

A pool of 1 GiB, with a replica at ``local:``, is verified alone, and beside a thread that persists
64 bytes again and again. What that thread waits for is compared with the same persists beside two C
programs, one for each copy, that hash the same bytes page by page in the same time. The two take
turns, so that what else the machine does meets them alike. FOLDER needs 3 GiB, and is best on
tmpfs: all that is measured is memory then.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from benchmarks.room import compiled

_LENGTH = 64
#: Between two persists, so that they meet all parts of a pass.
_REST_S = 50e-6


class Persists:
    """Persists in a thread, and how long each took."""

    def __init__(self, pool: rpmem.Pool, array: Any) -> None:
        self._pool = pool
        self._array = array
        self.seconds: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Persists:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        chance = np.random.default_rng(1)
        most = len(self._array) // _LENGTH
        while not self._over.is_set():
            view = self._array[(low := int(chance.integers(most)) * _LENGTH) : low + _LENGTH]
            view += 1
            begun = time.perf_counter()
            self._pool.persist(view)
            self.seconds.append(time.perf_counter() - begun)
            time.sleep(_REST_S)


@contextmanager
def _hashing(parts: list[Path], seconds: float) -> Iterator[None]:
    """Have a C program hash each of some files, again and again, once in so many seconds."""
    flags = ["-O3"]
    if " avx2 " in Path("/proc/cpuinfo").read_text():
        flags += ["-mavx2"]
    program = compiled("hash", ("hash.c",), flags=tuple(flags))
    running = [
        subprocess.Popen([program, part, str(seconds)], stdout=subprocess.PIPE) for part in parts
    ]
    try:
        for each in running:
            assert each.stdout is not None
            each.stdout.readline()
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def _turn(pool: rpmem.Pool, array: Any, parts: list[Path], passes: int) -> dict[str, Any]:
    """Measure persists beside so many passes, and beside C programs in the same time."""
    with Persists(pool, array) as beside:
        begun = time.perf_counter()
        for _ in range(passes):
            report = pool.verify()
            assert report.good, report
        took = time.perf_counter() - begun
    with _hashing(parts, took / passes), Persists(pool, array) as reference:
        time.sleep(took)
    with Persists(pool, array) as alone:
        time.sleep(took / 2)
    return {
        "seconds": took / passes,
        **{
            name: float(np.quantile(each.seconds, 0.99))
            for name, each in (("verify", beside), ("C", reference), ("alone", alone))
        },
    }


def _measure(folder: Path, size: int, turns: int) -> bool:
    """Print all figures; return whether every bound was held."""
    replica = f"local:{folder} replica.set"
    with rpmem.Pool.create(folder / "pool", size, replica, parts=1) as pool:
        array: Any = pool.array("data", size - (8 << 20), "u1")
        array[:] = 1
        pool.persist()
        parts = [each for each in folder.rglob("*") if each.stat().st_size >= size]
        assert len(parts) == 2, parts
        pool.verify()
        alone = [pool.verify().seconds for _ in range(2 * turns + 1)]
        rate = size / statistics.median(alone) / 1e9
        print(f"{'verify alone, GB/s':50} {rate:9.2f}  (at least 1)")
        found = [_turn(pool, array, parts, 2) for _ in range(turns)]
        del array
    beside = size / statistics.median(each["seconds"] for each in found) / 1e9
    print(f"{'verify beside persists, GB/s':50} {beside:9.2f}")
    for name in ("verify", "C", "alone"):
        middle = statistics.median(each[name] for each in found) * 1e6
        print(f"{f'p99 of persists, {name}, us':50} {middle:9.1f}")
    ratio = statistics.median(each["verify"] / each["C"] for each in found)
    print(f"{'p99 beside verify by p99 beside C':50} {ratio:9.2f}  (at most 1.3)")
    return rate >= 1 and ratio <= 1.3


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="/dev/shm")
    parser.add_argument("--quick", action="store_true", help="64 MiB, once")
    given = parser.parse_args()
    made = Path(tempfile.mkdtemp(prefix="rpmem-verify-", dir=given.folder))
    try:
        held = _measure(made, 64 << 20 if given.quick else 1 << 30, 1 if given.quick else 9)
    finally:
        shutil.rmtree(made)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
