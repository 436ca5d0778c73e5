"""Floods of the lane port: whatever strangers connect and send, the real lanes get in.

Each flood comes from the address that the lanes come from, before, during and after they connect,
and costs the target no more than a fixed number of descriptors.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from rpmem.control.proof import pack_proof
from rpmem.fabric.libfabric.caller import Caller
from rpmem.fabric.shared import door
from tests.support.pair import LISTENING, pair
from tests.support.raw_session import RawSession

pytestmark = pytest.mark.usefixtures("each_fabric")

MANY = 1100
SOON = 20.0
#: Descriptors of a server with two lanes, and then some.
FEW = 80


def request(data=bytes(40), *, version=3, kind=0, size=None):
    """libfabric's request for a connection."""
    size = len(data) if size is None else size
    return bytes((version, kind)) + size.to_bytes(2, "big") + bytes(20) + b"\1" + bytes(7) + data


CHANCE = random.Random(9)
FLOODS = {
    "nothing": b"",
    "a byte": b"\3",
    "half a header": request()[:16],
    "a header": request()[:32],
    "some of the data": request()[:-1],
    "more than announced": request() + b"x",
    "data without end": request(size=0xFFFF) + bytes(300),
    "no data": request(b""),
    "another kind": request(kind=1),
    "another version": request(version=200),
    "a wrong token": request(pack_proof(0, bytes(32))),
    "http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + CHANCE.randbytes(200),
    "noise": CHANCE.randbytes(64),
    "much noise": CHANCE.randbytes(1 << 16),
    "the frame that ends libfabric": bytes.fromhex("03010002020108800000010000000000"),
}


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def connect(port, payload=b"", host=LISTENING):
    stranger = socket.create_connection((host, port), SOON)
    stranger.setblocking(False)
    with suppress(OSError):
        stranger.send(payload)
    return stranger


def descriptors(pid="self"):
    return len(os.listdir(f"/proc/{pid}/fd"))


