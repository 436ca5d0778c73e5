"""Pools with replicas on local: targets: equality, loss, generations, restoring."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rpmem
from rpmem.errors import (
    CatalogueCorrupt,
    ClosedError,
    HeaderError,
    PoolSetExists,
    PoolSetNotFound,
    ReplicaLost,
    SplitBrain,
    StaleReplica,
    UsageError,
)
from tests.support.media import wait_unlocked, write_slots
from tests.support.pools import OWN, SIZE, PoolNode, fill, kill, local_bytes, state_now


@pytest.fixture
def node(tmp_path):
    return PoolNode(tmp_path / "node1")


@pytest.fixture
def other(tmp_path):
    return PoolNode(tmp_path / "node2")


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local"


# --- equality ---


def test_every_copy_is_the_same_after_close(local, node, other):
    specs = [node.spec(), (other.target, "pool.set")]
    with rpmem.Pool.create(local, SIZE, specs, parts=2) as pool:
        assert [replica.pool_set for replica in pool.replicas] == ["pool.set"] * 2
        fill(pool)
        matrix = pool.array("matrix", (200, 300), order="F")
        matrix[:] = np.arange(60000).reshape(200, 300)
        pool.persist(matrix[:, 3])
        pool.persist(matrix)
        table = pool.array("table", 77, [("x", "f4"), ("when", "M8[us]"), ("name", "U6")])
        table["x"], table["name"] = 2, "abc"
        pool.persist(table["x"])
        pool.persist_many([table, matrix[5]])
        del pool["a"]
        pool.array("a", 1, "u1")
    assert node.contents()[: SIZE - OWN] == local_bytes(local)
    assert other.contents()[: SIZE - OWN] == local_bytes(local)


def test_replica_lines_of_a_poolset_file(tmp_path, node, other):
    local = tmp_path / "local.set"
    local.write_text(
        f"PMEMPOOLSET\n4M {tmp_path}/part0\n4M {tmp_path}/part1\n"
        f"REPLICA {node.spec()}\nREPLICA {other.spec('two.set')}\n"
    )
    with rpmem.Pool.create(local, parts=1) as pool:
        assert [str(replica.target) for replica in pool.replicas] == [node.target, other.target]
        fill(pool)
    with rpmem.Pool.open(local) as pool:
        assert len(pool.replicas) == 2
        assert pool["a"][3, 4] == 1
    assert node.contents()[: pool.size - OWN] == other.contents("two.set")[: pool.size - OWN]


def test_headers_form_a_ring(local, node, other):
    with rpmem.Pool.create(local, SIZE, [node.spec(), other.spec()], parts=1):
        pass
    with rpmem.Pool.open(local, [node.spec(), other.spec()]) as pool:
        ring = [pool.attributes, *(replica.attributes for replica in pool.replicas)]
    for index, each in enumerate(ring):
        assert each.poolset_uuid == ring[0].poolset_uuid
        assert each.next_uuid == ring[(index + 1) % 3].uuid
        assert each.prev_uuid == ring[index - 1].uuid


def test_a_pool_in_memory_with_a_replica(node):
    buffer = np.zeros(SIZE, dtype=np.uint8)
    with rpmem.Pool.create(buffer, replicas=node.spec(), parts=1) as pool:
        fill(pool, value=5)
        assert pool.medium == "volatile"
    fresh = np.full(SIZE, 0xEE, dtype=np.uint8)
    with rpmem.Pool.restore(fresh, node.spec()) as pool:
        assert (pool["a"] == 5).all()
    with rpmem.Pool.open(fresh, node.spec()) as pool:
        assert (pool["a"] == 5).all()


def test_replicas_of_a_pool_persist_through_the_pool(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        (replica,) = pool.replicas
        with pytest.raises(UsageError, match="belongs to a pool"):
            replica.persist(8192, 64)
        assert pool.level in ("visible", "persistent")
        assert pool.lanes >= 1


# --- reading back ---


def test_read_gives_what_the_replica_holds(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        array = pool.array("a", (40, 30), [("x", "f8"), ("t", "M8[s]")])
        array["x"] = np.arange(1200).reshape(40, 30)
        pool.persist(array)
        acknowledged = array.copy()
        array["x"] = -1
        for view, model in (
            (array, acknowledged),
            (array[5], acknowledged[5]),
            (array["x"][::-3, 4::2], acknowledged["x"][::-3, 4::2]),
            (array.T["t"], acknowledged.T["t"]),
            (array["x"][2, 3, ...], acknowledged["x"][2, 3, ...]),
            (array[:0], acknowledged[:0]),
        ):
            found = pool.read(view)
            assert found.shape == model.shape
            assert found.dtype == model.dtype
            assert np.array_equal(found, model)
        entry = pool.entry("a")
        assert pool.read((entry.offset, entry.length)).tobytes() == acknowledged.tobytes()
        assert (array["x"] == -1).all()
        pool.pull(array[3])
        assert np.array_equal(array[3], acknowledged[3])
        assert (array["x"][4] == -1).all()
        pool.pull()
        assert np.array_equal(array, acknowledged)


# --- loss ---


def test_a_lost_replica_is_named_and_the_others_have_the_data(local, node, other):
    with rpmem.Pool.create(local, SIZE, [node.spec(), other.spec()], parts=1) as pool:
        array = fill(pool)
        lost, kept = pool.replicas
        kill(lost)
        started = time.monotonic()
        for attempt in range(2):
            array[:] = 2 + attempt
            with pytest.raises(ReplicaLost) as caught:
                pool.persist(array)
            assert str(node.directory) in str(caught.value)
        assert time.monotonic() - started < 10
        assert (pool.read(array, replica=kept) == 3).all()
        assert lost.failure is not None
        before = pool.epoch.number
        pool.detach(lost)
        assert pool.replicas == [kept]
        assert pool.epoch.number == before + 1
        array[:] = 4
        pool.persist(array)
    assert other.contents()[: SIZE - OWN] == local_bytes(local)
    with rpmem.Pool.open(local, [other.spec(), node.spec()]) as pool:
        assert (pool.read(pool["a"], replica=1) == 4).all()
    assert node.contents() == other.contents()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_drain_tells_of_the_loss_of_any_replica(local, node, other, lost):
    with rpmem.Pool.create(local, SIZE, [node.spec(), other.spec()], parts=1) as pool:
        array = fill(pool)
        pool.drain()
        kill(pool.replicas[lost])
        for _ in range(2):
            with pytest.raises(ReplicaLost):
                pool.persist(array)
            with pytest.raises(ReplicaLost):
                pool.drain()


def test_creating_and_deleting_arrays_while_a_replica_dies(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        array = fill(pool, "a")
        kill(pool.replicas[0])
        del array
        with pytest.raises(ReplicaLost):
            del pool["a"]
        assert pool.names() == []  # locally it is gone, as documented
        with pytest.raises(ReplicaLost):
            pool.array("b", 10)
        pool.detach(0)
        assert pool.array("b", 10).tolist() == [0] * 10
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert pool.names() == ["b"]
    assert node.contents()[: SIZE - OWN] == local_bytes(local)


def test_leaving_the_block_after_a_loss_is_quiet_and_the_replica_is_mended(local, node, caplog):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        array = fill(pool)
        kill(pool.replicas[0])
        with pytest.raises(ReplicaLost):
            pool.persist(array)
    caplog.set_level(logging.INFO)
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert "sending what it has missed" in caplog.text
        assert (pool.read(pool["a"]) == pool["a"]).all()


def test_threads_go_on_while_replicas_come_and_go(local, node, other):
    with rpmem.Pool.create(local, SIZE, [node.spec(), other.spec()], parts=1) as pool:
        array = pool.array("a", (6, 4000))
        stop = threading.Event()

        def work(number):
            turns = 0
            while not stop.is_set():
                turns += 1
                array[number] = turns
                pool.persist(array[number])
            return turns

        with ThreadPoolExecutor(6) as executor:
            done = [executor.submit(work, number) for number in range(6)]
            for _ in range(3):
                time.sleep(0.1)
                pool.detach(1)
                time.sleep(0.1)
                pool.attach(other.spec())
            stop.set()
            turns = [future.result() for future in done]
        assert min(turns) > 0
        assert pool.read(array, replica=1)[:, 0].tolist() == turns
    assert node.contents() == other.contents()
    assert other.contents()[: SIZE - OWN] == local_bytes(local)


def test_a_new_replica_for_an_old_pool(local, node, other):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool, value=8)
        with pytest.raises(PoolSetNotFound):
            pool.attach(other.spec())
        joined = pool.attach(other.spec(), create=True, parts=2)
        assert pool.replicas[1] is joined
        fill(pool, "b", 9)
    with rpmem.Pool.restore(local.with_name("again"), other.spec(), lost=node.spec()) as pool:
        assert (pool["a"] == 8).all()
        assert (pool["b"] == 9).all()


# --- epochs ---


def test_a_closed_pair_is_not_sent_again(local, node, caplog):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    caplog.set_level(logging.INFO)
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert state_now(pool) == (2, "BEGUN")
    with rpmem.Pool.open(local, node.spec()):
        pass
    assert "sending what differs" not in caplog.text
    assert node.contents()[: SIZE - OWN] == local_bytes(local)


def test_a_replica_that_was_left_out_is_sent_what_it_missed(local, node, caplog):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    with rpmem.Pool.open(local, []) as pool:
        fill(pool, "b", 7)
    caplog.set_level(logging.INFO)
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert "sending what it has missed" in caplog.text
        assert (pool.read(pool["b"]) == 7).all()


def test_an_old_local_copy_does_not_overwrite_a_newer_replica(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool, value=1)
    old = local.read_bytes()
    with rpmem.Pool.open(local, node.spec()) as pool:
        fill(pool, value=2)
    new = node.contents()
    local.write_bytes(old)
    with pytest.raises(StaleReplica, match=r"has epoch 2 .* only 1 .*discard="):
        rpmem.Pool.open(local, node.spec())
    assert node.contents() == new
    assert local.read_bytes() == old
    with rpmem.Pool.open(local, node.spec(), discard=node.spec()) as pool:
        assert pool.epoch.number == 3
        assert (pool.read(pool["a"]) == 1).all()


def test_copies_that_went_separate_ways_are_told_apart(tmp_path, local, node):
    """One writer gives a lost replica up and goes on, another one restores from it and goes on."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool, value=1)
        kill(pool.replicas[0])
        pool.detach(0)
        fill(pool, "here", 2)
    with rpmem.Pool.restore(tmp_path / "there", node.spec()) as pool:
        fill(pool, "there", 3)
    before = node.image()
    with pytest.raises(SplitBrain) as caught:
        rpmem.Pool.open(local, node.spec())
    said = str(caught.value)
    for part in (
        "separate ways after epoch 1 (",
        f"{local} gave up the other (",
        f"{node.spec()} gave up {local} (",
        "UTC) and went on to epoch 2 (",
        f"discard=['{node.spec()}']",
        "Pool.restore",
    ):
        assert part in said
    with rpmem.Pool.open(local) as pool, pytest.raises(SplitBrain):
        pool.attach(node.spec())
    assert node.image() == before
    with rpmem.Pool.open(tmp_path / "there", node.spec()) as pool:
        assert (pool["there"] == 3).all()
    with rpmem.Pool.open(local) as pool:
        pool.attach(node.spec(), discard=True)
        assert (pool.read(pool["here"]) == 2).all()
    with pytest.raises(SplitBrain):
        rpmem.Pool.open(tmp_path / "there", node.spec())
    with pytest.raises(UsageError, match="not one of the replicas"):
        rpmem.Pool.open(local, node.spec(), discard=node.spec("another.set"))


