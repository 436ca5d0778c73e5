"""Pools on persistent memory itself: a DAX file system and a device DAX.

They run where they are told that they may: ``RPMEM_TEST_PMEM`` is a folder on a file system mounted
with dax, ``RPMEM_TEST_DEVDAX`` a device DAX, whose content is lost.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rpmem.base.values import replace

pytest.importorskip(
    "rpmem.memory.region", reason="rpmem.memory.region is not built", exc_type=ImportError
)

from rpmem import errors
from rpmem.files.header import INCOMPAT_CKSUM_2K, INCOMPAT_SDS, PoolAttributes
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet, load_any
from rpmem.memory.device import device_identity
from rpmem.memory.region import Region

MIB = 1 << 20
ATTRIBUTES = PoolAttributes(
    signature=b"TESTPOOL", major=1, uuid=b"u" * 16, incompat=INCOMPAT_SDS | INCOMPAT_CKSUM_2K
)


@pytest.fixture
def folder():
    place = os.environ.get("RPMEM_TEST_PMEM")
    if not place:
        pytest.skip("RPMEM_TEST_PMEM names no folder on persistent memory")
    path = Path(place) / f"rpmem-test-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def device():
    path = os.environ.get("RPMEM_TEST_DEVDAX")
    if not path:
        pytest.skip("RPMEM_TEST_DEVDAX names no device DAX")
    with open(path, "r+b") as file, Region.map_parts([(file.fileno(), 0, 2 * MIB)]) as region:
        region.write(0, bytes(4096))
        region.persist(0, 4096)
    return path


def test_a_dax_file_system_is_pmem(folder):
    parts = [Part(size * MIB, f"{folder}/part{size}") for size in (8, 4, 6)]
    wanted = PoolSet(parts)
    with PoolFiles.create(wanted, attributes=ATTRIBUTES) as pool:
        assert (pool.region.medium, pool.region.granularity) in (("pmem", 64), ("pmem", 1))
        pool.region.write(8 * MIB - 4, b"abcdefgh")
        pool.region.persist(8 * MIB - 4, 8)
        pool.region.flush(0, pool.size)
        pool.region.drain()
        pool.region.deep_persist(0, pool.size)
        pool.set_attributes(replace(ATTRIBUTES, user_flags=b"9" * 16))
    with PoolFiles.open(wanted) as pool:
        assert pool.attributes.user_flags == b"9" * 16
        with memoryview(pool.region) as view:
            assert bytes(view[8 * MIB - 4 : 8 * MIB + 4]) == b"abcdefgh"


def test_identity_is_the_same_every_time(folder):
    with open(folder / "file", "wb+") as file:
        file.truncate(4096)
        first = device_identity(file.fileno())
        assert first[1]
        # What libpmem2 is handed must be empty: it appends.
        assert [device_identity(file.fileno()) for _ in range(5)] == [first] * 5


def test_a_device_dax(device):
    found = load_any(device)
    assert found.parts[0].size is None
    with PoolFiles.create(found, attributes=ATTRIBUTES) as pool:
        assert pool.region.medium == "pmem"
        pool.region.write(5000, b"data")
        pool.region.persist(5000, 4)
        pool.region.deep_persist(5000, 4)
        pool.set_attributes(replace(ATTRIBUTES, user_flags=b"8" * 16))
        with pytest.raises(errors.PoolSetBusy):
            PoolFiles.open(found)
    with pytest.raises(errors.PoolSetExists):
        PoolFiles.create(found, attributes=ATTRIBUTES)
    with PoolFiles.open(found) as pool:
        assert pool.attributes.user_flags == b"8" * 16
        with memoryview(pool.region) as view:
            assert bytes(view[5000:5004]) == b"data"
        pool.close(remove=True)
    assert os.path.exists(device)
    PoolFiles.create(PoolSet([Part(None, device)]), attributes=ATTRIBUTES).close(remove=True)


OPEN = """
import ctypes, os, sys
library = ctypes.CDLL("libpmemobj.so.1")
library.pmemobj_open.restype = ctypes.c_void_p
library.pmemobj_errormsg.restype = ctypes.c_char_p
pool = library.pmemobj_open(sys.argv[1].encode(), None)
print("opened" if pool else library.pmemobj_errormsg().decode(), flush=True)
os._exit(0)
"""


def test_the_shutdown_state_is_the_originals(folder, monkeypatch):
    """What libpmemobj writes about the device we write too, and it believes ours."""
    peers = Path(__file__).resolve().parents[3] / "scripts" / "peers"
    root = subprocess.run(
        [sys.executable, peers, "--print-dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    libraries = [str(path.parent) for path in Path(root).glob("root/usr/lib/*/libpmemobj.so.1")]
    if not libraries:
        pytest.skip("PMDK's originals are not here (make peers brings them)")
    file = folder / "obj"
    subprocess.run([f"{root}/bin/pmempool", "create", "obj", "--size", "16M", file], check=True)

    def open_with_the_original():
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(OPEN), str(file)],
            env=os.environ | {"LD_LIBRARY_PATH": libraries[0]},
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip()

    def state():
        return file.read_bytes()[4024:4088]

    def crash():
        pool = PoolFiles.open(load_any(file))
        pool.region.close()
        for part in pool.parts:
            part.close()

    assert open_with_the_original() == "opened"
    theirs = state()
    assert theirs[16] == 1
    crash()
    assert state() == theirs
    assert open_with_the_original() == "opened"
    PoolFiles.open(load_any(file)).close()
    assert state() == bytes(64)
    monkeypatch.setattr("rpmem.memory.device.device_identity", lambda _: (0, b"another"))
    crash()
    assert "ADR failure" in open_with_the_original()
