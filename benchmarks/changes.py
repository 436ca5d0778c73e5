"""What finding changes costs: ``python -m benchmarks.changes [--quick] [FOLDER ...]``.

Two pools of the same shape take turns, each with one replica at ``local:``, so that what else the
machine does meets them alike. One finds by itself what was stored; for the other one, C code asks
the kernel, or hashes every page, and `Pool.persist_many` gets the ranges. Without folders: tmpfs
and the folder for temporary files. Each needs 4 GiB; this takes some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import statistics as order
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import rpmem
from benchmarks import statistics
from benchmarks.pages import PAGE, Bytes, Digests, Written, read_anew, reported_for, sent
from benchmarks.room import Absent

_MIB = 1 << 20
#: The kernel counts what goes over its connections, unlike over pairs of sockets.
_COUNTED = "tcp"
#: For the header, the catalogue and its growth.
_HEADROOM = 2 * _MIB
_FEW = 262
#: Calls after which it is known what is rewritten as a whole each time.
_LEARNING = 5


@dataclass(frozen=True)
class Effort:
    """How large the pools are, and how often each call is made."""

    size: int = 1 << 30
    turns: int = 100
    slow_turns: int = 20
    disk_turns: int = 3


QUICK = Effort(size=16 * _MIB, turns=3, slow_turns=2, disk_turns=1)


@dataclass(frozen=True)
class Figure:
    """One judged line: a ratio, or a count where nothing is left to chance."""

    what: str
    value: float
    bound: float
    low: float
    high: float

    @property
    def held(self) -> bool:
        """Whether the value is at most the bound."""
        return self.value <= self.bound


class Sheet:
    """What was found, printed as it is found."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def judge(self, what: str, value: float, bound: float, *spread: float) -> None:
        """Add a value that has a bound, and its interval if it has one."""
        low, high = spread or (value, value)
        self.figures.append(figure := Figure(what, value, bound, low, high))
        between = f" [{low:.2f}, {high:.2f}]" if spread else ""
        verdict = "held" if figure.held else "NOT HELD"
        print(f"{what:58} {value:9.2f}{between}  (at most {bound:g}: {verdict})", flush=True)

    def tell(self, what: str, seconds: Sequence[float]) -> None:
        """Print the median of some times, and where their middle half lies."""
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75)) * 1e3
        print(f"  {what:56} {middle:9.3f} ms [{low:.3f}, {high:.3f}]", flush=True)

    def head(self, text: str) -> None:
        """Begin a part."""
        print(f"\n{text}; load {os.getloadavg()[0]:.1f}", flush=True)


