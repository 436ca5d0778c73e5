"""The low tier, end to end: librpmem's calls against a real rpmemd, as a child and over ssh."""

from __future__ import annotations

import array
import mmap
import os
import random
import shlex
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem import PoolAttributes
from rpmem.errors import (
    BufferRefused,
    ClosedError,
    FabricFailure,
    LaneRefused,
    PoolSetNotFound,
    ProviderUnavailable,
    RangeError,
    RemoteError,
    ReplicaLost,
    RpmemError,
    UsageError,
    VersionMismatch,
)
from tests.support import faulty_rpmemd
from tests.support.fabrics import SOCKETS, TCP, needs_libfabric
from tests.support.media import INCOMPAT_SINGLEHDR, image_of, signature_in, wait_unlocked
from tests.support.processes import stop
from tests.support.targets import ATTRIBUTES, Node
from tests.support.traces import Traces

SIZE = 2 << 20
PAGE = 4096


@pytest.fixture
def node(tmp_path):
    return Node.local(tmp_path / "node")


@pytest.fixture(params=["local", "openssh", "paramiko"])
def every_node(request, tmp_path):
    """The same directory, reached in every way."""
    if request.param == "local":
        return Node.local(tmp_path / "node")
    host = request.getfixturevalue("ssh_node")
    return Node.over_ssh(tmp_path / "node", host, request.param)


def filled(size=SIZE, seed=1):
    buffer = bytearray(size)
    buffer[PAGE:] = random.Random(seed).randbytes(size - PAGE)
    return buffer


# --- the whole of it ---------------------------------------------------------------------------


def test_create_persist_close_open_read_remove(every_node):
    node = every_node
    buffer = filled()
    with node.create(buffer, nlanes=2) as replica:
        assert replica.nlanes == 2
        assert replica.attributes == ATTRIBUTES
        assert replica.pool_size == SIZE
        assert str(replica.target) == node.target
        assert replica.pool_set == "a.set"
        assert replica.peer.pid > 0
        assert not replica.closed
        replica.persist(PAGE, 64)
        replica.persist(5000, 100_000)
        replica.persist(1 << 20, 1 << 19, relaxed=True)
        replica.flush(200_000, 5)
        replica.flush(200_100, 70_000, relaxed=True)
        replica.drain()
        replica.deep_persist(300_000, 4096)
        replica.persist_many([(400_000, 9), (500_000, 20_000)])
    assert replica.closed
    ranges = [(PAGE, 64), (5000, 100_000), (1 << 20, 1 << 19), (200_000, 5), (200_100, 70_000)]
    ranges += [(300_000, 4096), (400_000, 9), (500_000, 20_000)]
    expected = bytearray(SIZE)
    for offset, length in ranges:
        expected[offset : offset + length] = buffer[offset : offset + length]
    image = node.image()
    assert image[PAGE:] == expected[PAGE:]
    assert signature_in(image) == ATTRIBUTES.signature

    with node.open(bytearray(SIZE)) as replica:
        assert replica.attributes == ATTRIBUTES
        whole = bytearray(SIZE)
        replica.read(whole, 0)
        assert whole == image
    assert node.files() == ["a.set", "a.set.part0"]
    node.remove()
    assert node.files() == ["a.set"]
    with pytest.raises(PoolSetNotFound):
        node.open(bytearray(SIZE))
    with node.create(bytearray(SIZE)):
        pass
    node.remove(pool_set=True)
    assert node.files() == []


