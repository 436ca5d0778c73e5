"""What a comparison of a pool's copies has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

__all__ = ["MOST_DIFFERENCES", "Difference", "Report"]

#: Most differences that are named one by one.
MOST_DIFFERENCES: Final = 65536


@dataclass(frozen=True, slots=True)
class Difference:
    """Pages of a pool that are not the same on all copies, although they should be.

    Parameters
    ----------
    offset, length : int
        Whole pages, in bytes from the beginning of the pool.
    arrays : tuple of str
        The names of the arrays that lie in them.
    copies : tuple of str
        The replicas that differ from the local copy.
    wrong : tuple of str
        Those copies that are wrong, as far as that can be told; ``"local"`` is the local one.
    certain : bool
        It is known what the wrong ones had before. Otherwise most of the other copies agree.
    beneath : bool
        The copy in `wrong` has other bytes on its medium than in its memory.
    repaired : bool
        The copies are equal there by now.
    """

    offset: int
    length: int
    arrays: tuple[str, ...]
    copies: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    certain: bool = False
    beneath: bool = False
    repaired: bool = False

    def __str__(self) -> str:
        where = f"{self.length} bytes at {self.offset}"
        inside = f" ({', '.join(map(repr, self.arrays))})" if self.arrays else ""
        if self.beneath:
            said = f"{', '.join(self.wrong)} has other bytes on its medium than in memory"
        else:
            said = f"the local copy and {', '.join(self.copies)} differ"
            if self.wrong:
                said += f"; wrong{'' if self.certain else ', as most others agree'}: "
                said += ", ".join(self.wrong)
        return f"{where}{inside}: {said}{' (repaired)' if self.repaired else ''}"


@dataclass(frozen=True, slots=True)
class Report:
    """What `rpmem.Pool.verify` has found.

    Parameters
    ----------
    differences : tuple of Difference
        Neighbouring pages of which the same is known are one. Of very many, the first ones.
    pages : int
        How many pages were compared.
    different, repaired : int
        How many of them differ although they should not, and how many of those are equal by now.
    unpersisted : int
        How many differ as they were stored to and have not been persisted yet.
    unclear : int
        How many differ and may have been stored to without anybody seeing it.
    seconds : float
        How long it took.
    depths : dict
        By the name of each copy, what was compared of it: ``"memory"``, or ``"medium"`` where its
        bytes were read from the device.
    """

    differences: tuple[Difference, ...]
    pages: int
    different: int
    repaired: int
    unpersisted: int
    unclear: int
    seconds: float
    depths: dict[str, str]

    @property
    def good(self) -> bool:
        """Whether no page is known to differ that should not, or all such pages were repaired."""
        return self.different == self.repaired

    def as_json(self) -> dict[str, Any]:
        """Return it as an object for `json`."""
        return {
            "good": self.good,
            "pages": self.pages,
            "different": self.different,
            "repaired": self.repaired,
            "unpersisted": self.unpersisted,
            "unclear": self.unclear,
            "seconds": self.seconds,
            "depths": dict(self.depths),
            "differences": [
                {
                    "offset": each.offset,
                    "length": each.length,
                    "arrays": list(each.arrays),
                    "copies": list(each.copies),
                    "wrong": list(each.wrong),
                    "certain": each.certain,
                    "beneath": each.beneath,
                    "repaired": each.repaired,
                }
                for each in self.differences
            ],
        }


def merged(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """Make one of neighbours of which the same is known."""
    found: list[Difference] = []
    for each in sorted(differences, key=lambda each: (each.offset, each.wrong)):
        last = found[-1] if found else None
        if last is not None and last.offset + last.length == each.offset:
            longer = replace(last, length=each.length, offset=each.offset)
            if longer == each:
                found[-1] = replace(last, length=last.length + each.length)
                continue
        found.append(each)
    return tuple(found)
