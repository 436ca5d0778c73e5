"""A request for a lane over a socket."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rpmem.fabric.stream.handshake import Handshake

__all__ = ["Request"]


class Request:
    """A request for a connection: it becomes a FabricLane, or is rejected.

    Parameters
    ----------
    connection : socket.socket
        Owned.
    data : bytes
        What it is admitted by.
    peer : tuple
        Its origin: address and port.
    answer : bytes
        What the other side gets once the lane exists.
    secret : Handshake, optional
        What encrypts the connection.
    """

    def __init__(
        self,
        connection: socket.socket,
        data: bytes,
        peer: tuple[str, int],
        answer: bytes,
        secret: Handshake | None = None,
    ) -> None:
        self._connection = connection
        self.data = data
        self.peer = peer
        self.answer = answer
        self.secret = secret

    def reject(self) -> None:
        """Hang up."""
        self._connection.close()

    def take(self) -> int:
        """Return the descriptor of the socket, which belongs to the lane now."""
        return self._connection.detach()
