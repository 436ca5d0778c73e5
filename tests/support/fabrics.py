"""The fabrics that tests of lanes use."""

from __future__ import annotations

import sys

import pytest

from tests.support.without import has_library

#: The provider where a test does not name one.
default = "stream"

#: A mark for tests that cannot do without libfabric, and the parameter for its best provider.
needs_libfabric = pytest.mark.libfabric
TCP = pytest.param("tcp", marks=needs_libfabric)
SOCKETS = pytest.param("sockets", marks=needs_libfabric)


def over_tcp(command: str = f"{sys.executable} -P -m rpmemd") -> str:
    """Return a command for a child that connects its lanes, as behind sshd, and passes no pairs."""
    return f"env SSH_CONNECTION='127.0.0.1 1 127.0.0.1 1' {command}"


def skip_without_libfabric(item: pytest.Item) -> None:
    """Skip a test that needs libfabric, where it is missing."""
    if item.get_closest_marker("libfabric") is not None and not has_library("libfabric"):
        pytest.skip("libfabric is not here: make setup RDMA=1")
