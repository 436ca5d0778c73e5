"""Whether a replica belongs to a pool, and how it is sent what it lacks of the local copy."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rpmem.errors import CatalogueCorrupt, HeaderError, RpmemError
from rpmem.files.attributes import SIGNATURE
from rpmem.pool.differences import BLOCK, Differences
from rpmem.pool.progress import Progress, chunks, parts, quiet, within
from rpmem.pool.superblock import (
    FORMAT,
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SLOTS_OFFSET,
    Layout,
    other_format,
)
from rpmem.pool.tracking.ways import pairs_of

if TYPE_CHECKING:
    from rpmem.files.attributes import PoolAttributes
    from rpmem.memory.changes.pageset import PageSet
    from rpmem.memory.region import Region
    from rpmem.session.replica import Replica

log = logging.getLogger(__name__)

_KEY_SIZE: Final = 32


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


def push(
    replica: Replica,
    layout: Layout,
    progress: Progress = quiet,
    *,
    strict: bool = False,
    missed: PageSet | None = None,
) -> None:
    """Make a replica equal to the local copy in everything that was made durable.

    It is sent the pages that it has missed, where that is known; else those whose digests differ,
    where its target takes digests; and else everything.

    Parameters
    ----------
    replica : Replica
        Connected, and not yet part of the pool's `Replicator`. Its record says what it is
        meanwhile.
    layout : Layout
        The local superblock.
    progress : callable
        Told what is done.
    strict : bool
        The replica counts as a copy meanwhile: of what differs, each word is an old or a new one
        whenever this ends. A replica that is sent everything is sent it relaxed in any case.
    missed : PageSet, optional
        What the replica has missed: all other pages it has, durably.

    Notes
    -----
    Pages that are equal are durable on the replica like those that are sent: its target makes a
    range durable before it says what the range holds.

    While a copy is attached, other threads may store to the memory. What they store is not
    persisted, as persisting waits, so nothing is promised of it, be it sent or not. It is sent by
    the call that persists it: one that names it sends it whatever happened, and one that looks for
    changes finds a store to the page after the call before it, no matter what was compared
    meanwhile. Bytes that nobody stores to meanwhile have been read as they are, and so are equal
    on both sides afterwards, whatever happens to others in their page.
    """
    if missed is not None:
        _send_missed(replica, layout, missed, progress, strict=strict)
    elif replica.compares:
        what = f"{name_of(replica)}: comparing, and sending what differs"
        log.info("%s", what)
        sent = send_differences(
            replica,
            SLOTS_OFFSET,
            layout.pool_size,
            lambda ranges: replica.persist_many(ranges, relaxed=not strict),
            what=what,
            progress=progress,
        )
        log.info("%s: sent %d of %d bytes", name_of(replica), sent, layout.pool_size)
    else:
        what = f"{name_of(replica)}: sending the whole pool"
        log.info("%s", what)
        for begin, length in chunks(SLOTS_OFFSET, layout.pool_size, what, progress):
            replica.persist(begin, length, relaxed=True)
    # With what stands behind the superblock.
    replica.persist(LAYOUT_OFFSET, SLOTS_OFFSET - LAYOUT_OFFSET)


def _send_missed(
    replica: Replica, layout: Layout, missed: PageSet, progress: Progress, *, strict: bool
) -> None:
    """Send the pages that a copy has missed, but of long runs only what differs.

    A call that names much marks all of it, whether it was stored to or not.
    """
    what = f"{name_of(replica)}: sending what it has missed"
    runs = pairs_of(missed.ranges(SLOTS_OFFSET, layout.pool_size - SLOTS_OFFSET))
    long = runs[:, 1] >= (BLOCK if replica.compares else layout.pool_size)
    total = int(runs[:, 1].sum())
    log.info("%s: %d bytes", what, total)
    progress(0, total, what)

    def persist(ranges: Any) -> None:
        replica.persist_many(ranges, relaxed=not strict)

    sent = 0
    for some in parts(runs[~long], what, within(progress, 0, total)):
        persist(some)
        sent += int(some[:, 1].sum())
    done = sent
    for offset, length in runs[long].tolist():
        told = within(progress, done, total)
        end = offset + length
        sent += send_differences(replica, offset, end, persist, what=what, progress=told)
        done += length
    log.info("%s: sent %d of %d bytes", name_of(replica), sent, layout.pool_size)


def send_differences(
    replica: Replica,
    begin: int,
    end: int,
    persist: Callable[[Sequence[tuple[int, int]]], None],
    *,
    what: str,
    progress: Progress = quiet,
    memory: Region | None = None,
) -> int:
    """Compare piece by piece, and send what differs of one while the next is compared.

    Parameters
    ----------
    replica : Replica
        What to compare with.
    begin, end : int
        What to compare.
    persist : callable
        Sends ranges.
    what : str
        What is being done, for `progress`.
    progress : callable
        Told what is done.
    memory : Region, optional
        The local copy, if that is not the memory that the replica sends from.

    Returns
    -------
    int
        Bytes that were sent.
    """
    key = os.urandom(_KEY_SIZE)
    ranges: list[tuple[int, int]] = []
    failed: list[RpmemError] = []
    sent = 0

    def send() -> None:
        nonlocal sent
        if ranges:
            persist(ranges)
        sent += sum(length for _, length in ranges)
        ranges.clear()

    def besides() -> None:
        # The answer of the target that compares has to be taken, whichever failed.
        try:
            send()
        except RpmemError as error:
            failed.append(error)

    many = False
    for first, length in chunks(begin, end, what, progress):
        differences = Differences(first, length, by_pages=many)
        while (asked := differences.question) is not None:
            try:
                mine, theirs = replica.digests(asked, key, besides, memory=memory)
            except RpmemError as error:
                # It may not have been noticed on its lanes yet.
                if replica.failure is None:
                    replica.on_failure(error)
                raise
            if failed:
                raise failed[0]
            ranges += differences.take(mine, theirs)
        many = differences.many
        if first + length == end:
            send()
    return sent
