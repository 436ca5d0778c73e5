"""Whether what differs between copies is a fault, or was only not persisted yet: the rules.

There is no I/O here. A pass over the pool asks for digests of pages, piece by piece, and tells what
they were, which pages calls had under way meanwhile, and which were stored to. What can be said of
a page:

* Every byte of a replica got there by a call, which sent it to all of them. So what a replica has
  of a page is *expected* to stay as it is as long as no call sends something of that page: once a
  page was seen equal on all copies, a replica that shows something else, while nothing was sent, is
  wrong. That is certain whatever the program stores meanwhile.
* The local copy may have been stored to. Where it was not, since it was seen equal or opened, it
  has to be what the replicas have.
* Replicas need not agree with each other: what is stored while a call sends it may be in what one
  of them gets, and not in what the other does; and one that joins, or is repaired, is sent what the
  local memory has, persisted or not.
* A page that was stored to and differs is *unpersisted*. Whether a bit of it was flipped as well
  cannot be known until it was persisted.
* Where nobody saw the stores, and nothing is known of what the replicas had, it is *unclear*.

A page that a call has under way is looked at again while calls wait, and so is each that seems
wrong: nothing is reported from digests alone.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Digests = NDArray[np.uint32]

#: Bytes of a page, as pages are compared.
UNIT: Final = 4096
#: The local copy, where copies have numbers.
LOCAL: Final = -1
#: Bytes of a digest, in words.
_WORDS: Final = 3


class Standing(enum.Enum):
    """How the copies of a page stand to each other."""

    EQUAL = "equal"
    UNPERSISTED = "unpersisted"
    UNCLEAR = "unclear"
    DIFFERENT = "different"


class Verdict(NamedTuple):
    """What is known of a page.

    Parameters
    ----------
    standing : Standing
    wrong : tuple of int
        Copies that are wrong, as far as that can be told: `LOCAL`, or the number of a replica.
    certain : bool
        It is known from what the copies had before; otherwise they are outvoted.
    beneath : bool
        Their media hold something else than their memories show.
    """

    standing: Standing
    wrong: tuple[int, ...] = ()
    certain: bool = False
    beneath: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What a piece showed: one entry for each of its pages.

    Parameters
    ----------
    mine : array
        Digests of the local copy's pages.
    theirs : sequence of array
        Those of each replica.
    moving : array
        Calls had something of the page under way, or sent something of it, meanwhile.
    stored : array
        It was stored to meanwhile, or that cannot be told.
    """

    mine: Digests
    theirs: Sequence[Digests]
    moving: Flags
    stored: Flags


def digests_in(content: bytes) -> Digests:
    """Return digests that stand one behind the other as an array, one row for each."""
    return np.frombuffer(content, np.uint32).reshape(-1, _WORDS)


def same_digests(left: Digests, right: Digests) -> Flags:
    """Return which of two rows of digests are the same."""
    # Not all(axis=1), which takes ten times as long for so few words.
    first, second, third = (left == right).T
    same: Flags = first & second & third
    return same


