"""``rpmem info``: what a pool is, here or on a target, without touching it."""

from __future__ import annotations

import json
from typing import Unpack

import click

from rpmem.cli.options import json_option, look_options, pool_set_argument, where_argument
from rpmem.cli.shown import as_json, as_table
from rpmem.session.looking import LookKeywords
from rpmem.terminal.tables import console


@click.command(short_help="Show what a pool is, here or on a target.")
@where_argument
@pool_set_argument
@json_option("Print one JSON object, for programs; it has the names too.")
@look_options
def command(
    where: str, pool_set: str | None, as_json_object: bool, **reach: Unpack[LookKeywords]
) -> None:
    """Show what the pool LOCAL is, or its copy NAME.set on TARGET.

    That is: size, free space, medium, how its last writer left it, the epoch that the copy belongs
    to, its members, the epochs before it, and the copies that left or were given up.

    Nothing is changed or locked, and a program that is writing is not disturbed. Of a pool LOCAL no
    replica is contacted; of a copy on a TARGET nothing but what is shown is read.
    """
    from rpmem.pool.looking import look_anywhere

    facts, replicas = look_anywhere(where, pool_set, **reach)
    if as_json_object:
        click.echo(json.dumps(as_json(facts, replicas)))
        return
    shown = as_table(facts)
    for replica in replicas:
        shown.add_row("replica", replica)
    console().print(shown)