def test_one_copy_is_not_attached_twice(tmp_path, local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
        kill(pool.replicas[0])
        wait_unlocked(node.directory / "pool.set")
        with pytest.raises(ReplicaLost, match="detach"):
            pool.attach(node.spec())
        with pytest.raises(ReplicaLost):
            pool.attach(f"{node.target} another.set", create=True, parts=1)
        assert not (node.directory / "another.set.part0").exists()
        pool.detach(0)
        pool.attach(node.spec())
        fill(pool, "b", 3)
    # Nor is a file that was copied by hand another copy.
    twin = tmp_path / "twin"
    twin.write_bytes(local.read_bytes())
    (tmp_path / "twin.set").write_text(f"PMEMPOOLSET\n{SIZE} {twin}\n")
    with pytest.raises(UsageError, match="same copy"):
        rpmem.Pool.open(local, f"local:{tmp_path} twin.set")


def test_a_replica_of_another_pool_is_refused(tmp_path, local, node):
    with rpmem.Pool.create(local, SIZE, node.spec("one.set"), parts=1):
        pass
    with rpmem.Pool.create(tmp_path / "second", SIZE, node.spec("two.set"), parts=1):
        pass
    before = node.contents("two.set")
    with pytest.raises(HeaderError, match="another pool"):
        rpmem.Pool.open(local, node.spec("two.set"))
    assert node.contents("two.set") == before


def test_a_damaged_local_copy_is_not_sent(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    before = node.contents()
    write_slots(local, b"\xff" * 100)
    with pytest.raises(CatalogueCorrupt, match="Restore"):
        rpmem.Pool.open(local, node.spec())
    assert node.contents() == before
    with rpmem.Pool.restore(local.with_name("again"), node.spec()) as pool:
        assert (pool["a"] == 1).all()


# --- creation that fails ---


def test_a_failed_creation_leaves_nothing_on_any_side(tmp_path, local, node, other):
    with rpmem.Pool.create(tmp_path / "first", SIZE, other.spec(), parts=1):
        pass
    before = other.files()
    with pytest.raises(PoolSetExists):
        rpmem.Pool.create(local, SIZE, [node.spec(), other.spec()], parts=1)
    assert not local.exists()
    assert other.files() == before
    assert [name for name in node.files() if not name.endswith(".set")] == []
    with pytest.raises(PoolSetNotFound):
        rpmem.Pool.create(local, SIZE, node.spec("missing.set"))
    assert not local.exists()
    with pytest.raises(UsageError, match="twice"):
        rpmem.Pool.create(local, SIZE, [node.spec(), node.spec()], parts=1)
    with pytest.raises(UsageError):
        rpmem.Pool.create(local, SIZE, [17])


# --- restoring ---


def test_restore_by_name_into_file_and_poolset(tmp_path, local, node):
    values = np.random.default_rng(3).random((100, 100))
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=2) as pool:
        pool.array("a", values.shape)[:] = values
        pool.persist()
    original = local_bytes(local)
    local.unlink()
    with rpmem.Pool.restore(local, node.spec()) as pool:
        assert np.array_equal(pool["a"], values)
        assert pool.replicas[0].pool_set == "pool.set"
        fill(pool, "b", 3)
    with rpmem.Pool.open(local, node.spec()) as pool:
        assert pool.epoch.number == 3
        assert (pool["b"] == 3).all()
    assert len(original) == len(local_bytes(local))
    wanted = tmp_path / "restored.set"
    wanted.write_text(f"PMEMPOOLSET\n3M {tmp_path}/r0\n6M {tmp_path}/r1\n")
    with rpmem.Pool.restore(wanted, node.spec()) as pool:
        assert pool.names() == ["a", "b"]
    with rpmem.Pool.open(wanted, node.spec()) as pool:
        assert (pool["b"] == 3).all()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "local", "r0", "r1", "restored.set",
    ]  # fmt: skip


