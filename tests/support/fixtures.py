"""Fixtures on top of the servers; loaded as a plugin by tests/conftest.py."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpmem.base import environment
from tests.support import fabrics
from tests.support.sshd import NODE, Sshd, SshdAbsent


@pytest.fixture(params=["stream", fabrics.TCP])
def each_fabric(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have lanes of tests over each fabric that works anywhere."""
    monkeypatch.setattr(fabrics, "default", request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def sshd_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for all tests; use `sshd`, which cleans up between them."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    try:
        server.start()
    except SshdAbsent as absent:
        pytest.skip(str(absent))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def set_variable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Set an environment variable that is read once in the life of a process."""

    def set_it(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        environment.current.cache_clear()

    yield set_it
    monkeypatch.undo()
    environment.current.cache_clear()


@pytest.fixture
def sshd(sshd_session: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """Return a running sshd, node2 to its clients, with this tree's rpmemd on its PATH.

    ``$RPMEM_SSH`` is its ssh, and HOME (where paramiko looks for ~/.ssh/config) its home.
    """
    sshd_session.install_rpmemd()
    monkeypatch.setenv("RPMEM_SSH", str(sshd_session.ssh))
    monkeypatch.setenv("HOME", str(sshd_session.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for name in ("RPMEM_CMD", "RPMEM_LAUNCHER", "RPMEM_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    environment.current.cache_clear()
    yield sshd_session
    environment.current.cache_clear()
    sshd_session.set_bashrc("")


@pytest.fixture
def ssh_node(sshd: Sshd) -> str:
    """Return a target string that reaches the sshd of the tests."""
    return NODE


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory that is memory: fast, and volatile as a medium."""
    root = Path("/dev/shm")
    if not os.access(root, os.W_OK) or "tmpfs" not in _file_system_of(root):
        pytest.skip("/dev/shm is no tmpfs that can be written to")
    with tempfile.TemporaryDirectory(prefix="rpmem-tests-", dir=root) as directory:
        yield Path(directory)


def _file_system_of(path: Path) -> str:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if where == str(path):
            return kind
    return ""
