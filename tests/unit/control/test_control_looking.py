"""Looking, as a native initiator and a native target have it between them."""

from __future__ import annotations

import json

import pytest

from rpmem.control.events import (
    Closed,
    CloseRequested,
    LookRequested,
    Refused,
    SessionFailed,
    Shown,
)
from rpmem.control.framing import TARGET_LIMIT, encode_frame
from rpmem.control.handshake import pack_status
from rpmem.control.initiator import InitiatorSession
from rpmem.control.initiator_machine import InitiatorState
from rpmem.control.messages import (
    FEATURES,
    LOOK,
    MAX_LISTED,
    MAX_PEEK,
    Content,
    Hello,
    Kind,
    List,
    Listed,
    Look,
    Open,
    Peek,
    PoolSetRow,
    Seen,
    SetAttributes,
)
from rpmem.control.target import TargetSession
from rpmem.control.target_machine import TargetState
from rpmem.errors import (
    MalformedMessage,
    PoolSetNotFound,
    ProtocolError,
    UnexpectedMessage,
    UsageError,
    VersionMismatch,
)

SEEN = Seen(pool_size=1 << 21, attributes=bytes(104), medium="page", writer=True)
ROW = PoolSetRow(name="a.set", size=1 << 21, state="clean", epoch=3, identity=bytes(16))
PEEK = Peek(offset=4096, length=16)
CONTENT = Content(data=b"0123456789abcdef", writer=True)


class Pair:
    """Both sides, greeted."""

    def __init__(self, *, here=FEATURES, there=FEATURES):
        self.initiator = InitiatorSession(Hello(software="here", features=here), where="node2")
        self.target = TargetSession(Hello(software="there", features=there))
        self.initiator.receive(pack_status(0))
        self.to_target()
        self.to_initiator()

    def to_target(self):
        return self.target.receive(self.initiator.data_to_send())

    def to_initiator(self):
        return self.initiator.receive(self.target.data_to_send())

    def look(self, request, answer):
        self.initiator.look(request)
        assert self.to_target() == [LookRequested(request)]
        self.target.show(answer)
        assert self.to_initiator() == [Shown(answer)]
        return self


def error_of(events):
    assert isinstance(events[-1], SessionFailed), events
    return events[-1].error


def test_a_pool_is_looked_at_piece_by_piece_and_the_session_closed():
    pair = Pair().look(Look(pool_set="a.set"), SEEN).look(PEEK, CONTENT).look(PEEK, CONTENT)
    pair.initiator.close()
    assert pair.to_target() == [CloseRequested(False)]
    pair.target.done()
    assert pair.to_initiator() == [Closed()]
    assert (pair.initiator.state, pair.target.state) == (InitiatorState.CLOSED, TargetState.CLOSED)


def test_pool_sets_are_listed_page_by_page():
    first, second = Listed(sets=(ROW,) * MAX_LISTED, last=False), Listed(sets=(), last=True)
    Pair().look(List(), first).look(List(), second)


def test_the_largest_answers_fit_into_a_frame():
    Content(data=bytes(MAX_PEEK)).encode(1, limit=TARGET_LIMIT)
    name, why = "\N{GRINNING FACE}" * 4096, "\N{GRINNING FACE}" * 500
    largest = PoolSetRow(name=name, state="damaged", reason=why)
    with pytest.raises(UsageError):
        Listed(sets=(largest,) * (MAX_LISTED + 1), last=True)
    # A name has at most 4096 bytes, which is a quarter of these.
    shorter = PoolSetRow(name=name[:1024], state="damaged", reason=why)
    Listed(sets=(shorter,) * MAX_LISTED, last=True).encode(1, limit=TARGET_LIMIT)


def test_a_refused_look_ends_the_session():
    pair = Pair()
    pair.initiator.look(Look(pool_set="a.set"))
    pair.to_target()
    pair.target.error(PoolSetNotFound("there is none"))
    (event,) = pair.to_initiator()
    assert isinstance(event, Refused)
    assert isinstance(event.error, PoolSetNotFound)
    assert (pair.initiator.state, pair.target.state) == (InitiatorState.CLOSED, TargetState.CLOSED)


