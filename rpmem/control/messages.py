"""The messages of the native control protocol, as validated records.

A message is a frame whose payload is one JSON object. Unknown fields are ignored, so that a later
version can add some; `features` in `Hello` lists what each side really supports.
"""

from __future__ import annotations

import enum
import os
from typing import ClassVar, Final

from rpmem.base import parts
from rpmem.base.providers import SOCKETPAIR
from rpmem.base.remedies import remedy_for
from rpmem.control.bounded_json import format_object, parse_object
from rpmem.control.fields import (
    Address,
    Base64,
    Binary,
    Boolean,
    Bytes,
    Integer,
    ListOf,
    Nested,
    OrNone,
    PoolSetName,
    Record,
    Text,
    Token,
    wire,
)
from rpmem.control.framing import Frame, encode_frame
from rpmem.control.reports import MAX_ERRNO, described, reported
from rpmem.errors import MalformedMessage, RpmemError, UnexpectedMessage

#: Versions of the native protocol that this code supports.
VERSION: Final = 2
MIN_VERSION: Final = 2

ATTRIBUTES_SIZE: Final = 104
TOKEN_SIZE: Final = 32
NONCE_SIZE: Final = 16
BOOT_SIZE: Final = 16
#: A record of a copy, as one slot of it lies there.
MAX_RECORD_SIZE: Final = 8128
MAX_LANES: Final = 1024
#: Pieces of strict data end at multiples of 64 bytes: one has to fit, with its descriptor.
MIN_MESSAGE_SIZE: Final = 128
MAX_MESSAGE_SIZE: Final = 16 << 20
#: A pool that the fabric cannot reach may be served through staging buffers.
STAGING: Final = "staging"
#: The target keeps the record of its copy, and checks what may replace it.
EPOCHS: Final = "epochs"
#: A copy can be taken out in order.
LEFT: Final = "left"
#: A pool can be looked at while it is in use, and pool sets can be listed.
LOOK: Final = "look"
#: The target takes digests of its pool, to be compared with those of another copy.
DIGEST: Final = "digest"
#: It does so past the kernel's cache, too.
DEEP: Final = "deep"
#: What both sides put into their Hellos, as far as they can; see `features`.
FEATURES: Final = (STAGING, EPOCHS, LEFT, LOOK, DIGEST, DEEP)
#: Most bytes that one Peek asks for; in hexadecimal they fit into one answer.
MAX_PEEK: Final = 256 << 10
#: Bytes of a digest, and of the key that both sides take them with.
DIGEST_SIZE: Final = 12
KEY_SIZE: Final = 32
#: Bytes of the shortest and the longest unit that has a digest of its own.
PAGE_UNIT: Final = 4096
BLOCK_UNIT: Final = 1 << 20
#: Most digests in one answer to Digest.
MAX_UNITS: Final = 4096
#: Most pool sets in one answer to List.
MAX_LISTED: Final = 64
MAX_POOL_SIZE: Final = (1 << 63) - 1
_U32: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1


class Kind(enum.IntEnum):
    """Message numbers. Those above 0x8000 are advisory: no answer, may be ignored.

    Reserved, and refused like any unknown one: 0x0009 Fence, 0x000a Log, 0x000b Commit,
    0x000c Apply.
    """

    HELLO = 0x0001
    CREATE = 0x0002
    OPEN = 0x0003
    SET_ATTRIBUTES = 0x0004
    CLOSE = 0x0005
    SET_EPOCH = 0x0006
    LEFT = 0x0007
    DIGEST = 0x0008
    LOOK = 0x000D
    PEEK = 0x000E
    LIST = 0x000F
    READY = 0x4001
    DONE = 0x4002
    ERROR = 0x4003
    SEEN = 0x4004
    CONTENT = 0x4005
    LISTED = 0x4006
    DIGESTS = 0x4007
    LOG = 0x8001
    FAILURE = 0x8002


