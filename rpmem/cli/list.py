"""``rpmem list``: the arrays in a pool, here or on a target."""

from __future__ import annotations

import json
from typing import Unpack

import click

from rpmem.base.printable import printable
from rpmem.cli.options import json_option, look_options, pool_set_argument, where_argument
from rpmem.session.looking import LookKeywords
from rpmem.terminal.tables import console, readable, table

_LONGEST_DTYPE = 1000


@click.command(short_help="List the arrays in a pool, here or on a target.")
@where_argument
@pool_set_argument
@json_option("Print one JSON object per line, for programs.")
@look_options
def command(
    where: str, pool_set: str | None, as_json_object: bool, **reach: Unpack[LookKeywords]
) -> None:
    """List the arrays in the pool LOCAL, or in its copy NAME.set on TARGET.

    Each has a name, dtype, shape, order and size. Nothing is changed or locked, and a program that
    is writing is not disturbed.
    """
    from rpmem.pool.forms import Form
    from rpmem.pool.looking import look_anywhere

    facts, _ = look_anywhere(where, pool_set, **reach)
    entries = list(facts.entries.values())
    if as_json_object:
        for entry in entries:
            click.echo(json.dumps({name: getattr(entry, name) for name in entry.__slots__}))
        return
    listing = table("name", "dtype", "shape", "order", "size", right=("size",))
    for entry in entries:
        # A target may have invented it; names are printable already.
        dtype = printable(str(Form.from_entry(entry).dtype), _LONGEST_DTYPE)
        listing.add_row(entry.name, dtype, str(entry.shape), entry.order, readable(entry.length))
    console().print(listing if entries else "no arrays")
