"""How a copy stands, in one word, for those who look at it."""

from __future__ import annotations

from rpmem.epochs.record import CopyRecord, Mark

IN_USE = "in-use"
NOT_CLOSED = "not-closed"

_WORDS = {
    Mark.BEGUN: NOT_CLOSED,
    Mark.CLEAN: "clean",
    Mark.LEFT: "left",
    Mark.JOINING: "joining",
}


def state_of(record: CopyRecord, *, in_use: bool) -> str:
    """Return ``in-use``, ``clean``, ``not-closed``, ``left`` or ``joining``.

    Parameters
    ----------
    record : CopyRecord
        What the copy records.
    in_use : bool
        Somebody has it open for writing: its record says less than that.
    """
    return IN_USE if in_use else _WORDS[record.mark]
