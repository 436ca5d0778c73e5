"""Copies stay equal, or it is known where they differ, whoever dies and whatever is cut off.

An initiator in a forked process stores, with and without persisting, lets replicas go and takes
them back, compares them and mends flipped bits, closes and opens the pool with some or all of them.
Initiator and targets are killed at random moments, or the network between them is cut. After each
death of an initiator the files of all copies are read and compared. Then, now and then, the local
copy is lost and restored from those that are left, or all are brought up to date.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import rpmem
from rpmem.epochs.record import Mark
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import PoolSetBusy, RpmemError
from tests.support import killing
from tests.support.equal_world import REPLICAS, STILL, Journal, World, rounds_of, words_of
from tests.support.media import PoolImage, image_of, wait_unlocked
from tests.support.powercut.model import Loss


class Initiator:
    """Uses the pool until it is killed."""

    def __init__(self, world: World, journal: Journal, seed: int) -> None:
        self.world = world
        self.journal = journal
        self.dice = random.Random(seed)
        self.tracking = self.dice.choice(("auto", "digest", "off"))
        self.pool = self._open()

    def _open(self) -> rpmem.Pool:
        deadline = time.monotonic() + killing.HANGS_S
        while True:
            named = self.dice.choice((REPLICAS, REPLICAS, REPLICAS[:1], REPLICAS[1:], ()))
            specs = [self.world.spec(each) for each in named]
            try:
                pool = rpmem.Pool.open(
                    self.world.here, specs, tracking=self.tracking, **self.world.session
                )
                break
            except PoolSetBusy:
                # The target of one who was killed is still about to notice.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            except (rpmem.LaunchError, rpmem.ReplicaLost, rpmem.DeadlineExceeded):
                # The network may be cut until something else is done.
                if time.monotonic() > deadline:
                    raise
                self.journal[Journal.ACTS] += 1
        self.journal.tell(pool)
        # What is shown from here on has to stay.
        self.journal[Journal.SHOWN] = min(rounds_of(pool["loose"]))
        return pool

    def run(self) -> None:
        """Go on for ever."""
        self.journal[Journal.READY] = 1
        acts = [
            (30, self._keep),
            (10, self._persist),
            (10, self._drain),
            (12, self._store),
            (8, self._detach),
            (12, self._attach),
            (8, self._reopen),
            (10, self._mend),
        ]
        while True:
            (act,) = self.dice.choices([act for _, act in acts], [weight for weight, _ in acts])
            try:
                act()
            except RpmemError as error:
                if not any(each.failure is not None for each in self.pool.replicas):
                    if not isinstance(
                        error,
                        PoolSetBusy
                        | rpmem.LaunchError
                        | rpmem.ReplicaLost
                        | rpmem.DeadlineExceeded
                        | rpmem.FabricError,
                    ):
                        raise
                else:
                    killing.give_up(self.pool)
            self.journal.tell(self.pool)
            self.journal[Journal.ACTS] += 1

    # --- acts -----------------------------------------------------------------------------

    def _round(self) -> int:
        number = self.journal[Journal.STORED] + 1
        self.journal[Journal.STORED] = number
        self.pool["kept"][:] = words_of(number)
        return number

    def _keep(self) -> None:
        number = self._round()
        self.pool.persist(self.pool["kept"])
        self.journal[Journal.ACKNOWLEDGED] = number

    def _persist(self) -> None:
        # The one that is said to be stored may have been cut off.
        number, loose = self._round(), min(rounds_of(self.pool["loose"]))
        self.pool.persist()
        self.journal[Journal.ACKNOWLEDGED] = number
        self.journal[Journal.LOOSE_ACKNOWLEDGED] = loose

    def _drain(self) -> None:
        number = self._round()
        self.pool.flush(self.pool["kept"])
        self.pool.drain()
        self.journal[Journal.ACKNOWLEDGED] = number

    def _store(self) -> None:
        number = self.journal[Journal.LOOSE] + 1
        self.journal[Journal.LOOSE] = number
        self.pool["loose"][:] = words_of(number)

    def _detach(self) -> None:
        if self.pool.replicas:
            self.pool.detach(self.dice.randrange(len(self.pool.replicas)))

    def _attach(self) -> None:
        there = {each.pool_set for each in self.pool.replicas}
        for each in REPLICAS:
            if f"{each}.set" not in there:
                self.pool.attach(self.world.spec(each))
                return

    def _reopen(self) -> None:
        self.pool.close()
        self.journal[Journal.READY] = 2
        self.pool = self._open()
        self.journal[Journal.READY] = 1

    def _mend(self) -> None:
        """Flip a bit on a replica; have it found and mended."""
        for index, replica in enumerate(self.pool.replicas):
            each = replica.pool_set.partition(".")[0]
            if replica.failure is not None:
                continue
            byte = self.dice.randrange(8 * STILL)
            self.journal[self.journal.flipped(each)] = 1
            self.world.flip(each, byte)
            report = self.pool.verify(repair=index)
            if not report.repaired:
                raise Loss(f"a flipped bit of {each} was not found: {report}")
            if self.world.is_flipped(each, byte):
                raise Loss(f"a flipped bit of {each} was not mended: {report}")
            self.journal[self.journal.flipped(each)] = 0
            return


# --- whoever kills -----------------------------------------------------------------------------


def run(
    fast: Path,
    disk: Path,
    seed: int,
    moments: int,
    *,
    lies: bool = False,
) -> Counter[str]:
    """Kill and cut so often, and look after each death of an initiator; raise `Loss`.

    Parameters
    ----------
    fast, disk : Path
        Empty folders, of a tmpfs and of a disk.
    seed : int
        Of the moments, as far as they can be chosen.
    moments : int
        Kills and cuts together.
    lies : bool
        A control: more is claimed than was acknowledged.
    """
    dice, counts, journal = random.Random(seed), Counter[str](), Journal()
    world = World(fast, disk)
    try:
        world.make()
        life = 0
        while counts["moments"] < moments:
            life += 1
            journal[Journal.READY] = 0
            user = killing.forked(lambda: Initiator(world, journal, seed << 20 | life).run())  # noqa: B023
            _harass(user, world, journal, dice, counts)
            if lies:
                journal[Journal.ACKNOWLEDGED] += 1
            try:
                world.check(journal, counts)
                _between(world, journal, dice, counts)
            except Loss as loss:
                raise Loss(f"seed {seed}, life {life}: {loss}") from loss
    finally:
        world.close()
    counts["lives"] = life
    counts["acknowledged"] = journal[Journal.ACKNOWLEDGED]
    return counts


def _harass(
    user: int, world: World, journal: Journal, dice: random.Random, counts: Counter[str]
) -> None:
    """Kill targets, cut the network, and at last kill the initiator."""
    try:
        if dice.random() < 0.15:
            time.sleep(dice.random() * 1.0)
            counts["while opening"] += not journal[Journal.READY]
        else:
            journal.wait(lambda: journal[Journal.READY] > 0, user)
            for _ in range(dice.randrange(6)):
                journal.go_on(dice, user, 5)
                if world.node is not None and dice.random() < 0.1:
                    world.node.cut()
                    journal.go_on(dice, user, 5)
                    world.node.heal()
                    counts["cuts"] += 1
                    counts["moments"] += 1
                    continue
                target = journal[dice.choice((Journal.ONE, Journal.TWO))]
                if target and killing.is_rpmemd(target):
                    os.kill(target, signal.SIGKILL)
                    counts["moments"] += 1
                    counts["targets"] += 1
            journal.go_on(dice, user, 5)
    finally:
        os.kill(user, signal.SIGKILL)
        status = os.waitpid(user, 0)[1]
        if world.node is not None:
            world.node.heal()
    counts["moments"] += 1
    counts["initiators"] += 1
    if status != signal.SIGKILL:
        raise Loss(f"the initiator ended by itself, {status:#x}")


def _between(world: World, journal: Journal, dice: random.Random, counts: Counter[str]) -> None:
    """Lose the local copy, or bring the others up to date, now and then."""
    here = PoolImage.parse(image_of(world.here))
    same = []
    for each in REPLICAS:
        there = PoolImage.parse(image_of(world.set_of(each)))
        found = relation(there.record, here.record)
        if found is Relation.SAME and there.record.complete and not journal[journal.flipped(each)]:
            same.append(each)
    dice.shuffle(same)
    if same and dice.random() < 0.12:
        world.here.unlink()
        killed = dice.random() < 0.3
        if killed:
            user = killing.forked(lambda: _restore(world, journal, same))
            time.sleep(dice.random() * 0.5)
            os.kill(user, signal.SIGKILL)
            os.waitpid(user, 0)
            counts["moments"] += 1
            counts["restores killed"] += 1
            for each in REPLICAS:
                wait_unlocked(world.set_of(each), 60.0)
        if not world.here.exists():
            _restore(world, journal, same)
            counts["restored"] += 1
    elif dice.random() < 0.1:
        _sync(world)
        counts["synced"] += 1
        for each in REPLICAS:
            if PoolImage.parse(image_of(world.set_of(each))).record.mark is not Mark.CLEAN:
                raise Loss(f"{each} was brought up to date, and is not clean")
        world.check(journal, counts)


def _restore(world: World, journal: Journal, replicas: list[str]) -> None:
    specs = [world.spec(each) for each in replicas]
    away = [world.spec(each) for each in REPLICAS if each not in replicas]
    with rpmem.Pool.restore(world.here, specs, lost=away, **world.session) as pool:
        least = max(journal[Journal.LOOSE_ACKNOWLEDGED], journal[Journal.SHOWN])
        for name, floor in (("kept", journal[Journal.ACKNOWLEDGED]), ("loose", least)):
            found = rounds_of(pool[name])
            if min(found) < floor:
                raise Loss(f"the restored copy has {name} of the rounds {found}, not {floor}")


def _sync(world: World) -> None:
    specs = [word for each in REPLICAS for word in world.spec(each).split()]
    command = [sys.executable, "-P", "-m", "rpmem.cli", "sync", str(world.here), *specs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Loss(f"sync failed: {done.stdout}{done.stderr}")


def main() -> int:
    """Run one chain: folder of a tmpfs, folder of a disk, seed, moments."""
    fast, disk, seed, moments = sys.argv[1:]
    begun = time.monotonic()
    for each in (fast, disk):
        Path(each).mkdir(parents=True, exist_ok=True)
    counts = run(Path(fast), Path(disk), int(seed), int(moments))
    counts["seconds"] = round(time.monotonic() - begun)
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
