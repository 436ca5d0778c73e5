"""Frames and the JSON in them, from peers that mean harm."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem.control.bounded_json import format_object, parse_object
from rpmem.control.framing import (
    HEADER_SIZE,
    INITIATOR_LIMIT,
    MAGIC,
    Frame,
    FrameDecoder,
    encode_frame,
)
from rpmem.errors import MalformedMessage, UsageError

LIMIT = 1000


def decode(data: bytes, limit: int = LIMIT) -> list[Frame]:
    return list(FrameDecoder(limit).feed(data))


def test_the_header_as_documented():
    assert encode_frame(0x1234, 7, b"{}", limit=LIMIT) == (
        b"RPMf" + b"\x12\x34" + b"\0\0" + b"\0\0\0\7" + b"\0\0\0\2" + b"{}"
    )
    assert HEADER_SIZE == 16


FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=60),
    ),
    max_size=6,
)


@given(FRAMES, st.lists(st.integers(1, 50), max_size=40))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, cuts):
    stream = b"".join(encode_frame(*frame, limit=LIMIT) for frame in frames)
    decoder = FrameDecoder(LIMIT)
    out = []
    for cut in cuts:
        out += decoder.feed(stream[:cut])
        stream = stream[cut:]
    out += decoder.feed(stream)
    assert out == frames
    assert decoder.buffered == 0


@pytest.mark.parametrize("start", [b"R\0", b"r", b"RPMF", b"\0", b"SSH-2.0-", b"RPM "])
def test_the_first_wrong_byte_is_enough(start):
    with pytest.raises(MalformedMessage):
        decode(start)


def test_a_length_beyond_the_limit_is_refused_before_any_of_it_came():
    for length in (LIMIT + 1, 0xFFFFFFFF):
        with pytest.raises(MalformedMessage, match="limit"):
            decode(struct.pack(">4sHHII", MAGIC, 1, 0, 1, length))
    assert decode(struct.pack(">4sHHII", MAGIC, 1, 0, 1, LIMIT)) == []
    with pytest.raises(UsageError):
        encode_frame(1, 1, bytes(INITIATOR_LIMIT + 1), limit=INITIATOR_LIMIT)


def test_flags_are_reserved():
    with pytest.raises(MalformedMessage, match="flags"):
        decode(struct.pack(">4sHHII", MAGIC, 1, 1, 1, 0))


def test_the_decoder_holds_one_frame_at_most():
    decoder = FrameDecoder(LIMIT)
    frame = encode_frame(1, 1, bytes(LIMIT), limit=LIMIT)
    for _ in range(50):
        assert list(decoder.feed(frame[:-1])) == []
        assert decoder.buffered < HEADER_SIZE + LIMIT
        assert len(list(decoder.feed(frame[-1:]))) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"{",
        b"{}{}",
        b'{"a":1,}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":2}}',
        b"\xff\xfe{\0}\0",
        b'{"a":"\xc0\x80"}',
        b'{"a":' + b"9" * 21 + b"}",
        b'{"a":' + b"9" * 60000 + b"}",
        b'{"a":0.' + b"1" * 60000 + b"}",
        b'{"a":1e' + b"9" * 60000 + b"}",
        b'{"a":' + b"[" * 60000 + b"]" * 60000 + b"}",
        b'{"a":' * 10000 + b"1" + b"}" * 10000,
        b"[" * 60000,
        b'{"a":"' + b"x" * 60000,
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda payload: repr(payload[:16]),
)
def test_payloads_that_are_refused(payload):
    with pytest.raises(MalformedMessage):
        parse_object(payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_honest_objects_come_through(value):
    assert parse_object(format_object(value)) == value
    assert parse_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_a_typed_error(payload):
    with contextlib.suppress(MalformedMessage):
        assert isinstance(parse_object(payload), dict)
