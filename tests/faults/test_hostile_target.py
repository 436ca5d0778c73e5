"""Hostile targets in band: whatever they answer, calls end, with an error that says what it was.

A target that lies about what it has done cannot be found out: it is trusted with the data.
"""

from __future__ import annotations

import struct
import threading
import time

import pytest

from rpmem.errors import (
    DeadlineExceeded,
    FlushFailed,
    MalformedMessage,
    RangeError,
    RemoteError,
    ReplicaLost,
    RpmemError,
)
from tests.support.pair import pair
from tests.support.raw_session import BAD_MESSAGE, BAD_RANGE, DONE, FLUSH_FAILED, REPLY, raw_lane
from tests.support.targets import Node

pytestmark = pytest.mark.usefixtures("each_fabric")

SOON = 20.0
REFUSED, GARBLED = -3, -4


def reply(sequence, status=DONE, *, kind=REPLY, number=0):
    return struct.pack("<BBHIII", kind, status, 0, sequence, number, 0)


class Call:
    """A persist in a thread of its own."""

    def __init__(self, core):
        self.error = None
        self.done = threading.Event()
        self._core = core
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        try:
            self._core.persist((0, 64))
        except RpmemError as error:
            self.error = error
        self.done.set()


class Impostor:
    """A target's side of one lane, in the hands of a test."""

    def __init__(self, both):
        self._raw = raw_lane()
        both.server._serve = lambda: None
        both.core = both.connect()
        deadline = time.monotonic() + SOON
        while not both.server._lanes and time.monotonic() < deadline:
            time.sleep(0.001)
        (self.lane,) = both.server._lanes

    def send(self, message):
        self._raw.send(self.lane, message)

    def await_request(self):
        deadline = time.monotonic() + SOON
        while time.monotonic() < deadline:
            if any(kind == "receive" for kind, _ in self._raw.poll(self.lane)):
                return
            time.sleep(0.001)
        raise TimeoutError("no request came")

    def flush(self, seconds=0.2):
        """Let what was sent get on its way."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._raw.poll(self.lane)
            time.sleep(0.001)


@pytest.fixture
def both():
    with pair() as both:
        yield both


def test_an_honest_answer(both):
    """What the others differ from."""
    target = Impostor(both)
    for sequence in (1, 2, 3):
        call = Call(both.core)
        target.await_request()
        assert not call.done.wait(0.05), "acknowledged by nobody"
        target.send(reply(sequence))
        assert call.done.wait(SOON)
        assert call.error is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x81",
        reply(1)[:-1],
        reply(1) + b"\0",
        reply(1) * 3,
        reply(1) * 32,  # more than the buffer for it holds
        reply(1, kind=1),
        reply(1, kind=0),
        reply(2),
        reply(0x7FFFFFFF),
        reply(0xFFFFFFFF),
        b"\xff" * 16,
        bytes(16),
    ],
    ids=lambda message: f"{message[:8].hex()}-{len(message)}",
)
def test_answers_that_are_none(both, message):
    target = Impostor(both)
    call = Call(both.core)
    target.await_request()
    target.send(message)
    assert call.done.wait(SOON)
    assert isinstance(call.error, ReplicaLost)
    assert f"fault {GARBLED}" in str(call.error)
    with pytest.raises(ReplicaLost):
        both.core.persist((0, 64))


@pytest.mark.parametrize("status", [FLUSH_FAILED, BAD_RANGE, BAD_MESSAGE, 4, 255])
@pytest.mark.parametrize("number", [0, 5, 0xFFFFFFFF])
def test_refusals(both, status, number):
    target = Impostor(both)
    call = Call(both.core)
    target.await_request()
    target.send(reply(1, status, number=number))
    assert call.done.wait(SOON)
    assert f"fault {REFUSED}, refusal {status}" in str(call.error)


def test_an_old_answer_acknowledges_nothing(both):
    target = Impostor(both)
    call = Call(both.core)
    target.await_request()
    for _ in range(30):
        target.send(reply(0))
    target.flush()
    assert not call.done.is_set()
    target.send(reply(1))
    assert call.done.wait(SOON)
    assert call.error is None


FAULTS = [
    (-2, 0, 104, ReplicaLost, "reset by peer"),
    (REFUSED, FLUSH_FAILED, 5, FlushFailed, "Input/output error"),
    (REFUSED, BAD_RANGE, 0, RangeError, "outside"),
    (REFUSED, BAD_MESSAGE, 0, RemoteError, "refused"),
    (REFUSED, 200, -1, RemoteError, "200"),
    (GARBLED, 0, 0, MalformedMessage, "protocol"),
    (-5, 0, 0, DeadlineExceeded, "30 s"),
    (-6, 0, 0, ReplicaLost, ""),
]


def test_what_a_replica_makes_of_it(tmp_path):
    node = Node.local(tmp_path / "node")
    for fault, refusal, detail, kind, words in FAULTS:
        replica = node.create(bytearray(2 << 20), f"{fault}{refusal}.set")
        error = replica.explain(fault, refusal, detail)
        replica.release()
        assert type(error) is kind
        assert str(error).startswith(node.target)
        assert words in str(error)
        assert str(replica.failure) == str(error)
