"""The common part of both protocols at the initiator: states, status word, command order."""

from __future__ import annotations

import enum
import os
from abc import abstractmethod
from typing import Final

from rpmem.base.printable import printable
from rpmem.control.events import (
    AttributesSet,
    Closed,
    Event,
    Opened,
    RecordSet,
    Refused,
    SessionFailed,
)
from rpmem.control.handshake import STATUS_SIZE, unpack_status
from rpmem.control.machine import Machine
from rpmem.control.messages import (
    DIGEST,
    EPOCHS,
    LEFT,
    Close,
    Create,
    Digest,
    Left,
    Message,
    Open,
    Ready,
    SetAttributes,
    SetEpoch,
)
from rpmem.errors import (
    ClosedError,
    LaunchFailed,
    MalformedMessage,
    NoiseBeforeProtocol,
    ProtocolError,
    ReplicaLost,
    RpmemError,
    UnexpectedMessage,
    UsageError,
)

_STRAY_LIMIT: Final = 4096


class InitiatorState(enum.Enum):
    """The state of a session, seen from the initiator."""

    STARTING = "waiting for the target's status word"
    GREETING = "waiting for the target's Hello"
    IDLE = "ready for create or open"
    OPENING = "waiting for the answer to create or open"
    OPEN = "open"
    SETTING = "waiting for the answer to a change"
    HASHING = "waiting for digests"
    EXAMINING = "waiting for something to look at"
    LOOKING = "looking"
    CLOSING = "waiting for the answer to close"
    CLOSED = "ended properly"
    FAILED = "ended by a violation of the protocol"
    LOST = "ended by the target"
    LEGACY = "ended: the target speaks PMDK's protocol"


