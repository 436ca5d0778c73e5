"""Which pages of a pool were stored to, on real DAX and beside it, as this kernel tells."""

from __future__ import annotations

import os

import numpy as np
import pytest

import rpmem
from rpmem.pool.tracking.tracking import without_kernel
from tests.rdma.support.node import MEGABYTE
from tests.rdma.support.places import PLACES


@pytest.mark.parametrize("name", PLACES)
def test_what_changed_of_a_pool_is_sent(name, tmp_path):
    with PLACES[name].parts(4 * MEGABYTE, 6 * MEGABYTE) as lines:
        (tmp_path / "local.set").write_text("\n".join(["PMEMPOOLSET", *lines, ""]))
        (tmp_path / "node").mkdir()
        replica = f"local:{tmp_path}/node node.set"
        with rpmem.Pool.create(tmp_path / "local.set", None, replica, parts=1) as pool:
            # What is chosen was tried on this very memory; device DAX may refuse.
            assert pool.tracking == "kernel" or name == "devdax"
            print(f"{name}: {pool.tracking}, medium {pool.medium}, kernel {os.uname().release}")
            if pool.tracking == "off":
                assert without_kernel() == "off"
            array = pool.array("a", 5 * MEGABYTE, "u1")
            rng = np.random.default_rng(5)
            pool.persist()
            for value in range(1, 30):
                array[rng.integers(0, array.size, 20)] = value
                pool.persist()
                np.testing.assert_array_equal(pool.read(array), array)
            del array
