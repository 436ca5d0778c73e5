"""Images opened by the real code, and compared with what was promised."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

import rpmem
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import (
    CatalogueCorrupt,
    HeaderError,
    PoolSetError,
    PoolSetNotFound,
    RpmemError,
    StaleReplica,
)
from rpmem.pool.local import FilePlace
from tests.support.media import PoolImage, image_of, record_in
from tests.support.powercut.images import Replay
from tests.support.powercut.model import Loss, Moment, Promise, Words, check_words
from tests.support.powercut.scripts import HERE, MACHINES, SIZE, THERE, Script

#: How an interrupted creation, removal or restore shows.
_INCOMPLETE = (PoolSetError, HeaderError, CatalogueCorrupt)
# The part that has the superblock and, as arrays are small, everything else; and how much is read.
_CONTAINED = (Relation.SAME, Relation.BEHIND)
_FIRST_PARTS = ("a.pool", "a.part0")
_MOST = 1 << 16


def contents(pool: rpmem.Pool) -> dict[str, Words]:
    """Return a copy of every array."""
    return {name: np.array(pool[name]) for name in pool.names()}


class Checker:
    """Cuts the power in a script's record, and looks.

    Parameters
    ----------
    script : Script
        That has run.
    replay : Replay
        Of its record.
    root : str
        Where images may be written.

    Attributes
    ----------
    counts : Counter
        Of the images, by what was looked at.
    """

    def __init__(self, script: Script, replay: Replay, root: str) -> None:
        self.script = script
        self.replay = replay
        self.root = root
        self.counts: Counter[str] = Counter()
        self._at = 0

    def moment(self, position: int) -> Moment:
        """Return the operation in flight, or the one that has just come back."""
        moments = self.script.moments
        while self._at + 1 < len(moments) and position > moments[self._at].end:
            self._at += 1
        return moments[self._at]

    def write(self, dice: random.Random, modes: dict[str, str]) -> None:
        """Write the image of each machine; the admin's files are there."""
        shutil.rmtree(self.root, ignore_errors=True)
        for machine, mode in modes.items():
            folder = os.path.join(self.root, machine)
            os.makedirs(folder)
            self.replay.write(machine, folder, dice, mode)
        self._move_pool_sets()

    def _move_pool_sets(self) -> None:
        """A pool set file names its parts by absolute paths, and these have moved."""
        for machine in MACHINES:
            folder = os.path.join(self.root, machine)
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                if not name.endswith(".set"):
                    continue
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read()
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text.replace(self.script.root + "/", self.root + "/"))

    def here(self) -> str:
        """Return the path of the local copy in the image."""
        return os.path.join(self.root, HERE, os.path.basename(self.script.path))

    def there(self) -> str:
        """Return what names the replica in the image."""
        return f"local:{os.path.join(self.root, THERE)} r.set"

    # --- one image ----------------------------------------------------------------------------

    def check(self, position: int, seed: int, *, opened: bool = True) -> None:
        """Look at one image of a cut at a position.

        Parameters
        ----------
        position : int
            Not before that of the call before.
        seed : int
            Decides what the cut leaves, and how it is looked at.
        opened : bool
            By the real code, from files; else its catalogue and arrays are read, many times faster.
        """
        self.replay.advance(position)
        moment = self.moment(position)
        dice = random.Random(f"{seed}/{position}")
        here = moment.options(HERE, position)
        there = moment.options(THERE, position)
        if not opened:
            self._read(moment, position, dice)
            return
        kinds = ["here"] * 5
        if any(option is not None for option in there):
            kinds += ["there"] * 5 + ["restore"]
        if None not in here and None not in there and self.script.replicated:
            kinds += ["pair"] * 2
        kind = dice.choice(kinds)
        cut = dice.choice(("torn", "torn", "torn", "lost"))
        modes = {HERE: cut, THERE: cut}
        if kind in ("here", "there") and moment.what != "restore":
            modes = {kind: cut}
        elif kind in ("pair", "restore") and dice.random() < 0.4:
            modes[dice.choice(MACHINES)] = "kept"
        self.counts[kind] += 1
        self.write(dice, modes)
        where = f"{moment.what}, {kind} at event {position} of {moment.begin}..{moment.end}"
        try:
            match kind:
                case "here":
                    self._look_here(here, where, moment)
                case "there":
                    self._look_there(there, where, moment, position)
                case "restore":
                    self._restore(there, where, moment, position)
                case "pair":
                    self._pair(here, there, where)
        except RpmemError as error:
            raise Loss(f"{where}: {type(error).__name__}: {error}") from error

    def _read(self, moment: Moment, position: int, dice: random.Random) -> None:
        """Read an image of each machine, past all that is tested."""
        parts = {HERE: _FIRST_PARTS, THERE: ("r.set.part0",)}
        records: list[CopyRecord] = []
        for machine in MACHINES:
            options = moment.options(machine, position)
            if not any(options):
                continue
            mode = dice.choice(("torn", "torn", "torn", "lost"))
            images = [self.replay.look(machine, name, dice, mode, _MOST) for name in parts[machine]]
            image = next((each for each in images if each is not None), None)
            where = f"{moment.what}, {machine} at event {position} of {moment.begin}..{moment.end}"
            self.counts[f"{machine}, read"] += 1
            try:
                if image is None:
                    raise CatalogueCorrupt("there is no file")
                syncing = machine == THERE and moment.syncing and position < moment.end
                if syncing and _joining(image):
                    self.counts["a mixture"] += 1
                    continue
                pool = PoolImage.parse(image)
            except CatalogueCorrupt as error:
                if None in options:
                    continue
                raise Loss(f"{where}: {error}") from error
            check_words(options, pool.arrays(), where)
            records.append(pool.record)
            if len(records) > 1 and relation(records[1], records[0]) not in _CONTAINED:
                raise Loss(f"{where}: it holds what the local copy lacks: {records}")
            closed = machine == HERE and moment.what == "close" and position == moment.end
            if closed and pool.record.mark is not Mark.CLEAN:
                raise Loss(f"{where}: closed, and it says {pool.record}")

    def _look_here(self, options: Sequence[Promise | None], where: str, moment: Moment) -> None:
        try:
            pool = rpmem.Pool.open(self.here(), [])
        except _INCOMPLETE as error:
            if None not in options:
                raise
            self.counts[f"{moment.what}: {type(error).__name__}"] += 1
            self._begin_again(options, moment)
            return
        with pool:
            if not any(options):
                raise Loss(f"{where}: there is a pool")
            check_words(options, contents(pool), where)
            found = contents(pool)
            after = self._use(pool, found)
        with rpmem.Pool.open(self.here(), [], readonly=True) as pool:
            check_words([after], contents(pool), f"{where}, and then reopened")

    def _begin_again(self, options: Sequence[Promise | None], moment: Moment) -> None:
        """After an interruption that leaves no pool it can be made anew."""
        if moment.what == "restore":
            with rpmem.Pool.restore(self.here(), self.there(), nlanes=1) as pool:
                check_words(moment.options(THERE, moment.end), contents(pool), "restored again")
            return
        if os.listdir(os.path.join(self.root, HERE)):
            with suppress(PoolSetNotFound):
                FilePlace(self.here()).remove(force=True)
        size = None if self.here().endswith(".set") else SIZE
        with rpmem.Pool.create(self.here(), size) as pool:
            if pool.names():
                raise Loss("a new pool has arrays")

    def _use(self, pool: rpmem.Pool, found: dict[str, Words]) -> Promise:
        """Go on: change something, persist it, and return what must be there then."""
        promise = Promise({name: [words] for name, words in found.items()})
        view = pool.array("more", 64, "u8")
        if "more" not in found and view.any():
            raise Loss("a new array is not zero")
        view[:] = 7
        pool.persist(view)
        promise.arrays["more"] = [np.full(64, 7, np.uint64)]
        return promise

    def _allow(self, error: RpmemError, options: Sequence[Promise | None], moment: Moment) -> None:
        """Count that there is no pool, if there may be none."""
        if None not in options:
            raise error
        self.counts[f"{moment.what}: {type(error).__name__}"] += 1

    def _look_there(
        self, options: Sequence[Promise | None], where: str, moment: Moment, position: int
    ) -> None:
        if moment.syncing and position < moment.end and is_mixture(self.root):
            self.counts["a mixture"] += 1
            return
        try:
            pool = rpmem.Pool.open(self._parts_there(), [])
        except _INCOMPLETE as error:
            self._allow(error, options, moment)
            return
        with pool:
            if not any(options):
                raise Loss(f"{where}: there is a pool")
            check_words(options, contents(pool), where)

    def _restore(
        self, options: Sequence[Promise | None], where: str, moment: Moment, position: int
    ) -> None:
        path = os.path.join(self.root, "restored.pool")
        try:
            pool = rpmem.Pool.restore(path, self.there(), nlanes=1)
        except StaleReplica:
            if not (moment.syncing and position < moment.end):
                raise
            self.counts["a mixture"] += 1
            return
        except _INCOMPLETE as error:
            self._allow(error, options, moment)
            return
        with pool:
            check_words(options, contents(pool), where)

    def _pair(
        self, here: Sequence[Promise | None], there: Sequence[Promise | None], where: str
    ) -> None:
        with rpmem.Pool.open(self.here(), self.there(), nlanes=1) as pool:
            found = contents(pool)
            check_words(here, found, where)
            theirs = {name: pool.read(pool[name]) for name in found}
            # What was stored and never persisted is not sent from a copy that was closed.
            same = Promise({name: [words] for name, words in found.items()})
            check_words([same, *there], theirs, f"{where}: replica")
            kept = (found, theirs)
            after = self._use(pool, found)
        records = []
        for path, had in zip((self.here(), self._parts_there()), kept, strict=True):
            with rpmem.Pool.open(path, [], readonly=True) as pool:
                records.append(pool.record)
                promise = Promise({**after.arrays, **{n: [w] for n, w in had.items()}})
                promise.arrays["more"] = after.arrays["more"]
                check_words([promise], contents(pool), f"{where}: {path} afterwards")
        if any(each.mark is not Mark.CLEAN or each.epoch != records[0].epoch for each in records):
            raise Loss(f"{where}: closed as {records}")

    def _parts_there(self) -> str:
        return os.path.join(self.root, THERE, "r.set")


def is_mixture(root: str) -> bool:
    """Whether the replica in an image says that it is one."""
    try:
        image = image_of(Path(root, THERE, "r.set"))
        return _joining(image)
    except (*_INCOMPLETE, OSError):
        return False


def _joining(image: bytes) -> bool:
    record = record_in(image)
    return record is not None and record.mark is Mark.JOINING
