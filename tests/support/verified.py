"""A pool that is verified while threads store and persist, and bits that flip meanwhile.

``python -m tests.support.verified SECONDS [--mode kernel|digest|off] [--replicas 1|2] [--seed N]``
goes on for so long, and says what happened; without a mode or a number of replicas, each in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.pool.findings import Report
from tests.support.flips import flip, part_of
from tests.support.pools import PoolNode

PAGE = 4096
PAGES = 512
MODES = ("kernel", "digest", "off")
_SIZE = "16MiB"


class Beside:
    """Threads that store to the pages of an array, and persist in all ways, or not.

    Parameters
    ----------
    pool : Pool
        Has an array ``x`` of `PAGES` pages.
    seed : int
    """

    def __init__(self, pool: rpmem.Pool, seed: int) -> None:
        self.pool = pool
        self.happened: Counter[str] = Counter()
        #: Pages that nobody stores to, and that nobody sends, at the moment.
        self.spared: set[int] = set()
        self.silent: set[int] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._array: Any = pool["x"]
        self._failed: list[BaseException] = []
        acts = (self._store, self._store, self._catalogue)
        self._threads = [
            threading.Thread(target=self._go_on, args=(act, random.Random(seed * 10 + number)))
            for number, act in enumerate(acts)
        ]

    def __enter__(self) -> Beside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        del self._array
        if self._failed:
            raise self._failed[0]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the threads from beginning anything."""
        with self._lock:
            yield

    def _go_on(self, act: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while not self._over.is_set():
                act(chance)
                time.sleep(chance.choice((0, 0, 1e-4, 1e-3)))
        except BaseException as error:
            self._failed.append(error)

    def _store(self, chance: random.Random) -> None:
        page = chance.randrange(PAGES)
        low = page * PAGE + chance.randrange(PAGE)
        high = min(low + chance.choice((1, 8, 100, PAGE, 3 * PAGE)), PAGES * PAGE)
        how = chance.choice(_WAYS)
        with self._lock:
            touched = set(range(low // PAGE, (high - 1) // PAGE + 1))
            if touched & self.spared:
                return
            self._array[low:high] += chance.randrange(256)
            silent = self.silent
            if (how == "whole" and silent) or touched & silent:
                how = "nothing"
            self.happened[how] += 1
            if how in ("whole", "narrow"):
                # Under the lock, so that nobody's silence begins in the middle of it.
                self._persist(how, low, high)
        if how not in ("whole", "narrow") and not touched & self.silent:
            self._persist(how, low, high)

    def _persist(self, how: str, low: int, high: int) -> None:
        pool, view = self.pool, self._array[low:high]
        if how == "named":
            pool.persist(view)
        elif how == "narrow":
            pool.persist(view, narrow=True)
        elif how == "whole":
            pool.persist()
        elif how == "flush":
            pool.flush(view)
            pool.drain()
        elif how == "many":
            pool.persist_many([view[:1], view[-1:], view], relaxed=True)
        elif how == "strided":
            pool.persist(view[::2])

    def _catalogue(self, chance: random.Random) -> None:
        name = f"c{chance.randrange(4)}"
        pool = self.pool
        self.happened["catalogue"] += 1
        if name not in pool:
            pool.array(name, chance.randrange(1, 5000), "u1")[:] = 7
        elif chance.random() < 0.5:
            with contextlib.suppress(BufferError):
                del pool[name]
        else:
            pool.attrs(name)["n"] = chance.randrange(1000)
            pool.persist(pool[name])
        time.sleep(5e-3)


_WAYS = (
    *("named", "narrow", "flush", "many", "strided") * 3,
    *("nothing",) * 3,
    "whole",
)


class Verified:
    """A pool with replicas in memory, to be verified.

    Parameters
    ----------
    folder : Path
    mode : str
        As ``tracking``.
    replicas : int
    """

    def __init__(self, folder: Path, mode: str, replicas: int) -> None:
        self.local = folder / "local"
        self.nodes = [PoolNode(folder / f"node{number}") for number in range(replicas)]
        self.specs = [node.spec() for node in self.nodes]
        self.pool = rpmem.Pool.create(self.local, _SIZE, self.specs, parts=1, tracking=mode)
        array: Any = self.pool.array("x", PAGES * PAGE, "u1")
        array[:] = np.random.default_rng(1).integers(0, 256, PAGES * PAGE, "u1")
        self.pool.persist()
        self.offset = self.pool.entry("x").offset

    def parts(self) -> list[Path]:
        """Return the part files, the local one first."""
        return [self.local, *(part_of(node.directory / "pool.set") for node in self.nodes)]

    def flip(self, side: int, place: int, bit: int = 0) -> None:
        """Flip a bit of the array in one copy; -1: the local one."""
        flip(self.parts()[side + 1], self.offset + place, bit)

    def page_of(self, place: int) -> int:
        """Return the offset of the page of the pool that has a byte of the array."""
        return (self.offset + place) // PAGE * PAGE


def pages_in(report: Report) -> set[int]:
    """Return the offsets of the pages that differ."""
    return {
        page
        for each in report.differences
        for page in range(each.offset, each.offset + each.length, PAGE)
    }


def round_of(case: Verified, beside: Beside, chance: random.Random, flips: int) -> Counter[str]:
    """Verify three times; bits flip between the first time and the others, in pages of the writers.

    Those of a replica are in pages of which nothing is sent meanwhile, though they are stored to;
    those of the local copy, where the kernel tells of stores, in pages that are not stored to.
    """
    pool = case.pool
    copies = range(-1 if pool.tracking == "kernel" else 0, len(case.nodes))
    pages = chance.sample(range(PAGES), flips)
    sides = {page: chance.choice(copies) for page in pages}
    with beside.alone():
        beside.spared = set(pages)
        beside.silent = set(pages)
        for page in pages:
            pool.persist((case.offset + page * PAGE, PAGE))
    first = pool.verify()
    assert first.different == 0, first
    with beside.alone():
        beside.spared = {page for page, side in sides.items() if side < 0}
    wanted = {}
    for page, side in sides.items():
        place = page * PAGE + chance.randrange(PAGE)
        case.flip(side, place, chance.randrange(8))
        wanted[case.page_of(place)] = side
    found: dict[int, Any] = {}
    for _ in range(2):
        for each in pool.verify().differences:
            found.update(dict.fromkeys(range(each.offset, each.offset + each.length, PAGE), each))
    _check(case, wanted, found)
    for copy in copies:  # the local one cannot be repaired while it is in use
        if copy >= 0:
            pool.verify(repair=copy)
    _mend(case, beside, sides)
    with beside.alone():
        beside.spared = beside.silent = set()
    return Counter(f"flip {side}" for side in sides.values())


def _check(case: Verified, wanted: dict[int, int], found: dict[int, Any]) -> None:
    """Compare what was found with what was flipped: every one, the right side, nothing else."""
    assert found.keys() == wanted.keys(), (
        [page for page in wanted if page not in found],
        [found[page] for page in found if page not in wanted],
    )
    names = ["local", *case.specs]
    for page, side in wanted.items():
        assert found[page].wrong == (names[side + 1],), (found[page], side)
        assert found[page].certain, found[page]


def _mend(case: Verified, beside: Beside, sides: dict[int, int]) -> None:
    """Have every copy get what the local one has in pages whose bits flipped."""
    with beside.alone():
        for page in sides:
            case.pool.persist((case.offset + page * PAGE, PAGE))


def go_on(
    seconds: float, mode: str, replicas: int, seed: int, folder: Path, flips: int = 10
) -> Counter[str]:
    """Verify beside threads for so long, and return what has happened."""
    case = Verified(folder, mode, replicas)
    chance = random.Random(seed)
    happened: Counter[str] = Counter()
    with case.pool as pool:
        beside = Beside(pool, seed)
        with beside:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                report = pool.verify()
                assert report.different == 0, report
                happened += Counter(
                    passes=4, unpersisted=report.unpersisted, unclear=report.unclear
                )
                happened += round_of(case, beside, chance, flips)
        pool.persist()
        report = pool.verify()
        assert report.good, report
        assert report.unpersisted == 0, report
    return happened + beside.happened


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--replicas", type=int, choices=(1, 2))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    modes = [given.mode] if given.mode else MODES
    numbers = [given.replicas] if given.replicas else [1, 2]
    seconds = given.seconds / len(modes) / len(numbers)
    for mode, replicas in itertools.product(modes, numbers):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            happened = go_on(seconds, mode, replicas, given.seed, Path(folder))
        said = ", ".join(f"{count} {what}" for what, count in sorted(happened.items()))
        print(f"{mode}, {replicas}: {said}", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