def test_restore_never_touches_what_is_there(tmp_path, local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    before = local.read_bytes()
    with pytest.raises(PoolSetExists):
        rpmem.Pool.restore(local, node.spec())
    assert local.read_bytes() == before
    for wrong, kind in ((node.spec("none.set"), PoolSetNotFound), ("local: ../x", UsageError)):
        with pytest.raises((kind, rpmem.PoolSetError)):
            rpmem.Pool.restore(tmp_path / "new", wrong)
    with pytest.raises(rpmem.PoolSetTooSmall):
        rpmem.Pool.restore(bytearray(1 << 20), node.spec())
    small = tmp_path / "small.set"
    small.write_text(f"PMEMPOOLSET\n2M {tmp_path}/r0\n")
    with pytest.raises(rpmem.PoolSetTooSmall):
        rpmem.Pool.restore(small, node.spec())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "local", "small.set",
    ]  # fmt: skip


def test_a_killed_initiator_leaves_a_replica_that_can_be_restored(tmp_path, local, node):
    script = """
        import os, signal, sys, rpmem
        pool = rpmem.Pool.create(sys.argv[1], "8MiB", sys.argv[2], parts=1)
        a = pool.array("a", 1000, "u8")
        print("ready", flush=True)
        value = 0
        while True:
            value += 1
            a[:] = value
            pool.persist(a)
            print(value, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), local, node.spec()]
    dice = random.Random(7)
    for turn in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(dice.random() * 0.2)
        child.kill()
        acknowledged = [int(line) for line in child.stdout.read().split()][-1:] or [0]
        child.wait()
        with rpmem.Pool.restore(tmp_path / f"new{turn}", node.spec()) as pool:
            assert acknowledged[0] <= pool["a"].min()
        with rpmem.Pool.open(local, readonly=True) as pool:
            assert acknowledged[0] <= pool["a"].min()
        local.unlink()
        rpmem.remove(node.target, "pool.set", pool_set=True)


# --- the end ---


def test_close_waits_for_calls_of_other_threads(local, node):
    pool = rpmem.Pool.create(local, SIZE, node.spec(), parts=1)
    offset = SIZE // 2

    def work(_):
        while True:
            try:
                pool.persist((offset, 1 << 20))
            except ClosedError:
                return

    with ThreadPoolExecutor(4) as executor:
        done = executor.map(work, range(4))
        time.sleep(0.2)
        pool.close()
        list(done)
    with rpmem.Pool.open(local, readonly=True) as pool:
        assert pool.record.mark.name == "CLEAN"
    assert node.contents()[: SIZE - OWN] == local_bytes(local)
