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

    show_and_close(Pool.create(local, size, replicas or None, parts=parts, mode=mode, **session))
