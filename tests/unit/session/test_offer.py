"""Which providers are offered where nobody names one, and what is said about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import rpmem
from rpmem.base import hardware
from rpmem.base.environment import Environment
from rpmem.base.target import Target
from rpmem.errors import EncryptionRefused, MissingExtension, ProviderUnavailable
from rpmem.session import offer
from rpmem.session.offer import Offer, explain
from tests.support.fabrics import needs_libfabric

SIZE = 1 << 20
NODE2 = Target.parse("node2")
AUTO, ON, OFF = "auto", "on", "off"


def best(monkeypatch, leads, *, target=NODE2, encryption=AUTO, **settings):
    monkeypatch.setattr(offer, "leads_to", lambda host: leads)
    return Offer.best(target, "node2", Environment.read(settings), encryption)


def test_a_device_that_leads_there_comes_first(monkeypatch):
    found = best(monkeypatch, True)
    assert found.providers == ("verbs", "stream")
    assert found.outcome("verbs") == ("verbs", "an RDMA device here leads to node2")
    assert found.outcome("stream") == (
        "stream",
        "an RDMA device here leads to node2, but the target does not use verbs",
    )


@pytest.mark.parametrize(
    ("leads", "options", "why"),
    [
        (False, {}, "no RDMA device here leads to node2"),
        (True, {"RPMEM_ENABLE_VERBS": "0"}, "switched off by RPMEM_ENABLE_VERBS"),
        (True, {"encryption": ON}, "encryption is on"),
        (True, {"target": Target.parse("local:")}, "the target is a child process"),
    ],
)
def test_otherwise_stream_is_alone(monkeypatch, leads, options, why):
    found = best(monkeypatch, leads, **options)
    assert found.providers == ("stream",)
    assert why in found.why
    assert found.outcome("stream") == ("stream", found.why)


def test_pairs_come_before_connections_of_ours_only(monkeypatch):
    found = Offer(("verbs", "stream", "tcp"), "so").with_pairs()
    assert found.providers == ("verbs", "socketpair", "stream", "tcp")
    assert found.outcome("socketpair") == ("stream", "so; pairs of sockets")
    assert Offer(("tcp",), "so").with_pairs().providers == ("tcp",)


def test_who_has_no_stream_is_told_of_libfabric():
    error = ProviderUnavailable("no")
    explain(error, Offer(("tcp",), ""))
    assert error.hint is None
    explain(error, Offer(("stream",), ""))
    assert "provider='tcp'" in str(error)
    known = ProviderUnavailable("no", hint="provider='efa' is allowed")
    explain(known, Offer(("stream",), ""))
    assert known.hint == "provider='efa' is allowed"


@pytest.mark.parametrize("step", ["commit", "read-after-write"])
def test_steps_of_libfabric_are_not_tried_over_it_by_default(tmp_path, step):
    with pytest.raises(rpmem.FabricFailure, match=step) as caught:
        rpmem.create(f"local:{tmp_path}", "a.set", bytearray(SIZE), parts=1, step=step)
    assert "provider='tcp'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@needs_libfabric
def test_a_target_may_be_configured_for_libfabric_alone(tmp_path):
    options = {"parts": 1, "command": f"{sys.executable} -P -m rpmemd --provider tcp"}
    target = f"local:{tmp_path}"
    with pytest.raises(ProviderUnavailable, match="for lanes over tcp") as caught:
        rpmem.create(target, "a.set", bytearray(SIZE), **options)
    assert "provider='tcp'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with rpmem.create(target, "a.set", bytearray(SIZE), provider="tcp", **options) as replica:
        assert replica.provider == "tcp"


@needs_libfabric
def test_a_target_that_has_never_heard_of_stream(tmp_path):
    """As an rpmemd of before it was there: libfabric has no provider of that name."""
    program = (
        "import sys; from rpmem.fabric import providers; load = providers.load; "
        "providers.load = lambda name='': load('' if name in ('stream', 'socketpair') else name); "
        "from rpmemd import lane_server, session; "
        "lane_server.SOCKETPAIR = session.SOCKETPAIR = None; "
        "from rpmemd.__main__ import main; sys.exit(main())"
    )
    with pytest.raises(ProviderUnavailable, match="cannot be used") as caught:
        rpmem.create(
            f"local:{tmp_path}",
            "a.set",
            bytearray(SIZE),
            parts=1,
            command=f'{sys.executable} -P -c "{program}"',
        )
    assert "provider='tcp'" in str(caught.value)


# --- verbs before stream, to a target over ssh that has no device -------------------------------


@pytest.fixture
def said_of(ssh_node, sshd, monkeypatch):
    """Say what a session reports of its encryption, that offers verbs, too."""
    if hardware.has_rdma_device():
        pytest.skip("this machine has an RDMA device")
    monkeypatch.setattr(offer, "leads_to", lambda host: True)
    configuration = Path(sshd.home) / ".rpmemd.conf"

    def said_of(allowed, encryption):
        configuration.write_text(f"encryption = {allowed}\n")
        options = {"parts": 1, "encryption": encryption}
        with rpmem.create(ssh_node, "offered.set", bytearray(SIZE), 2, **options) as replica:
            assert replica.provider == "stream"
        rpmem.remove(ssh_node, "offered.set", pool_set=True)
        return replica.encryption

    yield said_of
    configuration.unlink(missing_ok=True)


@pytest.mark.parametrize("allowed", ["allowed", "required"])
@pytest.mark.parametrize("encryption", [AUTO, ON])
def test_stream_behind_verbs_is_encrypted(said_of, allowed, encryption):
    assert said_of(allowed, encryption) == "TLS 1.3"


@pytest.mark.parametrize("allowed", ["allowed", "off"])
def test_unless_it_is_not_wanted(said_of, allowed):
    assert said_of(allowed, OFF) == "none: encryption is off"


@pytest.mark.parametrize(("allowed", "encryption"), [("required", OFF), ("off", ON)])
def test_what_one_side_needs_and_the_other_refuses(said_of, allowed, encryption):
    with pytest.raises(EncryptionRefused):
        said_of(allowed, encryption)


def test_stream_in_plain_text_is_never_what_is_left(said_of):
    """With verbs left alone by a target that does not encrypt, verbs it is, or nothing."""
    with pytest.raises((ProviderUnavailable, MissingExtension)):
        said_of("off", AUTO)
