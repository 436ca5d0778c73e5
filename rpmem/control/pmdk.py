"""PMDK 0.1: the bytes of librpmem's and rpmemd's out-of-band messages, both directions.

Integers are big-endian and nothing is padded. Three fields are never converted to that order by
either side and have the sender's native order: the status word, the lanes granted, and the flags of
close.

Requests are translated into the records of the native protocol, so that the target's daemon sees
only one vocabulary.
"""

from __future__ import annotations

import enum
import struct
import sys
from typing import Final, NamedTuple, NoReturn

from rpmem.base.steps import READ_AFTER_WRITE, SEND_AFTER_WRITE
from rpmem.control.fields import PoolSetName
from rpmem.control.messages import (
    ATTRIBUTES_SIZE,
    MAX_LANES,
    MAX_POOL_SIZE,
    Close,
    Create,
    LaneGrant,
    Message,
    Open,
    Ready,
    SetAttributes,
)
from rpmem.control.pmdk_status import Status
from rpmem.errors import MalformedMessage, UsageError, VersionMismatch

MAJOR: Final = 0
MINOR: Final = 1
VERSION: Final = f"{MAJOR}.{MINOR}"
#: The size that both libraries always use, and the bounds of other accepted sizes.
MESSAGE_SIZE: Final = 8192
#: Size of an in-band request without its data.
REQUEST_SIZE: Final = 24
_SMALLEST_MESSAGE: Final = 64
_LARGEST_MESSAGE: Final = 1 << 20
#: Providers by their numbers on the wire; there are no others.
PROVIDERS: Final = {1: "verbs", 2: "sockets"}
_PROVIDER_NUMBERS: Final = {name: number for number, name in PROVIDERS.items()}
_NO_ATTRIBUTES: Final = bytes(ATTRIBUTES_SIZE)
_CLOSE_REMOVE: Final = 1


class Kind(enum.IntEnum):
    """Message numbers; an answer's is its request's plus one."""

    CREATE = 1
    CREATE_ANSWER = 2
    OPEN = 3
    OPEN_ANSWER = 4
    CLOSE = 5
    CLOSE_ANSWER = 6
    SET_ATTRIBUTES = 7
    SET_ATTRIBUTES_ANSWER = 8


class Method(enum.IntEnum):
    """How the target makes written data durable."""

    GPSPM = 1
    APM = 2


_REQUEST: Final = struct.Struct(">IQ")
_COMMON: Final = struct.Struct(">HHQIIQ")
_LENGTH: Final = struct.Struct(">I")
_ANSWER: Final = struct.Struct(">IIQ")
_IN_BAND: Final = struct.Struct(">IIQQ")
_NATIVE_U32: Final = struct.Struct("=I")

_CREATE_FIXED: Final = _REQUEST.size + _COMMON.size + ATTRIBUTES_SIZE + _LENGTH.size
_OPEN_FIXED: Final = _REQUEST.size + _COMMON.size + _LENGTH.size
_LONGEST_NAME: Final = PoolSetName.LIMIT + 1
_IN_BAND_SIZE: Final = _IN_BAND.size + _NATIVE_U32.size

#: Smallest and largest size of each request.
REQUEST_SIZES: Final = {
    Kind.CREATE: (_CREATE_FIXED + 2, _CREATE_FIXED + _LONGEST_NAME),
    Kind.OPEN: (_OPEN_FIXED + 2, _OPEN_FIXED + _LONGEST_NAME),
    Kind.CLOSE: (_REQUEST.size + 4, _REQUEST.size + 4),
    Kind.SET_ATTRIBUTES: (_REQUEST.size + ATTRIBUTES_SIZE,) * 2,
}
#: Size of each answer, whether good or bad.
ANSWER_SIZES: Final = {
    Kind.CREATE_ANSWER: _ANSWER.size + _IN_BAND_SIZE,
    Kind.OPEN_ANSWER: _ANSWER.size + _IN_BAND_SIZE + ATTRIBUTES_SIZE,
    Kind.CLOSE_ANSWER: _ANSWER.size,
    Kind.SET_ATTRIBUTES_ANSWER: _ANSWER.size,
}
REQUEST_HEADER_SIZE: Final = _REQUEST.size
ANSWER_HEADER_SIZE: Final = _ANSWER.size


def answer_to(request: Kind) -> Kind:
    """Return the number of the answer to a request."""
    return Kind(request + 1)


class Breach(MalformedMessage):
    """A request that is complete but wrong: it gets an answer with this status."""

    def __init__(self, what: str, status: Status) -> None:
        super().__init__(what)
        self.status = status


