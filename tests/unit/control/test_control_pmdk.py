"""PMDK 0.1 against bytes captured between an original librpmem and an original rpmemd."""

from __future__ import annotations

import errno
import struct
import sys

import pytest

from rpmem.control import pmdk
from rpmem.control.events import (
    AttributesSet,
    Closed,
    CloseRequested,
    CreateRequested,
    Greeted,
    InitiatorGone,
    Opened,
    OpenRequested,
    Refused,
    SessionFailed,
    SetAttributesRequested,
)
from rpmem.control.handshake import Protocol, pack_status
from rpmem.control.messages import Close, Create, LaneGrant, Open, Ready, SetAttributes
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from rpmem.control.pmdk_status import Status, error_of, status_of
from rpmem.control.pmdk_target import PmdkTargetSession
from rpmem.control.target_machine import TargetState
from rpmem.errors import (
    AttributesRefused,
    ConnectFailed,
    HeaderError,
    LaneRefused,
    MalformedMessage,
    NoSpace,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetExists,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    PoolSetTooSmall,
    ProviderUnavailable,
    RemoteError,
    ReplicaLost,
    UnexpectedMessage,
    UsageError,
    VersionMismatch,
)

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little", reason="the captured sessions come from little-endian machines"
)


def captured(text: str) -> bytes:
    return bytes.fromhex(text.replace("|", " "))


ATTRIBUTES = captured("5045455254455354 00000003 00000000 00000000 00000000") + b"".join(
    bytes([byte]) * 16 for byte in (0xA1, 0xA2, 0xA3, 0xA4, 0x5A)
)
COMMON = captured("0000 0001 0000000002000000 00000004 00000002 0000000000002000")
NAME = captured("00000008 7033322e73657400")
CREATE = captured("00000001 000000000000009c") + COMMON + ATTRIBUTES + NAME
CREATE_ANSWER = captured(
    "00000000 00000002 000000000000002c"
    "| 0000b16d 00000001 0000000000000001 00007fef32400000 04000000"
)
SET_ATTRIBUTES = captured("00000007 0000000000000074") + ATTRIBUTES
SET_ATTRIBUTES_ANSWER = captured("00000000 00000008 0000000000000010")
CLOSE = captured("00000005 0000000000000010 00000000")
CLOSE_ANSWER = captured("00000000 00000006 0000000000000010")
OPEN = (
    captured("00000003 0000000000000034")
    + COMMON.replace(captured("00000004 00000002"), captured("00000040 00000002"))
    + NAME
)
OPEN_ANSWER = (
    captured("00000000 00000004 0000000000000094")
    + captured("0000b16d 00000001 0000000000000001 00007fef32400000 10000000")
    + ATTRIBUTES
)

CREATE_REQUEST = Create(
    pool_set="p32.set",
    pool_size=32 << 20,
    lanes=4,
    providers=("sockets",),
    message_size=8192,
    attributes=ATTRIBUTES,
)
OPEN_REQUEST = Open(
    pool_set="p32.set", pool_size=32 << 20, lanes=64, providers=("sockets",), message_size=8192
)
GREETED = Greeted(Protocol.PMDK, "0.1")


def grants(count: int) -> tuple[LaneGrant, ...]:
    return (LaneGrant(token=b"", key=1, address=0x7FEF32400000),) * count


READY = Ready(
    provider="sockets",
    port=0xB16D,
    lanes=grants(4),
    pool_size=32 << 20,
    attributes=ATTRIBUTES,
    steps=("send-after-write",),
    message_size=8192,
)


def failure_of(events):
    assert isinstance(events[-1], SessionFailed), events
    return events[-1].error


def started() -> PmdkInitiatorSession:
    session = PmdkInitiatorSession(where="node2")
    assert session.receive(pack_status(0)) == [GREETED]
    return session


def patched(message: bytes, offset: int, value: str) -> bytes:
    new = captured(value)
    return message[:offset] + new + message[offset + len(new) :]


# --- the captured session ---------------------------------------------------------------------


def test_the_captured_messages_have_their_documented_sizes():
    assert len(CREATE) == 156
    assert len(OPEN) == 52
    assert len(OPEN_ANSWER) == 148


