"""``rpmem restore``: a lost local pool, read back from its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.options import (
    json_option,
    local_argument,
    mode_option,
    rate_option,
    replicas_argument,
    session_options,
)
from rpmem.cli.outcome import close_and_show
from rpmem.cli.progress import Shown

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Restore a local pool from its replicas.")
@local_argument
@replicas_argument
@click.option(
    "--lost",
    multiple=True,
    metavar="'TARGET NAME.set' | UUID",
    help="A copy that may be left out, whatever it holds; may be repeated.",
)
@mode_option
@rate_option
@json_option("Print one JSON object, for programs.")
@session_options
def command(
    local: str,
    replicas: list[str | tuple[str, str]],
    lost: tuple[str, ...],
    mode: int,
    rate_limit: str | None,
    as_json_object: bool,
    **session: Unpack[SessionKeywords],
) -> None:
    """Create LOCAL with everything that the best of some replicas hold.

    A replica is given by a TARGET and the name of a pool set there. Name all that there are: the
    newest wins, and what arrives is checked. A copy of the pool that cannot be reached, and may
    hold more, has to be named with --lost.

    LOCAL must either not exist, or be a poolset(5) file whose parts do not exist. Files get their
    names only when they are complete and durable. What takes more than two seconds shows how far
    it is: on a terminal, or with -v, line by line.
    """
    from rpmem.pool.pool import Pool

    with Shown() as shown:
        pool = Pool.restore(
            local,
            replicas,
            lost=lost,
            mode=mode,
            progress=shown,
            rate_limit=rate_limit,
            **session,
        )
    close_and_show(pool, as_json_object=as_json_object)
