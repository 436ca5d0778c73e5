"""What an opened pool has shown is never gone at a later recovery, whoever is killed in between.

A program in a forked process stores numbers that only grow, with and without persisting, and ends
its pool in each way; it is killed at random moments, many of them while the pool ends. Then the
pool is opened again, or the local copy is lost and restored from one of its replicas, which lie on
the shadow medium, where the end of a process is a power cut. What an open pool shows has to be at
least what was acknowledged, and what was shown before; after an end that returned it has to be all
that was stored. What views store after that must not be seen.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rpmem
from rpmem.errors import PoolSetBusy
from rpmem.pool.copies import Copies
from tests.support import faulty_rpmemd
from tests.support.media import PoolImage, image_of, wait_unlocked
from tests.support.pools import OWN
from tests.support.powercut.model import Loss

SIZE = 4 << 20
#: Numbers, a page apart, so that pages change one by one; and some that share a page.
SPREAD, DENSE = 200, 56
COUNT = SPREAD + DENSE
_STRIDE = 512
LENGTH = SPREAD * _STRIDE + DENSE
REPLICAS = ("one", "two")
#: What views store after the end.
_JUNK = np.uint64(1 << 40)
_HANGS_S = 90.0
_LATE_S = 0.03
_LOST = 7


class Journal:
    """What the program says, in memory that outlives it."""

    #: How far it is; a bit for each replica that has all it says; 1 once an end has returned.
    STAGE, ATTACHED, ENDED, ACTS = range(4)
    OPENING, SHOWN, ENDING, OVER = range(4)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 64 + 16 * COUNT)
        numbers = np.frombuffer(self._memory, np.uint64, 2 * COUNT, 64)
        #: The least and the most that may be shown.
        self.least, self.most = numbers[:COUNT], numbers[COUNT:]

    def __getitem__(self, field: int) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * field)[0])

    def __setitem__(self, field: int, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * field, value)


PLACES = np.concatenate([np.arange(SPREAD) * _STRIDE, SPREAD * _STRIDE + np.arange(DENSE)])


class World:
    """The files of all copies.

    Parameters
    ----------
    root : Path
        An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.here = root / "here.pool"
        self.root = root
        for each in REPLICAS:
            (root / each).mkdir()
        self.session: Any = {"nlanes": 1, "timeout": 20.0, "command": faulty_rpmemd.command()}

    def spec(self, replica: str) -> str:
        """Return what names a replica."""
        return f"local:{self.root / replica} r.set"

    def set_of(self, replica: str) -> Path:
        """Return its pool set file."""
        return self.root / replica / "r.set"

    def create(self) -> None:
        """Make the pool and its copies."""
        specs = [rpmem.ReplicaSpec.parse(self.spec(each)) for each in REPLICAS]
        with rpmem.Pool.create(self.here, SIZE, specs, parts=1, **self.session) as pool:
            pool.array("n", LENGTH, "u8")


class Program:
    """Uses the pool until it is killed.

    Parameters
    ----------
    world : World
    journal : Journal
    seed : int
    source : str or None
        The replica to restore from.
    """

    def __init__(self, world: World, journal: Journal, seed: int, source: str | None) -> None:
        self.world = world
        self.journal = journal
        self.dice = random.Random(seed)
        self.source = source

    def run(self) -> None:
        """Go on for ever."""
        while True:
            self.journal[Journal.STAGE] = Journal.OPENING
            pool = self._opened()
            views = [pool["n"]]
            self._compare(views[0][PLACES])
            self.journal[Journal.ENDED] = 0
            self.journal[Journal.STAGE] = Journal.SHOWN
            for _ in range(self.dice.randrange(12)):
                self._act(pool, views[0])
                self.journal[Journal.ACTS] += 1
            self.journal[Journal.STAGE] = Journal.ENDING
            if self.dice.random() < 0.5:
                views.clear()
                pool.close()
            else:
                with pool:
                    pass
            self.journal[Journal.ENDED] = 1
            self.journal[Journal.STAGE] = Journal.OVER
            while views:
                views.pop()[PLACES] = _JUNK

    def _opened(self) -> rpmem.Pool:
        tracking = self.dice.choice(("auto", "digest", "off"))
        deadline = time.monotonic() + _HANGS_S
        while True:
            try:
                return self._once(tracking)
            except PoolSetBusy:
                # The target of one that was killed is still about to notice.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _once(self, tracking: str) -> rpmem.Pool:
        world, every = self.world, (1 << len(REPLICAS)) - 1
        if self.source is None:
            specs = [world.spec(each) for each in REPLICAS]
            pool = rpmem.Pool.open(world.here, specs, tracking=tracking, **world.session)
            self.journal[Journal.ATTACHED] = every
            return pool
        specs = [world.spec(each) for each in REPLICAS]
        only = world.spec(self.source)
        others = [each for each in specs if each != only]
        how: Any = {"tracking": tracking, **world.session}
        if self.dice.random() < 0.5:
            pool = rpmem.Pool.restore(world.here, [only, *others], **how)
        else:
            pool = rpmem.Pool.restore(world.here, only, lost=others, **how)
            self.journal[Journal.ATTACHED] = 1 << REPLICAS.index(self.source)
            for each in others:
                pool.attach(each)
        self.source = None
        self.journal[Journal.ATTACHED] = every
        return pool

    def _compare(self, shown: NDArray[np.uint64]) -> None:
        """Check what is shown, which has to stay from now on."""
        journal = self.journal
        least = journal.most if journal[Journal.ENDED] else journal.least
        if (shown < least).any() or (shown > journal.most).any():
            bad = np.flatnonzero((shown < least) | (shown > journal.most))[:5]
            raise Loss(f"numbers {bad}: {least[bad]} <= {shown[bad]} <= {journal.most[bad]}")
        # In this order: whoever is killed in between has promised no more than there is.
        journal.most[:] = shown
        journal.least[:] = shown

    def _act(self, pool: rpmem.Pool, view: Any) -> None:
        """Store, and perhaps persist."""
        first = self.dice.randrange(COUNT)
        some = np.arange(first, min(first + self.dice.choice((1, 3, 40)), COUNT))
        numbers = self.journal.most[some] + np.uint64(1)
        self.journal.most[some] = numbers
        view[PLACES[some]] = numbers
        act = self.dice.random()
        if act < 0.25:
            pool.persist_many([view[at : at + 1] for at in PLACES[some]])
            self.journal.least[some] = numbers
        elif act < 0.4:
            numbers = self.journal.most.copy()
            pool.persist()
            self.journal.least[:] = numbers
        elif act < 0.5:
            pool.flush(view[PLACES[some[0]] : PLACES[some[-1]] + 1])
            if self.dice.random() < 0.5:
                pool.drain()
                self.journal.least[some] = numbers


