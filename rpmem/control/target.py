"""The target's side of the native control protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rpmem.control.events import Event, Greeted
from rpmem.control.framing import INITIATOR_LIMIT, TARGET_LIMIT, FrameDecoder
from rpmem.control.handshake import Protocol, agree
from rpmem.control.messages import (
    DEEP,
    DIGEST,
    EPOCHS,
    LEFT,
    LOOK,
    TOKEN_SIZE,
    Content,
    Digest,
    Digests,
    Done,
    Error,
    Failure,
    Hello,
    Left,
    List,
    Listed,
    Log,
    Look,
    Message,
    Ready,
    Seen,
    SetEpoch,
    decode_from_initiator,
)
from rpmem.control.target_machine import TargetMachine, TargetState
from rpmem.errors import ProtocolError, UnexpectedMessage, UsageError


class TargetSession(TargetMachine):
    """A native session at the target, from the initiator's Hello on.

    The status word precedes it and is not part of it: it is written before the protocol is known
    (see `rpmem.control.handshake`).

    Parameters
    ----------
    hello : Hello
        This side's description of itself.

    Attributes
    ----------
    peer : Hello or None
        The initiator's description of itself.
    features : frozenset of str
        The features that both sides have.
    """

    protocol: ClassVar[Protocol] = Protocol.NATIVE

    def __init__(self, hello: Hello) -> None:
        super().__init__(TargetState.GREETING)
        self.peer: Hello | None = None
        self.features: frozenset[str] = frozenset()
        self._hello = hello
        self._decoder = FrameDecoder(INITIATOR_LIMIT)
        self._serial = 0

    @property
    def buffered(self) -> int:
        """Bytes received that wait for the rest of their message."""
        return self._decoder.buffered

    def log(self, level: str, message: str) -> None:
        """Send a log record to the initiator's user."""
        if not self.ended:
            self._send(Log(level=level, message=message), serial=0)

    def failure(self, error: BaseException) -> None:
        """Tell the initiator that the lanes are no longer served; it may still close."""
        if not self.ended:
            self._send(Failure.from_exception(error), serial=0)

    def show(self, answer: Seen | Content | Listed) -> None:
        """Answer a request to look."""
        if self._may(TargetState.EXAMINING, command="show"):
            self._send(answer, self._serial)
            self.state = TargetState.LOOKING

    def digests(self, found: bytes, *, deep: bool = False) -> None:
        """Answer a request for digests, `deep`: of the medium; what they are of is durable."""
        if self._may(TargetState.HASHING, command="digests"):
            self._send(Digests(digests=found, deep=deep), self._serial)
            self._settle()

    def _decode(self, data: bytes) -> Iterator[Event]:
        for frame in self._decoder.feed(data):
            # A violation is answered with the serial of the frame at fault.
            self._serial = frame.serial
            message = decode_from_initiator(frame)
            if isinstance(message, Hello):
                yield self._greet(message)
                continue
            self._check_features(message)
            event = self._accept(message)
            if event is not None:
                yield event

    def _check_features(self, message: Message) -> None:
        # Out of its turn a request is refused for that.
        for kind, feature, turn in (
            (SetEpoch, EPOCHS, TargetState.OPEN),
            (Left, LEFT, TargetState.OPEN),
            (Digest, DIGEST, TargetState.OPEN),
            (Look, LOOK, TargetState.IDLE),
            (List, LOOK, TargetState.IDLE),
        ):
            if not isinstance(message, kind) or self.state is not turn:
                continue
            if isinstance(message, Digest) and message.deep and DEEP not in self.features:
                feature = DEEP
            if feature not in self.features:
                raise UnexpectedMessage(
                    f"{kind.__name__} needs the feature {feature}, which one side does not have"
                )

    def _greet(self, peer: Hello) -> Event:
        if self.state is not TargetState.GREETING:
            raise UnexpectedMessage("Hello was sent twice")
        version, self.features = agree(initiator=peer, target=self._hello)
        self.peer = peer
        self._send(self._hello, self._serial)
        self.state = TargetState.IDLE
        return Greeted(self.protocol, str(version), self.features, peer)

    def _clear(self) -> None:
        self._decoder.clear()

    def _reject(self, error: ProtocolError) -> None:
        self._send(Error.from_exception(error), self._serial)

    def _send_ready(self, answer: Ready) -> None:
        if any(len(lane.token) != TOKEN_SIZE for lane in answer.lanes):
            raise UsageError(f"every lane needs a token of {TOKEN_SIZE} bytes")
        self._send(answer, self._serial)

    def _send_done(self) -> None:
        self._send(Done(), self._serial)

    def _send_error(self, error: BaseException) -> None:
        self._send(Error.from_exception(error), self._serial)

    def _send(self, message: Message, serial: int) -> None:
        self._output += message.encode(serial, limit=TARGET_LIMIT)