class RequestHeader(NamedTuple):
    """The first 12 bytes of a request."""

    kind: Kind
    size: int


class AnswerHeader(NamedTuple):
    """The first 16 bytes of an answer."""

    status: Status
    kind: Kind
    size: int


# --- requests ---------------------------------------------------------------------------------


def kind_of(request: Message) -> Kind:
    """Return a request's number."""
    match request:
        case Create():
            return Kind.CREATE
        case Open():
            return Kind.OPEN
        case SetAttributes():
            return Kind.SET_ATTRIBUTES
        case Close():
            return Kind.CLOSE
    raise UsageError(f"PMDK's protocol has no {type(request).__name__}")


def encode_request(request: Message) -> bytes:
    """Return a request's bytes.

    In `Create` and `Open`, ``providers`` must contain exactly one; ``parts``, ``step`` and
    ``threads`` do not exist in these messages and are left out.
    """
    match request:
        case Create():
            attributes = request.attributes or _NO_ATTRIBUTES
            body = _common(request) + attributes + _descriptor(request.pool_set)
        case Open():
            body = _common(request) + _descriptor(request.pool_set)
        case SetAttributes():
            body = request.attributes
        case Close():
            body = _NATIVE_U32.pack(_CLOSE_REMOVE if request.remove else 0)
    kind = kind_of(request)
    return _REQUEST.pack(kind, _REQUEST.size + len(body)) + body


def decode_request_header(header: bytes | bytearray) -> RequestHeader:
    """Read a request's first 12 bytes.

    Raises
    ------
    MalformedMessage
        No request has this number or this size, so the rest cannot be understood.
    """
    number, size = _REQUEST.unpack_from(header)
    try:
        kind = Kind(number)
        low, high = REQUEST_SIZES[kind]
    except (ValueError, KeyError):
        raise MalformedMessage(f"there is no PMDK request with the number {number}") from None
    if not low <= size <= high:
        raise MalformedMessage(f"a PMDK {kind.name} announces {size} bytes, not {low}..{high}")
    return RequestHeader(kind, size)


def decode_request(kind: Kind, body: bytes) -> Message:
    """Read the body of a request, whose length fits the kind.

    Raises
    ------
    MalformedMessage, VersionMismatch
        A `Breach` contains the status to answer with.
    """
    if kind is Kind.CLOSE:
        (flags,) = _NATIVE_U32.unpack(body)
        return Close(remove=bool(flags & _CLOSE_REMOVE))
    if kind is Kind.SET_ATTRIBUTES:
        return SetAttributes(attributes=body)
    fixed = _COMMON.size + (ATTRIBUTES_SIZE if kind is Kind.CREATE else 0)
    (length,) = _LENGTH.unpack_from(body, fixed)
    descriptor = body[fixed + _LENGTH.size :]
    if length != len(descriptor):
        raise MalformedMessage(
            f"a PMDK {kind.name} names a pool set in {length} bytes and brings {len(descriptor)}"
        )
    major, minor, pool_size, lanes, provider, message_size = _COMMON.unpack_from(body)
    if (major, minor) != (MAJOR, MINOR):
        raise VersionMismatch(
            f"the initiator speaks PMDK's protocol {major}.{minor}, this target {VERSION}",
            hint="Upgrade rpmem on the target",
        )
    if not 1 <= pool_size <= MAX_POOL_SIZE:
        raise Breach(f"a pool cannot have {pool_size} bytes", Status.BADSIZE)
    if lanes < 1:
        raise Breach("a session needs at least one lane", Status.BADNLANES)
    if provider not in PROVIDERS:
        raise Breach(f"no provider has the number {provider}", Status.BADPROVIDER)
    if not _SMALLEST_MESSAGE <= message_size <= _LARGEST_MESSAGE:
        raise Breach(f"in-band messages cannot hold {message_size} bytes", Status.BADSIZE)
    common = {
        "pool_set": _pool_set(descriptor),
        "pool_size": pool_size,
        "lanes": min(lanes, MAX_LANES),
        "providers": (PROVIDERS[provider],),
        "message_size": message_size,
    }
    if kind is Kind.OPEN:
        return Open(**common)
    attributes = body[_COMMON.size : fixed]
    return Create(**common, attributes=None if attributes == _NO_ATTRIBUTES else attributes)


def _common(request: Create | Open) -> bytes:
    if request.pool_size == 0:
        raise UsageError("PMDK's protocol cannot open a pool without being told its size")
    (provider,) = request.providers
    return _COMMON.pack(
        MAJOR,
        MINOR,
        request.pool_size,
        request.lanes,
        _PROVIDER_NUMBERS[provider],
        request.message_size,
    )


