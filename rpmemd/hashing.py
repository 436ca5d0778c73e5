"""What a pool holds, in digests: for an initiator that compares it with another copy."""

from __future__ import annotations

from rpmem.control.messages import Digest
from rpmem.errors import RangeError
from rpmem.memory.region import Region


def digests_of(region: Region, request: Digest, *, floor: int, size: int) -> bytes:
    """Make a range durable, and return digests of its units.

    A page that is found equal is not sent, and counts as durable from then on. But that two copies
    show the same says nothing of what their media hold: what the writer before stored here may
    never have been flushed.

    Parameters
    ----------
    region : Region
        The pool.
    request : Digest
        Which range, which units, and the key.
    floor, size : int
        Where what an initiator may read begins and ends.

    Raises
    ------
    RangeError
        The range is not between them.
    FlushFailed
        The medium refused, now or before.
    """
    from rpmem.memory.changes.unit_digests import unit_digests

    if request.offset < floor or request.offset + request.length > size:
        raise RangeError(
            f"no digests are taken of {request.length} bytes at {request.offset}: those that an "
            f"initiator may read are {floor} to {size}"
        )
    region.persist(request.offset, request.length)
    return unit_digests(region, request.offset, request.length, request.unit, request.key)
