"""What was promised when: which words each machine must have, and which it may have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


class Loss(AssertionError):
    """Something promised is not there, or something is there that never was."""


@dataclass
class Promise:
    """What one machine's copy holds.

    Parameters
    ----------
    arrays : dict
        For each array the contents that its words may have, each word for itself: what was
        acknowledged first, then what was stored since.
    """

    arrays: dict[str, list[Words]] = field(default_factory=dict)

    def copy(self) -> Promise:
        """Return one that stays as it is."""
        return Promise(
            {name: [each.copy() for each in versions] for name, versions in self.arrays.items()}
        )

    def stored(self, name: str, content: Words) -> None:
        """Words may have arrived."""
        self.arrays[name].append(content.copy())

    def acknowledged(self, name: str, where: Any, content: Words) -> None:
        """Words must have arrived."""
        versions = self.arrays[name]
        for version in versions:
            version[where] = content[where]
        versions[1:] = [each for each in versions[1:] if not np.array_equal(each, versions[0])]


@dataclass
class Moment:
    """One operation, in the order of events.

    Parameters
    ----------
    what : str
        Its name.
    begin, end : int
        It is in flight from the first to before the second; from then on it has come back.
    before, after : dict
        For each machine what may be there meanwhile, and what must be there afterwards: a promise,
        or None for no pool.
    """

    what: str
    begin: int
    end: int
    before: dict[str, list[Promise | None]]
    after: dict[str, Promise | None]
    syncing: bool = False

    def options(self, machine: str, position: int) -> list[Promise | None]:
        """Return what may be there after a cut at a position."""
        if position >= self.end:
            return [self.after[machine]]
        return [*self.before[machine], self.after[machine]]


def check_words(options: Sequence[Promise | None], found: dict[str, Words], where: str) -> None:
    """Compare the arrays of a pool with what may be there; raise `Loss`."""
    possible = [option for option in options if option is not None]
    names = [list(option.arrays) for option in possible]
    if list(found) not in names:
        raise Loss(f"{where}: has the arrays {list(found)}, not one of {names}")
    for name, words in found.items():
        versions: Iterable[Words] = (
            version for option in possible for version in option.arrays.get(name, ())
        )
        right = np.zeros(len(words), bool)
        for version in versions:
            if len(version) == len(words):
                right |= words == version
            if right.all():
                break
        else:
            (wrong,) = np.nonzero(~right)
            known = [version for option in possible for version in option.arrays.get(name, ())]
            raise Loss(
                f"{where}: {len(wrong)} of {len(words)} words of {name} are wrong, the first at "
                f"{wrong[0]}: {words[wrong[0]]:#x} instead of one of "
                f"{[hex(each[wrong[0]]) for each in known if len(each) > wrong[0]]}"
            )
