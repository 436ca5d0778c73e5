"""Hostile targets on the control session: where lanes go, what is held, logged and shown."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time

import pytest

import rpmem
from rpmem import errors
from rpmem.control.messages import Error, Failure, LaneGrant, Ready
from rpmem.errors import (
    ConnectFailed,
    DeadlineExceeded,
    MalformedMessage,
    RemoteError,
    RpmemError,
)
from rpmem.session.channel import _MOST_LINES, Channel
from rpmem.session.limits import Limits
from tests.support.hostile_rpmemd import command
from tests.support.raw_session import resident

SIZE = 2 << 20


def create(tmp_path, timeout=10.0, **wishes):
    return rpmem.create(
        f"local:{tmp_path}", "a.set", bytearray(SIZE), 2, timeout=timeout, command=command(**wishes)
    )


class Elsewhere:
    """A machine that is none of the initiator's or the target's business."""

    def __init__(self, address="127.0.0.9"):
        self._socket = socket.socket()
        self._socket.bind((address, 0))
        self._socket.listen()
        self.address, self.port = self._socket.getsockname()
        self.visits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self):
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def elsewhere():
    machine = Elsewhere()
    yield machine
    machine.close()


def test_lanes_do_not_go_where_the_target_sends_them(tmp_path, elsewhere):
    with pytest.raises((ConnectFailed, DeadlineExceeded)) as caught:
        create(tmp_path, ready={"address": elsewhere.address, "port": elsewhere.port})
    assert elsewhere.visits == 0
    assert elsewhere.address in str(caught.value)
    assert "RPMEM_LANE_HOSTS" in str(caught.value)


def test_unless_the_user_allows_it(tmp_path, elsewhere):
    """The other side of it: the machine is found where it is allowed."""
    with pytest.raises((ConnectFailed, DeadlineExceeded)):
        rpmem.create(
            f"local:{tmp_path}",
            "a.set",
            bytearray(SIZE),
            2,
            timeout=10.0,
            command=command(ready={"address": elsewhere.address, "port": elsewhere.port}),
            lane_hosts="127.0.0.8/30",
        )
    assert elsewhere.visits > 0


@pytest.mark.parametrize("port", [22, 25, 1023])
def test_nor_to_the_ports_of_services(tmp_path, port):
    with pytest.raises(ConnectFailed, match=f"port {port},"):
        create(tmp_path, ready={"port": port})


@pytest.mark.parametrize("message_size", [128, 1 << 16, 129 << 12])
def test_a_window_does_not_decide_how_much_memory_is_held(message_size):
    ready = Ready(
        provider="tcp",
        port=40000,
        lanes=(LaneGrant(token=bytes(32), key=0, address=0),),
        pool_size=SIZE,
        steps=("send-after-write",),
        message_size=message_size,
        window=4096,
    )
    window = Limits.native(ready, paces=True).window
    assert 4 <= window <= 64
    assert window * message_size <= 32 << 20


def test_log_records_are_few_and_safe_to_print(tmp_path, caplog):
    """20,000 records: some are passed on, in no time."""
    before = resident("self")
    begun = time.monotonic()
    line = "\x1b]0;owned\x07\x1b[2J\r\nrpmem[1] ERROR: forged \u202e " + "x" * 200
    with caplog.at_level(logging.DEBUG, logger="rpmem"), pytest.raises(RpmemError):
        create(tmp_path, timeout=60.0, logs=20_000, line=line, ready={"port": 22})
    assert resident("self") - before < 64 << 20
    took = time.monotonic() - begun
    lines = [record.getMessage() for record in caplog.records if "rpmemd: " in record.getMessage()]
    assert 100 < len(lines) <= _MOST_LINES + 50 * took + 10
    assert all(line.isprintable() for line in lines)


def test_lines_that_were_left_out_are_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("rpmem.session.channel._LINES_PER_SECOND", 1000.0)
    with caplog.at_level(logging.DEBUG, logger="rpmem"), pytest.raises(RpmemError):
        create(tmp_path, timeout=60.0, logs=5_000, ready={"port": 22})
    assert any("were left out" in record.getMessage() for record in caplog.records)


def test_stderr_is_bounded_and_safe_to_print(tmp_path):
    words = "\x1b[31mred\x07" * 100_000
    with pytest.raises(RpmemError) as caught:
        rpmem.create(
            f"local:{tmp_path}",
            "a.set",
            bytearray(SIZE),
            timeout=10.0,
            command=f"python3 -c \"import sys; sys.stderr.write('{words[:1000]}' * 1000)\"; true",
        )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_last_words_are_safe_to_print(tmp_path):
    """What is quoted when the session ends under way."""
    script = "printf '\\0\\0\\0\\0'; head -c 16 >/dev/null; printf '\\033[2Jgone\\n' >&2; exit 3"
    with pytest.raises(RpmemError, match="gone") as caught:
        rpmem.create(
            f"local:{tmp_path}", "a.set", bytearray(SIZE), timeout=10.0, command=f"{script} #"
        )
    assert str(caught.value).isprintable()


def test_last_words_of_a_removal_are_safe_to_print(tmp_path):
    script = "printf '\\033[2Jgone\\n' >&2; exit 2"
    with pytest.raises(RpmemError, match="gone") as caught:
        rpmem.remove(f"local:{tmp_path}", "a.set", timeout=10.0, command=f"{script} #")
    assert str(caught.value).isprintable()


OURS_ALONE = [
    kind
    for kind in errors.KINDS.values()
    if issubclass(
        kind,
        errors.ClosedError
        | errors.LaunchError
        | errors.CatalogueError
        | errors.StaleReplica
        | errors.BufferRefused
        | errors.TargetSyntaxError,
    )
]


@pytest.mark.parametrize("kind", OURS_ALONE, ids=lambda kind: kind.code)
def test_errors_of_this_side_are_not_the_targets_to_raise(kind):
    for message in (Error(code=kind.code, message="x"), Failure(code=kind.code, message="x")):
        error = message.to_exception("node2")
        assert type(error) is RemoteError
        assert error.remote_code == kind.code


@pytest.mark.parametrize("code", ["closed", "forked", "usage", "poolset-busy", "no-such-code"])
def test_an_error_in_place_of_an_answer(tmp_path, code):
    fields = {"code": code, "errno": 0, "message": "\x1b[2Jno", "hint": "\x1b]0;x\x07"}
    with pytest.raises(RpmemError) as caught:
        create(tmp_path, error=fields)
    assert str(caught.value).isprintable()
    assert not isinstance(caught.value, errors.ClosedError)


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 0},
        {"port": 65536},
        {"port": -1},
        {"port": 1e9},
        {"lanes": []},
        {"lanes": [{"token": "00" * 32, "key": 0, "address": 0}] * 3},
        {"lanes": [{"token": "00" * 32, "key": 1 << 64, "address": 0}]},
        {"lanes": [{"token": "00" * 31, "key": 0, "address": 0}]},
        {"lanes": [{"token": "00" * 32, "key": 0, "address": (1 << 64) - 1}]},
        {"pool_size": 1},
        {"pool_size": 1 << 63},
        {"provider": "verbs"},
        {"provider": "../../etc/passwd"},
        {"steps": []},
        {"steps": ["a" * 65]},
        {"message_size": 1 << 30},
        {"message_size": 0},
        {"window": 0},
        {"window": 1 << 31},
        {"staging": 1 << 40},
        {"attributes": "00" * 103},
        {"address": "\x1b[2J"},
        {"address": "a" * 10_000},
        {"medium": ["page"]},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_answers_out_of_bounds(tmp_path, fields):
    with pytest.raises(MalformedMessage) as caught:
        create(tmp_path, raw=fields)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "steps", [["no-such-step"], ["no-such-step", "send-after-write"], ["commit"], ["flush"]]
)
def test_steps_that_are_none(tmp_path, steps):
    """Nobody listens where the lanes are said to be: what counts is that an error says so."""
    with pytest.raises(RpmemError):
        create(tmp_path, ready={"steps": steps, "port": 1024})


def test_answers_at_random(tmp_path):
    """Fields of every type in every place: an error of ours, and nothing held."""
    chance = random.Random(4)
    values = [None, True, -1, 0, 1, 1 << 63, 1.5, "", "x", "00", [], {}, [[]], ["x"], {"token": ""}]
    names = [name for name in Ready._rules if name not in ("hint",)]
    for _ in range(12):
        fields = {name: chance.choice(values) for name in chance.sample(names, 3)}
        with pytest.raises(RpmemError):
            create(tmp_path, raw={"port": 1023, **fields})


def test_a_quiet_hour_is_not_saved_up(monkeypatch, caplog):
    """Of a burst after it, as many lines are passed on as of one at the beginning."""
    channel = Channel.__new__(Channel)
    channel._where, channel._lines_left, channel._lines_dropped = "node", 0.0, 0
    channel._logged_at = 0.0
    monkeypatch.setattr("rpmem.session.channel.time.monotonic", lambda: 3600.0)
    with caplog.at_level(logging.INFO, logger="rpmem"):
        for _ in range(2 * _MOST_LINES):
            channel._log(logging.INFO, "words")
    assert len(caplog.records) == _MOST_LINES


def test_the_first_failure_is_the_one_that_is_told():
    told = []
    channel = Channel.__new__(Channel)
    channel._state, channel._failure, channel._closing = threading.Condition(), None, False
    channel._on_failure = told.append
    first, second = RpmemError("first"), RpmemError("second")
    channel._fail(first)
    channel._fail(second)
    assert told == [first]
    assert channel.failure is first
