"""Whether a replica belongs to a pool, and how it is sent everything that the local copy holds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rpmem.errors import CatalogueCorrupt, HeaderError
from rpmem.files.attributes import SIGNATURE
from rpmem.pool.progress import Progress, chunks, quiet
from rpmem.pool.superblock import (
    FORMAT,
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SLOTS_OFFSET,
    Layout,
    other_format,
)

if TYPE_CHECKING:
    from rpmem.files.attributes import PoolAttributes
    from rpmem.session.replica import Replica

log = logging.getLogger(__name__)


def name_of(replica: Replica) -> str:
    """Return the user's name for the replica."""
    return f"{replica.target} {replica.pool_set}"


def layout_of(replica: Replica) -> Layout | None:
    """Read the superblock of a replica; None if it is missing or damaged."""
    superblock = bytearray(LAYOUT_SIZE)
    replica.read(superblock, LAYOUT_OFFSET)
    try:
        return Layout.unpack(bytes(superblock), where=name_of(replica))
    except CatalogueCorrupt as error:
        log.info("%s", error)
        return None


def check_format(attributes: PoolAttributes | None, where: str) -> None:
    """Raise `HeaderError` when a header is that of a pool in another version of our format."""
    if attributes is not None and attributes.signature == SIGNATURE and attributes.major != FORMAT:
        raise other_format(attributes.major, where)


def check_identity(replica: Replica, found: Layout | None, layout: Layout) -> None:
    """Raise `HeaderError` unless the replica's header and superblock belong to this pool.

    They have to be of this version's format, too.
    """
    attributes = replica.attributes
    check_format(attributes, name_of(replica))
    ids = {"header": attributes.poolset_uuid} if attributes is not None else {}
    if found is not None:
        ids["superblock"] = found.pool_id
    for place, pool_id in ids.items():
        if pool_id != layout.pool_id:
            raise HeaderError(
                f"the {place} belongs to another pool (poolset_uuid {pool_id.hex()}, "
                f"this pool has {layout.pool_id.hex()})",
                where=name_of(replica),
                hint="Name the pool set that was created with this pool",
            )


def push(replica: Replica, layout: Layout, progress: Progress = quiet) -> None:
    """Send everything that all copies have in common from the local copy to a replica.

    Parameters
    ----------
    replica : Replica
        Connected, and not yet part of the pool's `Replicator`. Its record says what it is
        meanwhile.
    layout : Layout
        The local superblock.
    progress : callable
        Told what is done.
    """
    what = f"{name_of(replica)}: sending the whole pool"
    log.info("%s", what)
    for begin, length in chunks(SLOTS_OFFSET, layout.pool_size, what, progress):
        replica.persist(begin, length, relaxed=True)
    replica.persist(LAYOUT_OFFSET, LAYOUT_SIZE)
