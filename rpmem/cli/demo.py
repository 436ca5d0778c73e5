"""``rpmem demo``: a replicated pool at work, a crash, and everything back."""

from __future__ import annotations

import click

from rpmem.terminal.tables import console


@click.command(short_help="Watch a replicated pool at work while its target is killed.")
@click.argument("where", metavar="[TARGET]", required=False)
@click.option("--target", help="The same as the argument.  [default: a child process, without ssh]")
@click.option(
    "--directory", help="Directory for the local pool, and for the target's if it is a child."
)
@click.option("--size", default="64MiB", show_default=True, help="Size of the pool.")
@click.option(
    "--image", default="rpmem-demo.png", show_default=True, help="File for the plot of latencies."
)
def command(
    where: str | None, target: str | None, directory: str | None, size: str, image: str
) -> int:
    """Create a replicated pool, measure it, kill its target, and restore it from the replica.

    The exit status is 0 if every acknowledged byte came back.
    """
    from rpmem.demo import run

    return 0 if run(console(), where or target, directory, size, image) else 1
