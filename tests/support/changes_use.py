"""A pool in use by threads, which store and persist: no page may ever be missed.

Each thread knows what it stored. Now and then all are held up, one `persist()` returns without an
error, and then the local memory and every replica are compared, byte for byte. While they work, a
thread that was told that its counter is durable finds it at every replica.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import rpmem
from rpmem.base.pool_format import POOL_FLOOR
from tests.support import changes_target
from tests.support.changes_copies import Medium, Node, Place
from tests.support.changes_gate import Gate
from tests.support.changes_stores import PAGE, Bytes, Memory, Source, Stores, difference, libc

WRITERS = 3
CALLERS = 2
NODES = 2
#: The page of the main thread, among those that have one of two contents.
OWN_PAGE = WRITERS + CALLERS

#: What the kernel is told: to write pages out, to unmap them, that nobody will need them soon.
ADVICE = {"pageout": 21, "dontneed": 4, "cold": 20}
_APART = 512


class Interrupt(BaseException):
    """What the signal's handler raises."""


class Missed(AssertionError):
    """A copy lacks what it was said to have."""


@dataclass(frozen=True)
class Plan:
    """What a round does.

    Parameters
    ----------
    seed : str
        Of all random choices.
    place : str
        One of `PLACES`.
    mode : str
        How changes are found.
    stores : int
        About how many are made.
    loud, quiet : sequence of str
        What happens, in this order.
    end : str
        How it ends.
    hooked : bool
        Keep an account of what is durable locally; storage may refuse then.
    """

    seed: str
    place: str
    mode: str
    stores: int
    loud: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    end: str = "close"
    hooked: bool = False


