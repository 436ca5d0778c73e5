"""How copies come in: what is checked before, what they are sent, and the epoch that begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rpmem.base.target import ReplicaSpec
from rpmem.epochs.members import Members
from rpmem.epochs.record import Mark
from rpmem.errors import CatalogueCorrupt
from rpmem.pool import resync
from rpmem.pool.absent import Absent
from rpmem.pool.keepers import ReplicaKeeper
from rpmem.pool.progress import Progress, quiet
from rpmem.pool.superblock import Layout
from rpmem.pool.together import Together
from rpmem.session.replica import LEVELS, Replica

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet


def agree(
    members: Members[ReplicaKeeper],
    joining: Sequence[ReplicaKeeper],
    layout: Layout,
    absent: Absent,
    *,
    discard: Sequence[ReplicaSpec] = (),
    progress: Progress = quiet,
    believed: bool = True,
) -> None:
    """Check copies that come in, send them what they lack, and begin an epoch with them.

    Parameters
    ----------
    members : Members
        The local copy, and the replicas that it has.
    joining : sequence of ReplicaKeeper
        Connected.
    layout : Layout
        The local superblock.
    absent : Absent
        The copies that were known and away; those that come in are so no longer.
    discard : sequence of ReplicaSpec
        Those that may be overwritten whatever they hold.
    progress : callable
        Told what is done of what is sent.
    believed : bool
        Whether the local copy is the same as when it was marked as clean.

    Raises
    ------
    HeaderError, CatalogueCorrupt, StaleReplica, SplitBrain
        A copy must not be overwritten; nothing was changed.
    """
    before = members.mine
    names = [str(spec) for spec in discard]
    current = {each.named for each in joining if _is_current(each, layout, names)}
    # By the records that they come back with: these are replaced before they are sent anything.
    missed = {each.named: _missed(each, absent) for each in joining if each.named not in names}

    together = Together(progress)

    def push(keeper: ReplicaKeeper) -> None:
        resync.push(
            keeper.replica,
            layout,
            together,
            strict=_counts(keeper),
            missed=missed.get(keeper.named),
        )

    members.agree(
        joining,
        push,
        discard=names,
        same=lambda keeper: believed and keeper.named in current and not _is_gone(keeper, absent),
        run=together.run,
    )
    if believed:
        absent.part_closed(before, [each.uuid for each in members.everyone])
    absent.keep_to(members.epoch)


def _is_current(keeper: ReplicaKeeper, layout: Layout, discarded: Sequence[str]) -> bool:
    """Check that a copy may come in, and return whether it has this superblock."""
    found = resync.layout_of(keeper.replica)
    resync.check_identity(keeper.replica, found, layout)
    if keeper.damage is not None and keeper.named not in discarded:
        raise CatalogueCorrupt(
            f"the record of the copy is damaged: {keeper.damage}",
            where=keeper.named,
            hint="Nobody knows any more what it holds. To send it everything, open with "
            f"discard=[{keeper.named!r}]",
        )
    return found == layout


def _missed(keeper: ReplicaKeeper, absent: Absent) -> PageSet | None:
    """Return what a copy that comes in has missed; None: nobody knows."""
    if keeper.record is None:
        return None
    return absent.find(keeper.record, keeps=keeps(keeper.replica), boot=keeper.replica.boot)


def _is_gone(keeper: ReplicaKeeper, absent: Absent) -> bool:
    """Whether a copy that was closed with ours has lost what its machine had in memory."""
    return absent.is_gone(keeper.uuid, keeps=keeps(keeper.replica), boot=keeper.replica.boot)


def keeps(replica: Replica) -> bool:
    """Whether what a replica acknowledges outlives its machine."""
    return replica.level == LEVELS[-1]


def _counts(keeper: ReplicaKeeper) -> bool:
    """Whether a copy has all that was acknowledged, and can be restored from, while it is sent."""
    return keeper.record is not None and keeper.record.mark is not Mark.JOINING
