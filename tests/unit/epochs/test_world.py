"""Random histories of copies whose writers crash anywhere: the rules hold, and each is needed."""

from __future__ import annotations

from collections import Counter

import pytest

from rpmem.epochs import change, members, opening
from rpmem.epochs.record import CopyRecord, Epoch
from tests.support import epoch_world

SEEDS = 2000
#: Things that have to have happened often for the histories to mean something.
OFTEN = (
    "same", "behind", "ahead", "split", "equal", "cut off", "whole",
    "met: same", "met: behind", "met: ahead", "met: split",
    "refused: split-brain", "refused: stale-replica",
    "BEGUN -> JOINING", "CLEAN -> JOINING", "LEFT -> JOINING", "BEGUN -> LEFT",
    "BEGUN -> BEGUN+PREPARED", "CLEAN -> CLEAN+PREPARED", "JOINING -> JOINING+PREPARED",
    "BEGUN+PREPARED -> BEGUN", "CLEAN+PREPARED -> BEGUN", "JOINING+PREPARED -> BEGUN",
)  # fmt: skip
SELDOM = ("CLEAN -> BEGUN", "BEGUN+PREPARED -> BEGUN+PREPARED", "JOINING -> JOINING")


def test_nothing_acknowledged_is_overwritten_and_same_means_same():
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts += epoch_world.run(seed)
    assert [what for what in OFTEN if counts[what] < SEEDS // 20] == []
    assert [what for what in SELDOM if counts[what] < 5] == []


def wrong_within(seeds: int) -> bool:
    for seed in range(seeds):
        try:
            epoch_world.run(seed)
        except epoch_world.Wrong:
            return True
    return False


@pytest.mark.parametrize(
    "rule", ["joining is marked", "history", "complete", "identity", "a clean mark is removed"]
)
def test_each_rule_is_needed(monkeypatch, rule):
    if rule == "joining is marked":
        monkeypatch.setattr(members.Members, "_admit", lambda self, other, *, discard: None)
    elif rule == "history":
        monkeypatch.setattr(opening, "merged_history", lambda epochs: ())
    elif rule == "complete":
        monkeypatch.setattr(CopyRecord, "complete", property(lambda _: True))
    elif rule == "a clean mark is removed":
        monkeypatch.setattr(change, "marked", unmarking_nothing)
    else:
        # Bare numbers, counted up alike by two writers, as if they were identities.
        monkeypatch.setattr(
            Epoch, "past", property(lambda epoch: frozenset(map(name, range(1, epoch.number))))
        )
        monkeypatch.setattr(
            epoch_world.World, "_draw", lambda world, _: name(1 + max(numbers(world), default=0))
        )
    assert wrong_within(SEEDS)


def unmarking_nothing(record, mark):
    return record if mark is change.Mark.BEGUN else record.replaced(mark=mark)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def numbers(world: epoch_world.World) -> list[int]:
    return [each.epoch.number for each in world.records.values()]
