"""The state word in memory: how it gets into the local copy, and from there to replicas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rpmem.pool.superblock import STATE_OFFSET, STATE_SIZE, State

if TYPE_CHECKING:
    from rpmem.pool.medium import PoolMedium
    from rpmem.session.replica import Replica

#: Offset and length in every copy.
PLACE: Final = (STATE_OFFSET, STATE_SIZE)


def read(medium: PoolMedium, where: str) -> State:
    """Return the word of the local copy; `CatalogueCorrupt` if it is damaged."""
    return State.unpack(medium.load(*PLACE), where=where)


def put(medium: PoolMedium, state: State) -> None:
    """Put a word into the local copy, without making it durable."""
    medium.store(STATE_OFFSET, state.pack())


def write(medium: PoolMedium, state: State) -> None:
    """Put a word into the local copy, durably."""
    put(medium, state)
    medium.persist(*PLACE)


def send(replica: Replica) -> None:
    """Make the word of the local copy durable on a replica that has no `Replicator` yet."""
    replica.persist(*PLACE)


@contextmanager
def lent(medium: PoolMedium, state: State) -> Iterator[None]:
    """Put another word into the local copy during the block, as data is sent from there."""
    before = medium.load(*PLACE)
    put(medium, state)
    try:
        yield
    finally:
        medium.store(STATE_OFFSET, before)
