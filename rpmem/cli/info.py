"""``rpmem info``: what a local pool is, without touching it."""

from __future__ import annotations

import click

from rpmem.cli.facts import pool_facts
from rpmem.cli.options import local_argument
from rpmem.terminal.tables import console


@click.command(short_help="Show what a local pool is.")
@local_argument
def command(local: str) -> None:
    """Show size, free space, medium and state of the pool LOCAL, and its REPLICA lines.

    Nothing is changed, no replica is contacted, and a program that is writing is not disturbed.
    """
    from rpmem.pool.local import place_of
    from rpmem.pool.pool import Pool

    specs = place_of(local).replicas
    with Pool.open(local, readonly=True) as pool:
        facts = pool_facts(pool)
        if pool.has_writer:
            writer = "has it open"
        else:
            writer = "closed it" if pool.record.mark.name == "CLEAN" else "did not close it"
        facts.add_row("last writer", writer)
        for spec in specs:
            facts.add_row("replica", str(spec))
        console().print(facts)
