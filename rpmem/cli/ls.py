"""``rpmem ls``: the pool sets on a target."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Unpack

import click

from rpmem.cli.options import json_option, look_options
from rpmem.session.looking import LookKeywords, list_sets
from rpmem.terminal.tables import console, readable, table

if TYPE_CHECKING:
    from rpmem.control.messages import PoolSetRow


@click.command(short_help="List the pool sets on a target.")
@click.argument("target")
@json_option("Print one JSON object per line, for programs.")
@look_options
def command(target: str, as_json_object: bool, **reach: Unpack[LookKeywords]) -> None:
    """List the pool sets in the pool set directory of TARGET and below it.

    Each has a name, the size of its pool, the epoch of the copy, and a state: clean, in-use,
    not-closed, left, joining, damaged, foreign (not made by rpmem.Pool), missing (a part is), or
    unreadable. Nothing is changed or locked. Hidden files are left out.
    """
    rows = list_sets(target, **reach)
    if as_json_object:
        for row in rows:
            click.echo(json.dumps(_as_json(row)))
        return
    listing = table("name", "size", "epoch", "state", "", right=("size", "epoch"))
    for row in rows:
        size = "" if row.size is None else readable(row.size)
        epoch = "" if row.epoch is None else str(row.epoch)
        listing.add_row(row.name, size, epoch, row.state, row.reason or "")
    console().print(listing if rows else "no pool sets")


def _as_json(row: PoolSetRow) -> dict[str, Any]:
    epoch = None
    if row.epoch is not None and row.identity is not None:
        epoch = {"number": row.epoch, "identity": row.identity.hex()}
    return {
        "name": row.name,
        "size": row.size,
        "state": row.state,
        "epoch": epoch,
        "copy": None if row.copy is None else row.copy.hex(),
        "mark": row.mark,
        "reason": row.reason,
    }
