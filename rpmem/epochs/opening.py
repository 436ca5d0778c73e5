"""Who may be overwritten by whom when copies come together, and the epoch that they begin.

Every copy that a call names is connected, and so locked against other writers, before its record is
read. The local copy is where everything comes from; where it is not the newest, nothing is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from rpmem.base.values import Record
from rpmem.epochs.record import (
    MOST_PARTED,
    CopyRecord,
    Epoch,
    Mark,
    Parting,
    Stamp,
    merged_history,
)
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import CatalogueCorrupt, SplitBrain, StaleReplica

#: Relations in which the other copy's contents are in mine.
_CONTAINED: Final = (Relation.SAME, Relation.BEHIND)


#: Epochs of each copy that an error names.
_MOST_TOLD: Final = 4


class Standing(Record):
    """What is to be done with one of the other copies.

    Parameters
    ----------
    relation : Relation
        What it is, seen from the local copy.
    equal : bool
        It has the same bytes.
    discarded : bool
        What it alone holds is given up: somebody named it.
    """

    relation: Relation
    equal: bool
    discarded: bool


#: Of a copy that nothing is known about and that the user named to be overwritten.
UNKNOWN: Final = Standing(Relation.UNRELATED, False, True)


def check_source(mine: CopyRecord, *, named: str) -> None:
    """Raise `StaleReplica` unless the local copy has everything acknowledged in its epoch."""
    if not mine.complete:
        raise StaleReplica(
            f"the local copy was being brought up to epoch {mine.epoch.stamp} and is incomplete",
            where=named,
            hint="Move it away and use Pool.restore with a copy that is complete",
        )


def standing(
    other: CopyRecord, mine: CopyRecord, named: str, where: str, *, discard: bool
) -> Standing:
    """Say what is to be done with another copy.

    Parameters
    ----------
    other, mine : CopyRecord
        Of that one, and of the local one, which everything comes from.
    named, where : str
        What the user calls them.
    discard : bool
        The user named the other one to be overwritten, whatever it holds.

    Raises
    ------
    StaleReplica
        The local copy lacks what the other one has.
    SplitBrain
        It lacks what the other one has, and the other way round.
    """
    found = relation(other, mine)
    rolled_back = found is Relation.SAME and _rolled_back(other, mine)
    if found in _CONTAINED and not rolled_back:
        both_clean = mine.mark is Mark.CLEAN and other.mark is Mark.CLEAN
        equal = found is Relation.SAME and both_clean and other.complete
        return Standing(found, equal, False)
    if discard:
        return Standing(found, False, True)
    give_up = f"To give up what only {named} has, open with discard=[{named!r}]"
    if rolled_back:
        raise StaleReplica(
            f"the copy was closed in epoch {other.epoch.stamp}, and the local one seems to be from "
            "before that: a snapshot may have been put back",
            where=named,
            hint="Move the local copy away and use Pool.restore. " + give_up,
        )
    if found is Relation.AHEAD:
        raise StaleReplica(
            f"the copy has epoch {other.epoch.stamp}, the local one only {mine.epoch.stamp}",
            where=named,
            hint="The local copy is out of date: move it away and use Pool.restore. " + give_up,
        )
    raise SplitBrain(
        story(other, mine, found, named, where),
        where=named,
        hint=f"Decide which of them to keep. {give_up}; to give up what only {where} has, "
        "move it away and use Pool.restore",
    )


def _rolled_back(other: CopyRecord, mine: CopyRecord) -> bool:
    """Whether mine is older than it was: a writer marks its own copy as clean before all others."""
    was_own = mine.epoch.members[0] == mine.copy
    return was_own and mine.mark is Mark.BEGUN and other.mark is Mark.CLEAN


def next_epoch(
    mine: CopyRecord,
    others: Iterable[CopyRecord],
    members: Sequence[bytes],
    *,
    identity: bytes,
    when_s: int,
    given_up: Collection[bytes] = (),
    above: int = 0,
) -> Epoch:
    """Return the epoch that comes after those of all copies that were met.

    Parameters
    ----------
    mine : CopyRecord
        Of the copy that the contents come from.
    others : iterable of CopyRecord
        Of all other copies that were read, those that are discarded left out.
    members : sequence of bytes
        The uuids of the copies that have it.
    identity : bytes
        16 random bytes.
    when_s : int
        Seconds since 1970; for people.
    given_up : collection of bytes
        Of the members so far that are no longer any: those that did not leave in order.
    above : int
        Its number is higher than this one, too.
    """
    met = [epoch for each in (mine, *others) for epoch in (each.epoch, each.prepared) if epoch]
    number = 1 + max(above, *(epoch.number for epoch in met))
    return Epoch(
        number=number,
        identity=identity,
        members=tuple(members),
        in_sync=tuple(members),
        quorum=len(members),
        history=merged_history(met),
        common=_parted(mine, members, given_up, when_s),
    )


def _parted(
    mine: CopyRecord, members: Sequence[bytes], given_up: Collection[bytes], when_s: int
) -> tuple[Parting, ...]:
    gone = [
        Parting(copy, mine.epoch.stamp, copy in given_up, when_s)
        for copy in mine.epoch.members
        if copy not in members
    ]
    kept = [each for each in mine.epoch.common if each.copy not in members]
    return tuple((gone + kept)[:MOST_PARTED])


def first_epoch(members: Sequence[bytes], *, identity: bytes) -> Epoch:
    """Return the epoch of a pool that is being created."""
    return Epoch(1, identity, tuple(members), tuple(members), len(members))


def check_complete(record: CopyRecord, *, named: str) -> None:
    """Raise unless a copy can be the source of another one.

    Raises
    ------
    StaleReplica
        It is a mixture.
    """
    if not record.complete:
        raise StaleReplica(
            f"the copy was being brought up to epoch {record.epoch.stamp} when its writer died: "
            "it is a mixture of two epochs",
            where=named,
            hint="Restore from another copy",
        )


def last_common(one: Epoch, other: Epoch) -> Stamp | None:
    """Return the newest epoch that both hold; None where there is none."""
    known = {each.identity: each for each in (other.stamp, *other.history)}
    known.update((each.last.identity, each.last) for each in other.common)
    shared = [
        each
        for each in (one.stamp, *one.history, *(each.last for each in one.common))
        if each.identity in known
    ]
    return max(shared, default=None)


def story(other: CopyRecord, mine: CopyRecord, found: Relation, named: str, where: str) -> str:
    """Tell how two copies came apart."""
    if found is Relation.UNRELATED:
        return (
            f"the copy has epoch {other.epoch.stamp} and {where} {mine.epoch.stamp}; no epoch that "
            "both remember says which of them is newer"
        )
    common = last_common(other.epoch, mine.epoch)
    assert common is not None
    return (
        f"the copies went separate ways after epoch {common}: "
        f"{where} {_way(mine.epoch, common, other.copy, 'the other')}; "
        f"{named} {_way(other.epoch, common, mine.copy, where)}"
    )


def _way(epoch: Epoch, common: Stamp, copy: bytes, whom: str) -> str:
    """Tell where a copy went since it and the other one were apart."""
    parting = next((each for each in epoch.common if each.copy == copy), None)
    since = [epoch.stamp, *(each for each in epoch.history if each.number > common.number)]
    names = [str(each) for each in reversed(since[:_MOST_TOLD])]
    if len(since) > _MOST_TOLD:
        names.insert(0, "...")
    told = f"went on to epoch {', '.join(names)}"
    if parting is None:
        return told
    what = "gave up" if parting.given_up else "let go of"
    return f"{what} {whom} ({_time(parting.when_s)}) and {told}"


def _time(when_s: int) -> str:
    import datetime  # only where something is wrong

    return datetime.datetime.fromtimestamp(when_s, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def check_known(record: CopyRecord | None, *, named: str) -> CopyRecord:
    """Return the record of a copy; raise `CatalogueCorrupt` where it has none."""
    if record is None:
        raise CatalogueCorrupt(
            "the copy has no record of its epoch",
            where=named,
            hint="Its creation was interrupted. Remove it and create it again, or name it in "
            "discard=[...]",
        )
    return record
