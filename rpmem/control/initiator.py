"""The initiator's side of the native control protocol."""

from __future__ import annotations

from typing import ClassVar, Final

from rpmem.base.printable import printable
from rpmem.control.events import (
    DigestsTaken,
    Event,
    Greeted,
    LegacyTarget,
    LogReceived,
    Shown,
    TargetFailed,
)
from rpmem.control.framing import INITIATOR_LIMIT, MAGIC, TARGET_LIMIT, Frame, FrameDecoder
from rpmem.control.handshake import STATUS_SIZE, Protocol, agree, unpack_status
from rpmem.control.initiator_machine import InitiatorMachine, InitiatorState
from rpmem.control.messages import (
    LOOK,
    TOKEN_SIZE,
    Content,
    Digest,
    Digests,
    Done,
    Error,
    Failure,
    Hello,
    List,
    Listed,
    Log,
    Look,
    Message,
    Peek,
    Ready,
    Seen,
    decode_from_target,
)
from rpmem.errors import (
    MalformedMessage,
    NoiseBeforeProtocol,
    UnexpectedMessage,
    VersionMismatch,
)

_ANSWERS: Final = {Look: Seen, Peek: Content, List: Listed}


class InitiatorSession(InitiatorMachine):
    """A native session at the initiator, from the status word on.

    The Hello is in `data_to_send` from the start. PMDK's rpmemd reacts to it by ending, which gives
    the event `LegacyTarget`.

    Parameters
    ----------
    hello : Hello
        This side's description of itself.
    where : str
        The target as the user knows it; errors carry it.

    Attributes
    ----------
    peer : Hello or None
        The target's description of itself.
    """

    protocol: ClassVar[Protocol] = Protocol.NATIVE

    def __init__(self, hello: Hello, *, where: str = "the target") -> None:
        super().__init__(where)
        self.peer: Hello | None = None
        self._hello = hello
        self._decoder = FrameDecoder(TARGET_LIMIT)
        self._prelude: bytearray | None = bytearray()
        self._serial = 0
        self._send_request(hello)

    @property
    def buffered(self) -> int:
        """Bytes received that wait for the rest of their message."""
        return self._decoder.buffered + len(self._prelude or b"")

    def look(self, request: Look | Peek | List) -> None:
        """Ask to look at a pool, for a piece of it, or for the pool sets that there are.

        Raises
        ------
        VersionMismatch
            The target does not know how.
        """
        fits = InitiatorState.IDLE
        if isinstance(request, Peek) or self.state is InitiatorState.LOOKING:
            fits = InitiatorState.LOOKING
        elif self.state is fits and LOOK not in self.features:
            raise VersionMismatch(
                "the rpmemd there is an older one, which shows nothing without opening it",
                where=self._where,
                hint="Install this version of rpmem on the target",
            )
        self._issue(request, fits, InitiatorState.EXAMINING)

    def _started(self, events: list[Event]) -> None:
        self.state = InitiatorState.GREETING

    def _decode(self, data: bytes, events: list[Event]) -> None:
        if self._prelude is not None:
            data = self._past_prelude(self._prelude, data)
        for frame in self._decoder.feed(data):
            event = self._take(frame)
            if event is not None:
                events.append(event)
            if self.ended:
                break

    def _past_prelude(self, prelude: bytearray, data: bytes) -> bytes:
        """Hold back the first bytes until it is clear whether they belong to a frame."""
        prelude += data
        first = bytes(prelude[: len(MAGIC)])
        if not MAGIC.startswith(first):
            if len(prelude) <= STATUS_SIZE:
                return b""
            self.stray = bytes(prelude[:4096])
            raise NoiseBeforeProtocol(
                f"the target sent {printable(self.stray.decode('utf-8', 'replace'), 80)!r}"
                " instead of its Hello"
            )
        if len(first) < len(MAGIC):
            return b""
        self._prelude = None
        return bytes(prelude)

    def _end(self) -> Event:
        # PMDK's rpmemd takes our Hello for a broken request: it sends a second status word and
        # ends. Our own rpmemd never does that.
        prelude = self._prelude
        if (
            self.state is InitiatorState.GREETING
            and prelude is not None
            and len(prelude) == STATUS_SIZE
            and unpack_status(bytes(prelude)) is not None
        ):
            self.state = InitiatorState.LEGACY
            return LegacyTarget()
        return super()._end()

    def _clear(self) -> None:
        self._decoder.clear()
        self._prelude = None

    def _send_request(self, request: Message) -> Message:
        serial = self._serial + 1
        self._output += request.encode(serial, limit=INITIATOR_LIMIT)
        self._serial = serial
        return request

    def _take(self, frame: Frame) -> Event | None:
        match decode_from_target(frame):
            case None:
                return None
            case Log(level=level, message=text):
                return LogReceived(level, text)
            case Failure() as failure:
                return TargetFailed(failure.to_exception(self._where))
            case Error() as answer:
                error = answer.to_exception(self._where)
                return self._refused(error) if frame.serial == self._serial else self._fail(error)
            case answer:
                self._check_serial(frame, answer)
        match answer:
            case Hello():
                return self._greet(answer)
            case Ready():
                if any(len(lane.token) != TOKEN_SIZE for lane in answer.lanes):
                    raise MalformedMessage("Ready.lanes has a lane without token")
                return self._opened(answer)
            case Done():
                return self._done()
            case Seen() | Content() | Listed():
                return self._shown(answer)
            case Digests():
                return self._digests_taken(answer)
        raise UnexpectedMessage(f"{type(answer).__name__} is not allowed here")

    def _shown(self, answer: Seen | Content | Listed) -> Event:
        request = self._request
        if request is None or not isinstance(answer, _ANSWERS.get(type(request), ())):
            raise self._out_of_turn(type(answer).__name__)
        if isinstance(answer, Content):
            assert isinstance(request, Peek)
            if len(answer.data) != request.length:
                raise MalformedMessage(
                    f"Content has {len(answer.data)} bytes, not {request.length}"
                )
        self._request = None
        self.state = InitiatorState.LOOKING
        return Shown(answer)

    def _digests_taken(self, answer: Digests) -> Event:
        if not isinstance(self._request, Digest):
            raise self._out_of_turn("Digests")
        if mismatch := answer.mismatch(self._request):
            raise MalformedMessage(f"Digests {mismatch}")
        self._request = None
        self.state = InitiatorState.OPEN
        return DigestsTaken(answer.digests, deep=answer.deep)

    def _check_serial(self, frame: Frame, answer: Message) -> None:
        if frame.serial != self._serial:
            raise UnexpectedMessage(
                f"{type(answer).__name__} answers request {frame.serial}, not {self._serial}"
            )

    def _greet(self, peer: Hello) -> Event:
        if self.state is not InitiatorState.GREETING:
            raise self._out_of_turn("Hello")
        version, self.features = agree(initiator=self._hello, target=peer)
        self.peer = peer
        self.state = InitiatorState.IDLE
        return Greeted(self.protocol, str(version), self.features, peer)
