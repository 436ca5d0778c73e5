"""Connections that want to become lanes over libfabric's ``tcp``.

That provider keeps every connection: descriptors of silent connections are never freed, not even
with the listener, and after half a request it waits for the rest, so that no other connection gets
in. So libfabric's own listener does not face the network: connections arrive at a socket of ours,
are identified by the private data of their requests, and only those admitted are handed to
libfabric, as if it had accepted them itself.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from rpmem.errors import FabricFailure
from rpmem.fabric.shared.door import LONGEST_WAIT, Visitor, short

#: Descriptors taken briefly to hand a lane over: libfabric's listener and the connection that it
#: accepts, ours to it, its duplicate, a listing of those that are open; and some spare ones.
HANDING_OVER: Final = 10
# libfabric's header of a request: version, type, size of the private data.
_REQUEST: Final = struct.Struct(">BBH28x")
_CONNECT: Final = 0
_LARGEST_DATA: Final = 256


class Caller(Visitor):
    """A connection that is to become a lane over libfabric; `data` is its private data."""

    largest = _REQUEST.size + _LARGEST_DATA

    def judge(self) -> bool | None:
        """Look at the request: True, it is whole; False, it never will be; None, wait."""
        if len(self.request) >= 2 and self.request[1] != _CONNECT:
            return False
        if len(self.request) < _REQUEST.size:
            return None
        _, _, size = _REQUEST.unpack_from(self.request)
        missing = _REQUEST.size + size - len(self.request)
        if size > _LARGEST_DATA or missing < 0:
            return False
        if missing:
            return None
        self.data = self.request[_REQUEST.size :]
        return True

    @contextmanager
    def inside(self, host: str, port: int) -> Iterator[tuple[tuple[str, int], int]]:
        """Repeat the request at a listener of this process.

        Yields the address it comes from, and the descriptor it will most likely have once accepted.

        Raises
        ------
        ConnectFailed
            That listener cannot be reached.
        """
        try:
            with socket.create_connection((host, port), LONGEST_WAIT) as double:
                double.sendall(self.request)
                guess = os.dup(double.fileno())
                os.close(guess)
                yield double.getsockname()[:2], guess
        except OSError as error:
            raise short(error, "a lane cannot be handed to libfabric") from error

    def replace(self, peer: tuple[str, int], guess: int) -> None:
        """Replace the accepted connection of `peer`, which libfabric knows by its descriptor.

        Parameters
        ----------
        peer : tuple
        guess : int
            The descriptor it most likely has; both as yielded by `inside`.
        """
        os.dup2(self.connection.fileno(), _descriptor_of(peer, guess), inheritable=False)
        self.connection.close()


def _descriptor_of(peer: tuple[str, int], guess: int) -> int:
    """Return the descriptor of this process's connection with `peer`."""
    if _has_peer(guess, peer):
        return guess
    for name in os.listdir("/proc/self/fd"):
        if _has_peer(int(name), peer):
            return int(name)
    raise FabricFailure("the connection that libfabric accepted cannot be found")


def _has_peer(descriptor: int, peer: tuple[str, int]) -> bool:
    with suppress(OSError):
        candidate = socket.socket(fileno=descriptor)
        try:
            found: tuple[str, int] = candidate.getpeername()[:2]
            return found == peer
        finally:
            candidate.detach()
    return False
