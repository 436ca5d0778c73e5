"""Forked children of a process with an open pool: what they keep, and what the error says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import rpmem
from tests.support.media import state_of
from tests.support.pools import PoolNode
from tests.support.processes import wait_gone

SIZE = 4 << 20


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a script that says when it is ready, and lives until its stdin ends."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_close_unlocks_although_a_child_lives(tmpfs: Path):
    spec = f"local:{tmpfs} a.set"
    pool = rpmem.Pool.create(tmpfs / "p", SIZE, spec, parts=1)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        pool.close()
        rpmem.Pool.open(tmpfs / "p", spec).close()
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(pid, 0)


def test_child_of_a_killed_parent_keeps_no_lock(tmpfs: Path):
    spec = f"local:{tmpfs} a.set"
    process = start(
        """
        import os, sys, rpmem
        pool = rpmem.Pool.create(sys.argv[1], 4 << 20, sys.argv[2], parts=1)
        words = pool.array("x", 10)
        words[:] = 5
        pool.persist(words)
        if os.fork() == 0:
            print("ready", flush=True)
            sys.stdin.read()  # with views of the mapped memory
            os._exit(0)
        os.wait()
        """,
        tmpfs / "p",
        spec,
    )
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    try:
        with rpmem.Pool.open(tmpfs / "p", []) as pool:
            assert (pool["x"] == 5).all()
    finally:
        process.communicate()


def test_error_knows_its_own_process(tmpfs: Path):
    with (
        rpmem.Pool.create(tmpfs / "p", SIZE),
        pytest.raises(rpmem.PoolSetBusy, match="this process has it open already"),
    ):
        rpmem.Pool.open(tmpfs / "p")


def test_error_names_another_process(tmpfs: Path):
    process = start(
        """
        import sys, rpmem
        pool = rpmem.Pool.create(sys.argv[1], 4 << 20)
        print("ready", flush=True)
        sys.stdin.read()
        pool.close()
        """,
        tmpfs / "p",
    )
    with pytest.raises(rpmem.PoolSetBusy, match=f"in use by another process, {process.pid}"):
        rpmem.Pool.open(tmpfs / "p")
    process.communicate()
    rpmem.Pool.open(tmpfs / "p").close()


def test_error_names_a_forked_child_of_one_that_ended(tmpfs: Path):
    (tmpfs / "p").write_bytes(bytes(SIZE))
    # As a program of PMDK does it, whose children keep the open file.
    process = start(
        """
        import fcntl, os, sys
        file = os.open(sys.argv[1], os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fork():
            os._exit(0)
        print("ready", flush=True)
        sys.stdin.read()
        """,
        tmpfs / "p",
    )
    process.wait()
    wait_gone(process.pid)
    with pytest.raises(
        rpmem.PoolSetBusy, match=f"process {process.pid}, .* has ended, but a child"
    ):
        rpmem.Pool.open(tmpfs / "p")
    assert process.stdin is not None
    process.stdin.close()


def test_a_child_that_leaves_the_with_block_ends_nothing(tmpfs: Path):
    with rpmem.Pool.create(tmpfs / "p", SIZE, f"local:{tmpfs} a.set", parts=1) as pool:
        words = pool.array("x", 10)
        before = (tmpfs / "p").read_bytes()
        pid = os.fork()
        if pid == 0:
            try:
                pool.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert (tmpfs / "p").read_bytes() == before
        words[:] = 3
        pool.persist(words)


def test_copies_do_not_count_as_equal_while_a_child_may_store(tmpfs: Path):
    """What the child stores after the end is found when the pool is opened again."""
    node = PoolNode(tmpfs / "node")
    with rpmem.Pool.create(tmpfs / "p", SIZE, node.spec(), parts=1) as pool:
        words = pool.array("x", 1000)
        words[:] = 1
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            words[:] = 2
            os._exit(0)
        os.close(reading)
    try:
        assert state_of((tmpfs / "p").read_bytes())[1] == "BEGUN"
        assert node.state()[1] == "BEGUN"
    finally:
        os.close(writing)
        os.waitpid(pid, 0)
    with rpmem.Pool.open(tmpfs / "p", node.spec()) as pool:
        assert (pool["x"] == 2).all()
        assert (pool.read(pool["x"]) == 2).all()
    assert state_of((tmpfs / "p").read_bytes())[1] == "CLEAN"
    assert node.state()[1] == "CLEAN"


def test_children_that_have_ended_or_run_another_program_do_not_matter(tmpfs: Path):
    with rpmem.Pool.create(tmpfs / "p", SIZE) as pool:
        words = pool.array("x", 10)
        pid = os.fork()
        if pid == 0:
            words[:] = 3
            os._exit(0)
        os.waitpid(pid, 0)
        pid = os.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
        path = Path(f"/proc/{pid}/cmdline")
        while b"time.sleep(60)" not in path.read_bytes():
            pass
    try:
        assert state_of((tmpfs / "p").read_bytes())[1] == "CLEAN"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with rpmem.Pool.open(tmpfs / "p") as pool:
        assert (pool["x"] == 3).all()
