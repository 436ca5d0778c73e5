"""What several verbs have in common: options, and how pools and replicas are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rpmem.options import SessionKeywords
    from rpmem.pool import Pool
    from rpmem.replica import Replica

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNFOLDED = 1000


def _as_mode(context: click.Context, option: click.Parameter, value: str) -> int:
    from rpmem.options import mode_of

    try:
        return mode_of(int(value, 8))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no mode such as 600 or 640") from error


_SESSION = (
    click.option("--provider", help="libfabric provider, such as tcp or verbs."),
    click.option("--lanes", "nlanes", type=int, help="Operations on their way at once."),
    click.option("--step", default="auto", show_default=True, help="Durability step."),
    click.option("--timeout", type=float, help="Seconds without progress that are allowed."),
    click.option("--launcher", help="openssh, paramiko or auto."),
    click.option("--protocol", help="native, pmdk or auto."),
    click.option(
        "--lane-hosts", help="Where the target may have its lanes, beside where ssh went."
    ),
)

replica_option = click.option(
    "--replica",
    "replicas",
    multiple=True,
    metavar="'TARGET NAME.set'",
    help="A replica, in quotes; may be repeated.  [default: REPLICA lines of the poolset file]",
)
mode_option = click.option(
    "--mode",
    callback=_as_mode,
    default="600",
    show_default=True,
    help="Permissions of new local files.",
)
local_argument = click.argument("local", type=click.Path(path_type=str))


def session_options(command: _Command) -> _Command:
    """Add the options that say how replicas are reached; see `session_of`."""
    for option in reversed(_SESSION):
        command = option(command)
    return command


def session_of(given: dict[str, Any]) -> SessionKeywords:
    """Return what `session_options` collected as keyword arguments of `Pool`."""
    return cast(
        "SessionKeywords", {key: value for key, value in given.items() if value is not None}
    )


def console() -> Console:
    """Return the console of stdout; in a file or a pipe, nothing is folded."""
    from rich.console import Console

    out = Console(highlight=False, emoji=False, markup=False)
    if not out.is_terminal:
        out.width = _UNFOLDED
    return out


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Return an empty table in the style of all verbs."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def readable(size: float) -> str:
    """Return a number of bytes in the largest unit that leaves a short number."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size == int(size) else f"{size:.1f} {unit}"


def pool_facts(pool: Pool) -> Table:
    """Return what a pool is, as a table of two columns."""
    facts = table("pool", pool.where)
    attributes = pool.attributes
    facts.add_row("size", f"{readable(pool.size)} ({pool.size} bytes)")
    facts.add_row("free", readable(pool.free))
    facts.add_row("arrays", str(len(pool)))
    facts.add_row("medium", pool.medium)
    facts.add_row("generation", str(pool.state.generation))
    if attributes is not None:
        facts.add_row("uuid", attributes.poolset_uuid.hex())
    return facts


def replica_facts(replicas: list[Replica]) -> Table:
    """Return what the replicas of an open pool are, one row each."""
    facts = table("replica", "provider", "lanes", "step", "medium", "level", right=("lanes",))
    for replica in replicas:
        facts.add_row(
            f"{replica.target} {replica.pool_set}",
            replica.provider,
            str(replica.nlanes),
            replica.step,
            replica.medium,
            replica.level,
        )
    return facts
