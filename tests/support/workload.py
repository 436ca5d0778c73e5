"""A random workload that can be recomputed, and the promises made for it.

Each thread has a `Program`: an endless, deterministic series of operations on separate words. A
`Journal` in shared memory records how many of them were begun and how many acknowledged. Seed and
journal determine every byte that has to be on a medium: `Ledger.check` compares.

Every word written by operation number n contains n, so that a wrong word shows its origin.
"""

from __future__ import annotations

import mmap
import random
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rpmem.errors import RpmemError

Words = NDArray[np.uint64]

#: Ways to make words durable. All but "relaxed" and "relaxed-flush" promise whole words.
WRITES = ("persist", "relaxed", "many", "relaxed-many", "strided", "flush", "relaxed-flush", "deep")
#: Those that find what changed by themselves; a replica's buffer has none of them.
LOOKING = ("all", "changed")
CHURN = ("create", "delete")
TEARING = ("relaxed", "relaxed-many", "relaxed-flush")

_MOST_CHURN = 3
_ROW = 32


def data_name(thread: int) -> str:
    """Return the name of a thread's array that is always there."""
    return f"data-{thread}"


# --- operations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One operation of a program.

    Parameters
    ----------
    number : int
        Counted from 1 in each program.
    kind : str
        One of `WRITES`, `LOOKING` or `CHURN`.
    name : str
        The array it is about.
    slices : tuple of slice
        Words that are written.
    count : int
        Words of an array that is created.
    stamp : int
        What its words hold, together with their index.
    """

    number: int
    kind: str
    name: str
    slices: tuple[slice, ...] = ()
    count: int = 0
    stamp: int = 0

    def store(self, words: Words) -> None:
        """Write what the operation writes."""
        for part in self.slices:
            indices = np.arange(len(words), dtype=np.uint64)[part]
            words[part] = indices | np.uint64(self.stamp)

    def applied(self, arrays: Mapping[str, Words]) -> dict[str, Words]:
        """Return the arrays as they are after the operation."""
        after = dict(arrays)
        if self.kind == "create":
            after[self.name] = np.zeros(self.count, np.uint64)
        elif self.kind == "delete":
            del after[self.name]
        else:
            after[self.name] = arrays[self.name].copy()
            self.store(after[self.name])
        return after


class Program:
    """What one thread does.

    Parameters
    ----------
    seed : int
        Programs of the same seed and thread are the same.
    thread : int
        Its number.
    arrays : mapping of str to int
        The arrays of this thread at the start, and how many words they have.
    kinds : iterable of str
        The operations that may come.
    largest : int
        Words that one range has at most.
    """

    def __init__(
        self,
        seed: int,
        thread: int,
        arrays: Mapping[str, int],
        kinds: Iterable[str] = WRITES + CHURN,
        largest: int = 8192,
    ) -> None:
        self._random = random.Random(f"{seed}/{thread}")
        self._thread = thread
        self._seed = seed
        self._arrays = dict(arrays)
        self._kinds = tuple(kinds)
        self._largest = largest
        self._number = 0

    def next(self) -> Operation:
        """Return the next operation."""
        self._number += 1
        kind = self._random.choice(self._kinds)
        churned = [name for name in self._arrays if name != data_name(self._thread)]
        if kind == "delete" and not churned:
            kind = "create"
        if kind == "create" and len(churned) >= _MOST_CHURN:
            kind = "delete"
        if kind == "create":
            name = f"churn-{self._thread}-{self._seed}-{self._number}"
            self._arrays[name] = count = self._random.choice((1, 9, 100, 600, 3000))
            return Operation(self._number, kind, name, count=count)
        if kind == "delete":
            name = self._random.choice(churned)
            del self._arrays[name]
            return Operation(self._number, kind, name)
        name = self._random.choice(list(self._arrays))
        stamp = (self._thread + 1) << 56 | self._number << 24
        slices = tuple(self._slices(kind, self._arrays[name]))
        return Operation(self._number, kind, name, slices, stamp=stamp)

    def _slices(self, kind: str, count: int) -> Iterable[slice]:
        if kind == "strided":
            if count >= _ROW:
                yield slice(self._random.randrange(_ROW), None, _ROW)
            else:
                yield slice(None)
            return
        several = kind in ("many", "relaxed-many", "flush", "relaxed-flush")
        for _ in range(self._random.randint(2, 12) if several else 1):
            length = min(count, self._largest, int(2 ** self._random.uniform(0, 13)))
            start = self._random.randint(0, count - length)
            yield slice(start, start + length)


class Persister(Protocol):
    """What operations are carried out on: a pool, or a replica's buffer."""

    def persist(self, x: Any = None, *, relaxed: bool = False) -> None: ...
    def persist_many(self, ranges: Any, *, relaxed: bool = False) -> None: ...
    def flush(self, x: Any = None, *, relaxed: bool = False) -> None: ...
    def drain(self) -> None: ...
    def deep_persist(self, x: Any = None) -> None: ...


