"""Each operation cut off after every event; what is there then is opened by the real code.

A machine whose power goes keeps what was durable, and of the rest what a seed says. Where only the
initiator dies, all of it stays, and its targets still carry out what they were asked.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rpmem.errors import (
    RpmemError,
)
from tests.support.crashpoints.looks import Look
from tests.support.crashpoints.operations import OPERATIONS, Operation
from tests.support.crashpoints.world import (
    HERE,
    MACHINES,
    NEW,
    ONE,
    REPLICAS,
    TWO,
    Moment,
    World,
    messages,
)
from tests.support.powercut.images import Replay
from tests.support.powercut.model import Loss
from tests.support.powercut.recorder import Event, Recorder, recording
from tests.support.powercut.runs import SHM
from tests.support.powercut.target import targets_are_threads

STRICTEST = "power of all, nothing kept"
#: What cuts off what: the machines that lose power, of the seed's kind; all others stay.
CUTS: dict[str, tuple[str, ...]] = {
    "power of all": MACHINES,
    STRICTEST: MACHINES,
    "initiator": (),
    "initiator, targets go on": (),
    "power here": (HERE, NEW),
    "power of one": (ONE,),
    "power of two": (TWO,),
}
#: Of the local copy.
MEDIA = ("page", "pmem")


@dataclass
class Figures:
    """What was done.

    Parameters
    ----------
    points : Counter
        Events that were cut after, by operation, machine and kind.
    images : int
        Cuts that left something that was not seen before.
    looks : Counter
        What was tried with them, and what came of it.
    """

    points: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    images: int = 0
    looks: Counter[str] = field(default_factory=Counter)


def run(
    operation: Operation,
    seed: int,
    *,
    one_in: int = 1,
    all_looks: bool = False,
    medium: str = "page",
    skips: Callable[[Event], bool] = lambda event: False,
    figures: Figures | None = None,
) -> Figures:
    """Record an operation, cut it off everywhere, and look; raise `Loss`.

    Parameters
    ----------
    operation : Operation
    seed : int
        Decides what cuts leave, and how it is looked at.
    one_in : int
        Look at one cut in so many.
    all_looks : bool
        Look at each in every way, and not just in one that the seed says.
    medium : {"page", "pmem"}
        Of the local copy.
    skips : callable
        A medium that lies, see `Recorder`.
    figures : Figures, optional
        To be added to.
    """
    found = Figures() if figures is None else figures
    folder = tempfile.mkdtemp(prefix="rpmem-crash-", dir=SHM)
    root = os.path.join(folder, "0")
    for machine in MACHINES:
        os.makedirs(os.path.join(root, machine))
    media = {HERE: medium, NEW: medium, ONE: "page", TWO: "pmem"}
    recorder = Recorder(root, MACHINES, medium=media.__getitem__, skips=skips)
    try:
        with targets_are_threads(), ExitStack() as stack:
            world = World(root, recorder)
            with recording(recorder), messages(root, noting(recorder)):
                stack.callback(world.abandon)
                operation.prepare(world)
                recorder.look()
                operation.act(world)
                here = world.here
            cutter = Cutter(operation, world.moment, recorder, os.path.join(folder, "image"), here)
            cutter.cut_everywhere(seed, one_in, all_looks, found)
    except Loss as loss:
        raise Loss(f"{operation.name}, seed {seed}: {loss}") from loss
    finally:
        recorder.close()
        shutil.rmtree(folder, ignore_errors=True)
    return found


def noting(recorder: Recorder) -> Callable[[str, str, str], None]:
    """Return what notes messages among the other events."""

    def note(machine: str, how: str, what: str) -> None:
        with recorder._lock:
            recorder.look()
            recorder.events.append(("message", machine, how, what))

    return note


class Cutter:
    """Cuts one operation.

    Parameters
    ----------
    operation : Operation
    moment : Moment
        When it was.
    recorder : Recorder
        Finished.
    root : str
        Where images may be written.
    here : str
        The machine of the local copy, once it is over.
    replays : dict, optional
        Of each machine, if they have got somewhere already.
    """

    def __init__(
        self,
        operation: Operation,
        moment: Moment,
        recorder: Recorder,
        root: str,
        here: str,
        replays: dict[str, Replay] | None = None,
    ) -> None:
        self.operation = operation
        self.moment = moment
        self.root = root
        self.here = here
        self.recorder = recorder
        self.replays = replays or {machine: Replay(recorder) for machine in MACHINES}
        self._seen: set[tuple[str, bytes, bool]] = set()

    def cut_everywhere(self, seed: int, one_in: int, all_looks: bool, figures: Figures) -> None:
        """Cut after every event of the operation, and before the first."""
        replays = self.replays
        ahead = {machine: Replay(self.recorder) for machine in MACHINES}
        every = range(self.moment.begin, self.moment.end + 1)
        goes_on = self._goes_on()
        for position in every:
            if position > self.moment.begin:
                figures.points[self._point(self.recorder.events[position - 1])] += 1
            for machine in MACHINES:
                replays[machine].advance(position)
                ahead[machine].advance(goes_on[machine][position - self.moment.begin])
            for cut in CUTS:
                dice = random.Random(f"{seed}/{position}/{cut}")
                # What is promised once it is over is looked at in every way.
                last = position == self.moment.end and cut == STRICTEST
                if dice.randrange(one_in) and not last:
                    continue
                chosen = ahead if cut == "initiator, targets go on" else replays
                self._look(chosen, cut, position, dice, all_looks or last, figures)

    def cut_once(self, position: int, dice: random.Random, figures: Figures) -> None:
        """Cut at one position, not before that of the call before."""
        for replay in self.replays.values():
            replay.advance(position)
        self._look(self.replays, dice.choice(list(CUTS)), position, dice, False, figures)

    def _point(self, event: Event) -> tuple[str, str, str]:
        kind = event[0]
        if kind in ("name", "syncnames"):
            return self.operation.name, event[1], kind
        if kind == "message":
            return self.operation.name, event[1], f"{event[2]} {event[3]}"
        if kind == "mark":
            return self.operation.name, "", "over"
        if kind == "drain":
            return self.operation.name, TWO, kind
        number = event[2] if kind == "later" else event[1]
        return self.operation.name, self.recorder._homes[number], kind

    def _goes_on(self) -> dict[str, list[int]]:
        """Return how far each target gets by itself, for every position of a dead initiator."""
        events = self.recorder.events
        reached: dict[str, list[int]] = {}
        for machine in MACHINES:
            stops: list[int] = []
            upto = len(events)
            # From behind: a target that was asked something gets to where it is done.
            asked_until = None
            for position in range(len(events), -1, -1):
                stops.append(position if asked_until is None else asked_until)
                if position == 0:
                    break
                event = events[position - 1]
                if event[:2] == ("message", machine):
                    asked_until = None if event[2] == "sent" else asked_until
                    if event[2] == "done":
                        asked_until = position
            stops.reverse()
            assert upto + 1 == len(stops)
            reached[machine] = stops[self.moment.begin : self.moment.end + 1]
        for machine in (HERE, NEW):
            reached[machine] = list(range(self.moment.begin, self.moment.end + 1))
        return reached

    # --- one cut --------------------------------------------------------------------------

    def _look(
        self,
        replays: dict[str, Replay],
        cut: str,
        position: int,
        dice: random.Random,
        all_looks: bool,
        figures: Figures,
    ) -> None:
        mode = "lost" if cut == STRICTEST else dice.choice(("torn", "torn", "lost"))
        fate = dice.getrandbits(64)

        def write() -> None:
            self._write(replays, cut, mode, random.Random(fate))

        write()
        state = self._digest()
        ways = dict(self._ways())
        if not all_looks:
            name = dice.choice(list(ways))
            ways = {name: ways[name]} if dice.random() < 0.6 else {"all": ways["all"]}
        fresh = True
        for name, way in ways.items():
            ended = position >= self.moment.end
            if (name, state, ended) in self._seen:
                continue
            self._seen.add((name, state, ended))
            if not fresh:
                write()
            figures.images += fresh
            fresh = False
            where = f"{cut} ({mode}) after event {position}, {self._told(position)}; {name}"
            look = Look(
                self.operation,
                self.moment,
                self.root,
                where,
                figures.looks,
                here=self.here,
                position=position,
            )
            try:
                look.check_same()
                way(look)
            except (RpmemError, OSError) as error:
                raise Loss(f"{where}: {type(error).__name__}: {error}") from error

    def _told(self, position: int) -> str:
        return " ".join(self._point(self.recorder.events[position - 1])[1:])

    def _write(self, replays: dict[str, Replay], cut: str, mode: str, dice: random.Random) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        for machine in MACHINES:
            folder = os.path.join(self.root, machine)
            os.makedirs(folder)
            replays[machine].write(machine, folder, dice, mode if machine in CUTS[cut] else "kept")
        for path in Path(self.root).glob("*/*.set"):
            # A pool set file names its parts by absolute paths, and these have moved.
            text = path.read_text(errors="replace")
            path.write_text(text.replace(self.recorder.root + "/", self.root + "/"))

    def _digest(self) -> bytes:
        found = [
            f"{path.parent.name}/{path.name} {zlib.crc32(path.read_bytes()):x}"
            for path in sorted(Path(self.root).glob("*/*"))
        ]
        return " ".join(found).encode()

    def _ways(self) -> Iterator[tuple[str, Callable[[Look], None]]]:
        """Yield what can be tried."""
        yield "all", lambda look: look.open_all()
        for members in ((), (ONE,), (TWO,)):
            name = " and ".join(members) or "none"
            yield f"only with {name}", lambda look, members=members: look.open_some(members)
        for replica in REPLICAS:
            yield f"restore from {replica}", lambda look, replica=replica: look.restore(replica)


def run_all(seed: int, **how: Any) -> Figures:
    """Run all operations; the local copy is on the one medium or the other."""
    figures = Figures()
    for index, operation in enumerate(OPERATIONS):
        run(operation, seed, medium=MEDIA[(seed + index) % 2], figures=figures, **how)
    return figures
