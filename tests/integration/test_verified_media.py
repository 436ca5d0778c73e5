"""Bits that flip on a medium, beneath the kernel's cache: verify reads past it if asked to."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import rpmem
from tests.support.behind import need_digests
from tests.support.flips import part_of, places
from tests.support.pools import PoolNode
from tests.support.verified import PAGE, pages_in

need_digests()

_DISK = 96 << 20
_PAGES = 1024


def mounts() -> str:
    """Return why no file system can be mounted from a file here; empty if it can."""
    if os.geteuid() != 0:
        return "only root mounts file systems"
    lacking = [each for each in ("mkfs.ext4", "mount", "umount") if shutil.which(each) is None]
    if lacking or not os.path.exists("/dev/loop-control"):
        return f"there is no {lacking[0] if lacking else 'loop device'} here"
    return ""


@contextmanager
def disk(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a file that is a disk, and where its file system is mounted."""
    image, mounted = folder / "disk", folder / "mounted"
    with open(image, "wb") as file:
        file.truncate(_DISK)
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", image], check=True)
    done = subprocess.run(
        ["mount", "-o", "loop", image, mounted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield image, mounted
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def place_on_disk(part: Path, offset: int) -> int:
    """Return where a byte of a file lies on its disk, as FIBMAP says."""
    import fcntl

    block = ctypes.c_int(offset // 4096)
    with open(part, "rb") as file:
        fcntl.ioctl(file, 1, block)  # FIBMAP
    assert block.value
    return block.value * 4096 + offset % 4096


def flip_on_disk(image: Path, part: Path, offset: int) -> None:
    """Flip a bit of the device below a file, which the file's cached pages do not show."""
    place = place_on_disk(part, offset)
    # The loop device writes through its file, which is the device's medium here.
    with open(image, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 4]))


@pytest.fixture
def disks(tmp_path):
    if why := mounts():
        pytest.skip(why)
    with disk(tmp_path) as (image, mounted):
        yield image, mounted


def test_bits_below_a_file_system(disks):
    image, mounted = disks
    node = PoolNode(mounted / "node")
    local = mounted / "local"
    with rpmem.Pool.create(local, "16MiB", node.spec(), parts=1) as pool:
        if pool.medium != "page":
            pytest.skip(f"the medium of a file on ext4 is {pool.medium} here")
        array = pool.array("x", _PAGES * PAGE, "u1")
        array[:] = np.random.default_rng(3).integers(0, 256, len(array), "u1")
        pool.persist()
        offset = pool.entry("x").offset
        report = pool.verify(deep=True)
        assert report.differences == ()
        assert set(report.depths.values()) == {"medium"}
        chance = random.Random(1)
        first = -(-offset // PAGE) * PAGE
        wanted = places(chance, [(first, first + (_PAGES - 1) * PAGE)], 40)
        parts = [local, part_of(node.directory / "pool.set")]
        for number, place in enumerate(wanted):
            flip_on_disk(image, parts[number % 2], place)
        # The caches show none of them.
        assert pool.verify().differences == ()
        report = pool.verify(deep=True)
        assert pages_in(report) == {place // PAGE * PAGE for place in wanted}
        names = ["local", node.spec()]
        for each in report.differences:
            (number,) = {
                wanted.index(place) % 2
                for place in wanted
                if place // PAGE * PAGE in range(each.offset, each.offset + each.length)
            }
            assert each.wrong == (names[number],)
            assert each.beneath
            assert each.certain
        # The kernel may write back neighbours of a page that is repaired, which mends them, too.
        report = pool.verify(0, deep=True)
        assert report.repaired > 0
        left = pool.verify(deep=True)
        assert {each.wrong for each in left.differences} == {("local",)}
        del array
        report = pool.verify("local", deep=True)
        assert report.repaired == report.different > 0
        assert pool.verify(deep=True).differences == ()


def test_stores_beside_a_deep_look_are_none(disks):
    _, mounted = disks
    node = PoolNode(mounted / "node")
    with rpmem.Pool.create(mounted / "local", "16MiB", node.spec(), parts=1) as pool:
        array = pool.array("x", 64 * PAGE, "u1")
        pool.verify(deep=True)
        for count in range(1, 6):
            array[: 32 * PAGE] += 1
            assert pool.verify(deep=True).differences == (), count
            pool.persist(array[:PAGE])
        del array


def test_memory_is_the_medium(tmp_path):
    """Where there is nothing beneath, the report says so."""
    folder = Path("/dev/shm") if os.path.isdir("/dev/shm") else tmp_path
    node = PoolNode(tmp_path / "node")
    path = folder / f"verified-{os.getpid()}"
    try:
        with rpmem.Pool.create(path, "4MiB", node.spec(), parts=1) as pool:
            medium = pool.medium
            report = pool.verify(deep=True)
            assert report.differences == ()
            assert report.depths["local"] == ("medium" if medium == "page" else "memory")
    finally:
        path.unlink(missing_ok=True)