def eventually(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def room_for_many():
    """This process holds both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * MANY:
        pytest.skip(f"{hard} descriptors are too few for {MANY} connections and their targets")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * MANY), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("payload", FLOODS.values(), ids=FLOODS)
def test_lanes_get_in_among(payload):
    with ExitStack() as strangers, pair(lanes=2) as both:
        for _ in range(20):
            strangers.callback(connect(both.server.port, payload).close)
        begun = time.monotonic()
        both.connect(timeout=SOON).persist((0, 8))
        assert time.monotonic() - begun < 5
        assert both.reports == []


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_over_ipv6():
    """One source is a /64, as one address is of IPv4."""
    with ExitStack() as strangers, pair(lanes=2, address="::1") as both:
        for _ in range(door.MOST_OF_ONE + 20):
            strangers.callback(connect(both.server.port, host="::1").close)
        core = both.connect(timeout=SOON)
        memoryview(both.here)[:8] = b"over six"
        core.persist((0, 8))
        assert bytes(memoryview(both.there)[:8]) == b"over six"
        assert both.reports == []


def test_a_thousand_and_a_hundred_that_say_nothing():
    before = descriptors()
    with room_for_many(), ExitStack() as strangers:
        with pair(lanes=2) as both:
            port = both.server.port
            for _ in range(MANY):
                strangers.callback(connect(port).close)
            assert eventually(lambda: descriptors() < before + MANY + door.MOST_OF_ONE + FEW)
            both.connect(timeout=SOON).persist((0, 8))
            assert eventually(lambda: descriptors() < before + MANY + FEW)
        assert descriptors() <= before + MANY


def test_a_daemon_keeps_none(tmp_path):
    """In a process of its own, with the limit of descriptors that most systems give."""
    (tmp_path / "node").mkdir()
    with RawSession(tmp_path / "node") as session, ExitStack() as strangers, room_for_many():
        for _ in range(MANY):
            strangers.callback(connect(session.ready.port).close)
        lane = session.lane(timeout=SOON)
        assert eventually(lambda: descriptors(session.pid) < FEW)
        assert session.write(lane, b"x" * 64, 8192) == "write"
        with pytest.raises(OSError, match="refused"):
            connect(session.ready.port)
        assert session.alive


def test_while_others_keep_coming():
    """A thread that connects, sends and leaves again, or stays, all the time."""
    over = threading.Event()
    chance = random.Random(3)
    payloads = list(FLOODS.values())

    def flood(port):
        kept = []
        while not over.is_set():
            try:
                kept.append(connect(port, chance.choice(payloads)))
            except OSError:  # the lanes are there, nobody listens any more
                break
            if len(kept) > 200:
                kept.pop(chance.randrange(len(kept))).close()
        for stranger in kept:
            stranger.close()

    with pair(lanes=8) as both:
        threads = [threading.Thread(target=flood, args=(both.server.port,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.2)
            both.connect(timeout=SOON).persist((0, 8))
        finally:
            over.set()
            for thread in threads:
                thread.join(SOON)
        assert both.reports == []


def test_who_says_a_byte_now_and_then_is_shown_out(monkeypatch):
    monkeypatch.setattr(door, "LONGEST_WAIT", 0.3)
    with pair() as both, connect(both.server.port) as stranger:
        stranger.settimeout(SOON)
        begun = time.monotonic()
        with suppress(OSError):
            for byte in request():
                stranger.send(bytes((byte,)))
                time.sleep(0.02)
            assert stranger.recv(1) == b""
        assert time.monotonic() - begun < 5
        both.connect().persist((0, 8))


def test_without_free_descriptors_the_door_waits():
    """A lane comes as soon as one is free; until then nothing spins."""
    front = door.Door(LISTENING, Caller)
    honest = connect(front.port, request())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 10, hard))
    try:
        with suppress(OSError):
            while True:
                hoard.append(os.dup(0))
        used = time.process_time()
        assert front.next(0.5) is None
        assert time.process_time() - used < 0.25
    finally:
        for descriptor in hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    visitor = front.next(SOON)
    assert visitor is not None
    assert visitor.data == bytes(40)
    visitor.close()
    front.close()
    honest.close()


def test_without_free_descriptors_who_waits_gives_way():
    front = door.Door(LISTENING, Caller)
    strangers = [connect(front.port, b"\3") for _ in range(5)]
    assert front.next(0.1) is None
    assert len(front._waiting) == 5
    honest = connect(front.port, request())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 10, hard))
    try:
        with suppress(OSError):
            while True:
                hoard.append(os.dup(0))
        visitor = front.next(SOON)
    finally:
        for descriptor in hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert visitor is not None
    assert visitor.data == bytes(40)
    visitor.close()
    front.close()
    for each in (honest, *strangers):
        each.close()


def test_bounds_are_by_source_and_altogether(monkeypatch):
    monkeypatch.setattr(door, "MOST_OF_ONE", 3)
    monkeypatch.setattr(door, "MOST", 7)
    front = door.Door("0.0.0.0", Caller)
    kept = []
    try:
        for source in range(1, 6):
            for _ in range(5):
                stranger = socket.socket()
                stranger.bind((f"127.0.0.{source}", 0))
                stranger.connect((f"127.0.0.{source}", front.port))
                kept.append(stranger)
                assert front.next(0.05) is None
                here = [each.peer[0] for each in front._waiting.values()]
                assert len(here) <= 7
                assert max(map(here.count, here)) <= 3
        assert len(front._waiting) == 7
        assert len({each.peer[0] for each in front._waiting.values()}) == 5, "each still has one"
        assert front.dropped == 25 - 7
    finally:
        front.close()
        for stranger in kept:
            stranger.close()


def test_the_port_is_taken_from_the_range_that_was_given(monkeypatch):
    with socket.socket() as first:
        first.bind((LISTENING, 0))
        first.listen()
        taken = first.getsockname()[1]
        monkeypatch.setenv("FI_TCP_PORT_LOW_RANGE", str(taken))
        monkeypatch.setenv("FI_TCP_PORT_HIGH_RANGE", str(min(taken + 20, 65535)))
        front = door.Door(LISTENING, Caller)
        assert taken < front.port <= taken + 20
        front.close()
        monkeypatch.setenv("FI_TCP_PORT_HIGH_RANGE", str(taken))
        with pytest.raises(door.ConnectFailed, match="FI_TCP_PORT_LOW_RANGE"):
            door.Door(LISTENING, Caller)


def test_nothing_else_listens_for_long():
    """What is behind the door is there while a lane is handed over, and then no more."""

    def listening():
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        inodes = {line.split()[9] for line in lines if line.split()[3] == "0A"}
        links = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                links.append(os.readlink(f"/proc/self/fd/{name}"))
        return [link for link in links if link.removeprefix("socket:[").rstrip("]") in inodes]

    before = len(listening())
    with pair(lanes=2) as both:
        assert len(listening()) == before + 1
        both.connect().persist((0, 8))
        assert eventually(lambda: len(listening()) == before)
