"""Frames of the native control protocol: a 16-byte header, then the payload.

The header is big-endian ``magic[4] kind:u16 flags:u16 serial:u32 length:u32``. A decoder never
holds more than one incomplete frame, and checks a header's bytes as they arrive: the first byte
that cannot be part of one ends the session.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from rpmem.errors import MalformedMessage, UsageError

MAGIC: Final = b"RPMf"
#: Payload limits by sender.
INITIATOR_LIMIT: Final = 64 * 1024
TARGET_LIMIT: Final = 1024 * 1024

_HEADER: Final = struct.Struct(">4sHHII")
HEADER_SIZE: Final = _HEADER.size


class Frame(NamedTuple):
    """One frame as received."""

    kind: int
    serial: int
    payload: bytes


def encode_frame(kind: int, serial: int, payload: bytes, *, limit: int) -> bytes:
    """Return a frame's bytes.

    Raises
    ------
    UsageError
        The payload is larger than the other side accepts.
    """
    if len(payload) > limit:
        raise UsageError(f"a control message of {len(payload)} bytes exceeds the limit of {limit}")
    return _HEADER.pack(MAGIC, kind, 0, serial, len(payload)) + payload


class FrameDecoder:
    """Cuts a byte stream into frames.

    Parameters
    ----------
    limit : int
        Largest payload to accept.
    """

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes held back because their frame is not complete."""
        return len(self._buffer)

    def clear(self) -> None:
        """Forget an incomplete frame."""
        self._buffer.clear()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take `data` and yield every frame that is now complete.

        Raises
        ------
        MalformedMessage
            At the first invalid header; nothing after it can be understood.
        """
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        buffer = self._buffer
        start = bytes(buffer[: len(MAGIC)])
        if not MAGIC.startswith(start):
            raise MalformedMessage(f"a frame starts with {start!r} instead of {MAGIC!r}")
        if len(buffer) < HEADER_SIZE:
            return None
        _, kind, flags, serial, length = _HEADER.unpack_from(buffer)
        if flags:
            raise MalformedMessage(f"a frame has the unknown flags {flags:#06x}")
        if length > self._limit:
            raise MalformedMessage(f"a frame announces {length} bytes; the limit is {self._limit}")
        end = HEADER_SIZE + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[HEADER_SIZE:end])
        del buffer[:end]
        return Frame(kind, serial, payload)
