"""What the machines of both sides have in common: bytes in, events and bytes out."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from rpmem.control.events import Event
from rpmem.control.handshake import Protocol
from rpmem.errors import RpmemError

StateT = TypeVar("StateT", bound=enum.Enum)


class Machine(ABC, Generic[StateT]):
    """A control session, seen from one of its sides.

    Parameters
    ----------
    first : enum member
        Where it begins.

    Attributes
    ----------
    state : enum member
        Where it stands.
    broken : RpmemError or None
        Why the session failed.
    protocol : Protocol
        Of the class.
    final : frozenset
        Of the class: the states in which nothing more is received or sent.
    """

    protocol: ClassVar[Protocol]
    final: ClassVar[frozenset[enum.Enum]]

    def __init__(self, first: StateT) -> None:
        self.state = first
        self.broken: RpmemError | None = None
        self._output = bytearray()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be received or sent."""
        return self.state in self.final

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes received that wait for the rest of their message."""

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the other side and return what they mean."""
        events: list[Event] = []
        if self.ended:
            return events
        self._consume(data, events)
        if self.state in self.final:
            self._clear()
        return events

    def receive_eof(self) -> list[Event]:
        """Take notice that the other side's bytes have ended."""
        if self.ended:
            return []
        event = self._end()
        self._clear()
        return [event]

    def data_to_send(self) -> bytes:
        """Return what is to be written to the other side now, and forget it."""
        data = bytes(self._output)
        self._output.clear()
        return data

    @abstractmethod
    def _consume(self, data: bytes, events: list[Event]) -> None:
        """Append the events in `data`, and the one that a breach of the protocol is."""

    @abstractmethod
    def _end(self) -> Event:
        """Change state at the end of the other side's bytes."""

    @abstractmethod
    def _clear(self) -> None:
        """Forget buffered input."""
