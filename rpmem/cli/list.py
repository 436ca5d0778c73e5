"""``rpmem list``: the arrays in a local pool."""

from __future__ import annotations

import json

import click

from rpmem.cli.options import local_argument
from rpmem.terminal.tables import console, readable, table


@click.command(short_help="List the arrays in a local pool.")
@local_argument
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per line, for programs."
)
def command(local: str, as_json: bool) -> None:
    """List the arrays in the pool LOCAL: name, dtype, shape, order and size.

    Nothing is changed, no replica is contacted, and a program that is writing is not disturbed.
    """
    from rpmem.pool.pool import Pool

    with Pool.open(local, readonly=True) as pool:
        entries = [(pool.entry(name), pool[name].dtype) for name in pool]
    if as_json:
        for entry, _ in entries:
            fields = {name: getattr(entry, name) for name in entry.__slots__}
            click.echo(json.dumps(fields))
        return
    listing = table("name", "dtype", "shape", "order", "size", right=("size",))
    for entry, dtype in entries:
        listing.add_row(
            entry.name, str(dtype), str(entry.shape), entry.order, readable(entry.length)
        )
    console().print(listing if entries else "no arrays")
