"""Digests of pages: which pages are not what all copies have."""

from __future__ import annotations

import copy
import mmap
import os
import random
import threading

import pytest

from rpmem.errors import BufferRefused, ClosedError, RangeError
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from tests.support.without import is_built

if not is_built("rpmem.memory.changes.digests"):
    pytest.skip("rpmem.memory.changes.digests is not built here", allow_module_level=True)

from rpmem.memory.changes.digests import PageDigests

PAGE = mmap.PAGESIZE
PAGES = 200
SIZE = PAGES * PAGE


class Memory:
    """A region with digests; `skew` bytes into a page, and with `over` bytes behind the last."""

    def __init__(self, size: int = SIZE, skew: int = 0) -> None:
        self.mapped = mmap.mmap(-1, size + skew + PAGE)
        self.bytes = memoryview(self.mapped)[skew : skew + size]
        self.region = Region.from_buffer(self.bytes)
        self.size = size
        self.skew = skew
        self.digests = PageDigests(self.region)

    def none(self) -> PageSet:
        return PageSet(self.size, self.skew)

    def all(self) -> PageSet:
        pages = self.none()
        pages.add(0, self.size)
        return pages

    def learn(self) -> None:
        """Let all pages be known as they are."""
        self.digests.lend(self.all(), 0, self.size, bytearray(self.size)).copy()
        self.digests.confirm(self.all(), 0, self.size)

    def changed(self, offset: int = 0, length: int | None = None) -> list[int]:
        """Return the numbers of the pages that have changed."""
        pages = self.none()
        self.digests.changed(pages, offset, self.size if length is None else length)
        return self.numbers(pages)

    def numbers(self, pages: PageSet) -> list[int]:
        pairs = memoryview(pages.ranges()).cast("Q").tolist()
        return [
            number
            for offset, length in zip(pairs[::2], pairs[1::2], strict=True)
            for number in range(
                (offset + self.skew) // PAGE, (offset + self.skew + length - 1) // PAGE + 1
            )
        ]


@pytest.fixture(params=[(SIZE, 0), (SIZE - 1000, 0), (SIZE - 1000, 1234), (70, 4000), (1, 0)])
def memory(request: pytest.FixtureRequest) -> Memory:
    size, skew = request.param
    return Memory(size, skew)