def test_the_initiator_says_and_understands_the_captured_session():
    session = started()
    session.create(CREATE_REQUEST)
    assert session.data_to_send() == CREATE
    assert session.receive(CREATE_ANSWER) == [Opened(READY)]
    session.set_attributes(ATTRIBUTES)
    assert session.data_to_send() == SET_ATTRIBUTES
    assert session.receive(SET_ATTRIBUTES_ANSWER) == [AttributesSet()]
    session.close()
    assert session.data_to_send() == CLOSE
    assert session.receive(CLOSE_ANSWER) == [Closed()]


def test_the_target_says_and_understands_the_captured_session():
    session = PmdkTargetSession()
    assert session.receive(CREATE) == [GREETED, CreateRequested(CREATE_REQUEST)]
    session.ready(READY)
    assert session.data_to_send() == CREATE_ANSWER
    assert session.receive(SET_ATTRIBUTES) == [SetAttributesRequested(ATTRIBUTES)]
    session.done()
    assert session.data_to_send() == SET_ATTRIBUTES_ANSWER
    assert session.receive(CLOSE) == [CloseRequested(False)]
    session.done()
    assert session.data_to_send() == CLOSE_ANSWER
    assert session.state is TargetState.CLOSED


def test_the_captured_open_in_both_directions():
    session = started()
    session.open(OPEN_REQUEST)
    assert session.data_to_send() == OPEN
    ready = READY.replaced(lanes=grants(16))
    assert session.receive(OPEN_ANSWER) == [Opened(ready)]
    target = PmdkTargetSession()
    assert target.receive(OPEN) == [GREETED, OpenRequested(OPEN_REQUEST)]
    target.ready(ready)
    assert target.data_to_send() == OPEN_ANSWER


def test_one_byte_at_a_time():
    target = PmdkTargetSession()
    events = [event for byte in CREATE for event in target.receive(bytes([byte]))]
    assert events == [GREETED, CreateRequested(CREATE_REQUEST)]
    session = PmdkInitiatorSession()
    events = [event for byte in pack_status(0) for event in session.receive(bytes([byte]))]
    session.create(CREATE_REQUEST)
    events += [event for byte in CREATE_ANSWER for event in session.receive(bytes([byte]))]
    assert events == [GREETED, Opened(READY)]
    assert session.buffered == target.buffered == 0


def test_the_fields_that_keep_the_native_order():
    target = PmdkTargetSession()
    target.receive(CREATE)
    target.ready(READY.replaced(lanes=grants(3)))
    assert target.data_to_send()[40:] == b"\3\0\0\0"
    assert target.receive(patched(CLOSE, 12, "01000000")) == [CloseRequested(True)]
    session = started()
    session.create(CREATE_REQUEST)
    session.receive(CREATE_ANSWER)
    session.data_to_send()
    session.close(remove=True)
    assert session.data_to_send() == patched(CLOSE, 12, "01000000")
    assert pack_status(2) == b"\2\0\0\0"


def test_read_after_write_is_apm():
    apm = READY.replaced(steps=("read-after-write",), medium="pmem")
    target = PmdkTargetSession()
    target.receive(CREATE)
    target.ready(apm)
    answer = target.data_to_send()
    assert answer == patched(CREATE_ANSWER, 20, "00000002")
    session = started()
    session.create(CREATE_REQUEST)
    assert session.receive(answer) == [Opened(apm)]


def test_no_attributes_are_zeros_on_the_wire():
    session = started()
    session.create(CREATE_REQUEST.replaced(attributes=None))
    request = session.data_to_send()
    assert request[40:144] == bytes(104)
    target = PmdkTargetSession()
    assert target.receive(request)[1].request.attributes is None
    session = started()
    session.open(OPEN_REQUEST)
    (event,) = session.receive(OPEN_ANSWER[:44] + bytes(104))
    assert event.ready.attributes is None


def test_verbs_and_what_has_no_place_in_the_message():
    session = started()
    session.create(
        CREATE_REQUEST.replaced(providers=("tcp", "verbs", "sockets"), parts=3, threads=7)
    )
    assert session.data_to_send() == patched(CREATE, 28, "00000001")
    (event,) = session.receive(CREATE_ANSWER)
    assert event.ready.provider == "verbs"


