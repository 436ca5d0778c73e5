"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _as_mode(context: click.Context, option: click.Parameter, value: str) -> int:
    from rpmem.pool.options import mode_of

    try:
        return mode_of(int(value, 8))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a mode such as 600 or 640") from error


def _as_replicas(
    context: click.Context, argument: click.Parameter, words: tuple[str, ...]
) -> list[str | tuple[str, str]]:
    """Read replicas that are given as two words each, or as one with a blank in it."""
    found: list[str | tuple[str, str]] = []
    rest = list(words)
    while rest:
        first = rest.pop(0)
        if " " in first and first.endswith(".set"):
            found.append(first)
        elif rest:
            found.append((first, rest.pop(0)))
        else:
            raise click.BadParameter(f"{first!r} is not followed by the name of a pool set")
    return found


_TIMEOUT = click.option(
    "--timeout", type=float, help="Seconds to wait while nothing makes progress."
)
_LAUNCHER = click.option("--launcher", help="openssh, paramiko or auto.")
_SESSION = (
    click.option(
        "--provider",
        help="What carries lanes: stream, verbs, or a provider of libfabric such as tcp.",
    ),
    click.option("--lanes", "nlanes", type=int, help="Operations that may be in progress at once."),
    click.option(
        "--step", default="auto", show_default=True, help="How data is made durable on the target."
    ),
    _TIMEOUT,
    _LAUNCHER,
    click.option("--protocol", help="native, pmdk or auto."),
    click.option("--encryption", help="Of lanes to other machines: on, off or auto."),
    click.option(
        "--lane-hosts", help="Hosts to which lanes may go, besides the one that ssh reached."
    ),
)

rate_option = click.option(
    "--rate-limit",
    metavar="SIZE",
    help="The most bytes that are read, compared or sent in a second, such as 100MB.",
)
discard_option = click.option(
    "--discard",
    multiple=True,
    metavar="'TARGET NAME.set'",
    help="Overwrite this replica even if it holds what LOCAL does not; may be repeated.",
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
replicas_argument = click.argument(
    "replicas", nargs=-1, required=True, metavar="TARGET NAME.set...", callback=_as_replicas
)
any_replicas_argument = click.argument(
    "replicas", nargs=-1, metavar="[TARGET NAME.set]...", callback=_as_replicas
)
where_argument = click.argument("where", metavar="LOCAL | TARGET")
pool_set_argument = click.argument("pool_set", metavar="[NAME.set]", required=False)
local_argument = click.argument("local", type=click.Path(path_type=str))


def json_option(what: str) -> Callable[[_Command], _Command]:
    """Return the option for output that programs read."""
    return click.option("--json", "as_json_object", is_flag=True, help=what)


def look_options(command: _Command) -> _Command:
    """Add the options for reaching a target that is only looked at: some of `LookKeywords`."""
    for option in (_LAUNCHER, _TIMEOUT):
        command = option(command)
    return command


def session_options(command: _Command) -> _Command:
    """Add the options for reaching replicas: those of `SessionKeywords`."""
    for option in reversed(_SESSION):
        command = option(command)
    return command
