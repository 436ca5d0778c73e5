"""Memory is compared with its digests by several threads."""

from __future__ import annotations

import mmap
import random
import threading

import pytest

from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from rpmem.pool.hashing import ALONE, PIECE, Hashing
from tests.support.without import is_built

if not is_built("rpmem.memory.changes.digests"):
    pytest.skip("rpmem.memory.changes.digests is not built here", allow_module_level=True)

from rpmem.memory.changes.digests import PageDigests

PAGE = mmap.PAGESIZE


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("skew", [0, 1232])
def test_threads_find_what_one_finds(threads, skew):
    size = 5 * PIECE + 777
    content = memoryview(mmap.mmap(-1, size + skew))[skew:]
    digests = PageDigests(Region.from_buffer(content))
    every = PageSet(size, skew)
    every.add(0, size)
    digests.lend(every, 0, size, bytearray(size)).copy()
    digests.confirm(every, 0, size)
    chance = random.Random(threads)
    hashing = Hashing(skew, threads)
    for _ in range(5):
        for at in (0, size - 1, *chance.choices(range(size), k=200)):
            content[at] ^= 0xFF
        for offset, length in [(0, size), (12345, size - 23456), (PAGE, ALONE), (5, 8), (0, 0)]:
            found, wanted = PageSet(size, skew), PageSet(size, skew)
            hashing.changed(digests, found, offset, length)
            digests.changed(wanted, offset, length)
            assert found.ranges() == wanted.ranges()
    hashing.close()


def test_each_piece_is_compared_once():
    seen: list[tuple[int, int]] = []

    class Digests:
        def changed(self, pages: PageSet, offset: int, length: int) -> None:
            seen.append((offset, length))

    hashing = Hashing(100, 3)
    for offset, length in [
        (0, ALONE - 1),
        (0, ALONE),
        (PIECE - 100, 2 * PIECE),
        (PIECE - 101, 2 * PIECE + 2),
        (5, 10 * PIECE),
    ]:
        seen.clear()
        hashing.changed(Digests(), PageSet(1), offset, length)
        seen.sort()
        assert seen[0][0] == offset
        assert [at + n for at, n in seen] == [*(at for at, _ in seen[1:]), offset + length]
        assert all((at + 100) % PIECE == 0 for at, _ in seen[1:])
        assert all(0 < n <= PIECE for _, n in seen) or length < ALONE
    hashing.close()


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_exception_ends_all_threads(where):
    main = threading.get_ident()
    seen: list[int] = []

    class Failing(Exception):
        pass

    class Digests:
        def changed(self, pages: PageSet, offset: int, length: int) -> None:
            seen.append(offset)
            if (threading.get_ident() == main) == (where == "here"):
                raise Failing
            threading.Event().wait(0.01)

    hashing = Hashing(0, 3)
    with pytest.raises(Failing):
        hashing.changed(Digests(), PageSet(1), 0, 1000 * PIECE)
    count = len(seen)
    if where == "here":
        assert count < 100
    threading.Event().wait(0.05)
    assert len(seen) == count
    hashing.close()


def test_threads_are_there_from_the_first_long_range_to_the_end():
    digests = PageDigests(Region.anonymous(ALONE))
    hashing = Hashing(0, 3)
    before = threading.active_count()
    hashing.changed(digests, PageSet(ALONE), 0, ALONE - 1)
    assert threading.active_count() == before
    hashing.changed(digests, PageSet(ALONE), 0, ALONE)
    assert threading.active_count() > before
    hashing.close()
    assert threading.active_count() == before
    hashing.close()