# --- the target, and what the original does not check -----------------------------------------

ANSWERED = {
    "version 0.2": (patched(CREATE, 14, "0002"), Status.BADPROTO, VersionMismatch),
    "version 1.1": (patched(OPEN, 12, "0001"), Status.BADPROTO, VersionMismatch),
    "no bytes": (patched(CREATE, 16, "0000000000000000"), Status.BADSIZE, MalformedMessage),
    "all bytes": (patched(OPEN, 16, "ffffffffffffffff"), Status.BADSIZE, MalformedMessage),
    "no lanes": (patched(CREATE, 24, "00000000"), Status.BADNLANES, MalformedMessage),
    "provider 0": (patched(CREATE, 28, "00000000"), Status.BADPROVIDER, MalformedMessage),
    "provider 3": (patched(OPEN, 28, "00000003"), Status.BADPROVIDER, MalformedMessage),
    "tiny buffer": (patched(CREATE, 32, "0000000000000001"), Status.BADSIZE, MalformedMessage),
    "huge buffer": (patched(CREATE, 32, "8000000000000000"), Status.BADSIZE, MalformedMessage),
    "no NUL": (patched(CREATE, 155, "2e"), Status.BADNAME, MalformedMessage),
    "two NULs": (patched(OPEN, 48, "00"), Status.BADNAME, MalformedMessage),
    "not UTF-8": (patched(OPEN, 45, "ff"), Status.BADNAME, MalformedMessage),
    "lying name": (patched(OPEN, 40, "00000007"), Status.FATAL, MalformedMessage),
    "huge name": (patched(CREATE, 144, "ffffffff"), Status.FATAL, MalformedMessage),
    "set_attr first": (SET_ATTRIBUTES, Status.FATAL, UnexpectedMessage),
    "close first": (CLOSE, Status.FATAL, UnexpectedMessage),
}


@pytest.mark.parametrize(("request_", "status", "kind"), ANSWERED.values(), ids=ANSWERED)
def test_a_whole_but_wrong_request_is_answered(request_, status, kind):
    target = PmdkTargetSession()
    assert isinstance(failure_of(target.receive(request_)), kind)
    assert target.state is TargetState.FAILED
    answer = target.data_to_send()
    number, answer_kind, size = struct.unpack_from(">IIQ", answer)
    assert number == status
    assert answer_kind == request_[3] + 1
    assert size == len(answer) == {1: 44, 3: 148, 5: 16, 7: 16}[request_[3]]
    assert not any(answer[16:])
    assert target.receive(CREATE) == []
    assert target.buffered == 0


UNANSWERED = {
    "type 0": "00000000 000000000000009c",
    "type 2": "00000002 000000000000002c",
    "type 9": "00000009 0000000000000010",
    "a native frame": "52504d66 0001000000000001",
    "size 0": "00000001 0000000000000000",
    "size 11": "00000005 000000000000000b",
    "short create": "00000001 0000000000000095",
    "short open": "00000003 000000000000002d",
    "short set_attr": "00000007 0000000000000073",
    "long close": "00000005 0000000000000011",
    "huge create": "00000001 7fffffffffffffff",
    "huge open": "00000003 0000000000001100",
    "wrapping": "00000007 ffffffffffffffff",
}


@pytest.mark.parametrize("header", UNANSWERED.values(), ids=UNANSWERED)
def test_a_header_that_lies_gets_the_second_status_word(header):
    target = PmdkTargetSession()
    assert type(failure_of(target.receive(captured(header)))) is MalformedMessage
    assert target.data_to_send() == pack_status(errno.EPROTO)
    assert target.buffered == 0


def test_the_longest_name_and_one_more():
    for length, good in ((4096, True), (4097, False)):
        name = b"n" * length + b"\0"
        size = struct.pack(">Q", 44 + len(name))
        message = OPEN[:4] + size + OPEN[12:40] + struct.pack(">I", len(name)) + name
        event = PmdkTargetSession().receive(message)[-1]
        assert isinstance(event, OpenRequested if good else SessionFailed)


