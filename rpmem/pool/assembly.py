"""How the copies of a pool are put together: created, opened, or restored from a replica.

Each function returns an `Assembly` in which every replica equals the local copy, or raises and
leaves everything as it was: no new file here, and no new pool set on a target.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from rpmem.base import interrupts
from rpmem.base.pool_format import HEADER_SIZE
from rpmem.base.target import ReplicaSpec
from rpmem.base.values import replace
from rpmem.errors import (
    CatalogueCorrupt,
    HeaderError,
    PoolSetTooSmall,
    RpmemError,
    StaleReplica,
    UsageError,
)
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes, random_uuid
from rpmem.files.locks import undisturbed
from rpmem.memory.region import Region
from rpmem.pool import resync, stateword
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.local import FilePlace, LocalCopy, MemoryPlace, Place
from rpmem.pool.medium import PoolMedium
from rpmem.pool.superblock import (
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SMALLEST_POOL,
    Layout,
    Phase,
    State,
)
from rpmem.session import start as low_tier
from rpmem.session.options import SessionOptions
from rpmem.session.replica import Replica

log = logging.getLogger(__name__)


@dataclass
class Assembly:
    """A local copy and its connected replicas, all equal.

    Parameters
    ----------
    copy : LocalCopy
        Mapped and locked.
    layout, state : Layout, State
        Its superblock.
    replicas : list of Replica
        Connected.
    catalogue : Catalogue or None
        As it was read; None: it still has to be written.
    zeroed : bool
        All copies are new, and zero behind their headers.
    """

    copy: LocalCopy
    layout: Layout
    state: State
    replicas: list[Replica]
    catalogue: Catalogue | None = None
    zeroed: bool = False

    def undo(self, *, remove: bool) -> None:
        """Disconnect and unmap, and with `remove` remove what was created."""
        with interrupts.undoing():
            for replica in self.replicas:
                dismiss(replica, remove=remove)
            self.copy.close(remove=remove)

    def forsake(self) -> None:
        """Undo a restore: remove the local copy, unless it is the only one."""
        alone = any(replica.failure is not None for replica in self.replicas)
        with interrupts.undoing():
            for replica in self.replicas:
                dismiss(replica)
            self.copy.close(remove=not alone)


def create(
    place: Place,
    size: int | None,
    specs: Sequence[ReplicaSpec],
    options: SessionOptions,
    user_flags: bytes,
    mode: int,
) -> Assembly:
    """Make a new pool with all its copies; its catalogue still has to be formatted."""
    ring = _ring(1 + len(specs), place.incompat, user_flags)
    copy = place.create(size, ring[0], mode)
    replicas: list[Replica] = []
    try:
        layout = Layout.plan(copy.region.size, ring[0].poolset_uuid)
        replicas = _connect_all(specs, copy.region, layout.pool_size, options, ring[1:])
    except BaseException:
        with interrupts.undoing():
            copy.close(remove=True)
        raise
    zeroed = copy.zeroed and all(replica.zeroed for replica in replicas)
    return Assembly(copy, layout, State(1, Phase.OPEN), replicas, zeroed=zeroed)


def open_readonly(place: Place) -> Assembly:
    """Open only the local copy, read-only, even while another process writes to it."""
    copy = place.look()
    try:
        found = undisturbed(lambda: _read_superblock(copy, to_look=True), lambda: copy.has_writer)
    except BaseException:
        copy.close()
        raise
    return Assembly(copy, found.layout, found.state, [], found.catalogue)


def open_all(
    place: Place, specs: Sequence[ReplicaSpec], options: SessionOptions, *, force: bool
) -> Assembly:
    """Open the local copy and its replicas, and bring outdated replicas up to date."""
    copy = place.open()
    assembly: Assembly | None = None
    try:
        found = _read_superblock(copy)
        replicas = _connect_all(specs, copy.region, found.layout.pool_size, options)
        assembly = Assembly(copy, found.layout, found.state, replicas, found.catalogue)
        _agree(assembly, force=force)
    except BaseException:
        if assembly is None:
            copy.close()
        else:
            assembly.undo(remove=False)
        raise
    return assembly


def restore(
    place: Place, spec: ReplicaSpec, options: SessionOptions, *, force: bool, mode: int
) -> Assembly:
    """Make a new local copy from a replica, and keep that replica."""
    options = options.for_target(spec.target)
    attributes, layout, state = _examine(spec, options, force=force)
    if isinstance(place, FilePlace):
        copy: LocalCopy = place.create_hidden(
            layout.pool_size, _local_attributes(attributes, place), mode
        )
    elif isinstance(place, MemoryPlace):
        copy = place.create(None, _local_attributes(attributes, place), mode)
    else:
        raise UsageError("a pool is restored into a path or a buffer")
    assembly = Assembly(copy, layout, state, [])
    try:
        if copy.region.size < layout.pool_size:
            raise PoolSetTooSmall(
                f"the pool has {layout.pool_size} bytes, but there is room for only "
                f"{copy.region.size}",
                where=place.where,
            )
        assembly.replicas = _connect_all([spec], copy.region, layout.pool_size, options)
        _read_back(assembly)
        assembly.state = state.next()
        stateword.write(PoolMedium(copy.region), assembly.state)
        copy.publish()
    except BaseException:
        with interrupts.undoing():
            for replica in assembly.replicas:
                dismiss(replica)
            copy.close(remove=True)
        raise
    try:
        stateword.send(assembly.replicas[0])
    except RpmemError as error:
        # The only other copy of the pool is gone: ours must stay, and the first persist will report
        # it.
        log.warning("%s", error)
    return assembly


def connect_one(
    copy: LocalCopy, layout: Layout, spec: ReplicaSpec, options: SessionOptions, *, create: bool
) -> Replica:
    """Connect one more replica; the caller sends it the pool (`resync.push`)."""
    attributes = None
    if create:
        mine = copy.attributes or _ring(1, 0, bytes(16))[0]
        attributes = replace(mine, poolset_uuid=layout.pool_id, uuid=random_uuid())
    return _connect(spec, copy.region, layout.pool_size, options, attributes)


# --- the local copy ---------------------------------------------------------------------------


class _Superblock(NamedTuple):
    layout: Layout
    state: State
    catalogue: Catalogue


def _read_superblock(
    copy: LocalCopy, where: str | None = None, *, to_look: bool = False
) -> _Superblock:
    """Read the superblock of the local copy, and check that it is plausible."""
    medium = PoolMedium(copy.region)
    superblock = medium.load(LAYOUT_OFFSET, LAYOUT_SIZE)
    layout = Layout.unpack(superblock, where=copy.where, to_look=to_look)
    attributes = copy.attributes
    resync.check_format(attributes, copy.where)
    if attributes is not None and attributes.poolset_uuid != layout.pool_id:
        raise HeaderError(
            "header and superblock belong to different pools",
            where=copy.where,
            hint="A part was replaced: restore the pool from a replica",
        )
    if layout.pool_size > copy.region.size:
        raise CatalogueCorrupt(
            f"the pool was created with {layout.pool_size} bytes, but only "
            f"{copy.region.size} are there",
            where=copy.where,
        )
    state = stateword.read(medium, copy.where)
    # Nothing may be sent to a replica from a copy that cannot be read.
    clean = state.phase is Phase.CLEAN
    catalogue = Catalogue.read(medium, layout, clean=clean, where=where or copy.where)
    return _Superblock(layout, state, catalogue)


def _local_attributes(attributes: PoolAttributes, place: Place) -> PoolAttributes:
    """Return the attributes of a restored copy: the replica's, with a uuid of its own."""
    return replace(attributes, uuid=random_uuid(), incompat=place.incompat)


