"""The durability steps: how data that was sent becomes durable; one line each, best first.

The posts of a step are in `rpmem.steps`; its guarantees are described in docs/concepts.md.
"""

from __future__ import annotations

from typing import Final, Literal

from rpmem.base.values import Value

__all__ = ["COMMIT", "FLUSH", "READ_AFTER_WRITE", "SEND_AFTER_WRITE", "STEPS", "Step"]


class Step(Value):
    """A durability step, and its consequences elsewhere.

    Parameters
    ----------
    name : str
        As users and the control protocol write it.
    needs : str
        The attribute that says a fabric can do it; empty: nothing special is needed.
    automatic : bool
        It may be chosen when no step is asked for.
    answered : bool
        The target's service answers every call, so it has messages to send.
    proved : bool
        The target itself made the bytes durable. Otherwise only its administrator's word says so,
        which is worth nothing if no device wrote them.
    """

    name: str
    needs: Literal["", "commits", "flushes", "bypasses"] = ""
    automatic: bool = True
    answered: bool = True
    proved: bool = True


FLUSH: Final = Step("flush", needs="flushes")
COMMIT: Final = Step("commit", needs="commits", answered=False)
SEND_AFTER_WRITE: Final = Step("send-after-write")
READ_AFTER_WRITE: Final = Step(
    "read-after-write", needs="bypasses", automatic=False, answered=False, proved=False
)

STEPS: Final = {step.name: step for step in (FLUSH, COMMIT, SEND_AFTER_WRITE, READ_AFTER_WRITE)}