class InitiatorMachine(Machine[InitiatorState]):
    """A control session at the initiator: commands in, bytes out, bytes in, events out.

    The caller writes what `data_to_send` returns after every call, passes what it reads to
    `receive`, and reports the end of input by `receive_eof`. After `Greeted`, `create` or `open` is
    allowed once; after `Opened`, `set_attributes`, `set_epoch`, `leave`, `digest` and `close`; each
    only after the answer to the one before.

    Parameters
    ----------
    where : str
        The target as the user knows it; errors carry it.

    Attributes
    ----------
    state : InitiatorState
    broken : RpmemError or None
        Why the session failed.
    features : frozenset of str
        The features that both sides have; PMDK's protocol has none.
    stray : bytes
        The first bytes that did not belong to the protocol (at most 4096), for diagnosis: mostly
        the output of a login script.
    """

    final = frozenset(
        {
            InitiatorState.CLOSED,
            InitiatorState.FAILED,
            InitiatorState.LOST,
            InitiatorState.LEGACY,
        }
    )

    def __init__(self, where: str) -> None:
        super().__init__(InitiatorState.STARTING)
        self.features: frozenset[str] = frozenset()
        self.stray = b""
        self._where = where
        self._status = bytearray()
        self._request: Message | None = None

    def _consume(self, data: bytes, events: list[Event]) -> None:
        try:
            if self.state is InitiatorState.STARTING:
                data = self._take_status(data, events)
            if data:
                self._decode(data, events)
        except RpmemError as error:
            events.append(self._fail(error))

    # --- commands -------------------------------------------------------------------------

    def create(self, request: Create) -> None:
        """Ask for a pool to be created and served."""
        self._issue(request, InitiatorState.IDLE, InitiatorState.OPENING)

    def open(self, request: Open) -> None:
        """Ask for an existing pool to be served."""
        self._issue(request, InitiatorState.IDLE, InitiatorState.OPENING)

    def set_attributes(self, attributes: bytes) -> None:
        """Ask for the pool's attributes to be replaced."""
        request = SetAttributes(attributes=attributes)
        self._issue(request, InitiatorState.OPEN, InitiatorState.SETTING)

    def set_epoch(self, record: bytes, *, discard: bool = False) -> None:
        """Ask for the record of the target's copy to be replaced."""
        self._need(EPOCHS)
        request = SetEpoch(record=record, discard=discard)
        self._issue(request, InitiatorState.OPEN, InitiatorState.SETTING)

    def leave(self) -> None:
        """Ask for the target's copy to be marked as left."""
        self._need(LEFT)
        self._issue(Left(), InitiatorState.OPEN, InitiatorState.SETTING)

    def digest(self, request: Digest) -> None:
        """Ask for a range to be made durable, and for digests of it."""
        self._need(DIGEST)
        self._issue(request, InitiatorState.OPEN, InitiatorState.HASHING)

    def _need(self, feature: str) -> None:
        # Features are known from the greeting on: before it, the state is what is wrong.
        if self.state is InitiatorState.OPEN and feature not in self.features:
            raise UsageError(
                f"the target does not have the feature {feature}",
                where=self._where,
                hint="Install this version of rpmem on the target",
            )

    def close(self, *, remove: bool = False) -> None:
        """Ask the target to stop serving; `remove` removes a pool that this session created."""
        fits = self.state if self.state is InitiatorState.LOOKING else InitiatorState.OPEN
        self._issue(Close(remove=remove), fits, InitiatorState.CLOSING)

    def _issue(self, request: Message, fits: InitiatorState, then: InitiatorState) -> None:
        if self.ended:
            if self.broken is not None:
                raise self.broken
            raise ClosedError("the control session has ended", where=self._where)
        if self.state is not fits:
            raise UsageError(
                f"{type(request).__name__} is not possible now: the session is {self.state.value}",
                where=self._where,
            )
        self._request = self._send_request(request)
        self.state = then

    # --- for the subclasses ---------------------------------------------------------------

    @abstractmethod
    def _started(self, events: list[Event]) -> None:
        """React to a good status word by leaving the state STARTING."""

    @abstractmethod
    def _decode(self, data: bytes, events: list[Event]) -> None:
        """Append the events in `data`; raise `ProtocolError` on a violation."""

    @abstractmethod
    def _send_request(self, request: Message) -> Message:
        """Queue a request and return it as sent."""

    def _end(self) -> Event:
        if self.state is InitiatorState.STARTING:
            self.stray = bytes(self._status)
            return self._fail(
                LaunchFailed("the target ended before rpmemd reported that it is ready"),
                InitiatorState.LOST,
            )
        doing = "" if self._request is None else f" before it answered {_name(self._request)}"
        return self._fail(
            ReplicaLost(f"the target ended the control session{doing}"), InitiatorState.LOST
        )

    def _fail(
        self, error: RpmemError, state: InitiatorState = InitiatorState.FAILED
    ) -> SessionFailed:
        if error.where is None:
            error.where = self._where
        self.broken = error
        self.state = state
        return SessionFailed(error)

    def _opened(self, ready: Ready) -> Event:
        if not isinstance(self._request, Create | Open):
            raise self._out_of_turn("Ready")
        if mismatch := ready.mismatch(self._request):
            raise MalformedMessage(f"the answer to {_name(self._request)} {mismatch}")
        self._request = None
        self.state = InitiatorState.OPEN
        return Opened(ready)

    def _done(self) -> Event:
        if isinstance(self._request, SetAttributes):
            self._request = None
            self.state = InitiatorState.OPEN
            return AttributesSet()
        if isinstance(self._request, SetEpoch | Left):
            self._request = None
            self.state = InitiatorState.OPEN
            return RecordSet()
        if isinstance(self._request, Close):
            self._request = None
            self.state = InitiatorState.CLOSED
            return Closed()
        raise self._out_of_turn("Done")

    def _refused(self, error: RpmemError) -> Event:
        # A target that reports a violation of ours has ended the session, whatever the request was.
        if self._request is None or isinstance(error, ProtocolError):
            return self._fail(error)
        goes_on = isinstance(self._request, SetAttributes | SetEpoch | Left | Digest)
        self.state = InitiatorState.OPEN if goes_on else InitiatorState.CLOSED
        self._request = None
        return Refused(error)

    def _out_of_turn(self, what: str) -> UnexpectedMessage:
        return UnexpectedMessage(f"{what} came while this side was {self.state.value}")

    def _take_status(self, data: bytes, events: list[Event]) -> bytes:
        missing = STATUS_SIZE - len(self._status)
        self._status += data[:missing]
        if len(self._status) < STATUS_SIZE:
            return b""
        number = unpack_status(bytes(self._status))
        if number == 0:
            self._started(events)
            return data[missing:]
        self.stray = bytes(self._status) + data[missing:_STRAY_LIMIT]
        if number is None:
            raise NoiseBeforeProtocol(
                f"the target sent {printable(self.stray.decode('utf-8', 'replace'), 80)!r}"
                " instead of rpmemd's status word",
                hint="The target's login scripts must print nothing in non-interactive shells",
            )
        raise LaunchFailed(
            f"rpmemd refused to start: {os.strerror(number)}",
            errno=number,
            hint="Check rpmemd's configuration and pool set directory on the target",
        )


def _name(request: Message) -> str:
    return type(request).__name__
