"""PMDK's protocol 0.1 with provider 1 (verbs): our two ends, and libfabric's verbs at either.

The originals carry lanes with libfabric's provider ``verbs``; that ours meets it on the wire is
shown here by putting it under one of our ends.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import threading
from pathlib import Path

import pytest

import rpmem
from rpmem import PoolAttributes, errors
from rpmem.fabric import providers as fabrics
from rpmem.session import lanes
from rpmem.session import start as session
from rpmem.session.channel import LegacySpoken
from tests.rdma.support import node
from tests.rdma.support.node import HEADER, MEGABYTE, TARGET
from tests.rdma.support.places import PLACES

SIZE = 8 * MEGABYTE
# Below, at and above a message's 8192 bytes; across pages; long.
RANGES = [(HEADER, 8), (8191, 66), (12288, 8192), (30_001, 8193), (MEGABYTE, 150_005)]
#: Whose verbs is under the initiator's lanes, and whose under the target's.
MODULES = {"ours": "rpmem.fabric.verbs.fabric", "libfabric": "rpmem.fabric.libfabric.fabric"}
PAIRS = [("ours", "ours"), ("libfabric", "ours"), ("ours", "libfabric")]


@pytest.fixture
def memory():
    with mmap.mmap(-1, SIZE) as buffer:
        buffer[:] = os.urandom(SIZE)
        yield buffer


@pytest.fixture(autouse=True)
def speaking_pmdk(monkeypatch):
    """Our initiator takes every target for PMDK's rpmemd."""

    def spoken(self, request):
        raise LegacySpoken("as if", where="the target")

    monkeypatch.setattr(session._Start, "native", spoken)


@pytest.fixture
def put_under(monkeypatch, target):
    """Return what puts ours or libfabric's verbs under the two ends."""

    def put(initiators, targets):
        if initiators == "libfabric":
            load = fabrics.load
            monkeypatch.setattr(lanes._fabric, "load", lambda _: load("ofi-verbs"))
        if targets == "libfabric":
            target.module = "tests.rdma.support.ofi_rpmemd"

    return put


def bytes_of(memory, model, replica, base):
    """Send every range in every way PMDK has; `model` is what must then be there."""
    calls = (
        lambda at, n: replica.persist(at, n),
        lambda at, n: replica.persist(at, n, relaxed=True),
        lambda at, n: (replica.flush(at, n), replica.drain()),
        lambda at, n: (replica.flush(at, n, relaxed=True), replica.drain()),
        replica.deep_persist,
    )
    for call in calls:
        for start, length in RANGES:
            at = base + start
            memory[at : at + length] = os.urandom(length)
            call(at, length)
            model[at : at + length] = memory[at : at + length]


@pytest.mark.parametrize(
    ("initiators", "targets", "apm"),
    [
        ("ours", "ours", False),
        ("ours", "ours", True),
        # The originals, which test_originals.py meets, have libfabric's.
        pytest.param("libfabric", "ours", False, marks=pytest.mark.slow),
        pytest.param("ours", "libfabric", False, marks=pytest.mark.slow),
    ],
)
def test_a_whole_session(target, memory, put_under, initiators, targets, apm):
    put_under(initiators, targets)
    target.options = ["--persist-apm"] if apm else []
    place = PLACES["devdax"]
    with place.parts() as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=3, provider="verbs")
        assert replica.nlanes == 3
        assert replica.step == ("read-after-write" if apm else "send-after-write")
        log = target.log.read_text()
        assert ("Appliance" in log) == apm
        assert type(replica._lanes.fabric).__module__ == MODULES[initiators]
        daemon = re.findall(r"rpmemd\[(\d+)\]", log)[-1]
        maps = Path(f"/proc/{daemon}/maps").read_text()
        assert ("libfabric.so" in maps) == (targets == "libfabric")
        model = bytearray(place.content(lines, SIZE))
        bytes_of(memory, model, replica, 0)
        assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]
        back = bytearray(SIZE)
        replica.read(back, 0)
        assert back[HEADER:] == model[HEADER:]
        assert back[:8] == b"RDMATEST"
        changed = PoolAttributes(
            signature=b"CHANGED!", major=2, poolset_uuid=b"P" * 16, uuid=b"U" * 16
        )
        replica.set_attributes(changed)
        replica.close()
        assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]

        with target.open(name, memory, nlanes=1, provider="verbs") as again:
            assert (again.nlanes, again.attributes) == (1, changed)
            bytes_of(memory, model, again, 3 * MEGABYTE)
            part = bytearray(SIZE - HEADER)
            again.read(part, HEADER)
            assert part == model[HEADER:]
        rpmem.remove(TARGET, name, command=target.command)
        with pytest.raises(errors.RpmemError):
            target.open(name, memory, provider="verbs")


