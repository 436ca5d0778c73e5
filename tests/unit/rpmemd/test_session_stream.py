"""The initiator as rpmemd sees it: what comes late, what does not fit, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from rpmem.control.handshake import pack_status
from rpmem.errors import ProviderUnavailable, ReplicaLost
from rpmemd import lane_server, session
from rpmemd.session import Session
from rpmemd.stream import Stream
from tests.support.compiled import ROOT


@pytest.fixture
def pipe():
    source, sink = os.pipe2(os.O_NONBLOCK)
    yield source, sink
    for descriptor in (source, sink):
        os.close(descriptor)


def test_a_source_that_does_not_wait_is_waited_for(pipe):
    source, sink = pipe
    got = []
    thread = threading.Thread(target=lambda: got.append(Stream(source, sink).read()))
    thread.start()
    thread.join(0.05)
    assert not got, "nothing was there to be read"
    os.write(sink, b"late")
    thread.join(10)
    assert got == [b"late"]


def test_all_is_written_to_a_sink_that_takes_little_at_a_time(pipe):
    source, sink = pipe
    data = os.urandom(1 << 20)
    thread = threading.Thread(target=Stream(source, sink).write, args=(data,))
    thread.start()
    got = bytearray()
    while len(got) < len(data):
        writes = thread.is_alive()
        try:
            got += os.read(source, 30_000)
        except BlockingIOError:
            assert writes
    thread.join(10)
    assert got == data


class Machine:
    """A protocol that notes what it is told to send."""

    def __init__(self):
        self.failures = []

    def failure(self, error):
        self.failures.append(error)

    def receive(self, data):
        return []

    def receive_eof(self):
        self.failures.append(None)
        return []

    def data_to_send(self):
        return b""


class Quiet:
    """A log nobody reads."""

    def err(self, message):
        pass

    debug = warn = err


def test_the_initiator_is_told_why_a_lane_was_given_up(pipe):
    served = Session.__new__(Session)
    served._machine, served._log = Machine(), Quiet()
    served._report_lock, served._reports = threading.Lock(), []
    served._wake_write = served._wake_read = pipe[1]
    served._stream = Stream(*pipe)
    reason = ReplicaLost("the medium is gone")
    served._report(reason)
    served._report(None)
    served._take_reports()
    assert served._machine.failures[0] is reason
    assert "disconnected" in str(served._machine.failures[1])
    assert len(served._machine.failures) == 2


@pytest.mark.parametrize("says", [False, True], ids=["silent", "not silent"])
def test_an_initiator_that_has_lost_lanes_and_is_silent_is_gone(pipe, monkeypatch, says):
    """Nobody says that it is: its network may have vanished."""
    monkeypatch.setattr(session, "GRACE_S", 0.2)
    wake, woken = os.pipe2(os.O_NONBLOCK)
    served = Session.__new__(Session)
    served._machine, served._log = Machine(), Quiet()
    served._report_lock, served._reports = threading.Lock(), []
    served._wake_read, served._wake_write = wake, woken
    served._stream = Stream(*pipe)
    served._report(None)
    served._step()
    if says:
        os.write(pipe[1], b"more")
        monkeypatch.setattr(session, "GRACE_S", 3600.0)
        served._step()
        assert served._ends_at > time.monotonic() + 3000
        assert len(served._machine.failures) == 1
    else:
        served._step()
        assert "disconnected" in str(served._machine.failures[0])
        assert served._machine.failures[1:] == [None]
    os.close(wake)
    os.close(woken)


def test_the_provider_that_is_wanted_most_says_why_none_works(monkeypatch):
    def load(provider):
        raise ProviderUnavailable(f"there is no {provider}")

    monkeypatch.setattr(lane_server._fabric, "load", load)
    with pytest.raises(ProviderUnavailable, match="there is no verbs"):
        lane_server._first_that_works(("verbs", "tcp", "sockets"), "127.0.0.1")


@pytest.mark.parametrize("said", [b"", b"\0", b"RPM", b"GET / HTTP/1.0\r\n\r\n"])
def test_a_session_that_breaks_off_does_not_end_well(said):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rpmemd"], input=said, capture_output=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert done.stdout.startswith(pack_status(0))