@pytest.mark.parametrize("provider", ["stream", TCP, SOCKETS])
@pytest.mark.parametrize("medium", ["page", "pmem", "shadow"])
def test_any_range_arrives_exactly(tmp_path, monkeypatch, provider, medium):
    """Sizes and offsets around every limit, strict and relaxed, with every provider and medium."""
    node = Node.local(tmp_path / "node", provider=provider)
    if medium == "pmem":
        monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "1")
    elif medium == "shadow":
        node.options["command"] = faulty_rpmemd.command()
    chance = random.Random(f"{provider}{medium}")
    buffer = bytearray(3 << 20)
    expected = bytearray(len(buffer))
    lengths = [1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 4095, 4096, 4097, 16383, 16384, 16385]
    lengths += [65_000, 65_536, 65_537, 131_072, 700_001, 1 << 20]
    try:
        replica = node.create(buffer, parts=2, nlanes=1)
    except ProviderUnavailable as absent:
        pytest.skip(str(absent))
    with replica:
        assert replica.medium == ("page" if medium == "shadow" else medium)
        assert replica.provider == provider
        committing = medium == "pmem" and provider == "tcp"
        assert replica.step == ("commit" if committing else "send-after-write")
        for length in lengths * 2:
            room = len(buffer) - length
            for offset in (chance.randrange(PAGE, room), PAGE, room, room & ~63, 2093056 & ~7):
                if not PAGE <= offset <= room:
                    continue
                end = offset + length
                buffer[offset:end] = expected[offset:end] = chance.randbytes(length)
                relaxed = chance.random() < 0.5
                if chance.random() < 0.2:
                    replica.flush(offset, length, relaxed=relaxed)
                    replica.drain()
                else:
                    replica.persist(offset, length, relaxed=relaxed)
        got = bytearray(len(buffer) - PAGE)
        replica.read(got, PAGE)
        assert got == expected[PAGE:]
    assert node.image()[PAGE : len(buffer)] == expected[PAGE:]


@pytest.mark.parametrize("step", ["commit", "flush", "read-after-write", "nonsense"])
@pytest.mark.parametrize("command", [None, "rpmemd --persist-apm"])
def test_steps_that_are_not_possible_are_refused(monkeypatch, tmp_path, step, command):
    """On files behind the page cache an msync is needed, whatever the administrator allows."""
    monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "0")
    options = {}
    if command is not None:
        options["command"] = f"{shlex.quote(sys.executable)} -P -m {command}"
    node = Node.local(tmp_path / "node", step=step, **options)
    with pytest.raises(FabricFailure, match=step):
        node.create(bytearray(SIZE))
    assert node.files() == []


@pytest.mark.parametrize(("spoken", "wanted"), [("native", "pmdk"), ("pmdk", "native")])
def test_a_protocol_that_the_administrator_refused_is_not_spoken(tmp_path, spoken, wanted):
    command = f"{shlex.quote(sys.executable)} -P -m rpmemd --protocol {spoken}"
    node = Node.local(tmp_path / "node", command=command)
    options = {"provider": "sockets"} if wanted == "pmdk" else {}
    with pytest.raises(RpmemError) as caught:
        node.create(bytearray(SIZE), protocol=wanted, **options)
    assert isinstance(caught.value, VersionMismatch | RemoteError), caught.value
    assert node.files() == []


def test_who_only_opened_a_pool_does_not_remove_it(node):
    node.create(filled()).close()
    before = node.files()
    node.open(bytearray(SIZE)).close(remove=True)
    assert node.files() == before
    node.open(bytearray(SIZE)).close()


def test_a_pool_without_attributes_has_no_header(node):
    buffer = filled()
    buffer[:PAGE] = b"h" * PAGE
    with node.create(buffer, attributes=None) as replica:
        assert replica.attributes is None
        replica.persist(0, 100)
        replica.persist(PAGE - 50, 100)
    image = node.image()
    assert image[:100] == buffer[:100]
    assert image[PAGE - 50 : PAGE + 50] == buffer[PAGE - 50 : PAGE + 50]
    assert not any(image[100 : PAGE - 50])
    with node.open(bytearray(SIZE)) as replica:
        assert replica.attributes is None


def test_a_pool_set_file_of_the_administrator(node):
    lines = ["PMEMPOOLSET", "OPTION SINGLEHDR"]
    lines += [f"2M {node.directory}/p{number}" for number in range(3)]
    (node.directory / "mine.set").write_text("\n".join(lines) + "\n")
    size = 6 << 20
    buffer = filled(size)
    attributes = PoolAttributes(signature=b"TESTPOOL", incompat=INCOMPAT_SINGLEHDR)
    with node.create(buffer, "mine.set", parts=0, attributes=attributes) as replica:
        for offset in (PAGE, (2 << 20) - 100, (4 << 20) - 1, size - 200):
            replica.persist(offset, 200)
    image = node.image("mine.set")
    assert len(image) == size
    for offset in (PAGE, (2 << 20) - 100, (4 << 20) - 1, size - 200):
        assert image[offset : offset + 200] == buffer[offset : offset + 200]
    assert node.files() == ["mine.set", "p0", "p1", "p2"]
    node.remove("mine.set")
    assert node.files() == ["mine.set"]


