"""PMDK 0.1 at the target: the part of rpmemd, towards an unmodified librpmem."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import ClassVar

from rpmem.control import pmdk
from rpmem.control.events import Event, Greeted
from rpmem.control.handshake import Protocol, pack_status
from rpmem.control.messages import Create, Open, Ready
from rpmem.control.pmdk import REQUEST_HEADER_SIZE, Breach, Kind, RequestHeader, answer_to
from rpmem.control.pmdk_status import status_of
from rpmem.control.target_machine import TargetMachine, TargetState
from rpmem.errors import ProtocolError


class PmdkTargetSession(TargetMachine):
    """A PMDK 0.1 session at the target, from the first request on.

    PMDK's rpmemd trusts its input: false sizes, zero lanes and attributes set too early make it
    overrun its heap, abort or allocate without limit. Here every such request is refused: with an
    answer if the request is complete, else, like rpmemd, with a second status word, and the session
    ends.
    """

    protocol: ClassVar[Protocol] = Protocol.PMDK

    def __init__(self) -> None:
        super().__init__(TargetState.IDLE)
        self._buffer = bytearray()
        self._header: RequestHeader | None = None
        self._answer: Kind | None = None

    @property
    def buffered(self) -> int:
        """Bytes received that wait for the rest of their message."""
        return len(self._buffer)

    def log(self, level: str, message: str) -> None:
        """Do nothing: this protocol cannot express it."""

    def failure(self, error: BaseException) -> None:
        """Do nothing: in this protocol an initiator notices it by its lanes' connections."""

    def _decode(self, data: bytes) -> Iterator[Event]:
        self._buffer += data
        while (header := self._next_header()) is not None:
            if len(self._buffer) < header.size:
                return
            body = bytes(self._buffer[REQUEST_HEADER_SIZE : header.size])
            del self._buffer[: header.size]
            request = pmdk.decode_request(header.kind, body)
            self._answer = answer_to(header.kind)
            event = self._accept(request)
            self._header = None
            if isinstance(request, Create | Open):
                yield Greeted(self.protocol, pmdk.VERSION)
            if event is not None:
                yield event

    def _next_header(self) -> RequestHeader | None:
        if self._header is None and len(self._buffer) >= REQUEST_HEADER_SIZE:
            self._header = pmdk.decode_request_header(self._buffer)
        return self._header

    def _clear(self) -> None:
        self._buffer.clear()
        self._header = None

    def _reject(self, error: ProtocolError) -> None:
        if self._header is None:
            self._output += pack_status(errno.EPROTO)
            return
        status = error.status if isinstance(error, Breach) else status_of(error)
        self._output += pmdk.encode_error(answer_to(self._header.kind), status)

    def _send_ready(self, answer: Ready) -> None:
        assert self._answer is not None
        self._output += pmdk.encode_ready(self._answer, answer)

    def _send_done(self) -> None:
        assert self._answer is not None
        self._output += pmdk.encode_done(self._answer)

    def _send_error(self, error: BaseException) -> None:
        assert self._answer is not None
        self._output += pmdk.encode_error(self._answer, status_of(error))
