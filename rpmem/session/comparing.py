"""Digests of the same range, which this side and the target take at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from rpmem.control.messages import DEEP, Digest
from rpmem.memory.region import Region
from rpmem.session.channel import Channel

#: Offset and length of a range, and the size of its units.
Asked: TypeAlias = tuple[int, int, int]
#: Something else that is to be done.
Besides: TypeAlias = Callable[[], None]


class Answer(NamedTuple):
    """Digests of the target's copy; `deep`: of what its medium has, which is not its memory."""

    digests: bytes
    deep: bool


class There(Protocol):
    """Asks the target: `rpmem.Replica.digests_there`."""

    def __call__(self, asked: Asked, key: bytes, besides: Besides, *, deep: bool) -> Answer:
        """Return digests of the target's copy."""


def ask(channel: Channel, asked: Asked, key: bytes, besides: Besides, *, deep: bool) -> Answer:
    """Ask for digests, and do something else meanwhile.

    A target that cannot read past its cache is asked for what it shows.
    """
    offset, length, unit = asked
    deep = deep and DEEP in channel.features
    request = Digest(offset=offset, length=length, unit=unit, key=key, deep=deep)
    taken = channel.digests(request, besides)
    return Answer(taken.digests, taken.deep)


def both_digests(
    region: Region, there: There, asked: Asked, key: bytes, besides: Besides
) -> tuple[bytes, bytes]:
    """Return digests of the units of a range: those of the region, and the target's.

    What is to be done besides is done while the target is at it, too.
    """
    offset, length, unit = asked
    from rpmem.memory.changes.unit_digests import unit_digests

    mine: list[bytes] = []

    def meanwhile() -> None:
        mine.append(unit_digests(region, offset, length, unit, key))
        besides()

    theirs = there(asked, key, meanwhile, deep=False)
    return mine[0], theirs.digests
