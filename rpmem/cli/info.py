"""``rpmem info``: what a local pool is, without touching it."""

from __future__ import annotations

import click

from rpmem.cli.shared import console, local_argument, pool_facts


@click.command(short_help="Show what a local pool is.")
@local_argument
def command(local: str) -> None:
    """Show size, free room, medium and state of the pool LOCAL, and its REPLICA lines.

    Nothing is changed, no replica is connected, and a writer is not disturbed.
    """
    from rpmem.localcopy import place_of
    from rpmem.pool import Pool
    from rpmem.superblock import Phase

    specs = place_of(local).replicas
    with Pool.open(local, readonly=True) as pool:
        facts = pool_facts(pool)
        if pool.has_writer:
            writer = "has it open"
        else:
            writer = "closed it" if pool.state.phase is Phase.CLEAN else "did not close it"
        facts.add_row("last writer", writer)
        for spec in specs:
            facts.add_row("replica", str(spec))
        console().print(facts)
