"""Digests, as a native initiator and a native target have them between them."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpmem.base import parts
from rpmem.control.bounded_json import format_object
from rpmem.control.events import DigestsRequested, DigestsTaken, Refused, SessionFailed
from rpmem.control.framing import INITIATOR_LIMIT, TARGET_LIMIT, Frame, encode_frame
from rpmem.control.initiator_machine import InitiatorState
from rpmem.control.messages import (
    BLOCK_UNIT,
    DEEP,
    DIGEST,
    FEATURES,
    MAX_UNITS,
    PAGE_UNIT,
    Close,
    Digest,
    Digests,
    Done,
    Kind,
    Left,
    decode_from_initiator,
    decode_from_target,
    features,
)
from rpmem.control.target_machine import TargetState
from rpmem.errors import FlushFailed, MalformedMessage, RangeError, UnexpectedMessage, UsageError
from tests.unit.control.test_control_session import HERE, READY, THERE, Pair

KEY = bytes(range(32))
DIGEST_OF_TWO = Digest(offset=24576, length=8000, unit=4096, key=KEY)
TWO = bytes(range(24))


def opened() -> Pair:
    both = {"features": (DIGEST,)}
    return Pair(HERE.replaced(**both), THERE.replaced(**both)).open(READY)


def asked() -> Pair:
    pair = opened()
    pair.initiator.digest(DIGEST_OF_TWO)
    pair.to_target()
    return pair


def error_of(events):
    assert isinstance(events[-1], SessionFailed), events
    return events[-1].error


def test_digests_are_asked_for_as_often_as_wanted():
    pair = opened()
    for _ in range(3):
        pair.initiator.digest(DIGEST_OF_TWO)
        assert pair.initiator.state is InitiatorState.HASHING
        assert pair.to_target() == [DigestsRequested(DIGEST_OF_TWO)]
        assert pair.target.state is TargetState.HASHING
        pair.target.digests(TWO)
        assert pair.to_initiator() == [DigestsTaken(TWO)]
        assert pair.initiator.state is InitiatorState.OPEN
        assert pair.target.state is TargetState.OPEN


def test_what_the_medium_has_is_asked_for_and_said():
    both = {"features": (DEEP, DIGEST)}
    pair = Pair(HERE.replaced(**both), THERE.replaced(**both)).open(READY)
    for deep in (True, False):
        request = DIGEST_OF_TWO.replaced(deep=True)
        pair.initiator.digest(request)
        assert pair.to_target() == [DigestsRequested(request)]
        pair.target.digests(TWO, deep=deep)
        assert pair.to_initiator() == [DigestsTaken(TWO, deep=deep)]


def test_the_medium_is_not_answered_for_unasked():
    pair = asked()
    pair.target.digests(TWO, deep=True)
    error = error_of(pair.to_initiator())
    assert type(error) is MalformedMessage
    assert "not asked for" in str(error)


def test_a_target_without_the_feature_is_not_asked_for_its_medium():
    pair = opened()
    request = DIGEST_OF_TWO.replaced(deep=True)
    error = error_of(pair.target.receive(request.encode(3, limit=INITIATOR_LIMIT)))
    assert type(error) is UnexpectedMessage
    assert "needs the feature deep" in str(error)


@pytest.mark.parametrize("error", [RangeError("not there"), FlushFailed("it refused", errno=5)])
def test_a_refusal_leaves_the_session_open(error):
    pair = asked()
    pair.target.error(error)
    (event,) = pair.to_initiator()
    assert isinstance(event, Refused)
    assert type(event.error) is type(error)
    assert pair.initiator.state is InitiatorState.OPEN
    assert pair.target.state is TargetState.OPEN


@pytest.mark.parametrize("count", [12, 23, 25, 36])
def test_another_number_of_digests_ends_the_session(count):
    pair = asked()
    frame = encode_frame(
        Kind.DIGESTS,
        3,
        json.dumps({"digests": base64.b64encode(bytes(count)).decode()}).encode(),
        limit=TARGET_LIMIT,
    )
    error = error_of(pair.initiator.receive(frame))
    assert type(error) is MalformedMessage
    assert f"{count} bytes, not those of 2 digests" in str(error)


def test_digests_that_nobody_asked_for_end_the_session():
    pair = opened()
    error = error_of(pair.initiator.receive(Digests(digests=TWO).encode(2, limit=TARGET_LIMIT)))
    assert type(error) is UnexpectedMessage


@pytest.mark.parametrize("answer", [Done(), READY])
def test_another_answer_ends_the_session(answer):
    pair = asked()
    error = error_of(pair.initiator.receive(answer.encode(3, limit=TARGET_LIMIT)))
    assert type(error) is UnexpectedMessage


@pytest.mark.parametrize("request_", [DIGEST_OF_TWO, Close(), Left()])
def test_nothing_is_asked_before_the_answer(request_):
    pair = asked()
    error = error_of(pair.target.receive(request_.encode(4, limit=INITIATOR_LIMIT)))
    assert type(error) is UnexpectedMessage


def test_a_target_answers_once():
    pair = asked()
    pair.target.digests(TWO)
    with pytest.raises(UsageError, match="not possible now"):
        pair.target.digests(TWO)
    pair = asked()
    with pytest.raises(UsageError, match="not possible now"):
        pair.target.done()


# --- fields -----------------------------------------------------------------------------------


@given(
    st.builds(
        Digest,
        offset=st.integers(0, (1 << 63) - 1),
        length=st.integers(1, 4096 * PAGE_UNIT),
        unit=st.integers(PAGE_UNIT, BLOCK_UNIT),
        key=st.binary(min_size=32, max_size=32),
    )
)
def test_requests_come_through(message):
    frame = Frame(message.KIND, 1, format_object(message.to_json()))
    assert decode_from_initiator(frame) == message


@given(st.integers(1, 300).flatmap(lambda n: st.binary(min_size=12 * n, max_size=12 * n)))
def test_answers_come_through(found):
    message = Digests(digests=found)
    frame = Frame(message.KIND, 1, format_object(message.to_json()))
    assert decode_from_target(frame) == message


@pytest.mark.parametrize(
    "change",
    [
        {"offset": -1},
        {"offset": 1 << 63},
        {"offset": "0"},
        {"length": 0},
        {"length": 1 << 63},
        {"length": None},
        {"unit": 0},
        {"unit": 4095},
        {"unit": (1 << 20) + 1},
        {"unit": 4096.0},
        {"key": ""},
        {"key": "00" * 31},
        {"key": "00" * 33},
        {"key": "zz" * 32},
        {"key": None},
        {"length": MAX_UNITS * 4096 + 1},
        {"length": MAX_UNITS << 20, "unit": (1 << 20) - 1},
    ],
    ids=repr,
)
def test_a_request_out_of_bounds(change):
    fields = {**DIGEST_OF_TWO.to_json(), **change}
    with pytest.raises(MalformedMessage, match="Digest"):
        decode_from_initiator(Frame(Kind.DIGEST, 1, format_object(fields)))


@pytest.mark.parametrize("name", ["offset", "length", "unit", "key"])
def test_no_field_of_a_request_has_a_default(name):
    fields = {key: value for key, value in DIGEST_OF_TWO.to_json().items() if key != name}
    with pytest.raises(MalformedMessage, match=name):
        decode_from_initiator(Frame(Kind.DIGEST, 1, format_object(fields)))


@pytest.mark.parametrize(
    "digests",
    [
        None,
        7,
        "",
        "AAAA",
        "A" * 15,
        "A" * 16 + " ",
        "A" * 15 + "\n",
        "-" * 16,
        "é" * 16,
        "=" * 16,
        "A" * 4 * (MAX_UNITS * 4 + 1),
        ["A" * 16],
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_answer_out_of_bounds(digests):
    with pytest.raises(MalformedMessage, match="Digests"):
        decode_from_target(Frame(Kind.DIGESTS, 1, format_object({"digests": digests})))


def test_the_largest_answer_fits_into_a_frame():
    largest = Digests(digests=b"\xff" * MAX_UNITS * 12)
    frame = largest.encode(1, limit=TARGET_LIMIT)
    # Digests of pages cost 0.4 % of what they are of.
    assert len(frame) < 0.004 * MAX_UNITS * 4096
    assert (
        len(Digest(offset=(1 << 63) - 1, length=1, unit=4096, key=KEY).encode(1, limit=999)) < 300
    )


def test_the_key_is_not_shown():
    assert KEY.hex() not in repr(DIGEST_OF_TWO)


# --- the feature ------------------------------------------------------------------------------


def test_a_build_without_the_part_does_not_have_the_feature(monkeypatch):
    monkeypatch.setattr(parts, "is_there", lambda name: not name.endswith(".unit_digests"))
    assert set(FEATURES) - set(features()) == {DIGEST, DEEP}
    monkeypatch.setattr(parts, "is_there", lambda name: True)
    assert features() == FEATURES
