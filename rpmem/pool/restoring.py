"""A new local copy of a pool, made from the best of its replicas.

All replicas that are named are looked at, and what they record decides which of them are read
(`rpmem.epochs.choosing`). What is read is checked (`rpmem.pool.readback`), and the new copy counts
once everything is: until then its files have no names, and whoever is killed leaves nothing that
another attempt would meet. At last the replicas that hold less are brought up to date.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rpmem.base import interrupts
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.base.target import ReplicaSpec
from rpmem.base.values import replace
from rpmem.epochs import opening
from rpmem.epochs.choosing import Choice, Lost, choose
from rpmem.epochs.members import Members
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import (
    CatalogueCorrupt,
    HeaderError,
    NotProvenNewest,
    PoolSetTooSmall,
    RpmemError,
    StaleReplica,
    UsageError,
)
from rpmem.files.attributes import PoolAttributes, random_uuid
from rpmem.memory.region import Region
from rpmem.pool import assembly, joining, resync
from rpmem.pool.absent import Absent
from rpmem.pool.assembly import Assembly
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.keepers import LocalKeeper, ReplicaKeeper
from rpmem.pool.local import FilePlace, LocalCopy, MemoryPlace, Place
from rpmem.pool.medium import PoolMedium
from rpmem.pool.options import LostCopies
from rpmem.pool.progress import Progress, quiet
from rpmem.pool.readback import ReadBack
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SMALLEST_POOL, Layout
from rpmem.pool.transfer import Read, RemoteSource
from rpmem.session.options import SessionOptions

log = logging.getLogger(__name__)


class Examined(NamedTuple):
    """What a replica says of itself.

    Parameters
    ----------
    spec : ReplicaSpec
    attributes : PoolAttributes
    layout : Layout or None
        None: its superblock is missing or damaged, and nothing can be read from it.
    record : CopyRecord
    """

    spec: ReplicaSpec
    attributes: PoolAttributes
    layout: Layout | None
    record: CopyRecord


def restore(
    place: Place,
    specs: Sequence[ReplicaSpec],
    options: SessionOptions,
    *,
    lost: LostCopies,
    mode: int,
    progress: Progress = quiet,
) -> Assembly:
    """Make a new local copy from the best of some replicas, and keep those replicas.

    Parameters
    ----------
    place : Place
        Where nothing is yet.
    specs : sequence of ReplicaSpec
        The replicas, in the order of preference.
    options : SessionOptions
    lost : LostCopies
        Copies that may be left out, whatever they hold.
    mode : int
        Permissions of new files.
    progress : callable
        Told what is done.
    """
    examined, choice = _chosen(specs, options, lost)
    layout, attributes = _to_be_read(examined, choice)
    mine = replace(attributes, uuid=random_uuid(), incompat=place.incompat)
    copy = _made(place, layout, mine, mode)
    keepers: list[ReplicaKeeper] = []
    published = False
    try:
        _check_room(copy, layout, place.where)
        found = [each.spec for each in examined.values()]
        keepers = assembly.connect_all(found, copy.region, layout, options)
        _check_unchanged(keepers, examined)
        own = LocalKeeper(copy.region, layout.pool_id, place.where, uuid=mine.uuid)
        sources = [each for named in choice.sources for each in keepers if each.named == named]
        members: Members[ReplicaKeeper] = Members(own, sources[:1])
        catalogue, whole = _read(copy, layout, members, sources, choice, progress)
        members.others = whole
        _begin(members, keepers)
        copy.publish()
        published = True
        absent = Absent(copy.region.size)
        _bring_up_to_date(members, keepers, layout, absent, progress)
    except BaseException:
        replicas = [keeper.replica for keeper in keepers]
        # Where all were lost, it may be the only copy.
        alone = published and all(each.failure is not None for each in replicas)
        assembly.let_go(copy, replicas, remove=not alone)
        raise
    return Assembly(copy, layout, members, absent, catalogue)


# --- which copies there are -------------------------------------------------------------------


def _chosen(
    specs: Sequence[ReplicaSpec], options: SessionOptions, lost: LostCopies
) -> tuple[dict[str, Examined], Choice]:
    """Look at all replicas, and say which of them are read."""
    if not specs:
        raise UsageError("a pool is restored from a replica", hint="Name one at least")
    found: dict[str, Examined] = {}
    failures: dict[str, RpmemError] = {}
    for spec, answer in zip(specs, _examine_all(specs, options), strict=True):
        if isinstance(answer, Examined):
            found[str(spec)] = answer
        else:
            failures[str(spec)] = answer
            log.warning("%s", answer)
    if not found:
        raise next(iter(failures.values()))
    _check_one_pool(found)
    names = {str(spec) for spec in lost.specs}
    given_up = Lost(lost.copies, len(names - found.keys()))
    records = {named: each.record for named, each in found.items()}
    try:
        choice = choose(records, given_up)
    except NotProvenNewest as error:
        for failure in failures.values():
            error.what += f"; not read: {failure}"
            raise error from failure
        raise
    for named, failure in failures.items():
        if named not in names:
            raise failure
    return found, choice


def _examine_all(
    specs: Sequence[ReplicaSpec], options: SessionOptions
) -> list[Examined | RpmemError]:
    """Look at all replicas at the same time; each gives what it is, or why that is not known."""
    with ThreadPoolExecutor(len(specs), thread_name_prefix="rpmem-examine") as pool:
        work = interrupts.shared(_examine)
        futures = [pool.submit(work, spec, options.for_target(spec.target)) for spec in specs]
    answers: list[Examined | RpmemError] = []
    for future in futures:
        try:
            answers.append(future.result())
        except RpmemError as error:
            answers.append(error)
    return answers


def _examine(spec: ReplicaSpec, options: SessionOptions) -> Examined:
    """Look at a replica about which nothing is known yet."""
    scratch = Region.anonymous(SMALLEST_POOL)
    replica = assembly.open_session(spec, scratch, scratch.size, options)
    try:
        attributes = replica.attributes
        resync.check_format(attributes, str(spec))
        layout = resync.layout_of(replica)
        pool_id = layout.pool_id if layout is not None else None
        if attributes is not None and pool_id is None:
            pool_id = attributes.poolset_uuid
        if attributes is None or pool_id is None:
            raise CatalogueCorrupt(
                "the replica holds no complete pool",
                where=str(spec),
                hint="Its creation may have been interrupted; try another replica",
            )
        keeper = assembly.keeper_for(replica, scratch, pool_id, options)
    finally:
        replica.close()
        scratch.close()
    if keeper.damage is not None:
        raise CatalogueCorrupt(
            f"the record of the copy is damaged: {keeper.damage}",
            where=str(spec),
            hint="Nobody knows any more what it holds; restore from another replica",
        )
    return Examined(spec, attributes, layout, opening.check_known(keeper.record, named=str(spec)))


def _check_one_pool(found: dict[str, Examined]) -> None:
    """Raise `HeaderError` unless all replicas belong to the same pool."""
    first, *others = found.values()
    for each in others:
        if each.attributes.poolset_uuid != first.attributes.poolset_uuid:
            raise HeaderError(
                f"it belongs to another pool than {first.spec} (poolset_uuid "
                f"{each.attributes.poolset_uuid.hex()} and {first.attributes.poolset_uuid.hex()})",
                where=str(each.spec),
                hint="Name replicas of one pool",
            )


def _to_be_read(examined: dict[str, Examined], choice: Choice) -> tuple[Layout, PoolAttributes]:
    """Return superblock and header of the best source that has a superblock."""
    for named in choice.sources:
        each = examined[named]
        if each.layout is not None:
            return each.layout, each.attributes
    raise CatalogueCorrupt(
        "the replica holds no complete pool",
        where=", ".join(choice.sources),
        hint="Its superblock is missing or damaged; try another replica",
    )


def _check_unchanged(keepers: Sequence[ReplicaKeeper], examined: dict[str, Examined]) -> None:
    """Raise `StaleReplica` if a replica is not what it was when it was looked at."""
    for keeper in keepers:
        if keeper.record != examined[keeper.named].record:
            raise _changed(keeper.named)


def _changed(named: str) -> StaleReplica:
    return StaleReplica(
        "the replica changed while it was being read",
        where=named,
        hint="Another initiator uses it; close that one first",
    )


# --- the new copy -----------------------------------------------------------------------------


def _made(place: Place, layout: Layout, mine: PoolAttributes, mode: int) -> LocalCopy:
    """Make the new copy, which nobody can open yet."""
    if isinstance(place, FilePlace):
        return place.create_hidden(layout.pool_size, mine, mode)
    if isinstance(place, MemoryPlace):
        return place.create(None, mine, mode)
    raise UsageError("a pool is restored into a path or a buffer")


def _check_room(copy: LocalCopy, layout: Layout, where: str) -> None:
    if copy.region.size < layout.pool_size:
        raise PoolSetTooSmall(
            f"the pool has {layout.pool_size} bytes, but there is room for only {copy.region.size}",
            where=where,
        )


def _read(
    copy: LocalCopy,
    layout: Layout,
    members: Members[ReplicaKeeper],
    sources: Sequence[ReplicaKeeper],
    choice: Choice,
    progress: Progress,
) -> tuple[Catalogue, list[ReplicaKeeper]]:
    """Read everything; return the catalogue, and the sources that hold exactly that."""
    readable = _readable(sources, layout)
    best, entries = readable[0]
    sources = [each for each, _ in readable]
    if len(sources) > 1:
        compare = [each for each in sources if each.replica.compares]
        sources = compare if best in compare else [best]
    members.others = [best]
    members.adopt()
    reading = ReadBack(
        copy.region,
        sources,
        layout.pool_size,
        equal=choice.equal,
        in_use=_Uses(entries, layout),
        progress=progress,
    )
    unequal = reading.run()
    if not (choice.equal or best.replica.compares):
        # What was read will be seen, and nothing else makes it durable there.
        resync.push(best.replica, layout, progress, strict=True)
    medium = PoolMedium(copy.region)
    if Layout.unpack(medium.load(LAYOUT_OFFSET, LAYOUT_SIZE), where=best.named) != layout:
        raise _changed(best.named)
    catalogue = Catalogue.read(medium, layout, clean=choice.equal, where=best.named)
    whole = [each for each in sources if each.named not in unequal and each.replica.failure is None]
    return catalogue, whole


def _readable(
    sources: Sequence[ReplicaKeeper], layout: Layout
) -> list[tuple[ReplicaKeeper, Catalogue]]:
    """Return the sources whose superblock and catalogue are good, and what the latter say."""
    found: list[tuple[ReplicaKeeper, Catalogue]] = []
    failure: RpmemError | None = None
    for keeper in sources:
        source = RemoteSource(_reader(keeper))
        record = keeper.record
        clean = record is not None and record.mark is Mark.CLEAN
        try:
            if resync.layout_of(keeper.replica) != layout:
                raise CatalogueCorrupt("its superblock is damaged", where=keeper.named)
            found.append((keeper, Catalogue.read(source, layout, clean=clean, where=keeper.named)))
        except RpmemError as error:
            log.warning("%s (nothing is read from this copy)", error)
            failure = failure or error
    if not found:
        assert failure is not None
        raise failure
    return found


def _reader(keeper: ReplicaKeeper) -> Read:
    def read(buffer: Any, offset: int) -> None:
        keeper.replica.read(buffer, offset)

    return read


class _Uses:
    """Tells what lies in a range of a pool.

    Parameters
    ----------
    catalogue : Catalogue
    layout : Layout
    """

    def __init__(self, catalogue: Catalogue, layout: Layout) -> None:
        own = [(POOL_FLOOR, layout.data_start), *catalogue.spans]
        self._spans = [(begin, end, "the catalogue") for begin, end in own]
        self._spans += [
            (entry.offset, entry.end, repr(name)) for name, entry in catalogue.entries.items()
        ]

    def __call__(self, offset: int, length: int) -> str:
        """Return names of what lies there; "" where nothing does."""
        return ", ".join(
            what for begin, end, what in self._spans if begin < offset + length and offset < end
        )


# --- the copies together ----------------------------------------------------------------------


def _begin(members: Members[ReplicaKeeper], keepers: Sequence[ReplicaKeeper]) -> None:
    """Begin an epoch with the new copy, without replicas that are lost meanwhile.

    Where all are, the new copy is the only one: it stays, and the first persist will report that.
    """
    met = [keeper.record for keeper in keepers if keeper.record is not None]
    while True:
        members.others = [each for each in members.others if each.replica.failure is None]
        before = len(members.others)
        try:
            members.begin(met)
        except RpmemError as error:
            members.others = [each for each in members.others if each.replica.failure is None]
            if len(members.others) == before:
                raise
            log.warning("%s", error)
        else:
            return


def _bring_up_to_date(
    members: Members[ReplicaKeeper],
    keepers: Sequence[ReplicaKeeper],
    layout: Layout,
    absent: Absent,
    progress: Progress,
) -> None:
    """Send the other replicas what they lack; those that are lost meanwhile are kept as lost."""
    while lacking := [
        each for each in keepers if each not in members.others and each.replica.failure is None
    ]:
        before, lost = members.mine, _lost(keepers)
        try:
            joining.agree(members, lacking, layout, absent, progress=progress)
        except RpmemError as error:
            members.others = [each for each in members.others if each not in lacking]
            if _lost(keepers) == lost:
                raise
            log.warning("%s", error)
            if members.mine != before:
                # What was offered is not taken back: go on in a newer epoch.
                _begin(members, keepers)
    members.others = list(keepers)


def _lost(keepers: Sequence[ReplicaKeeper]) -> list[str]:
    return [each.named for each in keepers if each.replica.failure is not None]
