"""A request for a lane over a socket."""

from __future__ import annotations

import socket

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
    """

    def __init__(
        self, connection: socket.socket, data: bytes, peer: tuple[str, int], answer: bytes
    ) -> None:
        self._connection = connection
        self.data = data
        self.peer = peer
        self.answer = answer

    def reject(self) -> None:
        """Hang up."""
        self._connection.close()

    def take(self) -> int:
        """Return the descriptor of the socket, which belongs to the lane now."""
        return self._connection.detach()
