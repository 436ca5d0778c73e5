"""Bytes that were stored and never persisted: after a close, every copy shows them, or none."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import rpmem
from tests.support import hanging_rpmemd
from tests.support.behind import without_digests
from tests.support.fabrics import needs_libfabric
from tests.support.kernel import tells_no_stores
from tests.support.media import state_of, wait_unlocked
from tests.support.pools import OWN, PoolNode, kill

SIZE = 20 << 20
LENGTH = 17 << 20
#: Where bytes are stored and not persisted: pages, blocks and pieces of what is compared.
STORED = (0, 4095, 70_000, 5 << 20, LENGTH - 1)

_NO_KERNEL = tells_no_stores()
MODES = [
    pytest.param("kernel", marks=pytest.mark.skipif(bool(_NO_KERNEL), reason=_NO_KERNEL or "-")),
    "digest",
    "off",
]


@pytest.fixture
def node(tmp_path):
    return PoolNode(tmp_path / "node1")


@pytest.fixture
def other(tmp_path):
    return PoolNode(tmp_path / "node2")


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local"


@pytest.fixture
def alone(tmp_path):
    return tmp_path / "again"


def make(local, *nodes, size=SIZE, **how):
    return rpmem.Pool.create(local, size, [node.spec() for node in nodes], parts=1, **how)


def filled(pool):
    array = pool.array("a", LENGTH, "u1")
    array[:] = np.random.default_rng(1).integers(0, 256, LENGTH, dtype="u1")
    pool.persist(array)
    return array


def store(array):
    array[list(STORED)] += 1


def check(local, *nodes, mark="CLEAN", size=SIZE):
    """All copies have the same bytes, and are marked."""
    ours = Path(local).read_bytes()
    assert state_of(ours)[1] == mark
    for node in nodes:
        wait_unlocked(node.directory / "pool.set")
        assert node.contents()[: size - OWN] == ours[OWN:size]
        assert node.state()[1] == mark


@pytest.mark.parametrize("views", ["views live", "no views"])
@pytest.mark.parametrize("begun", ["looked before", "never looked"])
@pytest.mark.parametrize("tracking", MODES)
def test_stored_and_not_persisted(local, node, other, alone, tracking, begun, views):
    with make(local, node, other, tracking=tracking) as pool:
        array = filled(pool)
        if begun == "looked before":
            pool.persist()
        store(array)
        expected = array.copy()
        if views == "no views":
            del array
            pool.close()
    check(local, node, other)
    for each, lost in ((node, other), (other, node)):
        with rpmem.Pool.restore(alone, each.spec(), lost=lost.spec()) as pool:
            np.testing.assert_array_equal(pool["a"], expected)
        alone.unlink()


@pytest.mark.parametrize("views", ["views live", "no views"])
def test_without_replicas(local, views):
    with make(local) as pool:
        array = filled(pool)
        store(array)
        expected = array.copy()
        if views == "no views":
            del array
    check(local)
    with rpmem.Pool.open(local) as pool:
        np.testing.assert_array_equal(pool["a"], expected)


def test_several_parts(tmp_path, node):
    spec = tmp_path / "several.set"
    parts = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    spec.write_text("PMEMPOOLSET\n" + "".join(f"8M {each}\n" for each in parts))
    with rpmem.Pool.create(spec, replicas=node.spec(), parts=2) as pool:
        array = filled(pool)
        store(array)
        expected = array.copy()
        array_again = pool["a"]
    array_again[:] = 0
    with rpmem.Pool.open(spec, []) as pool:
        np.testing.assert_array_equal(pool["a"], expected)
    with rpmem.Pool.restore(tmp_path / "again", node.spec()) as pool:
        np.testing.assert_array_equal(pool["a"], expected)


@pytest.mark.parametrize("tracking", ["auto", "digest"])
def test_a_buffer_is_compared_whatever_its_record_says(node, alone, tracking):
    memory = np.zeros(SIZE, dtype=np.uint8)
    with rpmem.Pool.create(memory, replicas=node.spec(), parts=1, tracking=tracking) as pool:
        store(filled(pool))
        offset = pool.entry("a").offset
    wait_unlocked(node.directory / "pool.set")
    assert node.contents()[: SIZE - OWN] == memory[OWN:].tobytes()
    # The buffer is its owner's.
    memory[offset + 9] ^= 0xFF
    with rpmem.Pool.open(memory, node.spec()) as pool:
        assert (pool.read(pool["a"]) == pool["a"]).all()
    with rpmem.Pool.restore(alone, node.spec()) as pool:
        assert pool["a"][9] == memory[offset + 9]


@needs_libfabric
def test_over_pmdk_s_protocol_everything_is_sent(local, node):
    with make(local, node):
        pass
    wait_unlocked(node.directory / "pool.set")
    with rpmem.Pool.open(local, node.spec(), protocol="pmdk", provider="sockets") as pool:
        store(filled(pool))
    check(local, node)


def test_to_a_target_that_takes_no_digests_everything_is_sent(local, node, tmp_path):
    lacking = without_digests(tmp_path / "there")
    command = f"env PYTHONPATH={lacking.folder} {sys.executable} -P -m rpmemd"
    with make(local, node, command=command, tracking="off") as pool:
        store(filled(pool))
    check(local, node)


def test_arrays_that_nobody_opened_are_not_looked_at(local, node, caplog):
    with make(local, node) as pool:
        pool.persist(filled(pool))
        small = pool.array("b", 1000, "u1")
        small[:] = 1
        pool.persist(small)
    with rpmem.Pool.open(local, node.spec(), tracking="off") as pool:
        small = pool["b"]
        small[3] = 9
        caplog.set_level(logging.DEBUG, "rpmem")
    assert "sent 4096 bytes that were stored and not persisted" in caplog.text
    check(local, node)


# --- views that go on ------------------------------------------------------------------------


@pytest.mark.parametrize("tracking", MODES)
def test_what_views_store_afterwards_is_theirs_alone(local, node, tracking):
    with make(local, node, tracking=tracking) as pool:
        array = filled(pool)
        pool.persist()
        expected = array.copy()
    before = local.read_bytes()
    array[:] = 0
    array[5] = 77
    assert array[5] == 77
    assert local.read_bytes() == before
    check(local, node)
    with rpmem.Pool.open(local, node.spec()) as pool:
        np.testing.assert_array_equal(pool["a"], expected)
        pool["a"][:] = 3
        pool.persist(pool["a"])
        assert array[5] == 77
        array[6] = 78
        assert pool["a"][6] == 3


def test_threads_that_store_all_the_while(tmp_path):
    """Whatever is in the file at the end is on the replica, too; nothing comes later."""
    for turn in range(6):
        local, node = tmp_path / str(turn), PoolNode(tmp_path / f"node{turn}")
        with make(local, node) as pool:
            array = filled(pool)
            pool.persist()
            over = threading.Event()

            def work(first, array=array, over=over):
                while not over.is_set():
                    array[first :: 3 * 4096] += 1

            threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
            for thread in threads:
                thread.start()
            time.sleep(0.02 * turn)
        try:
            before = local.read_bytes()
            check(local, node)
            time.sleep(0.02)
            assert local.read_bytes() == before
        finally:
            over.set()
            for thread in threads:
                thread.join()


# --- trouble ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("tracking", MODES)
def test_a_replica_that_dies_is_not_marked_and_the_others_are(local, node, other, tracking, dead):
    nodes = [node, other]
    with make(local, *nodes, tracking=tracking) as pool:
        array = filled(pool)
        pool.persist()
        store(array)
        kill(pool.replicas[dead])
        del array
    check(local, nodes[1 - dead])
    wait_unlocked(nodes[dead].directory / "pool.set")
    assert nodes[dead].state()[1] == "BEGUN"
    with rpmem.Pool.open(local, [each.spec() for each in nodes]):
        pass
    check(local, *nodes)


def test_a_replica_that_hangs_at_the_end(local, node):
    with make(local, node):
        pass
    options = {"command": hanging_rpmemd.command("digests"), "timeout": 1.0}
    with rpmem.Pool.open(local, node.spec(), tracking="off", **options) as pool:
        store(filled(pool))
    assert state_of(local.read_bytes())[1] == "CLEAN"
    wait_unlocked(node.directory / "pool.set")
    assert node.state()[1] == "BEGUN"


class Stop(Exception):
    """What a signal's handler raises."""


def test_an_interrupt_leaves_the_copies_unmarked_and_the_next_open_mends_it(local, node):
    options = {"command": hanging_rpmemd.command("digests"), "timeout": 20.0}
    with make(local, node, tracking="off"):
        pass

    def raise_stop(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, raise_stop)
    try:
        pool = rpmem.Pool.open(local, node.spec(), tracking="off", **options)
        store(filled(pool))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        start = time.monotonic()
        with pytest.raises(Stop):
            pool.close()
        assert time.monotonic() - start < 3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pool.closed
    assert state_of(local.read_bytes())[1] == "BEGUN"
    wait_unlocked(node.directory / "pool.set")
    assert node.state()[1] == "BEGUN"
    with rpmem.Pool.open(local, node.spec()) as pool:
        expected = pool["a"].copy()
        assert (pool.read(pool["a"]) == expected).all()
    check(local, node)
