"""A pool with two replicas, whose initiator and targets are killed while its copies come and go.

The initiator is a forked process that persists one round after the other, lets replicas go, takes
them back, closes and opens the pool. A target or the initiator dies at a random moment. After each
death of an initiator the files of all copies are read: what was acknowledged is in every copy that
says it has it, and clean copies of one epoch are equal. Then disks are lost, and copies are used
alone, so that the next initiator has to restore, or to name who is discarded.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.epochs.record import Mark
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import PoolSetBusy, RpmemError, SplitBrain, StaleReplica
from tests.support import killing
from tests.support.media import PoolImage, image_of, wait_unlocked
from tests.support.pools import OWN
from tests.support.powercut.model import Loss

SIZE = 2 << 20
WORDS = 3000
REPLICAS = ("one", "two")
#: In the rounds of whoever used a copy alone.
ALONE = 1 << 30
_SESSION: Any = {"nlanes": 1, "timeout": 20.0}


class Journal(killing.Journal):
    """What the initiator says: rounds stored and acknowledged, and whether the pool is closed."""

    STORED, ACKNOWLEDGED, CLOSED = range(killing.Journal.MORE, killing.Journal.MORE + 3)


class Copies:
    """The files of all copies.

    Parameters
    ----------
    root : Path
        An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.here = root / "here.pool"
        for each in REPLICAS:
            (root / each).mkdir()

    def spec(self, replica: str) -> str:
        """Return what names a replica."""
        return f"local:{self.root / replica} r.set"

    def set_of(self, replica: str) -> Path:
        """Return the pool set file of a replica."""
        return self.root / replica / "r.set"


def words_of(number: int) -> Any:
    """Return what is stored in a round."""
    return np.arange(WORDS, dtype=np.uint64) | np.uint64(number << 32)


# --- the initiator -----------------------------------------------------------------------------


class Initiator:
    """Uses the pool until it is killed."""

    def __init__(self, copies: Copies, journal: Journal, seed: int) -> None:
        self.copies = copies
        self.journal = journal
        self.dice = random.Random(seed)
        self.pool = self._open()

    def _open(self) -> rpmem.Pool:
        discard: list[str] = []
        deadline = time.monotonic() + killing.HANGS_S
        specs = [self.copies.spec(each) for each in REPLICAS]
        while True:
            try:
                pool = rpmem.Pool.open(self.copies.here, specs, discard=discard, **_SESSION)
            except (SplitBrain, StaleReplica) as error:
                named = [each for each in specs if str(error).startswith(each)]
                if not named or named[0] in discard:
                    raise
                discard += named
            except PoolSetBusy:
                # The target of one who was killed is still about to notice.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                self.journal.tell(pool)
                return pool

    def run(self) -> None:
        """Go on for ever."""
        view = self.pool["kept"]
        self.journal[Journal.READY] = 1
        while True:
            try:
                act = self.dice.random()
                if act < 0.8:
                    number = self.journal[Journal.STORED] + 1
                    self.journal[Journal.STORED] = number
                    view[:] = words_of(number)
                    self.pool.persist(view)
                    self.journal[Journal.ACKNOWLEDGED] = number
                elif act < 0.88 and self.pool.replicas:
                    self.pool.detach(self.dice.randrange(len(self.pool.replicas)))
                elif act < 0.97:
                    self._attach()
                else:
                    del view
                    self._close()
                    self.pool = self._open()
                    self.journal[Journal.CLOSED] = 0
                    view = self.pool["kept"]
            except (RpmemError, BufferError) as error:
                if not any(each.failure is not None for each in self.pool.replicas):
                    if isinstance(error, (PoolSetBusy, rpmem.LaunchError, rpmem.ReplicaLost)):
                        continue
                    raise
                killing.give_up(self.pool)
            self.journal.tell(self.pool)
            self.journal[Journal.ACTS] += 1

    def _attach(self) -> None:
        there = {str(each.target).rpartition("/")[2] for each in self.pool.replicas}
        for each in REPLICAS:
            if each not in there:
                self.pool.attach(self.copies.spec(each))
                return

    def _close(self) -> None:
        self.pool.close()
        self.journal[Journal.CLOSED] = 1


# --- whoever kills -----------------------------------------------------------------------------


def run(root: Path, seed: int, kills: int, *, lies: bool = False) -> Counter[str]:
    """Kill so often, and look after each death of an initiator; raise `Loss`.

    Parameters
    ----------
    root : Path
        An empty folder.
    seed : int
        Of the moments, as far as they can be chosen.
    kills : int
        Of initiators and targets together.
    lies : bool
        A control: more is claimed than was acknowledged.
    """
    dice, counts = random.Random(seed), Counter[str]()
    copies, journal = Copies(root), Journal()
    specs = [rpmem.ReplicaSpec.parse(copies.spec(each)) for each in REPLICAS]
    with rpmem.Pool.create(copies.here, SIZE, specs, parts=1, **_SESSION) as pool:
        pool.array("kept", WORDS, "u8")[:] = words_of(0)
        pool.persist()
    life = 0
    while counts["kills"] < kills:
        life += 1
        journal[Journal.READY] = journal[Journal.CLOSED] = 0
        user = killing.forked(lambda: Initiator(copies, journal, seed << 20 | life).run())  # noqa: B023
        _harass(user, journal, dice, counts)
        claimed = journal[Journal.ACKNOWLEDGED] + lies
        try:
            _check(copies, claimed, journal[Journal.STORED], counts)
            _between(copies, journal, dice, counts)
        except Loss as loss:
            raise Loss(f"seed {seed}, life {life}: {loss}") from loss
    counts["lives"] = life
    counts["acknowledged"] = journal[Journal.ACKNOWLEDGED]
    return counts


