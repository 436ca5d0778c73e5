"""Who may speak PMDK's protocol to our daemon, and whose lanes it takes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

import rpmem
from rpmem.control import pmdk
from rpmem.control.events import Opened
from rpmem.control.pmdk import Kind
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from rpmem.control.pmdk_status import Status
from rpmem.errors import VersionMismatch
from tests.interop.support.attributes import Attributes
from tests.interop.support.calls import SIZE as CLIENT_SIZE
from tests.interop.support.client import RpmemClient
from tests.interop.support.node import OURS, Node, daemon_words
from tests.interop.support.programs import LaneClient
from tests.interop.support.raw_target import SIZE, RawTarget, create_request, start


@pytest.fixture
def target(tmp_path: Path) -> Node:
    """A node with our daemon, without ssh."""
    return Node(tmp_path / "target", daemon_words(OURS, None))


def by_option(node: Node, which: str) -> list[str]:
    return ["--protocol", which]


def by_file(node: Node, which: str) -> list[str]:
    path = node.folder / "rpmemd.conf"
    path.write_text(f"protocol = {which}\n")
    return ["--config", str(path)]


@pytest.mark.parametrize("way", [by_option, by_file])
class TestRefusal:
    """The option and the configuration key ``protocol``."""

    def test_pmdk_is_refused(self, target: Node, way: Callable[[Node, str], list[str]]) -> None:
        with start(target, *way(target, "native")) as daemon:
            daemon.start()
            daemon.send(pmdk.encode_request(create_request(target.make_set(SIZE))))
            answer = daemon.receive_exactly(44)
            assert answer == pmdk.encode_error(Kind.CREATE_ANSWER, Status.BADPROTO)
            daemon.exit_status()
        assert list(target.parts.iterdir()) == []
        assert "configured to speak only the native protocol" in target.log

    def test_native_is_refused(self, target: Node, way: Callable[[Node, str], list[str]]) -> None:
        with pytest.raises(VersionMismatch, match="only the pmdk protocol"):
            rpmem.create(
                "local:",
                target.make_set(SIZE),
                bytearray(SIZE),
                command=target.command(*way(target, "pmdk")),
                timeout=30.0,
            )
        assert list(target.parts.iterdir()) == []

    def test_both_are_served(self, target: Node, way: Callable[[Node, str], list[str]]) -> None:
        options = way(target, "both")
        with RawTarget(target, options) as raw:
            assert raw.served(0)
            raw.close()
        rpmem.create(
            "local:",
            target.make_set(SIZE),
            bytearray(SIZE),
            attributes=rpmem.PoolAttributes(signature=b"SURFACE!", major=1),
            command=target.command(*options),
            timeout=30.0,
        ).close()


class TestLibrpmem:
    """What the original library's caller sees of a refusal."""

    daemon = OURS

    def test_errno(self, librpmem: Callable[..., RpmemClient], node: Node) -> None:
        with librpmem("--protocol", "native") as client:
            client.do("pool", CLIENT_SIZE)
            client.do("attr", Attributes().hex())
            got = client.errno("create", node.host, node.make_set(SIZE), 1)
        assert got == errno.EPROTONOSUPPORT


class TestLanes:
    """PMDK's lanes carry no proof: they are taken from one address, and only at the start."""

    def test_from_the_ssh_peers_address_only(self, target: Node) -> None:
        elsewhere = "SSH_CONNECTION=127.0.0.2 1024 127.0.0.1 22"
        target.daemon = ["env", elsewhere, *target.daemon]
        with start(target) as daemon:
            session = PmdkInitiatorSession(where="the daemon")
            daemon.converse(session)
            session.create(create_request(target.make_set(SIZE)))
            opened = daemon.converse(session)
            assert isinstance(opened, Opened)
            stranger = LaneClient()
            port = opened.ready.port
            answer = stranger.ask("connect", "sockets", "127.0.0.1", port, 1)
            stranger.end()
            assert answer.startswith("failed"), answer
            (line,) = [line for line in target.log.splitlines() if "refused" in line]
            assert "127.0.0.1" in line
            assert "not the ssh peer" in line

    def test_none_once_all_are_there(self, target: Node) -> None:
        with RawTarget(target) as raw:
            assert raw.served(1)
            late = LaneClient()
            answer = late.ask("connect", "sockets", "127.0.0.1", raw.ready.port, 1)
            late.end()
            assert answer.startswith("failed"), answer
            assert raw.served(0)
            assert raw.served(1)
