"""A set of pages of a region: bytes go in and come out."""

from __future__ import annotations

import copy
import random
import struct

import pytest

from rpmem.errors import RangeError
from rpmem.memory.changes.pageset import PageSet

PAGE = PageSet(1).page_size
SIZES = (1, PAGE, PAGE + 1, 200 * PAGE + 100)


def pairs(content: bytes | bytearray) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("QQ", content))


class Model:
    """The same with a set of numbers."""

    def __init__(self, size: int, skew: int) -> None:
        self.size, self.skew = size, skew
        self.pages: set[int] = set()

    def bytes_of(self, page: int) -> tuple[int, int]:
        return max(0, page * PAGE - self.skew), min(self.size, (page + 1) * PAGE - self.skew)

    def every(self) -> range:
        return range((self.size + self.skew + PAGE - 1) // PAGE)

    def add(self, offset: int, length: int) -> None:
        if length:
            first, last = (offset + self.skew) // PAGE, (offset + length - 1 + self.skew) // PAGE
            self.pages |= set(range(first, last + 1))

    def discard(self, offset: int, length: int) -> None:
        for page in self.every():
            low, high = self.bytes_of(page)
            if offset <= low and high <= offset + length:
                self.pages.discard(page)

    def ranges(self, offset: int, length: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for page in sorted(self.pages):
            low, high = self.bytes_of(page)
            low, high = max(low, offset), min(high, offset + length)
            if low >= high:
                continue
            if found and sum(found[-1]) == low:
                low = found.pop()[0]
            found.append((low, high - low))
        return found


@pytest.mark.parametrize("skew", [0, 16, PAGE - 1])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_a_set(size, skew):
    rng = random.Random(size + skew)
    pages, model = PageSet(size, skew), Model(size, skew)
    for _ in range(500):
        offset = rng.randrange(size + 1)
        most = size - offset if rng.random() < 0.5 else min(size - offset, 2 * PAGE)
        length = rng.randint(0, most)
        name = rng.choice(("add", "discard", "mark"))
        getattr(pages, name)(offset, length)
        getattr(model, "add" if name == "mark" else name)(offset, length)
        assert len(pages) == len(model.pages)
        assert bool(pages) == bool(model.pages)
        low = rng.randrange(size + 1)
        high = rng.randint(low, size)
        assert pairs(pages.ranges(low, high - low)) == model.ranges(low, high - low)
    assert pairs(pages.ranges()) == model.ranges(0, size)
    for page in model.every():
        assert (model.bytes_of(page)[0] in pages) == (page in model.pages)
    pages.clear()
    assert not pages
    assert pairs(pages.ranges()) == []


def test_pages_move_from_one_set_to_another():
    one, other = PageSet(200 * PAGE), PageSet(200 * PAGE)
    one.add(0, PAGE)
    other.add(5 * PAGE, 80 * PAGE)
    one.move_from(other)
    assert not other
    assert pairs(one.ranges()) == [(0, PAGE), (5 * PAGE, 80 * PAGE)]


def test_pages_are_added_from_another_set():
    one, other = PageSet(200 * PAGE), PageSet(200 * PAGE)
    one.add(0, PAGE)
    other.add(0, 2 * PAGE)
    other.add(199 * PAGE, 1)
    one.add_all(other)
    assert pairs(one.ranges()) == [(0, 2 * PAGE), (199 * PAGE, PAGE)]
    assert pairs(other.ranges()) == [(0, 2 * PAGE), (199 * PAGE, PAGE)]


@pytest.mark.parametrize("pages", [1, 7, 8, 63, 64, 65, 200])
def test_a_set_comes_back_from_its_bytes(pages):
    rng = random.Random(pages)
    one, other = PageSet(pages * PAGE), PageSet(pages * PAGE)
    chosen = [page for page in range(pages) if rng.random() < 0.5]
    for page in chosen:
        one.add(page * PAGE, 1)
    assert len(one.content()) == -(-pages // 8)
    other.add(0, pages * PAGE)
    other.load(one.content())
    assert other.ranges() == one.ranges()
    for page in chosen:
        assert one.content()[page // 8] >> page % 8 & 1
    larger = PageSet(300 * PAGE)
    larger.add(0, 300 * PAGE)
    larger.load(one.content())
    assert larger.ranges() == one.ranges()
    with pytest.raises(RangeError):
        one.load(bytes(len(one.content()) + 1))
    one.load(bytes([255]) * len(one.content()))
    assert len(one) == pages
    assert one.content()[-1] == (1 << (pages % 8 or 8)) - 1
    one.add(0, pages * PAGE)
    one.discard(0, pages * PAGE)
    assert not one
    one.load(b"")


def test_sets_of_two_regions_have_nothing_to_do_with_each_other():
    pages = PageSet(10 * PAGE)
    for other in (PageSet(9 * PAGE), pages):
        with pytest.raises(RangeError):
            pages.move_from(other)
    for other in (PageSet(9 * PAGE), PageSet(10 * PAGE - 8, 8)):
        with pytest.raises(RangeError):
            pages.add_all(other)


@pytest.mark.parametrize(
    "what", ["add", "discard", "mark", "ranges"], ids=lambda what: f"{what} beyond the region"
)
def test_what_is_not_in_the_region_is_refused(what):
    pages = PageSet(10 * PAGE)
    pages.add(0, PAGE)
    most = (1 << 64) - 1
    for offset, length in ((0, 10 * PAGE + 1), (10 * PAGE, 1), (most, 2), (2, most)):
        with pytest.raises(RangeError):
            getattr(pages, what)(offset, length)
    for offset in (10 * PAGE, most):
        with pytest.raises(RangeError):
            assert offset in pages
    assert pairs(pages.ranges()) == [(0, PAGE)]


def test_a_set_is_not_copied():
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(PageSet(1))
    with pytest.raises(RangeError):
        PageSet(1, PAGE)