class Use:
    """A pool with two replicas, and the threads that use it.

    Parameters
    ----------
    plan : Plan
        What to do.
    folder : Path
        Where, a fresh directory.
    counts : Counter
        What happened how often.
    """

    def __init__(self, plan: Plan, folder: Path, counts: Counter[str]) -> None:
        self.plan = plan
        self.counts = counts
        self.gate = Gate()
        self.place = Place.make(plan.place, folder)
        self.nodes = [Node(folder / f"node{number}") for number in range(NODES)]
        self.attached = list(self.nodes)
        self.rng = random.Random(f"{plan.seed} main")
        self.source = Source(folder / "source")
        self.done = [0] * WRITERS
        self.counted = [0] * (WRITERS + CALLERS)
        self.generation = 0
        self.faulty = False
        self.forked = False
        self.children: list[int] = []
        self.medium: Medium | None = None
        self.listening = False
        self.pool = rpmem.Pool.create(
            self.place.local,
            self.place.size,
            [node.spec for node in self.nodes],
            parts=1,
            tracking=plan.mode,
            **self.session(),
        )
        try:
            self._lay_out()
        except BaseException:
            self.pool.__exit__(None, None, None)
            raise

    def session(self) -> dict[str, Any]:
        """Return how replicas are reached."""
        return {"nlanes": 3, "timeout": 30.0, "command": changes_target.command()}

    def _lay_out(self) -> None:
        if self.pool.tracking != self.plan.mode:
            raise Missed(f"changes are found by {self.pool.tracking}")
        array = self.pool.array("data", Memory.length(WRITERS), "u1")
        self.counters: Any = self.pool.array("counters", _APART + WRITERS + CALLERS, "u8")
        self.memory = Memory(array, WRITERS)
        self.begin = self.pool.entry("data").offset
        self.counters_begin = self.pool.entry("counters").offset
        if self.plan.hooked:
            self.medium = Medium(self.pool._region, real=self.plan.place.startswith("disk"))
        self.stores = [Stores(self.memory, self.source, Counter()) for _ in range(WRITERS + 1)]

    # --- the threads ----------------------------------------------------------------------

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let the threads work; raise what went wrong."""
        try:
            for number in range(WRITERS):
                self.gate.start(f"writer {number}", self._writer(number))
            for number in range(WRITERS, WRITERS + CALLERS):
                self.gate.start(f"caller {number}", self._caller(number))
            yield
        finally:
            self.gate.end()
            for each in self.stores:
                self.counts.update(each._counts)
                each.close()
            self.source.close()
            with suppress(rpmem.RpmemError):
                self.pool.__exit__(None, None, None)
        self.check_threads()

    def _writer(self, number: int) -> Callable[[], None]:
        rng = random.Random(f"{self.plan.seed} writer {number}")

        def step() -> None:
            for _ in range(rng.randrange(1, 6)):
                self.stores[number].store(number, rng)
                self.done[number] += 1
            if rng.random() < 0.3:
                self.memory.toggle(number, rng.randrange(2))
            roll = rng.random()
            if roll < 0.15:
                self._acknowledged(number, rng)
            elif roll < 0.25:
                self._call_any(rng)
            else:
                time.sleep(0)

        return step

    def _caller(self, number: int) -> Callable[[], None]:
        rng = random.Random(f"{self.plan.seed} caller {number}")

        def step() -> None:
            roll = rng.random()
            if roll < 0.3:
                self._acknowledged(number, rng)
            elif roll < 0.5:
                self._attempt("a page gets back what it had", self._toggling(number, rng))
            else:
                self._call_any(rng)
            time.sleep(rng.random() * 0.004)

        return step

    def _attempt(self, what: str, call: Callable[[], None]) -> bool:
        """Call; return whether there was no error. One is expected only while something fails."""
        before = self.generation
        expected = self.faulty
        try:
            call()
        except rpmem.RpmemError as error:
            if not expected and not self.faulty and before == self.generation:
                raise
            self.counts[f"failed {type(error).__name__}"] += 1
            time.sleep(0.002)
            return False
        self.counts[what] += 1
        return True

    def _call_any(self, rng: random.Random) -> None:
        what, call = self._any(rng)
        self._attempt(what, call)

    def _any(self, rng: random.Random) -> tuple[str, Callable[[], None]]:
        """Return a call that makes something durable, and its name."""
        pool, array = self.pool, self.memory.array
        at, length = self.memory.own(rng.randrange(WRITERS), rng)
        view = array[at : at + length]
        roll = rng.random()
        if roll < 0.45:
            return "persist()", pool.persist
        if roll < 0.5:
            return "persist(relaxed)", lambda: pool.persist(relaxed=True)
        if roll < 0.6:
            return "persist(x, narrow)", lambda: pool.persist(view, narrow=True)
        if roll < 0.7:
            # Most pages as a whole, the first and the last one in part.
            begin = self.begin + rng.randrange(len(array) - (1 << 20))
            some = begin, rng.randrange(1, 1 << 20)
            return "persist(x, narrow)", lambda: pool.persist(some, narrow=True)
        if roll < 0.8:
            return "persist(x)", lambda: pool.persist(view)
        if roll < 0.85:
            return "persist(x)", lambda: pool.persist(array[at : at + length : 5])
        if roll < 0.9:
            return "persist_many", lambda: pool.persist_many([view[: length // 2 + 1], view[-1:]])
        if roll < 0.97:

            def flush_and_drain() -> None:
                pool.flush(view)
                pool.drain()

            return "flush and drain", flush_and_drain
        return "deep_persist(x)", lambda: pool.deep_persist(view)

    def _toggling(self, number: int, rng: random.Random) -> Callable[[], None]:
        """Give a page one of its two contents, and return a call that may name it."""
        page = self.memory.toggle(number, rng.randrange(2))
        pool = self.pool

        def flush_and_drain() -> None:
            pool.flush(page)
            pool.drain()

        calls: tuple[Callable[[], None], ...] = (
            flush_and_drain,
            lambda: pool.persist(page),
            lambda: pool.persist_many([page[:8], page[64:]]),
            lambda: pool.persist(page, narrow=True),
            lambda: pool.persist(page[9:], narrow=True),
            lambda: None,
        )
        return rng.choice(calls)

    def _acknowledged(self, number: int, rng: random.Random) -> None:
        """Count, have it made durable, and look for it at the replicas."""
        self.counted[number] += 1
        value = self.counted[number]
        places = (number, _APART + number)
        for index in places:
            self.counters[index] = value
        what, call = self._durable(places, rng)
        nodes = [(node, node.joins) for node in self.attached]
        if not self._attempt(what, call):
            return
        for node, joins in nodes:
            found = [
                int(node.view[self.counters_begin + 8 * index :][:8].view(np.uint64)[0])
                for index in places
            ]
            # One that left meanwhile need not have it.
            if node.joins == joins and node in self.attached:
                self.counts["acknowledged counters found"] += 1
                if min(found) < value:
                    raise Missed(f"{what} acknowledged {value} of {number}, {node.spec}: {found}")

    def _durable(
        self, places: tuple[int, int], rng: random.Random
    ) -> tuple[str, Callable[[], None]]:
        pool = self.pool
        views = [self.counters[index : index + 1] for index in places]
        roll = rng.random()
        if roll < 0.6:
            return "persist()", pool.persist
        if roll < 0.75:
            return "persist_many", lambda: pool.persist_many(views)
        if roll < 0.9:
            return "persist(x, narrow)", lambda: pool.persist(self.counters, narrow=True)
        return "persist(x)", lambda: pool.persist(self.counters)

    # --- all copies -----------------------------------------------------------------------

    def check_threads(self) -> None:
        """Raise what ended a thread."""
        if self.gate.trouble:
            raise Missed("\n".join(self.gate.trouble))

    def drain(self) -> None:
        """Hold everybody up, and compare."""
        with self.gate.closed():
            self.check_threads()
            self.settle("drain")
            self.counts["drains"] += 1

    def settle(self, when: str) -> None:
        """Make everything durable, and compare all copies; nobody else does anything."""
        for child in self.children:
            os.waitpid(child, 0)
        self.children.clear()
        self.pool.persist()
        self.compare(when)

    def compare(self, when: str) -> None:
        size = self.pool.size
        memory: Bytes = np.frombuffer(self.pool._region, np.uint8)[POOL_FLOOR:size]
        found = {"the local memory": self.memory.wrong()}
        for node in self.attached:
            found[str(node.directory)] = difference(node.view[POOL_FLOOR:size], memory)
        if self.medium is not None:
            found["the local medium"] = difference(self.medium.durable[POOL_FLOOR:size], memory)
        del memory
        wrong = [f"{name}: {text}" for name, text in found.items() if text]
        if wrong:
            raise Missed(f"after {when}, {self.pool.tracking}: " + "; ".join(wrong))

    # --- what happens at any time ---------------------------------------------------------

    def nudge(self) -> None:
        """Let one of the small things happen that change nothing."""
        roll = self.rng.random()
        if roll < 0.4:
            self.interrupted(self.rng.random() ** 3 * 0.01)
        elif roll < 0.43:
            with changes_target.holding(self.rng.choice(self.attached).directory):
                self.interrupted(0.06 + self.rng.random() * 0.03)
        elif roll < 0.52:
            self.advise("pageout")
        elif roll < 0.6:
            self.advise("cold")
        elif roll < 0.75:
            self.advise("dontneed")
        else:
            time.sleep(self.rng.random() * 0.003)

    def interrupted(self, seconds: float) -> None:
        """Call, and let a signal come in between."""
        what, call = self._any(self.rng)
        if self.rng.random() < 0.4:
            call = self._toggling(OWN_PAGE, self.rng)
        try:
            self.listening = True
            signal.setitimer(signal.ITIMER_REAL, seconds + 1e-5)
            self._attempt(what, call)
            self.listening = False
        except Interrupt:
            self.counts["interrupted"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.listening = False

    def _heard(self, _: int, frame: FrameType | None) -> None:
        if not self.listening:
            return
        while frame is not None:
            if frame.f_code is Medium.call.__code__:
                # A real medium is no Python code that a signal could end.
                signal.setitimer(signal.ITIMER_REAL, 1e-3)
                return
            frame = frame.f_back
        self.listening = False
        raise Interrupt

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Let SIGALRM interrupt calls."""
        before = signal.signal(signal.SIGALRM, self._heard)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def advise(self, what: str) -> None:
        """Tell the kernel about some pages, or about all of them."""
        if what == "dontneed" and not self.place.is_shared:
            return  # it would be the end of what they hold
        first = self.memory.address + self.memory.first
        pages = (len(self.memory.array) - self.memory.first) // PAGE
        count = pages if self.rng.random() < 0.3 else self.rng.randrange(1, pages)
        at = first + self.rng.randrange(pages - count + 1) * PAGE
        if libc.madvise(at, count * PAGE, ADVICE[what]):
            raise OSError(ctypes.get_errno(), what)
        self.counts[what] += 1

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Have calls fail that are under way now."""
        self.generation += 1
        try:
            yield
        finally:
            self.generation += 1
