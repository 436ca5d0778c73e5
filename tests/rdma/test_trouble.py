"""Sessions when something goes wrong: the target dies, the link is cut, packets are lost."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from rpmem import errors
from tests.rdma.support import node
from tests.rdma.support.node import HEADER, MEGABYTE
from tests.rdma.support.places import PLACES

SIZE = 4 * MEGABYTE
TIMEOUT = 5.0
# Generous: two emulated processors on a machine with other work.
PATIENCE = TIMEOUT + 30.0
LOST = (errors.ReplicaLost, errors.DeadlineExceeded)


@pytest.fixture(params=["tcp", "ofi-verbs", "verbs"])
def provider(request):
    return request.param


class Writer:
    """Persists page after page, each with its number in it, until that fails."""

    def __init__(self, replica, memory):
        self.replica, self.memory = replica, memory
        self.acknowledged = {}
        self.error = None
        self.ended = 0.0
        self.first = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        pages = SIZE // 4096 - 1
        number = 0
        try:
            while number < 10_000_000:
                offset = HEADER + number % pages * 4096
                content = number.to_bytes(8, "little") * 512
                self.memory[offset : offset + 4096] = content
                self.replica.persist(offset, 4096, relaxed=bool(number % 2))
                self.acknowledged[offset] = number
                self.first.set()
                number += 1
        except BaseException as error:
            self.error = error
        self.ended = time.monotonic()

    def end(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "a call did not return"

    def check(self, image):
        """Every page holds what was acknowledged, or what was on its way after that."""
        assert self.acknowledged
        for offset, number in self.acknowledged.items():
            found = int.from_bytes(image[offset : offset + 8], "little")
            assert found >= number, f"page at {offset}: {found}, acknowledged {number}"


def sh(*command):
    subprocess.run(command, check=True, timeout=60)


def daemon(target):
    """The process number of the rpmemd that logged last."""
    return int(re.findall(r"rpmemd\[(\d+)\]", target.log.read_text())[-1])


def test_the_target_is_killed(target, provider):
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=2, provider=provider, timeout=TIMEOUT)
        writer = Writer(replica, memory)
        assert writer.first.wait(PATIENCE)
        os.kill(daemon(target), signal.SIGKILL)
        killed = time.monotonic()
        writer.end()
        assert isinstance(writer.error, LOST)
        assert writer.ended - killed < PATIENCE
        with pytest.raises(LOST):
            replica.persist(HEADER, 8)
        replica.close()
        writer.check(place.content(lines, SIZE))
        # Nothing of the dead session keeps the pool.
        with target.open(name, memory, nlanes=1, provider=provider) as again:
            again.persist(HEADER, 8)


def await_link():
    """Carrier, route and neighbour come back in their own time."""
    # Not by ping: it has the kernel patch itself, which QEMU does not always survive.
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as knock:
            knock.settimeout(1.0)
            try:
                knock.connect((node.TARGET, 9))
            except ConnectionRefusedError:
                return
            except OSError:
                time.sleep(0.2)
    raise AssertionError("the link does not come up again")


@pytest.fixture
def link():
    """The wire between the hosts; mended at the end."""
    if not node.ENTER_TARGET:
        pytest.skip("this kernel's soft-RoCE knows no network namespaces: there is no wire to cut")
    yield
    sh(*node.on_target("ip", "link", "set", "ether", "up"))
    subprocess.run(["tc", "qdisc", "del", "dev", "ether", "root"], check=False)
    await_link()


def test_the_link_is_cut(target, provider, link):
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=2, provider=provider, timeout=TIMEOUT)
        writer = Writer(replica, memory)
        assert writer.first.wait(PATIENCE)
        sh(*node.on_target("ip", "link", "set", "ether", "down"))
        cut = time.monotonic()
        writer.end()
        assert isinstance(writer.error, LOST)
        assert writer.ended - cut < PATIENCE
        writer.check(place.content(lines, SIZE))
        sh(*node.on_target("ip", "link", "set", "ether", "up"))
        await_link()
        replica.close()
        with target.open(name, memory, nlanes=1, provider=provider) as again:
            again.persist(HEADER, 4096)


@contextlib.contextmanager
def losing_packets():
    sh("tc", "qdisc", "add", "dev", "ether", "root", "netem", "loss", "2%", "delay", "1ms")
    try:
        yield
    finally:
        sh("tc", "qdisc", "del", "dev", "ether", "root")


@pytest.mark.parametrize("step", ["send-after-write", "auto"])
def test_packets_are_lost(target, provider, step, link):
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=2, provider=provider, step=step)
        memory[HEADER:] = os.urandom(SIZE - HEADER)
        done, lost = 0, None
        with losing_packets():
            try:
                for number in range(40):
                    replica.persist(HEADER + number * 8192, 5000, relaxed=bool(number % 2))
                    done += 1
            except LOST as error:
                lost = error
        image = place.content(lines, SIZE)
        for number in range(done):
            at = HEADER + number * 8192
            assert image[at : at + 5000] == memory[at : at + 5000]
        # soft-RoCE gives a connection up when a packet around an RDMA FLUSH is lost.
        assert lost is None or replica.step == "flush"
        replica.close()


def resources():
    """How many objects of each kind the kernel holds for RDMA programs."""
    shown = subprocess.run(["rdma", "resource"], capture_output=True, text=True, check=True).stdout
    return sorted(re.findall(r"(\w+): .*?qp (\d+) cm_id (\d+) mr (\d+)", shown)) or shown


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_sessions_leave_nothing_behind(target, provider):
    with PLACES["devdax"].parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)

        def session(call):
            with call(name, memory, nlanes=3, provider=provider) as replica:
                replica.persist(HEADER, 30_000, relaxed=True)

        session(target.create)
        before = resources(), descriptors()
        for _ in range(4):
            session(target.open)
        assert (resources(), descriptors()) == before
