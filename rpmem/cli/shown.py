"""What a copy of a pool is, as a table for people and as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rpmem.terminal.tables import readable, table

if TYPE_CHECKING:
    from rich.table import Table

    from rpmem.epochs.record import CopyRecord, Epoch, Parting, Stamp
    from rpmem.pool.looking import Facts

_MOST_SHOWN = 8
_WRITERS = {
    "in-use": "has it open",
    "clean": "closed it",
    "not-closed": "did not close it",
    "left": "took it out in order",
    "joining": "was bringing it up to date: it is a mixture",
}


def as_table(facts: Facts) -> Table:
    """Return the facts as a table of two columns."""
    record, epoch = facts.record, facts.record.epoch
    shown = table("pool", facts.where)
    shown.add_row("size", f"{readable(facts.size)} ({facts.size} bytes)")
    shown.add_row("free", readable(facts.free))
    shown.add_row("arrays", str(len(facts.entries)))
    shown.add_row("medium", facts.medium)
    shown.add_row("last writer", _WRITERS[facts.state])
    if facts.pool_id is not None:
        shown.add_row("uuid", facts.pool_id.hex())
    shown.add_row("copy", f"{record.copy.hex()}, {record.mark.name.lower()}")
    shown.add_row("epoch", _stamp(epoch.stamp))
    if record.prepared is not None:
        shown.add_row("offered", f"{_stamp(record.prepared.stamp)}, not known to have begun")
    for member in epoch.members:
        shown.add_row("member", _member(member, record))
    for stamp in epoch.history[:_MOST_SHOWN]:
        shown.add_row("history", _stamp(stamp))
    if len(epoch.history) > _MOST_SHOWN:
        shown.add_row("history", f"and {len(epoch.history) - _MOST_SHOWN} more, see --json")
    for parting in epoch.common:
        shown.add_row("parted", _parting(parting))
    return shown


def as_json(facts: Facts, replicas: Sequence[str] = ()) -> dict[str, Any]:
    """Return the facts as an object for `json`.

    Parameters
    ----------
    facts : Facts
    replicas : sequence of str
        The ``REPLICA`` lines of a local pool set file.
    """
    record = facts.record
    return {
        "pool": facts.where,
        "uuid": None if facts.pool_id is None else facts.pool_id.hex(),
        "size": facts.size,
        "free": facts.free,
        "arrays": len(facts.entries),
        "names": list(facts.entries),
        "medium": facts.medium,
        "state": facts.state,
        "copy": record.copy.hex(),
        "mark": record.mark.name.lower(),
        "epoch": _epoch_json(record.epoch),
        "prepared": None if record.prepared is None else _epoch_json(record.prepared),
        "replicas": list(replicas),
    }


def _epoch_json(epoch: Epoch) -> dict[str, Any]:
    return {
        **_stamp_json(epoch.stamp),
        "members": [member.hex() for member in epoch.members],
        "in_sync": [member.hex() for member in epoch.in_sync],
        "quorum": epoch.quorum,
        "history": [_stamp_json(stamp) for stamp in epoch.history],
        "parted": [
            {
                "copy": parting.copy.hex(),
                "given_up": parting.given_up,
                "last": _stamp_json(parting.last),
                "when": parting.when_s,
            }
            for parting in epoch.common
        ],
    }


def _stamp_json(stamp: Stamp) -> dict[str, Any]:
    return {"number": stamp.number, "identity": stamp.identity.hex()}


def _stamp(stamp: Stamp) -> str:
    return f"{stamp.number} ({stamp.identity.hex()})"


def _member(member: bytes, record: CopyRecord) -> str:
    words = [member.hex()]
    if member == record.copy:
        words.append("this copy")
    if member not in record.epoch.in_sync:
        words.append("not in sync")
    return ", ".join(words)


def _parting(parting: Parting) -> str:
    how = "given up" if parting.given_up else "left"
    return f"{parting.copy.hex()} {how} on {_when(parting.when_s)}, after {_stamp(parting.last)}"


def _when(when_s: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when_s))
    except (OverflowError, ValueError, OSError):
        return f"second {when_s}"  # no clock of this planet said so