ADVISORY: Final = 0x8000

_LANES: Final = Integer(1, MAX_LANES)
_PROVIDERS: Final = ListOf(Token(), low=1, high=16)
_MESSAGE_SIZE: Final = Integer(MIN_MESSAGE_SIZE, MAX_MESSAGE_SIZE)
_ERRNO: Final = Integer(0, MAX_ERRNO)
_ATTRIBUTES: Final = Binary(ATTRIBUTES_SIZE)
_RECORD: Final = Bytes(1, MAX_RECORD_SIZE)
_UUID: Final = Binary(16)


class Message(Record):
    """Base of everything that is sent as a frame."""

    KIND: ClassVar[Kind]

    def encode(self, serial: int, *, limit: int) -> bytes:
        """Return the frame of this message."""
        return encode_frame(self.KIND, serial, format_object(self.to_json()), limit=limit)


class Hello(Message):
    """Who speaks, with which versions and features. The first message in both directions."""

    KIND: ClassVar[Kind] = Kind.HELLO
    software: str = wire(Text(128))
    host: str = wire(Text(255), default="")
    pid: int = wire(Integer(0, _U32), default=0)
    version: int = wire(Integer(1, 0xFFFF), default=VERSION)
    min_version: int = wire(Integer(1, 0xFFFF), default=MIN_VERSION)
    features: tuple[str, ...] = wire(ListOf(Token(), high=64), default=())

    def complaint(self) -> str | None:  # noqa: D102
        if self.min_version > self.version:
            return f"has min_version {self.min_version} above version {self.version}"
        return None

    @classmethod
    def of_this_process(cls, software: str, features: tuple[str, ...] = ()) -> Hello:
        """Return the Hello of the calling process."""
        return cls(software=software, host=os.uname().nodename, pid=os.getpid(), features=features)

    def __str__(self) -> str:
        return f"{self.software} on {self.host}" if self.host else self.software


class Create(Message):
    """Create the pool in a pool set and serve it.

    ``parts`` > 0: the target may write the pool set file, with that many parts, if it is missing.
    ``attributes`` is None for pool sets without headers. ``message_size`` is the largest in-band
    message the initiator will send; ``threads`` 0 leaves their number to the target. Lanes have to
    be encrypted if ``encrypt`` says so.
    """

    KIND: ClassVar[Kind] = Kind.CREATE
    pool_set: str = wire(PoolSetName())
    pool_size: int = wire(Integer(1, MAX_POOL_SIZE))
    lanes: int = wire(_LANES)
    providers: tuple[str, ...] = wire(_PROVIDERS)
    message_size: int = wire(_MESSAGE_SIZE)
    attributes: bytes | None = wire(OrNone(_ATTRIBUTES), default=None)
    parts: int = wire(Integer(0, 1024), default=0)
    step: str = wire(Token(), default="auto")
    threads: int = wire(Integer(0, MAX_LANES), default=0)
    encrypt: bool = wire(Boolean(), default=False)


class Open(Message):
    """Serve the pool in a pool set; ``pool_size`` 0 accepts any size."""

    KIND: ClassVar[Kind] = Kind.OPEN
    pool_set: str = wire(PoolSetName())
    pool_size: int = wire(Integer(0, MAX_POOL_SIZE), default=0)
    lanes: int = wire(_LANES)
    providers: tuple[str, ...] = wire(_PROVIDERS)
    message_size: int = wire(_MESSAGE_SIZE)
    step: str = wire(Token(), default="auto")
    threads: int = wire(Integer(0, MAX_LANES), default=0)
    encrypt: bool = wire(Boolean(), default=False)


class SetAttributes(Message):
    """Replace the pool's attributes."""

    KIND: ClassVar[Kind] = Kind.SET_ATTRIBUTES
    attributes: bytes = wire(_ATTRIBUTES)


