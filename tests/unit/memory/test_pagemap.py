"""Pages that were stored to, as the kernel sees it."""

from __future__ import annotations

import copy
import ctypes
import mmap
import os
import struct

import numpy as np
import pytest

from rpmem.errors import ClosedError, RangeError, UsageError
from rpmem.memory.changes.pagemap import WrittenPages, try_on
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from tests.support.kernel import tells_no_stores

PAGE = mmap.PAGESIZE
BLOCK = 512
PAGES = 10 * BLOCK + 3


WHY_NOT = tells_no_stores()
needs_kernel = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


class Memory:
    """A region with a watch over it."""

    def __init__(self, region: Region, **keywords: bool) -> None:
        self.region = region
        self.bytes = np.frombuffer(region, np.uint8)
        self.pages = PageSet(region.size, region.address % PAGE)
        self.watch = WrittenPages(region, **keywords)

    def take(self, offset: int = 0, length: int | None = None) -> list[tuple[int, int]]:
        self.pages.clear()
        self.watch.take(self.pages, offset, self.region.size if length is None else length)
        return list(struct.iter_unpack("QQ", self.pages.ranges()))

    def close(self) -> None:
        del self.bytes
        self.watch.close()
        self.region.close()


@pytest.fixture(params=["/dev/shm", None, "anonymous"], ids=["tmpfs", "disk", "anonymous"])
def region(request, tmp_path):
    size = PAGES * PAGE
    if request.param == "anonymous":
        yield Region.anonymous(size)
        return
    path = os.path.join(request.param or tmp_path, f"rpmem-pagemap-{os.getpid()}")
    files = [os.open(path + str(part), os.O_RDWR | os.O_CREAT, 0o600) for part in range(2)]
    try:
        lengths = [2 * BLOCK * PAGE, size - 2 * BLOCK * PAGE]
        for file, length in zip(files, lengths, strict=True):
            os.ftruncate(file, length)
        yield Region.map_parts([(files[0], 0, lengths[0]), (files[1], 0, lengths[1])])
    finally:
        for part, file in enumerate(files):
            os.close(file)
            os.unlink(path + str(part))


@pytest.fixture(params=[{}, {"holes": True}, {"huge": True}], ids=["", "holes", "huge"])
def memory(request, region):
    made = Memory(region, **request.param)
    yield made
    made.close()


@needs_kernel
def test_each_store_is_found_once(memory):
    assert memory.take() == [(0, memory.region.size)]
    assert memory.take() == []
    memory.bytes[5 * PAGE] = 1
    memory.bytes[1000 * PAGE - 1 : 1003 * PAGE] = 2
    assert memory.take(0, 6 * PAGE) == [(5 * PAGE, PAGE)]
    assert memory.take() == [(999 * PAGE, 4 * PAGE)]
    assert memory.take() == []
    memory.bytes[-1] += 1
    assert memory.take() == [((PAGES - 1) * PAGE, PAGE)]


@needs_kernel
def test_a_store_is_not_forgotten_when_the_page_is_unmapped(memory):
    memory.take()
    address = memory.region.address
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    memory.bytes[7 * PAGE] += 1
    memory.bytes[BLOCK * PAGE : (BLOCK + 2) * PAGE] += 1
    memory.region.persist(0, memory.region.size)
    assert libc.madvise(address, memory.region.size, 21) == 0  # MADV_PAGEOUT
    if memory.region.label != "anonymous memory":
        assert libc.madvise(address, memory.region.size, mmap.MADV_DONTNEED) == 0
    assert memory.take() == [(7 * PAGE, PAGE), (BLOCK * PAGE, 2 * PAGE)]
    assert memory.bytes[9 * PAGE] == 0
    assert memory.take() == []


@needs_kernel
def test_stores_of_system_calls_are_found(memory, tmp_path):
    memory.take()
    (tmp_path / "file").write_bytes(bytes(3 * PAGE))
    with open(tmp_path / "file", "rb", buffering=0) as file:
        assert file.readinto(memory.bytes[9 * PAGE : 11 * PAGE].data) == 2 * PAGE
        assert os.preadv(file.fileno(), [memory.bytes[20 * PAGE : 20 * PAGE + 1].data], 0) == 1
    assert memory.take() == [(9 * PAGE, 2 * PAGE), (20 * PAGE, PAGE)]


@needs_kernel
def test_blocks_that_are_rewritten_as_a_whole_are_left_alone(memory):
    memory.take()
    low, high = 2 * BLOCK * PAGE, 4 * BLOCK * PAGE
    for value in range(1, 6):
        memory.bytes[low:high] = value
        assert memory.take() == [(low, high - low)]
    assert memory.watch.hot == 2
    # A page that is left out now and then makes no difference, and other pages are still watched.
    memory.bytes[low:high] = 7
    memory.bytes[PAGE] = 1
    assert memory.take() == [(PAGE, PAGE), (low, high - low)]
    # Part of such a block is looked at page by page, and is not taken for untouched after that.
    assert memory.take(low + PAGE, PAGE) == [(low + PAGE, PAGE)]
    assert memory.take(low, PAGE) == [(low, PAGE)]
    memory.bytes[low:high] = 8
    assert memory.take() == [(low, high - low)]
    # Once it is over, all is sent that was not watched, and then what is stored to.
    memory.bytes[low + 3 * PAGE] = 9
    found = memory.take()
    assert (low + 3 * PAGE, PAGE) in found or any(
        offset <= low + 3 * PAGE < offset + length for offset, length in found
    )
    assert memory.watch.hot == 0
    assert memory.take() == []
    memory.bytes[low + 5 * PAGE] = 9
    assert memory.take() == [(low + 5 * PAGE, PAGE)]


