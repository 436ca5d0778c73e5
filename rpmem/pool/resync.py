"""Which replicas are up to date when a pool is opened, and how the others are brought up to date.

Every copy of a pool has a state word: a generation, incremented whenever the pool is opened for
writing, and whether that writer closed it (`rpmem.pool.superblock.State`). A replica is up to date
exactly if it and the local copy have the same generation and both were closed. Otherwise the whole
pool is sent to it.

No acknowledged data is lost by that: ``persist`` returns only when the range is durable locally
*and* on every attached replica, so all acknowledged data is in the local copy, and sending that can
only add to a replica of the same or an older generation. A replica with a *newer* generation has
seen a writer that this local copy has not; overwriting it could lose data acknowledged to that
writer, so it is refused (`StaleReplica`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rpmem.base import interrupts
from rpmem.errors import CatalogueCorrupt, HeaderError, StaleReplica
from rpmem.files.attributes import SIGNATURE
from rpmem.pool import stateword
from rpmem.pool.superblock import (
    FORMAT,
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SLOTS_OFFSET,
    STATE_OFFSET,
    STATE_SIZE,
    Layout,
    Phase,
    State,
    other_format,
)

if TYPE_CHECKING:
    from rpmem.files.attributes import PoolAttributes
    from rpmem.pool.medium import PoolMedium
    from rpmem.session.replica import Replica

log = logging.getLogger(__name__)

#: Bytes per call; interrupts are noticed between two calls.
CHUNK = 16 << 20


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a replica according to its superblock.

    Parameters
    ----------
    layout : Layout or None
        Its superblock; None if it is missing or damaged.
    state : State or None
        Its state word; None if it is missing or damaged.
    """

    layout: Layout | None
    state: State | None

    @property
    def generation(self) -> int:
        """Its generation; 0 if it was never complete."""
        return 0 if self.state is None or self.layout is None else self.state.generation

    def is_current(self, layout: Layout, state: State) -> bool:
        """Whether this replica equals a local copy with the given layout and state."""
        return self.layout == layout and self.state == state and state.phase is Phase.CLEAN


def name_of(replica: Replica) -> str:
    """Return the user's name for the replica."""
    return f"{replica.target} {replica.pool_set}"


def standing_of(replica: Replica) -> Standing:
    """Read the superblock of a replica."""
    superblock = bytearray(STATE_OFFSET + STATE_SIZE - LAYOUT_OFFSET)
    replica.read(superblock, LAYOUT_OFFSET)
    return parse_standing(bytes(superblock), name_of(replica))


def parse_standing(superblock: bytes, where: str) -> Standing:
    """Read a superblock from its bytes, which begin at `LAYOUT_OFFSET`; None for damaged parts."""
    try:
        layout = Layout.unpack(superblock[:LAYOUT_SIZE], where=where)
        state = State.unpack(superblock[STATE_OFFSET - LAYOUT_OFFSET :], where=where)
    except CatalogueCorrupt as error:
        log.info("%s", error)
        return Standing(None, None)
    return Standing(layout, state)


def check_format(attributes: PoolAttributes | None, where: str) -> None:
    """Raise `HeaderError` when a header is that of a pool in another version of our format."""
    if attributes is not None and attributes.signature == SIGNATURE and attributes.major != FORMAT:
        raise other_format(attributes.major, where)


def check_identity(replica: Replica, standing: Standing, layout: Layout) -> None:
    """Raise `HeaderError` unless the replica's header and superblock belong to this pool.

    They have to be of this version's format, too.
    """
    attributes = replica.attributes
    check_format(attributes, name_of(replica))
    ids = {"header": attributes.poolset_uuid} if attributes is not None else {}
    if standing.layout is not None:
        ids["superblock"] = standing.layout.pool_id
    for place, found in ids.items():
        if found != layout.pool_id:
            raise HeaderError(
                f"the {place} belongs to another pool (poolset_uuid {found.hex()}, "
                f"this pool has {layout.pool_id.hex()})",
                where=name_of(replica),
                hint="Name the pool set that was created with this pool",
            )


def check_age(replica: Replica, standing: Standing, state: State) -> None:
    """Raise `StaleReplica` if the replica has seen a later writer than the local copy."""
    if standing.generation > state.generation:
        raise StaleReplica(
            f"the replica holds generation {standing.generation} of the pool, "
            f"the local copy only generation {state.generation}",
            where=name_of(replica),
            hint="The local copy is out of date: move it away and use Pool.restore. "
            "To give up the replica's newer data instead, open with force=True",
        )


def push(replica: Replica, medium: PoolMedium, layout: Layout, state: State, had: int) -> None:
    """Send the whole local copy to a replica.

    Parameters
    ----------
    replica : Replica
        Connected, and not yet part of the pool's `Replicator`.
    medium : PoolMedium
        The local copy.
    layout, state : Layout, State
        The local superblock; the state is already durable.
    had : int
        The generation of the replica.

    Notes
    -----
    While another generation is being overwritten, the replica is a mixture and marked as such: its
    phase is SYNCING until everything has arrived. Within one generation, a mixture still has all
    acknowledged data, so the phase stays OPEN.
    """
    log.info("%s: sending the whole pool, generation %d", name_of(replica), state.generation)
    if had != state.generation:
        # In the local copy SYNCING means the same as OPEN.
        with stateword.lent(medium, replace(state, phase=Phase.SYNCING)):
            stateword.send(replica)
    for begin in range(SLOTS_OFFSET, layout.pool_size, CHUNK):
        interrupts.check()
        replica.persist(begin, min(CHUNK, layout.pool_size - begin), relaxed=True)
    replica.persist(LAYOUT_OFFSET, LAYOUT_SIZE)
    with stateword.lent(medium, state):
        stateword.send(replica)
