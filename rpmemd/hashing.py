"""What a pool holds, in digests: for an initiator that compares it with another copy."""

from __future__ import annotations

from typing import NamedTuple

from rpmem.control.messages import Digest
from rpmem.errors import RangeError
from rpmem.files.beneath import read_beneath
from rpmem.files.poolfiles import PoolFiles


class Hashed(NamedTuple):
    """Digests of a range; `deep`: of what its medium has, which is not the memory."""

    digests: bytes
    deep: bool = False


def digests_of(pool: PoolFiles, request: Digest, *, floor: int, size: int) -> Hashed:
    """Make a range durable, and return digests of its units.

    A page that is found equal is not sent, and counts as durable from then on. But that two copies
    show the same says nothing of what their media hold: what the writer before stored here may
    never have been flushed.

    Parameters
    ----------
    pool : PoolFiles
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

    offset, length = request.offset, request.length
    if offset < floor or offset + length > size:
        raise RangeError(
            f"no digests are taken of {length} bytes at {offset}: those that an "
            f"initiator may read are {floor} to {size}"
        )
    pool.region.persist(offset, length)
    beneath = read_beneath(pool, offset, length) if request.deep else None
    if beneath is None:
        return Hashed(unit_digests(pool.region, offset, length, request.unit, request.key))
    with beneath.region as region:
        found = unit_digests(region, beneath.begin, length, request.unit, request.key)
    return Hashed(found, deep=True)
