"""The emulated machine is what the other tests take it for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.rdma.support import node


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_both_ends_have_a_device_whose_port_is_up():
    for device in ("rxe_a", "rxe_b") if node.ENTER_TARGET else ("rxe_a",):
        assert "PORT_ACTIVE" in run("ibv_devinfo", "-d", device)


def test_the_target_is_another_network():
    if not node.ENTER_TARGET:
        pytest.skip("this kernel's soft-RoCE knows no network namespaces: one host, two processes")
    there = run(*node.on_target("ip", "-o", "address"))
    here = run("ip", "-o", "address")
    assert node.TARGET in there
    assert node.TARGET not in here
    assert node.INITIATOR in here


def test_file_systems_and_devices():
    mounts = Path("/proc/mounts").read_text()
    pmem = next(line for line in mounts.splitlines() if " /mnt/pmem " in line)
    disk = next(line for line in mounts.splitlines() if " /mnt/disk " in line)
    assert "ext4" in pmem
    assert "dax=always" in pmem
    assert "ext4" in disk
    assert "dax" not in disk
    assert os.path.realpath("/dev/dax").startswith("/dev/dax1")


def test_libfabric_finds_verbs():
    assert "FI_EP_MSG" in run("fi_info", "-p", "verbs", "-t", "FI_EP_MSG")