def test_lanes_beyond_all_bounds_are_cut():
    (_, event) = PmdkTargetSession().receive(patched(OPEN, 24, "ffffffff"))
    assert event.request.lanes == 1024


@pytest.mark.parametrize("second", [CREATE, OPEN])
def test_a_second_create_or_open(second):
    target = PmdkTargetSession()
    target.receive(CREATE)
    target.ready(READY)
    target.data_to_send()
    assert type(failure_of(target.receive(second))) is UnexpectedMessage
    assert target.data_to_send()[3] == Status.FATAL


def test_a_request_before_the_answer_to_the_one_before():
    target = PmdkTargetSession()
    assert target.receive(CREATE + CLOSE[:13]) == [GREETED, CreateRequested(CREATE_REQUEST)]
    assert type(failure_of(target.receive(CLOSE[13:]))) is UnexpectedMessage
    target.data_to_send()
    target.ready(READY)
    assert target.data_to_send() == b""


def test_the_beginning_of_the_next_request_does_not_disturb_the_answer():
    target = PmdkTargetSession()
    target.receive(CREATE + CLOSE[:13])
    target.ready(READY)
    assert target.data_to_send() == CREATE_ANSWER
    assert target.receive(CLOSE[13:]) == [CloseRequested(False)]
    target.done()
    assert target.data_to_send() == CLOSE_ANSWER


def test_zero_attributes():
    zero = SET_ATTRIBUTES[:12] + bytes(104)
    target = PmdkTargetSession()
    target.receive(CREATE)
    target.ready(READY)
    target.data_to_send()
    assert target.receive(zero) == []
    assert target.data_to_send() == patched(SET_ATTRIBUTES_ANSWER, 0, "0000000d")
    assert target.state is TargetState.OPEN
    target = PmdkTargetSession()
    target.receive(OPEN)
    target.ready(READY.replaced(attributes=None))
    target.data_to_send()
    assert target.receive(zero) == []
    assert target.data_to_send() == SET_ATTRIBUTES_ANSWER


def test_the_initiator_goes_away():
    target = PmdkTargetSession()
    target.receive(CREATE[:50])
    assert target.receive_eof() == [InitiatorGone()]
    assert target.buffered == 0


def test_log_and_failure_leave_no_trace():
    target = PmdkTargetSession()
    target.receive(CREATE)
    target.log("info", "nobody hears it")
    target.failure(NoSpace("full"))
    assert target.data_to_send() == b""


def test_what_pmdk_cannot_say_about_a_pool():
    target = PmdkTargetSession()
    target.receive(CREATE)
    with pytest.raises(UsageError):
        target.ready(READY.replaced(steps=("commit",)))
    other = LaneGrant(token=b"", key=2, address=0x7FEF32400000)
    with pytest.raises(UsageError):
        target.ready(READY.replaced(lanes=(*grants(1), other)))


# --- status and errors ------------------------------------------------------------------------

STATUSES = [
    (VersionMismatch, 1, errno.EPROTONOSUPPORT),
    (PoolSetNameRefused, 2, errno.EINVAL),
    (PoolSetTooSmall, 3, errno.EFBIG),
    (LaneRefused, 4, errno.EINVAL),
    (ProviderUnavailable, 5, errno.EINVAL),
    (RemoteError, 6, errno.EREMOTEIO),
    (ConnectFailed, 7, errno.ECONNABORTED),
    (PoolSetBusy, 8, errno.EBUSY),
    (PoolSetExists, 9, errno.EEXIST),
    (ProviderUnavailable, 10, errno.EMEDIUMTYPE),
    (PoolSetNotFound, 11, errno.ENOENT),
    (PoolSetDenied, 12, errno.EACCES),
    (PoolSetMalformed, 13, errno.EINVAL),
]


@pytest.mark.parametrize(("kind", "status", "number"), STATUSES)
def test_a_status_is_an_error_with_librpmems_errno(kind, status, number):
    error = error_of(Status(status), CREATE_REQUEST, where="node2")
    assert type(error) is kind
    assert error.errno == number
    assert str(error).startswith("node2: rpmemd refused")
    if status != 10:
        assert status_of(error) == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AttributesRefused("no"), 13),
        (HeaderError("no"), 13),
        (NoSpace("no"), 6),
        (MalformedMessage("no"), 6),
        (ValueError("no"), 6),
        (OSError("no number"), 6),
        (OSError(errno.EWOULDBLOCK, "locked"), 8),
        (OSError(errno.ENOENT, "gone"), 11),
        (OSError(errno.ENOSPC, "full"), 6),
    ],
)
def test_every_error_has_a_status(error, status):
    assert status_of(error) == status


