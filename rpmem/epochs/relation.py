"""How two copies of a pool stand to each other: one pure function.

=============================================  =========  ==================================
the epoch of the other copy, seen from mine     relation   what may be done
=============================================  =========  ==================================
is mine                                        same       equal if both are clean; else a push
is in the past of mine                         behind     it may be overwritten
has mine in its past                           ahead      mine is the one to be overwritten
neither; they have an epoch in common          split      nothing, unless a person names it
neither; they have none in common              unrelated  nothing, unless a person names it
=============================================  =========  ==================================

An epoch that is only prepared does not count: its copy stands where it stood before.
"""

from __future__ import annotations

import enum

from rpmem.epochs.record import CopyRecord


class Relation(enum.Enum):
    """What another copy is, seen from mine."""

    SAME = "same"
    BEHIND = "behind"
    AHEAD = "ahead"
    SPLIT = "split"
    UNRELATED = "unrelated"


def relation(other: CopyRecord, mine: CopyRecord) -> Relation:
    """Return what `other` is, seen from `mine`.

    Nothing is said about marks: a copy of the same epoch may be a mixture (`CopyRecord.complete`).
    """
    theirs, ours = other.epoch, mine.epoch
    if theirs.identity == ours.identity:
        return Relation.SAME
    if theirs.identity in ours.past:
        return Relation.BEHIND
    if ours.identity in theirs.past:
        return Relation.AHEAD
    if ours.lineage & theirs.lineage:
        return Relation.SPLIT
    return Relation.UNRELATED
