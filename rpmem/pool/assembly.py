"""How the copies of a pool are put together: created or opened.

Each function returns an `Assembly` in which every replica equals the local copy and an epoch of all
of them has begun (once `Members.found` was called, where they are new), or raises and leaves
everything as it was: no new file here, and no new pool set on a target.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from rpmem.base import environment, interrupts
from rpmem.base.pool_format import RECORD_OFFSET
from rpmem.base.target import ReplicaSpec
from rpmem.base.values import replace
from rpmem.epochs.members import Members
from rpmem.errors import (
    CatalogueCorrupt,
    HeaderError,
    RpmemError,
)
from rpmem.files.attributes import MAJOR, SIGNATURE, PoolAttributes, random_uuid
from rpmem.files.locks import undisturbed
from rpmem.memory.region import Region
from rpmem.pool import joining, maps, resync
from rpmem.pool.absent import Absent
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.keepers import LocalKeeper, ReplicaKeeper, keeper_of
from rpmem.pool.local import LocalCopy, Place
from rpmem.pool.medium import PoolMedium
from rpmem.pool.progress import Progress, quiet
from rpmem.pool.superblock import (
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    MAGIC_1,
    Layout,
    refuse_format_1,
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
    layout : Layout
        Its superblock.
    members : Members
        The records of all copies.
    absent : Absent
        The copies that are known and away.
    catalogue : Catalogue or None
        As it was read; None: it still has to be written.
    zeroed : bool
        All copies are new, and zero behind their headers.
    """

    copy: LocalCopy
    layout: Layout
    members: Members[ReplicaKeeper]
    absent: Absent
    catalogue: Catalogue | None = None
    zeroed: bool = False

    @property
    def replicas(self) -> list[Replica]:
        """The connected replicas, in order."""
        return [keeper.replica for keeper in self.members.others]

    @property
    def alone(self) -> bool:
        """Whether every replica was lost: the local copy may be the only one."""
        return all(replica.failure is not None for replica in self.replicas)

    def undo(self, *, remove: bool) -> None:
        """Disconnect and unmap, and with `remove` remove what was created."""
        let_go(self.copy, self.replicas, remove=remove, remove_replicas=remove)

    def forsake(self) -> None:
        """Undo a restore: remove the local copy, unless it is the only one."""
        let_go(self.copy, self.replicas, remove=not self.alone)


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
    try:
        layout = Layout.plan(copy.region.size, ring[0].poolset_uuid)
        own = LocalKeeper(copy.region, layout.pool_id, place.where, uuid=ring[0].uuid)
        keepers = connect_all(specs, copy.region, layout, options, ring[1:])
    except BaseException:
        with interrupts.undoing():
            copy.close(remove=True)
        raise
    zeroed = copy.zeroed and all(keeper.replica.zeroed for keeper in keepers)
    absent = Absent(copy.region.size)
    return Assembly(copy, layout, Members(own, keepers), absent, zeroed=zeroed)


def open_readonly(place: Place) -> Assembly:
    """Open only the local copy, read-only, even while another process writes to it."""
    copy = place.look()
    try:
        found = undisturbed(lambda: _read_superblock(copy, to_look=True), lambda: copy.has_writer)
    except BaseException:
        copy.close()
        raise
    absent = Absent(copy.region.size)
    return Assembly(copy, found.layout, Members(found.keeper), absent, found.catalogue)


def open_all(
    place: Place,
    specs: Sequence[ReplicaSpec],
    options: SessionOptions,
    *,
    discard: Sequence[ReplicaSpec],
    progress: Progress = quiet,
) -> Assembly:
    """Open the local copy and its replicas, and bring outdated replicas up to date."""
    copy = place.open()
    keepers: list[ReplicaKeeper] = []
    try:
        found = _read_superblock(copy)
        if not found.keeper.clean:
            # What its writer only stored will be seen: a power cut must not take it away again.
            copy.region.persist(0, found.catalogue.mark)
        found.keeper.settle()
        keepers = connect_all(specs, copy.region, found.layout, options)
        members: Members[ReplicaKeeper] = Members(found.keeper)
        absent = Absent(copy.region.size)
        if copy.keeps_zeros:
            medium = PoolMedium(copy.region)
            absent.resume(*maps.read(medium, found.layout, members.mine, absent))
        # Whoever has a buffer may have stored to it since it was closed.
        how = functools.partial(joining.agree, progress=progress, believed=copy.keeps_zeros)
        how(members, keepers, found.layout, absent, discard=discard)
    except BaseException:
        let_go(copy, [keeper.replica for keeper in keepers])
        raise
    return Assembly(copy, found.layout, members, absent, found.catalogue)