@pytest.mark.parametrize("status", range(1, 14))
def test_a_bad_answer_to_create_reaches_the_initiator(status):
    target = PmdkTargetSession()
    target.receive(CREATE)
    target.error(error_of(Status(status), CREATE_REQUEST, where="here"))
    answer = target.data_to_send()
    assert len(answer) == 44
    session = started()
    session.create(CREATE_REQUEST)
    (event,) = session.receive(answer)
    assert isinstance(event, Refused | SessionFailed)
    assert session.ended
    assert target.state is TargetState.CLOSED


def test_refused_attributes_keep_the_session():
    session = started()
    session.create(CREATE_REQUEST)
    session.receive(CREATE_ANSWER)
    session.set_attributes(ATTRIBUTES)
    (event,) = session.receive(patched(SET_ATTRIBUTES_ANSWER, 0, "0000000d"))
    assert type(event.error) is AttributesRefused
    session.close()


# --- the initiator, against a target that lies ------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, "0000000e"),
        (0, "ffffffff"),
        (4, "00000004"),
        (8, "000000000000002d"),
        (8, "ffffffffffffffff"),
        (16, "00000000"),
        (16, "00010000"),
        (20, "00000000"),
        (20, "00000003"),
        (32, "fffffffffffff000"),
        (40, "00000000"),
        (40, "05000000"),
        (40, "ffffffff"),
    ],
)
def test_a_lying_answer(offset, value):
    session = started()
    session.create(CREATE_REQUEST)
    error = failure_of(session.receive(patched(CREATE_ANSWER, offset, value)))
    assert type(error) is MalformedMessage
    assert session.buffered == 0
    with pytest.raises(MalformedMessage):
        session.close()


def test_a_target_of_the_other_byte_order():
    session = started()
    session.create(CREATE_REQUEST)
    error = failure_of(session.receive(patched(CREATE_ANSWER, 40, "00000004")))
    assert type(error) is VersionMismatch


def test_bytes_that_nobody_asked_for():
    session = started()
    assert type(failure_of(session.receive(CREATE_ANSWER))) is UnexpectedMessage
    session = started()
    session.create(CREATE_REQUEST)
    assert type(failure_of(session.receive(CREATE_ANSWER + b"!"))) is UnexpectedMessage


@pytest.mark.parametrize("tail", [b"", b"\2\0\0\0", CREATE_ANSWER[:20]])
def test_the_target_ends_instead_of_answering(tail):
    session = started()
    session.create(CREATE_REQUEST)
    assert session.receive(tail) == []
    error = failure_of(session.receive_eof())
    assert type(error) is ReplicaLost
    assert error.errno == errno.ECONNRESET
    assert "Create" in str(error)


def test_what_pmdk_cannot_do_is_said_before_anything_is_sent():
    session = started()
    for request, kind in (
        (CREATE_REQUEST.replaced(providers=("tcp", "efa")), ProviderUnavailable),
        (CREATE_REQUEST.replaced(step="commit"), VersionMismatch),
    ):
        with pytest.raises(kind, match="Install rpmem on the target"):
            session.create(request)
    with pytest.raises(UsageError):
        session.open(OPEN_REQUEST.replaced(pool_size=0))
    assert session.data_to_send() == b""
    session.create(CREATE_REQUEST)


def test_the_codec_alone():
    for message, size in (
        (SetAttributes(attributes=ATTRIBUTES), 116),
        (Close(remove=True), 16),
        (CREATE_REQUEST, 156),
        (OPEN_REQUEST, 52),
    ):
        encoded = pmdk.encode_request(message)
        header = pmdk.decode_request_header(encoded)
        assert header.size == len(encoded) == size
        assert pmdk.decode_request(header.kind, encoded[12:]) == message
