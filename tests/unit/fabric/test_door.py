"""The door of a listener: who waits there, for how long, and who is handed on."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from types import SimpleNamespace

import pytest

from rpmem.errors import ConnectFailed
from rpmem.fabric.libfabric import caller as caller_module
from rpmem.fabric.libfabric.caller import Caller
from rpmem.fabric.shared import door
from rpmem.fabric.shared.door import Door

HOST = "127.0.0.1"


def request(data: bytes, *, size: int | None = None) -> bytes:
    """Return what libfabric's tcp sends to connect, with private data."""
    return struct.pack(">BBH28x", 3, 0, len(data) if size is None else size) + data


@pytest.fixture
def opened():
    made = Door(HOST, Caller)
    yield made
    made.close()


def knock(opened: Door, data: bytes = b"") -> socket.socket:
    caller = socket.create_connection((HOST, opened.port), 5)
    caller.sendall(data)
    return caller


def is_hung_up(caller: socket.socket, patience_s: float = 1.0) -> bool:
    caller.settimeout(patience_s)
    try:
        return caller.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def test_a_whole_request_gets_in(opened):
    with knock(opened, request(b"token")) as caller:
        visitor = opened.next(5)
        assert visitor is not None
        assert visitor.data == b"token"
        assert visitor.peer == caller.getsockname()
        assert not is_hung_up(caller, 0.05)
        visitor.close()


def test_half_a_request_is_waited_for(opened):
    whole = request(b"token")
    with knock(opened, whole[:20]) as caller:
        assert opened.next(0.05) is None
        caller.sendall(whole[20:])
        visitor = opened.next(5)
        assert visitor is not None
        assert visitor.data == b"token"
        visitor.close()


def test_who_says_nothing_is_dropped_in_time(opened, monkeypatch):
    monkeypatch.setattr(door, "LONGEST_WAIT", 0.05)
    with knock(opened) as caller:
        while opened.dropped == 0:
            assert opened.next(0.02) is None
        assert is_hung_up(caller)


@pytest.mark.parametrize(
    "data",
    [
        request(b"", size=caller_module._LARGEST_DATA + 1),
        request(b"", size=0xFFFF),
        request(b"12", size=1),
        request(b"") + b"more",
        b"\x03\x01" + bytes(30),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["too large", "largest", "more than it says", "more", "no request", "http"],
)
def test_what_will_never_be_a_request_is_dropped_at_once(opened, data, monkeypatch):
    monkeypatch.setattr(door, "LONGEST_WAIT", 1000.0)
    with knock(opened, data) as caller:
        while opened.dropped == 0:
            assert opened.next(0.02) is None
        assert is_hung_up(caller)


def test_nobody_outlives_the_door():
    made = Door(HOST, Caller)
    callers = [knock(made, b"\x03\x00" * (number % 2)) for number in range(8)]
    assert made.next(0.1) is None
    made.close()
    assert all(is_hung_up(caller) for caller in callers)
    for caller in callers:
        caller.close()


def test_of_one_source_the_oldest_give_way(opened, monkeypatch):
    monkeypatch.setattr(opened, "_most_of_one", 4)
    callers = []
    for _ in range(7):
        callers.append(knock(opened))
        assert opened.next(0.02) is None
    assert opened.dropped == 3
    assert [is_hung_up(caller, 0.1) for caller in callers] == [True] * 3 + [False] * 4
    for caller in callers:
        caller.close()


def test_the_oldest_of_the_source_with_most_has_to_go(opened, monkeypatch):
    """When all of them together are too many, though none has too many of its own."""
    monkeypatch.setattr(opened, "_most", 4)
    callers = []
    for number in (3, 2, 2, 4, 2):
        caller = socket.socket()
        caller.bind((f"127.0.0.{number}", 0))
        caller.connect((HOST, opened.port))
        callers.append(caller)
        assert opened.next(0.02) is None
    assert opened.dropped == 1
    assert [is_hung_up(caller, 0.1) for caller in callers] == [False, True, False, False, False]
    for caller in callers:
        caller.close()


def test_who_took_the_last_descriptor_keeps_it(opened):
    """accept(2) fails without a free descriptor even where nobody has come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with knock(opened) as caller:
        last = os.dup(0)
        os.close(last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
        try:
            assert opened.next(0.1) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        caller.sendall(request(b"token"))
        visitor = opened.next(5)
        assert visitor is not None
        assert visitor.data == b"token"
        visitor.close()


def test_who_has_no_descriptors_is_not_patient_for_ever(opened, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(door, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    for clock[0] in (1000.0, 1000.0 + door.LONGEST_STARVED):
        opened._make_do(short)
    clock[0] += 0.1
    with pytest.raises(ConnectFailed) as caught:
        opened._make_do(short)
    assert caught.value.errno == errno.EMFILE


def test_a_connection_is_found_by_its_peer_and_no_other():
    with socket.create_server((HOST, 0)) as server:
        callers = [socket.create_connection(server.getsockname()) for _ in range(3)]
        accepted = [server.accept()[0] for _ in callers]
        peers = [caller.getsockname() for caller in callers]
        for number, peer in enumerate(peers):
            for guess in accepted:
                found = caller_module._descriptor_of(peer, guess.fileno())
                assert found == accepted[number].fileno()
        for each in (*callers, *accepted):
            each.close()


def test_a_visitor_takes_the_place_of_its_double(opened):
    """What is accepted inside goes on with the connection from outside."""
    with knock(opened, request(b"token")) as caller, socket.create_server((HOST, 0)) as inner:
        visitor = opened.next(5)
        assert visitor is not None
        with visitor.inside(*inner.getsockname()) as (peer, guess):
            accepted, address = inner.accept()
            assert address == peer
            assert accepted.recv(100) == request(b"token")
            visitor.replace(peer, guess)
        caller.sendall(b"first words")
        assert accepted.recv(100) == b"first words"
        assert not os.get_inheritable(accepted.fileno())
        accepted.close()


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::1", "10.0.0.1", False),
        # As a socket for both families shows IPv4.
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "::1", False),
    ],
)
def test_what_counts_as_one_source(one, other, alike):
    sources = []
    for address in (one, other):
        with socket.socket() as unconnected:
            sources.append(Caller(unconnected, (address, 1)).source)
    assert (sources[0] == sources[1]) == alike


@pytest.mark.parametrize(
    ("low", "high"), [(7471, 7471), (7471, 7472), (7471, 7490), (65535, 65535)]
)
def test_every_port_of_a_range_is_tried_once(monkeypatch, low, high):
    monkeypatch.setenv("FI_TCP_PORT_LOW_RANGE", str(low))
    monkeypatch.setenv("FI_TCP_PORT_HIGH_RANGE", str(high))
    assert sorted(door._ports()) == list(range(low, high + 1))