def _descriptor(pool_set: str) -> bytes:
    name = pool_set.encode("utf-8") + b"\0"
    return _LENGTH.pack(len(name)) + name


def _pool_set(descriptor: bytes) -> str:
    if descriptor.find(b"\0") != len(descriptor) - 1:
        raise Breach("the pool set's name does not end with its only NUL", Status.BADNAME)
    try:
        return descriptor[:-1].decode("utf-8")
    except UnicodeDecodeError:
        raise Breach("the pool set's name is not UTF-8", Status.BADNAME) from None


# --- answers ----------------------------------------------------------------------------------


def encode_error(kind: Kind, status: Status) -> bytes:
    """Return a bad answer of this kind, of full length, with only zeros after the header."""
    return _answer(kind, status, bytes(ANSWER_SIZES[kind] - _ANSWER.size))


def encode_done(kind: Kind) -> bytes:
    """Return the good answer to close or set attributes."""
    return _answer(kind, Status.SUCCESS, b"")


def encode_ready(kind: Kind, ready: Ready) -> bytes:
    """Return the good answer to create or open.

    All lanes must have the same key and address, and the best step must be one of the two that PMDK
    knows. Tokens, window, medium and address are left out.
    """
    first = ready.lanes[0]
    if any((lane.key, lane.address) != (first.key, first.address) for lane in ready.lanes):
        raise UsageError("PMDK's protocol has one key and one address for all lanes")
    if ready.steps[0] not in (SEND_AFTER_WRITE.name, READ_AFTER_WRITE.name):
        raise UsageError(f"PMDK's protocol has no durability step {ready.steps[0]}")
    method = Method.APM if ready.steps[0] == READ_AFTER_WRITE.name else Method.GPSPM
    body = _IN_BAND.pack(ready.port, method, first.key, first.address)
    body += _NATIVE_U32.pack(len(ready.lanes))
    if kind is Kind.OPEN_ANSWER:
        body += ready.attributes or _NO_ATTRIBUTES
    return _answer(kind, Status.SUCCESS, body)


def decode_answer_header(header: bytes | bytearray, expected: Kind) -> AnswerHeader:
    """Read an answer's first 16 bytes.

    Raises
    ------
    MalformedMessage
        It is not the expected answer.
    """
    number, kind, size = _ANSWER.unpack_from(header)
    if kind != expected:
        raise MalformedMessage(f"PMDK's answer has the number {kind}, not {expected:d}")
    if size != ANSWER_SIZES[expected]:
        raise MalformedMessage(
            f"PMDK's {expected.name} announces {size} bytes, not {ANSWER_SIZES[expected]}"
        )
    try:
        status = Status(number)
    except ValueError:
        raise MalformedMessage(f"PMDK's {expected.name} has the status {number}") from None
    return AnswerHeader(status, expected, size)


def decode_ready(request: Create | Open, body: bytes) -> Ready:
    """Read the body of a good answer to create or open.

    Raises
    ------
    MalformedMessage
    """
    port, method, key, address = _IN_BAND.unpack_from(body)
    (lanes,) = _NATIVE_U32.unpack_from(body, _IN_BAND.size)
    if lanes > request.lanes:
        swapped = int.from_bytes(lanes.to_bytes(4, "little"), "big")
        if 1 <= swapped <= request.lanes:
            _other_byte_order()
        raise MalformedMessage(f"the target grants {lanes} lanes, {request.lanes} were asked for")
    if method not in tuple(Method):
        raise MalformedMessage(f"the target chose the unknown persistence method {method}")
    apm = method == Method.APM
    attributes: bytes | None = body[_IN_BAND_SIZE:]
    if isinstance(request, Create):
        attributes = request.attributes
    try:
        return Ready(
            provider=request.providers[0],
            port=port,
            lanes=(LaneGrant(token=b"", key=key, address=address),) * lanes,
            pool_size=request.pool_size,
            attributes=None if attributes == _NO_ATTRIBUTES else attributes,
            medium="pmem" if apm else "unknown",
            steps=((READ_AFTER_WRITE if apm else SEND_AFTER_WRITE).name,),
            message_size=request.message_size,
        )
    except UsageError as error:
        raise MalformedMessage(error.what) from None


def _answer(kind: Kind, status: Status, body: bytes) -> bytes:
    return _ANSWER.pack(status, kind, _ANSWER.size + len(body)) + body


def _other_byte_order() -> NoReturn:
    raise VersionMismatch(
        f"the target's byte order differs from this side's ({sys.byteorder}-endian)",
        hint="PMDK's protocol needs the same byte order on both sides; rpmem's own does not",
    )
