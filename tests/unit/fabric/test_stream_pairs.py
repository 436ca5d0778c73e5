"""Lanes that are passed to a parent as pairs of sockets: all of them, in order, nothing else."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from rpmem.errors import ConnectFailed
from rpmem.fabric import providers
from rpmem.memory.region import Region
from rpmemd.admission import OrderAdmission
from rpmemd.lane_server import NATIVE, LaneServer
from tests.support.descriptors import few_descriptors

SIZE = 1 << 16
SOON = 20.0

stream = providers.load("socketpair")


@pytest.fixture
def over():
    """The two ends of the child's stdin: the child's, the parent's."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, ours


def count():
    return len(os.listdir("/proc/self/fd"))


def test_more_lanes_than_the_socket_has_room_for_are_passed_before_anybody_reads(over):
    theirs, ours = over
    before = count()
    fabric = stream.Fabric("socketpair", "", listen=True, carrier=theirs.fileno())
    made = []
    passing = threading.Thread(
        target=lambda: made.append(stream.Listener(fabric, lanes=fabric.lane_limit)), daemon=True
    )
    passing.start()
    passing.join(SOON)
    assert made, "it waits for somebody who reads"
    taker = stream.Taker(ours, SOON)
    ends = [socket.socket(fileno=taker.take_descriptor()) for _ in range(fabric.lane_limit)]
    for number, end in enumerate(ends):
        request = made[0].next(0.0, {})
        with socket.socket(fileno=request.take()) as other, end:
            end.send(number.to_bytes(4, "big"))
            assert int.from_bytes(other.recv(8), "big") == number
    assert made[0].next(0.0, {}) is None
    taker.close()
    made[0].close()
    assert count() == before


def passed(over, data, descriptors):
    socket.send_fds(over, [data], descriptors)


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (b"L", ()),
        (b"M", ("stream",)),
        (b"L", ("file",)),
        (b"L", ("stream", "file")),
        (b"L", ("datagram",)),
        (b"L", ("tcp",)),
    ],
    ids=["none", "another mark", "a file", "a file, too", "datagrams", "a connection"],
)
def test_what_is_no_lane_is_refused_and_closed(over, data, kinds):
    theirs, ours = over
    made = {
        "stream": lambda: socket.socketpair()[0].detach(),
        "file": lambda: os.memfd_create("none"),
        "datagram": lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0].detach(),
        "tcp": lambda: socket.socket().detach(),
    }
    descriptors = [made[kind]() for kind in kinds]
    passed(theirs, data, descriptors)
    for each in descriptors:
        os.close(each)
    before = count()
    with pytest.raises(ConnectFailed, match="not a lane"):
        stream.Taker(ours, SOON).take_descriptor()
    assert count() == before


def test_a_child_that_passes_nothing_is_not_waited_for_longer_than_was_said(over):
    _, ours = over
    with pytest.raises(ConnectFailed, match="passes no lanes"):
        stream.Taker(ours, 0.2).take_descriptor()


def test_a_child_that_ends_passes_nothing(over):
    theirs, ours = over
    theirs.close()
    with pytest.raises(ConnectFailed, match="hung up"):
        stream.Taker(ours, SOON).take_descriptor()


def test_what_was_passed_and_not_taken_is_closed(over):
    theirs, ours = over
    ends = [each.detach() for each in socket.socketpair()]
    passed(theirs, b"L", ends)
    for each in ends:
        os.close(each)
    before = count()
    taker = stream.Taker(ours, SOON)
    os.close(taker.take_descriptor())
    assert count() == before + 1
    for _ in range(2):
        taker.close()
        assert count() == before


def test_without_descriptors_nothing_stays_open(over):
    theirs, _ = over
    fabric = stream.Fabric("socketpair", "", listen=True, carrier=theirs.fileno())
    before = count()
    with few_descriptors(7), pytest.raises(ConnectFailed, match="Too many open"):
        stream.Listener(fabric, lanes=8)
    assert count() == before


@pytest.mark.parametrize("kind", ["pipe", "file", "closed"])
def test_what_cannot_carry_lanes(kind, tmp_path):
    if kind == "pipe":
        found = os.pipe()
    elif kind == "file":
        found = (os.open(tmp_path, os.O_RDONLY),)
    else:
        found = (os.dup(0),)
        os.close(found[0])
    assert not stream.can_carry(found[0])
    if kind != "closed":
        for each in found:
            os.close(each)


def test_lanes_that_are_there_at_once_are_closed_as_any_others(over, monkeypatch):
    """The service may have its threads before the thread that made it is known."""
    theirs, _ = over
    start = threading.Thread.start

    def slowly(thread):
        start(thread)
        if thread.name == "accept":
            thread.join(SOON)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    reports = []
    with Region.anonymous(SIZE) as region:
        server = LaneServer(
            region,
            size=SIZE,
            floor=0,
            providers=("socketpair",),
            address="",
            lanes=2,
            message_size=1 << 12,
            dialect=NATIVE,
            threads=1,
            spin_s=None,
            report=reports.append,
            carrier=theirs.fileno(),
        )
        server.start(OrderAdmission(2))
        assert server.complete
        monkeypatch.undo()
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        closing.join(SOON)
        assert not closing.is_alive()
    assert not reports
