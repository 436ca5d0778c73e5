"""Copies that are compared after arrays were deleted: their places go to others, as they are."""

from __future__ import annotations

import pytest

import rpmem
from tests.support.behind import need_digests
from tests.support.pools import PoolNode

need_digests()


@pytest.mark.parametrize("mode", ["kernel", "digest", "off"])
@pytest.mark.parametrize("seen", [False, True], ids=["never seen", "seen before"])
def test_what_a_deleted_array_left_behind_is_no_difference(tmp_path, mode, seen):
    nodes = [PoolNode(tmp_path / f"node{number}") for number in range(2)]
    specs = [node.spec() for node in nodes]
    with rpmem.Pool.create(tmp_path / "pool", "16MiB", specs, parts=1, tracking=mode) as pool:
        for turn in range(20):
            name = f"gone{turn}"
            pool.array(name, (4000 + turn * 37,), "u1")[:] = 7  # and nobody persists it
            if seen:
                assert pool.verify().different == 0
            del pool[name]
            # The catalogue grows into its place.
            pool.array(f"kept{turn}", (10,), "u1")
            pool.attrs(f"kept{turn}")["n"] = "x" * turn * 50
            report = pool.verify()
            assert report.different == 0, (turn, report)