def _ring(count: int, incompat: int, user_flags: bytes) -> list[PoolAttributes]:
    """Return the attributes of `count` copies, each linked to its neighbours as PMDK does."""
    uuids = [random_uuid() for _ in range(count)]
    pool_id = random_uuid()
    return [
        PoolAttributes(
            signature=SIGNATURE,
            major=MAJOR,
            incompat=incompat,
            poolset_uuid=pool_id,
            uuid=uuids[index],
            next_uuid=uuids[(index + 1) % count],
            prev_uuid=uuids[index - 1],
            user_flags=user_flags,
        )
        for index in range(count)
    ]


# --- replicas ---------------------------------------------------------------------------------


def _connect(
    spec: ReplicaSpec,
    region: Region,
    pool_size: int,
    options: SessionOptions,
    attributes: PoolAttributes | None = None,
) -> Replica:
    keywords = options.keywords()
    if attributes is None:
        return low_tier.open(spec.target, spec.pool_set, region, pool_size=pool_size, **keywords)
    return low_tier.create(
        spec.target,
        spec.pool_set,
        region,
        attributes=attributes,
        parts=spec.parts,
        pool_size=pool_size,
        **keywords,
    )


def _connect_all(
    specs: Sequence[ReplicaSpec],
    region: Region,
    pool_size: int,
    options: SessionOptions,
    attributes: Sequence[PoolAttributes] | None = None,
) -> list[Replica]:
    """Connect all at the same time; if one fails, none is kept and the first error is raised."""
    if not specs:
        return []
    each = [None] * len(specs) if attributes is None else list(attributes)
    own = [options.for_target(spec.target) for spec in specs]
    with ThreadPoolExecutor(len(specs), thread_name_prefix="rpmem-connect") as pool:
        futures = [
            pool.submit(interrupts.shared(_connect), spec, region, pool_size, mine, one)
            for spec, mine, one in zip(specs, own, each, strict=True)
        ]
    errors = [future.exception() for future in futures]
    first = next((error for error in errors if error is not None), None)
    if first is None:
        return [future.result() for future in futures]
    with interrupts.undoing():
        for future, error in zip(futures, errors, strict=True):
            if error is None:
                dismiss(future.result(), remove=attributes is not None)
    raise first


