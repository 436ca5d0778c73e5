"""Messages, their fields, and how a session's protocol and version are found."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem.control.bounded_json import format_object
from rpmem.control.framing import INITIATOR_LIMIT, Frame
from rpmem.control.handshake import Protocol, agree, detect, pack_status, unpack_status
from rpmem.control.messages import (
    MAX_LANES,
    MAX_RECORD_SIZE,
    Close,
    Create,
    Done,
    Error,
    Failure,
    Hello,
    Kind,
    LaneGrant,
    Left,
    Log,
    Open,
    Ready,
    SetAttributes,
    SetEpoch,
    decode_from_initiator,
    decode_from_target,
)
from rpmem.errors import (
    ArrayNotFound,
    BufferRefused,
    ClosedError,
    LaunchFailed,
    MalformedMessage,
    PoolSetBusy,
    RemoteError,
    StaleReplica,
    UnexpectedMessage,
    UsageError,
    VersionMismatch,
)
from tests.support import tokens as secrets

U64 = (1 << 64) - 1
CREATE = Create(pool_set="p.set", pool_size=1 << 25, lanes=4, providers=("tcp",), message_size=4096)
READY = Ready(
    provider="tcp",
    port=7,
    lanes=(LaneGrant(token=bytes(32), key=U64, address=U64 - (1 << 25) + 1),),
    pool_size=1 << 25,
    steps=("send-after-write",),
    message_size=4096,
)
HELLO = Hello(software="rpmem 0.1.0", host="node1", pid=1)
tokens = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:;+-]{0,63}", fullmatch=True)
names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=80
)
words = st.text(st.characters(categories=("L", "N", "P")), max_size=100)
attributes = st.binary(min_size=104, max_size=104)
records = st.binary(min_size=1, max_size=300) | st.just(bytes(MAX_RECORD_SIZE))
pool_sizes = st.integers(1, 1 << 40)
message_sizes = st.integers(128, 16 << 20)
lanes = st.integers(1, MAX_LANES)
some_tokens = st.lists(tokens, min_size=1, max_size=4).map(tuple)

requests = st.one_of(
    st.builds(
        Create,
        pool_set=names,
        pool_size=pool_sizes,
        lanes=lanes,
        providers=some_tokens,
        message_size=message_sizes,
        attributes=st.none() | attributes,
        parts=st.integers(0, 1024),
        step=tokens,
        threads=st.integers(0, MAX_LANES),
    ),
    st.builds(
        Open,
        pool_set=names,
        pool_size=st.integers(0, 1 << 40),
        lanes=lanes,
        providers=some_tokens,
        message_size=message_sizes,
        step=tokens,
    ),
    st.builds(SetAttributes, attributes=attributes),
    st.builds(Close, remove=st.booleans()),
    st.builds(SetEpoch, record=records, discard=st.booleans()),
    st.just(Left()),
)
grants = st.builds(
    LaneGrant,
    token=st.binary(min_size=32, max_size=32),
    key=st.integers(0, U64),
    address=st.integers(0, 1 << 62),
)
answers = st.one_of(
    st.builds(
        Ready,
        provider=tokens,
        address=st.sampled_from(["", "192.0.2.1", "2001:db8::7%eth0", "fi_addr_efa://[x]"]),
        port=st.integers(1, 65535),
        lanes=st.lists(grants, min_size=1, max_size=4),
        pool_size=pool_sizes,
        attributes=st.none() | attributes,
        medium=tokens,
        steps=some_tokens,
        message_size=message_sizes,
        window=st.integers(1, 4096),
        record=st.none() | records,
    ),
    st.builds(READY.replaced, damage=st.none() | words),
    st.just(Done()),
    st.builds(Error, code=tokens, errno=st.integers(0, 4095), message=words, hint=words),
    st.builds(Failure, code=tokens, errno=st.integers(0, 4095), message=words),
    st.builds(Log, level=tokens, message=words),
)


def carried(message) -> Frame:
    return Frame(message.KIND, 1, format_object(message.to_json()))


def edited(message, /, **changes) -> Frame:
    """The message with fields of its JSON replaced; None as a change takes the field away."""
    content = {**message.to_json(), **changes}
    content = {name: value for name, value in content.items() if value is not ...}
    return Frame(message.KIND, 1, format_object(content))


@given(requests)
def test_requests_come_through(message):
    assert decode_from_initiator(carried(message)) == message


@given(answers)
def test_answers_come_through(message):
    assert decode_from_target(carried(message)) == message


def test_fields_that_nobody_knows_are_ignored():
    frame = edited(CREATE, colour="blue", deep=[[{"a": [1.5, None]}]])
    assert decode_from_initiator(frame) == CREATE


def test_fields_with_a_default_may_be_missing():
    frame = edited(CREATE, attributes=..., parts=..., step=..., threads=...)
    assert decode_from_initiator(frame) == CREATE


@pytest.mark.parametrize(
    "change",
    [
        {"pool_set": ...},
        {"pool_set": ""},
        {"pool_set": "a\0b"},
        {"pool_set": "n" * 4097},
        {"pool_set": "\u20ac" * 1366},
        {"pool_set": 7},
        {"pool_set": None},
        {"pool_set": ["p.set"]},
        {"pool_size": 0},
        {"pool_size": -1},
        {"pool_size": 1 << 63},
        {"pool_size": 1.5},
        {"pool_size": True},
        {"pool_size": "4096"},
        {"lanes": 0},
        {"lanes": MAX_LANES + 1},
        {"providers": []},
        {"providers": "tcp"},
        {"providers": ["tcp"] * 17},
        {"providers": ["two words"]},
        {"providers": ["x" * 65]},
        {"providers": [None]},
        {"message_size": 63},
        {"message_size": (16 << 20) + 1},
        {"attributes": "00" * 103},
        {"attributes": "00" * 105},
        {"attributes": "0g" * 104},
        {"attributes": " 0" * 104},
        {"attributes": "\u0664" * 208},
        {"attributes": {}},
        {"parts": 1025},
        {"parts": None},
        {"step": ""},
        {"step": "\x1b[31m"},
        {"threads": -1},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_a_create_out_of_bounds(change):
    with pytest.raises(MalformedMessage) as caught:
        decode_from_initiator(edited(CREATE, **change))
    assert "Create" in str(caught.value)
    assert next(iter(change)) in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_lone_surrogate_is_no_name():
    payload = format_object(CREATE.to_json()).replace(b'"p.set"', b'"\\ud800.set"')
    with pytest.raises(MalformedMessage, match="UTF-8"):
        decode_from_initiator(Frame(Kind.CREATE, 1, payload))


@pytest.mark.parametrize(
    "change",
    [
        {"lanes": []},
        {"lanes": [{}]},
        {"lanes": ["token"]},
        {"lanes": [{"token": "00" * 31, "key": 0, "address": 0}]},
        {"lanes": [{"token": "00" * 32, "key": U64 + 1, "address": 0}]},
        {"lanes": [{"token": "00" * 32, "key": 0, "address": U64 - (1 << 25) + 2}]},
        {"lanes": [{"token": "00" * 32, "key": 0, "address": 0}] * (MAX_LANES + 1)},
        {"port": 0},
        {"port": 65536},
        {"address": "a b"},
        {"address": "a\nb"},
        {"address": "x" * 256},
        {"steps": []},
        {"window": 0},
        {"pool_size": 0},
        {"record": ""},
        {"record": "00" * (MAX_RECORD_SIZE + 1)},
        {"record": True},
        {"damage": "x" * 501},
        {"damage": 7},
        {"record": "00", "damage": "torn"},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_a_ready_out_of_bounds(change):
    with pytest.raises(MalformedMessage):
        decode_from_target(edited(READY, **change))
    assert decode_from_target(carried(READY)) == READY


@pytest.mark.parametrize(
    "change",
    [
        {"record": ...},
        {"record": None},
        {"record": ""},
        {"record": "00" * (MAX_RECORD_SIZE + 1)},
        {"record": "00" * MAX_RECORD_SIZE + "0"},
        {"record": " 0" * 9},
        {"record": "0"},
        {"record": ["00"]},
        {"record": 7},
        {"discard": None},
        {"discard": 1},
        {"discard": "yes"},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_a_set_epoch_out_of_bounds(change):
    with pytest.raises(MalformedMessage) as caught:
        decode_from_initiator(edited(SetEpoch(record=b"r" * 9), **change))
    assert f"SetEpoch lacks the field {next(iter(change))}" in str(caught.value) or (
        f"SetEpoch.{next(iter(change))}" in str(caught.value)
    )
    assert len(str(caught.value)) < 300


def test_the_largest_record_fits_into_a_frame():
    message = SetEpoch(record=b"\xff" * MAX_RECORD_SIZE, discard=True)
    assert len(message.encode(1, limit=INITIATOR_LIMIT)) < INITIATOR_LIMIT // 2
    assert decode_from_initiator(carried(message)) == message
    with pytest.raises(UsageError, match=r"record has 8129 bytes, not 1..8128"):
        SetEpoch(record=bytes(MAX_RECORD_SIZE + 1))
    with pytest.raises(UsageError, match=r"record has 0 bytes, not 1..8128"):
        SetEpoch(record=b"")


def test_a_discard_is_never_the_default():
    assert decode_from_initiator(edited(SetEpoch(record=b"r"), discard=...)).discard is False


def test_the_numbers_that_are_reserved_are_refused():
    for number in range(0x0009, 0x000D):
        with pytest.raises(UnexpectedMessage, match="not known"):
            decode_from_initiator(Frame(number, 1, b"{}"))


@pytest.mark.parametrize(
    "change",
    [
        {"software": "x" * 129},
        {"version": 0},
        {"version": 65536},
        {"version": 1, "min_version": 2},
        {"features": ["f"] * 65},
        {"features": {"f": 1}},
        {"pid": -1},
    ],
    ids=repr,
)
def test_a_hello_out_of_bounds(change):
    with pytest.raises(MalformedMessage):
        decode_from_initiator(edited(HELLO, **change))


def test_who_may_say_what():
    for message in (READY, Done(), Error(code="x"), Log(message="x"), Failure(code="x")):
        with pytest.raises(UnexpectedMessage):
            decode_from_initiator(carried(message))
    for message in (
        CREATE,
        Close(),
        SetAttributes(attributes=bytes(104)),
        SetEpoch(record=b"r"),
        Left(),
    ):
        with pytest.raises(UnexpectedMessage):
            decode_from_target(carried(message))
    with pytest.raises(UnexpectedMessage):
        decode_from_initiator(Frame(0x8765, 1, b"{}"))
    assert decode_from_target(Frame(0x8765, 1, b"not even JSON")) is None


def test_our_own_mistakes_are_usage_errors():
    with pytest.raises(UsageError, match=r"Create\.lanes"):
        CREATE.replaced(lanes=0)
    with pytest.raises(UsageError, match="pool_set"):
        CREATE.replaced(pool_set="a\0b")
    with pytest.raises(UsageError, match="Ready has lane 0"):
        READY.replaced(pool_size=(1 << 25) + 1)
    with pytest.raises(TypeError, match="lanes"):
        Open(pool_set="p.set")
    with pytest.raises(TypeError, match="colour"):
        Close(colour="blue")


def test_records_are_values():
    assert CREATE.replaced() == CREATE
    assert CREATE.replaced(lanes=3) != CREATE
    assert Done() != Close()
    assert hash(CREATE) == hash(copy.deepcopy(CREATE))
    with pytest.raises(AttributeError):
        CREATE.lanes = 9
    with pytest.raises(AttributeError):
        del CREATE.lanes
    assert CREATE.lanes == 4


def test_tokens_do_not_show():
    grant = LaneGrant(token=b"\xabcd" + bytes(29), key=1, address=2)
    assert repr(grant) == "LaneGrant(key=1, address=2)"
    assert "xab" not in repr(READY.replaced(lanes=(grant,)))


# --- errors on their way ----------------------------------------------------------------------


def test_an_error_keeps_its_kind_number_words_and_hint():
    there = PoolSetBusy("held by another process", where="/p/a.set", hint="Wait", errno=11)
    message = decode_from_target(carried(Error.from_exception(there)))
    here = message.to_exception("node2")
    assert type(here) is PoolSetBusy
    assert here.errno == 11
    assert str(here) == "node2: /p/a.set: held by another process. Wait."
    failure = decode_from_target(carried(Failure.from_exception(there)))
    assert type(failure.to_exception("node2")) is PoolSetBusy


def test_a_kind_nobody_knows_is_a_remote_error():
    error = Error(code="of-the-future", errno=95, message="no").to_exception("node2")
    assert type(error) is RemoteError
    assert error.remote_code == "of-the-future"
    assert error.errno == 95


def test_long_and_dirty_words_are_made_to_fit():
    error = PoolSetBusy("\x1b]0;owned\x07\udcff" * 1000, hint="\u202e" * 5000)
    message = Error.from_exception(error)
    assert len(message.message) <= 2000
    assert message.message.isprintable()
    assert decode_from_target(carried(message)) == message
    with pytest.raises(MalformedMessage):
        decode_from_target(edited(message, message="x" * 2001))
    dirty = decode_from_target(edited(message, message="a\x1b[1mb"))
    assert dirty.message == "a\\x1b[1mb"


@pytest.mark.parametrize(
    "error",
    [
        ArrayNotFound("no array"),
        OSError(),
        OSError(5, "Input/output error"),
        OSError(70000, "strange"),
        PermissionError(13, "Permission denied", b"/raw\xff"),
        FileNotFoundError(2, "No such file", 7),
        KeyboardInterrupt(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_can_be_told(error):
    for kind in (Error, Failure):
        message = kind.from_exception(error)
        assert decode_from_target(carried(message)) == message
        assert message.to_exception("node2").where == "node2"


# --- handshake --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "protocol"),
    [
        (b"", None),
        (b"R", None),
        (b"RP", None),
        (b"RPM", None),
        (b"RPMf", Protocol.NATIVE),
        (b"RPMf\0\1\0\0", Protocol.NATIVE),
        (b"\0", Protocol.PMDK),
        (b"\0\0\0\1", Protocol.PMDK),
        (b"r", Protocol.PMDK),
        (b"RPMF", Protocol.PMDK),
        (b"RPX", Protocol.PMDK),
    ],
)
def test_the_first_bytes_tell_the_protocol(start, protocol):
    assert detect(start) is protocol


def test_the_status_word():
    assert pack_status(0) == bytes(4)
    for number in (0, 2, 133, 4095):
        assert unpack_status(pack_status(number)) == number
    assert unpack_status(b"hell") is None
    assert unpack_status(pack_status(4096)) is None


@given(st.tuples(*[st.integers(1, 6)] * 4))
def test_versions_agree_on_the_newest_common_one(bounds):
    low1, high1, low2, high2 = bounds
    one = Hello(software="a", host="node1", min_version=min(low1, high1), version=max(low1, high1))
    two = Hello(software="b", host="node2", min_version=min(low2, high2), version=max(low2, high2))
    common = set(range(one.min_version, one.version + 1))
    common &= set(range(two.min_version, two.version + 1))
    if common:
        assert agree(one, two).version == max(common)
        return
    old = "initiator" if one.version < two.version else "target"
    with pytest.raises(VersionMismatch, match=f"Upgrade rpmem on the {old}"):
        agree(one, two)


def test_this_process_says_hello():
    hello = Hello.of_this_process("rpmem 0.1.0", features=("taste",))
    assert hello.pid > 0
    assert hello.host
    assert agree(hello, hello).features == {"taste"}


def test_nothing_heavy_is_imported():
    code = (
        "import sys; import rpmem.control.target, rpmem.control.initiator,"
        " rpmem.control.pmdk_target, rpmem.control.pmdk_initiator;"
        "print(sorted({'socket', 'threading', 'asyncio', 'dataclasses', 'numpy', 'paramiko',"
        " 'click', 'rich', 'subprocess', 'logging'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_an_answer_fits_its_request():
    opened = Open(
        pool_set="p.set", pool_size=1 << 25, lanes=4, providers=("tcp",), message_size=4096
    )
    for request in (CREATE, opened):
        assert READY.mismatch(request) is None
        for change, words in [
            ({"lanes": READY.lanes * 5}, "5 lanes where 4"),
            ({"provider": "verbs"}, "not offered"),
            ({"pool_size": (1 << 25) - 1}, "bytes where"),
            ({"message_size": 4097}, "4096 at most"),
        ]:
            assert words in (READY.replaced(**change).mismatch(request) or "")
        assert READY.replaced(lanes=READY.lanes * 4).mismatch(request) is None


@pytest.mark.parametrize(
    "code", [BufferRefused.code, ClosedError.code, LaunchFailed.code, StaleReplica.code]
)
def test_a_target_cannot_raise_what_only_this_side_can_know(code):
    for kind in (Error, Failure):
        error = kind(code=code, message="words").to_exception("node2")
        assert type(error) is RemoteError
        assert error.remote_code == code


def test_what_is_printed_of_a_grant():
    token = bytes(range(32))
    grant = LaneGrant(token=token, key=0, address=0)
    ready = Ready(
        provider="tcp",
        port=40000,
        lanes=(grant,),
        pool_size=2 << 20,
        steps=("send-after-write",),
        message_size=4096,
    )
    texts = {"grant": f"{grant!r}{grant}".encode(), "ready": f"{ready!r}{ready}".encode()}
    assert secrets.finds([token], texts) == []
