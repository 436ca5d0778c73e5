"""Facts about an open pool and its replicas, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpmem.terminal.tables import console, readable, table

if TYPE_CHECKING:
    from rich.table import Table

    from rpmem.pool.pool import Pool
    from rpmem.session.replica import Replica

__all__ = ["pool_facts", "raise_loss", "replica_facts", "show_and_close"]


def pool_facts(pool: Pool) -> Table:
    """Return the facts about a pool, as a table of two columns."""
    facts = table("pool", pool.where)
    attributes = pool.attributes
    facts.add_row("size", f"{readable(pool.size)} ({pool.size} bytes)")
    facts.add_row("free", readable(pool.free))
    facts.add_row("arrays", str(len(pool)))
    facts.add_row("medium", pool.medium)
    facts.add_row("epoch", str(pool.epoch.stamp))
    if attributes is not None:
        facts.add_row("uuid", attributes.poolset_uuid.hex())
    return facts


def replica_facts(replicas: list[Replica]) -> Table:
    """Return a table of the replicas of an open pool, one row each."""
    facts = table(
        "replica", "provider", "lanes", "step", "medium", "level", "encryption", right=("lanes",)
    )
    for replica in replicas:
        facts.add_row(
            f"{replica.target} {replica.pool_set}",
            replica.provider,
            str(replica.nlanes),
            replica.step,
            replica.medium,
            replica.level,
            replica.encryption,
        )
    return facts


def raise_loss(replicas: list[Replica]) -> None:
    """Raise the error of a replica lost while closing: it is not marked as complete."""
    for replica in replicas:
        if replica.failure is not None:
            raise replica.failure


def show_and_close(pool: Pool) -> None:
    """Print the facts about an open pool and its replicas and close it; raise as `raise_loss`."""
    with pool:
        out, replicas = console(), pool.replicas
        out.print(pool_facts(pool))
        if replicas:
            out.print(replica_facts(replicas))
    raise_loss(replicas)
