"""``rpmem restore``: a lost local pool, read back from a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.facts import pool_facts, raise_loss
from rpmem.cli.options import local_argument, mode_option, session_options
from rpmem.cli.progress import Shown
from rpmem.terminal.tables import console

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Restore a local pool from a replica.")
@local_argument
@click.argument("target")
@click.argument("pool_set", metavar="NAME.set")
@mode_option
@session_options
def command(
    local: str,
    target: str,
    pool_set: str,
    mode: int,
    **session: Unpack[SessionKeywords],
) -> None:
    """Create LOCAL with everything that the replica NAME.set on TARGET holds.

    LOCAL must either not exist, or be a poolset(5) file whose parts do not exist. Files get their
    names only when they are complete and durable. What takes more than two seconds shows how far
    it is: on a terminal, or with -v, line by line.
    """
    from rpmem.pool.pool import Pool

    replica = (target, pool_set)
    with Shown() as shown:
        restored = Pool.restore(local, replica, mode=mode, progress=shown, **session)
    with restored as pool:
        reached = pool.replicas
        console().print(pool_facts(pool))
    raise_loss(reached)
