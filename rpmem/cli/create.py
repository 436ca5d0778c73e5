"""``rpmem create``: a new pool and its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.facts import pool_facts, raise_loss, replica_facts
from rpmem.cli.options import (
    local_argument,
    mode_option,
    replica_option,
    session_options,
)
from rpmem.terminal.tables import console

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Make a new pool and its replicas.")
@local_argument
@click.option("--size", help="Of a plain file, such as 64MiB; pool sets have their own.")
@replica_option
@click.option("--parts", default=0, help="Let the targets write pool set files of N parts.")
@mode_option
@session_options
def command(
    local: str,
    size: str | None,
    replicas: tuple[str, ...],
    parts: int,
    mode: int,
    **session: Unpack[SessionKeywords],
) -> None:
    """Make the new, empty pool LOCAL and its replicas.

    When something fails, nothing is left behind, here or on the targets.
    """
    from rpmem.pool.pool import Pool

    with Pool.create(local, size, replicas or None, parts=parts, mode=mode, **session) as pool:
        out, reached = console(), pool.replicas
        out.print(pool_facts(pool))
        if reached:
            out.print(replica_facts(reached))
    raise_loss(reached)
