"""Mapping and flushing on real DAX: what rpmem.memory.region says about it, and what it does."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rpmem import Region, errors
from rpmem.files import poolset
from rpmem.files.poolfiles import PoolFiles
from rpmem.memory.device import device_identity
from tests.rdma.support.node import ATTRIBUTES, HEADER, MEGABYTE
from tests.rdma.support.places import DEVICE, PLACES

SIZE = 4 * MEGABYTE


def device_size():
    name = Path(os.path.realpath(DEVICE)).name
    return int(Path(f"/sys/bus/dax/devices/{name}/size").read_text())


def flags_of(address):
    """The kernel's flags of the mapping at an address; "sf" is MAP_SYNC."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        border = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if border:
            inside = int(border[1], 16) <= address < int(border[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"nothing is mapped at {address:#x}")


@pytest.fixture
def region_on():
    opened = []

    def make(path, size=SIZE, **options):
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            if Path(path).is_file():
                os.posix_fallocate(fd, 0, size)
            region = Region.map_parts([(fd, 0, size)], **options)
        finally:
            os.close(fd)
        opened.append((region, path))
        return region

    yield make
    for region, path in opened:
        region.close()
        if Path(path).is_file():
            os.unlink(path)


def use(region):
    """Every verb on every kind of range, and what was stored can be read back."""
    with memoryview(region) as view:
        for offset, length in ((8192, 8), (8190, 70), (12288, 4096), (MEGABYTE, MEGABYTE + 3)):
            view[offset : offset + length] = os.urandom(length)
            region.flush(offset, length)
            region.drain()
            region.persist(offset, length)
            region.deep_persist(offset, length)


def test_files_on_dax_are_mapped_synchronously_and_flushed_by_cache_lines(region_on):
    region = region_on("/mnt/pmem/file")
    assert (region.medium, region.granularity) == ("pmem", 64)
    assert "sf" in flags_of(region.address)
    use(region)


def test_files_on_a_disk_are_synced_by_pages(region_on):
    region = region_on("/mnt/disk/file")
    assert (region.medium, region.granularity) == ("page", mmap.PAGESIZE)
    assert "sf" not in flags_of(region.address)
    use(region)


def test_a_device_is_flushed_by_cache_lines(region_on):
    region = region_on(DEVICE, device_size())
    assert (region.medium, region.granularity) == ("pmem", 64)
    use(region)


def test_pmem_by_declaration_and_pmem_denied(region_on, monkeypatch):
    monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "1")
    forced = region_on("/mnt/disk/forced")
    assert forced.medium == "pmem"
    use(forced)
    monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "0")
    denied = region_on("/mnt/pmem/denied")
    assert denied.medium == "page"
    use(denied)


def test_a_pool_of_mixed_parts_is_as_durable_as_its_weakest(tmp_path):
    lines = "PMEMPOOLSET\n4MiB /mnt/pmem/mixed0\n4MiB /mnt/disk/mixed1\n"
    found = poolset.parse(lines, source="mixed.set")
    pool = PoolFiles.create(found, attributes=ATTRIBUTES)
    try:
        assert pool.region.medium == "page"
        use(pool.region)
        # Across the border between the media.
        pool.region.persist(4 * MEGABYTE - 4096, 8192)
    finally:
        pool.close(remove=True)


def test_an_nvdimm_has_an_identity(region_on):
    region_on("/mnt/pmem/identity")
    for path in ("/mnt/pmem/identity", DEVICE):
        fd = os.open(path, os.O_RDWR)
        try:
            shutdowns, identity = device_identity(fd)
        finally:
            os.close(fd)
        assert shutdowns >= 0
        assert isinstance(identity, bytes)


def test_a_pool_on_a_device_has_all_of_it():
    with PLACES["devdax"].parts() as lines:
        found = poolset.parse("\n".join(["PMEMPOOLSET", *lines, ""]), source="dax.set")
        pool = PoolFiles.create(found, attributes=ATTRIBUTES)
        try:
            assert pool.size == device_size()
            with memoryview(pool.region) as view:
                view[HEADER : HEADER + 9] = b"something"
            pool.region.persist(HEADER, 9)
            with pytest.raises(errors.PoolSetBusy):
                PoolFiles.open(found)
        finally:
            pool.close()
        again = PoolFiles.open(found)
        with memoryview(again.region) as view:
            assert bytes(view[HEADER : HEADER + 9]) == b"something"
        assert again.attributes.signature == ATTRIBUTES.signature
        again.close()
        with pytest.raises(errors.PoolSetExists):
            PoolFiles.create(found, attributes=ATTRIBUTES)


def test_a_pool_on_files_on_dax():
    place = PLACES["fsdax"]
    with place.parts(4 * MEGABYTE, 6 * MEGABYTE) as lines:
        found = poolset.parse("\n".join(["PMEMPOOLSET", *lines, ""]), source="fsdax.set")
        pool = PoolFiles.create(found, attributes=ATTRIBUTES)
        assert (pool.region.medium, pool.size) == ("pmem", 10 * MEGABYTE - HEADER)
        use(pool.region)
        pool.close(remove=True)
        assert not any(Path(line.split()[1]).exists() for line in lines)


#: Run where libpmem2 is not used: what becomes of a file on DAX, and of a device.
ALONE = """
import os, sys, rpmem
folder, device, size = sys.argv[1:]
with rpmem.Pool.create(folder + "/alone.pool", "8MiB") as pool:
    pool.array("x", 1000, "f8")[:] = range(1000)
    pool.persist()
    print(pool.medium)
with open(device, "r+b", buffering=0) as file:
    for force in (False, True):
        try:
            rpmem.Region.map_parts([(file.fileno(), 0, int(size))], force_pmem=force)
        except rpmem.MissingExtension as error:
            print(error)
"""


def test_without_libpmem2_files_on_dax_are_synced_and_a_device_is_refused():
    import rpmem

    path = Path("/mnt/pmem/alone.pool")
    try:
        done = subprocess.run(
            [sys.executable, "-c", ALONE, path.parent, DEVICE, str(device_size())],
            env={**os.environ, "RPMEM_LIBRARIES": "libpmem2=none"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        medium, *refusals = done.stdout.splitlines()
        assert medium == "page"
        assert len(refusals) == 2
        assert all("apt-get install libpmem2)" in line for line in refusals)
        # With the library, the same file is persistent memory, and holds what was made durable.
        with rpmem.Pool.open(path) as pool:
            assert pool.medium == "pmem"
            assert pool["x"][:].tolist() == list(range(1000))
    finally:
        path.unlink(missing_ok=True)
