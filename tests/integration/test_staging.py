"""Pools that the target cannot register: served by way of messages and staging buffers.

The target here is a real one whose registration of the pool is made to fail, as it does on RDMA
devices for files on most file systems.
"""

from __future__ import annotations

import os
import random
import time

import pytest

import rpmem
from tests.support import unregistering_rpmemd
from tests.support.fabrics import needs_libfabric
from tests.support.targets import Node

pytestmark = needs_libfabric

MIB = 1 << 20
SIZE = 4 * MIB
STAGING = 256 << 10


@pytest.fixture
def node(tmp_path):
    command = unregistering_rpmemd.command(SIZE)
    return Node.local(tmp_path / "there", command=command, provider="tcp")


def there(replica, offset, length):
    into = bytearray(length)
    replica.read(into, offset)
    return into


def test_everything_works_without_reaching_the_pool(node, caplog):
    memory = bytearray(os.urandom(SIZE))
    with node.create(memory, nlanes=2) as replica:
        assert replica.staged
        assert replica.step == "send-after-write"
        deadline = time.monotonic() + 10
        while "cannot be registered" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for offset, length in ((4096, 8), (8191, 66), (70_001, 300_003), (MIB, 2 * MIB)):
            for relaxed in (False, True):
                memory[offset : offset + length] = os.urandom(length)
                replica.persist(offset, length, relaxed=relaxed)
                assert there(replica, offset, length) == memory[offset : offset + length]
                image = node.image()
                assert image[offset : offset + length] == memory[offset : offset + length]
        replica.flush(5000, 100)
        replica.flush(200_000, 100_000, relaxed=True)
        replica.drain()
        replica.deep_persist(600_000, 10)
        replica.persist(4096, SIZE - 4096, relaxed=True)
        assert there(replica, 4096, SIZE - 4096) == memory[4096:]
        assert node.image()[4096:] == memory[4096:]


@pytest.mark.parametrize("length", [1, STAGING - 1, STAGING, STAGING + 1, 3 * STAGING + 7])
def test_reading_in_pieces(node, length):
    memory = bytearray(os.urandom(SIZE))
    with node.create(memory, nlanes=1) as replica:
        replica.persist(4096, SIZE - 4096)
        for offset in (4096, 4097, SIZE - length):
            assert there(replica, offset, length) == memory[offset : offset + length]
        # The header is there to be read.
        assert there(replica, 0, 8) == b"TESTPOOL"


def test_each_lane_has_staging_of_its_own(node):
    memory = bytearray(os.urandom(SIZE))
    with node.create(memory, nlanes=3) as replica:
        replica.persist(4096, SIZE - 4096)
        lanes = (2, 0, 1)
        places = {lane: 4096 + lane * STAGING for lane in lanes}
        for lane in (*lanes, *lanes):
            into = bytearray(STAGING)
            replica.read(into, places[lane], lane=lane)
            assert into == memory[places[lane] : places[lane] + STAGING]


def test_random_calls_against_a_model(node):
    choose = random.Random(5)
    memory = bytearray(SIZE)
    with node.create(memory, nlanes=3) as replica:
        model = bytearray(SIZE)
        waiting = []
        for _ in range(300):
            length = choose.choice((1, 8, 100, 5000, 70_000))
            offset = choose.randrange(4096, SIZE - length)
            memory[offset : offset + length] = choose.randbytes(length)
            call = choose.choice((replica.persist, replica.flush))
            call(offset, length, relaxed=choose.random() < 0.5, lane=0)
            model[offset : offset + length] = memory[offset : offset + length]
            if call == replica.flush:
                waiting.append((offset, length))
            if choose.random() < 0.2:
                replica.drain(lane=0)
                waiting.clear()
                offset = choose.randrange(4096, SIZE - 100_000)
                assert there(replica, offset, 100_000) == model[offset : offset + 100_000]
        replica.drain(lane=0)
        assert there(replica, 4096, SIZE - 4096) == model[4096:]


def test_pools_with_arrays(node, tmp_path):
    numpy = pytest.importorskip("numpy")
    spec = f"{node.target} pool.set"
    part = node.directory / "pool.part"
    (node.directory / "pool.set").write_text(f"PMEMPOOLSET\n{SIZE} {part}\n")
    options = node.options
    with rpmem.Pool.create(bytearray(SIZE), None, spec, **options) as pool:
        array = pool.array("a", (1000,), "f8")
        array[:] = numpy.arange(1000)
        pool.persist(array)
        del array
    with rpmem.Pool.restore(tmp_path / "restored", spec, **options) as pool:
        assert (pool["a"] == numpy.arange(1000)).all()
