"""A target dies at every control message of an operation, while its initiator lives and goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rpmem.errors import RpmemError
from tests.support.crashpoints.cuts import Figures
from tests.support.crashpoints.looks import Look
from tests.support.crashpoints.operations import Operation
from tests.support.crashpoints.world import MACHINES, REPLICAS, World, messages, set_of
from tests.support.media import wait_unlocked
from tests.support.powercut.model import Loss
from tests.support.powercut.runs import SHM
from tests.support.powercut.target import Died, targets_are_threads


def run(operation: Operation, seed: int, *, one_in: int = 1, figures: Figures) -> None:
    """Let each replica die at each of its messages, before it carries it out and before it answers.

    Parameters
    ----------
    operation : Operation
    seed : int
        Which of them, where not all.
    one_in : int
        Try one in so many.
    figures : Figures
        To be added to.
    """
    for replica in REPLICAS:
        for phase in ("met", "done"):
            for number in itertools.count(seed % one_in, one_in):
                if not _die_at(operation, replica, phase, number, figures):
                    break


def _die_at(
    operation: Operation, replica: str, phase: str, number: int, figures: Figures
) -> str | None:
    """Let a replica die at the message of that number; return which one it was, if any."""
    folder = tempfile.mkdtemp(prefix="rpmem-deaths-", dir=SHM)
    for machine in MACHINES:
        os.makedirs(os.path.join(folder, machine))
    met: list[str] = []
    at: list[str] = []
    acting = False

    def note(machine: str, how: str, what: str) -> None:
        if not acting or (machine, how) != (replica, phase):
            return
        met.append(what)
        if len(met) == number + 1:
            at.append(what)
            raise Died

    try:
        with targets_are_threads(), ExitStack() as stack, messages(folder, note):
            world = World(folder)
            stack.callback(world.abandon)
            operation.prepare(world)
            acting = True
            outcome = _act(operation, world)
            acting = False
            if not at:
                return None
            where = f"{operation.name}, {replica} dies at {number}, {phase} {at[0]}: {outcome}"
            if outcome == "done" and world.pool is not None:
                _persist(world, replica, where)
            world.abandon()
            for each in REPLICAS:
                if os.path.exists(set_of(folder, each)):
                    wait_unlocked(Path(set_of(folder, each)))
            figures.points[operation.name, replica, f"dies, {phase} {at[0]}"] += 1
            figures.looks[f"{operation.name}: a target died, {outcome}"] += 1
            look = Look(operation, world.moment, folder, where, figures.looks, here=world.here)
            try:
                look.check_same()
                look.open_all()
            except (RpmemError, OSError) as error:
                raise Loss(f"{where}: {type(error).__name__}: {error}") from error
            return at[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _act(operation: Operation, world: World) -> str:
    """Do it; return how it ended."""
    try:
        operation.act(world)
    except RpmemError as error:
        if not error.where:
            raise Loss(f"{operation.name}: the error does not say where: {error!r}") from error
        return type(error).__name__
    return "done"


def _persist(world: World, replica: str, where: str) -> None:
    """Go on: a replica that died must not count as one that has everything."""
    try:
        world.persist()
    except RpmemError:
        return
    if replica in world.attached:
        raise Loss(f"{where}: and persist returned as if nothing had happened")
