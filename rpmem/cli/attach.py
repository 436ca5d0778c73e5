"""``rpmem attach``: one more replica for a pool, or one that is back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from rpmem.cli.options import (
    json_option,
    local_argument,
    rate_option,
    replica_option,
    session_options,
)
from rpmem.cli.outcome import close_and_show
from rpmem.cli.progress import Shown

if TYPE_CHECKING:
    from rpmem.session.options import SessionKeywords


@click.command(short_help="Add a replica to a pool.")
@local_argument
@click.argument("target")
@click.argument("pool_set", metavar="NAME.set")
@replica_option
@click.option("--create", is_flag=True, help="The target has no pool there yet.")
@click.option("--parts", type=int, default=0, help="With --create: write the pool set file, too.")
@click.option("--discard", is_flag=True, help="Overwrite it even if it holds what LOCAL does not.")
@rate_option
@json_option("Print one JSON object, for programs.")
@session_options
def command(
    local: str,
    target: str,
    pool_set: str,
    replicas: tuple[str, ...],
    create: bool,
    parts: int,
    discard: bool,
    rate_limit: str | None,
    as_json_object: bool,
    **session: Unpack[SessionKeywords],
) -> None:
    """Add the replica NAME.set on TARGET to the pool LOCAL, and send it what it lacks.

    --replica names the replicas that the pool has already: those that are not named are given up.
    What takes more than two seconds shows how far it is: on a terminal, or with -v, line by line.
    """
    from rpmem.pool.pool import Pool

    with Shown() as shown:
        pool = Pool.open(
            local,
            replicas or None,
            progress=shown,
            rate_limit=rate_limit,
            **session,
        )
        try:
            pool.attach(
                (target, pool_set),
                create=create,
                parts=parts,
                discard=discard,
                progress=shown,
                rate_limit=rate_limit,
            )
        except BaseException:
            pool.close()
            raise
    close_and_show(pool, as_json_object=as_json_object)
