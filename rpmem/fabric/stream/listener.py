"""The listener for lanes over TCP."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from rpmem.fabric.shared.door import Door
from rpmem.fabric.stream.call import ANSWER, Caller
from rpmem.fabric.stream.request import Request
from rpmem.fabric.stream.secret import SecretCaller

if TYPE_CHECKING:
    from rpmem.fabric.contract import Lane
    from rpmem.fabric.stream.fabric import Fabric

__all__ = ["TcpListener"]


class TcpListener:
    """Listens at the fabric's address, at a port chosen by the system.

    Parameters
    ----------
    fabric : Fabric
    lanes : int
        How many lanes are expected.
    """

    def __init__(self, fabric: Fabric, *, lanes: int = 0) -> None:
        self.fabric = fabric
        self._door: Door[Caller] = Door(fabric.host, self._met, lanes)
        self.port = self._door.port

    def next(self, timeout: float, lanes: dict[int, Lane]) -> Request | Lane | None:
        """Wait for the next event: a Request, a lane that is connected, or None.

        Parameters
        ----------
        timeout : float
            Seconds.
        lanes : dict
            ``lane.key`` to lane, for lanes accepted; the one that is reported is removed.
        """
        accepted = self.fabric.next_accepted(lanes)
        if accepted is not None:
            return accepted
        caller = self._door.next(timeout)
        if caller is None:
            return None
        return Request(caller.connection, caller.data, caller.peer, ANSWER, caller.secret)

    def _met(self, connection: socket.socket, peer: tuple[str, int]) -> Caller:
        """Return the visitor that has to prove itself in the way of this session."""
        if self.fabric.ring is None:
            return Caller(connection, peer)
        return SecretCaller(connection, peer, self.fabric.ring, self.fabric.proofs)

    def close(self) -> None:
        """Stop listening; established lanes stay. Idempotent."""
        self._door.close()
