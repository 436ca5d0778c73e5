"""rpmem.Pool with replicas that the original rpmemd serves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.errors import PoolSetExists, PoolSetNotFound, ReplicaLost, StaleReplica
from tests.interop.support.attributes import header_block, header_checksum
from tests.interop.support.node import MIB, OURS, Node, daemon_words
from tests.interop.support.originals import Originals
from tests.interop.support.ours import METHODS, PAGE, OurInitiator
from tests.support.without import is_built

SIZE = 4 * MIB
SET = "replica.set"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "local"


@pytest.fixture
def remote(node: Node) -> str:
    """A replica: a pool set of two parts, large enough, at the node."""
    name = node.make_set(SIZE // 2, SIZE // 2 + PAGE, name=SET)
    return f"{node.host} {name}"


@pytest.fixture
def our_daemon(node: Node) -> Node:
    """The same pool sets behind our daemon."""
    return Node(node.folder, daemon_words(OURS, None), node.host)


def assert_equal(local: Path, node: Node, name: str = SET) -> None:
    """Compare all but the headers and the records."""
    assert node.pool_bytes(name)[POOL_FLOOR:SIZE] == local.read_bytes()[POOL_FLOOR:SIZE]


def fill(pool: rpmem.Pool, name: str = "a", value: float = 1.0) -> None:
    array = pool.array(name, (50, 100))
    array[:] = value
    pool.persist(array)


def test_every_way_of_persisting(
    ours: OurInitiator, node: Node, local: Path, remote: str, originals: Originals
) -> None:
    with rpmem.Pool.create(local, SIZE, remote) as pool:
        (replica,) = pool.replicas
        assert (replica.provider, replica.step) == ("sockets", "send-after-write")
        assert pool.level == "unknown"
        fill(pool)
        matrix = pool.array("matrix", (200, 300), order="F")
        rows = pool.array("rows", (300, 200))
        table = pool.array("table", 3000, [("x", "f4"), ("when", "M8[us]"), ("name", "U6")])
        rows[:] = matrix[:] = 0
        pool.persist()
        assert_equal(local, node)
        rows[:, 3] = np.arange(300)
        pool.persist(rows[:, 3])
        rows[::30, ::9] = 5
        pool.persist(rows[::30, ::9], relaxed=True)
        matrix[5] = 2.5
        table["x"] = np.arange(3000)
        pool.persist_many([table["x"], matrix[5]])
        table["name"][10:20] = "abc"
        pool.flush(table[10:20])
        pool.drain()
        rows[100:] = 7
        pool.deep_persist(rows[100:])
        # Neither end has been closed: what was persisted is there.
        assert_equal(local, node)
        del pool["a"]
    assert_equal(local, node)
    header = node.pool_bytes(SET)[:PAGE]
    assert header_block(header)[:8] == b"RPMEMPY1"
    assert int.from_bytes(header[4088:], "little") == header_checksum(header)
    assert header[24:40] == local.read_bytes()[24:40]


@pytest.mark.parametrize("method", METHODS)
def test_pages_that_are_found_by_digests_go_inside_messages(
    ours: OurInitiator, node: Node, local: Path, remote: str, method: str
) -> None:
    """They come from a copy, which the daemon's fabric must not refer to."""
    if not is_built("rpmem.memory.changes.digests"):
        pytest.skip("rpmem.memory.changes.digests is not built here")
    ours.method(method)
    with rpmem.Pool.create(local, SIZE, remote, tracking="digest") as pool:
        array = pool.array("a", 2 * MIB, np.uint8)
        array[:] = np.frombuffer(os.urandom(len(array)), np.uint8)
        pool.persist()
        assert_equal(local, node)
        for places in ([5], range(0, len(array), 70_001), range(MIB, MIB + 100_000)):
            array[places] ^= 0xFF
            pool.persist()
            assert_equal(local, node)


def test_two_replicas_each_on_its_own_daemon(
    ours: OurInitiator, node: Node, local: Path, originals: Originals, our_daemon: Node
) -> None:
    """The first command of RPMEM_CMD is the first replica's, the second the second's."""
    other = Node(node.folder.parent / "other", node.daemon, node.host)
    for each in (node, other):
        each.make_set(SIZE, name=SET)
    specs = [f"{node.host} {SET}", f"{node.host} ./{SET}"]
    for commands in (
        [node.command(), other.command()],
        [our_daemon.command(), other.command()],
    ):
        ours.set_variable("RPMEM_CMD", "|".join(commands))
        if local.exists():
            pool = rpmem.Pool.open(local, specs)
        else:
            pool = rpmem.Pool.create(local, SIZE, specs)
        with pool:
            fill(pool, f"array{len(pool)}", len(pool) + 1)
            assert_equal(local, node)
            assert_equal(local, other)
        pool.close()


