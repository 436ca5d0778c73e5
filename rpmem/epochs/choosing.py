"""From which of several copies a pool is restored: what they record decides, and nothing else.

The newest epoch that a copy records as begun wins, and the copies that have everything acknowledged
in it can be read. All others hold nothing that those have not, or nothing is done. An epoch that is
only prepared counts as its predecessor: nothing was acknowledged under it.

That the newest one reached is the newest there is can be known only if every other member of its
epoch was reached, too: whoever was not may have gone on without the others. The member that wrote
is the one that is restored, and so is known to be lost; for every other one a person has to say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rpmem.base.values import Record
from rpmem.epochs.opening import story
from rpmem.epochs.record import LARGEST_NUMBER, CopyRecord, Mark
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import CatalogueCorrupt, NotProvenNewest, SplitBrain, StaleReplica, UsageError

_CONTAINED: Final = (Relation.SAME, Relation.BEHIND)
#: The better a copy, the lower; one that left may lack what nobody waited for.
_RANKS: Final = {Mark.CLEAN: 0, Mark.BEGUN: 1, Mark.LEFT: 2}


class Choice(Record):
    """What is to be done with the copies that were reached.

    Parameters
    ----------
    sources : tuple of str
        Names of those that have everything acknowledged in the newest epoch, the best first.
    equal : bool
        All of `sources` were closed, so they have the same bytes. Otherwise they may differ in
        what was never acknowledged.
    behind : tuple of str
        Names of the others, which have to be brought up to date.
    """

    sources: tuple[str, ...]
    equal: bool
    behind: tuple[str, ...]


class Lost(Record):
    """Copies that a person says are lost, whatever only they hold.

    Parameters
    ----------
    copies : frozenset of bytes
        Uuids.
    names : int
        How many others were named by where they were: nobody knows their uuids.
    """

    copies: frozenset[bytes] = frozenset()
    names: int = 0


def choose(reached: Mapping[str, CopyRecord], lost: Lost) -> Choice:
    """Say which copies a pool is restored from.

    Parameters
    ----------
    reached : mapping of str to CopyRecord
        What each copy records, by the user's name for it, in the order of preference.
    lost : Lost
        Members that may be left out.

    Raises
    ------
    SplitBrain
        Two of them each hold what the other lacks.
    NotProvenNewest
        A member that was not reached may hold more.
    StaleReplica
        None has everything acknowledged in the newest epoch.
    UsageError
        Two of them are the same copy, or one is said to be lost.
    CatalogueCorrupt
        One records an epoch that none can come after.
    """
    _check(reached, lost)
    newest = _newest(reached)
    record = reached[newest]
    _check_proven(newest, record, reached, lost)
    complete = [
        named
        for named, each in reached.items()
        if each.epoch.identity == record.epoch.identity and each.complete
    ]
    if not complete:
        raise StaleReplica(
            f"the copy was being brought up to epoch {record.epoch.stamp} when its writer died: it "
            "is a mixture of two epochs, and no copy that was reached has all of that one",
            where=newest,
            hint="Name a copy that is complete, too; to go back to an older epoch, leave this "
            f"copy out and add lost=[{record.copy.hex()!r}]",
        )
    closed = [named for named in complete if reached[named].mark is Mark.CLEAN]
    sources = closed or sorted(complete, key=lambda named: _RANKS[reached[named].mark])
    behind = tuple(named for named in reached if named not in sources)
    return Choice(tuple(sources), bool(closed), behind)


def _check(reached: Mapping[str, CopyRecord], lost: Lost) -> None:
    """Raise where what was named makes no sense."""
    seen: dict[bytes, str] = {}
    for named, record in reached.items():
        if record.copy in seen:
            raise UsageError(
                f"it is the same copy as {seen[record.copy]}",
                where=named,
                hint="Name each copy once, and give a file that was copied another pool set",
            )
        seen[record.copy] = named
        if record.copy in lost.copies:
            raise UsageError("it was named as lost, and is there", where=named)
        if record.newest.number >= LARGEST_NUMBER:
            raise CatalogueCorrupt(
                f"no epoch can come after its epoch {record.newest.stamp}",
                where=named,
                hint="Its record makes no sense: restore from another copy",
            )


def _newest(reached: Mapping[str, CopyRecord]) -> str:
    """Return who records the newest epoch; all others are contained in it."""
    newest = next(iter(reached))
    for named, record in reached.items():
        if relation(record, reached[newest]) is Relation.AHEAD:
            newest = named
    for named, record in reached.items():
        found = relation(record, reached[newest])
        if found not in _CONTAINED:
            raise SplitBrain(
                story(record, reached[newest], found, named, newest),
                where=named,
                hint="Decide which of them to keep, and restore from that one with "
                f"lost=[{record.copy.hex()!r}] or lost=[{reached[newest].copy.hex()!r}]",
            )
    return newest


def _check_proven(
    newest: str, record: CopyRecord, reached: Mapping[str, CopyRecord], lost: Lost
) -> None:
    """Raise unless every member of the newest epoch was reached, or is known to be lost."""
    others = record.epoch.members[1:]
    present = {each.copy for each in reached.values()}
    missing = [each for each in others if each not in present and each not in lost.copies]
    if len(missing) <= lost.names:
        return
    raise NotProvenNewest(
        f"the newest epoch that was reached, {record.epoch.stamp}, has "
        f"{len(record.epoch.members)} copies; besides the lost one these were not reached, and may "
        f"have gone on without this one: {', '.join(each.hex() for each in missing)}",
        where=newest,
        hint="Name them, too. If they are lost, restore with "
        f"lost={[each.hex() for each in missing]}: what only they hold is given up",
    )
