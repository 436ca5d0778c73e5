"""What differs between two copies, found by digests: exactly that, and few questions."""

from __future__ import annotations

import random

import pytest

from rpmem.control import messages
from rpmem.pool import differences
from rpmem.pool.differences import BLOCK, MOST_UNITS, PAGE, Differences

BEGIN = 6 * PAGE


class Copies:
    """Two copies in digests only: of each page, a number that stands for what it holds."""

    def __init__(self, length: int, differing: set[int]) -> None:
        self.length = length
        self.differing = differing
        self.asked: list[differences.Question] = []

    def answer(self, asked: differences.Question, *, theirs: bool) -> bytes:
        """Return the digests of one side; each tells the pages of its unit that differ."""
        found = bytearray()
        for offset in range(asked.offset, asked.offset + asked.length, asked.unit):
            end = min(offset + asked.unit, asked.offset + asked.length)
            pages = range((offset - BEGIN) // PAGE, -(-(end - BEGIN) // PAGE))
            unlike = theirs and any(page in self.differing for page in pages)
            # Units differ in one bit somewhere.
            digest = bytearray(offset.to_bytes(12, "little"))
            digest[offset // PAGE % 12] ^= unlike << offset // PAGE % 8
            found += digest
        return bytes(found)

    def compare(self, machine: Differences) -> list[tuple[int, int]]:
        """Answer all questions; return what is to be sent."""
        ranges = []
        while (asked := machine.question) is not None:
            self.asked.append(asked)
            ranges += machine.take(
                self.answer(asked, theirs=False), self.answer(asked, theirs=True)
            )
        return ranges

    def units(self) -> int:
        """How many digests each side was asked for."""
        return sum(-(-asked.length // asked.unit) for asked in self.asked)


def pages_of(ranges: list[tuple[int, int]], length: int) -> list[int]:
    """Return the pages that ranges cover, which have to be whole ones, in order, each once."""
    found: list[int] = []
    for offset, count in ranges:
        end = offset + count
        assert count > 0
        assert (offset - BEGIN) % PAGE == 0
        assert (end - BEGIN) % PAGE == 0 or end == BEGIN + length
        found += range((offset - BEGIN) // PAGE, -(-(end - BEGIN) // PAGE))
    assert found == sorted(set(found))
    return found


LENGTHS = [1, PAGE - 1, PAGE, PAGE + 1, BLOCK - 1, BLOCK, BLOCK + 5, 5 * BLOCK - PAGE, 16 * BLOCK]


@pytest.mark.parametrize("by_pages", [False, True])
@pytest.mark.parametrize("length", [*LENGTHS, 33 * BLOCK + 1])
def test_exactly_the_pages_that_differ_are_sent(length, by_pages):
    chance = random.Random(length)
    count = -(-length // PAGE)
    for share in (0, 1 / count, 0.01, 0.3, 0.97, 1):
        differing = {page for page in range(count) if chance.random() < share}
        copies = Copies(length, differing)
        ranges = copies.compare(Differences(BEGIN, length, by_pages=by_pages))
        assert pages_of(ranges, length) == sorted(differing)


@pytest.mark.parametrize("page", ["first", "last"])
@pytest.mark.parametrize("length", LENGTHS)
def test_one_page_at_an_end(length, page):
    number = 0 if page == "first" else -(-length // PAGE) - 1
    copies = Copies(length, {number})
    (pair,) = copies.compare(Differences(BEGIN, length))
    assert pair == (BEGIN + number * PAGE, min(PAGE, length - number * PAGE))


def test_equal_blocks_are_not_looked_into():
    copies = Copies(64 * BLOCK, {5 * 256 + 3, 40 * 256, 41 * 256 + 255})
    machine = Differences(BEGIN, 64 * BLOCK)
    copies.compare(machine)
    assert [asked.unit for asked in copies.asked] == [BLOCK, PAGE, PAGE]
    assert copies.asked[1].length == BLOCK
    assert copies.asked[2].length == 2 * BLOCK
    assert copies.units() == 64 + 3 * 256
    assert not machine.many


def test_neighbours_are_one_range():
    copies = Copies(2 * BLOCK, {*range(250, 260), 300})
    ranges = copies.compare(Differences(BEGIN, 2 * BLOCK))
    assert ranges == [(BEGIN + 250 * PAGE, 10 * PAGE), (BEGIN + 300 * PAGE, PAGE)]


@pytest.mark.parametrize("by_pages", [False, True])
@pytest.mark.parametrize(
    ("pages", "many"),
    [
        (set(), False),
        ({0, 255, 256}, False),
        ({3, 256, 600}, True),
        (set(range(1024)), True),
        (set(range(512)), False),
        (set(range(513)), True),
    ],
)
def test_whether_most_blocks_differ(pages, many, by_pages):
    copies = Copies(4 * BLOCK, pages)
    machine = Differences(BEGIN, 4 * BLOCK, by_pages=by_pages)
    copies.compare(machine)
    assert machine.many == many


def test_no_question_is_larger_than_one_answer():
    length = 2 * MOST_UNITS * PAGE + 10
    for by_pages in (False, True):
        copies = Copies(length, set(range(-(-length // PAGE))))
        copies.compare(Differences(BEGIN, length, by_pages=by_pages))
        for asked in copies.asked:
            assert -(-asked.length // asked.unit) <= MOST_UNITS
    # A length at which blocks fill more than one answer, which no piece of a pool is.
    machine = Differences(0, (MOST_UNITS + 1) * BLOCK)
    assert machine.question is not None
    assert machine.question.length == MOST_UNITS * BLOCK


def test_the_protocol_has_the_same_bounds():
    assert (PAGE, BLOCK) == (messages.PAGE_UNIT, messages.BLOCK_UNIT)
    assert MOST_UNITS == messages.MAX_UNITS
    assert 4 * differences._WORDS == messages.DIGEST_SIZE