def connect_one(
    copy: LocalCopy, layout: Layout, spec: ReplicaSpec, options: SessionOptions, *, create: bool
) -> ReplicaKeeper:
    """Connect one more replica; the caller brings it up to date (`joining.agree`)."""
    attributes = None
    if create:
        mine = copy.attributes or _ring(1, 0, bytes(16))[0]
        attributes = replace(mine, poolset_uuid=layout.pool_id, uuid=random_uuid())
    return _connect(spec, copy.region, layout, options, attributes)


# --- the local copy ---------------------------------------------------------------------------


class _Superblock(NamedTuple):
    layout: Layout
    keeper: LocalKeeper
    catalogue: Catalogue


def _read_superblock(copy: LocalCopy, *, to_look: bool = False) -> _Superblock:
    """Read what the local copy says of itself, and check that it is plausible."""
    medium = PoolMedium(copy.region)
    attributes = copy.attributes
    resync.check_format(attributes, copy.where)
    refuse_format_1(medium.load(RECORD_OFFSET, len(MAGIC_1)), copy.where)
    superblock = medium.load(LAYOUT_OFFSET, LAYOUT_SIZE)
    layout = Layout.unpack(superblock, where=copy.where, to_look=to_look)
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
    keeper = LocalKeeper(copy.region, layout.pool_id, copy.where)
    # Nothing may be sent to a replica from a copy that cannot be read.
    catalogue = Catalogue.read(medium, layout, clean=keeper.clean, where=copy.where)
    return _Superblock(layout, keeper, catalogue)


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


def open_session(
    spec: ReplicaSpec,
    region: Region,
    pool_size: int,
    options: SessionOptions,
    attributes: PoolAttributes | None = None,
) -> Replica:
    """Connect a replica, and with attributes create it."""
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


def _connect(
    spec: ReplicaSpec,
    region: Region,
    layout: Layout,
    options: SessionOptions,
    attributes: PoolAttributes | None = None,
) -> ReplicaKeeper:
    replica = open_session(spec, region, layout.pool_size, options, attributes)
    try:
        return keeper_for(replica, region, layout.pool_id, options)
    except BaseException:
        with interrupts.undoing():
            dismiss(replica, remove=attributes is not None)
        raise


def keeper_for(
    replica: Replica, region: Region, pool_id: bytes, options: SessionOptions
) -> ReplicaKeeper:
    """Return the keeper of the record of a replica that was just connected."""
    uuid = random_uuid() if replica.attributes is None else replica.attributes.uuid
    timeout_s = environment.timeout_of(options.timeout)
    return keeper_of(replica, region, pool_id, uuid, timeout_s=timeout_s)


def connect_all(
    specs: Sequence[ReplicaSpec],
    region: Region,
    layout: Layout,
    options: SessionOptions,
    attributes: Sequence[PoolAttributes] | None = None,
) -> list[ReplicaKeeper]:
    """Connect all at the same time; if one fails, none is kept and the first error is raised."""
    if not specs:
        return []
    each = [None] * len(specs) if attributes is None else list(attributes)
    own = [options.for_target(spec.target) for spec in specs]
    with ThreadPoolExecutor(len(specs), thread_name_prefix="rpmem-connect") as pool:
        futures = [
            pool.submit(interrupts.shared(_connect), spec, region, layout, mine, one)
            for spec, mine, one in zip(specs, own, each, strict=True)
        ]
    errors = [future.exception() for future in futures]
    first = next((error for error in errors if error is not None), None)
    if first is None:
        return [future.result() for future in futures]
    with interrupts.undoing():
        for future, error in zip(futures, errors, strict=True):
            if error is None:
                dismiss(future.result().replica, remove=attributes is not None)
    raise first


def let_go(
    copy: LocalCopy,
    replicas: Sequence[Replica],
    *,
    remove: bool = False,
    remove_replicas: bool = False,
) -> None:
    """Disconnect replicas and unmap the local copy, and remove what is to be removed."""
    with interrupts.undoing():
        for replica in replicas:
            dismiss(replica, remove=remove_replicas)
        copy.close(remove=remove)


def dismiss(replica: Replica, *, remove: bool = False) -> None:
    """Close a replica after a failure, whose error is more important than those of closing."""
    try:
        replica.close(remove=remove)
    except RpmemError as error:
        log.warning("%s", error)
