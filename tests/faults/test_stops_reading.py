"""A side that stops reading in the middle of a session, with bytes for it on their way."""

from __future__ import annotations

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from rpmem.control.proof import pack_proof
from rpmem.errors import DeadlineExceeded, ReplicaLost, RpmemError
from rpmem.fabric.stream import call, lane
from rpmem.fabric.stream.call import ANSWER
from tests.support import fabrics
from tests.support.media import wait_unlocked
from tests.support.over_tcp import no_ssh, node
from tests.support.pair import LISTENING, pair
from tests.support.processes import stop
from tests.support.raw_session import RawSession

READ, LARGEST, AT_ONCE = 3, 1 << 20, 64
SIZE, PAGE = 4 << 20, 4096
LANES, TIMEOUT_S = 4, 2.0
#: Seconds after which a session without lanes ends, by itself, and some more.
GRACE_S = 30.0


@contextmanager
def one_that_never_reads(port, proof):
    """Connect a lane, and want far more than the sockets have room for."""
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        taker.settimeout(20.0)
        taker.connect((LISTENING, port))
        taker.sendall(proof)
        assert taker.recv(len(ANSWER), socket.MSG_WAITALL) == ANSWER
        taker.sendall(AT_ONCE * struct.pack("<IBBHQ", LARGEST, READ, 0, 0, 0))
        yield taker


def test_an_initiator_that_stops_reading_is_given_up(monkeypatch):
    """The kernel asks it for room, and gives up in time."""
    monkeypatch.setattr(lane, "UNANSWERED_MS", 1500)
    with pair(provider="stream", size=2 * LARGEST) as both:
        proof = pack_proof(0, both.tokens[0])
        with one_that_never_reads(both.server.port, proof):
            begun = time.monotonic()
            both.first_report()
            took = time.monotonic() - begun
    assert 1.0 < took < 15.0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_its_pool_can_be_opened_again_without_help(tmp_path, monkeypatch):
    """The target itself ends the session, though the initiator is there and says nothing."""
    monkeypatch.setattr(fabrics, "default", "stream")
    (tmp_path / "node").mkdir()
    with (
        RawSession(tmp_path / "node", size=2 * LARGEST) as session,
        one_that_never_reads(session.ready.port, session.proof(0)),
    ):
        took = wait_unlocked(tmp_path / "node" / "a.set", call.UNANSWERED_MS / 1000 + GRACE_S)
        assert took > call.UNANSWERED_MS / 2000
        RawSession(tmp_path / "node", size=2 * LARGEST, create=False).close()


@pytest.mark.parametrize("over", ["pair", "tls"])
def test_who_waits_for_a_target_that_stops_reading_is_woken(tmp_path, set_variable, over):
    """Those whose bytes fill the sockets, and those that wait for a lane."""
    set_variable("RPMEM_SSH", str(no_ssh(tmp_path)))
    target = node(tmp_path / "node", over)
    replica = target.create(bytearray(SIZE), nlanes=LANES, timeout=TIMEOUT_S)
    calls = [
        lambda: replica.persist(PAGE, 64),
        lambda: replica.persist(PAGE, 2 << 20),
        lambda: replica.persist(PAGE, 2 << 20, relaxed=True),
        lambda: replica.read(bytearray(2 << 20), PAGE),
    ] * 3

    def work(call):
        try:
            while True:
                begun = time.monotonic()
                call()
        except RpmemError as error:
            return time.monotonic() - begun, type(error), str(error)

    with ThreadPoolExecutor(len(calls)) as threads:
        waiting = [threads.submit(work, each) for each in calls]
        time.sleep(0.2)
        stop(replica.peer.pid)
        ends = [each.result(20 * TIMEOUT_S) for each in waiting]
    for took, kind, text in ends:
        assert took < 3 * TIMEOUT_S
        assert issubclass(kind, DeadlineExceeded | ReplicaLost)
        assert target.target in text
    with pytest.raises(RpmemError):
        replica.persist(PAGE, 64)
    replica.close()
    wait_unlocked(target.directory / "a.set")
    target.open(bytearray(SIZE)).close()
