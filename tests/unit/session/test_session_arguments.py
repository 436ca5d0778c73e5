"""Arguments of sessions that make no sense, and wishes that a target does not grant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpmem
from rpmem.base.target import Target
from rpmem.errors import RpmemError, UsageError
from rpmem.session import start as session
from tests.support.fabrics import needs_libfabric

SIZE = 4 << 20
NONSENSE: list[Any] = [-1, 0, math.nan, math.inf, -math.inf, 1e9, "x", "10", b"1", True, [], 1j]


@pytest.mark.parametrize("timeout", NONSENSE)
def test_timeout_that_is_none(tmp_path: Path, timeout: Any):
    memory = np.zeros(SIZE, np.uint8)
    calls = (
        lambda: rpmem.create(f"local:{tmp_path}", "a.set", memory, parts=1, timeout=timeout),
        lambda: rpmem.open(f"local:{tmp_path}", "a.set", memory, timeout=timeout),
        lambda: rpmem.remove(f"local:{tmp_path}", "a.set", timeout=timeout),
        lambda: rpmem.Pool.create(tmp_path / "p", SIZE, timeout=timeout),
        lambda: rpmem.Pool.open(tmp_path / "p", timeout=timeout),
        lambda: rpmem.Pool.restore(tmp_path / "p", f"local:{tmp_path} a.set", timeout=timeout),
    )
    for call in calls:
        with pytest.raises(UsageError, match=r"timeout is .* not a number of seconds"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("timeout", [5, 2.5, np.float32(7)])
def test_timeout_that_is_one(tmp_path: Path, timeout: Any):
    with rpmem.Pool.create(tmp_path / "p", SIZE, timeout=timeout) as pool:
        pool.array("x", 1)


@pytest.mark.parametrize("nlanes", ["x", 2.5, []])
def test_lanes_that_are_no_number(tmp_path: Path, nlanes: Any):
    with pytest.raises(UsageError, match="not a possible number of lanes"):
        rpmem.open(f"local:{tmp_path}", "a.set", np.zeros(SIZE, np.uint8), nlanes=nlanes)


@needs_libfabric
def test_fewer_lanes_than_asked_for(tmpfs: Path):
    memory = np.zeros(SIZE, np.uint8)
    with (
        pytest.warns(UserWarning, match=r"256 lanes were granted, not 1024"),
        rpmem.create(
            f"local:{tmpfs}", "a.set", memory, nlanes=1024, parts=1, provider="tcp"
        ) as replica,
    ):
        assert replica.nlanes == 256


def test_the_environment_bounds_the_lanes():
    assert session._lane_count(None, 2) == 2
    assert session._lane_count(8, 4) == 4
    assert session._lane_count(3, 4) == 3


def test_a_session_that_fails_lets_go_of_the_buffer(tmp_path: Path):
    memory = bytearray(SIZE)
    for call in (rpmem.open, rpmem.create):
        with pytest.raises(rpmem.PoolSetNotFound):
            call(f"local:{tmp_path}", "none.set", memory)
        memory += b"it can be resized"
        del memory[SIZE:]


@pytest.mark.parametrize("size", [0, -1, 1.5, "0"])
def test_a_pool_of_no_bytes(size: Any):
    memory = np.zeros(SIZE, np.uint8)
    with pytest.raises(UsageError, match="not a size"):
        rpmem.Pool.create(memory, size)
    assert not memory.any()


# What is no string, no number and no attributes: never an AttributeError from the depths.
ODD: list[Any] = [5, 2.5, b"x", [], object(), memoryview(bytearray(4)), np.zeros(3)]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_arguments_of_other_types(tmp_path: Path, odd: Any):
    memory, target = bytearray(SIZE), f"local:{tmp_path}"
    calls = [
        lambda: rpmem.create(odd, "a.set", memory),
        lambda: rpmem.open(target, odd, memory),
        lambda: rpmem.remove(odd, "a.set"),
        lambda: rpmem.remove(target, odd),
        lambda: rpmem.remove(target, "a.set", launcher=odd),
        lambda: rpmem.create(target, "a.set", memory, attributes=odd),
        lambda: rpmem.ReplicaSpec(Target.parse("local:"), odd),
        *(
            lambda word=word: rpmem.create(target, "a.set", memory, parts=1, **{word: odd})
            for word in ("provider", "step", "launcher", "command")
        ),
        *(
            lambda word=word: rpmem.Pool.open(tmp_path / "p", [], **{word: odd})
            for word in ("provider", "step", "launcher", "command", "protocol", "lane_hosts")
        ),
    ]
    if not isinstance(odd, int):
        calls.append(lambda: rpmem.ReplicaSpec(Target.parse("local:"), "a.set", odd))
    for call in calls:
        with pytest.raises(RpmemError):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("odd", [*ODD, None], ids=lambda odd: type(odd).__name__)
def test_names_of_other_types(tmp_path: Path, odd: Any):
    with rpmem.Pool.create(tmp_path / "p", SIZE) as pool:
        assert odd not in pool
        for call in (pool.__getitem__, pool.__delitem__, pool.entry):
            with pytest.raises(rpmem.ArrayNotFound):
                call(odd)
        with pytest.raises(UsageError):
            pool.array("a", 3, "f8", odd)