@pytest.mark.parametrize("where", ["tmpfs", "disk", pytest.param("fsdax", marks=pytest.mark.slow)])
def test_every_place_serves_or_says_no(target, memory, where):
    """Without our protocol's staging, memory that cannot be registered is refused, loudly."""
    place = PLACES[where]
    with place.parts(SIZE) as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        if not place.pinned:
            with pytest.raises(errors.RemoteError, match="only its log explains") as caught:
                target.create(name, memory, nlanes=2, provider="verbs")
            assert caught.value.errno == errno.EREMOTEIO
            assert "cannot be registered" in target.log.read_text()
            assert "device-DAX" in target.log.read_text()
            # Nothing is left of a pool that could not be served.
            assert not os.path.exists(lines[0].split()[1])
            return
        replica = target.create(name, memory, nlanes=2, provider="verbs")
        model = bytearray(place.content(lines, SIZE))
        bytes_of(memory, model, replica, 0)
        replica.close()
        assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]


@pytest.mark.parametrize(
    ("initiators", "targets"),
    [PAIRS[0], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS[1:])],
)
def test_threads_on_their_lanes(target, memory, put_under, initiators, targets):
    put_under(initiators, targets)
    place = PLACES["devdax"]
    with place.parts() as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=8, provider="verbs")
        failed = []

        def work(lane):
            try:
                for turn in range(30):
                    at = HEADER + (lane * 30 + turn) * 12288
                    memory[at : at + 12288] = os.urandom(12288)
                    replica.persist(at, 12288, relaxed=bool(turn % 2), lane=lane)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(lane,)) for lane in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        end = HEADER + 240 * 12288
        assert place.content(lines, SIZE)[HEADER:end] == memory[HEADER:end]
        replica.close()


@contextlib.contextmanager
def ssh_from(folder, address, monkeypatch):
    """The control session comes from another address than the lanes."""
    folder.mkdir()
    script = node.make_ssh(folder)
    script.write_text(script.read_text().replace(f"'{node.INITIATOR} ", f"'{address} "))
    with monkeypatch.context() as patch:
        patch.setenv("RPMEM_SSH", str(script))
        rpmem.base.environment.current.cache_clear()
        yield
    rpmem.base.environment.current.cache_clear()


def test_lanes_from_elsewhere_are_refused(target, memory, tmp_path, monkeypatch):
    place = PLACES["tmpfs"]
    with place.parts(SIZE) as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        with (
            ssh_from(tmp_path / "elsewhere", "10.77.0.9", monkeypatch),
            pytest.raises(errors.ConnectFailed, match="refused lane 0"),
        ):
            target.create(name, memory, nlanes=2, provider="verbs", timeout=10)
        assert "not the ssh peer, was refused" in target.log.read_text()
        # The same with the right address: it was the address that was refused.
        with target.create(name, memory, nlanes=2, provider="verbs") as replica:
            replica.persist(HEADER, 100)
            assert place.content(lines, SIZE)[HEADER : HEADER + 100] == memory[HEADER:][:100]
