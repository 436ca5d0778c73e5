"""`rpmem verify`: exit status, JSON, what it refuses, and that it changes nothing unasked."""

from __future__ import annotations

import json

import numpy as np
import pytest

import rpmem
from rpmem.cli import _run
from tests.support.behind import need_digests
from tests.support.flips import flip, part_of
from tests.support.pools import PoolNode

need_digests()

SIZE = "4MiB"
PLACE = 1 << 20


@pytest.fixture
def node(tmp_path):
    return PoolNode(tmp_path / "node")


@pytest.fixture
def local(tmp_path, node):
    with rpmem.Pool.create(tmp_path / "local", SIZE, node.spec(), parts=1) as pool:
        pool.array("x", 2 << 20, "u1")[:] = np.arange(2 << 20, dtype="u1")
        pool.persist()
    return tmp_path / "local"


@pytest.fixture
def verify(local, node, capsys):
    def run(*options, replica=True):
        named = [node.target, "pool.set"] if replica else []
        status = _run(["verify", str(local), *named, *options], debug=False)
        return status, capsys.readouterr()

    return run


def test_equal(verify):
    status, said = verify()
    assert status == 0
    assert "different" in said.out
    status, said = verify("--json")
    assert status == 0
    found = json.loads(said.out)
    assert found["good"]
    assert found["differences"] == []
    assert found["pages"] == (4 << 20) // 4096 - 5


def test_different_and_left_alone(verify, local, node):
    part = part_of(node.directory / "pool.set")
    flip(part, PLACE)
    flip(local, PLACE + 8192)
    before = part.read_bytes()[PLACE:], local.read_bytes()[PLACE:]
    for _ in range(2):
        status, said = verify("--json")
        assert status == 1
        found = json.loads(said.out)
        assert [each["offset"] for each in found["differences"]] == [PLACE, PLACE + 8192]
        assert found["differences"][0]["arrays"] == ["x"]
        status, said = verify()
        assert status == 1
        assert "4096 bytes at 1048576 ('x')" in " ".join(said.out.split())
    # Nothing is sent when the pool is closed again, either.
    assert (part.read_bytes()[PLACE:], local.read_bytes()[PLACE:]) == before


@pytest.mark.parametrize("side", ["local", "replica"])
def test_repaired(verify, local, node, side):
    part = part_of(node.directory / "pool.set")
    flip(part, PLACE)
    kept = {"local": part, "replica": local}[side]
    before = kept.read_bytes()[PLACE:]
    status, said = verify("--repair", node.spec() if side == "replica" else side, "--json")
    assert status == 0
    assert json.loads(said.out)["repaired"] == 1
    assert kept.read_bytes()[PLACE:] == before
    assert verify()[0] == 0


def test_nobody_of_that_name(verify):
    status, said = verify("--repair", "node9 pool.set")
    assert status == 2
    assert "is not a copy of this pool" in said.err


def test_a_pool_that_is_open(verify, local):
    with rpmem.Pool.open(local, []):
        status, said = verify()
    assert status != 0
    assert "pool.verify()" in said.err


def test_a_copy_that_may_be_behind(verify, local, node):
    with rpmem.Pool.open(local, []) as pool:
        pool.persist(pool["x"])
    before = part_of(node.directory / "pool.set").read_bytes()
    status, said = verify()
    assert status == 7
    assert "rpmem sync" in said.err
    assert part_of(node.directory / "pool.set").read_bytes() == before


def test_copies_that_are_not_named(verify, local):
    before = local.read_bytes()
    status, said = verify(replica=False)
    assert status == 7
    assert "more copies than were named" in said.err
    assert local.read_bytes() == before


def test_deep(verify):
    status, said = verify("--deep", "--json")
    assert status == 0
    assert set(json.loads(said.out)["depths"].values()) <= {"memory", "medium"}
