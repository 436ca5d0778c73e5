"""``rpmem open``: bring the replicas of a pool up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.facts import show_and_close
from rpmem.cli.options import discard_option, local_argument, replica_option, session_options
from rpmem.cli.progress import Shown

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Open a pool and bring its replicas up to date.")
@local_argument
@replica_option
@discard_option
@session_options
def command(
    local: str,
    replicas: tuple[str, ...],
    discard: tuple[str, ...],
    **session: Unpack[SessionKeywords],
) -> None:
    """Open the pool LOCAL and its replicas, show them, and close them.

    A replica that may differ from LOCAL is sent what differs; afterwards, all copies are equal.
    What takes more than two seconds shows how far it is: on a terminal, or with -v, line by line.
    """
    from rpmem.pool.pool import Pool

    with Shown() as shown:
        pool = Pool.open(local, replicas or None, discard=discard, progress=shown, **session)
    show_and_close(pool)
