"""A case of failing storage: which call of which operation fails, and the outcome."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """Which call of which operation fails, and how.

    Parameters
    ----------
    operation, layout, side : str
        Names.
    kind : str
        Of the call.
    number : int
        The n-th call of that kind, from 1; 0: none fails.
    error : int
        Its errno.
    descriptors : int
        Instead of all that: how many more descriptors the side may open; -1: no limit.
    broken : str
        A control: which promise the initiator breaks (`BROKEN`).
    """

    operation: str
    layout: str
    side: str = "initiator"
    kind: str = ""
    number: int = 0
    error: int = 0
    descriptors: int = -1
    broken: str = ""

    def __str__(self) -> str:
        what = f"{self.operation} {self.layout} {self.side}"
        if self.descriptors >= 0:
            return f"{what} {self.descriptors} descriptors"
        return f"{what} {self.kind} {self.number} {errno.errorcode.get(self.error, 'half')}"


@dataclass
class Verdict:
    """What became of a case.

    Parameters
    ----------
    case : Case
        Which.
    outcome : str
        ``"passed"``, or the name of the error that the operation raised.
    failed : str
        The path of the call that failed; empty when none did.
    said : str
        The error's message.
    wrong : list of str
        What is not as it should be.
    calls : dict
        How many calls of each kind each side made, for a case in which none failed.
    """

    case: Case
    outcome: str = "passed"
    failed: str = ""
    said: str = ""
    wrong: list[str] = field(default_factory=list)
    calls: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return asdict(self)
