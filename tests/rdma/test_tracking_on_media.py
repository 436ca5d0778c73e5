"""Which pages of a pool were stored to, on real DAX and beside it, as this kernel tells."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

import rpmem
from rpmem.pool.tracking.tracking import try_kernel, without_kernel
from tests.rdma.support.node import MEGABYTE
from tests.rdma.support.places import PLACES


@pytest.mark.parametrize("name", PLACES)
def test_what_changed_of_a_pool_is_sent(name, tmp_path):
    with PLACES[name].parts(4 * MEGABYTE, 6 * MEGABYTE) as lines:
        (tmp_path / "local.set").write_text("\n".join(["PMEMPOOLSET", *lines, ""]))
        (tmp_path / "node").mkdir()
        replica = f"local:{tmp_path}/node node.set"
        with rpmem.Pool.create(tmp_path / "local.set", None, replica, parts=1) as pool:
            # A fault of a protected page on DAX would go on for ever.
            assert pool.tracking == (without_kernel() if "dax" in name else "kernel")
            array = pool.array("a", 5 * MEGABYTE, "u1")
            rng = np.random.default_rng(5)
            pool.persist()
            # Without digests all of a device is sent each time.
            for value in range(1, 3 if pool.tracking == "off" else 30):
                array[rng.integers(0, array.size, 20)] = value
                pool.persist()
                np.testing.assert_array_equal(pool.read(array), array)
            del array


@pytest.mark.parametrize("force", ["0", "1"])
def test_dax_is_known_whatever_its_medium_is_called(force, tmp_path, monkeypatch):
    monkeypatch.setenv("PMEM_IS_PMEM_FORCE", force)
    with (
        PLACES["fsdax"].parts(4 * MEGABYTE) as lines,
        rpmem.Pool.create(lines[0].split()[1], 4 * MEGABYTE) as pool,
    ):
        assert pool.medium == ("pmem" if force == "1" else "page")
        assert pool.tracking == without_kernel()
        with pytest.raises(rpmem.UsageError, match="DAX"):
            try_kernel(pool._region)


def test_a_buffer_on_dax_is_not_watched():
    with PLACES["fsdax"].parts() as _, open("/mnt/pmem/buffer", "w+b") as file:
        file.truncate(4 * MEGABYTE)
        with mmap.mmap(file.fileno(), 4 * MEGABYTE) as memory:
            region = rpmem.Region.from_buffer(memory)
            with pytest.raises(rpmem.UsageError, match="/mnt/pmem/buffer: it is on DAX"):
                try_kernel(region)
            region.close()
