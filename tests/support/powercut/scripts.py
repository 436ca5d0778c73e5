"""Operations on a pool, by seed, and what each of them promises."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rpmem
from rpmem.pool.local import FilePlace
from tests.support.powercut.model import Loss, Moment, Promise, Words, check_words
from tests.support.powercut.recorder import Recorder

HERE, THERE = "here", "there"
MACHINES = (HERE, THERE)
SIZE = 2 << 20
_LONGEST = 1500
# With other steps a fabric flushes the target's memory, past everything that could be recorded.
_SESSION: Any = {"nlanes": 1, "step": "send-after-write"}


class Script:
    """A pool in use, whose operations are noted with what they promise.

    Parameters
    ----------
    root : str
        Where the machines' folders are.
    recorder : Recorder
        Active.
    dice : Random
        What happens.
    replicated : bool
        There is, or is to be, a replica.
    """

    def __init__(
        self,
        root: str,
        recorder: Recorder,
        dice: random.Random,
        *,
        replicated: bool,
        pool_set: bool,
    ) -> None:
        self.root = root
        self.recorder = recorder
        self.dice = dice
        self.replicated = replicated
        self.path = os.path.join(root, HERE, "a.set" if pool_set else "a.pool")
        self.target = f"local:{os.path.join(root, THERE)}"
        self.moments: list[Moment] = []
        self.pool: rpmem.Pool | None = None
        #: What may be on each machine when nothing is in flight.
        self.may: dict[str, list[Promise | None]] = {HERE: [None], THERE: [None]}
        self.attached = False
        self._views: dict[str, Words] = {}
        self._flushed: list[tuple[str, NDArray[np.bool_]]] = []
        self._number = dice.getrandbits(24) << 32
        self._names = 0

    # --- the bookkeeping --------------------------------------------------------------------

    @contextmanager
    def step(self, what: str, *, syncing: bool = False) -> Iterator[dict[str, Promise | None]]:
        """Note an operation; its promises are changed in what this yields."""
        before = {
            machine: [None if each is None else each.copy() for each in options]
            for machine, options in self.may.items()
        }
        after: dict[str, Promise | None] = {
            machine: None if options[0] is None else options[0].copy()
            for machine, options in before.items()
        }
        begin = len(self.recorder.events)
        yield after
        end = self.recorder.mark(what)
        self.moments.append(Moment(what, begin, end, before, after, syncing))
        self.may = {machine: [promise] for machine, promise in after.items()}

    def _copies(self, after: dict[str, Promise | None]) -> list[Promise]:
        machines = MACHINES if self.attached else (HERE,)
        return [promise for machine in machines if (promise := after[machine]) is not None]

    def _take_views(self) -> None:
        assert self.pool is not None
        self._views = {name: self.pool[name] for name in self.pool.names()}

    def _contents(self) -> Promise:
        return Promise({name: [view.copy()] for name, view in self._views.items()})

    def _theirs(self) -> Promise:
        assert self.pool is not None
        return Promise({name: [self.pool.read(view)] for name, view in self._views.items()})

    # --- beginnings and endings ---------------------------------------------------------------

    def create(self) -> None:
        """Make the pool."""
        replicas = f"{self.target} r.set" if self.replicated else []
        size = None if self.path.endswith(".set") else SIZE
        with self.step("create") as after:
            self.pool = rpmem.Pool.create(
                self.path, size, replicas, parts=self.dice.choice((1, 1, 2)), **_SESSION
            )
            after[HERE] = Promise()
            after[THERE] = Promise() if self.replicated else None
        self.attached = self.replicated
        self._views = {}

    def open(self) -> None:
        """Open it, after a crash or an end."""
        replicas = f"{self.target} r.set" if self.replicated else []
        with self.step("open", syncing=self.replicated) as after:
            self.pool = rpmem.Pool.open(self.path, replicas, **_SESSION)
            self.attached = self.replicated
            self._take_views()
            found = self._contents()
            check_words(self.may[HERE], {n: w for n, (w,) in found.arrays.items()}, "opened")
            # What is shown is durable by then, whoever stored it.
            after[HERE] = found
            if self.attached:
                after[THERE] = self._theirs()
                if list(found.arrays) != list(after[THERE].arrays):
                    raise Loss(f"open: {list(found.arrays)}, but {list(after[THERE].arrays)} there")

    def restore(self) -> None:
        """Make the local copy again out of the replica."""
        with self.step("restore") as after:
            self.pool = rpmem.Pool.restore(self.path, f"{self.target} r.set", **_SESSION)
            self.attached = True
            self._take_views()
            after[HERE] = self._contents()
            after[THERE] = self._theirs()

    def close(self) -> None:
        """Close it."""
        assert self.pool is not None
        with self.step("close") as after:
            self._flushed.clear()
            for name in self._views:
                self._acknowledge(after, name, slice(None))
            self._views.clear()
            self.pool.close()
        self.pool = None

    def die(self) -> None:
        """Let go of the pool as a process does that dies; what it stored stays in page caches."""
        assert self.pool is not None
        self._flushed.clear()
        self._views.clear()
        with self.step("die"):
            self.pool._copies.drop()
            self.pool._tracking.close()
        self.pool = None

    def remove(self) -> None:
        """Remove both copies, one after the other."""
        with self.step("remove here") as after:
            FilePlace(self.path).remove()
            after[HERE] = None
        if self.may[THERE] != [None]:
            with self.step("remove there") as after:
                rpmem.remove(self.target, "r.set", pool_set=True)
                after[THERE] = None
        self.attached = False

    def abandon(self) -> None:
        """End the pool without a note of it: the power is gone."""
        self._views.clear()
        if self.pool is not None:
            self.pool.close()
            self.pool = None

    # --- arrays ---------------------------------------------------------------------------------

    def array(self) -> None:
        """Make an array."""
        assert self.pool is not None
        length = self.dice.randint(1, self.dice.choice((8, 100, _LONGEST)))
        self._names += 1
        name = f"a{self._names}-{self.dice.getrandbits(16):x}"
        with self.step("array") as after:
            view = self.pool.array(name, length, "u8")
            for copy in self._copies(after):
                copy.arrays[name] = [np.zeros(length, np.uint64)]
        self._views[name] = view

    def delete(self) -> None:
        """Delete an array."""
        assert self.pool is not None
        name = self.dice.choice(list(self._views))
        self._views.pop(name)
        self._flushed = [each for each in self._flushed if each[0] != name]
        with self.step("delete") as after:
            del self.pool[name]
            for copy in self._copies(after):
                del copy.arrays[name]

    def store(self) -> tuple[str, slice]:
        """Store into a piece of an array."""
        name = self.dice.choice(list(self._views))
        view = self._views[name]
        one, other = (self.dice.randrange(len(view) + 1) for _ in range(2))
        where = slice(min(one, other), max(one, other), self.dice.choice((1, 1, 2, 7)))
        with self.step("store") as after:
            self._number += 1 << 16
            view[where] = self._number + np.arange(len(view[where]), dtype=np.uint64)
            for flushed, words in self._flushed:
                # What is written between flush and drain is not promised.
                if flushed == name:
                    words[where] = False
            for copy in self._copies(after):
                copy.stored(name, view)
        return name, where

    def _acknowledge(self, after: dict[str, Promise | None], name: str, where: Any) -> None:
        for copy in self._copies(after):
            copy.acknowledged(name, where, self._views[name])

    def _acknowledge_flushed(self, after: dict[str, Promise | None]) -> None:
        for name, where in self._flushed:
            self._acknowledge(after, name, where)
        self._flushed.clear()

    def persist(self) -> None:
        """Store a piece, and make it durable."""
        assert self.pool is not None
        name, where = self.store()
        verb = self.dice.choice(("persist", "persist", "relaxed", "deep", "whole"))
        with self.step(verb) as after:
            view = self._views[name]
            if verb == "deep":
                self.pool.deep_persist(view[where])
            elif verb == "whole":
                self.pool.persist()
                for each in self._views:
                    self._acknowledge(after, each, slice(None))
            else:
                self.pool.persist(view[where], relaxed=verb == "relaxed")
            self._acknowledge(after, name, where)

    def persist_many(self) -> None:
        """Store several pieces, and make them durable in one call."""
        assert self.pool is not None
        pieces = [self.store() for _ in range(self.dice.randint(1, 5))]
        with self.step("persist_many") as after:
            self.pool.persist_many([self._views[name][where] for name, where in pieces])
            for name, where in pieces:
                self._acknowledge(after, name, where)

    def flush(self) -> None:
        """Store a piece, and flush it."""
        assert self.pool is not None
        name, where = self.store()
        with self.step("flush"):
            self.pool.flush(self._views[name][where], relaxed=self.dice.random() < 0.3)
        words = np.zeros(len(self._views[name]), bool)
        words[where] = True
        self._flushed.append((name, words))

    def drain(self) -> None:
        """Wait for what was flushed."""
        assert self.pool is not None
        with self.step("drain") as after:
            self.pool.drain()
            self._acknowledge_flushed(after)

    # --- replicas -------------------------------------------------------------------------------

    def detach(self) -> None:
        """Go on without the replica."""
        assert self.pool is not None
        self.drain()
        with self.step("detach"):
            self.pool.detach(0)
        self.attached = False

    def attach(self) -> None:
        """Bring the replica back."""
        assert self.pool is not None
        fresh = self.may[THERE] == [None]
        with self.step("attach", syncing=True) as after:
            self.pool.attach(f"{self.target} r.set", create=fresh, parts=1 if fresh else 0)
            after[THERE] = self._contents()
        self.attached = True

    def pull(self) -> None:
        """Overwrite a piece that was not persisted with what the replica has."""
        assert self.pool is not None
        self.drain()
        name, _ = self.store()
        view = self._views[name]
        theirs = self.pool.read(view)
        with self.step("pull: before") as after:
            for copy in self._copies(after):
                copy.stored(name, theirs)
        with self.step("pull") as after:
            self.pool.pull(view)
            assert after[HERE] is not None
            after[HERE].acknowledged(name, slice(None), theirs)

    # --- all of it ------------------------------------------------------------------------------

    def choices(self) -> list[Callable[[], object]]:
        """Return what can be done now, as often as it is likely."""
        if self.pool is None:
            if self.may[HERE] == [None]:
                return [self.create]
            return [self.open] * 8 + [self.remove]
        found: list[Callable[[], object]] = [self.array] * (3 if len(self._views) < 6 else 0)
        found += [self.close, self.die]
        if self._views:
            found += [self.delete, self.store, self.flush, self.flush, self.drain]
            found += [self.persist] * 6 + [self.persist_many] * 3
            if self.attached:
                found += [self.pull]
        if self.attached:
            found += [self.detach]
        elif self.replicated:
            found += [self.attach] * 2
        return found

    def run(self, steps: int) -> None:
        """Do so many things."""
        for _ in range(steps):
            self.dice.choice(self.choices())()
