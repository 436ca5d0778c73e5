"""Digests of the same range, which this side and the target take at the same time."""

from __future__ import annotations

from rpmem.control.messages import Digest
from rpmem.memory.region import Region
from rpmem.session.channel import Channel


def both_digests(region: Region, channel: Channel, request: Digest) -> tuple[bytes, bytes]:
    """Return the digests that a request asks for: those of the region, and the target's."""
    from rpmem.memory.changes.unit_digests import unit_digests

    mine: list[bytes] = []

    def meanwhile() -> None:
        wanted = request.offset, request.length, request.unit, request.key
        mine.append(unit_digests(region, *wanted))

    theirs = channel.digests(request, meanwhile)
    return mine[0], theirs
