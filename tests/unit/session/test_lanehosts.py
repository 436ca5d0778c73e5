"""Where lanes are connected to is not the target's to choose."""

from __future__ import annotations

import os
import socket

import pytest

from rpmem.base.environment import Environment
from rpmem.control.messages import LaneGrant, Ready
from rpmem.errors import ConfigError, ConnectFailed, UsageError
from rpmem.launch.openssh import peers_of
from rpmem.session.lanehosts import LaneHosts
from rpmem.session.start import _lane_hosts


def ready(address, port=40000):
    return Ready(
        provider="tcp",
        address=address,
        port=port,
        lanes=(LaneGrant(token=bytes(32), key=0, address=0),),
        pool_size=4096,
        steps=("send-after-write",),
        message_size=4096,
    )


@pytest.fixture(autouse=True)
def names(monkeypatch):
    known = {"node2": ["10.0.0.2", "fd00::2"], "other": ["10.0.0.3"]}

    def getaddrinfo(host, *_, **__):
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return [(0, 0, 0, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("reached", "named"),
    [
        ("node2", "10.0.0.2"),
        ("node2", "fd00::2"),
        ("node2", "fd00:0::2%eth0"),
        ("node2", "::ffff:10.0.0.2"),
        ("10.0.0.2", "::ffff:10.0.0.2"),
        ("fe80::1%eth1", "fe80::1%eth0"),
    ],
)
def test_another_address_of_the_same_host(reached, named):
    where = LaneHosts(ready(named), reached, ())
    assert where.hosts == [reached, named]
    assert where.left_out == ""


@pytest.mark.parametrize("named", ["", "node2"])
def test_nothing_new(named):
    assert LaneHosts(ready(named), "node2", ()).hosts == ["node2"]


@pytest.mark.parametrize(
    "named",
    ["10.0.0.3", "127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "other", "localhost", "node2."],
)
@pytest.mark.parametrize("reached", ["node2", "10.0.0.2", "nobody-knows-it"])
def test_another_host(reached, named):
    where = LaneHosts(ready(named), reached, ())
    assert where.hosts == [reached]
    assert where.left_out == named
    error = ConnectFailed("refused")
    where.explain(error)
    assert named in str(error)
    assert "RPMEM_LANE_HOSTS" in str(error)


def test_a_local_target_is_here():
    assert LaneHosts(ready("127.0.0.1"), "127.0.0.1", ()).hosts == ["127.0.0.1"]
    assert LaneHosts(ready("10.0.0.2"), "127.0.0.1", ()).hosts == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("allowed", "named", "goes"),
    [
        (("10.0.0.3",), "10.0.0.3", True),
        (("10.0.0.3",), "10.0.0.4", False),
        (("other",), "10.0.0.3", True),
        (("other",), "other", True),
        (("10.0.0.0/24",), "10.0.0.77", True),
        (("10.0.0.0/24",), "10.0.1.77", False),
        (("10.0.0.9/24",), "10.0.0.77", True),
        (("fd00::/16",), "10.0.0.77", False),
        (("fd00::/16",), "fd00::77", True),
        (("10.0.0.4", "fd00::/16"), "fd00::77", True),
        (("0.0.0.0/0",), "fd00::77", False),
        (("nobody-knows-it",), "10.0.0.3", False),
    ],
)
def test_what_the_user_allows(allowed, named, goes):
    where = LaneHosts(ready(named), "node2", allowed)
    assert where.hosts == (["node2", named] if goes else ["node2"])
    assert where.left_out == ("" if goes else named)


@pytest.mark.parametrize("port", [1, 22, 25, 80, 443, 1023])
def test_ports_of_services(port):
    with pytest.raises(ConnectFailed, match=f"port {port},"):
        LaneHosts(ready("10.0.0.2", port), "10.0.0.2", ())


def test_first_port_of_lanes():
    assert LaneHosts(ready("", 1024), "10.0.0.2", ()).hosts == ["10.0.0.2"]


def test_from_the_environment():
    got = Environment.read({"RPMEM_LANE_HOSTS": " node2, 10.0.0.0/8 ,fd00::1"})
    assert got.lane_hosts == ("node2", "10.0.0.0/8", "fd00::1")
    assert _lane_hosts(None, got) == got.lane_hosts
    assert _lane_hosts("node3", got) == ("node3",)
    assert _lane_hosts("", got) == ()


@pytest.mark.parametrize("text", [",", "a,,b", "a b", "10.0.0.0/40", "a/8", "-o/1", " ", "a;b"])
def test_what_is_no_host(text):
    with pytest.raises(ConfigError, match="RPMEM_LANE_HOSTS"):
        Environment.read({"RPMEM_LANE_HOSTS": text})
    with pytest.raises(UsageError, match="lane_hosts"):
        _lane_hosts(text, Environment())


def test_where_the_session_is_known_to_have_gone():
    def session():
        asked.append(1)
        return {"10.0.0.3", "nobody-knows-it"}

    asked = []
    assert LaneHosts(ready("10.0.0.2"), "node2", (), session).left_out == ""
    assert asked == []
    assert LaneHosts(ready("10.0.0.3"), "alias", (), session).hosts == ["alias", "10.0.0.3"]
    assert LaneHosts(ready("10.0.0.4"), "alias", (), session).left_out == "10.0.0.4"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_connections_of_a_process(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listening:
        try:
            listening.bind((address, 0))
        except OSError as absent:
            pytest.skip(f"no {address}: {absent}")
        listening.listen()
        with socket.socket(family) as connected:
            connected.connect(listening.getsockname())
            assert address in peers_of(os.getpid())
    assert peers_of(1 << 30) == set()
