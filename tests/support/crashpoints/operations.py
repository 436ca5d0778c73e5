"""Changes of a pool's copies, each after what has to come before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.crashpoints.world import HERE, ONE, TWO, World

Act = Callable[[World], None]


@dataclass(frozen=True)
class Operation:
    """One change.

    Parameters
    ----------
    name : str
    prepare, act : callable
        What comes before it; and it.
    joins : tuple of str
        Machines that may be a mixture meanwhile.
    apart : bool
        Copies may go separate ways, so that somebody has to be named to be overwritten.
    """

    name: str
    prepare: Act
    act: Act
    joins: tuple[str, ...] = ()
    apart: bool = False


def nothing(world: World) -> None:
    """Nothing is there yet."""


def in_use(world: World) -> None:
    """A pool with two replicas is open, with words in every state."""
    world.create(ONE, TWO)
    world.arrays()
    world.persist()
    world.leave_loose()
    world.flush()


def closed(world: World) -> None:
    """The same was closed."""
    world.create(ONE, TWO)
    world.arrays()
    world.persist()
    world.close()


def unclean(world: World) -> None:
    """Its writer died."""
    in_use(world)
    world.die()


def left_alone(world: World) -> None:
    """The second replica left, and the writer died before it said so anywhere else."""
    in_use(world)
    world.leave(TWO)
    world.die()


def others_clean(world: World) -> None:
    """Both replicas were closed, and the local copy is an image of before that."""
    in_use(world)
    world.persist()
    world.die(clean=(ONE, TWO))


def behind(world: World) -> None:
    """It was used without the second replica since."""
    closed(world)
    world.open(ONE)
    world.persist()
    world.close()


def without_two(world: World) -> None:
    """A pool with one replica is open."""
    world.create(ONE)
    world.arrays()
    world.persist()
    world.flush()


def two_left(world: World) -> None:
    """The second replica was detached, and the pool used since."""
    in_use(world)
    world.detach(TWO)
    world.persist()
    world.flush()


def two_lost(world: World) -> None:
    """The second replica died."""
    in_use(world)
    world.kill(TWO)


def split(world: World) -> None:
    """The local copy and the second replica went separate ways."""
    closed(world)
    world.open(ONE)
    world.persist()
    world.close()
    world.restore(TWO)
    world.persist()
    world.close()
    world.here = HERE


def split_in_use(world: World) -> None:
    """The same, and the local copy is open with the first replica."""
    split(world)
    world.open(ONE)
    world.persist()


OPERATIONS = (
    Operation("create", nothing, lambda world: world.create(ONE, TWO), joins=(ONE, TWO)),
    Operation("open, all equal", closed, lambda world: world.open(ONE, TWO)),
    Operation(
        "open, put back",
        others_clean,
        lambda world: world.open(ONE, TWO, discard=(ONE, TWO)),
        joins=(ONE, TWO),
        apart=True,
    ),
    Operation("open, one had left", left_alone, lambda world: world.open(ONE, TWO)),
    Operation("open, not closed", unclean, lambda world: world.open(ONE, TWO)),
    Operation(
        "open, one behind",
        behind,
        lambda world: world.open(ONE, TWO),
        joins=(TWO,),
        apart=True,
    ),
    Operation("open without one", closed, lambda world: world.open(ONE), apart=True),
    Operation(
        "open, discard",
        split,
        lambda world: world.open(ONE, TWO, discard=(TWO,)),
        joins=(TWO,),
        apart=True,
    ),
    Operation(
        "attach, create",
        without_two,
        lambda world: world.attach(TWO, create=True),
        joins=(TWO,),
    ),
    Operation(
        "attach, come back",
        two_left,
        lambda world: world.attach(TWO),
        joins=(TWO,),
        apart=True,
    ),
    Operation(
        "attach, discard",
        split_in_use,
        lambda world: world.attach(TWO, discard=True),
        joins=(TWO,),
        apart=True,
    ),
    Operation("detach", in_use, lambda world: world.detach(TWO), apart=True),
    Operation("detach, lost", two_lost, lambda world: world.detach(TWO), apart=True),
    # The old local copy and a replica that was restored from may part.
    Operation("restore", unclean, lambda world: world.restore(ONE), apart=True),
    Operation("close", in_use, lambda world: world.close()),
)