def test_set_attributes(every_node):
    node = every_node
    later = ATTRIBUTES.replaced(signature=b"LATER", major=9, poolset_uuid=bytes(range(16)))
    with node.create(bytearray(SIZE), parts=2) as replica:
        replica.set_attributes(later)
        assert replica.attributes == later
    with node.open(bytearray(SIZE)) as replica:
        assert replica.attributes == later


# --- buffers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda size: mmap.mmap(-1, size),
        lambda size: np.zeros(size // 8),
        lambda size: memoryview(bytearray(size + 100))[50 : size + 50],
        lambda size: array.array("d", bytes(size)),
        lambda size: rpmem.Region.anonymous(size),
    ],
    ids=["bytearray", "mmap", "ndarray", "memoryview", "array", "Region"],
)
def test_any_writable_contiguous_buffer(node, make):
    memory = make(SIZE)
    view = np.frombuffer(memory, np.uint8)
    view[5000:6000] = 7
    with node.create(memory) as replica:
        replica.persist(5000, 1000)
        got = np.empty(2000, np.uint8)
        replica.read(got, 4500)
    assert (got[500:1500] == 7).all()
    assert not got[:500].any()
    assert not got[1500:].any()


def test_the_buffer_is_held_while_the_replica_lives(node):
    buffer = bytearray(SIZE)
    replica = node.create(buffer)
    with pytest.raises(BufferError):
        buffer.append(1)
    replica.close()
    buffer.append(1)


def test_a_region_stays_the_callers(node):
    region = rpmem.Region.anonymous(SIZE)
    with node.create(region) as replica:
        with pytest.raises(BufferError, match="used by the lanes of a replica"):
            region.close()
        replica.persist(8192, 64)
    assert not region.closed
    region.close()


def test_only_as_much_as_the_buffer_has(node):
    with node.create(bytearray(3 * PAGE)) as replica:
        assert replica.pool_size == 3 * PAGE
        replica.persist(2 * PAGE, PAGE)
        with pytest.raises(RangeError):
            replica.persist(2 * PAGE, PAGE + 1)
    with node.open(bytearray(SIZE)) as replica:
        replica.persist(SIZE - 8, 8)


