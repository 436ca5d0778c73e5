"""Who may have a lane: the connection requests that a session lets in."""

from __future__ import annotations

import socket
from typing import Protocol

from rpmem.control.proof import Tokens
from rpmemd.log import Log

_MAPPED = bytes(10) + b"\xff\xff"
#: Refusals that are logged; a stranger must not be able to fill a log.
MOST_LOGGED = 10


class Refusals:
    """Logs the first refusals of a session, and says when it stops.

    Parameters
    ----------
    log : Log
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._count = 0

    def note(self, what: str) -> None:
        """Take notice of a refusal."""
        self._count += 1
        if self._count <= MOST_LOGGED:
            self._log.warn(what)
        elif self._count == MOST_LOGGED + 1:
            self._log.warn("further refused connections are counted but not logged")


class Admission(Protocol):
    """Decides which connection requests become lanes."""

    def admit(self, private_data: bytes, peer: tuple[str, int]) -> int | None:
        """Return the number of the lane a request is for, None to turn it down."""


class TokenAdmission:
    """Admits a lane by the one-time token in its connection request.

    Parameters
    ----------
    tokens : sequence of bytes
        One per lane.
    log : Log
        Told of every refusal.
    """

    def __init__(self, tokens: tuple[bytes, ...], log: Log) -> None:
        self._tokens = Tokens(tokens)
        self._refusals = Refusals(log)

    def admit(self, private_data: bytes, peer: tuple[str, int]) -> int | None:
        """Return the number of the lane whose token this is."""
        number = self._tokens.redeem(private_data)
        if number is None:
            self._refusals.note(f"a connection from {peer[0]} without a valid token was refused")
        return number


class PeerAdmission:
    """Admits lanes of PMDK's protocol: all it can check is where they come from.

    Lanes are numbered in the order in which they connect.

    Parameters
    ----------
    address : str
        Where the control session comes from.
    lanes : int
        How many there are.
    log : Log
        Told of every refusal.
    """

    def __init__(self, address: str, lanes: int, log: Log) -> None:
        self._address = _binary(address)
        self._lanes = lanes
        self._refusals = Refusals(log)
        self._next = 0

    def admit(self, private_data: bytes, peer: tuple[str, int]) -> int | None:
        """Return the next lane's number, if the request is from the initiator's address."""
        if self._address is None or _binary(peer[0]) != self._address:
            self._refusals.note(
                f"a connection from {peer[0] or 'nowhere'}, not the ssh peer, was refused"
            )
            return None
        if self._next == self._lanes:
            self._refusals.note(f"a connection from {peer[0]} was refused: all lanes are taken")
            return None
        self._next += 1
        return self._next - 1


def _binary(address: str) -> bytes | None:
    """Return an address in network order; an IPv4 one also where an IPv6 socket saw it."""
    # A zone names an interface of this machine, not the peer.
    address = address.partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            raw = socket.inet_pton(family, address)
        except OSError:
            continue
        return raw[len(_MAPPED) :] if raw.startswith(_MAPPED) else raw
    return None
