"""What the catalogue needs of a pool: bytes that can be stored, flushed and replicated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Source(Protocol):
    """What a catalogue can be read from; offsets are pool offsets."""

    def load(self, offset: int, length: int) -> bytes:
        """Return the bytes as this copy has them."""


class Medium(Source, Protocol):
    """What a catalogue can be changed on."""

    def store(self, offset: int, data: bytes) -> None:
        """Put bytes into the local copy; nothing is promised about their durability."""

    def zero(self, offset: int, length: int) -> None:
        """Like `store`, of zeros."""

    def persist(self, offset: int, length: int) -> None:
        """Return when the range is durable locally."""

    def spread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Return when ranges are durable locally and on every replica, in whatever order."""
