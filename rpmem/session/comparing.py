"""Digests of the same range, which this side and the target take at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from rpmem.control.messages import Digest
from rpmem.memory.region import Region
from rpmem.session.channel import Channel

#: Offset and length of a range, and the size of its units.
Asked: TypeAlias = tuple[int, int, int]
#: Something else that is to be done.
Besides: TypeAlias = Callable[[], None]


def both_digests(
    region: Region, channel: Channel, asked: Asked, key: bytes, besides: Besides
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

    request = Digest(offset=offset, length=length, unit=unit, key=key)
    theirs = channel.digests(request, meanwhile)
    return mine[0], theirs
