"""What a pool is, for those who only look: the local copy, or one on a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Unpack

from rpmem.base import interrupts, logs
from rpmem.base.pool_format import RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import codec
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.epochs.state import state_of
from rpmem.errors import CatalogueCorrupt, HeaderError
from rpmem.files.attributes import SIGNATURE, PoolAttributes
from rpmem.files.locks import undisturbed
from rpmem.pool import resync
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.catalogue.entries import Entry
from rpmem.pool.local import place_of
from rpmem.pool.options import ReplicaLike, replica_spec
from rpmem.pool.pool import Pool
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, Layout
from rpmem.session.looking import Looking, LookKeywords

#: Bytes that are read of a copy on a target to find out what it is.
MOST_READ: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Facts:
    """What one copy of a pool is.

    Parameters
    ----------
    where : str
        As the user named it.
    pool_id : bytes or None
        The ``poolset_uuid`` of all its copies; None where the local copy has no header.
    size, free : int
        Bytes of the pool, and those that arrays can still take.
    medium : str
        What the copy is stored on.
    record : CopyRecord
        What the copy records of itself and the others.
    in_use : bool
        Whether a process has this copy open for writing.
    entries : mapping of str to Entry
        The arrays by name, in the order of their creation.
    """

    where: str
    pool_id: bytes | None
    size: int
    free: int
    medium: str
    record: CopyRecord
    in_use: bool
    entries: Mapping[str, Entry]

    @property
    def state(self) -> str:
        """``in-use``, ``clean``, ``not-closed``, ``left`` or ``joining``."""
        return state_of(self.record, in_use=self.in_use)


def facts_of(pool: Pool) -> Facts:
    """Return the facts about a pool that is open.

    Parameters
    ----------
    pool : Pool
        Also one that was opened with ``readonly=True``.
    """
    return Facts(
        where=pool.where,
        pool_id=None if pool.attributes is None else pool.attributes.poolset_uuid,
        size=pool.size,
        free=pool.free,
        medium=pool.medium,
        record=pool.record,
        in_use=pool.has_writer,
        entries={name: pool.entry(name) for name in pool.names()},
    )


def look(replica: ReplicaLike, **reach: Unpack[LookKeywords]) -> Facts:
    """Look at a copy on a target, beside whoever uses it; nothing is locked or changed there.

    Parameters
    ----------
    replica : replica
        As for `Pool.open`.
    **reach
        ``launcher``, ``command``, ``timeout`` and ``protocol``, as for `Pool.open`.

    Raises
    ------
    VersionMismatch
        The target runs PMDK's rpmemd, or an older one: they show nothing without opening it.
    HeaderError
        It is not a pool of rpmem, or one of another format.
    CatalogueCorrupt
        It is damaged, or has no record: its creation was interrupted.
    PoolSetError, LaunchError, ReplicaLost, DeadlineExceeded
        It is not there, or cannot be reached.
    """
    spec = replica_spec(replica)
    named = str(spec)

    def work() -> Facts:
        with logs.call(f"look {named}"), Looking(spec.target, **reach) as looking:
            seen = looking.look(spec.pool_set)
            attributes = None
            if seen.attributes is not None:
                attributes = PoolAttributes.unpack(seen.attributes)
            _check_header(attributes, named)
            return undisturbed(
                lambda: _read(looking, seen.medium, attributes, named), lambda: looking.in_use
            )

    return interrupts.guarded(work)


def look_anywhere(
    where: str, pool_set: str | None, **reach: Unpack[LookKeywords]
) -> tuple[Facts, list[str]]:
    """Look at the pool LOCAL, or at its copy NAME.set on a TARGET.

    Parameters
    ----------
    where : str
        A local pool, or a target.
    pool_set : str or None
        The name of a pool set on that target.
    **reach
        As for `look`.

    Returns
    -------
    (Facts, list of str)
        And the ``REPLICA`` lines of a local pool set file.
    """
    if pool_set is not None:
        return look((where, pool_set), **reach), []
    replicas = [str(spec) for spec in place_of(where).replicas]
    with Pool.open(where, readonly=True) as pool:
        return facts_of(pool), replicas


def _read(looking: Looking, medium: str, attributes: PoolAttributes | None, named: str) -> Facts:
    """Read record, superblock and catalogue; a writer may be changing them."""
    source = _Bounded(looking, named)
    superblock = source.load(LAYOUT_OFFSET, LAYOUT_SIZE)
    layout = Layout.unpack(superblock, where=named, to_look=True)
    if attributes is not None and attributes.poolset_uuid != layout.pool_id:
        raise HeaderError("header and superblock belong to different pools", where=named)
    area = source.load(RECORD_OFFSET, RECORD_SIZE)
    found = codec.read(area, pool_id=layout.pool_id, where=named)
    if found is None:
        raise CatalogueCorrupt(
            "the copy has no record of its epoch",
            where=named,
            hint="Its creation is going on, or was interrupted",
        )
    record = found.record
    clean = found.settled and record.mark is Mark.CLEAN and not looking.in_use
    catalogue = Catalogue.read(source, layout, clean=clean, where=named)
    return Facts(
        where=named,
        pool_id=layout.pool_id,
        size=layout.pool_size,
        free=catalogue.free,
        medium=medium,
        record=record,
        in_use=looking.in_use,
        entries=catalogue.entries,
    )


def _check_header(attributes: PoolAttributes | None, named: str) -> None:
    resync.check_format(attributes, named)
    if attributes is not None and attributes.signature != SIGNATURE:
        raise HeaderError(
            f"it is no pool of rpmem.Pool: its signature is {attributes.signature!r}",
            where=named,
            hint="Only pools that rpmem.Pool made have epochs and names",
        )


class _Bounded:
    """A source that does not read for ever what a target invents.

    Parameters
    ----------
    looking : Looking
        Shows the pool.
    named : str
        What errors name.
    """

    def __init__(self, looking: Looking, named: str) -> None:
        self._looking = looking
        self._named = named
        self._left = MOST_READ

    def load(self, offset: int, length: int) -> bytes:
        """Return bytes of the pool."""
        self._left -= length
        if self._left < 0:
            raise CatalogueCorrupt(
                f"the catalogue has more than {MOST_READ} bytes", where=self._named
            )
        return self._looking.load(offset, length)
