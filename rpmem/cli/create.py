"""``rpmem create``: a new pool and its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.facts import show_and_close
from rpmem.cli.options import (
    local_argument,
    mode_option,
    replica_option,
    session_options,
)

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Create a pool and its replicas.")
@local_argument
@click.option("--size", help="Size of a plain file, such as 64MiB; a pool set states its own.")
@replica_option
@click.option(
    "--parts", default=0, metavar="N", help="Let the targets write pool set files with N parts."
)
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
    """Create an empty pool LOCAL and its replicas.

    If something fails, nothing is left behind, neither here nor on the targets.
    """
    from rpmem.pool.pool import Pool

    show_and_close(Pool.create(local, size, replicas or None, parts=parts, mode=mode, **session))