def test_opened_again_by_either_daemon(
    ours: OurInitiator, node: Node, local: Path, remote: str, our_daemon: Node
) -> None:
    with rpmem.Pool.create(local, SIZE, remote) as pool:
        fill(pool)
    for number, daemon in enumerate((node, our_daemon, node)):
        ours.set_variable("RPMEM_CMD", daemon.command())
        with rpmem.Pool.open(local, remote) as pool:
            assert (pool["a"] == number + 1).all()
            pool["a"][:] = number + 2
            pool.persist(pool["a"])
        assert_equal(local, node)


@pytest.mark.parametrize("which", ["original", "ours"])
@pytest.mark.parametrize("clean", [True, False], ids=["closed", "died"])
def test_restore(
    ours: OurInitiator,
    node: Node,
    local: Path,
    remote: str,
    our_daemon: Node,
    which: str,
    clean: bool,
) -> None:
    def work() -> None:
        pool = rpmem.Pool.create(local, SIZE, remote)
        fill(pool, "a", 4.5)
        fill(pool, "b", 6.5)
        if clean:
            del pool["b"]
            pool.close()

    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    local.unlink()
    if which == "ours":
        ours.set_variable("RPMEM_CMD", our_daemon.command())
    restored = local.with_name("restored")
    deadline = time.monotonic() + 60
    while True:
        try:
            pool = rpmem.Pool.restore(restored, remote)
            break
        except rpmem.errors.PoolSetBusy:  # the dead program's daemon is still there
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with pool:
        assert (pool["a"] == 4.5).all()
        assert list(pool.names()) == (["a"] if clean else ["a", "b"])
        pool["a"][:] = 8
        pool.persist(pool["a"])
        assert_equal(restored, node)
    assert_equal(restored, node)


def test_a_replica_that_was_left_behind_is_brought_up_to_date(
    ours: OurInitiator, node: Node, local: Path, remote: str
) -> None:
    with rpmem.Pool.create(local, SIZE, remote) as pool:
        fill(pool)
    old = local.read_bytes()
    with rpmem.Pool.open(local) as pool:
        fill(pool, "later", 3)
    with rpmem.Pool.open(local, remote):
        assert_equal(local, node)
    local.write_bytes(old)
    with pytest.raises(StaleReplica):
        rpmem.Pool.open(local, remote)
    with rpmem.Pool.open(local, remote, discard=remote) as pool:
        assert "later" not in pool
    assert_equal(local, node)


@pytest.mark.alone
def test_a_daemon_that_is_killed(ours: OurInitiator, node: Node, local: Path, remote: str) -> None:
    pid = ours.note_pid()
    with rpmem.Pool.create(local, SIZE, remote) as pool:
        fill(pool)
        array = pool["a"]
        os.kill(pid(), signal.SIGKILL)
        killed = time.monotonic()
        value = 1.0
        with pytest.raises(ReplicaLost) as caught:  # noqa: PT012
            while True:
                value += 1
                array[:] = value
                pool.persist(array)
        assert time.monotonic() - killed < 2
        assert node.host in str(caught.value)
        assert (np.frombuffer(local.read_bytes(), offset=pool.entry("a").offset, count=5000)
                == value).all()  # fmt: skip
        with pytest.raises(ReplicaLost):
            pool.persist(array)
        pool.detach(0)
        array[0] = -1
        pool.persist(array[0])
        pool.attach(remote)
        array[1] = -2
        pool.persist(array[1])
        assert_equal(local, node)
    assert_equal(local, node)


def test_what_fails_leaves_nothing_behind(
    ours: OurInitiator, node: Node, local: Path, remote: str
) -> None:
    with pytest.raises(PoolSetNotFound):
        rpmem.Pool.create(local, SIZE, [remote, f"{node.host} missing.set"])
    assert not local.exists()
    assert list(node.parts.iterdir()) == []
    with pytest.raises(PoolSetNotFound, match="pool set file"):
        rpmem.Pool.create(local, SIZE, f"{node.host} missing.set", parts=1)
    rpmem.Pool.create(local, SIZE, remote).close()
    with pytest.raises(PoolSetExists):
        rpmem.Pool.create(local.with_name("second"), SIZE, remote)
    with pytest.raises(PoolSetNotFound):
        rpmem.Pool.restore(local.with_name("second"), f"{node.host} missing.set")
    assert not local.with_name("second").exists()
    rpmem.Pool.open(local, remote).close()
    assert_equal(local, node)


def test_what_was_stored_and_not_persisted_is_there_too(
    ours: OurInitiator, node: Node, local: Path, remote: str
) -> None:
    with rpmem.Pool.create(local, SIZE, remote) as pool:
        fill(pool)
        pool["a"][:] = 2
    assert_equal(local, node)
    with rpmem.Pool.open(local, []) as pool:
        assert (pool["a"] == 2).all()
