"""These tests run inside the guest of tests.rdma.bench; elsewhere each is skipped and counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rdma.support import node

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if node.KERNEL:
        return
    skip = pytest.mark.skip(reason="needs RDMA devices and pmem: make test-rdma emulates them")
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def ssh(tmp_path_factory):
    """What the sessions of these tests use for ssh."""
    if not node.KERNEL:
        yield None
        return
    script = node.make_ssh(tmp_path_factory.mktemp("ssh"))
    before = os.environ.get("RPMEM_SSH")
    os.environ["RPMEM_SSH"] = str(script)
    os.environ["RPMEM_LAUNCHER"] = "openssh"
    yield script
    del os.environ["RPMEM_LAUNCHER"], os.environ["RPMEM_SSH"]
    if before is not None:
        os.environ["RPMEM_SSH"] = before


@pytest.fixture
def target(tmp_path):
    """A target with an empty pool set directory."""
    directory = tmp_path / "target"
    directory.mkdir()
    return node.Node(directory)
