"""The verbs fabric where there is no RDMA device; with one, see tests/rdma."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from rpmem.base import hardware
from rpmem.errors import MissingExtension, ProviderUnavailable, UsageError
from rpmem.fabric import providers
from rpmem.fabric.verbs.addresses import is_loopback, sockaddrs
from tests.support.fabrics import needs_libfabric
from tests.support.without import Installation

verbs = pytest.importorskip(
    "rpmem.fabric.verbs.api",
    reason="libibverbs or librdmacm is not here: make setup RDMA=1",
    exc_type=MissingExtension,
)
without_device = pytest.mark.skipif(
    hardware.has_rdma_device(), reason="this machine has an RDMA device"
)


@needs_libfabric
def test_it_is_loaded_by_its_name():
    assert providers.load("verbs") is verbs
    assert providers.load("tcp") is not verbs
    # Of libfabric's providers this is one more.
    assert providers.load("ofi-verbs") is providers.load("tcp")


@needs_libfabric
def test_both_fabrics_have_the_same_face():
    other = providers.load("tcp")
    for name in ("Domain", "Fabric", "FabricLane", "Listener", "Memory", "Queue", "Request"):
        ours, theirs = getattr(verbs, name), getattr(other, name)
        assert public(theirs) <= public(ours), name


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


@without_device
@pytest.mark.parametrize("listen", [False, True])
def test_no_device_is_said_so(listen):
    with pytest.raises(ProviderUnavailable) as caught:
        verbs.Fabric("verbs", "127.0.0.1", 1, listen=listen)
    assert "RDMA" in str(caught.value)


@without_device
def test_there_are_no_devices_to_list():
    assert verbs.devices() == []


@without_device
def test_no_device_leads_anywhere():
    assert not providers.leads_to("127.0.0.1")
    assert not providers.leads_to("192.0.2.1")


def test_a_missing_part_is_explained(tmp_path):
    program = (
        "import rpmem, rpmem.fabric.providers\n"
        "try:\n    rpmem.fabric.providers.load('verbs')\n"
        "except rpmem.MissingExtension as error:\n    print(error)\n"
    )
    done = Installation(tmp_path, "rpmem.fabric.verbs.fabric").run("-c", program)
    assert done.stdout.startswith("rpmem.fabric.verbs.fabric: this part of rpmem was not built"), (
        done.stderr
    )
    assert "make build" in done.stdout


def test_addresses_are_packed_as_the_kernel_wants_them():
    (v4,) = sockaddrs("10.77.0.1", 4791)
    assert len(v4) == 16
    assert v4[2:8] == (4791).to_bytes(2, "big") + ipaddress.ip_address("10.77.0.1").packed
    (v6,) = sockaddrs("::1", 80)
    assert len(v6) == 28
    assert v6[8:24] == ipaddress.ip_address("::1").packed
    assert int.from_bytes(v6[:2], "little") == socket.AF_INET6
    assert [is_loopback(each) for each in (v4, v6, *sockaddrs("127.9.9.9", 1))] == [
        False,
        True,
        True,
    ]
    with pytest.raises(ProviderUnavailable, match="not an address"):
        sockaddrs("no such name", 1)


def test_what_is_no_pyverbs_object_is_refused():
    # Without pyverbs that is said first.
    with pytest.raises((UsageError, MissingExtension)):
        verbs.share("a string")
