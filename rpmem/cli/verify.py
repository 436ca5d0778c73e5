"""``rpmem verify``: whether the copies of a closed pool are equal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Unpack

import click

from rpmem.cli.options import (
    any_replicas_argument,
    json_option,
    local_argument,
    rate_option,
    session_options,
)
from rpmem.cli.progress import Shown
from rpmem.terminal.tables import console, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rpmem.pool.findings import Report
    from rpmem.session.options import SessionKeywords

_MOST_SHOWN = 20
#: Of the session's options, those for a target that is only looked at.
_TO_LOOK = ("launcher", "timeout", "protocol")


@click.command(short_help="Compare the copies of a pool, and repair one of them.")
@local_argument
@any_replicas_argument
@click.option(
    "--repair",
    metavar="SIDE",
    help="Where copies differ, give this one what the others have: local, or 'TARGET NAME.set'.",
)
@click.option("--deep", is_flag=True, help="Read past the kernel's cache, from the media.")
@rate_option
@json_option("Print a JSON object.")
@session_options
def command(
    local: str,
    replicas: list[str | tuple[str, str]],
    repair: str | None,
    deep: bool,
    rate_limit: str | None,
    as_json_object: bool,
    **session: Unpack[SessionKeywords],
) -> int:
    """Compare LOCAL with its replicas, page by page; exit with 1 if some differ.

    A replica is given by a TARGET and the name of a pool set there; without any, those of the
    REPLICA lines of a poolset file are meant. The pool has to be closed, and its replicas up to
    date: a program that has it open can call pool.verify() instead. Name all copies that there are.
    No array is changed without --repair.
    """
    from rpmem.pool.pool import Pool

    specs = _comparable(local, replicas, session)
    with Pool.open(local, specs, **session) as pool, Shown() as shown:
        report = pool.verify(repair, deep=deep, progress=shown, rate_limit=rate_limit)
    if as_json_object:
        click.echo(json.dumps({"pool": local, **report.as_json()}))
    else:
        _show(local, report)
    return 0 if report.good else 1


def _comparable(local: str, replicas: Sequence[Any], session: Any) -> list[Any]:
    """Return the replicas; raise an error if opening the pool would send one of them anything."""
    from rpmem.errors import PoolSetBusy, StaleReplica
    from rpmem.pool.looking import look, look_anywhere

    mine, lines = look_anywhere(local, None)
    if mine.in_use:
        raise PoolSetBusy(
            "a program has the pool open",
            where=local,
            hint="It can call pool.verify(); or verify the pool once that program has closed it",
        )
    specs = list(replicas) or lines
    reach = {name: session[name] for name in _TO_LOOK if session.get(name) is not None}
    copies = [mine, *(look(each, **reach) for each in specs)]
    for found in copies:
        stamp = found.record.epoch.stamp
        if found.state != "clean" or stamp != mine.record.epoch.stamp:
            raise StaleReplica(
                "the copy was not closed with the others, so that it may differ from them",
                where=found.where,
                hint="'rpmem sync' brings the copies up to date first",
            )
    named = {found.record.copy for found in copies}
    missing = [each.hex() for each in mine.record.epoch.members if each not in named]
    if missing:
        raise StaleReplica(
            f"the pool has more copies than were named: {', '.join(missing)}",
            where=local,
            hint="Name all of them: those that are not there would have to be given up. "
            "'rpmem sync' does that",
        )
    return specs


def _show(local: str, report: Report) -> None:
    """Print what was found."""
    facts = table("pool", local)
    facts.add_row("compared", f"{report.pages} pages in {report.seconds:.1f} s")
    for name, depth in report.depths.items():
        facts.add_row("read", f"{name}: its {depth}")
    facts.add_row("different", str(report.different))
    if report.repaired:
        facts.add_row("repaired", str(report.repaired))
    if report.unpersisted or report.unclear:
        facts.add_row("unpersisted", str(report.unpersisted))
        facts.add_row("unclear", str(report.unclear))
    out = console()
    out.print(facts)
    for each in report.differences[:_MOST_SHOWN]:
        out.print(str(each))
    if len(report.differences) > _MOST_SHOWN:
        out.print(f"and {len(report.differences) - _MOST_SHOWN} more, see --json")
