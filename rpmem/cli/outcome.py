"""What has come of a command that brought copies together: tables for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rpmem.cli.facts import pool_facts, raise_loss, replica_facts
from rpmem.terminal.tables import console

if TYPE_CHECKING:
    from rpmem.epochs.record import Parting
    from rpmem.pool.pool import Pool
    from rpmem.session.replica import Replica

__all__ = ["close_and_show"]


def close_and_show(pool: Pool, *, as_json_object: bool) -> None:
    """Close a pool whose replicas are up to date, and print what has come of it.

    Raises
    ------
    RpmemError
        A replica was lost: nothing is printed as JSON then.
    """
    with pool:
        replicas = pool.replicas
        given_up = _given_up(pool)
        shown = _as_json(pool, replicas, given_up)
        tables = [pool_facts(pool), replica_facts(replicas)]
        for parting in given_up:
            tables[0].add_row("given up", f"{parting.copy.hex()}, after epoch {parting.last}")
    if as_json_object:
        raise_loss(replicas)
        click.echo(json.dumps(shown))
        return
    out = console()
    for table in tables:
        out.print(table)
    raise_loss(replicas)


def _given_up(pool: Pool) -> list[Parting]:
    """Return the copies that the epoch that has just begun goes on without."""
    before = pool.history[1] if len(pool.history) > 1 else None
    return [each for each in pool.epoch.common if each.given_up and each.last == before]


def _as_json(pool: Pool, replicas: list[Replica], given_up: list[Parting]) -> dict[str, Any]:
    attributes = pool.attributes
    return {
        "pool": pool.where,
        "uuid": None if attributes is None else attributes.poolset_uuid.hex(),
        "size": pool.size,
        "epoch": {"number": pool.epoch.number, "identity": pool.epoch.identity.hex()},
        "level": pool.level,
        "replicas": [
            {
                "replica": f"{replica.target} {replica.pool_set}",
                "provider": replica.provider,
                "choice": replica.choice,
                "step": replica.step,
                "medium": replica.medium,
                "level": replica.level,
                "encryption": replica.encryption,
            }
            for replica in replicas
        ],
        "given_up": [parting.copy.hex() for parting in given_up],
    }
