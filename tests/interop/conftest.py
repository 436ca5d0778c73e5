"""Fixtures of the interop tests: the originals, a target node, initiators."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpmem.base import environment as rpmem_environment
from tests.interop.support.client import RpmemClient
from tests.interop.support.node import ORIGINAL, Node, daemon_words, initiator_environment
from tests.interop.support.objects import ObjectPool
from tests.interop.support.originals import Originals, OriginalsAbsent, find_originals
from tests.interop.support.ours import OurInitiator
from tests.support.sshd import ADDRESS, NODE, Sshd


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of a class with ``by_default``, mark the other tests as slow."""
    chosen = getattr(getattr(item, "cls", None), "by_default", None)
    if chosen is not None and getattr(item, "originalname", "") not in chosen:
        item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def originals() -> Originals:
    """PMDK 1.10 beside the system; skips where ``make peers`` has not been."""
    try:
        return find_originals()
    except OriginalsAbsent as absent:
        pytest.skip(str(absent))


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> str:
    """Which daemon nodes run: a class says so with its attribute ``daemon``."""
    return getattr(request.cls, "daemon", ORIGINAL)


@pytest.fixture
def node(tmp_path: Path, daemon: str, originals: Originals, sshd_session: Sshd) -> Node:
    """A target node of its own for each test, reached by address and port."""
    host = f"{ADDRESS}:{sshd_session.port}"
    return Node(tmp_path / "node", daemon_words(daemon, originals), host)


@pytest.fixture(scope="session")
def shared_login(sshd_session: Sshd) -> Iterator[Path]:
    """An ssh that has logged in once for all tests; each start of a daemon is a channel of it."""
    with tempfile.TemporaryDirectory(prefix="rpmem-ssh-") as folder:  # sockets want short names
        ssh = sshd_session.client("shared_ssh", more=f"ControlPath {folder}/control")
        subprocess.run(
            [ssh, "-f", "-N", "-oControlMaster=yes", "-oBatchMode=yes", NODE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )
        yield ssh
        subprocess.run([ssh, "-O", "exit", NODE], capture_output=True, timeout=60, check=False)


@pytest.fixture
def ssh(request: pytest.FixtureRequest, sshd_session: Sshd) -> Path:
    """Return what initiators run as ssh; for tests marked ``own_login`` it logs in every time."""
    if request.node.get_closest_marker("own_login"):
        return sshd_session.ssh
    return Path(request.getfixturevalue("shared_login"))


@pytest.fixture
def environment(originals: Originals, ssh: Path, node: Node) -> Callable[..., dict[str, str]]:
    """Return a maker of initiator environments for this node.

    Positional arguments and ``variables`` are for the daemon, the others for the initiator.
    """

    def make(*options: str, variables: dict[str, str] | None = None, **more: str) -> dict[str, str]:
        command = node.command(*options, variables=variables)
        base = originals.environment()
        return initiator_environment(base, ssh, command, **more)

    return make


@pytest.fixture
def librpmem(
    originals: Originals, environment: Callable[..., dict[str, str]]
) -> Iterator[Callable[..., RpmemClient]]:
    """Return a starter of C programs on the original librpmem; they end with the test."""
    started: list[RpmemClient] = []

    def start(*options: str, **settings: Any) -> RpmemClient:
        client = RpmemClient(originals, environment(*options, **settings))
        started.append(client)
        return client

    yield start
    for client in started:
        if client.process.returncode is None:
            client.kill()


@pytest.fixture
def ours(
    node: Node, ssh: Path, sshd_session: Sshd, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OurInitiator]:
    """Our initiator, in this process, with the node as its target."""

    def set_variable(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        rpmem_environment.current.cache_clear()

    for name in [name for name in os.environ if name.startswith("RPMEM_")]:
        monkeypatch.delenv(name)
    initiator = OurInitiator(node, set_variable)
    settings = initiator_environment({}, ssh, node.command())
    for name, value in settings.items():
        set_variable(name, value)
    # paramiko reads its client's configuration from there.
    monkeypatch.setenv("HOME", str(sshd_session.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield initiator
    rpmem_environment.current.cache_clear()


@pytest.fixture
def pool(
    originals: Originals,
    node: Node,
    tmp_path: Path,
    environment: Callable[..., dict[str, str]],
) -> ObjectPool:
    """An object pool that has been created, with nothing in it."""
    made = ObjectPool(originals, node, tmp_path / "local", environment())
    made.do("create")
    return made
