"""Pools and replicas that are let go of without being closed, as in a notebook."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import rpmem
from tests.support.processes import stop, wait_gone
from tests.support.threads import in_use

SIZE = 4 << 20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def collect(holder: list[object]) -> None:
    """Let go of what the list has, which must be the last references."""
    holder.clear()
    gc.collect()


def make(directory: Path) -> str:
    spec = f"local:{directory} a.set"
    with rpmem.Pool.create(directory / "p", SIZE, [spec], parts=1) as pool:
        pool.array("x", 10)
    return spec


def test_dropped_pool_lets_go_of_everything(tmpfs: Path):
    spec = make(tmpfs)
    before, threads = descriptors(), in_use()
    pool = rpmem.Pool.open(tmpfs / "p", [spec])
    peer = pool.replicas[0].peer
    assert peer is not None
    pool["x"][:] = 7
    pool.persist(pool["x"])
    holder: list[object] = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="never closed"):
        collect(holder)
    wait_gone(peer.pid)
    assert descriptors() <= before
    assert in_use() <= threads
    # Not marked as complete, and nothing that was acknowledged is lost.
    with rpmem.Pool.open(tmpfs / "p", readonly=True) as look:
        assert look.record.mark.name == "BEGUN"
    with rpmem.Pool.open(tmpfs / "p", [spec]) as again:
        assert (again["x"] == 7).all()


def test_dropped_in_a_cycle(tmpfs: Path):
    spec = make(tmpfs)
    pool = rpmem.Pool.open(tmpfs / "p", [spec])
    ring: list[object] = [pool]
    ring.append(ring)
    holder: list[object] = [ring]
    del pool, ring
    with pytest.warns(ResourceWarning, match="never closed"):
        collect(holder)
    rpmem.Pool.open(tmpfs / "p", [spec]).close()


def test_views_keep_the_memory_and_not_the_lock(tmpfs: Path):
    spec = make(tmpfs)
    pool = rpmem.Pool.open(tmpfs / "p", [spec])
    view = pool["x"]
    view[:] = 3
    holder: list[object] = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="never closed"):
        collect(holder)
    with rpmem.Pool.open(tmpfs / "p", [spec]) as again:
        assert (view == 3).all()
        assert (again["x"] == 3).all()


def test_dropped_although_the_target_hangs(tmpfs: Path):
    spec = make(tmpfs)
    pool = rpmem.Pool.open(tmpfs / "p", [spec])
    peer = pool.replicas[0].peer
    assert peer is not None
    stop(peer.pid)
    holder: list[object] = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="never closed"):
        collect(holder)
    wait_gone(peer.pid)
    rpmem.Pool.open(tmpfs / "p", [spec]).close()


def test_dropped_replica(tmpfs: Path):
    memory = np.zeros(SIZE, np.uint8)
    replica = rpmem.create(f"local:{tmpfs}", "b.set", memory, parts=1)
    gone = weakref.ref(replica)
    peer = replica.peer
    assert peer is not None
    holder: list[object] = [replica]
    del replica
    with pytest.warns(ResourceWarning, match="never closed"):
        collect(holder)
    assert gone() is None
    wait_gone(peer.pid)
    rpmem.open(f"local:{tmpfs}", "b.set", memory).close()


def test_end_of_the_interpreter(tmpfs: Path):
    spec = make(tmpfs)
    script = (
        "import rpmem, sys\n"
        "pool = rpmem.Pool.open(sys.argv[1], [sys.argv[2]])\n"
        "pool['x'][:] = 5\n"
        "pool.persist(pool['x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmpfs / "p"), spec],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_forked_child_lets_go_of_nothing(tmpfs: Path):
    spec = make(tmpfs)
    with rpmem.Pool.open(tmpfs / "p", [spec]) as pool:
        holder = [pool]
        pid = os.fork()
        if pid == 0:
            holder.clear()
            del pool
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(rpmem.PoolSetBusy):
            rpmem.Pool.open(tmpfs / "p")
        pool["x"][:] = 9
        pool.persist(pool["x"])