def _harass(user: int, journal: Journal, dice: random.Random, counts: Counter[str]) -> None:
    """Kill targets, and at last the initiator."""
    try:
        if dice.random() < 0.15:
            time.sleep(dice.random() * 0.4)
            counts["while opening"] += not journal[Journal.READY]
        else:
            journal.wait(lambda: journal[Journal.READY] == 1, user)
            for _ in range(dice.randrange(5)):
                journal.go_on(dice, user, 6)
                target = journal[dice.choice((Journal.ONE, Journal.TWO))]
                if target and killing.is_rpmemd(target):
                    os.kill(target, signal.SIGKILL)
                    counts["kills"] += 1
                    counts["targets"] += 1
            journal.go_on(dice, user, 6)
    finally:
        os.kill(user, signal.SIGKILL)
        status = os.waitpid(user, 0)[1]
    counts["kills"] += 1
    counts["initiators"] += 1
    if status != signal.SIGKILL:
        raise Loss(f"the initiator ended by itself, {status:#x}")


def _rounds(image: PoolImage) -> set[int]:
    words = image.arrays()["kept"]
    if not np.array_equal(words & np.uint64((1 << 32) - 1), np.arange(WORDS)):
        raise Loss("words are none that were ever stored")
    return {int(word) >> 32 for word in np.unique(words >> np.uint64(32) << np.uint64(32))}


def _check(copies: Copies, acknowledged: int, stored: int, counts: Counter[str]) -> None:
    """Compare what the copies hold with what was promised."""
    for each in REPLICAS:
        wait_unlocked(copies.set_of(each))
    here = PoolImage.parse(image_of(copies.here))
    _check_rounds("the local copy", _rounds(here), acknowledged, stored)
    for each in REPLICAS:
        there = PoolImage.parse(image_of(copies.set_of(each)))
        found = relation(there.record, here.record)
        counts[f"{found.value}, {there.record.mark.name}"] += 1
        if there.record.mark is Mark.JOINING:
            continue
        if found is Relation.SAME:
            _check_rounds(each, _rounds(there), acknowledged, stored)
        if found is Relation.AHEAD:
            raise Loss(f"{each} is ahead of the copy that it came from")
        both = {here.record.mark, there.record.mark}
        if found is Relation.SAME and both == {Mark.CLEAN}:
            counts["equal"] += 1
            if here.image[OWN:SIZE] != there.image[OWN:SIZE]:
                raise Loss(f"{each} is clean and same, and differs")


def _check_rounds(what: str, found: set[int], acknowledged: int, stored: int) -> None:
    if not all(acknowledged <= each <= stored for each in found):
        raise Loss(f"{what} has words of the rounds {sorted(found)}, not {acknowledged}..{stored}")


def _between(copies: Copies, journal: Journal, dice: random.Random, counts: Counter[str]) -> None:
    """Lose the disk of the local copy, or let somebody use a copy alone, now and then."""
    here = PoolImage.parse(image_of(copies.here))
    for each in REPLICAS:
        there = PoolImage.parse(image_of(copies.set_of(each)))
        same = relation(there.record, here.record) is Relation.SAME and there.record.complete
        if same and dice.random() < 0.1:
            copies.here.unlink()
            lost = [copies.spec(other) for other in REPLICAS if other != each]
            with rpmem.Pool.restore(copies.here, copies.spec(each), lost=lost, **_SESSION) as pool:
                number = {int(word) >> 32 for word in pool["kept"]}
                _check_rounds("the restored copy", number, *_promised(journal))
                pool.persist()
            counts["restored"] += 1
            return
        if same and dice.random() < 0.08:
            for path, number in (
                (copies.set_of(each), ALONE + journal[Journal.STORED]),
                (copies.here, journal[Journal.STORED]),
            ):
                with rpmem.Pool.open(path, []) as pool:
                    pool["kept"][:] = words_of(number)
                    pool.persist()
            journal[Journal.ACKNOWLEDGED] = journal[Journal.STORED]
            counts["split"] += 1
            return


def _promised(journal: Journal) -> tuple[int, int]:
    return journal[Journal.ACKNOWLEDGED], journal[Journal.STORED]


def main() -> int:
    """Run one chain: folder, seed, kills."""
    folder, seed, kills = sys.argv[1:]
    root = Path(folder)
    root.mkdir(exist_ok=True)
    begun = time.monotonic()
    counts = run(root, int(seed), int(kills))
    counts["seconds"] = round(time.monotonic() - begun)
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
