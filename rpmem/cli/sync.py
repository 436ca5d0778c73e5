"""``rpmem sync``: bring the copies of a pool up to date, without a program that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.options import (
    any_replicas_argument,
    discard_option,
    json_option,
    local_argument,
    rate_option,
    session_options,
)
from rpmem.cli.outcome import close_and_show
from rpmem.cli.progress import Shown

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Bring all copies of a pool up to date.")
@local_argument
@any_replicas_argument
@discard_option
@rate_option
@json_option("Print one JSON object, for programs.")
@session_options
def command(
    local: str,
    replicas: list[str | tuple[str, str]],
    discard: tuple[str, ...],
    rate_limit: str | None,
    as_json_object: bool,
    **session: Unpack[SessionKeywords],
) -> None:
    """Make the replicas of LOCAL equal to it.

    A replica is given by a TARGET and the name of a pool set there; without any, those of the
    REPLICA lines of a poolset file are meant. Each is sent what it lacks of LOCAL, all at the same
    time, and everything is marked as closed. A replica that holds what LOCAL does not is refused,
    unless --discard names it. Copies that are not named are given up: name all that there are.

    Nothing can use the pool meanwhile. What takes more than two seconds shows how far it is: on a
    terminal, or with -v, line by line.
    """
    from rpmem.pool.pool import Pool

    with Shown() as shown:
        pool = Pool.open(
            local,
            replicas or None,
            discard=discard,
            progress=shown,
            rate_limit=rate_limit,
            **session,
        )
    close_and_show(pool, as_json_object=as_json_object)