class Verification:
    """What is known of the pages of a pool, and what passes over it have found.

    Parameters
    ----------
    units : int
        How many pages are compared.

    Attributes
    ----------
    known : array
        Of which pages it is known what every replica has, as nothing was sent since.
    stored : array
        Which pages were seen to be stored to since all copies had the same.
    doubtful : array
        Which pages may have been stored to without being seen.
    used : array
        Which pages hold something. What the others have does not matter.
    counts : Counter
        How many pages stand how, in this pass.
    """

    def __init__(self, units: int) -> None:
        self.known = np.zeros(units, bool)
        self.stored = np.zeros(units, bool)
        self.doubtful = np.zeros(units, bool)
        self.used = np.ones(units, bool)
        self.counts: Counter[Standing] = Counter()
        self._expected = np.zeros((units, _WORDS), np.uint32)

    def take(self, first: int, seen: Seen, *, careful: bool = False) -> NDArray[np.intp]:
        """Take what a piece showed that begins with a page, and return the pages to look at.

        `careful`: also at those that differ as they were stored to.
        """
        here = slice(first, first + len(seen.mine))
        equal = np.ones(len(seen.mine), bool)
        expected = self.known[here].copy()
        for theirs in seen.theirs:
            equal &= same_digests(theirs, seen.mine)
            expected &= same_digests(theirs, self._expected[here])
        self.known[here][seen.moving] = False
        stable = equal & ~seen.moving
        self.settle(here, seen.mine, stable, quiet=stable & ~seen.stored)
        touched = self.stored[here] | self.doubtful[here]
        # All that differs is what the replicas do not have yet.
        late = ~equal & ~seen.moving & touched & (expected | ~self.known[here])
        late &= not careful
        pending = late & (self.stored[here] | expected)
        ignored = ~self.used[here] & ~equal
        suspects = ~equal & ~late & ~ignored
        self.counts[Standing.EQUAL] += int((equal | ignored).sum())
        self.counts[Standing.UNPERSISTED] += int((pending & ~ignored).sum())
        self.counts[Standing.UNCLEAR] += int((late & ~pending & ~ignored).sum())
        return np.flatnonzero(suspects) + first

    def settle(self, here: slice, digests: Digests, stable: Flags, *, quiet: Flags) -> None:
        """All copies have the same of the `stable` pages; the `quiet` ones are not stored to."""
        self.known[here] |= stable
        np.copyto(self._expected[here], digests, where=stable[:, None])
        self.stored[here] &= ~quiet
        self.doubtful[here] &= ~quiet

    def judge(
        self,
        unit: int,
        mine: Digests,
        theirs: Sequence[Digests],
        *,
        stored: bool,
        unsettled: bool = False,
    ) -> Verdict:
        """Say what is known of a page that was looked at while calls waited.

        Parameters
        ----------
        unit : int
            The page.
        mine, theirs : array, sequence of array
            Its digest in the local copy, and in each replica.
        stored : bool
            It was stored to meanwhile, or that cannot be told.
        unsettled : bool
            A call that sent something of it was interrupted: copies may differ there until they
            are sent it again.
        """
        here = slice(unit, unit + 1)
        if all(np.array_equal(each, mine) for each in theirs):
            self.settle(here, mine.reshape(1, -1), np.array([True]), quiet=np.array([not stored]))
            return Verdict(Standing.EQUAL)
        unseen = bool(self.doubtful[unit])
        touched = stored or unseen or bool(self.stored[unit])
        if self.known[unit]:
            return self._against(self._expected[unit], mine, theirs, touched=touched)
        if unsettled:
            return Verdict(Standing.UNPERSISTED)
        if touched:
            seen = bool(self.stored[unit])
            return Verdict(Standing.UNPERSISTED if seen else Standing.UNCLEAR)
        return Verdict(Standing.DIFFERENT, _outvoted(mine, theirs))

    @staticmethod
    def _against(
        expected: Digests, mine: Digests, theirs: Sequence[Digests], *, touched: bool
    ) -> Verdict:
        """Judge a page of which is known what every replica has to have."""
        wrong = [number for number, each in enumerate(theirs) if not np.array_equal(each, expected)]
        if not touched and not np.array_equal(mine, expected):
            wrong.insert(0, LOCAL)
        if not wrong:
            return Verdict(Standing.UNPERSISTED)
        return Verdict(Standing.DIFFERENT, tuple(wrong), certain=True)


def _outvoted(mine: Digests, theirs: Sequence[Digests]) -> tuple[int, ...]:
    """Return the copies that differ from what most copies have; none if there is no majority."""
    copies = [mine.tobytes(), *(each.tobytes() for each in theirs)]
    ((common, votes),) = Counter(copies).most_common(1)
    if 2 * votes <= len(copies):
        return ()
    return tuple(number - 1 for number, each in enumerate(copies) if each != common)