class Shared:
    """A pool with one array that fills it, and one replica.

    Parameters
    ----------
    folder : Path
        Where both files are made.
    tracking : str
        As for `rpmem.Pool.create`.
    """

    def __init__(self, folder: Path, tracking: str, size: int) -> None:
        self.path = folder / tracking
        self._tracking = tracking
        self._replica = f"local:{folder} {tracking}.set"
        self.pool = rpmem.Pool.create(
            self.path,
            size,
            self._replica,
            parts=1,
            tracking=tracking,
            timeout=60,
            provider=_COUNTED,
        )
        self._take(self.pool.array("data", size - _HEADROOM, "u1"))
        self.data[:] = 1
        self.pool.persist()

    def _take(self, data: NDArray[Any]) -> None:
        self.data: Bytes = data
        self.at = self.pool.entry("data").offset
        if self.at % PAGE or data.ctypes.data % PAGE:
            raise Absent("the array does not begin with a page")
        if self.pool.tracking != self._tracking:
            raise Absent(f"changes are not found by {self._tracking!r} here")

    @property
    def pages(self) -> int:
        """How many there are."""
        return self.data.size // PAGE

    def store(self, pages: NDArray[np.int64], value: int) -> None:
        """Store a byte into each of these pages."""
        self.data[pages * PAGE] = value

    def wake(self, page: int = 0) -> None:
        """Wake the target, which slept while others had their turn, with a word of a page."""
        self.pool.persist(self.data[page * PAGE : page * PAGE + 8])

    def reopen(self, between: Callable[[], None]) -> None:
        """Close the pool, do something, and open it again."""
        self.close()
        between()
        self.pool = rpmem.Pool.open(
            self.path, self._replica, tracking=self._tracking, timeout=60, provider=_COUNTED
        )
        self._take(self.pool["data"])
        self.data[::PAGE].sum()  # mapped before the first call, in pieces as large as may be
        self.pool.persist()

    def close(self) -> None:
        """Let go of the memory, and close the pool."""
        del self.data
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Leaving the block of a pool needs no views to be gone.
        self.pool.__exit__(None, None, None)


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rpmem-changes-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _compare(
    turns: int, ours: Callable[[int], float], reference: Callable[[int], float]
) -> tuple[list[float], list[float]]:
    """Return the times of both, who take turns in going first; the first round does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            found = (ours, reference)[which](turn)
            if turn:
                times[which].append(found)
    return times


class _Stores:
    """The same stores into the same pages of either pool."""

    def __init__(self, pages: int, count: int) -> None:
        self._pages, self._count = pages, count

    def __call__(self, shared: Shared, turn: int) -> NDArray[np.int64]:
        """Store, and return the pages."""
        chosen = np.random.default_rng(turn).choice(self._pages, self._count, replace=False)
        chosen.sort()
        shared.store(chosen, 2 + turn % 200)
        return chosen


def _stored(pages: int, effort: Effort) -> list[tuple[str, int, int]]:
    return [
        ("one element", 1, effort.turns),
        (f"{_FEW} random pages", _FEW, effort.turns),
        ("10 % of the pages", pages // 10, effort.slow_turns),
    ]


# --- the kernel tells -----------------------------------------------------------------------


def measure_kernel(sheet: Sheet, folder: Path, effort: Effort) -> None:
    """Measure narrowed calls beside a bare scan and `persist_many`."""
    with (
        _place(folder) as place,
        Shared(place, "kernel", effort.size) as ours,
        Shared(place, "off", effort.size) as plain,
    ):
        sheet.head(f"a. the kernel tells what was stored, {effort.size >> 20} MiB, {folder}")
        with Written(plain.data, plain.at) as written:
            plain.pool.persist()  # reads all of it: what is not mapped takes longer to scan
            _nothing(sheet, ours, written, effort)
            for what, count, turns in _stored(ours.pages, effort):
                stores = _Stores(ours.pages, count)
                _narrowed(sheet, what, ours, plain, written, stores, turns)
        whole = [_seconds(plain.pool.persist) for _ in range(min(5, effort.turns))]
        sheet.tell("persist() of everything, tracking off", whole)


def _nothing(sheet: Sheet, ours: Shared, written: Written, effort: Effort) -> None:
    times = _compare(
        effort.turns,
        lambda _: _seconds(ours.pool.persist),
        lambda _: _seconds(written.take),
    )
    sheet.judge("persist() with nothing changed / scan", *_ratio(times, 1.3))
    sheet.tell("persist()", times[0])
    sheet.tell("scan", times[1])


def _ratio(times: tuple[list[float], list[float]], bound: float) -> tuple[float, ...]:
    found, low, high = statistics.ratio(*times)
    return found, bound, low, high


def _narrowed(
    sheet: Sheet,
    what: str,
    ours: Shared,
    plain: Shared,
    written: Written,
    stores: _Stores,
    turns: int,
) -> None:
    scans: list[float] = []

    def narrowed(turn: int) -> float:
        stores(ours, turn)
        ours.wake()
        return _seconds(ours.pool.persist)

    def found_in_c(turn: int) -> float:
        stores(plain, turn)
        plain.wake()
        begun = time.perf_counter()
        ranges = written.take()
        scans.append(time.perf_counter() - begun)
        plain.pool.persist_many(ranges)
        return time.perf_counter() - begun

    def listed(turn: int) -> float:
        ranges = _ranges(stores(plain, turn), plain.at)
        plain.wake()
        return _seconds(functools.partial(plain.pool.persist_many, ranges))

    times = _compare(turns, narrowed, found_in_c)
    sheet.judge(f"persist(), {what} / scan and persist_many", *_ratio(times, 1.3))
    sheet.tell("persist()", times[0])
    sheet.tell("scan and persist_many", times[1])
    sheet.tell("  of that, the scan", scans)
    sheet.tell("persist_many of pages listed by hand", [listed(turn) for turn in range(turns)])


def _ranges(pages: NDArray[np.int64], base: int) -> NDArray[np.uint64]:
    """Return these sorted pages as ranges of the pool."""
    cuts = np.flatnonzero(np.diff(pages) != 1) + 1
    first = pages[np.r_[0, cuts]]
    last = pages[np.r_[cuts - 1, pages.size - 1]]
    return np.stack([base + first * PAGE, (last - first + 1) * PAGE], axis=1).astype(np.uint64)


# --- every page, every time -----------------------------------------------------------------


def measure_everything(sheet: Sheet, folder: Path, size: int, turns: int, *, judged: bool) -> None:
    """Measure what those pay who store all pages between two calls anyway."""
    with (
        _place(folder) as place,
        Shared(place, "kernel", size) as ours,
        Shared(place, "off", size) as plain,
    ):
        sheet.head(f"c. every page is stored between two calls, {size >> 20} MiB, {folder}")
        for what, stride in (("every byte", 1), ("a byte of every page", PAGE)):
            stores: list[list[float]] = [[], []]
            work: list[list[float]] = [[], []]

            def both(
                shared: Shared, turn: int, stride: int = stride, own: Any = (stores, work)
            ) -> float:
                shared.wake()
                before = time.process_time()
                begun = time.perf_counter()
                shared.data[::stride] = 1 + turn % 200
                own[0][shared is plain].append(time.perf_counter() - begun)
                shared.pool.persist()
                seconds = time.perf_counter() - begun
                own[1][shared is plain].append(time.process_time() - before)
                return seconds

            # The kernel's part watches every page until it sees that this is of no use.
            first = [both(ours, turn) for turn in range(_LEARNING)]
            times = _compare(turns, functools.partial(both, ours), functools.partial(both, plain))
            middle = _ratio(times, 1.1)
            busy = order.fmean(work[0][_LEARNING:]) / order.fmean(work[1])
            mean = order.fmean(times[0]) / order.fmean(times[1])
            line = f"{what} stored and persist(), tracking / off"
            if judged:
                sheet.judge(f"{line}, mean", mean, 1.1)
                sheet.judge(f"{line}, median", *middle)
            else:
                print(f"{line}: mean {mean:.2f}, median {middle[0]:.2f}")
            # Where others work, too, this says more than the time on the clock.
            print(f"  the same in this process's processor time, mean {busy:14.2f}", flush=True)
            sheet.tell(f"tracking: the first {_LEARNING} calls", first)
            for name, index in (("tracking", 0), ("off", 1)):
                sheet.tell(f"{name}: stores and persist()", times[index])
                sheet.tell(f"{name}: of that, the stores", stores[index])


# --- large folios ---------------------------------------------------------------------------


def measure_folios(sheet: Sheet, folder: Path, effort: Effort) -> None:
    """Count what is sent from a file whose pages the system keeps in large folios."""
    with _place(folder) as place, Shared(place, "kernel", effort.size) as ours:
        few = np.random.default_rng(0).choice(ours.pages, min(_FEW, ours.pages // 8), False)
        few.sort()
        reported: list[int] = []

        def between() -> None:
            read_anew(ours.path)
            reported.append(reported_for(ours.path, few, ours.at))
            read_anew(ours.path)

        ours.reopen(between)
        sheet.head(f"b. large folios, {effort.size >> 20} MiB, {folder}")
        print(f"  {few.size} pages stored; a plain scan reports {reported[0]}")
        ranges = _ranges(few, ours.at)
        counts, times, by_hand = [], [], []
        for turn in range(min(effort.turns, 20)):
            ours.store(few, 2 + 2 * turn)
            by_hand.append(_seconds(functools.partial(ours.pool.persist_many, ranges)))
            ours.pool.persist()  # so the next call has only what is stored now
            ours.store(few, 3 + 2 * turn)
            before = sent()
            times.append(_seconds(ours.pool.persist))
            counts.append((sent() - before) / PAGE)
        sheet.judge("pages sent / pages stored, the most of all calls", max(counts) / few.size, 1.1)
        sheet.judge("pages stored / pages sent", few.size / min(counts), 1.0)
        sheet.tell("persist()", times)
        sheet.tell("persist_many of pages listed by hand", by_hand)


# --- digests --------------------------------------------------------------------------------


def measure_digests(sheet: Sheet, folder: Path, effort: Effort, threads: int) -> None:
    """Measure what digests find beside hashing alone."""
    with _place(folder) as place, Shared(place, "digest", effort.size) as ours:
        sheet.head(f"d. digests, {effort.size >> 20} MiB, {threads} threads, {folder}")
        bare = Digests(ours.data, threads)
        for what, pages in (("nothing changed", []), ("one element", [ours.pages // 2])):
            counts: list[float] = []

            def narrowed(turn: int, pages: Any = pages, into: Any = counts) -> float:
                ours.store(np.array(pages, np.int64), 2 + turn % 200)
                for page in pages:
                    ours.wake(page)  # the digest of another one would count for nothing then
                before = sent()
                seconds = _seconds(ours.pool.persist)
                into.append((sent() - before) / PAGE)
                return seconds

            times = _compare(effort.slow_turns, narrowed, lambda _: _seconds(bare.changed))
            sheet.judge(f"persist(), {what} / xxh3 alone", *_ratio(times, 1.4))
            # A message is a little more than the page that it carries.
            sheet.judge(f"pages sent, {what}", max(counts), 1.1 * len(pages))
            sheet.tell("persist()", times[0])
            sheet.tell("xxh3 alone", times[1])


def _kind(folder: Path) -> str:
    """Return the type of the file system that holds a folder."""
    best = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind = line.split()[:3]
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def measure(
    folders: Sequence[Path], effort: Effort, parts: str = "abcd", threads: int | None = None
) -> list[Figure]:
    """Measure and print; return the judged figures.

    Parameters
    ----------
    folders : sequence of Path
        On tmpfs times are measured; elsewhere it is counted what is sent.
    effort : Effort
        How much.
    parts : str
        The letters of those that are wanted.
    threads : int, optional
        How many hash in the reference; None: as many as rpmem has.
    """
    sheet = Sheet()
    threads = threads or min(len(os.sched_getaffinity(0)), 4)  # as many as rpmem has
    for folder in folders:
        everything = functools.partial(measure_everything, sheet, folder, effort.size)
        wanted: dict[str, Callable[[], None]] = {
            "b": functools.partial(measure_folios, sheet, folder, effort),
            "c": functools.partial(everything, effort.disk_turns, judged=False),
        }
        if _kind(folder) == "tmpfs":
            wanted = {
                "a": functools.partial(measure_kernel, sheet, folder, effort),
                "c": functools.partial(everything, 2 * effort.slow_turns, judged=True),
                "d": functools.partial(measure_digests, sheet, folder, effort, threads),
            }
        for part, work in wanted.items():
            if part in parts:
                try:
                    work()
                except Absent as why:
                    print(f"{part}. left out: {why}")
    return sheet.figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="where pools are made, and removed")
    parser.add_argument("--quick", action="store_true", help="small pools, few turns: no judgement")
    parser.add_argument("--parts", default="abcd", help="those to measure (abcd)")
    parser.add_argument("--threads", type=int, help="how many hash in the reference")
    asked = parser.parse_args()
    os.environ.setdefault("RPMEM_LOG_LEVEL", "1")
    folders = asked.folders or [Path("/dev/shm"), Path(tempfile.gettempdir())]
    effort = QUICK if asked.quick else Effort()
    figures = measure(folders, effort, asked.parts, asked.threads)
    held = sum(figure.held for figure in figures)
    print(f"\n{held} of {len(figures)} bounds held; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
