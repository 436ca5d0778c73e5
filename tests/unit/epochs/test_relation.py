"""How copies stand to each other, against what they really hold, over all short histories."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from rpmem.epochs import change, opening
from rpmem.epochs.record import CopyRecord, Epoch, Mark, Stamp
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import SplitBrain, StaleReplica

COPIES = (0, 1, 2)
LONGEST = 4


def uuid(copy: int) -> bytes:
    return bytes([copy]) * 16


class World:
    """Three copies, what each records, and the chain of writes that each really holds."""

    def __init__(self) -> None:
        first = opening.first_epoch([uuid(copy) for copy in COPIES], identity=identity(0))
        self.records = {
            copy: change.marked(change.first(uuid(copy), first), Mark.CLEAN) for copy in COPIES
        }
        self.writes: dict[int, tuple[int, ...]] = dict.fromkeys(COPIES, (0,))
        self.begun = 0

    def copied(self) -> World:
        other = World.__new__(World)
        other.records, other.writes = dict(self.records), dict(self.writes)
        other.begun = self.begun
        return other

    def open(self, source: int, others: tuple[int, ...]) -> bool:
        """Open `source` with the others and write something; False: refused, nothing changed."""
        mine = self.records[source]
        met = [self.records[each] for each in others]
        try:
            opening.check_source(mine, named="mine")
            for each in met:
                opening.standing(each, mine, "other", "mine", discard=False)
        except (SplitBrain, StaleReplica):
            return False
        self.begun += 1
        members = [uuid(each) for each in (source, *others)]
        epoch = opening.next_epoch(
            mine, met, members, identity=identity(self.begun), when_s=self.begun
        )
        told = {uuid(each): self.records[each] for each in (source, *others)}
        steps = change.Change(epoch, told, uuid(source))
        while not steps.begun:
            for copy in steps.writes():
                steps.written(copy)
        written = (*self.writes[source], self.begun)
        for each in (source, *others):
            self.records[each] = change.marked(steps.records[uuid(each)], Mark.CLEAN)
            self.writes[each] = written
        return True

    def truth(self, other: int, mine: int) -> Relation:
        """What really is the case: one chain of writes is the beginning of another, or not."""
        theirs, ours = self.writes[other], self.writes[mine]
        if theirs == ours:
            return Relation.SAME
        if ours[: len(theirs)] == theirs:
            return Relation.BEHIND
        if theirs[: len(ours)] == ours:
            return Relation.AHEAD
        return Relation.SPLIT


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def openings() -> list[tuple[int, tuple[int, ...]]]:
    return [
        (source, others)
        for source in COPIES
        for count in range(len(COPIES))
        for others in itertools.combinations([each for each in COPIES if each != source], count)
    ]


def test_all_histories_of_three_copies_up_to_length_four():
    found: Counter[Relation] = Counter()
    refused = 0
    worlds = [World()]
    for _ in range(LONGEST):
        following = []
        for world, (source, others) in itertools.product(worlds, openings()):
            after = world.copied()
            if not after.open(source, others):
                refused += 1
                continue
            following.append(after)
            for mine, other in itertools.permutations(COPIES, 2):
                wanted = after.truth(other, mine)
                assert relation(after.records[other], after.records[mine]) is wanted
                found[wanted] += 1
        worlds = following
    assert len(worlds) > 1000
    assert refused > 1000
    assert all(found[each] > 1000 for each in Relation if each is not Relation.UNRELATED)


@pytest.mark.parametrize("rule", ["identity", "past"])
def test_a_relation_that_looks_at_less_is_found_out(monkeypatch, rule):
    """Bare numbers, or no history: the test above has to notice."""
    if rule == "identity":
        monkeypatch.setattr(
            Epoch, "lineage", property(lambda epoch: frozenset([epoch.number])), raising=True
        )
        monkeypatch.setattr(Epoch, "past", property(lambda epoch: frozenset(range(epoch.number))))
        monkeypatch.setattr(
            f"{__name__}.relation",
            lambda other, mine: (
                Relation.SAME
                if other.epoch.number == mine.epoch.number
                else Relation.BEHIND
                if other.epoch.number < mine.epoch.number
                else Relation.AHEAD
            ),
        )
    else:
        monkeypatch.setattr(Epoch, "past", property(lambda _: frozenset()))
    with pytest.raises(AssertionError):
        test_all_histories_of_three_copies_up_to_length_four()


def record(epoch: Epoch, copy: int = 0, mark: Mark = Mark.CLEAN) -> CopyRecord:
    return CopyRecord(uuid(copy), epoch, mark)


def epoch(number: int, *past: int, name: int | None = None) -> Epoch:
    return Epoch(
        number,
        identity(number if name is None else name),
        (uuid(0), uuid(1)),
        (uuid(0), uuid(1)),
        2,
        tuple(Stamp(min(each, number - 1), identity(each)) for each in past),
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "wanted"),
    [
        (epoch(3, 2, 1), epoch(3, 2, 1), Relation.SAME),
        (epoch(2, 1), epoch(3, 2, 1), Relation.BEHIND),
        (epoch(3, 2, 1), epoch(2, 1), Relation.AHEAD),
        (epoch(3, 1, name=9), epoch(3, 1), Relation.SPLIT),
        (epoch(3, 1, name=9), epoch(2, 1), Relation.SPLIT),
        (epoch(5, 4, name=9), epoch(3, 2, 1), Relation.UNRELATED),
        (epoch(1), epoch(1, name=7), Relation.UNRELATED),
    ],
)
def test_the_table(theirs, ours, wanted):
    assert relation(record(theirs, 1), record(ours)) is wanted


def test_what_is_only_prepared_does_not_count():
    offered = CopyRecord(uuid(1), epoch(2, 1), Mark.CLEAN, epoch(3, 2, 1))
    assert relation(offered, record(epoch(2, 1))) is Relation.SAME
    assert relation(record(epoch(2, 1)), offered) is Relation.SAME
    assert relation(offered, record(epoch(3, 2, 1))) is Relation.BEHIND