def test_an_older_target_is_not_asked():
    pair = Pair(there=())
    with pytest.raises(VersionMismatch, match="older"):
        pair.initiator.look(Look(pool_set="a.set"))
    with pytest.raises(VersionMismatch, match="older"):
        pair.initiator.look(List())
    assert pair.initiator.data_to_send() == b""


@pytest.mark.parametrize("request_", [Look(pool_set="a.set"), List()])
def test_the_target_refuses_an_initiator_without_the_feature(request_):
    pair = Pair(here=())
    error = error_of(pair.target.receive(request_.encode(2, limit=1 << 16)))
    assert isinstance(error, UnexpectedMessage)
    assert LOOK in str(error)


@pytest.mark.parametrize(
    "request_",
    [
        PEEK,
        SetAttributes(attributes=bytes(104)),
    ],
)
def test_out_of_turn_before_a_look(request_):
    pair = Pair()
    assert isinstance(
        error_of(pair.target.receive(request_.encode(2, limit=1 << 16))), UnexpectedMessage
    )


@pytest.mark.parametrize(
    "request_",
    [
        Look(pool_set="b.set"),
        SetAttributes(attributes=bytes(104)),
        Open(pool_set="a", lanes=1, providers=("tcp",), message_size=4096),
    ],
)
def test_who_looks_can_do_nothing_else(request_):
    pair = Pair().look(Look(pool_set="a.set"), SEEN)
    events = pair.target.receive(request_.encode(3, limit=1 << 16))
    assert isinstance(error_of(events), UnexpectedMessage)
    pair = Pair().look(Look(pool_set="a.set"), SEEN)
    with pytest.raises(UsageError, match="not possible now"):
        pair.initiator.set_attributes(bytes(104))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (Look(pool_set="a.set"), CONTENT),
        (Look(pool_set="a.set"), Listed(sets=(), last=True)),
        (List(), SEEN),
    ],
)
def test_the_answer_to_another_question_is_refused(request_, answer):
    pair = Pair()
    pair.initiator.look(request_)
    error = error_of(pair.initiator.receive(answer.encode(2, limit=TARGET_LIMIT)))
    assert isinstance(error, ProtocolError)


def test_an_answer_that_nobody_asked_for_is_refused():
    pair = Pair()
    error = error_of(pair.initiator.receive(SEEN.encode(1, limit=TARGET_LIMIT)))
    assert isinstance(error, UnexpectedMessage)


@pytest.mark.parametrize("length", [15, 17])
def test_content_of_another_length_is_refused(length):
    pair = Pair().look(Look(pool_set="a.set"), SEEN)
    pair.initiator.look(PEEK)
    content = Content(data=bytes(length))
    error = error_of(pair.initiator.receive(content.encode(3, limit=TARGET_LIMIT)))
    assert isinstance(error, MalformedMessage)
    assert "not 16" in str(error)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "a", "state": "clean", "epoch": -1},
        {"name": "a", "state": "clean", "size": 1 << 64},
        {"name": "a", "state": "\x1b[2J"},
        {"name": "a", "state": "clean", "identity": "00"},
        {"name": "a" * 4097, "state": "clean"},
        {"name": "a", "state": "clean", "reason": "a" * 501},
        {"state": "clean"},
        "a",
    ],
)
def test_rows_out_of_their_bounds_are_refused(row):
    pair = Pair()
    pair.initiator.look(List())

    payload = json.dumps({"sets": [row], "last": True}).encode()
    frame = encode_frame(Kind.LISTED, 2, payload, limit=TARGET_LIMIT)
    assert isinstance(error_of(pair.initiator.receive(frame)), MalformedMessage)


def test_what_a_row_says_is_printable():
    pair = Pair()
    pair.initiator.look(List())

    row = {"name": "a\x1b[2J\n", "state": "damaged", "reason": "\x07\r\n"}
    payload = json.dumps({"sets": [row], "last": True}).encode()
    (event,) = pair.initiator.receive(encode_frame(Kind.LISTED, 2, payload, limit=TARGET_LIMIT))
    assert isinstance(event, Shown)
    (made,) = event.answer.sets
    assert made.name.isprintable()
    assert made.reason.isprintable()