def carry_out(operation: Operation, pool: Any, views: dict[str, Words]) -> None:
    """Do an operation; it is acknowledged when this returns."""
    kind, name = operation.kind, operation.name
    if kind == "create":
        views[name] = pool.array(name, operation.count, np.uint64)
        return
    if kind == "delete":
        del views[name]
        del pool[name]
        return
    words = views[name]
    operation.store(words)
    relaxed = kind in TEARING
    pieces = [words[part] for part in operation.slices]
    if kind in ("persist", "relaxed", "strided"):
        pool.persist(pieces[0], relaxed=relaxed)
    elif kind == "all":
        pool.persist()
    elif kind == "changed":
        pool.persist(pieces[0], narrow=True)
    elif kind == "deep":
        pool.deep_persist(pieces[0])
    elif kind in ("many", "relaxed-many"):
        pool.persist_many(pieces, relaxed=relaxed)
    else:
        for piece in pieces:
            pool.flush(piece, relaxed=relaxed)
        pool.drain()


# --- the journal ------------------------------------------------------------------------------


class Journal:
    """How far every thread has come, in a file mapping that survives who writes it.

    Parameters
    ----------
    path : Path
        Made when it does not exist.
    """

    _WORD = struct.Struct("<Q")
    _LINE = 64
    LINES = 64

    def __init__(self, path: Path) -> None:
        size = self._LINE * self.LINES
        with open(path, "a+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)

    def clear(self) -> None:
        """Begin again."""
        self._memory[:] = bytes(len(self._memory))

    def _at(self, thread: int, which: int) -> int:
        return self._LINE * (thread + 1) + 8 * which

    def begin(self, thread: int, number: int) -> None:
        """Note that an operation is about to touch memory."""
        self._WORD.pack_into(self._memory, self._at(thread, 0), number)

    def acknowledge(self, thread: int, number: int) -> None:
        """Note that an operation has returned."""
        self._WORD.pack_into(self._memory, self._at(thread, 1), number)

    def progress(self, thread: int) -> tuple[int, int]:
        """Return the numbers of the last operation begun and of the last acknowledged."""
        begun: int = self._WORD.unpack_from(self._memory, self._at(thread, 0))[0]
        acknowledged: int = self._WORD.unpack_from(self._memory, self._at(thread, 1))[0]
        return begun, acknowledged

    @property
    def stage(self) -> int:
        """What the writer says it is doing."""
        stage: int = self._WORD.unpack_from(self._memory, 0)[0]
        return stage

    @stage.setter
    def stage(self, value: int) -> None:
        self._WORD.pack_into(self._memory, 0, value)

    def total(self, threads: int) -> int:
        """Return how many operations were acknowledged."""
        return sum(self.progress(thread)[1] for thread in range(threads))


# --- running ----------------------------------------------------------------------------------


@dataclass
class Ending:
    """How a thread of a workload ended.

    Parameters
    ----------
    error : RpmemError or None
        What its last operation raised; None when it was told to stop.
    at : float
        When (time.monotonic).
    """

    error: RpmemError | None
    at: float


@dataclass
class Run:
    """Threads that work until an operation fails or `stop` is set.

    Parameters
    ----------
    pool : Pool or Persister
        What they work on.
    views : list of dict
        For each thread its arrays by name; changed by creating and deleting.
    programs : list of Program
        One per thread.
    journal : Journal
        Told about everything.
    """

    pool: Any
    views: list[dict[str, Words]]
    programs: list[Program]
    journal: Journal
    stop: threading.Event = field(default_factory=threading.Event)
    endings: dict[int, Ending] = field(default_factory=dict)
    faults: list[BaseException] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start the threads."""
        for number in range(len(self.programs)):
            thread = threading.Thread(target=self._guarded, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self, timeout: float) -> None:
        """Wait for all threads; TimeoutError when one hangs, or what broke one."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError("a thread of the workload hangs")
        for fault in self.faults:
            raise fault

    def _guarded(self, number: int) -> None:
        try:
            self._work(number)
        except BaseException as fault:  # told to join()
            self.faults.append(fault)

    def _work(self, number: int) -> None:
        program, views, journal = self.programs[number], self.views[number], self.journal
        while not self.stop.is_set():
            operation = program.next()
            journal.begin(number, operation.number)
            try:
                carry_out(operation, self.pool, views)
            except RpmemError as error:
                self.endings[number] = Ending(error.with_traceback(None), time.monotonic())
                return
            journal.acknowledge(number, operation.number)
        self.endings[number] = Ending(None, time.monotonic())


# --- what has to be there ---------------------------------------------------------------------


class Loss(AssertionError):
    """Something that was acknowledged is not on a medium, or something is that nobody wrote."""


@dataclass
class Ledger:
    """What a medium must hold: arrays that were there, and what programs did since.

    Parameters
    ----------
    base : mapping of str to Words
        The arrays at the start of the workload.
    programs : callable
        Makes the programs that were run, anew.
    journal : Journal
        How far they came.
    """

    base: Mapping[str, Words]
    programs: Callable[[], list[Program]]
    journal: Journal

    def check(self, found: Mapping[str, Words]) -> int:
        """Raise `Loss` unless every acknowledged word is in `found`; return the words checked."""
        unknown = dict(found)
        checked = 0
        for thread, program in enumerate(self.programs()):
            own = {name: self.base[name] for name in self.base if _owner(name) == thread}
            begun, acknowledged = self.journal.progress(thread)
            for _ in range(acknowledged):
                own = program.next().applied(own)
            flying = program.next() if begun > acknowledged else None
            if begun > acknowledged + 1:
                raise Loss(f"thread {thread} began {begun} operations, {acknowledged} ended")
            for name, words in own.items():
                checked += self._check_array(name, words, unknown.pop(name, None), flying)
            if flying is not None and flying.kind == "create":
                made = unknown.pop(flying.name, None)
                if made is not None and (len(made) != flying.count or made.any()):
                    raise Loss(f"{flying.name} was published before it was zero")
        if unknown:
            raise Loss(f"arrays that must not be there: {', '.join(unknown)}")
        return checked

    def _check_array(
        self, name: str, old: Words, found: Words | None, flying: Operation | None
    ) -> int:
        if flying is not None and flying.name != name:
            flying = None
        if found is None:
            if flying is not None and flying.kind == "delete":
                return 0
            raise Loss(f"{name} is acknowledged and not there")
        if len(found) != len(old):
            raise Loss(f"{name} has {len(found)} words, not {len(old)}")
        good = found == old
        if flying is not None and flying.kind in WRITES + LOOKING:
            new = old.copy()
            flying.store(new)
            if flying.kind in TEARING:
                good |= _of_both(found, old, new)
            else:
                good |= found == new
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            raise Loss(
                f"{name}: {int((~good).sum())} of {len(old)} words are wrong; word {at} is "
                f"{int(found[at]):#018x}, acknowledged was {int(old[at]):#018x}, "
                f"on its way: {flying}"
            )
        return len(old)


def _of_both(found: Words, old: Words, new: Words) -> NDArray[np.bool_]:
    """Return which words are made of bytes of either."""
    bytes_found, bytes_old, bytes_new = (
        np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8) for words in (found, old, new)
    )
    good: NDArray[np.bool_] = ((bytes_found == bytes_old) | (bytes_found == bytes_new)).all(axis=1)
    return good


def _owner(name: str) -> int:
    return int(name.split("-")[1])