@pytest.mark.parametrize(
    ("make", "length"), [(bytearray, 100), (lambda n: np.zeros(n // 4, np.int32), 400)]
)
def test_read_fills_what_it_is_given(node, make, length):
    buffer = filled()
    with node.create(buffer) as replica:
        replica.persist(PAGE, SIZE - PAGE)
        for offset in (0, 1, PAGE - 1, PAGE + 3, SIZE - length):
            got = make(length)
            replica.read(got, offset)
            assert bytes(got)[max(0, PAGE - offset) :] == bytes(
                buffer[max(offset, PAGE) : offset + length]
            )
        replica.read(bytearray(), 0)
        replica.read(bytearray(), SIZE)


def test_read_refuses_what_it_cannot_fill(node):
    with node.create(bytearray(SIZE)) as replica:
        for unfit in (b"read-only", memoryview(bytearray(64))[::2], "text", 7, None):
            with pytest.raises(BufferRefused) as caught:
                replica.read(unfit, 0)
            assert "writable" in str(caught.value)
        for offset in (SIZE - 15, SIZE, 1 << 40, (1 << 64) - 8):
            with pytest.raises(RangeError):
                replica.read(bytearray(16), offset)
        replica.read(bytearray(16), SIZE - 16)


# --- ranges ------------------------------------------------------------------------------------


def test_ranges_that_persist_refuses(node):
    calls = ("persist", "flush", "deep_persist")
    with node.create(bytearray(SIZE)) as replica:
        for call in calls:
            for offset, length in [
                (0, 8),
                (PAGE - 1, 1),
                (PAGE - 1, 2),
                (SIZE - 7, 8),
                (SIZE, 1),
                (PAGE, SIZE),
                ((1 << 64) - 8, 16),
                (1 << 63, 1 << 63),
                (-8, 8),
                (PAGE, -1),
                (1 << 64, 1),
            ]:
                with pytest.raises(RangeError):
                    getattr(replica, call)(offset, length)
            getattr(replica, call)(SIZE, 0)
        replica.drain()
        replica.persist(SIZE - 8, 8)
    assert not any(node.image()[PAGE:])


def test_nothing_of_a_batch_is_sent_when_one_range_is_bad(node):
    buffer = filled()
    with node.create(buffer) as replica:
        with pytest.raises(RangeError, match="range 3 of 3"):
            replica.persist_many([(PAGE, 8), (PAGE + 8, 8), (SIZE, 8)])
        with pytest.raises(RangeError):
            replica.persist_many(np.array([[PAGE, 8], [0, 8]], np.uint64))
    assert not any(node.image()[PAGE:])


def test_many_ranges_in_one_call(node):
    """More than fit into a message, of all sizes, in any order, overlapping."""
    chance = random.Random(5)
    buffer = filled()
    table = np.array(
        [
            (offset, min(SIZE - offset, int(2 ** chance.uniform(0, 13))))
            for offset in (chance.randrange(PAGE, SIZE - 1) for _ in range(5000))
        ],
        np.uint64,
    )
    expected = bytearray(SIZE)
    for offset, length in table.tolist():
        expected[offset : offset + length] = buffer[offset : offset + length]
    for relaxed in (False, True):
        with node.create(buffer, f"{relaxed}.set") as replica:
            replica.persist_many(table, relaxed=relaxed)
            replica.persist_many([])
        assert node.image(f"{relaxed}.set")[PAGE:] == expected[PAGE:]


# --- lanes -------------------------------------------------------------------------------------


def test_lanes_by_number(node):
    with node.create(filled(), nlanes=3) as replica:
        for lane in (0, 1, 2, None):
            replica.persist(PAGE, 64, lane=lane)
            replica.flush(PAGE, 64, lane=lane)
            replica.drain(lane=lane)
            replica.deep_persist(PAGE, 64, lane=lane)
            replica.persist_many([(PAGE, 8)], lane=lane)
            replica.read(bytearray(8), PAGE, lane=lane)
        for lane in (3, -1, 1 << 40):
            with pytest.raises(LaneRefused, match="lanes 0 to 2"):
                replica.persist(PAGE, 64, lane=lane)


def test_more_threads_than_lanes(node):
    buffer = filled()
    piece = (SIZE - PAGE) // 8

    with node.create(buffer, nlanes=2) as replica:

        def work(number):
            chance = random.Random(number)
            begin = PAGE + number * piece
            for _ in range(60):
                length = chance.randint(1, 9000)
                offset = begin + chance.randrange(piece - length)
                replica.persist(offset, length, relaxed=chance.random() < 0.5)
            for offset in range(begin, begin + piece, 50_000):
                replica.flush(offset, min(50_000, begin + piece - offset))
            replica.drain()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
    assert node.image()[PAGE : PAGE + 8 * piece] == buffer[PAGE : PAGE + 8 * piece]


def test_drain_waits_for_what_other_threads_flushed(node):
    buffer = filled()
    with node.create(buffer, nlanes=4) as replica:
        threads = [
            threading.Thread(
                target=lambda lane=lane: replica.flush(PAGE + lane * 100_000, 100_000, lane=lane)
            )
            for lane in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        replica.drain()
        image = node.image()
    assert image[PAGE : PAGE + 400_000] == buffer[PAGE : PAGE + 400_000]


# --- endings -----------------------------------------------------------------------------------


def test_close_with_remove(node):
    with node.create(bytearray(SIZE)) as replica:
        replica.close(remove=True)
    assert node.files() == []
    node.create(bytearray(SIZE)).close()
    node.open(bytearray(SIZE)).close(remove=True)
    assert node.files() == ["a.set", "a.set.part0"], "only who created a pool removes it with close"


def test_a_pool_that_is_closed_at_once_stays(node):
    """Although its target may not have looked at the last lane yet."""
    for number in range(8):
        node.create(bytearray(SIZE), f"{number}.set", nlanes=4).close()
        assert f"{number}.set.part0" in node.files()


def test_everything_after_close_says_so(node):
    replica = node.create(bytearray(SIZE))
    replica.close()
    replica.close()
    for call in (
        lambda: replica.persist(PAGE, 8),
        lambda: replica.flush(PAGE, 8),
        lambda: replica.drain(),
        lambda: replica.deep_persist(PAGE, 8),
        lambda: replica.persist_many([(PAGE, 8)]),
        lambda: replica.read(bytearray(8), PAGE),
        lambda: replica.set_attributes(ATTRIBUTES),
    ):
        with pytest.raises(ClosedError) as caught:
            call()
        assert node.target in str(caught.value)
        assert "closed" in str(caught.value)
    assert "closed" in repr(replica)


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_sessions_leave_nothing_behind(node):
    node.create(bytearray(SIZE)).close()
    before = Traces.now()
    for number in range(5):
        with node.open(bytearray(SIZE), nlanes=1 + number) as replica:
            replica.persist(PAGE, 64)
    with pytest.raises(PoolSetNotFound):
        node.open(bytearray(SIZE), "missing.set")
    assert not before.more()


def test_a_forgotten_replica_ends_with_its_process(node):
    """The daemon notices that its initiator is gone, although nobody closed anything."""
    pid = os.fork()
    if pid == 0:
        try:
            replica = node.create(bytearray(SIZE))
            replica.persist(PAGE, 8)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    wait_unlocked(node.directory / "a.set")
    node.open(bytearray(SIZE)).close()


def test_several_replicas_of_one_buffer(node, tmp_path):
    buffer = filled()
    nodes = [node, *(Node.local(tmp_path / f"node{number}") for number in range(2))]
    replicas = [each.create(buffer) for each in nodes]
    for replica in replicas:
        replica.persist(PAGE, 100_000)
    for replica in replicas:
        replica.close()
    for each in nodes:
        assert (
            image_of(each.directory / "a.set")[PAGE : PAGE + 100_000]
            == (buffer[PAGE : PAGE + 100_000])
        )


# --- the environment ---------------------------------------------------------------------------


def test_environment_variables(node, set_variable):
    set_variable("RPMEM_MAX_NLANES", "2")
    with node.create(bytearray(SIZE), nlanes=5) as replica:
        assert replica.nlanes == 2
    set_variable("RPMEM_MAX_NLANES", "100")
    with node.open(bytearray(SIZE), nlanes=40) as replica:
        assert replica.nlanes == 40
        replica.persist(PAGE, 64, lane=39)
    assert (replica.provider, replica.choice) == (
        "stream",
        "the target is a child process; pairs of sockets",
    )


@needs_libfabric
def test_the_environment_names_a_provider(node, set_variable):
    set_variable("RPMEM_PROVIDER", "tcp")
    with node.create(bytearray(SIZE)) as replica:
        assert (replica.provider, replica.choice) == ("tcp", "RPMEM_PROVIDER names it")
    with node.open(bytearray(SIZE), provider="stream") as replica:
        assert replica.provider == "stream"
        assert replica.choice == "it was asked for; pairs of sockets"


@pytest.mark.parametrize("nlanes", [0, -1, 100_000])
def test_numbers_of_lanes_that_make_no_sense(node, nlanes):
    with pytest.raises(UsageError, match="lanes"):
        node.create(bytearray(SIZE), nlanes=nlanes)
    assert node.files() == []


def test_a_session_that_failed_ends_the_calls_on_its_lanes(tmp_path):
    """They wait for a target that says nothing; nobody waits for the time-out."""
    node = Node.local(tmp_path / "node", timeout=60.0)
    replica = node.create(filled(), nlanes=1)
    stop(replica.peer.pid)
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(replica.persist, PAGE, 64)
            while not replica._replicator.calls:
                time.sleep(0.001)
            replica.on_failure(ReplicaLost("the session is over"))
            with pytest.raises(ReplicaLost, match="the session is over"):
                waiting.result(20)
    finally:
        os.kill(replica.peer.pid, signal.SIGCONT)
        replica.close()


@pytest.mark.parametrize("odd", [0.5, float("nan"), "1", 1j, b"1", np.zeros(3)])
def test_lanes_and_offsets_are_integers(node, odd):
    with node.create(filled(), nlanes=2) as replica:
        for call in (
            lambda: replica.persist(PAGE, 64, lane=odd),
            lambda: replica.flush(PAGE, 64, lane=odd),
            lambda: replica.drain(lane=odd),
        ):
            with pytest.raises(LaneRefused):
                call()
        for offset in (odd, -1, 2**64):
            with pytest.raises(RangeError):
                replica.read(bytearray(8), offset)
        replica.persist(PAGE, 64, lane=np.int8(1))
        replica.read(bytearray(8), np.int64(PAGE))