class Close(Message):
    """End the session properly; ``remove`` also removes a pool that this session created."""

    KIND: ClassVar[Kind] = Kind.CLOSE
    remove: bool = wire(Boolean(), default=False)


class SetEpoch(Message):
    """Replace the record of the target's copy.

    ``discard``: a person named this copy to be overwritten, whatever it holds.
    """

    KIND: ClassVar[Kind] = Kind.SET_EPOCH
    record: bytes = wire(_RECORD, repr=False)
    discard: bool = wire(Boolean(), default=False)


class Left(Message):
    """The copy has everything acknowledged so far, and is a member no longer."""

    KIND: ClassVar[Kind] = Kind.LEFT


class Digest(Message):
    """Make a range of the pool durable there, then take a digest of each unit of it.

    The first unit begins with the range, and the last one ends with it. ``deep``: of what the
    medium has, past the kernel's cache, where that is something else.
    """

    KIND: ClassVar[Kind] = Kind.DIGEST
    offset: int = wire(Integer(0, MAX_POOL_SIZE))
    length: int = wire(Integer(1, MAX_POOL_SIZE))
    unit: int = wire(Integer(PAGE_UNIT, BLOCK_UNIT))
    key: bytes = wire(Binary(KEY_SIZE), repr=False)
    deep: bool = wire(Boolean(), default=False)

    @property
    def units(self) -> int:
        """How many digests answer it."""
        return -(-self.length // self.unit)

    def complaint(self) -> str | None:  # noqa: D102
        if self.units > MAX_UNITS:
            return f"asks for {self.units} digests, more than {MAX_UNITS}"
        return None


class Look(Message):
    """Show a pool without opening it: no lock, no lanes, no change, beside whoever uses it."""

    KIND: ClassVar[Kind] = Kind.LOOK
    pool_set: str = wire(PoolSetName())


class Peek(Message):
    """Read some bytes of the pool that is looked at."""

    KIND: ClassVar[Kind] = Kind.PEEK
    offset: int = wire(Integer(0, MAX_POOL_SIZE))
    length: int = wire(Integer(1, MAX_PEEK))


class List(Message):
    """Name the pool sets in the pool set directory; again for those that follow."""

    KIND: ClassVar[Kind] = Kind.LIST


class LaneGrant(Record):
    """What one lane needs: its one-time token, and its key and address for the pool.

    PMDK's protocol has no tokens, so there the token is empty.
    """

    token: bytes = wire(Binary(TOKEN_SIZE, 0), repr=False)
    key: int = wire(Integer(0, _U64))
    address: int = wire(Integer(0, _U64))


class Ready(Message):
    """The pool is registered and the target listens: how to connect, and what was granted.

    ``address`` empty means the host that the control session reached, ``port`` 0 that the target
    passes the lanes over its stdin. ``steps`` are the durability
    steps the target supports, best first; ``window`` is the number of in-band messages a lane may
    have unanswered; ``medium`` is what the pool is stored on ("pmem", "page", "volatile" or
    "unknown"). With ``staging`` above 0, the lanes' keys and addresses are those of buffers of that
    size, and the pool is reached only through messages. ``zeroed``: this session made all files of
    the pool, so that everything behind their headers is zero. ``record`` is that of this copy, and
    ``damage`` says why the one that is there cannot be believed. ``boot`` is drawn anew whenever
    the machine starts. With a ``nonce``, drawn for this session, its lanes are encrypted.
    """

    KIND: ClassVar[Kind] = Kind.READY
    provider: str = wire(Token())
    address: str = wire(Address(), default="")
    port: int = wire(Integer(0, 0xFFFF))
    lanes: tuple[LaneGrant, ...] = wire(ListOf(Nested(LaneGrant), low=1, high=MAX_LANES))
    pool_size: int = wire(Integer(1, MAX_POOL_SIZE))
    attributes: bytes | None = wire(OrNone(_ATTRIBUTES), default=None)
    medium: str = wire(Token(), default="unknown")
    staging: int = wire(Integer(0, MAX_MESSAGE_SIZE), default=0)
    steps: tuple[str, ...] = wire(ListOf(Token(), low=1, high=16))
    message_size: int = wire(_MESSAGE_SIZE)
    window: int = wire(Integer(1, 4096), default=1)
    zeroed: bool = wire(Boolean(), default=False)
    record: bytes | None = wire(OrNone(_RECORD), default=None, repr=False)
    damage: str | None = wire(OrNone(Text(500)), default=None)
    boot: bytes | None = wire(OrNone(Binary(BOOT_SIZE)), default=None)
    nonce: bytes | None = wire(OrNone(Binary(NONCE_SIZE)), default=None)

    def complaint(self) -> str | None:  # noqa: D102
        if (self.port == 0) != (self.provider == SOCKETPAIR):
            return f"has port {self.port} for lanes over {self.provider}"
        if self.record is not None and self.damage is not None:
            return "has a record and says that it is damaged"
        for index, lane in enumerate(self.lanes):
            if lane.address + self.pool_size > _U64 + 1:
                return f"has lane {index} whose pool ends beyond the address space"
        return None

    def mismatch(self, request: Create | Open) -> str | None:
        """Say why this does not answer `request`, or return None."""
        if len(self.lanes) > request.lanes:
            return f"grants {len(self.lanes)} lanes where {request.lanes} were asked for"
        if self.provider not in request.providers:
            return f"chose the provider {self.provider}, which was not offered"
        if self.nonce is not None and not request.encrypt:
            return "encrypts lanes without being asked"
        if self.pool_size < request.pool_size:
            return f"grants {self.pool_size} bytes where {request.pool_size} were asked for"
        if self.message_size > request.message_size:
            return (
                f"wants messages of {self.message_size} bytes, not {request.message_size} at most"
            )
        return None


class Done(Message):
    """The request was carried out."""

    KIND: ClassVar[Kind] = Kind.DONE


class Digests(Message):
    """The digests that were asked for, one behind the other; what they are of is durable.

    ``deep``: they are of what the medium has, which is not the memory.
    """

    KIND: ClassVar[Kind] = Kind.DIGESTS
    digests: bytes = wire(Base64(DIGEST_SIZE, MAX_UNITS * DIGEST_SIZE), repr=False)
    deep: bool = wire(Boolean(), default=False)

    def mismatch(self, request: Digest) -> str | None:
        """Say why this does not answer `request`, or return None."""
        if len(self.digests) != request.units * DIGEST_SIZE:
            return f"has {len(self.digests)} bytes, not those of {request.units} digests"
        if self.deep and not request.deep:
            return "are of the medium, which was not asked for"
        return None


class Seen(Message):
    """The pool that is looked at; ``writer``: a process of rpmem's has it open for writing."""

    KIND: ClassVar[Kind] = Kind.SEEN
    pool_size: int = wire(Integer(1, MAX_POOL_SIZE))
    attributes: bytes | None = wire(OrNone(_ATTRIBUTES), default=None)
    medium: str = wire(Token(), default="unknown")
    writer: bool = wire(Boolean(), default=False)


class Content(Message):
    """What the pool held in the place that was asked for, while the target read it."""

    KIND: ClassVar[Kind] = Kind.CONTENT
    data: bytes = wire(Bytes(1, MAX_PEEK), repr=False)
    writer: bool = wire(Boolean(), default=False)


class PoolSetRow(Record):
    """One pool set of the target: what its pool is, as far as that can be seen."""

    name: str = wire(Text(4096))
    size: int | None = wire(OrNone(Integer(0, MAX_POOL_SIZE)), default=None)
    state: str = wire(Token())
    epoch: int | None = wire(OrNone(Integer(1, MAX_POOL_SIZE)), default=None)
    identity: bytes | None = wire(OrNone(_UUID), default=None)
    copy: bytes | None = wire(OrNone(_UUID), default=None)
    mark: str | None = wire(OrNone(Token()), default=None)
    reason: str | None = wire(OrNone(Text(500)), default=None)


class Listed(Message):
    """Some pool sets; ``last``: there are no more."""

    KIND: ClassVar[Kind] = Kind.LISTED
    sets: tuple[PoolSetRow, ...] = wire(ListOf(Nested(PoolSetRow), high=MAX_LISTED))
    last: bool = wire(Boolean())


class Error(Message):
    """The request was refused, or broke the protocol."""

    KIND: ClassVar[Kind] = Kind.ERROR
    code: str = wire(Token())
    errno: int = wire(_ERRNO, default=0)
    message: str = wire(Text(2000), default="")
    hint: str | None = wire(OrNone(Text(2000)), default=None)

    @classmethod
    def from_exception(cls, error: BaseException) -> Error:
        """Describe `error` for the other side."""
        code, errno, message, hint = described(error)
        return cls(code=code, errno=errno, message=message, hint=hint)

    def to_exception(self, where: str) -> RpmemError:
        """Return the error as the local kind of that code; `where` names the other side."""
        return reported(self.code, self.message, where, self.hint, self.errno)


class Log(Message):
    """A record of the target's log, for the user."""

    KIND: ClassVar[Kind] = Kind.LOG
    level: str = wire(Token(), default="info")
    message: str = wire(Text(4000))


class Failure(Message):
    """The target can no longer serve the lanes; only closing is still possible."""

    KIND: ClassVar[Kind] = Kind.FAILURE
    code: str = wire(Token())
    errno: int = wire(_ERRNO, default=0)
    message: str = wire(Text(2000), default="")

    @classmethod
    def from_exception(cls, error: BaseException) -> Failure:
        """Describe `error` for the other side."""
        code, errno, message, _ = described(error)
        return cls(code=code, errno=errno, message=message)

    def to_exception(self, where: str) -> RpmemError:
        """Return the error as the local kind of that code; `where` names the other side."""
        return reported(self.code, self.message, where, remedy_for(self.errno), self.errno)


_FROM_INITIATOR: Final[dict[int, type[Message]]] = {
    kind.KIND: kind
    for kind in (
        *(Hello, Create, Open, SetAttributes, Close, SetEpoch, Left),
        *(Digest, Look, Peek, List),
    )
}
_FROM_TARGET: Final[dict[int, type[Message]]] = {
    kind.KIND: kind
    for kind in (Hello, Ready, Done, Error, Log, Failure, Seen, Content, Listed, Digests)
}


def features() -> tuple[str, ...]:
    """Return what this side can do: a build may lack the part that takes digests."""
    takes_digests = parts.is_there("rpmem.memory.changes.unit_digests")
    return tuple(each for each in FEATURES if each not in (DIGEST, DEEP) or takes_digests)


def decode_from_initiator(frame: Frame) -> Message:
    """Return the request in `frame`.

    Raises
    ------
    MalformedMessage, UnexpectedMessage
    """
    return _decode(frame, _FROM_INITIATOR)


def decode_from_target(frame: Frame) -> Message | None:
    """Return the message in `frame`; None for an advisory one that is unknown here.

    Raises
    ------
    MalformedMessage, UnexpectedMessage
    """
    if frame.kind > ADVISORY and frame.kind not in _FROM_TARGET:
        return None
    return _decode(frame, _FROM_TARGET)


def _decode(frame: Frame, kinds: dict[int, type[Message]]) -> Message:
    kind = kinds.get(frame.kind)
    if kind is None:
        raise UnexpectedMessage(f"message type {frame.kind:#06x} is not known on this side")
    try:
        fields = parse_object(frame.payload)
    except MalformedMessage as error:
        raise MalformedMessage(f"{kind.__name__}: {error.what}") from None
    return kind.from_json(fields)