@needs_kernel
def test_nothing_is_missed_in_blocks_of_all_kinds(memory):
    rng = np.random.default_rng(3)
    memory.take()
    for _ in range(40):
        stored = np.zeros(PAGES, bool)
        for block in range(10):
            share = rng.choice([0, 0.01, 0.5, 0.9, 1, 1])
            stored[block * BLOCK : (block + 1) * BLOCK] = rng.random(BLOCK) < share
        memory.bytes[np.flatnonzero(stored) * PAGE + 5] += 1
        low, high = sorted(rng.integers(0, PAGES + 1, 2)) if rng.random() < 0.3 else (0, PAGES)
        found = np.zeros(PAGES, bool)
        for offset, length in memory.take(int(low) * PAGE, int(high - low) * PAGE):
            found[offset // PAGE : (offset + length) // PAGE] = True
        for offset, length in memory.take():
            found[offset // PAGE : (offset + length) // PAGE] = True
        assert not (stored & ~found).any()


@needs_kernel
@pytest.mark.parametrize("last", ["nothing", "one page", "one page elsewhere"])
def test_one_block_is_watched_for_many(region, last):
    memory = Memory(region, huge=True)
    memory.take()
    size = 8 * BLOCK * PAGE
    shared = region.label != "anonymous memory"
    for value in range(1, 40):  # so that the one is another one now and then
        memory.bytes[:size] = value
        assert memory.take() == [(0, size)]
        # Two groups of four, or one of eight.
        assert memory.watch.released == ((6 if shared else 7) * BLOCK if value > 1 else 0)
    memory.bytes[:size] = 77
    assert memory.take(PAGE, 5 * BLOCK * PAGE) == [(PAGE, 5 * BLOCK * PAGE)]
    memory.bytes[:size] = 78
    assert memory.take() == [(0, size)]
    if last != "nothing":
        memory.bytes[{"one page": 3 * BLOCK * PAGE, "one page elsewhere": -1}[last]] = 1
    found = memory.take()
    assert found[0] == (0, size)
    assert memory.watch.released == memory.watch.hot == 0
    assert memory.take() == []
    memory.bytes[5 * BLOCK * PAGE + 1] = 1
    assert memory.take() == [(5 * BLOCK * PAGE, PAGE)]
    assert memory.bytes[PAGE - 1] == 78
    memory.close()


@needs_kernel
def test_pages_that_others_share_always_count():
    source = np.zeros(10 * PAGE + 100, np.uint8)
    begin = -source.ctypes.data % PAGE + 8
    memory = Memory(Region.from_buffer(source[begin : begin + 8 * PAGE]))
    memory.take()
    assert memory.take() == [(0, PAGE - 8), (8 * PAGE - 8, 8)]
    memory.bytes[2 * PAGE] = 1
    assert memory.take() == [(0, PAGE - 8), (2 * PAGE - 8, PAGE), (8 * PAGE - 8, 8)]
    memory.close()


@needs_kernel
def test_a_watch_ends():
    memory = Memory(Region.anonymous(8 * PAGE))
    memory.take()
    memory.watch.close()
    memory.watch.close()
    with pytest.raises(ClosedError):
        memory.take()
    memory.bytes[0] = 1
    again = WrittenPages(memory.region)
    with pytest.raises(RangeError):
        again.take(memory.pages, 0, 8 * PAGE + 1)
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(again)
    again.close()
    memory.close()


@needs_kernel
def test_a_kernel_that_fails_leaves_everything_changed():
    memory = Memory(Region.anonymous(8 * PAGE))
    memory.take()
    # Somebody ends the protection: the next look is refused.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
    )
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
    address = memory.region.address
    assert libc.mmap(address, 8 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == address
    memory.pages.clear()
    with pytest.raises(OSError, match="PAGEMAP_SCAN"):
        memory.watch.take(memory.pages, PAGE, 2 * PAGE)
    assert list(struct.iter_unpack("QQ", memory.pages.ranges())) == [(PAGE, 2 * PAGE)]
    memory.close()


@needs_kernel
def test_it_is_tried_before(region):
    try_on(region)
    watch = WrittenPages(region)
    with pytest.raises(UsageError, match="busy"):  # as where a program has a watch of its own
        try_on(region)
    watch.close()
    try_on(region)
    region.close()


@needs_kernel
@pytest.mark.parametrize("kind", ["device", "removed file"])
def test_a_buffer_of_an_unknown_file_is_refused(kind, tmp_path):
    """It may be on DAX, where a fault of a protected page goes on for ever."""
    path = "/dev/zero" if kind == "device" else str(tmp_path / "file")
    with open(path, "r+b" if kind == "device" else "w+b") as file:
        if kind != "device":
            file.truncate(4 * PAGE)
        with mmap.mmap(file.fileno(), 4 * PAGE, flags=mmap.MAP_PRIVATE) as memory:
            if kind != "device":
                os.unlink(path)
            region = Region.from_buffer(memory)
            with pytest.raises(UsageError, match="on DAX, or cannot be examined"):
                try_on(region)
            region.close()


@needs_kernel
def test_memory_that_is_only_read_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(bytes(PAGE))
    with (
        open(tmp_path / "file", "rb") as file,
        Region.map_parts([(file.fileno(), 0, PAGE)], writable=False) as region,
        pytest.raises(UsageError, match="only read"),
    ):
        try_on(region)