def dismiss(replica: Replica, *, remove: bool = False) -> None:
    """Close a replica after a failure, whose error is more important than those of closing."""
    try:
        replica.close(remove=remove)
    except RpmemError as error:
        log.warning("%s", error)


def _agree(assembly: Assembly, *, force: bool) -> None:
    """Begin a new generation on all copies, sending the pool to outdated replicas."""
    layout, before = assembly.layout, assembly.state
    standings = [resync.standing_of(replica) for replica in assembly.replicas]
    for replica, standing in zip(assembly.replicas, standings, strict=True):
        resync.check_identity(replica, standing, layout)
        if not force:
            resync.check_age(replica, standing, before)
    assembly.state = before.next(*(each.state for each in standings if each.state is not None))
    # Locally first: a crash before the replicas have it leaves them behind, not ahead.
    medium = PoolMedium(assembly.copy.region)
    stateword.write(medium, assembly.state)
    for replica, standing in zip(assembly.replicas, standings, strict=True):
        if standing.is_current(layout, before):
            stateword.send(replica)
        else:
            resync.push(replica, medium, layout, assembly.state, standing.generation)


# --- restoring --------------------------------------------------------------------------------


def _examine(
    spec: ReplicaSpec, options: SessionOptions, *, force: bool
) -> tuple[PoolAttributes, Layout, State]:
    """Examine a replica about which nothing is known yet."""
    scratch = Region.anonymous(SMALLEST_POOL)
    replica = _connect(spec, scratch, scratch.size, options)
    try:
        attributes = replica.attributes
        resync.check_format(attributes, str(spec))
        standing = resync.standing_of(replica)
    finally:
        replica.close()
        scratch.close()
    if attributes is None or standing.layout is None or standing.state is None:
        raise CatalogueCorrupt(
            "the replica holds no complete pool",
            where=str(spec),
            hint="Its creation may have been interrupted; try another replica",
        )
    if standing.state.phase is Phase.SYNCING and not force:
        raise StaleReplica(
            "the replica was being brought up to date when its initiator died: "
            "it is a mixture of two generations",
            where=str(spec),
            hint="Restore from another replica, or accept it as it is with force=True",
        )
    return attributes, standing.layout, standing.state


def _read_back(assembly: Assembly) -> None:
    """Read all of the pool except its header, as the new copy has its own."""
    (replica,) = assembly.replicas
    size = assembly.layout.pool_size
    with memoryview(assembly.copy.region) as view:
        for begin in range(HEADER_SIZE, size, resync.CHUNK):
            interrupts.check()
            with view[begin : min(begin + resync.CHUNK, size)] as piece:
                replica.read(piece, begin)
    found = _read_superblock(assembly.copy, resync.name_of(replica))
    assembly.catalogue = found.catalogue
    if (found.layout, found.state) != (assembly.layout, assembly.state):
        raise StaleReplica(
            "the replica changed while it was being read",
            where=resync.name_of(replica),
            hint="Another initiator uses it; close that one first",
        )
