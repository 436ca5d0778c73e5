"""What memory an RDMA device can be given, and what happens with the rest."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys

import pytest

from rpmem import Region
from rpmem.errors import DeadlineExceeded, RegistrationFailed, ReplicaLost
from rpmem.fabric import providers
from tests.rdma.support.node import HEADER, INITIATOR, MEGABYTE
from tests.rdma.support.places import PLACES

SIZE = 4 * MEGABYTE


@pytest.fixture
def module():
    return providers.load("verbs")


@pytest.fixture
def domain(module):
    end = module.Fabric("verbs", INITIATOR, listen=True)
    domain = module.Domain(end)
    yield domain
    domain.close()
    end.close()


@pytest.fixture
def mapped():
    """Return a function that maps memory of a place."""
    regions = []

    def map_one(place):
        lines = stack.enter_context(place.parts(SIZE))
        path = lines[0].split()[1]
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if place.folder else 0))
        try:
            if place.folder:
                os.posix_fallocate(descriptor, 0, SIZE)
            regions.append(Region.map_parts([(descriptor, 0, SIZE)]))
        finally:
            os.close(descriptor)
        return regions[-1]

    with contextlib.ExitStack() as stack:
        yield map_one
        for region in regions:
            region.close()


@pytest.mark.parametrize("where", PLACES)
def test_what_can_be_pinned_is_registered(module, domain, mapped, where):
    place = PLACES[where]
    region = mapped(place)
    if place.pinned:
        memory = module.Memory(
            domain, region.address, SIZE, remote=True, persistent=True, keep=region
        )
        assert not memory.on_demand
        # Only memory that is persistent takes the persistent kind of FLUSH.
        assert memory.flushes == (place.medium == "pmem" and domain.device.flushes)
        memory.close()
        return
    with pytest.raises(RegistrationFailed, match="does not allow a device to keep it") as caught:
        module.Memory(domain, region.address, SIZE, remote=True, keep=region)
    if domain.device.on_demand:
        # Completions come, the bytes do not: found out by trying.
        assert "wrong place" in str(caught.value)
    else:
        assert "cannot do without pinning" in str(caught.value)


def test_the_probe_finds_nothing_wrong_with_pinned_memory(domain):
    """It is the on-demand memory that fails above, not the probe."""
    from rpmem.fabric.verbs.probe import examine

    assert examine(domain, "/dev/shm", on_demand=False) is None


REGISTERING = f"""
import resource
from rpmem import errors
from rpmem.fabric import providers
from rpmem import Region
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
module = providers.load("verbs")
domain = module.Domain(module.Fabric("verbs", "{INITIATOR}", listen=True))
region = Region.anonymous({SIZE})
try:
    module.Memory(domain, region.address, region.size, keep=region)
except errors.RegistrationFailed as error:
    print(error)
"""


def test_the_limit_of_locked_memory_is_named():
    # Without the capability to lock as much as one likes.
    drop = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    command = [*drop, sys.executable, "-c", REGISTERING]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Cannot allocate memory" in said
    assert "memlock in /etc/security/limits.conf" in said


RANGES = [(HEADER, 8), (8191, 66), (12288, 4096), (100_001, 70_003), (MEGABYTE, MEGABYTE + 5)]


@pytest.mark.parametrize("where", ["anonymous", "disk", "fsdax"])
def test_any_local_memory_can_be_replicated(target, mapped, where):
    """Memory that a device cannot be given is copied into messages, and out of them."""
    region = Region.anonymous(SIZE) if where == "anonymous" else mapped(PLACES[where])
    with PLACES["tmpfs"].parts(SIZE) as lines, target.tidying(), memoryview(region) as memory:
        name = target.pool_set("a.set", *lines)
        with target.create(name, region, nlanes=1, provider="verbs") as replica:
            # Only what was never touched before shows that the device sees the same pages.
            for relaxed in (False, True):
                for offset, length in RANGES:
                    memory[offset : offset + length] = os.urandom(length)
                    replica.persist(offset, length, relaxed=relaxed)
            there = bytearray(SIZE - HEADER)
            replica.read(there, HEADER)
            for offset, length in RANGES:
                assert (
                    there[offset - HEADER : offset - HEADER + length]
                    == (memory[offset : offset + length])
                )
            memory[HEADER:] = bytes(SIZE - HEADER)
            replica.read(memory[HEADER:], HEADER)
            assert memory[HEADER:] == there
    if where == "anonymous":
        region.close()


def test_what_lies_beyond_the_pool_is_out_of_reach(target):
    """An initiator that breaks the rules loses its lane, and nothing has changed."""
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        target.create(name, memory, nlanes=1, provider="verbs").close()
        before = place.content(lines, 2 * SIZE)
        memory[:] = os.urandom(SIZE)
        for wrong in ("address", "key"):
            replica = target.open(name, memory, nlanes=1, provider="verbs")
            (grant,) = replica._lanes._ready.lanes
            (lane,) = replica._lanes.lanes
            if wrong == "address":
                lane.aim(grant.address + replica.pool_size, grant.key, SIZE)
            else:
                lane.aim(grant.address, grant.key ^ 1, SIZE)
            with pytest.raises((ReplicaLost, DeadlineExceeded)):
                replica.persist(HEADER, 100_000, relaxed=True)
            replica.close()
            assert place.content(lines, 2 * SIZE) == before
        with target.open(name, memory, nlanes=1, provider="verbs") as replica:
            replica.persist(HEADER, 100_000, relaxed=True)


def test_memory_that_is_only_read_from_may_be_a_file(module, domain, tmp_path):
    with open("/mnt/disk/source", "wb+") as file:
        file.truncate(SIZE)
        with mmap.mmap(file.fileno(), SIZE) as view, Region.from_buffer(view) as region:
            memory = module.Memory(domain, region.address, SIZE, source=True, keep=region)
            memory.close()
    os.unlink("/mnt/disk/source")
