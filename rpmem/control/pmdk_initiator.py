"""PMDK 0.1 at the initiator: the part of librpmem, towards an unmodified rpmemd."""

from __future__ import annotations

from typing import ClassVar, Final

from rpmem.base.steps import READ_AFTER_WRITE, SEND_AFTER_WRITE
from rpmem.control import pmdk
from rpmem.control.events import Event, Greeted
from rpmem.control.handshake import STATUS_SIZE, Protocol
from rpmem.control.initiator_machine import InitiatorMachine, InitiatorState
from rpmem.control.messages import Create, Message, Open, SetAttributes
from rpmem.control.pmdk import ANSWER_HEADER_SIZE, AnswerHeader, answer_to
from rpmem.control.pmdk_status import Status, error_of
from rpmem.errors import (
    AttributesRefused,
    ProviderUnavailable,
    ReplicaLost,
    UnexpectedMessage,
    VersionMismatch,
)

_STEPS: Final = ("auto", SEND_AFTER_WRITE.name, READ_AFTER_WRITE.name)


class PmdkInitiatorSession(InitiatorMachine):
    """A PMDK 0.1 session at the initiator, from the status word on.

    Of the providers in `Create` and `Open`, the first that this protocol can name (verbs, sockets)
    is used; ``parts`` and ``threads`` do not exist in it and are left out. Lanes are granted
    without tokens.

    Parameters
    ----------
    where : str
        The target as the user knows it; errors carry it.
    """

    protocol: ClassVar[Protocol] = Protocol.PMDK

    def __init__(self, *, where: str = "the target") -> None:
        super().__init__(where)
        self._buffer = bytearray()
        self._header: AnswerHeader | None = None
        self._has_header = False

    @property
    def buffered(self) -> int:
        """Bytes received that wait for the rest of their message."""
        return len(self._buffer)

    def _started(self, events: list[Event]) -> None:
        self.state = InitiatorState.IDLE
        events.append(Greeted(self.protocol, pmdk.VERSION))

    def _send_request(self, request: Message) -> Message:
        if isinstance(request, Create | Open):
            request = self._adapted(request)
        if isinstance(request, SetAttributes) and self._has_header and not any(request.attributes):
            raise AttributesRefused(
                "a pool with headers cannot have attributes that are all zero",
                where=self._where,
                hint="PMDK's rpmemd would crash",
            )
        self._output += pmdk.encode_request(request)
        return request

    def _decode(self, data: bytes, events: list[Event]) -> None:
        if self._request is None:
            raise UnexpectedMessage(f"{len(data)} bytes arrived that were not requested")
        self._buffer += data
        if len(self._buffer) < ANSWER_HEADER_SIZE:
            return
        if self._header is None:
            due = answer_to(pmdk.kind_of(self._request))
            self._header = pmdk.decode_answer_header(self._buffer, due)
        surplus = len(self._buffer) - self._header.size
        if surplus > 0:
            raise UnexpectedMessage(f"an answer is followed by {surplus} bytes")
        if surplus == 0:
            events.append(self._take(self._request, self._header.status))

    def _take(self, request: Message, status: Status) -> Event:
        body = bytes(self._buffer[ANSWER_HEADER_SIZE:])
        self._clear()
        if status is not Status.SUCCESS:
            return self._refused(error_of(status, request, where=self._where))
        if isinstance(request, Create | Open):
            ready = pmdk.decode_ready(request, body)
            self._has_header = ready.attributes is not None
            return self._opened(ready)
        return self._done()

    def _end(self) -> Event:
        # A second status word in place of an answer means that rpmemd did not understand the
        # request.
        if len(self._buffer) == STATUS_SIZE and self._request is not None:
            return self._fail(
                ReplicaLost(
                    f"rpmemd did not accept {type(self._request).__name__} and ended",
                    hint="Its log on the target says more",
                ),
                InitiatorState.LOST,
            )
        return super()._end()

    def _clear(self) -> None:
        self._buffer.clear()
        self._header = None

    def _adapted(self, request: Create | Open) -> Create | Open:
        if request.step not in _STEPS:
            raise VersionMismatch(
                f"the target speaks PMDK's protocol, which has no durability step {request.step}",
                where=self._where,
                hint="Install rpmem on the target",
            )
        provider = next((p for p in request.providers if p in pmdk.PROVIDERS.values()), None)
        if provider is None:
            raise ProviderUnavailable(
                f"the target speaks PMDK's protocol, which has no {' or '.join(request.providers)}",
                where=self._where,
                hint="Install rpmem on the target",
            )
        return request.replaced(providers=(provider,))
