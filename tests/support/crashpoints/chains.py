"""Random operations on a pool with two replicas, cut off at random moments."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

from rpmem.errors import SplitBrain, StaleReplica
from tests.support.crashpoints.cuts import MEDIA, Cutter, Figures, noting
from tests.support.crashpoints.operations import Operation, nothing
from tests.support.crashpoints.world import (
    FLUSHED,
    HERE,
    LOOSE,
    MACHINES,
    NEW,
    ONE,
    REPLICAS,
    TWO,
    World,
    messages,
)
from tests.support.powercut.model import Loss
from tests.support.powercut.recorder import Event, Recorder, recording
from tests.support.powercut.runs import SHM
from tests.support.powercut.target import targets_are_threads


class Script:
    """Operations drawn by seed.

    Parameters
    ----------
    world : World
    dice : Random

    """

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.dice = dice
        #: Replicas that have everything acknowledged, as long as no other copy goes on.
        self.whole: list[str] = []

    def run(self, steps: int) -> None:
        """Make a pool, and do so many things with it."""
        self._do(lambda: self.world.create(ONE, TWO))
        self._do(self.world.arrays)
        for _ in range(steps):
            self.dice.choice(self._choices())()
        if self.world.pool is not None:
            self._do(self.world.close)

    def _do(self, act: Callable[[], None]) -> None:
        act()
        if self.world.pool is not None:
            self.whole = list(self.world.attached)

    def _choices(self) -> list[Callable[[], None]]:
        world = self.world
        if world.pool is None:
            found = [self._open] * 4
            if world.here == HERE and self.whole:
                found.append(self._restore)
            return found
        found = [self._persist] * 4 + [self._flush, self._loose, self._close, self._die]
        found += [self._detach] * (2 * bool(world.attached))
        found += [self._attach] * (2 * (len(world.attached) < len(REPLICAS)))
        return found

    def _persist(self) -> None:
        self._do(lambda: self.world.persist(self.dice.choice(("kept", FLUSHED, LOOSE))))

    def _flush(self) -> None:
        self._do(self.world.flush)

    def _loose(self) -> None:
        self._do(self.world.leave_loose)

    def _close(self) -> None:
        self._do(self.world.close)

    def _die(self) -> None:
        self._do(self.world.die)

    def _detach(self) -> None:
        replica = self.dice.choice(self.world.attached)
        self._do(lambda: self.world.detach(replica))

    def _attach(self) -> None:
        replica = self.dice.choice([each for each in REPLICAS if each not in self.world.attached])
        try:
            self._do(lambda: self.world.attach(replica))
        except (SplitBrain, StaleReplica):
            self._do(lambda: self.world.attach(replica, discard=True))

    def _open(self) -> None:
        members = [each for each in REPLICAS if self.dice.random() < 0.7]
        try:
            self._do(lambda: self.world.open(*members))
        except (SplitBrain, StaleReplica):
            self._do(lambda: self.world.open(*members, discard=tuple(members)))

    def _restore(self) -> None:
        replica = self.dice.choice(self.whole)
        self._do(lambda: self.world.restore(replica))


def run(
    seed: int,
    *,
    steps: int = 14,
    images: int = 40,
    skips: Callable[[Event], bool] = lambda event: False,
    figures: Figures | None = None,
) -> Figures:
    """Run a script, and cut it at random moments; raise `Loss`.

    Parameters
    ----------
    seed : int
        Of everything.
    steps, images : int
        Operations, and cuts.
    skips : callable
        A medium that lies, see `Recorder`.
    figures : Figures, optional
        To be added to.
    """
    found = Figures() if figures is None else figures
    dice = random.Random(f"copies {seed}")
    folder = tempfile.mkdtemp(prefix="rpmem-chains-", dir=SHM)
    root = os.path.join(folder, "0")
    for machine in MACHINES:
        os.makedirs(os.path.join(root, machine))
    media = {HERE: MEDIA[seed % 2], NEW: MEDIA[seed % 2], ONE: "page", TWO: "pmem"}
    recorder = Recorder(root, MACHINES, medium=media.__getitem__, skips=skips)
    try:
        with targets_are_threads(), ExitStack() as stack:
            script = Script(World(root, recorder), dice)
            with recording(recorder), messages(root, noting(recorder)):
                stack.callback(script.world.abandon)
                script.run(steps)
            last = script.world.moments[-1][0].end
            first = script.world.moments[0][0].begin
            positions = sorted(dice.randint(first, last) for _ in range(images))
            _cut(script, recorder, os.path.join(folder, "image"), positions, dice, found)
    except Loss as loss:
        raise Loss(f"copies, seed {seed}: {loss}") from loss
    finally:
        recorder.close()
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _cut(
    script: Script,
    recorder: Recorder,
    root: str,
    positions: list[int],
    dice: random.Random,
    figures: Figures,
) -> None:
    at = 0
    replays = None
    for position in positions:
        while at + 1 < len(script.world.moments) and position > script.world.moments[at][0].end:
            at += 1
        moment, here = script.world.moments[at]
        joins = REPLICAS if moment.what in ("open", "attach", "create") else ()
        operation = Operation(moment.what, nothing, nothing, joins=joins, apart=True)
        cutter = Cutter(operation, moment, recorder, root, here, replays)
        cutter.cut_once(position, dice, figures)
        replays = cutter.replays
