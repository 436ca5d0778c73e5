"""Reading a pool from copies that are lost, that lie and that have rotted: what is kept of it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rpmem.pool.differences import BLOCK, PAGE
from rpmem.pool.disputes import Disputes, Undecided
from rpmem.pool.restoration import DIGEST_SIZE, Restoration
from tests.support import seeds

PAGES = BLOCK // PAGE


def digest(value: object) -> bytes:
    return repr(value).encode().rjust(DIGEST_SIZE)[-DIGEST_SIZE:]


def digests(content: list[int], offset: int, length: int, unit: int) -> bytes:
    """Return digests of units of a pool in which each page is a number."""
    pages = [content[at // PAGE] for at in range(offset, offset + length, PAGE)]
    each = unit // PAGE
    return b"".join(digest(hash(tuple(pages[at : at + each]))) for at in range(0, len(pages), each))


class World:
    """Copies of a pool, of which some are lost, some rot, and some send what they do not hold."""

    def __init__(self, seed: int, *, equal: bool) -> None:
        self.chance = random.Random(seed)
        self.pages = self.chance.randrange(1, 5 * PAGES)
        truth = [self.chance.randrange(1 << 30) for _ in range(self.pages)]
        self.copies = {name: list(truth) for name in "abcd"[: self.chance.randrange(1, 5)]}
        self.truth = truth
        self.equal = equal
        self.memory: list[int | None] = [None] * self.pages
        self.liars = {name for name in self.copies if self.chance.random() < 0.2}
        self.lost: set[str] = set()
        self.rotten: dict[int, str] = {}
        names = list(self.copies)
        for _ in range(self.chance.randrange(4)):
            page, name = self.chance.randrange(self.pages), self.chance.choice(names)
            self.copies[name][page] = -self.chance.randrange(1, 3)
            self.rotten.setdefault(page, name)

    def read(self, name: str, offset: int, length: int) -> None:
        first, behind = offset // PAGE, -(-(offset + length) // PAGE)
        self.memory[first:behind] = self.copies[name][first:behind]
        if name in self.liars and self.chance.random() < 0.3:
            self.memory[self.chance.randrange(first, behind)] = -99

    def held(self, name: str, offset: int, length: int, unit: int) -> bytes:
        return digests(self.copies[name], offset, length, unit)

    def run(self) -> Restoration:
        """Read everything."""
        plan = Restoration(0, self.pages * PAGE, list(self.copies), piece=2 * BLOCK)
        while (part := plan.take()) is not None:
            if self.chance.random() < 0.03:
                self.lost.add(part.source)
                plan.drop(part.source)
                plan.give_back(part)
                continue
            self.read(part.source, part.offset, part.length)
            asked = (part.offset, part.length, BLOCK)
            said = {name: self.held(name, *asked) for name in plan.live}
            if not plan.check(part, digests(self.memory, *asked), said):
                assert part.source in self.liars
                plan.give_back(part)
                plan.drop(part.source)
                continue
            assert digests(self.memory, *asked) == said[part.source]
        return plan

    def settle(self, plan: Restoration) -> Disputes:
        """Look at what differs."""
        disputes = Disputes(plan.live, equal=self.equal)
        for offset, length in plan.disputed:
            asked = (offset, length, PAGE)
            held = {name: self.held(name, *asked) for name in plan.live}
            disputes.take(offset, length, digests(self.memory, *asked), held)
        for page in disputes.settle(lambda offset, length: True):
            source = page.holders[0]
            self.memory[page.offset // PAGE] = self.copies[source][page.offset // PAGE]
        return disputes


@pytest.mark.parametrize("seed", range(seeds.first(0), seeds.first(0) + 300))
def test_copies_that_were_closed(seed):
    """What is kept is what more than half of those that are left hold, page by page."""
    world = World(seed, equal=True)
    plan = world.run()
    if not plan.live:
        return
    assert plan.done_bytes == world.pages * PAGE
    votes = [Counter(world.copies[name][page] for name in plan.live) for page in range(world.pages)]
    winners = [vote.most_common(1)[0] for vote in votes]
    undecided = {page for page, (_, count) in enumerate(winners) if 2 * count <= len(plan.live)}
    if undecided:
        with pytest.raises(Undecided) as caught:
            world.settle(plan)
        assert {offset // PAGE for offset in caught.value.offsets} == undecided
        return
    disputes = world.settle(plan)
    assert world.memory == [value for value, _ in winners]
    assert disputes.unequal == {name for name in plan.live if world.copies[name] != world.memory}


@pytest.mark.parametrize("seed", range(seeds.first(0), seeds.first(0) + 300))
def test_copies_that_were_not_closed(seed):
    """What is kept is what one of them holds, as a whole."""
    world = World(seed, equal=False)
    plan = world.run()
    if not plan.live:
        return
    disputes = world.settle(plan)
    assert world.memory in [world.copies[name] for name in plan.live]
    assert disputes.unequal == {name for name in plan.live if world.copies[name] != world.memory}


def test_of_three_that_were_not_closed_the_one_that_stands_alone_is_not_taken():
    disputes = Disputes("abc", equal=False)
    disputes.take(0, 2 * PAGE, digest(2) * 2, {
        "a": digest(2) + digest(2), "b": digest(2) + digest(1), "c": digest(2) + digest(1),
    })  # fmt: skip
    (page,) = disputes.settle(lambda *_: True)
    assert (page.offset, page.length, page.digest, page.holders) == (
        PAGE, PAGE, digest(1), ("b", "c"),
    )  # fmt: skip
    assert disputes.unequal == {"a"}


def test_of_two_that_were_not_closed_the_better_one_is_taken():
    disputes = Disputes("ab", equal=False)
    disputes.take(BLOCK, PAGE + 5, digest(1) * 2, {"a": digest(1) * 2, "b": digest(2) * 2})
    assert disputes.settle(lambda *_: True) == []
    disputes.take(BLOCK, PAGE + 5, digest(2) * 2, {"a": digest(1) * 2, "b": digest(2) * 2})
    wanted = disputes.settle(lambda *_: True)
    assert [(page.offset, page.length) for page in wanted] == [(BLOCK, PAGE), (BLOCK + PAGE, 5)]
    assert disputes.unequal == {"b"}


def test_what_nothing_lies_in_may_differ():
    """A file that was there before the pool may hold anything where no array is."""
    for used in (True, False):
        disputes = Disputes("ab", equal=True)
        disputes.take(BLOCK, PAGE, digest(1), {"a": digest(1), "b": digest(2)})
        asked = []

        def in_use(offset, length, asked=asked, used=used):
            asked.append((offset, length))
            return used

        if used:
            with pytest.raises(Undecided) as caught:
                disputes.settle(in_use)
            assert caught.value.offsets == [BLOCK]
        else:
            assert disputes.settle(in_use) == []
            assert disputes.unequal == {"b"}
        assert asked == [(BLOCK, PAGE)]


def test_all_copies_are_read():
    plan = Restoration(0, 40 * BLOCK, "abc", piece=BLOCK)
    read = Counter()
    while (part := plan.take()) is not None:
        read[part.source] += 1
        same = digest(1)
        assert plan.check(part, same, dict.fromkeys("abc", same))
    assert read.keys() == set("abc")
    assert max(read.values()) - min(read.values()) <= 1
    assert plan.disputed == []
