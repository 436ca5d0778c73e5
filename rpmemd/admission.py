"""Admission of lanes: which connection requests a session accepts."""

from __future__ import annotations

import socket
from typing import Protocol

from rpmem.control.proof import Tokens
from rpmemd.log import Log

_MAPPED = bytes(10) + b"\xff\xff"
#: Most refusals that are logged; strangers must not be able to fill a log.
MOST_LOGGED = 10


class Refusals:
    """Logs the first refusals of a session, and notes in the log when it stops.

    Parameters
    ----------
    log : Log
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._count = 0

    def note(self, what: str) -> None:
        """Record a refusal."""
        self._count += 1
        if self._count <= MOST_LOGGED:
            self._log.warn(what)
        elif self._count == MOST_LOGGED + 1:
            self._log.warn("further refused connections are counted but not logged")


class Admission(Protocol):
    """Decides which connection requests become lanes."""

    def admit(self, private_data: bytes, peer: tuple[str, int]) -> int | None:
        """Return the number of the lane a request is for, or None to reject it."""


class TokenAdmission:
    """Admits a lane by the one-time token in its connection request.

    Parameters
    ----------
    tokens : sequence of bytes
        One per lane.
    log : Log
        Receives every refusal.
    """

    def __init__(self, tokens: tuple[bytes, ...], log: Log) -> None:
        self._tokens = Tokens(tokens)
        self._refusals = Refusals(log)

    def admit(self, private_data: bytes, peer: tuple[str, int]) -> int | None:
        """Return the number of the lane with this token."""
        number = self._tokens.redeem(private_data)
        if number is None:
            self._refusals.note(f"a connection from {peer[0]} without a valid token was refused")
        return number


class OrderAdmission:
    """Admits lanes that were passed to the initiator, in the order in which that was done.

    Parameters
    ----------
    lanes : int
        Number of lanes.
    """

    def __init__(self, lanes: int) -> None:
        self._numbers = iter(range(lanes))

    def admit(self, private_data: bytes, peer: tuple[str, int]) -> int | None:
        """Return the next lane's number: nobody else has the other ends."""
        return next(self._numbers, None)


class PeerAdmission:
    """Admits lanes of PMDK's protocol, which can only be checked by their origin.

    Lanes are numbered in the order in which they connect.

    Parameters
    ----------
    address : str
        The address the control session comes from.
    lanes : int
        Number of lanes.
    log : Log
        Receives every refusal.
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
    """Return an address in network order; an IPv4-mapped one as IPv4."""
    # A zone names an interface of this machine, not the peer.
    address = address.partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            raw = socket.inet_pton(family, address)
        except OSError:
            continue
        return raw[len(_MAPPED) :] if raw.startswith(_MAPPED) else raw
    return None
