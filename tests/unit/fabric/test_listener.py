"""Listeners: who is said to come, and who takes a connection over from the door."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from rpmem.errors import MissingExtension, ProviderUnavailable
from rpmem.fabric.libfabric.caller import Caller
from tests.support import fabrics
from tests.support.pair import pair

libfabric = pytest.importorskip(
    "rpmem.fabric.libfabric.api",
    reason="libfabric is not here: make setup RDMA=1",
    exc_type=MissingExtension,
)


@pytest.fixture(autouse=True)
def over_libfabric(monkeypatch):
    monkeypatch.setattr(fabrics, "default", "tcp")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_request_says_where_it_comes_from(host):
    """Also where no door has seen the connection."""
    try:
        fabric = libfabric.Fabric("tcp", host, listen=True)
    except ProviderUnavailable as absent:
        pytest.skip(str(absent))
    listener = libfabric.Listener(fabric, guarded=False)
    with socket.create_connection((host, listener.port)) as caller:
        # What libfabric's tcp sends to connect, with 5 bytes of private data.
        caller.sendall(struct.pack(">BBH28x", 3, 0, 5) + b"token")
        request = listener.next(5.0, {})
        assert request is not None
        assert request.data[:5] == b"token"
        assert request.peer == caller.getsockname()[:2]
        request.reject()
    listener.close()
    fabric.close()


def test_a_stranger_at_the_inner_listener_takes_nobodys_place(monkeypatch):
    """Whoever finds it and repeats the request word for word, and is there first."""
    strangers = []
    inside = Caller.inside

    @contextlib.contextmanager
    def beside(self, host, port):
        stranger = socket.create_connection((host, port))
        stranger.sendall(self.request)
        strangers.append(stranger)
        with inside(self, host, port) as found:
            yield found

    monkeypatch.setattr(Caller, "inside", beside)
    with pair(lanes=2) as both:
        core = both.connect(timeout=5.0)
        for lane in range(2):
            core.persist((0, 64), lane=lane)
    assert len(strangers) == 2
    for stranger in strangers:
        stranger.close()
