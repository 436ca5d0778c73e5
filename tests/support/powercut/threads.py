"""Several threads on one pool, cut anywhere: what each was promised is there, on both copies.

Every word has one writer, which counts up what it stores; threads own words side by side, in the
same lines and pages, and persist ranges that have words of others in them. So after a cut a word
may hold what its owner stored at any time between the last acknowledgement and the cut.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.errors import CatalogueCorrupt, RpmemError
from tests.support.media import PoolImage
from tests.support.powercut.images import Replay
from tests.support.powercut.model import Loss, Words
from tests.support.powercut.recorder import Event, Recorder, recording
from tests.support.powercut.runs import SHM
from tests.support.powercut.scripts import HERE, MACHINES, SIZE, THERE
from tests.support.powercut.target import targets_are_threads

_WORDS = 1200
_NAME = "shared"
_PARTS = {HERE: "a.pool", THERE: "r.set.part0"}


@dataclass
class _Act:
    """What a thread did: a store of a value, or a call that made a range durable.

    Parameters
    ----------
    begin, end : int
        Events before it, and when it was over.
    where : slice or list of slice
        Of the shared array.
    value : int
        What was stored; 0 for a call.
    """

    begin: int
    end: int
    where: list[slice]
    value: int = 0


class Threads:
    """Threads that store and persist; `acts` are theirs, in no order.

    Parameters
    ----------
    root : str
        Where the machines' folders are.
    recorder : Recorder
        Active.
    dice : Random
        What happens.
    """

    def __init__(self, root: str, recorder: Recorder, dice: random.Random) -> None:
        self.root = root
        self.recorder = recorder
        self.acts: list[_Act] = []
        self.problems: list[BaseException] = []
        self.names: list[tuple[int, int, str, bool]] = []
        self._threads = dice.randint(2, 4)
        self._rounds = dice.randint(4, 10)
        self._interleaved = dice.random() < 0.6
        self._seeds = [dice.getrandbits(32) for _ in range(self._threads + 1)]
        #: Who writes a word.
        self.owners = np.arange(_WORDS) % self._threads
        if not self._interleaved:
            self.owners = np.arange(_WORDS) * self._threads // _WORDS
        self.ready = 0

    def run(self) -> None:
        """Make the pool, let all threads work on it, and close it."""
        target = f"local:{os.path.join(self.root, THERE)} r.set"
        path = os.path.join(self.root, HERE, _PARTS[HERE])
        pool = rpmem.Pool.create(
            path, SIZE, target, parts=1, nlanes=self._threads, step="send-after-write"
        )
        with pool:
            view = pool.array(_NAME, _WORDS, "u8")
            self.ready = self.recorder.mark("ready")
            works: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
                (self._work, (pool, view, number)) for number in range(self._threads)
            ]
            works.append((self._catalogue, (pool,)))
            running = [threading.Thread(target=self._guarded, args=work) for work in works]
            for each in running:
                each.start()
            for each in running:
                each.join()
            if self.problems:
                raise self.problems[0]
        self.recorder.mark("closed")

    def _guarded(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self.problems.append(error)

    def _now(self) -> int:
        return self.recorder.mark("")

    def _mine(self, dice: random.Random, number: int) -> slice:
        """Return some of a thread's own words."""
        if self._interleaved:
            first = dice.randrange(_WORDS // self._threads) * self._threads + number
            count = dice.choice((1, 7, 100, _WORDS))
            return slice(first, min(_WORDS, first + count * self._threads), self._threads)
        low = -(-number * _WORDS // self._threads)
        high = -(-(number + 1) * _WORDS // self._threads)
        first = dice.randrange(low, high)
        return slice(first, min(high, first + dice.choice((1, 7, 100, _WORDS))), 1)

    def _work(self, pool: rpmem.Pool, view: Words, number: int) -> None:
        dice = random.Random(self._seeds[number])
        for count in range(1, self._rounds + 1):
            pieces = [self._mine(dice, number) for _ in range(dice.choice((1, 1, 1, 3)))]
            begin = self._now()
            for piece in pieces:
                view[piece] = count
            self.acts.append(_Act(begin, self._now(), pieces, count))
            self._persist(pool, view, dice, pieces)

    def _persist(
        self, pool: rpmem.Pool, view: Words, dice: random.Random, pieces: list[slice]
    ) -> None:
        verb = dice.choice(("own", "own", "own", "hull", "all", "pool", "many", "deep", "flush"))
        covered = pieces
        begin = self._now()
        if verb == "flush":
            for piece in pieces:
                pool.flush(view[piece], relaxed=dice.random() < 0.3)
            pool.drain()
        elif verb == "pool":
            pool.persist()
            covered = [slice(None)]
        elif verb == "all":
            pool.persist(view)
            covered = [slice(None)]
        elif verb == "hull":
            covered = [slice(min(p.start for p in pieces), max(p.stop for p in pieces))]
            pool.persist(view[covered[0]], relaxed=dice.random() < 0.3)
        elif verb == "deep":
            for piece in pieces:
                pool.deep_persist(view[piece])
        elif len(pieces) > 1 or verb == "many":
            pool.persist_many([view[piece] for piece in pieces])
        else:
            pool.persist(view[pieces[0]])
        self.acts.append(_Act(begin, self._now(), covered))

    def _catalogue(self, pool: rpmem.Pool) -> None:
        """Make and delete arrays meanwhile."""
        dice = random.Random(self._seeds[-1])
        made: list[str] = []
        for count in range(self._rounds):
            begin = self._now()
            if made and dice.random() < 0.4:
                name = made.pop(dice.randrange(len(made)))
                del pool[name]
                self.names.append((begin, self._now(), name, False))
            else:
                name = f"n{count}"
                pool.array(name, dice.randint(1, 300), "u8")
                made.append(name)
                self.names.append((begin, self._now(), name, True))

    # --- what has to be there -----------------------------------------------------------------

    def bounds(self, position: int) -> tuple[Words, Words]:
        """Return the oldest and the newest value that each word may have after a cut."""
        low, high = np.zeros(_WORDS, np.uint64), np.zeros(_WORDS, np.uint64)
        for store in self.acts:
            if not store.value or store.begin >= position:
                continue
            value = np.uint64(store.value)
            stored = _mask(store.where)
            high[stored] = np.maximum(high[stored], value)
            for call in self.acts:
                if not call.value and store.end <= call.begin and call.end <= position:
                    kept = stored & _mask(call.where)
                    low[kept] = np.maximum(low[kept], value)
        return low, high

    def check(self, image: bytes, position: int, where: str) -> None:
        """Compare what a copy has after a cut; raise `Loss`."""
        try:
            pool = PoolImage.parse(image)
        except CatalogueCorrupt as error:
            raise Loss(f"{where}: {error}") from None
        names = set(pool.catalogue.entries)
        if _NAME not in names:
            raise Loss(f"{where}: there are only {names}")
        for begin, end, name, there in self.names:
            last = [each for each in self.names if each[2] == name and each[0] < position][-1:]
            if last != [(begin, end, name, there)] or end > position:
                continue
            if (name in names) != there:
                raise Loss(f"{where}: {name} is {'not ' if there else ''}there")
        found = pool.arrays()[_NAME]
        low, high = self.bounds(position)
        (wrong,) = np.nonzero((found < low) | (found > high))
        if len(wrong):
            at = wrong[0]
            raise Loss(
                f"{where}: {len(wrong)} words are wrong, the first at {at}, thread "
                f"{self.owners[at]}'s: {found[at]} instead of {low[at]} to {high[at]}"
            )


def _mask(where: list[slice]) -> Any:
    mask = np.zeros(_WORDS, bool)
    for each in where:
        mask[each] = True
    return mask


def run_threads(
    seed: int,
    *,
    images: int = 150,
    skips: Callable[[Event], bool] = lambda event: False,
    counts: Counter[str] | None = None,
) -> int:
    """Let threads work by seed, and cut; return how many images there were.

    Parameters
    ----------
    seed : int
        Of everything but the order of the threads.
    images : int
        Cuts; each leaves two copies.
    skips : callable
        A medium that lies, see `Recorder`.
    counts : Counter, optional
        Of what was looked at.

    Raises
    ------
    Loss
        With the seed, and where it was.
    """
    dice = random.Random(seed)
    found: Counter[str] = Counter() if counts is None else counts
    root = tempfile.mkdtemp(prefix="rpmem-threads-", dir=SHM)
    try:
        for machine in MACHINES:
            os.mkdir(os.path.join(root, machine))
        media = {machine: dice.choice(("page", "pmem")) for machine in MACHINES}
        recorder = Recorder(root, MACHINES, medium=media.__getitem__, skips=skips)
        threads = Threads(root, recorder, dice)
        try:
            with targets_are_threads(), recording(recorder):
                threads.run()
            _cut(threads, recorder, dice, images, seed, found)
        finally:
            recorder.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return images


def _cut(
    threads: Threads,
    recorder: Recorder,
    dice: random.Random,
    images: int,
    seed: int,
    counts: Counter[str],
) -> None:
    replay = Replay(recorder)
    for position in sorted(dice.randint(threads.ready, len(replay)) for _ in range(images)):
        replay.advance(position)
        for machine in MACHINES:
            where = f"threads, seed {seed}: {machine}, at event {position}"
            mode = dice.choice(("torn", "torn", "torn", "lost"))
            image = replay.look(machine, _PARTS[machine], dice, mode, SIZE // 8)
            if image is None:
                raise Loss(f"{where}: there is no file")
            threads.check(image, position, where)
            counts[f"threads, {machine}"] += 1
    # The last one is opened by the real code, too.
    folder = os.path.join(threads.root, "image")
    os.makedirs(os.path.join(folder, HERE))
    replay.write(HERE, os.path.join(folder, HERE), dice, "torn")
    try:
        with rpmem.Pool.open(Path(folder, HERE, _PARTS[HERE]), []) as pool:
            if _NAME not in pool.names():
                raise Loss(f"threads, seed {seed}: opened, it has {pool.names()}")
    except RpmemError as error:
        raise Loss(f"threads, seed {seed}: {error}") from error
