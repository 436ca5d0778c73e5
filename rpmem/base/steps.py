"""The durability steps: how what was sent becomes durable, one line each, the best first.

What a step posts is in `rpmem.steps`; what it promises, and to whom, in docs/concepts.md.
"""

from __future__ import annotations

from typing import Final, Literal

from rpmem.base.values import Value

__all__ = ["COMMIT", "FLUSH", "READ_AFTER_WRITE", "SEND_AFTER_WRITE", "STEPS", "Step"]


class Step(Value):
    """A durability step, and what follows from it elsewhere.

    Parameters
    ----------
    name : str
        As users and the control protocol write it.
    needs : str
        What a fabric has to be able to do, by the name of its attribute; empty: nothing special.
    automatic : bool
        It is chosen where nobody asks for a step.
    answered : bool
        The target's service answers every call, so there are messages for it to send.
    proved : bool
        The target saw to it itself that the bytes are durable. Otherwise its administrator says
        that they are, which is worth nothing where no device has written them.
    """

    name: str
    needs: Literal["", "commits", "flushes"] = ""
    automatic: bool = True
    answered: bool = True
    proved: bool = True


FLUSH: Final = Step("flush", needs="flushes")
COMMIT: Final = Step("commit", needs="commits", answered=False)
SEND_AFTER_WRITE: Final = Step("send-after-write")
READ_AFTER_WRITE: Final = Step("read-after-write", automatic=False, answered=False, proved=False)

STEPS: Final = {step.name: step for step in (FLUSH, COMMIT, SEND_AFTER_WRITE, READ_AFTER_WRITE)}
