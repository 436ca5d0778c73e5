"""``rpmem verify``: whether the copies of a closed pool are equal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Unpack

import click

from rpmem.cli.options import json_option, local_argument, session_options
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
@click.argument("replicas", nargs=-1, metavar="['TARGET NAME.set']...")
@click.option(
    "--repair",
    metavar="SIDE",
    help="Where copies differ, give this one what the others have: local, or 'TARGET NAME.set'.",
)
@click.option("--deep", is_flag=True, help="Read past the kernel's cache, from the media.")
@click.option("--rate-limit", metavar="SIZE", help="Compare at most so much per second: 100MiB.")
@json_option("Print a JSON object.")
@session_options
def command(
    local: str,
    replicas: tuple[str, ...],
    repair: str | None,
    deep: bool,
    rate_limit: str | None,
    as_json_object: bool,
    **session: Unpack[SessionKeywords],
) -> int:
    """Compare LOCAL with its replicas, page by page; exit with 1 if some differ.

    Without replicas, those of the REPLICA lines of a poolset file are meant. The pool has to be
    closed, and its replicas up to date: a program that has it open can call pool.verify() instead.
    Nothing is changed without --repair.
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


def _comparable(local: str, replicas: Sequence[str], session: Any) -> list[str]:
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
    for found in (mine, *(look(each, **reach) for each in specs)):
        stamp = found.record.epoch.stamp
        if found.state != "clean" or stamp != mine.record.epoch.stamp:
            raise StaleReplica(
                "the copy was not closed with the others, so that it may differ from them",
                where=found.where,
                hint="'rpmem sync' brings the copies up to date first",
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
