"""The common part of both protocols at the target: states, and the commands allowed in each."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Iterator
from typing import Final

from rpmem.control.events import (
    CloseRequested,
    CreateRequested,
    DigestsRequested,
    Event,
    InitiatorGone,
    LeaveRequested,
    LookRequested,
    OpenRequested,
    SessionFailed,
    SetAttributesRequested,
    SetEpochRequested,
)
from rpmem.control.machine import Machine
from rpmem.control.messages import (
    ATTRIBUTES_SIZE,
    Close,
    Create,
    Digest,
    Left,
    List,
    Look,
    Message,
    Open,
    Peek,
    Ready,
    SetAttributes,
    SetEpoch,
)
from rpmem.errors import AttributesRefused, ProtocolError, UnexpectedMessage, UsageError

_NO_ATTRIBUTES: Final = bytes(ATTRIBUTES_SIZE)


class TargetState(enum.Enum):
    """The state of a session, seen from the target."""

    GREETING = "waiting for the initiator's Hello"
    IDLE = "waiting for create or open"
    OPENING = "carrying out create or open"
    OPEN = "serving a pool"
    SETTING = "carrying out a change"
    HASHING = "taking digests"
    EXAMINING = "carrying out a look"
    LOOKING = "letting its initiator look"
    CLOSING = "carrying out close"
    CLOSED = "ended properly"
    FAILED = "ended by a violation of the protocol"
    LOST = "ended without a close"


class TargetMachine(Machine[TargetState]):
    """A control session at the target: bytes in, events out, commands in, bytes out.

    The caller passes what it reads to `receive`, reports the end of input by `receive_eof`, carries
    out the requests among the events, and writes what `data_to_send` returns after every call. Each
    request is answered by exactly one of `ready`, `done` and `error` before the initiator may send
    the next. Once the session has ended, input is dropped and commands do nothing.

    Attributes
    ----------
    state : TargetState
    broken : RpmemError or None
        Why the session failed.
    """

    final = frozenset({TargetState.CLOSED, TargetState.FAILED, TargetState.LOST})

    def __init__(self, first: TargetState) -> None:
        super().__init__(first)
        self._has_attributes = False
        self._request: Create | Open | None = None

    def _consume(self, data: bytes, events: list[Event]) -> None:
        try:
            for event in self._decode(data):
                events.append(event)
                if self.ended:
                    break
        except ProtocolError as error:
            self._reject(error)
            self.broken = error
            self.state = TargetState.FAILED
            events.append(SessionFailed(error))

    def _end(self) -> Event:
        self.state = TargetState.LOST
        return InitiatorGone()

    # --- commands -------------------------------------------------------------------------

    def ready(self, answer: Ready) -> None:
        """Answer create or open: the pool is registered and the listener is ready."""
        if not self._may(TargetState.OPENING, command="ready"):
            return
        assert self._request is not None
        if mismatch := answer.mismatch(self._request):
            raise UsageError(f"the answer to {type(self._request).__name__} {mismatch}")
        self._send_ready(answer)
        self._has_attributes = answer.attributes is not None
        self.state = TargetState.OPEN

    def done(self) -> None:
        """Answer any request but create and open: it is done."""
        if not self._may(TargetState.SETTING, TargetState.CLOSING, command="done"):
            return
        self._send_done()
        self._settle()

    def error(self, error: BaseException) -> None:
        """Answer any request: it failed.

        Unless it was about a pool that is served, this ends the session.
        """
        if not self._may(
            TargetState.OPENING,
            TargetState.SETTING,
            TargetState.HASHING,
            TargetState.EXAMINING,
            TargetState.CLOSING,
            command="error",
        ):
            return
        self._send_error(error)
        self._settle()

    @abstractmethod
    def log(self, level: str, message: str) -> None:
        """Send a log record to the initiator's user, if the protocol can."""

    @abstractmethod
    def failure(self, error: BaseException) -> None:
        """Tell the initiator that the lanes are no longer served, if the protocol can."""

    # --- for the subclasses ---------------------------------------------------------------

    @abstractmethod
    def _decode(self, data: bytes) -> Iterator[Event]:
        """Yield the events in `data`; raise `ProtocolError` on a violation."""

    @abstractmethod
    def _reject(self, error: ProtocolError) -> None:
        """Send the protocol's answer to an initiator that violated it."""

    @abstractmethod
    def _send_ready(self, answer: Ready) -> None: ...

    @abstractmethod
    def _send_done(self) -> None: ...

    @abstractmethod
    def _send_error(self, error: BaseException) -> None: ...

    def _accept(self, request: Message) -> Event | None:
        """Change state for a request; None if it was answered immediately."""
        match request:
            case Create():
                self._expect(TargetState.IDLE, request)
                self._request = request
                self.state = TargetState.OPENING
                return CreateRequested(request)
            case Open():
                self._expect(TargetState.IDLE, request)
                self._request = request
                self.state = TargetState.OPENING
                return OpenRequested(request)
            case SetAttributes(attributes=attributes):
                self._expect(TargetState.OPEN, request)
                self.state = TargetState.SETTING
                if attributes == _NO_ATTRIBUTES:
                    self._answer_zero()
                    return None
                return SetAttributesRequested(attributes)
            case SetEpoch(record=record, discard=discard):
                self._expect(TargetState.OPEN, request)
                self.state = TargetState.SETTING
                return SetEpochRequested(record, discard)
            case Left():
                self._expect(TargetState.OPEN, request)
                self.state = TargetState.SETTING
                return LeaveRequested()
            case Digest():
                self._expect(TargetState.OPEN, request)
                self.state = TargetState.HASHING
                return DigestsRequested(request)
            case Look():
                self._expect(TargetState.IDLE, request)
                self.state = TargetState.EXAMINING
                return LookRequested(request)
            case Peek():
                self._expect(TargetState.LOOKING, request)
                self.state = TargetState.EXAMINING
                return LookRequested(request)
            case List():
                self._expect(TargetState.IDLE, request, TargetState.LOOKING)
                self.state = TargetState.EXAMINING
                return LookRequested(request)
            case Close(remove=remove):
                self._expect(TargetState.OPEN, request, TargetState.LOOKING)
                self.state = TargetState.CLOSING
                return CloseRequested(remove)
        raise UnexpectedMessage(f"{type(request).__name__} is not allowed here")

    def _answer_zero(self) -> None:
        # Only a pool without headers can have no attributes; either way there is nothing to do.
        if self._has_attributes:
            self.error(
                AttributesRefused("the pool has a header, so its attributes cannot be all zero")
            )
        else:
            self.done()

    def _expect(self, state: TargetState, request: Message, *or_else: TargetState) -> None:
        if self.state not in (state, *or_else):
            raise UnexpectedMessage(
                f"{type(request).__name__} came while the target was {self.state.value}"
            )

    def _may(self, *states: TargetState, command: str) -> bool:
        if self.ended:
            return False
        if self.state not in states:
            raise UsageError(f"{command} is not possible now: the target is {self.state.value}")
        return True

    def _settle(self) -> None:
        if self.state in (TargetState.SETTING, TargetState.HASHING):
            self.state = TargetState.OPEN
        else:
            self.state = TargetState.CLOSED
            self._clear()
