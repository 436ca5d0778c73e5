"""The ``rpmem`` command: one module per verb, imported when it is used.

Each verb's module has a click command called ``command``. An `RpmemError` that reaches `main`
becomes one message on stderr and the error's exit status.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from rpmem._version import __version__
from rpmem.base.remedies import remedy_for
from rpmem.errors import RpmemError

VERBS = (
    "create",
    "open",
    "info",
    "list",
    "ls",
    "sync",
    "attach",
    "restore",
    "verify",
    "remove",
    "check",
    "demo",
)

_INTERRUPTED = 130
_BUG = 70  # EX_SOFTWARE


class Verbs(click.Group):
    """A group that finds its commands in modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of a pool's life cycle."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a verb."""
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"rpmem.cli.{name}").command
        return command


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rpmem")
@click.option("-v", "--verbose", count=True, help="Log what happens; repeat to log everything.")
@click.option("--debug", is_flag=True, help="Show a traceback if an error ends the command.")
def cli(verbose: int, debug: bool) -> None:
    """Replicate persistent memory to other machines.

    LOCAL is a plain file or a poolset(5) file. A replica is given by a TARGET, such as
    user@node2, node2:2222, [fd00::2]:22 or local:/directory, and the name of a pool set there.
    """
    import logging

    levels = {0: logging.CRITICAL, 1: logging.INFO}
    logging.basicConfig(
        format="%(name)s: %(message)s", level=levels.get(verbose, logging.DEBUG), force=True
    )


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and exit with its status.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(given, debug="--debug" in given))


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        result: Any = cli.main(args=arguments, prog_name="rpmem", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("rpmem: interrupted", err=True)
        return _INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Print the error that ended the command; return its exit status."""
    if isinstance(error, RpmemError):
        click.echo(f"rpmem: {error}", err=True)
        return error.exit_status
    if isinstance(error, OSError):
        # For instance Python's own errors, if it cannot load a module.
        remedy = remedy_for(error.errno)
        place = error.filename or "this command"
        said = error.strerror or str(error)
        click.echo(f"rpmem: {place}: {said}.{f' {remedy}.' if remedy else ''}", err=True)
        return 1
    click.echo(
        f"rpmem: this should not have happened: {type(error).__name__}: {error}\n"
        "Please report it, and include the output of 'rpmem --debug'.",
        err=True,
    )
    return _BUG