def test_at_first_every_page_may_have_changed(memory):
    count = -(-(memory.size + memory.skew) // PAGE)
    assert memory.changed() == list(range(count))
    assert len(memory.digests) == 0


def test_what_was_confirmed_has_not_changed(memory):
    memory.learn()
    assert memory.changed() == []
    assert len(memory.digests) == -(-(memory.size + memory.skew) // PAGE)


def test_every_byte_counts(memory):
    memory.learn()
    places = {0, memory.size - 1, memory.size // 2}
    places |= {at - memory.skew + by for at in range(PAGE, 4 * PAGE, PAGE) for by in (-1, 0)}
    for at in places:
        if at < memory.size:
            memory.bytes[at] ^= 1
            assert memory.changed() == [(at + memory.skew) // PAGE]
            memory.bytes[at] ^= 1
            assert memory.changed() == []


def test_only_pages_that_the_range_touches_are_looked_at():
    memory = Memory()
    assert memory.changed(0, 0) == memory.changed(SIZE, 0) == []
    assert memory.changed(PAGE, 1) == [1]
    assert memory.changed(PAGE - 1, 2) == [0, 1]
    assert memory.changed(63 * PAGE, 2 * PAGE) == [63, 64]
    assert memory.changed(SIZE - 1, 1) == [PAGES - 1]


def test_a_page_that_is_touched_at_its_end_is_looked_at_as_a_whole():
    memory = Memory()
    memory.learn()
    memory.bytes[5 * PAGE] = 1
    assert memory.changed(6 * PAGE - 1, 1) == [5]


def test_what_is_in_the_set_stays_there():
    memory = Memory()
    memory.learn()
    memory.bytes[7 * PAGE] = 1
    pages = memory.none()
    pages.add(64 * PAGE, 1)
    memory.digests.changed(pages, 0, SIZE)
    assert memory.numbers(pages) == [7, 64]


# --- copies ------------------------------------------------------------------------------------


def test_only_pages_of_the_set_and_the_window_are_copied(memory):
    memory.bytes[:] = os.urandom(memory.size)
    pages = memory.none()
    for at in range(0, memory.size, 3 * PAGE):
        pages.add(at, 1)
    low = PAGE - memory.skew if memory.size > PAGE else 0
    length = min(90 * PAGE, memory.size - low)
    staging = bytearray(length)
    memory.digests.lend(pages, low, length, staging).copy()
    wanted = set(memory.numbers(pages))
    for at in range(length):
        number = (low + at + memory.skew) // PAGE
        assert staging[at] == (memory.bytes[low + at] if number in wanted else 0)
    memory.digests.confirm(memory.all(), low, length)
    known = {number for number in wanted if low <= number * PAGE - memory.skew < low + length}
    if low == 0:
        known = {0}
    assert len(memory.digests) == len(known)
    assert set(memory.changed()).isdisjoint(known)


def test_the_digest_is_that_of_the_copy():
    memory = Memory()
    staging = bytearray(SIZE)
    memory.digests.lend(memory.all(), 0, SIZE, staging).copy()
    memory.bytes[3 * PAGE + 5] = 9  # before the acknowledgement, and not in the copy
    memory.digests.confirm(memory.all(), 0, SIZE)
    assert memory.changed() == [3]


def test_the_digest_is_that_of_the_copy_even_if_the_memory_changed_while_it_was_made():
    """The place of the copy is in the page itself, so that copying changes what is copied."""
    memory = Memory()
    memory.bytes[:] = os.urandom(SIZE)
    page = memory.none()
    page.add(0, PAGE)
    place = memory.bytes[64 : 64 + PAGE]
    memory.digests.lend(page, 0, PAGE, place).copy()
    memory.digests.confirm(page, 0, PAGE)
    sent = bytes(place)
    assert memory.changed(0, PAGE) == [0]
    memory.bytes[:PAGE] = sent
    assert memory.changed(0, PAGE) == []


def test_the_digest_is_that_of_the_copy_while_others_store():
    """A thread stores all the time; at last the copies have what the memory has."""
    memory = Memory(64 * PAGE)
    stop = threading.Event()

    def store() -> None:
        chance = random.Random(1)
        while not stop.is_set():
            at = chance.randrange(memory.size - 64)
            memory.bytes[at : at + 64] = chance.randbytes(64)

    thread = threading.Thread(target=store)
    thread.start()
    replica, staging = bytearray(memory.size), bytearray(memory.size)

    def send() -> None:
        pages = memory.none()
        memory.digests.changed(pages, 0, memory.size)
        memory.digests.lend(pages, 0, memory.size, staging).copy()
        pairs = memoryview(pages.ranges()).cast("Q").tolist()
        for offset, length in zip(pairs[::2], pairs[1::2], strict=True):
            replica[offset : offset + length] = staging[offset : offset + length]
        memory.digests.confirm(pages, 0, memory.size)

    for _ in range(300):
        send()
    stop.set()
    thread.join()
    send()
    assert replica == memory.bytes


def test_what_was_copied_and_not_confirmed_is_unknown():
    memory = Memory()
    memory.learn()
    pages = memory.none()
    pages.add(4 * PAGE, 2 * PAGE)
    memory.digests.lend(pages, 0, SIZE, bytearray(SIZE)).copy()
    assert memory.changed() == [4, 5]
    assert len(memory.digests) == PAGES - 2


def test_only_what_was_copied_can_be_confirmed():
    memory = Memory()
    memory.digests.confirm(memory.all(), 0, SIZE)
    assert memory.changed() == list(range(PAGES))
    one, other = memory.none(), memory.none()
    one.add(0, 1)
    other.add(PAGE, 1)
    # Another copy of the window takes the place of one that was not acknowledged.
    memory.digests.lend(one, 0, SIZE, bytearray(SIZE)).copy()
    memory.digests.lend(other, 0, SIZE, bytearray(SIZE)).copy()
    memory.digests.confirm(memory.all(), 0, SIZE)
    assert len(memory.digests) == 1
    assert 1 not in memory.changed()
    # Nor does what was lent and never copied.
    memory.digests.lend(one, 0, SIZE, bytearray(SIZE)).copy()
    memory.digests.lend(one, 0, SIZE, bytearray(SIZE))
    memory.digests.confirm(one, 0, SIZE)
    assert len(memory.digests) == 1
    # Once.
    memory.digests.forget(PAGE, 1)
    memory.digests.confirm(memory.all(), 0, SIZE)
    assert len(memory.digests) == 0


def test_only_the_window_is_confirmed():
    memory = Memory()
    memory.digests.lend(memory.all(), 0, SIZE, bytearray(SIZE)).copy()
    memory.digests.confirm(memory.all(), 64 * PAGE, 2 * PAGE)
    assert len(memory.digests) == 2
    some = memory.none()
    some.add(0, PAGE)
    memory.digests.confirm(some, 0, SIZE)
    assert set(range(PAGES)) - set(memory.changed()) == {0, 64, 65}


def test_what_is_forgotten_is_unknown_although_it_is_the_same(memory):
    memory.learn()
    memory.digests.forget(memory.size - 1, 1)
    last = (memory.size + memory.skew - 1) // PAGE
    assert memory.changed() == [last]
    memory.digests.forget(0, 0)
    assert memory.changed() == [last]


def test_what_is_forgotten_between_copy_and_confirmation_stays_forgotten():
    memory = Memory()
    memory.digests.lend(memory.all(), 0, SIZE, bytearray(SIZE)).copy()
    memory.digests.forget(PAGE - 1, 2)
    memory.digests.confirm(memory.all(), 0, SIZE)
    assert memory.changed() == [0, 1]


# --- arguments ---------------------------------------------------------------------------------


def test_ranges_lie_in_the_region(memory):
    most = (1 << 64) - 1
    digests, pages = memory.digests, memory.none()
    for offset, length in [(0, memory.size + 1), (memory.size, 1), (most, 1), (1, most)]:
        for call in (digests.changed, digests.confirm):
            with pytest.raises(RangeError):
                call(pages, offset, length)
        with pytest.raises(RangeError):
            digests.lend(pages, offset, length, bytearray(8)).copy()
        with pytest.raises(RangeError):
            digests.forget(offset, length)


def test_a_window_begins_and_ends_with_pages(memory):
    buffer = bytearray(memory.size)
    pages = memory.none()
    memory.digests.lend(pages, 0, memory.size, buffer).copy()
    if memory.size < 2 * PAGE:
        return
    first = PAGE - memory.skew
    memory.digests.lend(pages, 0, first, buffer).copy()
    memory.digests.lend(pages, first, memory.size - first, buffer).copy()
    for offset, length in [(first - 1, 1), (first, 1), (0, first + 1), (1, memory.size - 1)]:
        with pytest.raises(RangeError, match="begin and end with pages"):
            memory.digests.lend(pages, offset, length, buffer).copy()


def test_the_buffer_is_writable_and_long_enough():
    memory = Memory()
    with pytest.raises(RangeError, match="less than"):
        memory.digests.lend(memory.all(), 0, SIZE, bytearray(SIZE - 1)).copy()
    for odd in (bytes(SIZE), None, "text"):
        with pytest.raises(BufferRefused):
            memory.digests.lend(memory.all(), 0, SIZE, odd).copy()
    assert len(memory.digests) == 0


def test_the_set_is_of_the_same_pages(memory):
    for odd in (PageSet(memory.size + PAGE, memory.skew), PageSet(memory.size, memory.skew ^ 8)):
        with pytest.raises(RangeError, match="not one of the pages"):
            memory.digests.changed(odd, 0, 1)
        with pytest.raises(RangeError, match="not one of the pages"):
            memory.digests.confirm(odd, 0, 1)
        with pytest.raises(RangeError, match="not one of the pages"):
            memory.digests.lend(odd, 0, 0, bytearray(1)).copy()
    with pytest.raises(TypeError):
        memory.digests.changed(None, 0, 1)


def test_it_may_be_of_the_first_bytes_only():
    region = Region.anonymous(SIZE)
    digests = PageDigests(region, 10 * PAGE)
    pages = PageSet(10 * PAGE)
    digests.changed(pages, 0, 10 * PAGE)
    assert len(pages) == 10
    with pytest.raises(RangeError):
        digests.changed(pages, 0, 10 * PAGE + 1)
    with pytest.raises(RangeError):
        PageDigests(region, SIZE + 1)


def test_of_a_region_that_is_closed_nothing_is_read():
    region = Region.anonymous(SIZE)
    digests = PageDigests(region)
    region.close()
    for call in (digests.changed, digests.confirm):
        with pytest.raises(ClosedError):
            call(PageSet(SIZE), 0, PAGE)
    with pytest.raises(ClosedError):
        digests.lend(PageSet(SIZE), 0, SIZE, bytearray(SIZE)).copy()
    with pytest.raises(ClosedError):
        digests.forget(0, 1)


def test_it_cannot_be_copied():
    with pytest.raises(TypeError):
        copy.copy(Memory().digests)
