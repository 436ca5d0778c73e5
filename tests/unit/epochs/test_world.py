"""Random histories of copies whose writers crash anywhere: the rules hold, and each is needed."""

from __future__ import annotations

from collections import Counter

import pytest

from rpmem.epochs import change, opening
from rpmem.epochs.record import CopyRecord, Epoch
from tests.support import epoch_world

SEEDS = 2000


def test_nothing_acknowledged_is_overwritten_and_same_means_same():
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts += epoch_world.run(seed)
    for what in ("same", "behind", "ahead", "split", "equal", "cut off", "whole"):
        assert counts[what] > SEEDS // 10, counts
    assert counts["refused: split-brain"] > SEEDS // 10
    assert counts["refused: stale-replica"] > SEEDS // 10
    assert counts["split, sent"] > SEEDS // 20


def wrong_within(seeds: int) -> bool:
    for seed in range(seeds):
        try:
            epoch_world.run(seed)
        except epoch_world.Wrong:
            return True
    return False


@pytest.mark.parametrize("rule", ["joining is marked", "history", "complete", "identity"])
def test_each_rule_is_needed(monkeypatch, rule):
    if rule == "joining is marked":
        monkeypatch.setattr(change, "joining", lambda record, *_, **__: record)
    elif rule == "history":
        monkeypatch.setattr(opening, "merged_history", lambda epochs: ())
    elif rule == "complete":
        monkeypatch.setattr(CopyRecord, "complete", property(lambda _: True))
    else:
        monkeypatch.setattr(
            Epoch, "past", property(lambda epoch: frozenset(map(_name, range(1, epoch.number))))
        )
        monkeypatch.setattr(
            epoch_world.World, "_new", lambda world: _name(1 + max(_numbers(world), default=0))
        )
    assert wrong_within(SEEDS)


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _numbers(world: epoch_world.World) -> list[int]:
    world.begun += 1
    return [each.epoch.number for each in getattr(world, "records", {}).values()]