# --- whoever kills -----------------------------------------------------------------------------


def run(
    root: Path, seed: int, kills: int, *, broken: Callable[[], None] = lambda: None
) -> Counter[str]:
    """Kill so often; raise `Loss` where something is gone.

    Parameters
    ----------
    root : Path
        An empty folder.
    seed : int
        Of the moments, as far as they can be chosen.
    kills : int
        How often.
    broken : callable
        Called in the program before it begins: breaks something, for controls.
    """
    dice, counts, world, journal = random.Random(seed), Counter[str](), World(root), Journal()
    world.create()
    journal[Journal.ATTACHED] = (1 << len(REPLICAS)) - 1
    for life in range(kills):
        source = _lost(world, journal, dice, counts)
        journal[Journal.STAGE] = Journal.OPENING
        program = Program(world, journal, seed << 20 | life, source)
        pid = _forked(program, broken)
        status = _killed(pid, journal, dice, counts)
        if os.WIFEXITED(status):
            lost = os.WEXITSTATUS(status) == _LOST
            what = "something shown is gone" if lost else "the program ended by itself"
            raise (Loss if lost else RuntimeError)(f"seed {seed}, life {life}: {what}")
        try:
            _look_at_files(world, counts)
        except Loss as loss:
            raise Loss(f"seed {seed}, life {life}: {loss}") from loss
    counts["shown"] = int(journal.least.sum())
    return counts


def _lost(world: World, journal: Journal, dice: random.Random, counts: Counter[str]) -> str | None:
    """Lose the local copy, now and then; return the replica to restore from."""
    if world.here.exists() and dice.random() < 0.6:
        return None
    world.here.unlink(missing_ok=True)
    counts["restored"] += 1
    if journal[Journal.ENDED]:
        counts["restored after an end"] += 1
    return dice.choice(
        [each for bit, each in enumerate(REPLICAS) if journal[Journal.ATTACHED] >> bit & 1]
    )


def _forked(program: Program, broken: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        broken()
        program.run()
    except Loss as loss:
        print(loss, file=sys.stderr, flush=True)
        os._exit(_LOST)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _killed(pid: int, journal: Journal, dice: random.Random, counts: Counter[str]) -> int:
    """Kill the program at some moment of some stage; return its status."""
    stage = dice.choice((Journal.OPENING, Journal.SHOWN, Journal.ENDING, Journal.ENDING))
    stage = Journal.OVER if dice.random() < 0.2 else stage
    try:
        _await(lambda: journal[Journal.STAGE] == stage, pid)
        end = time.perf_counter() + dice.choice((0.0, 1e-4, 1e-3, _LATE_S)) * dice.random()
        if stage == Journal.OPENING:
            end += dice.random() * 0.2
        while time.perf_counter() < end:
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    counts["kills"] += 1
    counts[("opening", "using", "ending", "ended")[journal[Journal.STAGE]]] += 1
    return status


def _await(met: Callable[[], bool], pid: int) -> None:
    deadline = time.monotonic() + _HANGS_S
    while not met():
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        if time.monotonic() > deadline:
            raise TimeoutError("a program hangs")
        time.sleep(0.0002)


def _look_at_files(world: World, counts: Counter[str]) -> None:
    """Clean copies of one epoch have the same bytes."""
    for each in REPLICAS:
        wait_unlocked(world.set_of(each))
    paths = [world.set_of(each) for each in REPLICAS]
    paths += [world.here] if world.here.exists() else []
    images = [PoolImage.parse(image_of(path)) for path in paths]
    clean: dict[bytes, list[bytes]] = {}
    for image in images:
        if image.record.mark.name == "CLEAN":
            clean.setdefault(image.record.epoch.identity, []).append(image.image[OWN:SIZE])
    for found in clean.values():
        counts["clean together"] += len(found) > 1
        if any(each != found[0] for each in found):
            raise Loss("copies that are clean in one epoch differ")


def unsettled() -> None:
    """A control: copies are marked as they are."""

    def nothing(copies: Any, *_: Any) -> Any:
        return copies._intact()

    Copies._settled = nothing  # type: ignore[method-assign]


def main() -> int:
    """Kill as often as told: FOLDER SEED KILLS."""
    print(dict(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
